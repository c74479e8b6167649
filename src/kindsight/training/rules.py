"""Rules that a setting is held to: each gives the sentence that says how it was broken."""

from __future__ import annotations

import difflib
from collections.abc import Sequence

import numpy as np

__all__ = ["choice_fault", "number_fault", "whole_fault"]


def choice_fault(name: str, value: object, choices: Sequence[str]) -> str:
    """Say that a value is none of the choices, with the nearest; "" where it is one."""
    if isinstance(value, str) and value in choices:
        return ""
    near = difflib.get_close_matches(str(value), choices, 1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    return f"{name} must be one of {', '.join(choices)}. Received: {value!r}.{hint}"


def whole_fault(name: str, value: object, least: int, most: int) -> str:
    """Say that a value is no whole number within bounds; "" where it is one."""
    whole = isinstance(value, (int, np.integer)) and not isinstance(value, bool)
    if whole and least <= int(value) <= most:  # type: ignore[call-overload]
        return ""
    return f"{name} must be a whole number from {least} to {most:,}. Received: {value!r}."


def number_fault(
    name: str, value: object, least: float, below: float, *, open_low: bool = False
) -> str:
    """Say that a value is no number from `least` to below `below`; "" where it is one."""
    real = isinstance(value, (int, float, np.number)) and not isinstance(value, bool)
    if real and (least < value if open_low else least <= value) and value < below:  # type: ignore[operator]
        return ""
    start = f"above {least:g}" if open_low else f"from {least:g}"
    return f"{name} must be a number {start} to below {below:g}. Received: {value!r}."
