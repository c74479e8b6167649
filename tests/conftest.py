"""What tests of several rooms share: one cache, one folder of images, one trained run.

Building a backbone takes some seconds, and so does starting Keras: whoever needs a built backbone
takes ``SIZE`` and the session's cache, and only the tests that are about Keras start it.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from shapes import write_photos

# A shell that starts this in the background has it, and all that it starts, ignore Ctrl-C.
with contextlib.suppress(ValueError):  # not the main thread
    signal.signal(signal.SIGINT, signal.default_int_handler)

# No test measures time, not even by the way; and none fails by chance, on the same code.
settings.register_profile(
    "kindsight",
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("kindsight")

SIZE = 64
"""Height and width of the images that the shared backbone takes."""


def folder_of_all_workers(factory: pytest.TempPathFactory, name: str) -> Path:
    """Return one temporary folder for every test process of this session."""
    base = factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / name
    folder.mkdir(exist_ok=True)
    return folder


@pytest.fixture(scope="session", autouse=True)
def machine_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The cache of the whole session, in place of the user's own; child processes see it too.

    All test processes share it: a backbone is built, and verified by Keras, once.
    """
    folder = folder_of_all_workers(tmp_path_factory, "machine") / "cache"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KINDSIGHT_CACHE", str(folder))
        patch.delenv("KINDSIGHT_CACHE_LIMIT", raising=False)
        yield folder


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Class folders of 91 images of three kinds, and three files that are no images."""
    folder = write_photos(tmp_path_factory.mktemp("data") / "photos")
    time.sleep(0.1)  # until a later change would show in the files' times
    return folder


@pytest.fixture(scope="session")
def backbone(machine_cache: Path):  # type: ignore[no-untyped-def]
    """The shared backbone's files, built on first use."""
    from kindsight.training.frozen.settings import FrozenTrainer

    return FrozenTrainer(size=SIZE).backbone()


@pytest.fixture(scope="session")
def trained(photos: Path, backbone, tmp_path_factory: pytest.TempPathFactory):  # type: ignore[no-untyped-def]
    """The TrainResult of a real training on `photos`, Keras and all. Not to be written to."""
    from kindsight.runs.train import TrainSettings, train

    runs = tmp_path_factory.mktemp("runs")
    return train(TrainSettings(str(photos), runs=str(runs), size=SIZE, seed=3, verify="full"))


@pytest.fixture
def environment(machine_cache: Path) -> dict[str, str]:
    """Environment variables for a child process: this session's cache, quiet libraries."""
    return {**os.environ, "KINDSIGHT_CACHE": str(machine_cache), "PYTHONUTF8": "1"}
