"""TODO: say what kindsight.training.transfer is."""
