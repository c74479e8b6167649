"""Build a backbone up to a cut, with frozen layers and a trainable head; describe its layers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from kindsight.models.backbones.backbone import TOP
from kindsight.models.graph import CutPoint, complete_layer, cut_network, layer_path
from kindsight.models.heads import LOGITS
from kindsight.models.networks.fine_tuned import (
    FREEZES,
    count_frozen,
    freeze,
    last_frozen_layer,
    layers_up_to,
    load_network,
    parse_freeze,
    summarise,
)
from kindsight.models.networks.keras_heads import UNIT, TrainableHead, add_trainable_head
from kindsight.models.networks.small_cnn import LayerRow

__all__ = [
    "BuiltTransfer", "TransferNetwork", "build_transfer", "check_layers", "describe_transfer",
    "load_maps",
]  # fmt: skip


@dataclass(frozen=True)
class TransferNetwork:
    """Settings of a backbone with a trainable head.

    Parameters
    ----------
    backbone : str
        Its Keras file, from pixels to features.
    cut : str
        Layer up to which it is used; the whole backbone if empty.
    freezes : tuple of (str or int)
        Frozen layers of each phase, as in :func:`.freezing.freeze`.
    train_batch_norm : bool
        Whether batch normalisation of trainable layers is trained.
    """

    backbone: str
    cut: str = ""
    freezes: tuple[str | int, ...] = ("all",)
    head: TrainableHead = field(default_factory=TrainableHead)
    train_batch_norm: bool = False

    def to_dict(self) -> dict[str, Any]:
        """Return the settings as JSON values."""
        return {**asdict(self), "freezes": list(self.freezes)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> TransferNetwork:
        """Restore settings from :meth:`to_dict`."""
        head = {**values["head"], "dense": tuple(values["head"]["dense"])}
        return cls(**{**values, "freezes": tuple(values["freezes"]), "head": TrainableHead(**head)})


@dataclass(frozen=True)
class BuiltTransfer:
    """The Keras models of a transfer network: `base` up to the cut, and `model` with the head.

    `trainable` are the names of the layers of `base` that are trained in each phase; the head
    always is.
    """

    base: Any
    model: Any
    trainable: list[set[str]]


def load_maps(file: str) -> Any:
    """Load a backbone's Keras file up to its last feature maps."""
    import keras

    model = load_network(file)
    maps = model.get_layer(TOP).input
    return keras.Model(model.input, maps, name=model.name.removesuffix("_features"))


def build_transfer(network: TransferNetwork, classes: int, seed: int) -> BuiltTransfer:
    """Build the network, with a randomly initialised head.

    SettingsError for an unknown cut layer or layer to freeze, and for a head that is too large.
    """
    base = load_maps(network.backbone)
    if network.cut:
        base = cut_network(base, network.cut)
    trainable = []
    for frozen in network.freezes:
        freeze(base, frozen, train_batch_norm=network.train_batch_norm)
        trainable.append({layer.name for layer in base.layers if layer.trainable_weights})
    return BuiltTransfer(base, add_trainable_head(base, network.head, classes, seed), trainable)


def check_layers(model: Any, cut: str, freezes: Sequence[str | int]) -> None:
    """Raise SettingsError for an unknown cut layer or layer to freeze; `model` is not changed."""
    base = cut_network(model, cut) if cut else model
    for frozen in freezes:
        count_frozen(base, frozen)


def describe_transfer(
    network: TransferNetwork, classes: int, ends: Sequence[str] | None
) -> dict[str, Any]:
    """Describe a network before it is trained, in a table with blocks that end at `ends`.

    Returns
    -------
    dict
        ``"classes"``; ``"cut"`` and ``"freezes"`` with complete layer names; ``"frozen_cuts"``:
        for each phase the name and output shape of the last layer below which all is frozen, or
        None; ``"changed"``: for each phase whether its frozen layers were trained in an earlier
        one, in which case the cut is None too; ``"layers"``: the fields of
        :class:`.small_cnn.LayerRow` of each row of the table.
    """
    built = build_transfer(network, classes, 0)
    cuts = [last_frozen_layer(built.base, trainable) for trainable in built.trainable]
    changed = [_was_trained(built, number, cut) for number, cut in enumerate(cuts)]
    return {
        "classes": classes,
        "cut": layer_path(complete_layer(built.base, network.cut)) if network.cut else "",
        "freezes": [_complete(built.base, frozen) for frozen in network.freezes],
        "frozen_cuts": [
            None if cut is None or trained else {"layer": cut.name, "shape": [*cut.shape]}
            for cut, trained in zip(cuts, changed, strict=True)
        ],
        "changed": changed,
        "layers": [list(row) for row in _rows(built, ends)],
    }


def _was_trained(built: BuiltTransfer, number: int, cut: CutPoint | None) -> bool:
    """Whether a layer below a phase's cut was trained in an earlier phase."""
    before = set[str]().union(*built.trainable[:number])
    return cut is not None and not before.isdisjoint(layers_up_to(built.base, cut.name))


def _complete(base: Any, frozen: str | int) -> str | int:
    choice = parse_freeze(frozen)
    if choice in FREEZES or isinstance(choice, int):
        return choice
    return layer_path(complete_layer(base, choice))


def _rows(built: BuiltTransfer, ends: Sequence[str] | None) -> list[LayerRow]:
    """Return a row per frozen block, and per layer of the other blocks and of the head."""
    rows = []
    for block in summarise(built.base, None if ends is None else tuple(ends)):
        owners = [built.base.get_layer(name) for name in block.names]
        if not owners:
            continue
        if any(name in trainable for trainable in built.trainable for name in block.names):
            rows += [
                _row(layer, _when([layer.name in trainable for trainable in built.trainable]))
                for layer in owners
            ]
            continue
        count = f"{block.layers} layer{'' if block.layers == 1 else 's'} with weights"
        shape = tuple(side or 0 for side in block.output)
        rows.append(
            LayerRow(f"to {layer_path(block.name)}", count, shape, block.parameters, "frozen")
        )
    own = {layer.name for layer in built.base.layers}
    for layer in built.model.layers:
        # Skip the fixed last layer of two classes, which prepends 0 to the unit's output.
        if layer.name not in own and (layer.trainable_weights or not layer.weights):
            rows.append(_row(layer, "trainable" if layer.trainable_weights else ""))
    return rows


def _row(layer: Any, trains: str) -> LayerRow:
    shape = tuple(side or 0 for side in layer.output.shape[1:])
    return LayerRow(layer_path(layer.name), _kind(layer), shape, int(layer.count_params()), trains)


def _kind(layer: Any) -> str:
    """Describe a layer in words."""
    if layer.name in (UNIT, LOGITS):
        return "dense, sigmoid" if layer.name == UNIT else "dense, softmax"
    kind = type(layer).__name__
    side = " x ".join(map(str, getattr(layer, "kernel_size", ())))
    words = {
        "Conv2D": f"convolution {side}",
        "DepthwiseConv2D": f"depthwise convolution {side}",
        "SeparableConv2D": f"separable convolution {side}",
        "BatchNormalization": "batch normalisation",
        "Dense": "dense",
        "Dropout": f"dropout {getattr(layer, 'rate', 0):g}",
        "Flatten": "flatten",
        "GlobalAveragePooling2D": "mean of each channel",
        "GlobalMaxPooling2D": "maximum of each channel",
    }
    return words.get(kind, kind)


def _when(phases: Sequence[bool]) -> str:
    """Describe in which phases a layer is trained."""
    if all(phases):
        return "trainable"
    if not any(phases):
        return "frozen"
    first = phases.index(True)
    if all(phases[first:]) and first + 1 < len(phases):
        return f"trainable from phase {first + 1} on"
    numbers = ", ".join(str(number) for number, trains in enumerate(phases, 1) if trains)
    return f"trainable in phase {numbers}"
