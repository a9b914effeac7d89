"""Other libraries' ways of writing models, for people in transition."""
