"""The studio's page and its JavaScript, from a fixed table of files."""

from __future__ import annotations

import html
from functools import lru_cache
from pathlib import Path

from starlette.responses import Response

from kindsight.errors import KindsightError
from kindsight.web.library import SOURCES

__all__ = ["asset", "page", "require_assets"]

_TYPES = {".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}

_FOLDERS = {"studio": SOURCES / "studio", "page": SOURCES / "page"}

_VENDOR = ("preact/preact.js", "preact/hooks.js", "htm/htm.js")

_CLONE = Path(__file__).parents[3]


@lru_cache(maxsize=1)
def _table() -> dict[str, Path]:
    """Return the files that are served, by path below ``/assets/``."""
    found = {
        f"{name}/{path.relative_to(folder).as_posix()}": path
        for name, folder in _FOLDERS.items()
        for path in folder.rglob("*")
        if path.suffix in _TYPES
    }
    return {**found, **{f"vendor/{name}": SOURCES / "vendor" / name for name in _VENDOR}}


def require_assets() -> None:
    """Raise KindsightError, with the command that fetches them, if Preact or htm is missing."""
    if all((SOURCES / "vendor" / name).is_file() for name in _VENDOR):
        return
    cure = "pip install --force-reinstall --no-deps kindsight"
    if (_CLONE / "hatch_build.py").is_file():
        cure = f"make -C {_CLONE} web"
    raise KindsightError(
        f"The studio's page needs Preact and htm, which this installation lacks. Run: {cure}"
    )


def asset(path: str) -> Response:
    """Return a file of the page; KeyError for any other."""
    file = _table().get(path)
    if file is None or not file.is_file():
        raise KeyError("There is no such file.")
    # Revalidated at each visit: another version of kindsight has the same URLs.
    headers = {"Cache-Control": "no-cache"}
    kind = f"{_TYPES[file.suffix]}; charset=utf-8"
    return Response(file.read_bytes(), media_type=kind, headers=headers)


def page(token: str) -> Response:
    """Return the studio's page, with its token."""
    text = (SOURCES / "studio" / "index.html").read_text("utf-8")
    text = text.replace("{{token}}", html.escape(token))
    return Response(text, media_type="text/html; charset=utf-8")
