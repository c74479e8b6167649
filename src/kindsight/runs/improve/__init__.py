"""Controlled experiments on a finished run: which changes help, and by how much."""

from __future__ import annotations

from kindsight.runs.improve.result import ImproveResult
from kindsight.runs.improve.run import improve

__all__ = ["ImproveResult", "improve"]
