"""Diagnosis of a run: its evidence from the run folder and the data, and ``diagnosis.json``."""

from __future__ import annotations

from kindsight.runs.diagnosing.run import diagnose, diagnose_training

__all__ = ["diagnose", "diagnose_training"]
