"""TODO: say what kindsight.images.formats is."""
