"""Checks of labels: contradictions, probable mistakes, and what no label can be right for."""

from kindsight.catalog.checks.contract import Check
from kindsight.catalog.checks.labels.apart import ClassesAlike
from kindsight.catalog.checks.labels.contradicting import SamePictureSeveralLabels
from kindsight.catalog.checks.labels.contradicting_copies import CopiesSeveralLabels
from kindsight.catalog.checks.labels.outliers import Outliers
from kindsight.catalog.checks.labels.wrong import WrongLabels

CHECKS: tuple[type[Check], ...] = (
    SamePictureSeveralLabels,
    CopiesSeveralLabels,
    WrongLabels,
    Outliers,
    ClassesAlike,
)
