"""TODO: say what kindsight.training.network is."""
