"""The Jinja environment of the reports, and the cleaning of their output."""

from __future__ import annotations

import base64
import functools
import hashlib
import re

from jinja2 import Environment, PackageLoader, StrictUndefined

from kindsight.encoding import valid_text
from kindsight.report.drawing.figures import draw_interval, draw_stage, scale_start
from kindsight.report.format import amount, duration, elide, interval, percent

__all__ = ["clean", "environment", "is_small_image", "script_digest"]

# Control characters could break the page; characters that change the direction of text could
# disguise a name.
_UNSAFE = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufffe\uffff]"
)

_MAX_URI = 1 << 16
_IMAGE = re.compile(r"data:image/(?:jpeg|png);base64,[A-Za-z0-9+/]+={0,2}")


def is_small_image(uri: str) -> bool:
    """Return whether a URI contains a small image and nothing else."""
    return len(uri) <= _MAX_URI and _IMAGE.fullmatch(uri) is not None


def clean(page: str) -> str:
    """Return a page without control characters and text-direction marks, as valid text."""
    return _UNSAFE.sub("\N{REPLACEMENT CHARACTER}", valid_text(page))


def script_digest(script: str) -> str:
    """Return the digest of a script, with which a page's policy allows only this script."""
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii")


@functools.cache
def environment() -> Environment:
    """Return the Jinja environment: autoescaping, with the report's filters and figures."""
    jinja = Environment(
        loader=PackageLoader("kindsight.report"), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    jinja.filters.update(
        percent=percent, interval=interval, duration=duration, elide=elide, amount=amount
    )
    jinja.globals.update(
        draw_interval=draw_interval, draw_stage=draw_stage, scale_start=scale_start
    )
    return jinja
