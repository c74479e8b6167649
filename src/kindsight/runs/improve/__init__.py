"""Controlled experiments on a finished run: what helps it, by how much, and the best of it."""

from __future__ import annotations

from kindsight.runs.improve.result import ImproveResult
from kindsight.runs.improve.run import improve

__all__ = ["ImproveResult", "improve"]
