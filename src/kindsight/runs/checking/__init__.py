"""Check a dataset from the data folder to the report, as ``kindsight check`` does."""

from kindsight.runs.checking.report import CheckReport, CheckSettings
from kindsight.runs.checking.run import check_data, check_dataset, open_for_checking
from kindsight.runs.checking.write import write_report

__all__ = [
    "CheckReport", "CheckSettings", "check_data", "check_dataset", "open_for_checking",
    "write_report",
]  # fmt: skip
