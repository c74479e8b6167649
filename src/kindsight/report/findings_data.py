"""What the page of findings shows, before it is a page."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

__all__ = [
    "FindingsData",
    "FindingsSection",
    "QuietCheck",
    "ShownFinding",
    "ShownPicture",
]


@dataclass(frozen=True)
class ShownPicture:
    """One picture of a finding.

    Parameters
    ----------
    path : str
        Its name.
    image : str
        A small picture as an address that holds the whole file; empty where it cannot be shown.
    label, split : str
        Empty where it has none.
    caption : str
        Its size and the like.
    """

    path: str
    image: str = ""
    label: str = ""
    split: str = ""
    caption: str = ""


@dataclass(frozen=True)
class ShownFinding:
    """One finding with the pictures that are shown of it.

    Parameters
    ----------
    message : str
        One sentence.
    severity : str
        ``"error"``, ``"warning"`` or ``"note"``.
    pictures : tuple of ShownPicture
        Some of them, or all; empty where it is about something else.
    names : tuple of str
        Of what it is about, where that is no picture of the catalog: some, or all.
    count : int
        How many pictures or names there are.
    suggestion : str
        What could be put in place; empty where there is none.
    """

    message: str
    severity: str
    pictures: tuple[ShownPicture, ...] = ()
    names: tuple[str, ...] = ()
    count: int = 1
    suggestion: str = ""

    @property
    def hidden(self) -> bool:
        """Whether it is about one picture, which cannot be shown."""
        return self.count == 1 and len(self.pictures) == 1 and not self.pictures[0].image


@dataclass(frozen=True)
class FindingsSection:
    """What one check found.

    Parameters
    ----------
    code, title, severity : str
        The check's; of the severest finding.
    about, advice : str
        What is found, and what to do.
    findings : tuple of ShownFinding
        Some of them, or all.
    count : int
        How many there are.
    pictures : int
        How many pictures they are about; 0 where they are about something else.
    remark : str
        What could not be looked at; empty otherwise.
    """

    code: str
    title: str
    severity: str
    about: str
    advice: str
    findings: tuple[ShownFinding, ...]
    count: int
    pictures: int = 0
    remark: str = ""


@dataclass(frozen=True)
class QuietCheck:
    """A check that found nothing.

    Parameters
    ----------
    code, title : str
        The check's.
    state : str
        ``"passed"``, ``"not applicable"``, ``"skipped"`` or ``"silenced"``.
    reason : str
        Why it did not look, if it did not.
    """

    code: str
    title: str
    state: str
    reason: str = ""


@dataclass(frozen=True)
class FindingsData:
    """Everything on the page.

    Parameters
    ----------
    source : str
        What was checked.
    created : str
        When.
    pictures, readable : int
        How many there are, and how many can be read.
    classes : mapping of str to int
        Class to number of pictures.
    counts : mapping of str to int
        Severity to number of findings.
    sections : tuple of FindingsSection
        The severest first.
    quiet : tuple of QuietCheck
        The other checks, by code.
    notes : tuple of str
        One sentence each.
    seconds : mapping of str to float
        Where the time went.
    version : str
        Of kindsight.
    """

    source: str
    created: str
    pictures: int
    readable: int
    classes: Mapping[str, int]
    counts: Mapping[str, int]
    sections: tuple[FindingsSection, ...]
    quiet: tuple[QuietCheck, ...]
    notes: tuple[str, ...] = ()
    seconds: Mapping[str, float] = field(default_factory=dict)
    version: str = ""
