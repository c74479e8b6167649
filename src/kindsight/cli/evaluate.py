"""``kindsight evaluate``: measure a classifier on labelled images."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from kindsight.cli.terminal.options import (
    Column,
    DataOf,
    Debug,
    Json,
    LabelFrom,
    LabelNames,
    PixelShape,
    Quiet,
    Root,
    Workers,
    columns_of,
    names_of,
)
from kindsight.cli.terminal.text import note, print_json, say
from kindsight.errors import DatasetError, SettingsError

if TYPE_CHECKING:
    from kindsight.dataset import ImageDataset

__all__ = ["choose_split", "evaluate"]

SPLITS = ("test", "validation", "train", "all")
TRAINED_ON_FILE = "trained_on.npz"


def evaluate(  # noqa: PLR0913, PLR0917 (one parameter for each option)
    bundle: Annotated[str, typer.Argument(help="Run folder or model bundle.")],
    data: Annotated[
        str,
        typer.Argument(help=DataOf),
    ],
    split: Annotated[
        str | None,
        typer.Option(
            metavar="|".join(SPLITS),
            help="Split that is evaluated.  [default: the first of these that the data have]",
        ),
    ] = None,
    label_from: LabelFrom = None,
    column: Column = None,
    label_names: LabelNames = None,
    pixel_shape: PixelShape = None,
    root: Root = None,
    workers: Workers = None,
    json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Measure a classifier on labelled images.

    Unreadable images and images of classes unknown to the classifier are listed and skipped; the
    exit code is still 0.

    Example: kindsight evaluate runs/photos-1 photos-test/
    """
    from kindsight.cli.terminal.progress import watching
    from kindsight.cli.terminal.scores import score_lines, scores_to_dict
    from kindsight.dataset import DataOptions, open_dataset
    from kindsight.predictor import Predictor

    options = DataOptions(
        label_from=label_from,
        columns=columns_of(column) or {},
        label_names=names_of(label_names) or (),
        pixel_shape=pixel_shape,
        root=root,
    )
    predictor = Predictor(bundle, workers=workers)
    dataset = open_dataset(data, options, min_classes=1, classes=predictor.classes)
    dataset, chosen = choose_split(dataset, split)
    if not quiet:
        for finding in dataset.notes:
            note(finding)
        recorded = (Path(bundle) / TRAINED_ON_FILE).exists()  # then reported image by image
        if chosen in ("", "train") and not recorded and _was_trained_on(bundle, data):
            note(
                "the classifier was trained on these data. Accuracy on its training images is "
                "too high; evaluate it on other images."
            )
    _check_known(dataset, predictor.classes)
    with watching(quiet) as progress:
        scores = predictor.evaluate(dataset, progress)
    if json:
        print_json(scores_to_dict(scores))
    else:
        title = f"{bundle} on {data}" + (f", {chosen} split" if chosen else "")
        say(*score_lines(scores, title))


def choose_split(dataset: ImageDataset, wanted: str | None) -> tuple[ImageDataset, str]:
    """Return the images of one split and its name; ``""`` where the data have no splits.

    Parameters
    ----------
    dataset : ImageDataset
    wanted : str, optional
        ``"test"``, ``"validation"``, ``"train"`` or ``"all"``; the first with images if omitted.

    Raises
    ------
    SettingsError
        For another name, or a split without images.
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


def _was_trained_on(bundle: str, data: str) -> bool:
    """Return whether the settings of the run name these data."""
    from kindsight.runs.settings import TrainSettings

    try:
        settings = TrainSettings.from_toml(Path(bundle) / "settings.toml")
    except SettingsError:  # a bundle without settings
        return False
    return Path(settings.data).resolve() == Path(data).resolve()


def _check_known(dataset: ImageDataset, classes: tuple[str, ...]) -> None:
    if not set(classes) & set(dataset.label):
        from kindsight.dataset.names import shown_list

        raise DatasetError(
            f"None of the classes of the data is known to the classifier: the data have "
            f"{shown_list(dataset.present_classes())}, the classifier {shown_list(classes)}."
        )
