"""TODO: say what kindsight.models.worker is."""
