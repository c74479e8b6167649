"""TODO: say what kindsight.dataset.loaders is."""
