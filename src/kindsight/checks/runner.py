"""Running checks, and silencing some of them."""

from __future__ import annotations

import difflib
import functools
from collections.abc import Callable, Collection, Iterable

from kindsight.checks.check import Check, CheckResult
from kindsight.checks.context import CheckContext
from kindsight.checks.rules import KINDS, RULES
from kindsight.errors import SettingsError

__all__ = [
    "IGNORED",
    "KINDS",
    "all_checks",
    "known_codes",
    "run_checks",
    "validate_codes",
]

# SECTION: All checks there are.


@functools.cache
def all_checks() -> tuple[Check, ...]:
    """Return every check, in the order of their codes."""
    return tuple(sorted((rule() for rule in RULES), key=lambda check: check.code))


def known_codes() -> tuple[str, ...]:
    """Return the codes of all checks, in order."""
    return tuple(check.code for check in all_checks())


IGNORED = "It was ignored."
"""The reason of a check that was skipped because it was to be ignored."""

COSTLY = "It needs features of all images: ask for the full checks."


def run_checks(
    context: CheckContext,
    *,
    checks: Iterable[Check] | None = None,
    ignore: Collection[str] = (),
    full: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[CheckResult, ...]:
    """Ask every check.

    Parameters
    ----------
    context : CheckContext
        What they look at.
    checks : iterable of Check, optional
        Which; all if omitted.
    ignore : collection of str
        Codes of checks that are skipped and said to be ignored.
    full : bool
        Whether costly checks run too; they are skipped otherwise.
    progress : callable, optional
        Called with (checks done, checks in all).

    Returns
    -------
    tuple of CheckResult
        One for each check, in the order of their codes.

    Raises
    ------
    SettingsError
        For a code that no check has.
    """
    chosen = sorted(all_checks() if checks is None else checks, key=lambda check: check.code)
    validate_codes(ignore)
    results: list[CheckResult] = []
    for check in chosen:
        if progress is not None:
            progress(len(results), len(chosen))
        if check.code in ignore:
            results.append(check.skipped(IGNORED))
        elif check.cost == "full" and not full:
            results.append(check.skipped(COSTLY))
        else:
            results.append(check.run(context))
    if progress is not None:
        progress(len(results), len(chosen))
    return tuple(results)


def validate_codes(codes: Collection[str]) -> None:
    """Raise SettingsError, naming every code that no check has with the nearest that one has."""
    known = known_codes()
    faults = []
    for code in codes:
        if code not in known:
            near = difflib.get_close_matches(str(code).upper(), known, 1)
            hint = f" Did you mean {near[0]}?" if near else f" There are: {', '.join(known)}."
            faults.append(f"ignore must name checks by their codes. Received: {code!r}.{hint}")
    if faults:
        raise SettingsError("\n".join(faults))
