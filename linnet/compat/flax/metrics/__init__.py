"""Writing metrics."""
