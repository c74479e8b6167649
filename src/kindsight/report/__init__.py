"""The report of a run: one HTML page that needs nothing but itself."""

from __future__ import annotations

from kindsight.report.data import (
    MAX_CARDS,
    HeadChoice,
    Predictions,
    Problem,
    Reference,
    ReportData,
    ThumbnailCard,
    TrainedOn,
)
from kindsight.report.page import render_report
from kindsight.report.thumbnails import (
    make_cards,
    most_doubtful,
    thumbnail_uri,
    worst_mistakes,
)

__all__ = [
    "MAX_CARDS",
    "HeadChoice",
    "Predictions",
    "Problem",
    "Reference",
    "ReportData",
    "ThumbnailCard",
    "TrainedOn",
    "make_cards",
    "most_doubtful",
    "render_report",
    "thumbnail_uri",
    "worst_mistakes",
]
