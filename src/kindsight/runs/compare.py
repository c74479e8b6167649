"""Compare runs on the same images, paired, and report whether the difference is real."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kindsight.bundle import load_bundle
from kindsight.dataset import DataOptions, ImageDataset, open_dataset
from kindsight.dataset.names import n_images, quoted
from kindsight.errors import DatasetError, SettingsError, UsageError
from kindsight.evaluation import wilson_interval
from kindsight.evaluation.metrics import LOG_EPSILON
from kindsight.evaluation.paired import (
    PairedComparison,
    compare_pair,
    correct_comparisons,
)
from kindsight.predictor import Predictor
from kindsight.runs.folder import FOLDS_TABLE
from kindsight.runs.record import RunRecord, load_run

__all__ = ["ComparedRun", "Comparison", "compare"]

Key = tuple[str, str]
"""An image: content digest and label. An image with two labels counts once for each."""


@dataclass(frozen=True)
class ComparedRun:
    """A run and its scores on the images that all runs share.

    Attributes
    ----------
    name : str
        The run folder, as given.
    accuracy : float
        0-1.
    interval : tuple of float
        The 95% Wilson interval of the accuracy.
    log_loss : float
        In nats.
    """

    name: str
    accuracy: float
    interval: tuple[float, float]
    log_loss: float


@dataclass(frozen=True)
class Comparison:
    """Runs compared on the same images.

    Attributes
    ----------
    images : int
        Number of distinct images that are compared.
    source : str
        Source of these images: ``"test split"``, ``"validation and test splits"`` or the data.
    runs : tuple of ComparedRun
        In the order given.
    pairs : tuple of PairedComparison
        Each further run (second) against the first one; p-values are corrected for their number.
    left_out : mapping of str to int
        Reason -> images that are not compared.
    notes : tuple of str
        What limits the comparison.
    """

    images: int
    source: str
    runs: tuple[ComparedRun, ...]
    pairs: tuple[PairedComparison, ...]
    left_out: Mapping[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def sentences(self) -> tuple[str, ...]:
        """Return one sentence for each pair: whether the difference is real."""
        first, *others = self.runs
        pairs = zip(others, self.pairs, strict=True)
        return tuple(_sentence(first.name, run.name, pair) for run, pair in pairs)

    def to_dict(self) -> dict[str, Any]:
        """Return everything, ready for JSON."""
        first, *others = self.runs
        return {
            "images": self.images,
            "source": self.source,
            "left_out": dict(self.left_out),
            "notes": list(self.notes),
            "runs": [
                {
                    "run": run.name,
                    "accuracy": run.accuracy,
                    "accuracy_interval": list(run.interval),
                    "log_loss": run.log_loss,
                }
                for run in self.runs
            ],
            "comparisons": [
                {"first": first.name, "second": run.name, **pair.to_dict(), "sentence": sentence}
                for run, pair, sentence in zip(others, self.pairs, self.sentences(), strict=True)
            ],
        }


def compare(
    *runs: str | os.PathLike[str],
    data: str | os.PathLike[str] | ImageDataset | None = None,
    split: str | None = None,
    options: DataOptions | None = None,
    workers: int | None = None,
    progress: Callable[[str, int, int], None] | None = None,
) -> Comparison:
    """Compare runs with the first one on the same images.

    Without `data`, the images are those that every run held out: of the test splits if all runs
    have common test images, else of the validation and test splits. They are matched by content.

    Parameters
    ----------
    *runs : str or Path
        Two or more run folders; with `data` also bundles.
    data : str, Path or ImageDataset, optional
        Labelled images that the runs classify.
    split : str, optional
        With `data`: ``"train"``, ``"validation"`` or ``"test"``; all images by default.
    options : DataOptions, optional
        As for :meth:`kindsight.ImageDataset.open`.
    workers : int, optional
        Images classified at once; the number of cores by default.
    progress : callable, optional
        Called with ("evaluate", done, total) for each run.

    Returns
    -------
    Comparison

    Raises
    ------
    UsageError
        If there are fewer than two runs.
    BundleError
        If a run is missing, unfinished or damaged.
    DatasetError
        If no image is left that every run held out.

    Notes
    -----
    The test is McNemar's exact test, two-sided, with p-values corrected by Holm's method where
    there are more than two runs. Images that one of the runs was trained on are left out.
    """
    if len(runs) < 2:
        raise UsageError(f"`runs` must be two or more run folders; got {len(runs)}.")
    names = [os.fspath(run) for run in runs]
    if len({Path(name).resolve() for name in names}) < len(names):
        raise UsageError(f"`runs` must be different; got {', '.join(names)}.")
    if data is None:
        if split is not None:
            raise SettingsError(
                "`split` selects images of `data`. Give `data`, too, or leave `split` out."
            )
        found = _held_out(names)
    else:
        found = _classified(names, data, split, options, workers, progress)
    return _compared(names, found)


@dataclass(frozen=True)
class _Matched:
    """The probability of the label of each image, and whether it is the most probable class."""

    keys: Sequence[Key]
    correct: Sequence[NDArray[np.bool_]]  # for each run
    losses: Sequence[NDArray[np.float64]]
    source: str
    left_out: Mapping[str, int]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class _HeldOut:
    """The predictions of a run by image, and the images that it was trained on."""

    test: dict[Key, tuple[bool, float]]
    every: dict[Key, tuple[bool, float]]
    trained: set[str]


def _compared(names: Sequence[str], found: _Matched) -> Comparison:
    n = len(found.keys)
    pairs = [
        compare_pair((found.correct[0], found.correct[i]), (found.losses[0], found.losses[i]))
        for i in range(1, len(names))
    ]
    runs = tuple(
        ComparedRun(
            name, float(right.mean()), wilson_interval(int(right.sum()), n), float(loss.mean())
        )
        for name, right, loss in zip(names, found.correct, found.losses, strict=True)
    )
    left_out = {reason: count for reason, count in found.left_out.items() if count}
    pairs_ = correct_comparisons(tuple(pairs))
    return Comparison(n, found.source, runs, pairs_, left_out, found.notes)


def _held_out(names: Sequence[str]) -> _Matched:
    """Return the common held-out images of runs."""
    runs = [_read(name) for name in names]
    trained = {digest for run in runs for digest in run.trained}
    test = set.intersection(*(set(run.test) for run in runs))
    clean = {key for key in test if key[0] not in trained}
    chosen, source = (clean, "test split") if clean else (set[Key](), "")
    everything = set.union(*(set(run.every) for run in runs))
    if not clean:
        common = set.intersection(*(set(run.every) for run in runs))
        chosen, source = {key for key in common if key[0] not in trained}, _splits(runs)
    overlap = sum(key[0] in trained for key in everything)
    if not chosen:
        raise DatasetError(_no_common_images(len(everything), overlap))
    if clean:
        everything = set.union(*(set(run.test) for run in runs))
        overlap = sum(key[0] in trained for key in everything)
    keys = sorted(chosen)
    results = [[(run.test if clean else run.every)[key] for key in keys] for run in runs]
    return _Matched(
        keys,
        [np.array([right for right, _ in rows], np.bool_) for rows in results],
        [np.array([loss for _, loss in rows], np.float64) for rows in results],
        source,
        {
            "trained on by another run": overlap,
            "not held out by every run": len(everything) - overlap - len(chosen),
        },
    )


def _splits(runs: Sequence[_HeldOut]) -> str:
    if any(run.test for run in runs):
        return "validation and test splits"
    return "validation split"


def _no_common_images(images: int, overlap: int) -> str:
    cure = (
        "Compare them on other images with `data`, or train them with the same data, `seed` and "
        "splits."
    )
    if not images:
        return f"The runs have no predictions of validation or test images. {cure}"
    trained = f" {n_images(overlap)} of one run were trained on by another." if overlap else ""
    return f"The runs have no validation or test image in common.{trained} {cure}"


def _read(name: str) -> _HeldOut:
    """Read a run's held-out predictions; of identical images, the first one counts."""
    record = load_run(name)
    digests = {image.path: image.digest for image in record.images}
    test, every = dict[Key, tuple[bool, float]](), dict[Key, tuple[bool, float]]()
    for split in ("test", "validation"):
        if split not in record.predictions:
            continue
        for key, result in _results(record, split, digests):
            if split == "test":
                test.setdefault(key, result)
            every.setdefault(key, result)
    if digests and not any(digests.values()):
        raise DatasetError(
            f"{quoted(name)} does not record the content of its images, so they cannot be matched. "
            "Compare the runs on images with `data`."
        )
    trained = {image.digest for image in record.images if image.split == "train" and image.digest}
    if _is_cross_validated(record):
        # Each training image was predicted by a model that was not trained on it.
        trained -= {digest for digest, _ in every}
    return _HeldOut(test, every, trained)


def _is_cross_validated(record: RunRecord) -> bool:
    folder = record.folder
    return (folder / FOLDS_TABLE).is_file() and not (folder / "validation.csv").is_file()


def _results(
    record: RunRecord, split: str, digests: Mapping[str, str]
) -> Iterator[tuple[Key, tuple[bool, float]]]:
    found = record.predictions[split]
    correct, losses = _scores(found.probabilities, found.targets)
    for row, path in enumerate(found.paths):
        if digest := digests.get(path):
            label = record.classes[int(found.targets[row])]
            yield (digest, label), (bool(correct[row]), float(losses[row]))


def _scores(
    probabilities: NDArray[np.floating[Any]], targets: NDArray[np.integer[Any]]
) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
    of_label = probabilities[np.arange(len(targets)), targets].astype(np.float64)
    correct = np.asarray(probabilities.argmax(axis=1) == targets, np.bool_)
    return correct, -np.log(np.clip(of_label, LOG_EPSILON, 1.0))


def _classified(
    names: Sequence[str],
    data: str | os.PathLike[str] | ImageDataset,
    split: str | None,
    options: DataOptions | None,
    workers: int | None,
    progress: Callable[[str, int, int], None] | None,
) -> _Matched:
    """Classify images with every run."""
    if isinstance(data, ImageDataset):
        dataset, source = data, "the given images"
    else:
        known = load_bundle(names[0]).classes
        dataset = open_dataset(data, options, min_classes=1, classes=known)
        source = os.fspath(data)
    if split is not None:
        if split not in dataset.split:
            raise SettingsError(f"The data have no {split} split. Leave `split` out.")
        dataset, source = dataset.where(split=split), f"{source}, {split} split"
    results: list[dict[Key, tuple[bool, float]]] = []
    trained: set[Key] = set()
    notes = []
    for name in names:
        scores = Predictor(name, workers=workers).evaluate(dataset, progress)
        classes = tuple(score.name for score in scores.evaluation.classes)
        labels = [str(label) for label in scores.dataset.label]
        targets = np.array([classes.index(label) for label in labels], np.int64)
        correct, losses = _scores(scores.probabilities, targets)
        found: dict[Key, tuple[bool, float]] = {}
        for row, (label, digest) in enumerate(zip(labels, scores.digests, strict=True)):
            key = digest or scores.dataset.path[row], label
            found.setdefault(key, (bool(correct[row]), float(losses[row])))
            if scores.trained_on is not None and scores.trained_on[row]:
                trained.add(key)
        if scores.trained_on is None:
            notes.append(
                f"{quoted(name)} does not record its training images: some of the compared images "
                "may be among them."
            )
        results.append(found)
    every, common = set[Key]().union(*results), set.intersection(*map(set, results))
    keys = sorted(common - trained)
    if not keys:
        raise DatasetError(
            f"No image is left to compare: {n_images(len(trained))} of {len(every):,} were trained "
            "on by one of the runs. Compare the runs on other images."
        )
    rows = [[found[key] for key in keys] for found in results]
    return _Matched(
        keys,
        [np.array([right for right, _ in each], np.bool_) for each in rows],
        [np.array([loss for _, loss in each], np.float64) for each in rows],
        source,
        {
            "trained on by a run, or duplicates": len(trained),
            "of a class that not every run knows": len(every - trained) - len(keys),
        },
        tuple(notes),
    )


def _sentence(first: str, second: str, pair: PairedComparison) -> str:
    """Return whether the second run is better than the first, in one sentence."""
    low, high = pair.interval
    size = abs(pair.difference)
    ends = (low, high) if pair.difference > 0 else (-high, -low)
    points = f"{_points(size)} points ({_points(ends[0])} to {_points(ends[1])})"
    p_value = f"p = {pair.p_value:.2g}" if pair.p_value >= 0.001 else "p < 0.001"
    if pair.is_real:
        better, worse = (second, first) if pair.difference > 0 else (first, second)
        return (
            f"The accuracy of {better} is higher than that of {worse} by {points}; this difference "
            f"is statistically significant ({p_value})."
        )
    if pair.images_needed is None:
        return (
            f"The accuracies of {first} and {second} are equal on these images; the true "
            f"difference may be between {_points(low)} and {_points(high)} points."
        )
    direction = "higher" if pair.difference > 0 else "lower"
    return (
        f"The accuracy of {second} is {direction} than that of {first} by {points}, which is not "
        f"statistically significant ({p_value}); about {pair.images_needed:,} images are needed to "
        "detect such a "
        "difference."
    )


def _points(fraction: float) -> str:
    """Return a difference of accuracies in percentage points."""
    return f"{100 * fraction + 0.0:.1f}".replace("-0.0", "0.0")
