"""The options of ``kindsight train`` that belong to a network trained from its first weights."""

from __future__ import annotations

from typing import Annotated, Any

import typer

__all__ = [
    "L2",
    "Augmentation",
    "BatchNorm",
    "BatchSize",
    "Dense",
    "Dropout",
    "Epochs",
    "Filters",
    "FindLearningRate",
    "Keep",
    "LabelSmoothing",
    "LearningRate",
    "Mlflow",
    "Momentum",
    "OptimizerName",
    "Patience",
    "Pooling",
    "Precision",
    "Schedule",
    "Summary",
    "TensorBoard",
    "Warmup",
    "WeightDecay",
    "numbers_of",
]

PANEL = "Options of a network (small-cnn)"


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


def _option(text: str, metavar: str | None, *names: str) -> Any:
    return typer.Option(*names, metavar=metavar, help=text, rich_help_panel=PANEL)


Epochs = Annotated[int | None, _option("How often each picture is seen.  [default: 15]", "NUMBER")]
BatchSize = Annotated[int | None, _option("Pictures in a step.  [default: 20]", "NUMBER")]
Augmentation = Annotated[
    str | None,
    _option(
        "What is done to pictures each time they are seen: none, light, classic, strong, auto, or "
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
Precision = Annotated[
    str | None,
    _option(
        "In which numbers convolutions are multiplied in training; auto is bfloat16 where the "
        "processor is faster with it.  [default: auto]",
        "auto|float32|bfloat16",
    ),
]
Keep = Annotated[
    str | None, _option("Which epoch's weights are kept.  [default: best]", "best|last")
]
Filters = Annotated[
    str | None,
    _option("Of each 3 x 3 convolution.  [default: 16,32,64]", "N,N,..."),
]
Dense = Annotated[
    str | None,
    _option("Units of each dense layer, or none.  [default: 512]", "N,N,..."),
]
Dropout = Annotated[float | None, _option("Before the last layer.  [default: 0]", "SHARE")]
BatchNorm = Annotated[
    bool | None,
    _option("Normalise each convolution's output.", None, "--batch-norm/--no-batch-norm"),
]
L2 = Annotated[float | None, _option("A penalty on large kernels.  [default: 0]", "FACTOR")]
Pooling = Annotated[
    str | None,
    _option("What becomes of the last map.  [default: flatten]", "flatten|average|max"),
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
