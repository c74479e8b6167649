"""From what checks found to a page: one HTML file that needs nothing but itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from kindsight.report.templating import clean, environment, is_small_image

__all__ = [
    "MAX_IMAGES",
    "FindingsData",
    "FindingsSection",
    "QuietCheck",
    "ShownFinding",
    "ShownImage",
    "render_findings",
]

# SECTION: What the page of findings shows, before it is a page.


@dataclass(frozen=True)
class ShownImage:
    """One image of a finding.

    Parameters
    ----------
    path : str
        Its name.
    image : str
        A small image as an address that holds the whole file; empty where it cannot be shown.
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
    """One finding with the images that are shown of it.

    Parameters
    ----------
    message : str
        One sentence.
    severity : str
        ``"error"``, ``"warning"`` or ``"note"``.
    images : tuple of ShownImage
        Some of them, or all; empty where it is about something else.
    names : tuple of str
        Of what it is about, where that is no image of the dataset: some, or all.
    count : int
        How many images or names there are.
    suggestion : str
        What could be put in place; empty where there is none.
    """

    message: str
    severity: str
    images: tuple[ShownImage, ...] = ()
    names: tuple[str, ...] = ()
    count: int = 1
    suggestion: str = ""

    @property
    def hidden(self) -> bool:
        """Whether it is about one image, which cannot be shown."""
        return self.count == 1 and len(self.images) == 1 and not self.images[0].image


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
    images : int
        How many images they are about; 0 where they are about something else.
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
    images: int = 0
    remark: str = ""


@dataclass(frozen=True)
class QuietCheck:
    """A check that found nothing.

    Parameters
    ----------
    code, title : str
        The check's.
    state : str
        ``"passed"``, ``"not applicable"``, ``"skipped"`` or ``"ignored"``.
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
    images, readable : int
        How many there are, and how many can be read.
    classes : mapping of str to int
        Class to number of images.
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
    images: int
    readable: int
    classes: Mapping[str, int]
    counts: Mapping[str, int]
    sections: tuple[FindingsSection, ...]
    quiet: tuple[QuietCheck, ...]
    notes: tuple[str, ...] = ()
    seconds: Mapping[str, float] = field(default_factory=dict)
    version: str = ""


MAX_IMAGES = 500
"""Images shown on one page, at some 6 kB each."""


def render_findings(data: FindingsData) -> str:
    """Make the page of findings.

    Parameters
    ----------
    data : FindingsData
        Names, messages and labels in it may hold anything: they are escaped, shortened where they
        are very long, and freed of control characters.

    Returns
    -------
    str
        One HTML page that fetches nothing and runs no script, encodable as UTF-8.
    """
    page = (
        environment()
        .get_template("findings.html.j2")
        .render(
            data=data,
            sections=_with_sound_images(data.sections),
            total=sum(data.counts.values()),
            states=_states(data),
        )
    )
    return clean(page)


def _states(data: FindingsData) -> list[tuple[str, int]]:
    order = ("passed", "not applicable", "skipped", "ignored")
    found = [check.state for check in data.quiet]
    return [(state, found.count(state)) for state in order if state in found]


def _with_sound_images(sections: tuple[FindingsSection, ...]) -> list[FindingsSection]:
    """Leave out images that are none, and all beyond the limit."""
    left = MAX_IMAGES
    kept = []
    for section in sections:
        findings = []
        for finding in section.findings:
            images = []
            for image in finding.images:
                sound = left > 0 and is_small_image(image.image)
                left -= sound
                images.append(image if sound else replace(image, image=""))
            findings.append(replace(finding, images=tuple(images)))
        kept.append(replace(section, findings=tuple(findings)))
    return kept
