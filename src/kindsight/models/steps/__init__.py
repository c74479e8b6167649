"""TODO: say what kindsight.models.steps is."""
