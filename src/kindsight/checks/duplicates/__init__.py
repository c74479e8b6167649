"""TODO: say what kindsight.checks.duplicates is."""
