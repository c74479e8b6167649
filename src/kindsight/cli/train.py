"""``kindsight train``: a folder of pictures becomes a run folder that holds a classifier."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from kindsight.cli.division_options import (
    CheckBefore,
    Fold,
    GroupNear,
    LeaksOption,
    RunName,
    Runs,
    Seed,
    SettingsFile,
    SplitBy,
    SplitOption,
    Test,
    TestData,
    Validation,
    ValidationData,
)
from kindsight.cli.network_options import (
    L2,
    Augmentation,
    Average,
    BatchNorm,
    BatchSize,
    Cut,
    Dense,
    Dropout,
    Epochs,
    Filters,
    FindLearningRate,
    Freeze,
    Keep,
    KeptViews,
    LabelSmoothing,
    LayerDecay,
    LearningRate,
    Mix,
    Mlflow,
    Momentum,
    OptimizerName,
    Patience,
    Phases,
    Pooling,
    Precision,
    Schedule,
    Summary,
    TensorBoard,
    TrainNorm,
    Warmup,
    WeightDecay,
    numbers_of,
    phases_of,
)
from kindsight.cli.options import (
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
from kindsight.cli.text import note, print_json, say
from kindsight.errors import SettingsError

__all__ = ["train"]


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
            help="Height and width that pictures are brought to.  [default: the model's own]",
        ),
    ] = None,
    resize: Annotated[
        str | None,
        typer.Option(
            metavar="stretch|crop|pad",
            help="What becomes of pictures that are not square.  [default: crop]",
        ),
    ] = None,
    head: Annotated[
        str | None,
        typer.Option(
            metavar="auto|linear|curved",
            help="What is fitted on a backbone's features; auto lets cross-validation choose.  "
            "[default: auto]",
        ),
    ] = None,
    views: Annotated[
        int | None,
        typer.Option(
            metavar="1|2|3|4",
            help="Over how many views a backbone's features are averaged: as it is, left-right, "
            "up-down, both.  [default: 1]",
        ),
    ] = None,
    crops: Annotated[
        int | None,
        typer.Option(
            metavar="1-6",
            help="Over how many crops besides, each in all those views: the whole picture, its "
            "middle seven eighths, as much of each corner.  [default: 1]",
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
    group_near: GroupNear = None,
    leaks: LeaksOption = None,
    check: CheckBefore = None,
    label_from: LabelFrom = None,
    group_from: GroupFrom = None,
    column: Column = None,
    label_names: LabelNames = None,
    pixel_shape: PixelShape = None,
    root: Root = None,
    cut: Cut = None,
    freeze: Freeze = None,
    train_norm: TrainNorm = None,
    kept_views: KeptViews = None,
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
    average: Average = None,
    keep: Keep = None,
    precision: Precision = None,
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
    """Train a classifier on a folder of pictures.

    What was computed is kept: stopped at any moment, the same command continues, and another
    training on the same pictures reads none of them again.

    Example: kindsight train photos/

    Example: kindsight train photos/ --validation 200 --test 0.1 --group-near

    Example: kindsight train photos/ --budget 10m

    Example: kindsight train photos/ --model small-cnn --epochs 15 --augment classic

    Example: kindsight train photos/ --model inception-v3 --cut mixed7 --freeze all --dropout 0.2
    """
    from kindsight.cli.live import watching_training
    from kindsight.cli.network import find, layer_lines
    from kindsight.runs import train as train_run
    from kindsight.training.kinds import coming_download

    given = {
        "data": data, "run": run, "runs": runs, "model": model, "weights": weights, "size": size,
        "resize": resize, "head": head, "views": views, "crops": crops, "fine_tune": fine_tune,
        "budget": budget, "class_weight": class_weight, "validation": validation,
        "test": test, "seed": seed, "workers": workers, "validation_data": validation_data,
        "test_data": test_data, "label_from": label_from, "group_from": group_from,
        "columns": columns_of(column), "label_names": names_of(label_names),
        "pixel_shape": pixel_shape, "root": root, "epochs": epochs, "batch_size": batch_size,
        "augment": augment, "optimizer": optimizer, "learning_rate": learning_rate,
        "momentum": momentum, "weight_decay": weight_decay, "schedule": schedule,
        "warmup": warmup, "label_smoothing": label_smoothing, "patience": patience, "keep": keep,
        "precision": precision, "cut": cut, "freeze": freeze, "train_norm": train_norm,
        "phases": phases_of(phase), "mix": mix, "kept_views": kept_views,
        "layer_decay": layer_decay, "average": average,
        "filters": numbers_of(filters, "--filters"), "dense": numbers_of(dense, "--dense"),
        "dropout": dropout, "batch_norm": batch_norm, "l2": l2, "pooling": pooling,
        "tensorboard": tensorboard, "mlflow": mlflow, "split": split, "split_by": split_by,
        "fold": fold, "group_near": group_near, "leaks": leaks, "check": check,
    }  # fmt: skip
    chosen = _settings(settings, {name: v for name, v in given.items() if v is not None})
    if find_learning_rate:
        find(chosen, json=json, quiet=quiet)
        return
    if summary and not json:
        say(*layer_lines(chosen, quiet=quiet))
    coming = coming_download(chosen.training())
    if coming and not quiet:
        note(coming)
    seconds = getattr(chosen.training(), "seconds", None)
    with watching_training(quiet, seconds) as watch:
        result = train_run(chosen, progress=watch.progress, listener=watch.listener)
    if json:
        print_json(result.to_dict())
    else:
        from kindsight.cli.summary import summary_lines

        say(*summary_lines(result))


def _settings(file: str | None, given: dict[str, Any]) -> Any:
    from kindsight.runs import TrainSettings

    if file is not None:
        return TrainSettings.from_toml(file, **given)
    if "data" not in given:
        raise SettingsError(
            "A training needs a folder of pictures: kindsight train photos/. Received: none, and "
            "no --settings that names one."
        )
    return TrainSettings(**given)
