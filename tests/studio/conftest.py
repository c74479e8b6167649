"""A studio behind its API, without a server process."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("fastapi")

from kindsight.cache.folder import Cache
from kindsight.studio.state.thumbnails import Thumbnails
from kindsight.studio.studio import Studio
from studio_page import Page


@pytest.fixture
def thumbnails(tmp_path: Path) -> Thumbnails:
    """Return thumbnails in a cache of the test's own."""
    return Thumbnails(Cache(tmp_path / "cache"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return the folder of a project that does not exist yet."""
    return tmp_path / "project"


@pytest.fixture
def page(folder: Path, thumbnails: Thumbnails) -> Iterator[Page]:
    """Return the page of a new project."""
    studio = Studio(folder, thumbnails=thumbnails)
    yield Page(studio)
    studio.close()
