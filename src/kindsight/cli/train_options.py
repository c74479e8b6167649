"""The options of ``kindsight train`` that belong to a training of epochs."""

from __future__ import annotations

from typing import Annotated, Any

import typer

__all__ = [
    "L2",
    "Augmentation",
    "BatchNorm",
    "BatchSize",
    "CachedCopies",
    "CheckBefore",
    "ComputeDtype",
    "Cut",
    "Dense",
    "Dropout",
    "EmaDecay",
    "Epochs",
    "Filters",
    "FinalWeights",
    "FindLearningRate",
    "Fold",
    "Freeze",
    "GroupNear",
    "LabelSmoothing",
    "LayerDecay",
    "LeaksOption",
    "LearningRate",
    "Mix",
    "Mlflow",
    "Momentum",
    "OptimizerName",
    "Patience",
    "Phases",
    "Pooling",
    "RunName",
    "Runs",
    "Schedule",
    "Seed",
    "SettingsFile",
    "SplitBy",
    "SplitOption",
    "Summary",
    "TensorBoard",
    "Test",
    "TestData",
    "TrainBatchNorm",
    "Validation",
    "ValidationData",
    "Warmup",
    "WeightDecay",
    "numbers_of",
    "phases_of",
]

PANEL = "Options of a training of epochs (small-cnn, or a backbone that learns)"
LEARNS = "What of a backbone learns (any of these with a backbone: it is trained by epochs)"
PARTS = "Parts of small-cnn, or of a backbone's head (which make a backbone learn)"


def numbers_of(text: str | None, hint: str) -> list[int] | None:
    """Read whole numbers with commas between; "none" is none of them, None where nothing is."""
    if text is None or text.strip().lower() == "none":
        return None if text is None else []
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise typer.BadParameter(
            f"must be whole numbers with commas between, such as 16,32,64. Received: {text!r}",
            param_hint=hint,
        ) from None


def phases_of(lines: list[str] | None) -> list[dict[str, Any]] | None:
    """Read the phases of a training; None where there are none."""
    from kindsight.training.engine.phases import read_phase

    return [read_phase(line) for line in lines] if lines else None


def _option(text: str, metavar: str | None, *names: str, panel: str = PANEL) -> Any:
    return typer.Option(*names, metavar=metavar, help=text, rich_help_panel=panel)


Cut = Annotated[
    str | None,
    _option(
        "Use the backbone up to this layer, such as mixed7 of inception-v3.  [default: all of it]",
        "LAYER",
        panel=LEARNS,
    ),
]
Freeze = Annotated[
    str | None,
    _option(
        "Which of its layers stay as they are: all, none, the first NUMBER, or those up to LAYER.  "
        "[default: all]",
        "all|none|NUMBER|LAYER",
        panel=LEARNS,
    ),
]
TrainBatchNorm = Annotated[
    bool | None,
    _option(
        "Let batch normalisation that is not frozen learn, too; else it stays as it is in use.",
        None,
        "--train-batch-norm/--no-train-batch-norm",
        panel=LEARNS,
    ),
]
CachedCopies = Annotated[
    int | None,
    _option(
        "With --augment: run so many augmented views of each image, and itself, through the "
        "frozen layers once, and keep them, 0 to 64; 0 draws others in each epoch.  [default: 0]",
        "NUMBER",
        panel=LEARNS,
    ),
]
Phases = Annotated[
    list[str] | None,
    _option(
        "A phase of the training, once for each in their order: 'freeze=all epochs=3 "
        "learning-rate=1e-3 augment=none'; what it does not say is as the other options say.",
        "SETTINGS",
        "--phase",
        panel=LEARNS,
    ),
]
LayerDecay = Annotated[
    float | None,
    _option("The pace of each layer, as a share of that above it.  [default: 1]", "SHARE"),
]
EmaDecay = Annotated[
    float | None,
    _option(
        "Judge and keep a running mean of the weights, which keeps this share of itself in each "
        "step, such as 0.999.",
        "SHARE",
    ),
]
Mix = Annotated[
    str | None,
    _option("Mix the images of a batch.  [default: none]", "none|mixup|cutmix"),
]


Epochs = Annotated[int | None, _option("How often each image is seen.  [default: 15]", "NUMBER")]
BatchSize = Annotated[int | None, _option("Images in a step.  [default: 20]", "NUMBER")]
Augmentation = Annotated[
    str | None,
    _option(
        "What is done to images each time they are seen: none, light, classic, strong, auto, or "
        "a TOML file.  [default: none]",
        "NAME",
    ),
]
OptimizerName = Annotated[
    str | None, _option("How it learns.  [default: rmsprop]", "rmsprop|adam|adamw|sgd")
]
LearningRate = Annotated[
    float | None, _option("The highest learning rate.  [default: 0.001; sgd: 0.01]", "RATE")
]
Momentum = Annotated[float | None, _option("Of sgd (default 0.9) and rmsprop (0).", "SHARE")]
WeightDecay = Annotated[float | None, _option("Of adamw (default 0.004).", "SHARE")]
Schedule = Annotated[
    str | None,
    _option("How the learning rate goes on.  [default: constant]", "constant|cosine|one-cycle"),
]
Warmup = Annotated[
    float | None, _option("Epochs in which the learning rate rises first.  [default: 0]", "EPOCHS")
]
LabelSmoothing = Annotated[
    float | None, _option("The share of each label spread over all classes.", "SHARE")
]
Patience = Annotated[
    int | None, _option("Stop after so many epochs without a better one.", "EPOCHS")
]
ComputeDtype = Annotated[
    str | None,
    _option(
        "In which numbers convolutions are multiplied in training; auto is bfloat16 where the "
        "processor is faster with it.  [default: auto]",
        "auto|float32|bfloat16",
    ),
]
FinalWeights = Annotated[
    str | None, _option("Which epoch's weights are kept.  [default: best]", "best|last")
]
Filters = Annotated[
    str | None,
    _option("Of each 3 x 3 convolution of small-cnn.  [default: 16,32,64]", "N,N,...", panel=PARTS),
]
Dense = Annotated[
    str | None,
    _option(
        "Units of each dense layer, or none.  [default: 512; of a backbone's head: none]",
        "N,N,...",
        panel=PARTS,
    ),
]
Dropout = Annotated[
    float | None, _option("Before the last layer.  [default: 0]", "SHARE", panel=PARTS)
]
BatchNorm = Annotated[
    bool | None,
    _option(
        "Normalise by batch: each convolution's output, of a head each dense layer's.",
        None,
        "--batch-norm/--no-batch-norm",
        panel=PARTS,
    ),
]
L2 = Annotated[
    float | None, _option("A penalty on large kernels.  [default: 0]", "FACTOR", panel=PARTS)
]
Pooling = Annotated[
    str | None,
    _option(
        "What becomes of the last map.  [default: flatten; of a backbone: average]",
        "flatten|average|max",
        panel=PARTS,
    ),
]
TensorBoard = Annotated[
    str | None, _option("Log the training for TensorBoard, too.", "FOLDER", "--tensorboard")
]
Mlflow = Annotated[bool | None, _option("Log the training to MLflow, too.", None, "--mlflow")]
Summary = Annotated[bool, _option("Show the network's layers first.", None, "--summary")]
FindLearningRate = Annotated[
    bool,
    _option(
        "Do not train, but try rising learning rates on a few batches and suggest one.",
        None,
        "--find-learning-rate",
    ),
]


# SECTION: Options of ``kindsight train``: the run, how images are divided, what is looked for.


def _share(text: str) -> float | int:
    """Read a fraction or a number of images."""
    try:
        return int(text) if text.strip().isdigit() else float(text)
    except ValueError:
        raise typer.BadParameter(
            f"must be a fraction such as 0.2, or a number of images. Received: {text!r}"
        ) from None


RunName = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="The run folder's name or path.  [default: <name of DATA>-<next number>]",
    ),
]
Runs = Annotated[
    str | None,
    typer.Option(metavar="FOLDER", help="Where run folders are made.  [default: runs]"),
]
Validation = Annotated[
    float | None,
    typer.Option(
        metavar="SHARE",
        parser=_share,
        help="Images kept back to validate on, as a fraction or a number.  [default: 0.2]",
    ),
]
Test = Annotated[
    float | None,
    typer.Option(
        metavar="SHARE",
        parser=_share,
        help="Images kept back for a last test, as a fraction or a number.  [default: 0]",
    ),
]
Seed = Annotated[
    int | None,
    typer.Option(metavar="NUMBER", help="Another seed divides the images otherwise.  [default: 0]"),
]
SettingsFile = Annotated[
    str | None,
    typer.Option(
        metavar="FILE",
        help="Repeat a run by its settings.toml; options given beside it win.",
    ),
]
ValidationData = Annotated[
    str | None,
    typer.Option(
        "--validation-data",
        metavar="DATA",
        help="Other data, all of whose images are the validation part.",
    ),
]
TestData = Annotated[
    str | None,
    typer.Option(
        "--test-data",
        metavar="DATA",
        help="Other data, all of whose images are the test part.",
    ),
]
SplitOption = Annotated[
    str | None,
    typer.Option(
        "--split",
        metavar="FILE",
        help="Divide as a table of paths and splits says, such as another run's split.csv.",
    ),
]
SplitBy = Annotated[
    str | None,
    typer.Option(
        "--split-by",
        metavar="random|date",
        help="date: the newest images, by their EXIF data, are kept back.  [default: random]",
    ),
]
Fold = Annotated[
    str | None,
    typer.Option(
        "--fold",
        metavar="K/N",
        help="Validate on one fold of several: 2/5 is the second of five.",
    ),
]
GroupNear = Annotated[
    bool | None,
    typer.Option(
        "--group-near-duplicates",
        help="Keep images that are nearly the same (bursts, copies stored anew) in one part.",
        show_default=False,
    ),
]
LeaksOption = Annotated[
    str | None,
    typer.Option(
        "--leakage",
        metavar="drop|move|keep",
        help="What becomes of images that the validation or test part has too, the same or "
        "nearly: drop leaves them out of training, move takes them to the training part.  "
        "[default: drop]",
    ),
]
CheckBefore = Annotated[
    str | None,
    typer.Option(
        "--check",
        metavar="cheap|full",
        help="full: run all checks, as kindsight check --full does, and write what they find into "
        "the run folder.  [default: cheap]",
    ),
]
