"""A pattern on names: a regular expression, and the group of it that is meant."""

from __future__ import annotations

import re

from kindsight.errors import SettingsError

__all__ = ["NamePattern"]

LONGEST = 255
"""Characters of a name, or of a path, that are looked at: a pattern can be slow in long texts."""


class NamePattern:
    """A regular expression of which one group is what is looked for.

    Parameters
    ----------
    text : str
        The expression. With a ``/`` in it, it is looked for in the whole path, otherwise in the
        last part of it.
    group : str
        The name of the group that is meant; the first, if no group has that name.

    Raises
    ------
    SettingsError
        If it is no regular expression, or has no group.
    """

    def __init__(self, text: str, group: str) -> None:
        if fault := self.fault(text):
            raise SettingsError(f"A pattern on names {fault}")
        self.text = text
        self._pattern = re.compile(text)
        self._group: str | int = group if group in self._pattern.groupindex else 1
        self._whole = "/" in text

    @staticmethod
    def fault(text: object) -> str | None:
        """Say what is wrong with a pattern; None where nothing is."""
        rule = r"must be a regular expression with a group, such as '^(.+?)_\d+'."
        if not isinstance(text, str):
            return f"{rule} Received: {text!r}."
        try:
            groups = re.compile(text).groups
        except (re.error, RecursionError, OverflowError) as error:
            return f"{rule} Received: {text!r} ({error})."
        return None if groups else f"{rule} Received: {text!r}, without parentheses."

    def find(self, path: str) -> str | None:
        """Return what the pattern finds in a path; None where it finds nothing, or no text."""
        name = path if self._whole else path.rpartition("/")[2]
        match = self._pattern.search(name[:LONGEST])
        found = match[self._group] if match else None
        return (found.strip() or None) if found else None
