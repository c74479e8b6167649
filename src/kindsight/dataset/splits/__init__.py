"""TODO: say what kindsight.dataset.splits is."""
