"""The demo: 2,624 photographs of solar cells, trained on, tested, and held against the paper.

The data are the ELPV data set, electroluminescence pictures of 300 x 300 pixels, which the PyPI
package ``elpv-dataset`` brings along. Three annotators judged each cell; where their mean is 0.5
or more, the cell counts as defective.

References
----------
S. Deitsch, V. Christlein, S. Berger, C. Buerhop-Lutz, A. Maier, F. Gallwitz, C. Riess,
"Automatic classification of defective photovoltaic module cells in electroluminescence images",
Solar Energy 185 (2019), 455-468.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from kindsight.catalog import Catalog
from kindsight.catalog.split import split_catalog
from kindsight.errors import CatalogError, MissingExtraError, UsageError
from kindsight.evaluation import Evaluation
from kindsight.pictures import content_digest
from kindsight.report import Reference
from kindsight.runs import TrainResult, TrainSettings, train
from kindsight.training.common import Progress

__all__ = [
    "DEMO_SETTINGS",
    "LICENCE",
    "PAPER",
    "PICTURES",
    "DemoResult",
    "run_demo",
    "write_pictures",
]

DEMO_SETTINGS: Mapping[str, Any] = {
    "model": "efficientnet-lite2",
    "size": 300,
    "views": 3,
    "validation": 0.0,
    "seed": 0,
    # Sound cells look alike to the pixel; each is a cell of its own, and the paper kept them all.
    "leaks": "keep",
}
"""The settings of the demo's training that are not the defaults."""

LICENCE = "CC BY-NC-SA 4.0"
"""The data's licence: not for commercial use."""

_SOURCE = "Deitsch et al. 2019, Solar Energy 185"
PAPER = (
    Reference("SVM on hand-made features", 0.8244, _SOURCE),
    Reference("VGG-19, fine-tuned", 0.8842, _SOURCE),
)
"""The accuracies that the data set's own paper reports, on its own 25% test part."""

PICTURES = 2624
"""How many pictures the data set has."""

FOLDER = "elpv"
CLASSES = ("functional", "defective")
DEFECTIVE_FROM = 0.5
TEST_SHARE = 0.25
SPLIT_SEED = 0


@dataclass(frozen=True)
class DemoResult:
    """A finished demo.

    Parameters
    ----------
    data : pathlib.Path
        The folder of pictures.
    training : TrainResult
        The training, which ends with the evaluation of the test part.
    """

    data: Path
    training: TrainResult

    @property
    def test(self) -> Evaluation:
        """How the classifier did on the test part."""
        assert self.training.test is not None  # the folder has a test part
        return self.training.test

    def to_dict(self) -> dict[str, Any]:
        """Return what ``kindsight demo --json`` prints."""
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
    progress: Progress | None = None,
) -> DemoResult:
    """Write the pictures, train on them, and evaluate on the test part.

    Parameters
    ----------
    folder : path
        Where the pictures are written, or found again.
    runs : str
        Where the run folder is made.
    progress : callable, optional
        Called with (stage, done, total); the stages are ``"demo"`` and those of
        :func:`kindsight.runs.train`.

    Raises
    ------
    MissingExtraError
        Where ``elpv-dataset`` is not installed.
    CatalogError
        Where the folder holds a part of the pictures, or others.
    """
    data = write_pictures(folder, progress)
    settings = TrainSettings(data=str(data), runs=runs, **DEMO_SETTINGS)
    return DemoResult(data, train(settings, progress=progress, reference=PAPER))


def write_pictures(folder: str | os.PathLike[str], progress: Progress | None = None) -> Path:
    """Write the data set as ``<folder>/elpv/{train,test}/{functional,defective}/cell-0001.png``.

    A quarter of each class goes to the test part, chosen by the pictures' content. The folder
    appears when it is whole; one that is whole already is left as it is.

    Parameters
    ----------
    folder : path
        Made if it is not there.
    progress : callable, optional
        Called with ("demo", pictures written, pictures in all).

    Returns
    -------
    pathlib.Path
        The folder ``elpv``.

    Raises
    ------
    MissingExtraError
        Where ``elpv-dataset`` is not installed and the pictures are not there yet.
    CatalogError
        Where the folder is there, but not whole.
    """
    target = Path(folder) / FOLDER
    if target.exists():
        return _whole(target)
    pictures, labels = _load()
    names = _names(pictures, labels)
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{FOLDER}-", dir=target.parent) as temporary:
        part = Path(temporary) / FOLDER
        for done, (name, picture) in enumerate(zip(names, pictures, strict=True), 1):
            file = part / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(_png(picture))
            if progress is not None:
                progress("demo", done, len(names))
        try:
            part.rename(target)
        except OSError:  # another demo was quicker
            if not target.exists():
                raise
    return _whole(target)


def _load() -> tuple[NDArray[np.uint8], list[str]]:
    """Return all pictures, (2624, 300, 300) uint8 grey, and their labels."""
    try:
        from elpv_dataset.utils import load_dataset
    except ImportError:
        raise MissingExtraError("The demo", "demo") from None
    pictures, shares, _ = load_dataset()
    return pictures, [CLASSES[int(share >= DEFECTIVE_FROM)] for share in shares]


def _names(pictures: NDArray[np.uint8], labels: list[str]) -> list[str]:
    """Return where each picture belongs, relative to the data's folder."""
    catalog = Catalog.from_arrays(pictures, labels)
    catalog = catalog.with_columns(digest=[content_digest(picture) for picture in pictures])
    parted = split_catalog(catalog, validation=0.0, test=TEST_SHARE, seed=SPLIT_SEED)
    return [
        f"{split}/{label}/cell-{number:04d}.png"
        for number, (split, label) in enumerate(zip(parted.split, labels, strict=True), 1)
    ]


def _png(picture: NDArray[np.uint8]) -> bytes:
    good, data = cv2.imencode(".png", picture)
    if not good:
        raise UsageError(f"A picture must be one that PNG can hold. Received: {picture.shape}.")
    return data.tobytes()


def _whole(target: Path) -> Path:
    """Return the folder if it holds what :func:`write_pictures` writes."""
    found = sum(1 for _ in _files(target))
    if found != PICTURES:
        raise CatalogError(
            f"{target} must hold the {PICTURES:,} pictures that the demo writes. Received: "
            f"{found:,}. Delete the folder, and the demo writes it again."
        )
    return target


def _files(target: Path) -> Iterator[Path]:
    for split in ("train", "test"):
        for label in CLASSES:
            yield from (target / split / label).glob("cell-????.png")
