"""TODO: say what kindsight.training.fine_tuning is."""
