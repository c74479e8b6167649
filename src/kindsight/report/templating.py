"""What turns the templates into pages: everything from outside is escaped."""

from __future__ import annotations

import functools
import re

from jinja2 import Environment, PackageLoader, StrictUndefined

from kindsight.report import figures, words

__all__ = ["clean", "environment", "is_small_image"]

# control characters, halves of surrogate pairs (undecodable bytes of file names) and marks that
# turn the direction of text could break the page or make a name look like another
_UNSEEN = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff"
    "\ufffe\uffff]"
)

_MAX_IMAGE = 1 << 16
_IMAGE = re.compile(r"data:image/(?:jpeg|png);base64,[A-Za-z0-9+/]+={0,2}")


def is_small_image(address: str) -> bool:
    """Say whether an address holds a small image, and nothing else."""
    return len(address) <= _MAX_IMAGE and _IMAGE.fullmatch(address) is not None


def clean(page: str) -> str:
    """Return a page without characters that could break it or turn the direction of its text."""
    return _UNSEEN.sub("\N{REPLACEMENT CHARACTER}", page)


@functools.cache
def environment() -> Environment:
    """Return what fills in the templates: everything escaped, with the report's own filters."""
    made = Environment(
        loader=PackageLoader("kindsight.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters.update(
        percent=words.percent,
        interval=words.interval,
        duration=words.duration,
        elide=words.elide,
        amount=words.amount,
        shade=figures.heat,
    )
    made.globals.update(
        draw_interval=figures.draw_interval,
        draw_stage=figures.draw_stage,
        scale_start=figures.scale_start,
    )
    return made
