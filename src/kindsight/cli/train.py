"""``kindsight train``: a folder of images becomes a run folder that holds a classifier."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer

from kindsight.cli.terminal.options import (
    Column,
    DataOf,
    Debug,
    GroupFrom,
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
from kindsight.cli.terminal.text import Paint, note, print_json, printable, say, table
from kindsight.cli.train_options import (
    L2,
    Augmentation,
    BatchNorm,
    BatchSize,
    CachedCopies,
    CheckBefore,
    ComputeDtype,
    Cut,
    Dense,
    Dropout,
    EmaDecay,
    Epochs,
    Filters,
    FinalWeights,
    FindLearningRate,
    Fold,
    Freeze,
    GroupNear,
    LabelSmoothing,
    LayerDecay,
    LeaksOption,
    LearningRate,
    Mix,
    Mlflow,
    Momentum,
    OptimizerName,
    Patience,
    Phases,
    Pooling,
    RunName,
    Runs,
    Schedule,
    Seed,
    SettingsFile,
    SplitBy,
    SplitOption,
    Summary,
    TensorBoard,
    Test,
    TestData,
    TrainBatchNorm,
    Validation,
    ValidationData,
    Warmup,
    WeightDecay,
    numbers_of,
    phases_of,
)
from kindsight.errors import SettingsError

if TYPE_CHECKING:
    from kindsight.runs.settings import TrainSettings
    from kindsight.training.engine.learning_rate_finder import RateSweep

__all__ = [
    "find",
    "layer_lines",
    "train",
]


def train(  # noqa: PLR0913, PLR0917 (one parameter for each option)
    data: Annotated[
        str | None,
        typer.Argument(help=DataOf),
    ] = None,
    run: RunName = None,
    runs: Runs = None,
    model: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="A backbone, one of those that kindsight backbones lists or a .keras file of your "
            "own (frozen, unless an option below says what of it learns), or up to three joined by "
            "+; or a network to train from its first weights (small-cnn).  "
            "[default: efficientnet-lite0]",
        ),
    ] = None,
    weights: Annotated[
        str | None,
        typer.Option(
            metavar="imagenet|none|FILE",
            help="Where the backbone's weights come from; FILE is an .h5 or .weights.h5 of Keras.  "
            "[default: imagenet]",
        ),
    ] = None,
    size: Annotated[
        int | None,
        typer.Option(
            metavar="PIXELS",
            help="Height and width that images are brought to.  [default: the model's own]",
        ),
    ] = None,
    resize: Annotated[
        str | None,
        typer.Option(
            metavar="stretch|crop|pad",
            help="What becomes of images that are not square.  [default: crop]",
        ),
    ] = None,
    head: Annotated[
        str | None,
        typer.Option(
            metavar="auto|linear|rbf",
            help="What is fitted on a backbone's features; auto lets cross-validation choose.  "
            "[default: auto]",
        ),
    ] = None,
    tta_flips: Annotated[
        int | None,
        typer.Option(
            metavar="1|2|3|4",
            help="Flips over which a backbone's features are averaged: none, left-right, "
            "up-down, both.  [default: 1]",
        ),
    ] = None,
    tta_crops: Annotated[
        int | None,
        typer.Option(
            metavar="1-6",
            help="Crops over which a backbone's features are averaged, each in all flips: the "
            "whole image, its middle seven eighths, the four corners.  [default: 1]",
        ),
    ] = None,
    fine_tune: Annotated[
        str | None,
        typer.Option(
            metavar="off|light|full",
            help="Whether a backbone learns, too: light trains its upper part, full all of it. "
            "Kept where it is better on the validation part.  [default: off]",
        ),
    ] = None,
    budget: Annotated[
        str | None,
        typer.Option(
            metavar="TIME",
            help="How long the training may take, such as 10m: the head on a frozen backbone "
            "first, then as much fine-tuning as fits. The result can take longer to ask, too.",
        ),
    ] = None,
    class_weight: Annotated[
        str | None,
        typer.Option(
            metavar="none|balanced",
            help="balanced: a rare class counts as much as a common one.  [default: none]",
        ),
    ] = None,
    validation: Validation = None,
    test: Test = None,
    seed: Seed = None,
    settings: SettingsFile = None,
    validation_data: ValidationData = None,
    test_data: TestData = None,
    split: SplitOption = None,
    split_by: SplitBy = None,
    fold: Fold = None,
    group_near_duplicates: GroupNear = None,
    leakage: LeaksOption = None,
    check: CheckBefore = None,
    label_from: LabelFrom = None,
    group_from: GroupFrom = None,
    column: Column = None,
    label_names: LabelNames = None,
    pixel_shape: PixelShape = None,
    root: Root = None,
    cut: Cut = None,
    freeze: Freeze = None,
    train_batch_norm: TrainBatchNorm = None,
    cached_copies: CachedCopies = None,
    phase: Phases = None,
    epochs: Epochs = None,
    batch_size: BatchSize = None,
    augment: Augmentation = None,
    mix: Mix = None,
    optimizer: OptimizerName = None,
    learning_rate: LearningRate = None,
    momentum: Momentum = None,
    weight_decay: WeightDecay = None,
    schedule: Schedule = None,
    warmup: Warmup = None,
    label_smoothing: LabelSmoothing = None,
    patience: Patience = None,
    layer_decay: LayerDecay = None,
    ema_decay: EmaDecay = None,
    final_weights: FinalWeights = None,
    compute_dtype: ComputeDtype = None,
    filters: Filters = None,
    dense: Dense = None,
    dropout: Dropout = None,
    batch_norm: BatchNorm = None,
    l2: L2 = None,
    pooling: Pooling = None,
    tensorboard: TensorBoard = None,
    mlflow: Mlflow = None,
    summary: Summary = False,
    find_learning_rate: FindLearningRate = False,
    workers: Workers = None,
    json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Train a classifier on a folder of images.

    What was computed is kept: stopped at any moment, the same command continues, and another
    training on the same images reads none of them again.

    Example: kindsight train photos/

    Example: kindsight train photos/ --validation 200 --test 0.1 --group-near-duplicates

    Example: kindsight train photos/ --budget 10m

    Example: kindsight train photos/ --model small-cnn --epochs 15 --augment classic

    Example: kindsight train photos/ --model inception-v3 --cut mixed7 --freeze all --dropout 0.2
    """
    from kindsight.cli.terminal.live import watching_training
    from kindsight.runs.train import train as train_run

    given = {
        "data": data, "run": run, "runs": runs, "model": model, "weights": weights, "size": size,
        "resize": resize, "head": head, "tta_flips": tta_flips,
        "tta_crops": tta_crops, "fine_tune": fine_tune,
        "budget": budget, "class_weight": class_weight, "validation": validation,
        "test": test, "seed": seed, "workers": workers, "validation_data": validation_data,
        "test_data": test_data, "label_from": label_from, "group_from": group_from,
        "columns": columns_of(column), "label_names": names_of(label_names),
        "pixel_shape": pixel_shape, "root": root, "epochs": epochs, "batch_size": batch_size,
        "augment": augment, "optimizer": optimizer, "learning_rate": learning_rate,
        "momentum": momentum, "weight_decay": weight_decay, "schedule": schedule,
        "warmup": warmup, "label_smoothing": label_smoothing, "patience": patience,
        "final_weights": final_weights,
        "compute_dtype": compute_dtype,
        "cut": cut, "freeze": freeze, "train_batch_norm": train_batch_norm,
        "phases": phases_of(phase), "mix": mix, "cached_copies": cached_copies,
        "layer_decay": layer_decay, "ema_decay": ema_decay,
        "filters": numbers_of(filters, "--filters"), "dense": numbers_of(dense, "--dense"),
        "dropout": dropout, "batch_norm": batch_norm, "l2": l2, "pooling": pooling,
        "tensorboard": tensorboard, "mlflow": mlflow, "split": split, "split_by": split_by,
        "fold": fold, "group_near_duplicates": group_near_duplicates, "leakage": leakage,
        "check": check,
    }  # fmt: skip
    chosen = _settings(settings, {name: v for name, v in given.items() if v is not None})
    if find_learning_rate:
        find(chosen, json=json, quiet=quiet)
        return
    if summary and not json:
        say(*layer_lines(chosen, quiet=quiet))
    coming = chosen.training().download()
    if coming and not quiet:
        note(coming)
    seconds = getattr(chosen.training(), "seconds", None)
    with watching_training(quiet, seconds) as watch:
        result = train_run(chosen, progress=watch.progress, callback=watch.callback)
    if json:
        print_json(result.to_dict())
    else:
        from kindsight.cli.terminal.summary import summary_lines

        say(*summary_lines(result))


def _settings(file: str | None, given: dict[str, Any]) -> Any:
    from kindsight.runs.train import TrainSettings

    if file is not None:
        return TrainSettings.from_toml(file, **given)
    if "data" not in given:
        raise SettingsError(
            "A training needs a folder of images: kindsight train photos/. Received: none, and "
            "no --settings that names one."
        )
    return TrainSettings(**given)


# SECTION: What ``kindsight train`` says of a network besides training it: its layers, a learning
# rate.

# Rows of the sweep that are printed.
SHOWN = 20


def layer_lines(settings: TrainSettings, *, quiet: bool) -> Iterator[str]:
    """Yield a network's table of layers, as it is for the classes of the data.

    Raises
    ------
    SettingsError
        For a model whose layers do not learn.
    """
    from kindsight.cli.terminal.progress import watching
    from kindsight.runs.train import layers_of

    with watching(quiet) as progress:
        rows = layers_of(settings, progress=progress)
    told = any(row.trains for row in rows)
    cells = [
        (
            row.name,
            row.kind,
            *([row.trains] if told else []),
            " x ".join(map(str, row.output)),
            f"{row.parameters:,}",
        )
        for row in rows
    ]
    total = f"{sum(row.parameters for row in rows):,}"
    heads: tuple[str, ...] = ("layer", "what it does", "output", "parameters")
    last: tuple[str, ...] = ("in all", "", "", total)
    if told:
        learned = sum(row.parameters for row in rows if row.trains.startswith("trains"))
        heads = (*heads[:2], "in training", *heads[2:])
        last = (*last[:2], f"{learned:,} train", *last[2:])
    left = 3 if told else 2
    yield from table(heads, [*cells, last], paint=Paint(sys.stdout), left=left)
    yield ""


def find(settings: TrainSettings, *, json: bool, quiet: bool) -> None:
    """Try learning rates, and say which one to take."""
    from kindsight.cli.terminal.progress import watching
    from kindsight.runs.train import find_learning_rate

    with watching(quiet) as progress:
        sweep, files = find_learning_rate(settings, progress=progress)
    if json:
        print_json({**sweep.to_dict(), "files": [str(file) for file in files]})
    else:
        say(*_sweep_lines(sweep), *(f"figure  {printable(str(file))}" for file in files))


def _sweep_lines(sweep: RateSweep) -> Iterator[str]:
    paint = Paint(sys.stdout)
    every = max(1, len(sweep.rates) // SHOWN)
    rows = [
        (f"{rate:.2e}", f"{loss:.4f}")
        for rate, loss in list(zip(sweep.rates, sweep.losses, strict=True))[::every]
    ]
    yield from table(("learning rate", "loss"), rows, paint=paint, left=0)
    yield ""
    if sweep.suggestion is None:
        yield "The loss rose from the start: there is no learning rate to suggest."
    else:
        yield paint(f"suggested: --learning-rate {sweep.suggestion:g}", "bold")
        yield paint("a tenth of the highest rate at which the loss has not risen", "dim")
