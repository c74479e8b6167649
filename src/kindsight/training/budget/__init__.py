"""TODO: say what kindsight.training.budget is."""
