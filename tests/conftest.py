"""Strictness, in one place. Warnings are errors by pyproject.toml."""

import hypothesis
import jax

jax.config.update("jax_numpy_rank_promotion", "raise")

# The same examples on every run and machine; compilation makes the first one slow.
hypothesis.settings.register_profile("linnet", deadline=None, derandomize=True)
hypothesis.settings.load_profile("linnet")
