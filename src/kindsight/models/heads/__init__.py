"""TODO: say what kindsight.models.heads is."""
