"""The report of a run: one HTML page that needs nothing but itself.

The names below are imported when they are first used: the page of findings needs few of them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kindsight.lazy import lazy_names

if TYPE_CHECKING:
    from kindsight.report.data import MAX_CARDS as MAX_CARDS
    from kindsight.report.data import HeadChoice as HeadChoice
    from kindsight.report.data import Predictions as Predictions
    from kindsight.report.data import Problem as Problem
    from kindsight.report.data import Reference as Reference
    from kindsight.report.data import ReportData as ReportData
    from kindsight.report.data import ThumbnailCard as ThumbnailCard
    from kindsight.report.data import TrainedOn as TrainedOn
    from kindsight.report.page import prepare_report as prepare_report
    from kindsight.report.page import render_report as render_report
    from kindsight.report.thumbnails import make_cards as make_cards
    from kindsight.report.thumbnails import most_doubtful as most_doubtful
    from kindsight.report.thumbnails import thumbnail_uri as thumbnail_uri
    from kindsight.report.thumbnails import worst_mistakes as worst_mistakes

_HOMES = {
    "MAX_CARDS": "data",
    "HeadChoice": "data",
    "Predictions": "data",
    "Problem": "data",
    "Reference": "data",
    "ReportData": "data",
    "ThumbnailCard": "data",
    "TrainedOn": "data",
    "make_cards": "thumbnails",
    "most_doubtful": "thumbnails",
    "prepare_report": "page",
    "render_report": "page",
    "thumbnail_uri": "thumbnails",
    "worst_mistakes": "thumbnails",
}

__all__ = sorted(_HOMES)  # noqa: PLE0605

__getattr__, __dir__ = lazy_names(__name__, _HOMES)
