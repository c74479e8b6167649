"""``kindsight evaluate``: how good a classifier is on labelled pictures."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from kindsight.cli.options import (
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
from kindsight.cli.text import note, print_json, say
from kindsight.errors import CatalogError, SettingsError

if TYPE_CHECKING:
    from kindsight.catalog import Catalog
    from kindsight.predictor import CatalogScores

__all__ = ["choose_split", "evaluate", "scores_to_dict"]

SPLITS = ("test", "validation", "train", "all")
TRAINED_ON_FILE = "trained_on.npz"


def evaluate(  # noqa: PLR0913, PLR0917 (one parameter for each option)
    bundle: Annotated[str, typer.Argument(help="A run's folder, or another bundle.")],
    data: Annotated[
        str,
        typer.Argument(help=DataOf),
    ],
    split: Annotated[
        str | None,
        typer.Option(
            metavar="|".join(SPLITS),
            help="Which part of data that are divided.  [default: test, else validation]",
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
    """Measure a classifier on labelled pictures.

    Pictures that cannot be read, and classes that the classifier does not know, are named and
    not scored; the exit code is 0 all the same.

    Example: kindsight evaluate runs/photos-1 photos-test/
    """
    from kindsight.catalog import DataOptions, open_catalog
    from kindsight.cli.progress import watching
    from kindsight.cli.watched import WatchedPredictor

    options = DataOptions(
        label_from=label_from,
        columns=columns_of(column) or {},
        label_names=names_of(label_names) or (),
        pixel_shape=pixel_shape,
        root=root,
    )
    predictor = WatchedPredictor(bundle, workers=workers)
    catalog = open_catalog(data, options, min_classes=1, classes=predictor.classes)
    catalog, part = choose_split(catalog, split)
    if not quiet:
        for finding in catalog.notes:
            note(finding)
        recorded = (Path(bundle) / TRAINED_ON_FILE).exists()  # then it is said picture by picture
        if part in ("", "train") and not recorded and _was_trained_on(bundle, data):
            note(
                "the classifier was trained on these data and has seen most of these pictures; "
                "how good it is shows on others."
            )
    _check_known(catalog, predictor.classes)
    with watching(quiet) as progress:
        predictor.progress = progress
        scores = predictor.evaluate(catalog)
    if json:
        print_json(scores_to_dict(scores))
    else:
        from kindsight.cli.scores import score_lines

        say(*score_lines(scores, f"{bundle} on {data}" + (f", {part} part" if part else "")))


def choose_split(catalog: Catalog, wanted: str | None) -> tuple[Catalog, str]:
    """Return the pictures of one part, and the part's name; ``""`` where there are no parts.

    Parameters
    ----------
    catalog : Catalog
        Of a whole folder.
    wanted : str, optional
        ``"test"``, ``"validation"``, ``"train"`` or ``"all"``; if omitted the first of these
        that has pictures.

    Raises
    ------
    SettingsError
        For another name, or a part that has no pictures.
    """
    if wanted is not None and wanted not in SPLITS:
        raise SettingsError(f"--split must be one of {', '.join(SPLITS)}. Received: {wanted!r}.")
    there = [name for name in SPLITS if name in catalog.split]
    if wanted == "all" or (wanted is None and not there):
        return catalog, ""
    if wanted is not None and wanted not in there:
        found = ", ".join(there) or "no parts"
        raise SettingsError(
            f"--split must name a part of the data. Received: {wanted}; the data have {found}."
        )
    part = wanted or there[0]
    return catalog.where(split=part), part


def _was_trained_on(bundle: str, data: str) -> bool:
    """Whether the run's own settings name this very folder."""
    from kindsight.settings import TrainSettings

    try:
        settings = TrainSettings.from_toml(Path(bundle) / "settings.toml")
    except SettingsError:  # a bundle that is no run, or has been given away
        return False
    return Path(settings.data).resolve() == Path(data).resolve()


def _check_known(catalog: Catalog, classes: tuple[str, ...]) -> None:
    if not set(classes) & set(catalog.label):
        from kindsight.catalog.names import shown_list

        raise CatalogError(
            "The data must have a class that the classifier knows. Received: "
            f"{shown_list(catalog.present_classes())}; it knows {shown_list(classes)}."
        )


def scores_to_dict(scores: CatalogScores) -> dict[str, Any]:
    """Return what ``--json`` prints.

    Returns
    -------
    dict
        The keys of :meth:`kindsight.evaluation.Evaluation.to_dict`, and ``unknown`` (class to
        number of pictures, not scored), ``absent`` (classes without a picture in the data),
        ``trained_on`` (``pictures``, how many of them it was trained on, and ``without``, the
        evaluation of the others or None; None where that is not known) and ``set_aside`` (a list
        of path, code and message).
    """
    return {
        **scores.evaluation.to_dict(),
        "unknown": scores.unknown,
        "absent": list(scores.absent),
        "trained_on": _trained_on(scores),
        "set_aside": [
            {"path": problem.path, "code": problem.code, "message": problem.reason}
            for problem in scores.problems
        ],
    }


def _trained_on(scores: CatalogScores) -> dict[str, Any] | None:
    if scores.trained_on is None:
        return None
    unseen = scores.unseen() if scores.trained_on.any() else scores.evaluation
    return {
        "pictures": int(scores.trained_on.sum()),
        "without": None if unseen is None else unseen.to_dict(),
    }
