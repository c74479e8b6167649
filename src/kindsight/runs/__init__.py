"""Trainings from settings to a run folder, and the work of ``kindsight check``."""
