"""Trainings, from settings to a run folder, and what other commands do with runs and data."""
