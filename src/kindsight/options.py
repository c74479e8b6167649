"""The options of a training, each declared once.

The options of ``kindsight train``, the keys of ``settings.toml``, the parameters of
:class:`kindsight.ImageClassifier`, their checks and their documentation all come from the two
classes below. :mod:`kindsight.training.option_rules` checks values by them.
"""

import math
import os
import re
import types
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal, TypedDict, Union, get_args, get_origin, get_type_hints

__all__ = [
    "CLASSIFIER_OPTIONS", "EXECUTOR_PATTERN", "OPTIONS", "PANELS", "ModelOptions", "Option",
    "TrainOptions",
]  # fmt: skip

PANELS = ("Data", "Split", "Model", "Frozen head", "Training", "Fine-tuning and budget", "Output")
"""The groups of options in ``kindsight train --help``, in order."""

FROZEN, NETWORK, TRANSFER = "frozen", "network", "transfer"
_EVERY = (FROZEN, NETWORK, TRANSFER)
_EPOCHS = (NETWORK, TRANSFER)


@dataclass(frozen=True)
class Option:
    """The declaration of one option."""

    help: str  # a noun phrase with the unit, ending in a full stop
    panel: str  # one of :data:`PANELS`
    default: Any = None  # the value if omitted; None where the trainer or the data decide
    default_text: str = ""  # describes the default in the help, where `default` does not
    # the placeholder for the value on the command line; derived from the type if empty
    metavar: str = ""
    # bounds of a number: at least, above, at most, below
    ge: float | None = None
    gt: float | None = None
    le: float | None = None
    lt: float | None = None
    rule: str = ""  # what the value must be, for errors; derived from type and bounds if empty
    # returns whether a value of the right type is allowed
    check: Callable[[Any], bool] | None = None
    # which trainers take the option: ``"frozen"``, ``"network"``, ``"transfer"``; empty for an
    # option of the run as a whole
    trainers: tuple[str, ...] = ()
    # whether a backbone with this option is trained by the ``"transfer"`` trainer
    selects: bool = False
    rare: bool = False  # whether the option comes last in its panel
    python_help: str = ""  # the help in Python, where `help` is about the command line
    # the option on the command line; derived from the name if empty, ``"-"`` for none
    flag: str = ""
    path: bool = False  # whether a text is, or may be, a path
    # the key and the annotated type; filled in from the declaration
    name: str = ""
    type: Any = None

    @property
    def types(self) -> tuple[Any, ...]:
        """The alternatives of the type, without None."""
        union = get_origin(self.type) in (Union, types.UnionType)
        members = get_args(self.type) if union else (self.type,)
        return tuple(member for member in members if member is not type(None))

    @property
    def choices(self) -> tuple[str, ...]:
        """The allowed texts; empty where there is no fixed list."""
        return tuple(text for kind in self.types for text in get_args(kind) if _is_literal(kind))

    @property
    def type_text(self) -> str:
        """The type in words, for documentation."""
        if self.choices:
            return "{" + ", ".join(f'"{choice}"' for choice in self.choices) + "}"
        if self.flag == "--phase":
            return "sequence of mapping or Phase"
        texts = []
        for kind in self.types:
            name = getattr(get_origin(kind) or kind, "__name__", "").lower()
            inner = [getattr(argument, "__name__", "") for argument in get_args(kind)]
            if name == "tuple":
                texts.append(f"({', '.join(inner)})")
            elif name in ("sequence", "mapping"):
                texts.append(f"{name} of {' to '.join(inner)}")
            else:
                texts.append("path" if name == "pathlike" else name)
        return " or ".join(texts).replace("any", "str, mapping or Augment")

    @property
    def spelling(self) -> str:
        """The option on the command line, such as ``--learning-rate``."""
        return self.flag or "--" + self.name.replace("_", "-")

    @property
    def shown_default(self) -> str:
        """The default as the help shows it; empty for none."""
        if self.default_text or self.default is None:
            return self.default_text
        return f"{self.default:g}" if isinstance(self.default, float) else str(self.default)


def _is_literal(kind: Any) -> bool:
    return get_origin(kind) is Literal


def _is_size(value: Any) -> bool:
    sides = value if isinstance(value, tuple) else (value,)
    return all(side >= 1 for side in sides)


def _is_fraction_or_count(value: float) -> bool:
    return 0 <= value < 1 or (1 < value < 2**53 and value == int(value))


def _is_widths(value: Sequence[int] | int) -> bool:
    widths = (value,) if isinstance(value, int) else value
    return len(widths) <= 8 and all(1 <= width <= 65_536 for width in widths)


def _is_filters(value: Sequence[int]) -> bool:
    return 1 <= len(value) <= 12 and all(1 <= width <= 65_536 for width in value)


def _is_path(value: str | os.PathLike[str]) -> bool:
    text = os.fspath(value)
    return bool(text) and "\0" not in text


def _path(help: str, panel: str, rule: str, **more: Any) -> Option:
    return Option(help, panel, rule=rule, check=_is_path, path=True, **more)


def _is_value_range(value: Sequence[float]) -> bool:
    return len(value) == 2 and all(map(math.isfinite, value)) and value[0] < value[1]


EXECUTOR_PATTERN = r"local|ray|ray://[^\s/]+:[0-9]{1,5}"
"""Regular expression of the values of `on`."""

_SHARE = "a fraction from 0 to below 1, or a number of images from 2"
_FLOAT_MAX = 1e4
_MAX_EPOCHS = 100_000


# fmt: off
class ModelOptions(TypedDict, total=False):
    """The options of the model and its training; :class:`kindsight.ImageClassifier` takes them."""

    model: Annotated[
        str | None,
        Option(
            "Model: a backbone listed by 'kindsight backbones', a .keras file, up to three of "
            "them joined by +, or small-cnn, a network trained from scratch.",
            "Model", "efficientnet-lite0", metavar="NAME", trainers=_EVERY, path=True,
        ),
    ]
    size: Annotated[
        int | tuple[int, int] | None,
        Option(
            "Height and width of the model's input in pixels.",
            "Model", default_text="the model's own, or smaller for small images", metavar="PIXELS",
            check=_is_size, rule="a whole number of pixels, or a (height, width) of two",
            trainers=_EVERY,
        ),
    ]
    resize: Annotated[
        Literal["crop", "stretch", "pad"] | None,
        Option("Resizing of images that are not square.", "Model", "crop", trainers=_EVERY),
    ]
    weights: Annotated[
        str | None,
        Option(
            "Weights of the backbone: imagenet, none (random) or a file (.h5 of Keras; "
            ".safetensors or .pth where the backbone has that layout).",
            "Model", "imagenet", metavar="imagenet|none|FILE", trainers=(FROZEN, TRANSFER),
            path=True,
        ),
    ]
    freeze: Annotated[
        str | int | None,
        Option(
            "Frozen layers of the backbone: all, none, the first N with weights, or all up to "
            "LAYER. *",
            "Model", "all", metavar="all|none|N|LAYER", trainers=(TRANSFER,), selects=True,
            python_help="Frozen layers of the backbone: all, none, the number of the first ones "
            "with weights, or the name of the last one.",
        ),
    ]
    cut: Annotated[
        str | None,
        Option(
            "Cut layer: the backbone is used up to it, such as mixed7 of inception-v3. *",
            "Model", default_text="the last layer", metavar="LAYER", rule="the name of a layer",
            check=lambda name: bool(name.strip()), trainers=(TRANSFER,), selects=True,
        ),
    ]
    train_batch_norm: Annotated[
        bool | None,
        Option(
            "Training of the batch normalization in trainable layers. *",
            "Model", False, trainers=(TRANSFER,), selects=True,
        ),
    ]
    pooling: Annotated[
        Literal["flatten", "average", "max"] | None,
        Option(
            "Pooling of the final feature map. *",
            "Model", default_text="flatten; backbone: average", trainers=_EPOCHS, selects=True,
        ),
    ]
    preset: Annotated[
        Literal["course", "modern"] | None,
        Option(
            "Architecture and training defaults of small-cnn; modern has padded convolutions with "
            "batch normalization, and trains images of 64 pixels or less at their own size.",
            "Model", "course", trainers=(NETWORK,),
        ),
    ]
    filters: Annotated[
        Sequence[int] | None,
        Option(
            "Filters of each 3 x 3 convolution of small-cnn; with the preset modern, of the first "
            "convolution, then of each block.",
            "Model", (16, 32, 64), metavar="N,N,...", rule="1 to 12 whole numbers from 1 to 65,536",
            check=_is_filters, default_text="16,32,64; modern: by size", trainers=(NETWORK,),
        ),
    ]
    dense: Annotated[
        Sequence[int] | int | None,
        Option(
            "Units of each dense layer before the last, or none. *",
            "Model", default_text="512; backbone: none", metavar="N,N,...",
            python_help="Units of each dense layer before the last; () for none.",
            rule="up to 8 whole numbers from 1 to 65,536", check=_is_widths, trainers=_EPOCHS,
            selects=True,
        ),
    ]
    dropout: Annotated[
        float | None,
        Option(
            "Dropout rate before the last layer. *",
            "Model", 0.0, ge=0, lt=1, metavar="RATE", trainers=_EPOCHS, selects=True,
        ),
    ]
    batch_norm: Annotated[
        bool | None,
        Option(
            "Batch normalization after each convolution of small-cnn, or after each dense layer of "
            "a backbone's head. *",
            "Model", False, trainers=_EPOCHS, selects=True,
        ),
    ]
    l2: Annotated[
        float | None,
        Option(
            "L2 penalty on the kernels of new layers. *",
            "Model", 0.0, ge=0, lt=1, metavar="FACTOR", trainers=_EPOCHS, selects=True,
        ),
    ]
    head: Annotated[
        Literal["auto", "linear", "rbf"] | None,
        Option(
            "Head on the features of a frozen backbone; auto: selected by cross-validation.",
            "Frozen head", "auto", trainers=(FROZEN,),
        ),
    ]
    tta_flips: Annotated[
        int | None,
        Option(
            "Flips averaged at prediction time (1-4): none, left-right, up-down, both.",
            "Frozen head", 1, ge=1, le=4, trainers=(FROZEN,),
        ),
    ]
    tta_crops: Annotated[
        int | None,
        Option(
            "Crops averaged at prediction time (1-6), each with all flips: the whole image, its "
            "center, its four corners.",
            "Frozen head", 1, ge=1, le=6, trainers=(FROZEN,),
        ),
    ]
    epochs: Annotated[
        int | None,
        Option("Epochs.", "Training", 15, ge=1, le=_MAX_EPOCHS, trainers=_EPOCHS),
    ]
    batch_size: Annotated[
        int | None,
        Option("Images per step.", "Training", 20, ge=1, le=65_536, trainers=_EPOCHS),
    ]
    learning_rate: Annotated[
        float | None,
        Option(
            "Peak learning rate.",
            "Training", default_text="0.001; sgd: 0.01", gt=0, lt=_FLOAT_MAX, metavar="RATE",
            trainers=_EPOCHS,
        ),
    ]
    optimizer: Annotated[
        Literal["rmsprop", "adam", "adamw", "sgd"] | None,
        Option("Optimizer.", "Training", "rmsprop", trainers=_EPOCHS),
    ]
    schedule: Annotated[
        Literal["constant", "cosine", "one-cycle"] | None,
        Option("Learning-rate schedule.", "Training", "constant", trainers=_EPOCHS),
    ]
    augment: Annotated[
        Any,
        Option(
            "Augmentation: none, light, classic, strong, auto, or a TOML file.",
            "Training", "none", metavar="NAME|FILE", trainers=_EPOCHS,
            python_help="Augmentation: none, light, classic, strong, auto, the path of a TOML "
            "file, settings by name, or an Augment.",
        ),
    ]
    patience: Annotated[
        int | None,
        Option(
            "Epochs without improvement before training stops.",
            "Training", default_text="no early stopping", ge=1, le=_MAX_EPOCHS, metavar="EPOCHS",
            trainers=_EPOCHS,
        ),
    ]
    class_weight: Annotated[
        Literal["none", "balanced"] | None,
        Option(
            "Class weights; balanced: inversely proportional to the number of images.",
            "Training", "none", trainers=_EVERY,
        ),
    ]
    warmup: Annotated[
        float | None,
        Option(
            "Warm-up of the learning rate in epochs.",
            "Training", 0.0, ge=0, lt=_MAX_EPOCHS, metavar="EPOCHS", trainers=_EPOCHS,
        ),
    ]
    momentum: Annotated[
        float | None,
        Option(
            "Momentum of sgd or rmsprop.",
            "Training", default_text="sgd: 0.9; rmsprop: 0", ge=0, lt=1, metavar="FACTOR",
            trainers=_EPOCHS,
        ),
    ]
    weight_decay: Annotated[
        float | None,
        Option(
            "Weight decay of adamw.",
            "Training", default_text="0.004", ge=0, lt=1, metavar="FACTOR", trainers=_EPOCHS,
        ),
    ]
    label_smoothing: Annotated[
        float | None,
        Option(
            "Label smoothing.",
            "Training", 0.0, ge=0, lt=1, metavar="FRACTION", trainers=_EPOCHS,
        ),
    ]
    mix: Annotated[
        Literal["none", "mixup", "cutmix"] | None,
        Option("Mixing of the images of a batch.", "Training", "none", trainers=_EPOCHS),
    ]
    layer_decay: Annotated[
        float | None,
        Option(
            "Layer-wise learning-rate decay: factor from each layer to the one below it.",
            "Training", 1.0, gt=0, le=1, metavar="FACTOR", trainers=_EPOCHS,
        ),
    ]
    ema_decay: Annotated[
        float | None,
        Option(
            "EMA decay of the weights, such as 0.999; the averaged weights are evaluated and "
            "saved.",
            "Training", 0.0, default_text="0, no EMA", ge=0, lt=1, metavar="DECAY",
            trainers=_EPOCHS,
        ),
    ]
    final_weights: Annotated[
        Literal["best", "last"] | None,
        Option("Epoch whose weights are saved.", "Training", "best", trainers=_EPOCHS),
    ]
    compute_dtype: Annotated[
        Literal["auto", "float32", "bfloat16"] | None,
        Option(
            "Compute dtype of convolutions; auto: bfloat16 where it is faster.",
            "Training", "auto", trainers=_EPOCHS,
        ),
    ]
    cached_copies: Annotated[
        int | None,
        Option(
            "Augmented copies per image (0-64) whose frozen activations are cached; 0: new random "
            "changes in each epoch. *",
            "Training", 0, ge=0, le=64, trainers=(TRANSFER,), selects=True,
        ),
    ]
    phases: Annotated[
        Sequence[Mapping[str, Any] | Any] | None,
        Option(
            "Training phase, given once for each phase in order, such as 'freeze=all epochs=3 "
            "learning-rate=1e-3'; other options apply where a phase has none of its own. *",
            "Training", (), default_text="one phase", metavar="SETTINGS", trainers=_EPOCHS,
            selects=True, flag="--phase", rule="a list of phases",
            python_help="Training phases in order: settings by name, such as {'freeze': 'all', "
            "'epochs': 3}, or a Phase; other parameters apply where a phase has none of its own.",
        ),
    ]
    fine_tune: Annotated[
        Literal["off", "light", "full"] | None,
        Option(
            "Fine-tuning after the frozen head; light: the upper layers, full: all layers. The "
            "result is used only if it is better on the validation split.",
            "Fine-tuning and budget", default_text="off; with a budget: light",
            trainers=(FROZEN,),
        ),
    ]
    budget: Annotated[
        str | float | None,
        Option(
            "Time budget of the whole training, such as 90s, 10m or 1h: frozen head first, then as "
            "much fine-tuning as fits. The resulting model may predict more slowly.",
            "Fine-tuning and budget", default_text="none", metavar="TIME", trainers=(FROZEN,),
        ),
    ]
    value_range: Annotated[
        Sequence[float] | None,
        Option(
            "Values that become black and white in images of more than 8 bits per sample, such as "
            "0,4095; others are clipped.",
            "Data", default_text="found from the images", metavar="LOW,HIGH",
            rule="two numbers, the lower first", check=_is_value_range, trainers=_EVERY,
        ),
    ]
    seed: Annotated[
        int | None,
        Option(
            "Seed of the split, the initial weights and all random choices.",
            "Split", 0, ge=0, lt=2**63, rule="a whole number from 0 to below 2^63",
            trainers=_EVERY, rare=True,
        ),
    ]
    validation: Annotated[
        float | int | None,
        Option(
            "Validation split: a fraction, or a number of images.",
            "Split", 0.2, metavar="FRACTION|N", rule=_SHARE, check=_is_fraction_or_count,
        ),
    ]
    workers: Annotated[
        int | None,
        Option(
            "Images processed at once.",
            "Output", default_text="number of cores", ge=1, le=1024, trainers=_EVERY, rare=True,
        ),
    ]
    on: Annotated[
        str | None,
        Option(
            "Machines that read images and run the backbone: local, this one; ray, the Ray cluster "
            "of RAY_ADDRESS or one started here; ray://HOST:PORT, a running Ray cluster.",
            "Output", "local", metavar="local|ray|ray://HOST:PORT", trainers=(FROZEN,), rare=True,
            rule="local, ray, or ray://HOST:PORT of a running cluster",
            check=lambda on: bool(re.fullmatch(EXECUTOR_PATTERN, on)),
        ),
    ]
    device: Annotated[
        Literal["auto", "cpu", "gpu"] | None,
        Option(
            "Processor for features and training: cpu, gpu (NVIDIA, with the extra cuda), or auto, "
            "a GPU if TensorFlow can use one.",
            "Output", "auto", trainers=_EVERY, rare=True,
        ),
    ]
    cache: Annotated[
        str | os.PathLike[str] | None,
        _path(
            "Cache folder.", "Output", "a folder", default_text="this machine's cache", flag="-",
            trainers=_EVERY, rare=True,
        ),
    ]


class TrainOptions(ModelOptions, total=False):
    """The options of ``kindsight train``."""

    data: Annotated[
        str | None,
        _path(
            "Folder with one folder of images per class, or with train, validation and test "
            "folders of those; or a table (CSV, Parquet) of paths or pixels, or arrays (.npz).",
            "Data", "a folder or a file", flag="-",
        ),
    ]
    label_from: Annotated[
        str | None,
        Option(
            "Regular expression that finds the label in the file name (with a / in it: in the "
            r"path): the group named label, or the first, as in '^(.+?)_\d+'.",
            "Data", metavar="PATTERN",
        ),
    ]
    group_from: Annotated[
        str | None,
        Option(
            "Regular expression for the group of an image, such as a patient; a group is never "
            "split.",
            "Data", metavar="PATTERN",
        ),
    ]
    columns: Annotated[
        Mapping[str, str] | None,
        Option(
            "Name of a table's path, label, split or group column, such as label=species, or "
            "one-hot columns, such as label=cat,dog; repeatable.",
            "Data", metavar="KIND=NAME", flag="--column",
            rule="a mapping from path, label, split or group to the name of a table's column",
        ),
    ]
    label_names: Annotated[
        Sequence[str] | None,
        Option(
            "Names of the labels 0, 1, 2 and so on.",
            "Data", metavar="NAME,NAME,...", rule="a list of names",
        ),
    ]
    label_map: Annotated[
        str | None,
        Option(
            "Table with the columns label and class, which renames labels of the data.",
            "Data", default_text="none", metavar="CSV", path=True,
        ),
    ]
    pixel_shape: Annotated[
        str | None,
        Option(
            "Shape of images given as rows of pixels.",
            "Data", default_text="square", metavar="HxW[x3]",
        ),
    ]
    root: Annotated[
        str | None,
        Option(
            "Folder to which a table's paths are relative.",
            "Data", default_text="the table's folder", metavar="FOLDER", path=True,
        ),
    ]
    multi_label: Annotated[
        Literal["first", "skip", "combine"] | None,
        Option(
            "Handling of images with several labels; first: the first label counts, skip: the "
            "image is left out, combine: each combination of labels is a class.",
            "Data", default_text="an error",
        ),
    ]
    keep_na_labels: Annotated[
        bool | None,
        Option("Use of texts such as NA, nan and None as labels, not as missing.", "Data", False),
    ]
    encoding: Annotated[
        str | None,
        Option(
            "Encoding of text tables and lists of names, such as cp1252.",
            "Data", default_text="UTF-8; UTF-16 with a byte order mark", metavar="NAME",
        ),
    ]
    follow_links: Annotated[
        bool | None,
        Option(
            "Following of links (symbolic links, junctions) that leave the given folders.",
            "Data", True, default_text="on", rare=True,
        ),
    ]
    test: Annotated[
        float | int | None,
        Option(
            "Test split: a fraction, or a number of images.",
            "Split", 0.0, metavar="FRACTION|N", rule=_SHARE, check=_is_fraction_or_count,
        ),
    ]
    validation_data: Annotated[
        str | None,
        _path(
            "Other data, all used as validation split.", "Split", "a folder or a file",
            metavar="DATA",
        ),
    ]
    test_data: Annotated[
        str | None,
        _path("Other data, all used as test split.", "Split", "a folder or a file", metavar="DATA"),
    ]
    group_near_duplicates: Annotated[
        bool | None,
        Option("Grouping of near-duplicates, so that they stay in one split.", "Split", False),
    ]
    leakage: Annotated[
        Literal["drop", "move", "keep"] | None,
        Option(
            "Training images that have a duplicate in the validation or test split; drop: not "
            "used, move: their duplicates move to the training split, keep: unchanged.",
            "Split", "drop",
        ),
    ]
    fold: Annotated[
        str | None,
        Option(
            "Cross-validation fold used as validation split, such as 2/5 for the second of five.",
            "Split", metavar="K/N",
        ),
    ]
    folds: Annotated[
        int | None,
        Option(
            "Folds of a cross-validation; near-duplicates stay in the same fold. The final model "
            "is trained on all images that are not in the test split.",
            "Split", default_text="none", ge=2, le=1000,
        ),
    ]
    split_by: Annotated[
        Literal["random", "date"] | None,
        Option(
            "Split method; date: the newest images by EXIF date are the validation and test "
            "split.",
            "Split", "random",
        ),
    ]
    split: Annotated[
        str | None,
        _path(
            "Table of paths and splits, such as another run's split.csv.", "Split", "a file",
            metavar="FILE",
        ),
    ]
    run: Annotated[
        str | None,
        Option(
            "Run folder: a name below --runs, or a path (with a / in it).",
            "Output", default_text="DATA-N", metavar="NAME|PATH",
            rule="a name or a path", path=True,
            check=lambda text: Path(text).name not in ("", "..") and "\0" not in text,
        ),
    ]
    runs: Annotated[
        str | None,
        _path("Folder of run folders.", "Output", "a folder", default="runs", metavar="FOLDER"),
    ]
    target_accuracy: Annotated[
        float | None,
        Option(
            "Accuracy of the labelled images, such as 0.98: images of too low confidence get no "
            "label and are unsure.",
            "Output", default_text="every image is labelled", metavar="ACCURACY", gt=0, lt=1,
            rare=True,
        ),
    ]
    target_coverage: Annotated[
        float | None,
        Option(
            "Fraction of images that are labelled, such as 0.9: the images with the lowest "
            "confidence get no label and are unsure.",
            "Output", default_text="1", metavar="FRACTION", gt=0, lt=1, rare=True,
        ),
    ]
    known_kept: Annotated[
        float | None,
        Option(
            "Fraction of images like the training images that are not reported as unknown (none "
            "of the classes); 0 for no out-of-distribution score.",
            "Output", 0.95, metavar="FRACTION", ge=0, lt=1, rare=True,
        ),
    ]
    check: Annotated[
        Literal["basic", "full"] | None,
        Option(
            "Checks of the data before training; full: those of 'kindsight check --full', saved "
            "in the run folder.",
            "Output", "basic", rare=True,
        ),
    ]
    verify: Annotated[
        Literal["auto", "full"] | None,
        Option(
            "Verification of the saved model; full: Keras runs model.keras on validation images.",
            "Output", "auto", rare=True,
        ),
    ]
    tensorboard: Annotated[
        str | None,
        _path(
            "Folder for TensorBoard logs: settings, epochs, metrics, report.", "Output", "a folder",
            metavar="FOLDER", rare=True,
        ),
    ]
    mlflow: Annotated[
        bool | None,
        Option(
            "MLflow logging of settings, epochs, metrics and the report.", "Output", False,
            rare=True,
        ),
    ]
# fmt: on


def _declared(options: type) -> dict[str, Option]:
    hints = get_type_hints(options, include_extras=True)
    found = [
        replace(hint.__metadata__[0], name=name, type=hint.__origin__)
        for name, hint in hints.items()
    ]
    found.sort(key=lambda option: (PANELS.index(option.panel), option.rare))
    return {option.name: option for option in found}


OPTIONS = _declared(TrainOptions)
"""Every option by name, panel by panel."""

CLASSIFIER_OPTIONS = {name: OPTIONS[name] for name in ModelOptions.__annotations__}
"""The options that :class:`kindsight.ImageClassifier` takes."""
