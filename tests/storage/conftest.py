import io
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from storage_server import object_store, web_server


@pytest.fixture(scope="module")
def store() -> Iterator[str]:
    """The URL of a local object store with the bucket `photos`."""
    with pytest.MonkeyPatch.context() as patch, object_store(patch) as url:
        yield url


@pytest.fixture
def web(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The URL of a web server of the folder `web` in `tmp_path`."""
    monkeypatch.setenv("NO_PROXY", "*")
    (tmp_path / "web").mkdir()
    with web_server(tmp_path / "web") as url:
        yield url


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Indexes of tar files go to a cache of the test."""
    monkeypatch.setenv("KINDSIGHT_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Class folders with four images of one colour each."""
    for name, colour in (("blue", (0, 0, 255)), ("red", (255, 0, 0))):
        (tmp_path / "set" / name).mkdir(parents=True)
        for k in range(4):
            pixels = np.full((8, 8, 3), colour, np.uint8)
            pixels[k] = 128
            Image.fromarray(pixels).save(tmp_path / "set" / name / f"{k}.png")
    return tmp_path / "set"


@pytest.fixture
def write_tar() -> Callable[..., None]:
    """Return a function that writes a tar file of names and contents."""

    def write(path: Path, files: dict[str, bytes], format: int = tarfile.PAX_FORMAT) -> None:
        with tarfile.open(path, "w", format=format) as archive:
            for name, content in files.items():
                info = tarfile.TarInfo(name)
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))

    return write
