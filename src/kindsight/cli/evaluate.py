"""``kindsight evaluate``: measure a classifier on labelled images."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from kindsight.cli.terminal.options import (
    BundleFolder,
    Data,
    Debug,
    Json,
    On,
    Quiet,
    SetsPerClass,
    TargetAccuracy,
    TargetCoverage,
    Workers,
    as_typed,
    with_data_options,
)
from kindsight.cli.terminal.scores import Extras, score_lines, scores_to_dict
from kindsight.cli.terminal.text import (
    clipping_note,
    complain,
    note,
    print_json,
    say,
)
from kindsight.errors import SettingsError
from kindsight.storage.address import same_path

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from kindsight.dataset import DataOptions, ImageDataset
    from kindsight.dataset_evaluation import DatasetEvaluation
    from kindsight.evaluation.costs import CostEvaluation
    from kindsight.evaluation.slices import Slice

__all__ = ["choose_split", "evaluate"]

SPLITS = ("test", "validation", "train", "all")
TRAINED_ON_FILE = "trained_on.npz"

TRAINED_ON = (
    "the classifier was trained on these data. Accuracy on its training images is too high; "
    "evaluate it on other images."
)

BELOW = 1
"""The exit code if the accuracy is below --fail-under."""


Split = Annotated[
    str | None,
    typer.Option(
        metavar="|".join(SPLITS),
        help="Split to evaluate.  [default: the first of these that the data have]",
    ),
]
FailUnder = Annotated[
    float | None,
    typer.Option(
        metavar="ACCURACY",
        help="Accuracy, 0 to 1, below which the exit code is 1, for use in CI.",
    ),
]
Sets = Annotated[
    float | None,
    typer.Option(
        metavar="LEVEL",
        help="Confidence level of the prediction sets.  [default: as trained, 0.9]",
        show_default=False,
    ),
]
SliceOption = Annotated[
    list[str] | None,
    typer.Option(
        "--slice",
        metavar="NAME",
        help="Image property or table column by whose values the accuracy is compared; "
        "repeatable. Properties: size, aspect, file_size, brightness, contrast, "
        "sharpness, colourfulness, quality, format, camera, date, folder, group, class, and "
        "other measurements of 'kindsight check'.",
        show_default=False,
    ),
]
Slices = Annotated[
    bool,
    typer.Option(
        "--slices",
        help="Comparison of the accuracy by all usual properties and all columns of the "
        "table; lists the slices on which it is significantly lower.",
    ),
]
Costs = Annotated[
    str | None,
    typer.Option(
        metavar="CSV",
        help="Table of the cost of each error; rows are labels, columns are predictions. "
        "Reports the mean cost of the predictions, and of the decisions with the lowest "
        "expected cost.",
    ),
]


@with_data_options()
def evaluate(  # noqa: PLR0913, PLR0917 (one parameter for each option)
    bundle: BundleFolder,
    data: Data,
    split: Split = None,
    fail_under: FailUnder = None,
    target_accuracy: TargetAccuracy = None,
    target_coverage: TargetCoverage = None,
    sets: Sets = None,
    sets_per_class: SetsPerClass = False,
    slice: SliceOption = None,
    slices: Slices = False,
    costs: Costs = None,
    *,
    options: DataOptions,
    workers: Workers = None,
    on: On = None,
    json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Measure a classifier on labelled images.

    Unreadable images and images of classes unknown to the classifier are listed and skipped; the
    exit code is still 0, unless the accuracy is below --fail-under. The accuracy counts the most
    probable class of every image, including images that are unsure or unknown.

    Example: kindsight evaluate runs/photos-1 photos-test/
    """
    from kindsight.bundle import load_bundle
    from kindsight.cli.terminal.progress import watching
    from kindsight.dataset import open_dataset
    from kindsight.distributed import require_cluster
    from kindsight.predictor import Predictor
    from kindsight.uncertainty.prediction import Decisions

    if fail_under is not None and not 0 <= fail_under <= 1:
        raise SettingsError(f"--fail-under must be an accuracy from 0 to 1; got {fail_under:g}.")
    require_cluster(on)
    stored = load_bundle(bundle)
    matrix = None if costs is None else _read_costs(costs, stored.classes)
    wanted = None if not (slices or slice) else () if slices else tuple(slice or ())
    if sets is None:
        sets = stored.uncertainty.get("sets", {}).get("confidence_level")
    rules: dict[str, Any] = {
        "target_accuracy": target_accuracy, "target_coverage": target_coverage, "sets": sets,
        "sets_per_class": sets_per_class or None,
    }  # fmt: skip
    Decisions.load(stored, **rules)  # impossible rules fail before the data are opened
    options = replace(options, value_range=stored.spec.value_range)
    dataset = open_dataset(data, options, min_classes=1, classes=stored.classes)
    if wanted:
        from kindsight.runs.evaluate import check_slice_names

        check_slice_names(wanted, data, options)
    dataset, chosen = choose_split(dataset, split)
    with Predictor(stored, workers=workers, on=on, **rules) as predictor:
        if not quiet:
            if predictor.decisions.note:
                note(predictor.decisions.note)
            for finding in dataset.notes:
                note(as_typed(finding))
            if chosen in ("", "train") and _was_trained_on(bundle, data):
                note(TRAINED_ON)
        with watching(quiet) as progress:
            scores = predictor.evaluate(dataset, progress)
    if scores.clipped and not quiet:
        note(clipping_note(scores.clipped, len(scores.dataset), predictor))
    extras = Extras(
        None if matrix is None else _evaluate_costs(scores, matrix),
        _slices(scores, wanted, data, options, workers, quiet) if wanted is not None else None,
        every_slice=not slices,
    )
    if json:
        print_json(scores_to_dict(scores, sets, extras))
    else:
        title = f"{bundle} on {data}" + (f", {chosen} split" if chosen else "")
        say(*score_lines(scores, title, sets, extras))
    accuracy = scores.evaluation.accuracy
    if fail_under is not None and accuracy < fail_under:
        complain(f"the accuracy, {accuracy:.4f}, is below --fail-under {fail_under:g}.")
        raise typer.Exit(BELOW)


def choose_split(dataset: ImageDataset, wanted: str | None) -> tuple[ImageDataset, str]:
    """Return the images of one split and its name; ``""`` if the data have no splits.

    Parameters
    ----------
    dataset : ImageDataset
    wanted : str, optional
        ``"test"``, ``"validation"``, ``"train"`` or ``"all"``; the first with images if omitted.

    Raises
    ------
    SettingsError
        If the name is invalid, or the split has no images.
    """
    if wanted is not None and wanted not in SPLITS:
        raise SettingsError(f"--split must be one of {', '.join(SPLITS)}; got {wanted!r}.")
    there = [name for name in SPLITS if name in dataset.split]
    if wanted == "all" or (wanted is None and not there):
        return dataset, ""
    if wanted is not None and wanted not in there:
        found = ", ".join(there) or "no splits"
        raise SettingsError(
            f"The data have no {wanted} split; they have {found}. Use --split all or omit it."
        )
    name = wanted or there[0]
    return dataset.where(split=name), name


def _read_costs(path: str, classes: tuple[str, ...]) -> NDArray[np.float64]:
    from kindsight.runs.evaluate import read_costs

    return read_costs(path, classes)


def _evaluate_costs(scores: DatasetEvaluation, matrix: NDArray[np.float64]) -> CostEvaluation:
    """Return the costs on the images, copies counted once."""
    from kindsight.evaluation.costs import evaluate_costs

    rows, targets = scores.counted()
    return evaluate_costs(scores.probabilities[rows], targets, matrix)


def _slices(
    scores: DatasetEvaluation,
    names: tuple[str, ...],
    data: str,
    options: DataOptions,
    workers: int | None,
    quiet: bool,
) -> tuple[Slice, ...]:
    from kindsight.cli.terminal.progress import watching
    from kindsight.runs.evaluate import slices_of

    with watching(quiet) as progress:
        return slices_of(
            scores,
            names,
            data=data,
            options=options,
            workers=workers,
            progress=lambda done, total: progress("measure", done, total),
        )


def _was_trained_on(bundle: str, data: str) -> bool:
    """Return whether the run's settings name these data and it has no record of its images."""
    from kindsight.runs.settings import TrainSettings

    if (Path(bundle) / TRAINED_ON_FILE).exists():  # training images are reported one by one
        return False
    try:
        settings = TrainSettings.from_toml(Path(bundle) / "settings.toml")
    except SettingsError:  # a bundle without settings
        return False
    return same_path(str(settings.data), data)
