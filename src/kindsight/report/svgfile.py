"""Curves as an SVG file of its own: what the page's style gives them, it carries with it."""

from __future__ import annotations

import re
from collections.abc import Sequence

from markupsafe import Markup, escape

from kindsight.report.curves import CURVE_SIZE

__all__ = ["DARK", "LIGHT", "svg_file"]

LIGHT = {
    "page": "#fbfaf7", "panel": "#f1efe9", "line": "#d9d5cb", "ink": "#1d2024",
    "quiet": "#575d64", "right": "#1a659e", "wrong": "#a9480a",
}  # fmt: skip
"""The report's colours on light ground; a test holds them to its style sheet."""

DARK = {
    "page": "#15171a", "panel": "#1e2125", "line": "#363b42", "ink": "#e8e6e1",
    "quiet": "#a5abb3", "right": "#7cb8ea", "wrong": "#f0a35e",
}  # fmt: skip
"""The same on dark ground."""

# Plain colours, not variables: programs that draw SVG know no variables, or no media queries,
# and then show the light ones.
_COLOURS = """
.page{{fill:{page}}}text{{fill:{quiet}}}.title{{fill:{ink}}}.note{{fill:{wrong}}}
.band{{fill:{panel}}}.grid{{stroke:{line}}}.axis,.phase{{stroke:{quiet}}}
.training.line{{stroke:{quiet}}}.training.dot{{fill:{quiet}}}
.validation.line{{stroke:{right}}}.validation.dot{{fill:{right}}}
.best{{stroke:{wrong}}}.ring{{stroke:{wrong};fill:{page}}}
""".replace("\n", "")
_SHAPES = (
    "text{font:11.5px system-ui,'Segoe UI',Roboto,'Noto Sans',Arial,sans-serif}"
    ".end{text-anchor:end}.middle{text-anchor:middle}.title{font-size:13px;font-weight:600}"
    ".note{font-weight:600}.line{fill:none;stroke-width:2.2;stroke-linejoin:round;"
    "stroke-linecap:round}.training.line{stroke-width:1.6;stroke-dasharray:5 3.5}"
    ".many .line{stroke-width:1.2;stroke-dasharray:none}.phase{stroke-dasharray:1 3}"
    ".best{stroke-dasharray:3 3}.ring{stroke-width:2.2}.hover{fill-opacity:0}"
)
_GAP = 24


def svg_file(drawings: Sequence[Markup], title: str) -> str:
    """Put drawings side by side in one file.

    Parameters
    ----------
    drawings : sequence of Markup
        As :func:`.curves.draw_curve` and :func:`.curves.draw_rate` make them.
    title : str
        What the whole is called; anything.

    Returns
    -------
    str
        An SVG document that fetches nothing, runs no script and follows light and dark.
    """
    wide, tall = CURVE_SIZE
    whole = len(drawings) * wide + (len(drawings) - 1) * _GAP + 20
    placed = "".join(
        re.sub(
            r"<svg ",
            f'<svg x="{10 + place * (wide + _GAP)}" y="8" width="{wide}" height="{tall}" ',
            drawing,
            count=1,
        )
        for place, drawing in enumerate(drawings)
    )
    clean = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in title)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {whole} {tall + 16}" '
        f'width="{whole}" height="{tall + 16}"><title>{escape(clean)}</title>'
        f"<style>{_SHAPES}{_COLOURS.format(**LIGHT)}"
        f"@media (prefers-color-scheme:dark){{{_COLOURS.format(**DARK)}}}</style>"
        f'<rect class="page" width="{whole}" height="{tall + 16}"/>{placed}</svg>\n'
    )
