"""TODO: say what kindsight.training.engine is."""
