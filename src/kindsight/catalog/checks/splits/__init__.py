"""Checks of splits."""

from kindsight.catalog.checks.contract import Check

CHECKS: tuple[type[Check], ...] = ()
