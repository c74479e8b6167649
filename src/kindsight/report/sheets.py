"""The pages of other commands: findings of a check, and contact sheets of predictions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from kindsight.report.templating import clean, environment, is_small_image

__all__ = [
    "MAX_IMAGES", "CheckState", "FindingsData", "FindingsSection", "SheetImage", "ShownFinding",
    "ShownImage", "SuggestedImage", "render_findings", "render_sheet", "render_suggestions",
]  # fmt: skip

MAX_IMAGES = 500
"""Maximum images on a page, of about 6 kB each."""


@dataclass(frozen=True)
class ShownImage:
    """One image of a finding."""

    path: str
    image: str = ""  # thumbnail as a data URL; empty for unreadable images
    # empty if it has none
    label: str = ""
    split: str = ""
    caption: str = ""  # dimensions in pixels and file size


@dataclass(frozen=True)
class ShownFinding:
    """One finding with the images that are shown."""

    message: str  # one sentence
    severity: str  # ``"error"``, ``"warning"`` or ``"note"``
    # some or all images; empty if the finding is not about images
    images: tuple[ShownImage, ...] = ()
    names: tuple[str, ...] = ()  # some or all names of files, folders, splits or classes otherwise
    count: int = 1  # number of all images or names
    suggestion: str = ""  # proposed replacement; empty if there is none

    @property
    def hidden(self) -> bool:
        """Whether it is about a single image without a thumbnail."""
        return self.count == 1 and len(self.images) == 1 and not self.images[0].image


@dataclass(frozen=True)
class FindingsSection:
    """The findings of one check."""

    # those of the check
    code: str
    title: str
    severity: str  # highest severity of the findings
    description: str
    advice: str
    findings: tuple[ShownFinding, ...]  # some or all findings
    count: int  # number of all findings
    images: int = 0  # number of affected images; 0 if the findings are not about images
    limitation: str = ""  # limitation of the check's result; empty if there is none


@dataclass(frozen=True)
class CheckState:
    """The state of a check without findings."""

    # those of the check
    code: str
    title: str
    state: str  # ``"passed"``, ``"not applicable"``, ``"skipped"`` or ``"ignored"``
    reason: str = ""  # why it is not applicable or was skipped


@dataclass(frozen=True)
class FindingsData:
    """The content of the page."""

    source: str  # the data as given by the user
    created: str  # date and time
    # numbers of all images and of the readable ones
    images: int
    readable: int
    classes: Mapping[str, int]  # images per class
    counts: Mapping[str, int]  # findings per severity
    sections: tuple[FindingsSection, ...]  # most severe first
    other_checks: tuple[CheckState, ...]  # the checks without findings, by code
    notes: tuple[str, ...] = ()  # one sentence each
    seconds: Mapping[str, float] = field(default_factory=dict)  # seconds per stage
    version: str = ""  # version of kindsight


def render_findings(data: FindingsData) -> str:
    """Return the page as HTML that loads nothing and runs no script, encodable as UTF-8.

    - `data`: its texts may contain anything: they are escaped, shortened if very long, and stripped
      of control characters.
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


DOUBTFUL = 0.8
"""Predictions below this confidence are marked and counted."""


@dataclass(frozen=True)
class SheetImage:
    """An image on the sheet.

    Parameters
    ----------
    path : str
    image : str or None
        The thumbnail as a ``data:`` URI.
    top : sequence of (str, float)
        The two most probable classes with their probabilities; empty if unreadable.
    error : str
        Why the image could not be read; empty otherwise.
    reason : str
        Why it has no label, unsure or unknown; empty otherwise.
    """

    path: str
    image: str | None
    top: Sequence[tuple[str, float]]
    error: str = ""
    reason: str = ""


def render_sheet(
    bundle: str,
    images: Sequence[SheetImage],
    confidences: Sequence[float],
    *,
    unreadable: int,
    created: str,
    undecided: int = 0,
) -> str:
    """Return the page as HTML that loads nothing and runs no script, encodable as UTF-8.

    - `images`: the images that are shown, in order.
    - `confidences`: confidences of all readable images, shown or not.
    - `unreadable`: number of all unreadable images.
    - `undecided`: number of all images without a label, unsure or unknown.
    """
    valid = [
        image if image.image is None or is_small_image(image.image)
        else replace(image, image=None)
        for image in images
    ]  # fmt: skip
    page = (
        environment()
        .get_template("predictions.html.j2")
        .render(
            bundle=bundle,
            images=valid,
            total=len(confidences) + unreadable,
            readable=len(confidences),
            unreadable=unreadable,
            undecided=undecided,
            doubtful=sum(confidence < DOUBTFUL for confidence in confidences),
            limit=DOUBTFUL,
            created=created,
        )
    )
    return clean(page)


@dataclass(frozen=True)
class SuggestedImage:
    """An image to label next, on its sheet.

    Parameters
    ----------
    rank : int
    path : str
    image : str or None
        The thumbnail as a ``data:`` URI.
    prediction : str
        The most probable class.
    confidence : float
        Its probability, 0-1.
    reason : str
    unknown : bool
        Whether the classifier calls it unknown.
    """

    rank: int
    path: str
    image: str | None
    prediction: str
    confidence: float
    reason: str
    unknown: bool = False


def render_suggestions(
    bundle: str, images: Sequence[SuggestedImage], *, total: int, lead: str, created: str
) -> str:
    """Return the page of suggested images as HTML that loads nothing and runs no script.

    - `images`: the images that are shown, in order.
    - `total`: number of all suggested images.
    - `lead`: a sentence on the images that are not suggested; may be empty.
    """
    valid = [
        image if image.image is None or is_small_image(image.image) else replace(image, image=None)
        for image in images
    ]
    page = (
        environment()
        .get_template("suggestions.html.j2")
        .render(bundle=bundle, images=valid, total=total, lead=lead, created=created)
    )
    return clean(page)
