"""Diagnosis of a finished training: what limits it, the evidence, and what to try first."""

from __future__ import annotations

from kindsight.diagnosis.diagnosis import Diagnosis
from kindsight.diagnosis.evidence import RunEvidence
from kindsight.diagnosis.rules import diagnose

__all__ = ["Diagnosis", "RunEvidence", "diagnose"]
