"""Where the cache is, and how a message says to use another folder."""

from __future__ import annotations

import os
from pathlib import Path

import platformdirs

__all__ = ["choose_cache", "default_folder"]


def default_folder() -> Path:
    """Return ``$KINDSIGHT_CACHE``, or else the user's cache folder."""
    named = os.environ.get("KINDSIGHT_CACHE")
    return Path(named or platformdirs.user_cache_dir("kindsight", appauthor=False))


def choose_cache(path: Path, what: str, *, given: bool | None = None) -> str:
    """Return how to use another cache folder: ``set KINDSIGHT_CACHE to a folder``.

    The variable has no effect where a folder is given in Python.

    - `path`: the cache folder, or a file in it.
    - `what`: describes the other folder.
    - `given`: whether the folder was given; by default, whether it is another than the usual one.
    """
    if given is None:
        given = not path.absolute().is_relative_to(default_folder().absolute())
    return f"give {what} as `cache`" if given else f"set KINDSIGHT_CACHE to {what}"
