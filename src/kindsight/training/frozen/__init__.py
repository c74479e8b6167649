"""TODO: say what kindsight.training.frozen is."""
