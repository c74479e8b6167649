"""Checks of content."""

from kindsight.catalog.checks.contract import Check

CHECKS: tuple[type[Check], ...] = ()
