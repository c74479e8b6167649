"""The demo: train on 2,624 images of solar cells and compare with the paper on the data.

The data are the ELPV data set: electroluminescence images of 300 x 300 pixels, from the PyPI
package ``elpv-dataset``. Annotators rated each cell; a mean rating of 0.5 or more counts as
defective.

References
----------
S. Deitsch, V. Christlein, S. Berger, C. Buerhop-Lutz, A. Maier, F. Gallwitz, C. Riess,
"Automatic classification of defective photovoltaic module cells in electroluminescence images",
Solar Energy 185 (2019), 455-468.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from kindsight.dataset import ImageDataset
from kindsight.dataset.splits.stratified import random_split
from kindsight.digest import content_digest
from kindsight.errors import DatasetError, MissingExtraError
from kindsight.evaluation import Evaluation
from kindsight.report.data import Reference
from kindsight.runs.train import TrainResult, TrainSettings, train
from kindsight.training.common import Progress

__all__ = [
    "BEST_SETTINGS", "DEMO_SETTINGS", "IMAGES", "LICENCE", "PAPER", "DemoResult", "run_demo",
    "write_images",
]  # fmt: skip

DEMO_SETTINGS: Mapping[str, Any] = {
    "validation": 0.0,
    # Functional cells look similar, but each is a different cell, and the paper used all of them.
    "leakage": "keep",
}
"""The settings of the demo that differ from the defaults."""

BEST_SETTINGS: Mapping[str, Any] = {
    **DEMO_SETTINGS,
    "model": "efficientnet-lite2",
    "size": 300,
    "tta_flips": 3,
}
"""Settings with a higher accuracy than the paper's; they take some minutes."""

LICENCE = "CC BY-NC-SA 4.0"
"""The licence of the data: not for commercial use."""

_SOURCE = "Deitsch et al. 2019, Solar Energy 185"
PAPER = (
    Reference("SVM on handcrafted features", 0.8244, _SOURCE),
    Reference("VGG-19, fine-tuned", 0.8842, _SOURCE),
)
"""The accuracies in the paper on the data set, on its 25% test split."""

IMAGES = 2624
"""Number of images of the data set."""

FOLDER = "elpv"
CLASSES = ("functional", "defective")
DEFECTIVE_FROM = 0.5
"""Mean rating from which a cell counts as defective."""

TEST_FRACTION = 0.25
SPLIT_SEED = 0


@dataclass(frozen=True)
class DemoResult:
    """A finished demo."""

    data: Path  # the folder of images
    training: TrainResult  # the training, with the evaluation of the test split
    best: bool = False  # whether it was trained with :data:`BEST_SETTINGS`

    @property
    def test(self) -> Evaluation:
        """The evaluation of the test split."""
        assert self.training.test is not None  # the folder has a test split
        return self.training.test

    def to_dict(self) -> dict[str, Any]:
        """Return the output of ``kindsight demo --json``."""
        return {
            **self.training.to_dict(),
            "data": str(self.data),
            "licence": LICENCE,
            "report": str(self.training.report),
            "reference": [
                {"name": row.name, "accuracy": row.value, "source": row.source} for row in PAPER
            ],
        }


def run_demo(
    folder: str | os.PathLike[str] = "demo-data",
    *,
    runs: str = "runs",
    best: bool = False,
    progress: Progress | None = None,
) -> DemoResult:
    """Write the images, train on them, and evaluate the test split.

    Parameters
    ----------
    folder : path
        Folder for the images, which are reused if it has them.
    runs : str
        Folder of run folders.
    best : bool
        Train with :data:`BEST_SETTINGS`.
    progress : callable, optional
        Called with (stage, done, total).

    Raises
    ------
    MissingExtraError
        If ``elpv-dataset`` is not installed.
    DatasetError
        If the folder has only some of the images, or other files.
    """
    data = write_images(folder, progress)
    chosen = BEST_SETTINGS if best else DEMO_SETTINGS
    settings = TrainSettings(str(data), **{"runs": runs, **chosen})
    return DemoResult(data, train(settings, progress=progress, reference=PAPER), best)


def write_images(folder: str | os.PathLike[str], progress: Progress | None = None) -> Path:
    """Write the data set as ``<folder>/elpv/{train,test}/{functional,defective}/cell-0001.png``.

    A quarter of each class is the test split, chosen by the content of the images. The folder
    appears when it is complete; a complete folder is not changed.

    - `folder`: created if missing.
    - `progress`: called with ("demo", done, total).

    Returns
    -------
    pathlib.Path
        The folder ``elpv``.

    Raises
    ------
    MissingExtraError
        If ``elpv-dataset`` is needed and not installed.
    DatasetError
        If the folder is incomplete.
    """
    target = Path(folder) / FOLDER
    if target.exists():
        return _complete(target)
    images, labels = _load()
    names = _names(images, labels)
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{FOLDER}-", dir=target.parent) as temporary:
        written = Path(temporary) / FOLDER
        if progress is not None:
            progress("demo", 0, len(names))
        for done, (name, image) in enumerate(zip(names, images, strict=True), 1):
            file = written / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(cv2.imencode(".png", image)[1].tobytes())
            if progress is not None:
                progress("demo", done, len(names))
        try:
            written.rename(target)
        except OSError:  # another demo was faster
            if not target.exists():
                raise
    return _complete(target)


def _load() -> tuple[NDArray[np.uint8], list[str]]:
    """Return all images, uint8 (2624, 300, 300), and their labels."""
    try:
        from elpv_dataset.utils import load_dataset
    except ImportError:
        raise MissingExtraError("The demo", "demo") from None
    images, ratings, _ = load_dataset()
    return images, [CLASSES[int(rating >= DEFECTIVE_FROM)] for rating in ratings]


def _names(images: NDArray[np.uint8], labels: list[str]) -> list[str]:
    """Return the path of each image, relative to the data folder."""
    dataset = ImageDataset.from_arrays(images, labels)
    dataset = dataset.with_columns(digest=[content_digest(image) for image in images])
    dataset = random_split(dataset, validation=0.0, test=TEST_FRACTION, seed=SPLIT_SEED)
    return [
        f"{split}/{label}/cell-{number:04d}.png"
        for number, (split, label) in enumerate(zip(dataset.split, labels, strict=True), 1)
    ]


def _complete(target: Path) -> Path:
    """Return the folder if it has all images."""
    found = sum(
        len(list((target / split / label).glob("cell-????.png")))
        for split in ("train", "test")
        for label in CLASSES
    )
    if found != IMAGES:
        raise DatasetError(
            f"{target} has {found:,} of the demo's {IMAGES:,} images. Delete the folder and run "
            "the demo again."
        )
    return target
