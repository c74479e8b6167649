"""TODO: say what kindsight.models.networks is."""
