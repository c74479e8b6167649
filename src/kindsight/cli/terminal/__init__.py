"""TODO: say what kindsight.cli.terminal is."""
