"""Checking data from the folder to the report: what ``kindsight check`` does."""

from kindsight.checking.opening import open_for_checking
from kindsight.checking.report import CheckReport
from kindsight.checking.run import check_catalog, check_data
from kindsight.checking.settings import CheckSettings
from kindsight.checking.writing import write_report

__all__ = [
    "CheckReport",
    "CheckSettings",
    "check_catalog",
    "check_data",
    "open_for_checking",
    "write_report",
]
