"""TODO: say what kindsight.runs is."""
