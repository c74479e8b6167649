"""TODO: say what kindsight.cache is."""
