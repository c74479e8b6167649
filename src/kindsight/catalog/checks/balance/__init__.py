"""Checks of balance: how many pictures each class has, and what that is enough for."""

from kindsight.catalog.checks.balance.few import FewPictures
from kindsight.catalog.checks.balance.intervals import RoughRecalls
from kindsight.catalog.checks.balance.uneven import UnevenClasses
from kindsight.catalog.checks.contract import Check

CHECKS: tuple[type[Check], ...] = (FewPictures, UnevenClasses, RoughRecalls)
