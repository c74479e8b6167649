"""The contact sheet of predictions: an HTML page of images, least confident first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from kindsight.report.templating import clean, environment, is_small_image

__all__ = ["DOUBTFUL", "SheetImage", "SuggestedImage", "render_sheet", "render_suggestions"]

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

    - `images`: those shown, in order.
    - `confidences`: of all readable images, also of those not shown.
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

    - `images`: those shown, in order.
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
