"""A backbone that learns: up to a cut, with layers frozen, and a head trained on top.

A description that costs nothing to make, and the Keras model that is built from it; what can be
told of it before a training is in :func:`describe_transfer`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from kindsight.models.backbones.backbone import TOP
from kindsight.models.graph import CutPoint
from kindsight.models.heads.head import LOGITS
from kindsight.models.heads.trainable import UNIT, TrainableHead, add_trainable_head
from kindsight.models.networks.cut import complete_layer, cut_network
from kindsight.models.networks.fine_tuned import load_network
from kindsight.models.networks.freezing import (
    FREEZES,
    freeze,
    frozen_border,
    layers_up_to,
    parse_freeze,
    summarise,
)
from kindsight.models.networks.small_cnn import LayerRow

__all__ = ["BuiltTransfer", "TransferNetwork", "build_transfer", "describe_transfer", "load_maps"]


@dataclass(frozen=True)
class TransferNetwork:
    """What is made of a backbone.

    Parameters
    ----------
    backbone : str
        Its Keras file, from pixels to features.
    cut : str
        The layer up to which it is used; all of it if empty.
    freezes : tuple of (str or int)
        Which of its layers stay as they are in each phase, as :func:`.freezing.freeze` takes it.
    head : TrainableHead
    train_batch_norm : bool
        Whether batch normalisation that is not frozen trains, too.
    """

    backbone: str
    cut: str = ""
    freezes: tuple[str | int, ...] = ("all",)
    head: TrainableHead = field(default_factory=TrainableHead)
    train_batch_norm: bool = False

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON can hold it."""
        return {**asdict(self), "freezes": list(self.freezes)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> TransferNetwork:
        """Make a network of what :meth:`to_dict` gave."""
        head = {**values["head"], "dense": tuple(values["head"]["dense"])}
        return cls(
            **{**values, "freezes": tuple(values["freezes"]), "head": TrainableHead(**head)},
        )


@dataclass(frozen=True)
class BuiltTransfer:
    """The network in Keras.

    Parameters
    ----------
    base : keras.Model
        From pixels to the maps at the cut.
    model : keras.Model
        From pixels to logits; its first layers are those of `base`.
    learning : list of set of str
        The names of the layers of `base` that learn in each phase; those of the head always do.
    """

    base: Any
    model: Any
    learning: list[set[str]]


def load_maps(file: str) -> Any:
    """Load a backbone's Keras file, and return it up to its last maps."""
    import keras

    model = load_network(file)
    maps = model.get_layer(TOP).input
    return keras.Model(model.input, maps, name=model.name.removesuffix("_features"))


def build_transfer(network: TransferNetwork, classes: int, seed: int) -> BuiltTransfer:
    """Build the network, the backbone's weights in it and the head's drawn.

    Raises
    ------
    SettingsError
        For a cut or layers to freeze that there are not, and for a head too large.
    """
    base = load_maps(network.backbone)
    if network.cut:
        base = cut_network(base, network.cut)
    learning = []
    for what in network.freezes:
        freeze(base, what, train_normalisation=network.train_batch_norm)
        learning.append({layer.name for layer in base.layers if layer.trainable_weights})
    return BuiltTransfer(base, add_trainable_head(base, network.head, classes, seed), learning)


def describe_transfer(
    network: TransferNetwork, classes: int, ends: Sequence[str] | None
) -> dict[str, Any]:
    """Say what a network would be.

    Parameters
    ----------
    network : TransferNetwork
    classes : int
    ends : sequence of str, optional
        The layers at which parts of the backbone end; where its maps become smaller, if omitted.

    Returns
    -------
    dict
        ``"classes"``; ``"cut"`` and ``"freezes"``, their names completed; ``"borders"``: for each
        phase the layer below which everything is frozen, with the shape that it gives, or None;
        ``"changed"``: for each whether what is frozen learned in a phase before, so that what the
        backbone's file gives there is not what it gives now, and the border is None for that;
        ``"layers"``: rows of a table, as :class:`.small_cnn.LayerRow` takes them.
    """
    built = build_transfer(network, classes, 0)
    borders = [frozen_border(built.base, learning) for learning in built.learning]
    changed = [_has_learned(built, number, border) for number, border in enumerate(borders)]
    return {
        "classes": classes,
        "cut": complete_layer(built.base, network.cut) if network.cut else "",
        "freezes": [_completed(built.base, what) for what in network.freezes],
        "borders": [
            None if border is None or learned else {"layer": border.name, "shape": [*border.shape]}
            for border, learned in zip(borders, changed, strict=True)
        ],
        "changed": changed,
        "layers": [list(row) for row in _rows(built, ends)],
    }


def _has_learned(built: BuiltTransfer, number: int, border: CutPoint | None) -> bool:
    """Whether anything below a phase's border learned in the phases before it."""
    before = set[str]().union(*built.learning[:number])
    return border is not None and not before.isdisjoint(layers_up_to(built.base, border.name))


def _completed(base: Any, what: str | int) -> str | int:
    choice = parse_freeze(what)
    return choice if choice in FREEZES or isinstance(choice, int) else complete_layer(base, choice)


def _rows(built: BuiltTransfer, ends: Sequence[str] | None) -> list[LayerRow]:
    """Return a row for each frozen part, and for each layer of the others and of the head."""
    rows = []
    for part in summarise(built.base, None if ends is None else tuple(ends)):
        owners = [built.base.get_layer(name) for name in part.names]
        if not owners:
            continue
        if any(name in learning for learning in built.learning for name in part.names):
            rows += [
                _row(layer, _when([layer.name in learning for learning in built.learning]))
                for layer in owners
            ]
            continue
        count = f"{part.layers} layer{'' if part.layers == 1 else 's'} with weights"
        shape = tuple(side or 0 for side in part.output)
        rows.append(LayerRow(f"to {part.name}", count, shape, part.parameters, "frozen"))
    own = {layer.name for layer in built.base.layers}
    for layer in built.model.layers:
        # Of two classes the last layer only puts a 0 beside the unit's answer.
        if layer.name not in own and (layer.trainable_weights or not layer.weights):
            rows.append(_row(layer, "trains" if layer.trainable_weights else ""))
    return rows


def _row(layer: Any, trains: str) -> LayerRow:
    shape = tuple(side or 0 for side in layer.output.shape[1:])
    return LayerRow(layer.name, _kind(layer), shape, int(layer.count_params()), trains)


def _kind(layer: Any) -> str:
    """Say in words what a layer is."""
    if layer.name in (UNIT, LOGITS):
        return "dense, sigmoid" if layer.name == UNIT else "dense, softmax"
    kind = type(layer).__name__
    side = " x ".join(map(str, getattr(layer, "kernel_size", ())))
    words = {
        "Conv2D": f"convolution {side}",
        "DepthwiseConv2D": f"convolution {side}, channel by channel",
        "SeparableConv2D": f"convolution {side}, separable",
        "BatchNormalization": "batch normalisation",
        "Dense": "dense",
        "Dropout": f"dropout {getattr(layer, 'rate', 0):g}",
        "Flatten": "flatten",
        "GlobalAveragePooling2D": "mean of each channel",
        "GlobalMaxPooling2D": "maximum of each channel",
    }
    return words.get(kind, kind)


def _when(phases: Sequence[bool]) -> str:
    """Say in which phases a layer trains."""
    if all(phases):
        return "trains"
    if not any(phases):
        return "frozen"
    first = phases.index(True)
    if all(phases[first:]) and first + 1 < len(phases):
        return f"trains from phase {first + 1} on"
    numbers = ", ".join(str(number) for number, trains in enumerate(phases, 1) if trains)
    return f"trains in phase {numbers}"
