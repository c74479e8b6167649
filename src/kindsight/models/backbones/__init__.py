"""TODO: say what kindsight.models.backbones is."""
