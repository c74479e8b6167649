"""TODO: say what kindsight.explain is."""
