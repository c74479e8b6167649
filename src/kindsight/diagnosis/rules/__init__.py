"""The rules: pure functions from the evidence to a finding or None, one module per subject."""
