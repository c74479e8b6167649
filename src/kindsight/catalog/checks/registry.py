"""All checks there are."""

from __future__ import annotations

import functools
import importlib

from kindsight.catalog.checks.contract import Check

__all__ = ["KINDS", "all_checks", "known_codes"]

KINDS = ("files", "content", "duplicates", "labels", "splits", "balance")
"""The packages of checks; the place of each, from 1, is the first digit of its codes."""


@functools.cache
def all_checks() -> tuple[Check, ...]:
    """Return every check, in the order of their codes."""
    checks = []
    for kind in KINDS:
        package = importlib.import_module(f"kindsight.catalog.checks.{kind}")
        checks += [check() for check in package.CHECKS]
    return tuple(sorted(checks, key=lambda check: check.code))


def known_codes() -> tuple[str, ...]:
    """Return the codes of all checks, in order."""
    return tuple(check.code for check in all_checks())
