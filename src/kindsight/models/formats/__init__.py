"""TODO: say what kindsight.models.formats is."""
