"""TODO: say what kindsight.dataset.reading is."""
