"""``kindsight demo``: real images, trained on and tested, beside what a paper reached on them."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import cv2
import numpy as np
import typer
from numpy.typing import NDArray

from kindsight.cli.terminal.options import Debug, Json, Quiet
from kindsight.cli.terminal.text import Paint, print_json, printable, say
from kindsight.dataset import ImageDataset
from kindsight.dataset.splits.stratified import random_split
from kindsight.digest import content_digest
from kindsight.errors import DatasetError, MissingExtraError, UsageError
from kindsight.evaluation import Evaluation
from kindsight.report.data import Reference
from kindsight.runs.train import TrainResult, TrainSettings, train
from kindsight.training.common import Progress

if TYPE_CHECKING:
    pass

__all__ = [
    "DEMO_SETTINGS",
    "IMAGES",
    "LICENCE",
    "PAPER",
    "DemoResult",
    "demo",
    "run_demo",
    "write_images",
]


def demo(
    folder: Annotated[
        str, typer.Option(metavar="FOLDER", help="Where the images are written.")
    ] = "demo-data",
    runs: Annotated[
        str, typer.Option(metavar="FOLDER", help="Where the run folder is made.")
    ] = "runs",
    json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Train on images of solar cells, and compare.

    There are 2,624 of them, a quarter kept for the test; the accuracy is shown beside what the
    data's own paper reached. It takes some minutes, since each image is looked at in three views
    by a larger network than usual. Needs the package elpv-dataset: pip install 'kindsight[demo]'

    Example: kindsight demo
    """
    from kindsight.cli.terminal.progress import watching

    with watching(quiet) as progress:
        result = run_demo(folder, runs=runs, progress=progress)
    if json:
        print_json(result.to_dict())
    else:
        say(*demo_lines(result))


def demo_lines(result: DemoResult) -> Iterator[str]:
    """Yield what the demo prints: ours beside the paper's, and where the report is."""
    from kindsight.cli.terminal.summary import facts
    from kindsight.report.format import duration, interval, percent

    paint, test, training = Paint(sys.stdout), result.test, result.training
    ends = paint(f"(95% interval {interval(test.accuracy_interval)})", "dim")
    yield ""
    yield paint("Solar cells, functional or defective: accuracy on the test part", "bold")
    yield ""
    yield f"  {paint(f'{percent(test.accuracy, 2):>7}  kindsight', 'bold')}  {ends}"
    for row in PAPER:
        yield f"  {percent(row.value, 2):>7}  {row.name}  {paint('(the paper)', 'dim')}"
    yield ""
    rows = {
        "test": f"{test.images:,} of {IMAGES:,} images, none of them trained on",
        "paper": f"{PAPER[0].source}; on a test part of its own",
        **{name: printable(text) for name, text in training.model.items()},
        "time": duration(training.seconds["total"]),
        "images": f"{printable(str(result.data))}, licence {LICENCE}: not for commercial use",
        "run": printable(str(training.run)),
        "report": printable(str(training.report)),
    }
    yield from facts(rows, paint)


# SECTION: The demo: 2,624 photographs of solar cells, trained on, tested, and held against the
# paper.
#
# The data are the ELPV data set, electroluminescence images of 300 x 300 pixels, which the PyPI
# package ``elpv-dataset`` brings along. Three annotators judged each cell; where their mean is 0.5
# or more, the cell counts as defective.
#
# References
# ----------
# S. Deitsch, V. Christlein, S. Berger, C. Buerhop-Lutz, A. Maier, F. Gallwitz, C. Riess,
# "Automatic classification of defective photovoltaic module cells in electroluminescence images",
# Solar Energy 185 (2019), 455-468.

DEMO_SETTINGS: Mapping[str, Any] = {
    "model": "efficientnet-lite2",
    "size": 300,
    "tta_flips": 3,
    "validation": 0.0,
    "seed": 0,
    # Sound cells look alike to the pixel; each is a cell of its own, and the paper kept them all.
    "leakage": "keep",
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

IMAGES = 2624
"""How many images the data set has."""

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
        The folder of images.
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
    """Write the images, train on them, and evaluate on the test part.

    Parameters
    ----------
    folder : path
        Where the images are written, or found again.
    runs : str
        Where the run folder is made.
    progress : callable, optional
        Called with (stage, done, total); the stages are ``"demo"`` and those of
        :func:`kindsight.runs.train.train`.

    Raises
    ------
    MissingExtraError
        Where ``elpv-dataset`` is not installed.
    DatasetError
        Where the folder holds a part of the images, or others.
    """
    data = write_images(folder, progress)
    settings = TrainSettings(data=str(data), runs=runs, **DEMO_SETTINGS)
    return DemoResult(data, train(settings, progress=progress, reference=PAPER))


def write_images(folder: str | os.PathLike[str], progress: Progress | None = None) -> Path:
    """Write the data set as ``<folder>/elpv/{train,test}/{functional,defective}/cell-0001.png``.

    A quarter of each class goes to the test part, chosen by the images' content. The folder
    appears when it is whole; one that is whole already is left as it is.

    Parameters
    ----------
    folder : path
        Made if it is not there.
    progress : callable, optional
        Called with ("demo", images written, images in all).

    Returns
    -------
    pathlib.Path
        The folder ``elpv``.

    Raises
    ------
    MissingExtraError
        Where ``elpv-dataset`` is not installed and the images are not there yet.
    DatasetError
        Where the folder is there, but not whole.
    """
    target = Path(folder) / FOLDER
    if target.exists():
        return _whole(target)
    images, labels = _load()
    names = _names(images, labels)
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{FOLDER}-", dir=target.parent) as temporary:
        part = Path(temporary) / FOLDER
        for done, (name, image) in enumerate(zip(names, images, strict=True), 1):
            file = part / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(_png(image))
            if progress is not None:
                progress("demo", done, len(names))
        try:
            part.rename(target)
        except OSError:  # another demo was quicker
            if not target.exists():
                raise
    return _whole(target)


def _load() -> tuple[NDArray[np.uint8], list[str]]:
    """Return all images, (2624, 300, 300) uint8 grey, and their labels."""
    try:
        from elpv_dataset.utils import load_dataset
    except ImportError:
        raise MissingExtraError("The demo", "demo") from None
    images, shares, _ = load_dataset()
    return images, [CLASSES[int(share >= DEFECTIVE_FROM)] for share in shares]


def _names(images: NDArray[np.uint8], labels: list[str]) -> list[str]:
    """Return where each image belongs, relative to the data's folder."""
    dataset = ImageDataset.from_arrays(images, labels)
    dataset = dataset.with_columns(digest=[content_digest(image) for image in images])
    parted = random_split(dataset, validation=0.0, test=TEST_SHARE, seed=SPLIT_SEED)
    return [
        f"{split}/{label}/cell-{number:04d}.png"
        for number, (split, label) in enumerate(zip(parted.split, labels, strict=True), 1)
    ]


def _png(image: NDArray[np.uint8]) -> bytes:
    good, data = cv2.imencode(".png", image)
    if not good:
        raise UsageError(f"An image must be one that PNG can hold. Received: {image.shape}.")
    return data.tobytes()


def _whole(target: Path) -> Path:
    """Return the folder if it holds what :func:`write_images` writes."""
    found = sum(1 for _ in _files(target))
    if found != IMAGES:
        raise DatasetError(
            f"{target} must hold the {IMAGES:,} images that the demo writes. Received: "
            f"{found:,}. Delete the folder, and the demo writes it again."
        )
    return target


def _files(target: Path) -> Iterator[Path]:
    for split in ("train", "test"):
        for label in CLASSES:
            yield from (target / split / label).glob("cell-????.png")
