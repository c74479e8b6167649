"""The HTML report of ``kindsight check``: its content, and its rendering into one file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from kindsight.report.templating import clean, environment, is_small_image

__all__ = [
    "MAX_IMAGES",
    "CheckState",
    "FindingsData",
    "FindingsSection",
    "ShownFinding",
    "ShownImage",
    "render_findings",
]

MAX_IMAGES = 500
"""Maximum images on a page, of about 6 kB each."""


@dataclass(frozen=True)
class ShownImage:
    """One image of a finding.

    Parameters
    ----------
    path : str
    image : str
        Thumbnail as a data URL; empty for unreadable images.
    label, split : str
        Empty if it has none.
    caption : str
        Dimensions in pixels and file size.
    """

    path: str
    image: str = ""
    label: str = ""
    split: str = ""
    caption: str = ""


@dataclass(frozen=True)
class ShownFinding:
    """One finding with the images that are shown.

    Parameters
    ----------
    message : str
        One sentence.
    severity : str
        ``"error"``, ``"warning"`` or ``"note"``.
    images : tuple of ShownImage
        Some or all images; empty if the finding is not about images.
    names : tuple of str
        Some or all names of files, folders, splits or classes otherwise.
    count : int
        Number of all images or names.
    suggestion : str
        Proposed replacement; empty if there is none.
    """

    message: str
    severity: str
    images: tuple[ShownImage, ...] = ()
    names: tuple[str, ...] = ()
    count: int = 1
    suggestion: str = ""

    @property
    def hidden(self) -> bool:
        """Whether it is about a single image without a thumbnail."""
        return self.count == 1 and len(self.images) == 1 and not self.images[0].image


@dataclass(frozen=True)
class FindingsSection:
    """The findings of one check.

    Parameters
    ----------
    code, title, description, advice : str
        Those of the check.
    severity : str
        Highest severity of the findings.
    findings : tuple of ShownFinding
        Some or all findings.
    count : int
        Number of all findings.
    images : int
        Number of affected images; 0 if the findings are not about images.
    limitation : str
        What the check could not examine; empty otherwise.
    """

    code: str
    title: str
    severity: str
    description: str
    advice: str
    findings: tuple[ShownFinding, ...]
    count: int
    images: int = 0
    limitation: str = ""


@dataclass(frozen=True)
class CheckState:
    """The state of a check without findings.

    Parameters
    ----------
    code, title : str
        Those of the check.
    state : str
        ``"passed"``, ``"not applicable"``, ``"skipped"`` or ``"ignored"``.
    reason : str
        Why it is not applicable or was skipped.
    """

    code: str
    title: str
    state: str
    reason: str = ""


@dataclass(frozen=True)
class FindingsData:
    """The content of the page.

    Parameters
    ----------
    source : str
        The data as given by the user.
    created : str
        Date and time.
    images, readable : int
        Numbers of all images and of the readable ones.
    classes : mapping of str to int
        Images per class.
    counts : mapping of str to int
        Findings per severity.
    sections : tuple of FindingsSection
        Most severe first.
    other_checks : tuple of CheckState
        The checks without findings, by code.
    notes : tuple of str
        One sentence each.
    seconds : mapping of str to float
        Seconds per stage.
    version : str
        Version of kindsight.
    """

    source: str
    created: str
    images: int
    readable: int
    classes: Mapping[str, int]
    counts: Mapping[str, int]
    sections: tuple[FindingsSection, ...]
    other_checks: tuple[CheckState, ...]
    notes: tuple[str, ...] = ()
    seconds: Mapping[str, float] = field(default_factory=dict)
    version: str = ""


def render_findings(data: FindingsData) -> str:
    """Return the page as HTML that loads nothing and runs no script, encodable as UTF-8.

    Parameters
    ----------
    data : FindingsData
        Its texts may contain anything: they are escaped, shortened if very long, and stripped of
        control characters.
    """
    states = [check.state for check in data.other_checks]
    order = ("passed", "not applicable", "skipped", "ignored")
    page = (
        environment()
        .get_template("findings.html.j2")
        .render(
            data=data,
            sections=_with_valid_images(data.sections),
            total=sum(data.counts.values()),
            states=[(state, states.count(state)) for state in order if state in states],
        )
    )
    return clean(page)


def _with_valid_images(sections: tuple[FindingsSection, ...]) -> list[FindingsSection]:
    """Remove invalid thumbnails, and all beyond the limit."""
    left = MAX_IMAGES
    valid_sections = []
    for section in sections:
        findings = []
        for finding in section.findings:
            images = []
            for image in finding.images:
                valid = left > 0 and is_small_image(image.image)
                left -= valid
                images.append(image if valid else replace(image, image=""))
            findings.append(replace(finding, images=tuple(images)))
        valid_sections.append(replace(section, findings=tuple(findings)))
    return valid_sections
