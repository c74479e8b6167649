"""The small CNN, and its modern form: convolutions, then dense layers or global pooling.

The settings and tables of layers do not need Keras, which only the functions that build import.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any, NamedTuple

from kindsight.models.heads import FEATURES, LOGITS
from kindsight.models.networks.keras_heads import UNIT, classifier_model, pooling_layer

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = [
    "BATCH_NORM_EPSILON", "BATCH_NORM_MOMENTUM", "MAX_SIDE", "NETWORKS", "LayerRow", "ModernCNN",
    "SmallCNN", "build_modern_cnn", "build_small_cnn", "default_filters",
]  # fmt: skip

NETWORKS = ("small-cnn",)
"""Names of networks that are trained from random weights."""

MAX_PARAMETERS = 500_000_000
MAX_SIDE = 1024
"""Largest height and width of a network's input, in pixels."""


class LayerRow(NamedTuple):
    """One line of a network's summary.

    `kind` is the layer's type in words, `output` the shape of its output for one image, `trainable`
    ``"trainable"``, ``"frozen"``, or in which phases; empty where all layers are trainable.
    """

    name: str
    kind: str
    output: tuple[int, ...]
    parameters: int
    trainable: str = ""


class _Network:
    """What the two networks share: the layers after the last maps, and settings as JSON values."""

    dense: tuple[int, ...]
    dropout: float
    pooling: str

    def layers(self, classes: int) -> tuple[LayerRow, ...]:
        """Return the table of layers, for at least two classes."""
        return tuple(self._layers(classes))

    def to_dict(self) -> dict[str, Any]:
        """Return the settings as JSON values."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in vars(self).items()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Restore settings from :meth:`to_dict`."""
        given: dict[str, Any] = {
            k: tuple(v) if isinstance(v, list) else v for k, v in values.items() if k != "preset"
        }
        return cls(**given)

    def _layers(self, classes: int) -> Iterator[LayerRow]:
        raise NotImplementedError

    def _last_layers(self, shape: tuple[int, ...], classes: int) -> Iterator[LayerRow]:
        """Yield the rows of the layers after the maps of the shape (height, width, channels)."""
        kinds = {
            "flatten": "flatten",
            "average": "mean of each channel",
            "max": "maximum of each channel",
        }
        shape = (prod(shape),) if self.pooling == "flatten" else shape[-1:]
        yield LayerRow(FEATURES, kinds[self.pooling], shape, 0)
        for number, units in enumerate(self.dense, 1):
            yield LayerRow(f"dense_{number}", "dense, ReLU", (units,), (shape[0] + 1) * units)
            shape = (units,)
        if self.dropout:
            yield LayerRow("dropout", f"dropout {self.dropout:g}", shape, 0)
        if classes == 2:
            yield LayerRow(UNIT, "dense, sigmoid", (1,), shape[0] + 1)
        else:
            yield LayerRow(LOGITS, "dense, softmax", (classes,), (shape[0] + 1) * classes)

    def _classify(
        self, pixels: Any, maps: Any, classes: int, initializer: Callable[[], Any], name: str
    ) -> Any:
        """Return the Keras model from pixels to logits, with the layers after the last maps."""
        import keras

        def dense(units: int, name: str, activation: str | None = None) -> Any:
            return keras.layers.Dense(
                units, activation=activation, kernel_initializer=initializer(), name=name
            )

        x = pooling_layer(self.pooling, FEATURES)(maps)
        for number, units in enumerate(self.dense, 1):
            x = dense(units, f"dense_{number}", "relu")(x)
        if self.dropout:
            x = keras.layers.Dropout(self.dropout, name="dropout")(x)
        return classifier_model(pixels, x, classes, dense, name)


@dataclass(frozen=True)
class SmallCNN(_Network):
    """Settings of a small CNN, in the ranges that :mod:`kindsight.options` declares.

    Each of the `filters` is a 3x3 convolution without padding, ReLU, and 2x2 max pooling. Pixels
    are scaled by 1/255. For two classes the last layer is one unit with a sigmoid, the probability
    of the second class; for more it is a softmax.

    Parameters
    ----------
    size : (height, width)
        Input size in pixels, up to 1,024.
    filters : tuple of int
        Of each convolution, 1 to 12 of them.
    dense : tuple of int
        Units of the dense layers with ReLU before the last layer; up to 8 of them.
    dropout : float
        Before the last layer, 0 to below 1 (Srivastava et al. 2014, JMLR 15).
    batch_norm : bool
        Batch normalisation of each convolution, before ReLU (Ioffe & Szegedy 2015).
    l2 : float
        L2 penalty on the kernels, 0 to below 1, as in Keras.
    pooling : str
        Pooling of the final feature map, ``"flatten"``, ``"average"`` or ``"max"``.
    """

    size: tuple[int, int] = (150, 150)
    filters: tuple[int, ...] = (16, 32, 64)
    dense: tuple[int, ...] = (512,)
    dropout: float = 0.0
    batch_norm: bool = False
    l2: float = 0.0
    pooling: str = "flatten"

    def faults(self) -> list[str]:
        """Return an error if the size is too small for the layers; others are checked before."""
        found = _size_faults(
            self.size, len(self.filters), lambda count: 3 * 2**count - 2,
            "convolutions: each removes 2 pixels and halves the rest",
        )  # fmt: skip
        if found:
            return found
        count = sum(row.parameters for row in self.layers(2))
        if count > MAX_PARAMETERS:
            # With average pooling, the size of the images does not matter.
            cures = ['a smaller `size`, `pooling="average"`'] if self.pooling == "flatten" else []
            cures += ["fewer units (`dense`)"] if self.dense else []
            return [
                f"The network would have {count:,} parameters, more than {MAX_PARAMETERS:,}. Use "
                f"{', or '.join(cures) or 'fewer `filters`'}."
            ]
        return []

    def _layers(self, classes: int) -> Iterator[LayerRow]:
        shape: tuple[int, ...] = (*self.size, 3)
        yield LayerRow("scale", "pixels / 255", shape, 0)
        for number, filters in enumerate(self.filters, 1):
            height, width, channels = shape
            shape = (height - 2, width - 2, filters)
            parameters = 9 * channels * filters + filters
            kind = "convolution 3 x 3" + ("" if self.batch_norm else ", ReLU")
            yield LayerRow(f"conv_{number}", kind, shape, parameters)
            if self.batch_norm:
                yield LayerRow(f"norm_{number}", "batch normalisation, ReLU", shape, 2 * filters)
            shape = (shape[0] // 2, shape[1] // 2, filters)
            yield LayerRow(f"pool_{number}", "max pooling 2 x 2", shape, 0)
        yield from self._last_layers(shape, classes)


def _size_faults(
    size: tuple[int, int], count: int, least: Callable[[int], int], layers: str
) -> list[str]:
    """Return an error if an image is too small for `count` numbers of filters.

    `least` maps such a count to the smallest side in pixels; `layers` says why, for the message.
    """
    needed, side = least(count), min(size)
    if side >= needed:
        return []
    most = max((number for number in range(1, count) if least(number) <= side), default=1)
    larger = "a larger `size` or " if needed <= MAX_SIDE else ""
    return [
        f"`size` must be at least {needed:,} pixels for {count} {layers}; got {size[0]} x "
        f"{size[1]}. Use {larger}fewer `filters` (at most {most})."
    ]


def build_small_cnn(network: SmallCNN, classes: int, seed: int) -> Any:
    """Build the network in Keras with random weights (Glorot uniform) of a seed.

    It maps ``"pixels"``, float32 (batch, height, width, 3) with values 0-255, to ``"logits"``,
    float32 (batch, classes). For two classes these are 0 and the unit's output, whose softmax
    equals the sigmoid.
    """
    import keras

    seeds = iter(range(1000 * seed, 1000 * seed + 1000))

    def initializer() -> Any:
        return keras.initializers.GlorotUniform(seed=next(seeds))

    x = pixels = keras.Input((*network.size, 3), name="pixels")
    x = keras.layers.Rescaling(1 / 255, name="scale")(x)
    for number, filters in enumerate(network.filters, 1):
        activation = None if network.batch_norm else "relu"
        x = keras.layers.Conv2D(
            filters, 3, activation=activation, kernel_initializer=initializer(),
            name=f"conv_{number}",
        )(x)  # fmt: skip
        if network.batch_norm:
            x = keras.layers.BatchNormalization(name=f"norm_{number}")(x)
            x = keras.layers.ReLU(name=f"relu_{number}")(x)
        x = keras.layers.MaxPooling2D(name=f"pool_{number}")(x)
    return network._classify(pixels, x, classes, initializer, "small_cnn")


BATCH_NORM_EPSILON = 1e-3
BATCH_NORM_MOMENTUM = 0.95
"""Decay of the moving statistics of a step: a short training has some hundreds of steps."""

# Side in pixels of the final feature map, down to which the blocks halve an image; most blocks.
FINAL_SIDE, MAX_BLOCKS = 4, 5


class Convolution(NamedTuple):
    """A convolution with its batch normalisation.

    `pools` is whether 2x2 max pooling stands between the two: a quarter of the values is
    normalised then.
    """

    name: str
    filters: int
    pools: bool


@dataclass(frozen=True)
class ModernCNN(_Network):
    """Settings of a modern small CNN, in the ranges that :mod:`kindsight.options` declares.

    The first of the `filters` is a single 3x3 convolution. Each other is a block of two: the first
    is followed by 2x2 max pooling. Every convolution is padded, and followed by batch normalisation
    (Ioffe & Szegedy 2015) and ReLU. Pixels are scaled by 1/255. The last layer is as of
    :class:`SmallCNN`.

    Parameters
    ----------
    size : (height, width)
        Input size in pixels, up to 1,024.
    filters : tuple of int
        Of the first convolution, then of each block.
    dense : tuple of int
        Units of the dense layers with ReLU before the last layer; up to 8 of them.
    dropout : float
        Before the last layer, 0 to below 1.
    l2 : float
        L2 penalty on the kernels, 0 to below 1, as in Keras.
    pooling : str
        Pooling of the final feature map, ``"flatten"``, ``"average"`` or ``"max"``.
    """

    size: tuple[int, int] = (32, 32)
    filters: tuple[int, ...] = (16, 32, 64, 128)
    dense: tuple[int, ...] = ()
    dropout: float = 0.0
    l2: float = 0.0
    pooling: str = "max"

    def faults(self) -> list[str]:
        """Return an error if the size is too small for the blocks; others are checked before."""
        found = _size_faults(
            self.size, len(self.filters), lambda count: 2 ** (count - 1),
            "numbers of `filters`: each but the first halves the image",
        )  # fmt: skip
        if found:
            return found
        count = sum(row.parameters for row in self.layers(2))
        if count > MAX_PARAMETERS:
            return [
                f"The network would have {count:,} parameters, more than {MAX_PARAMETERS:,}. Use "
                "fewer `filters`, or fewer units (`dense`)."
            ]
        return []

    @property
    def convolutions(self) -> tuple[Convolution, ...]:
        """The convolutions, in order."""
        first, *blocks = self.filters
        found = [Convolution("conv_1", first, pools=False)]
        for number, filters in enumerate(blocks, 2):
            found.append(Convolution(f"conv_{number}a", filters, pools=True))
            found.append(Convolution(f"conv_{number}b", filters, pools=False))
        return tuple(found)

    def multiplications(self) -> int:
        """Return the multiplications of all convolutions for one image."""
        (height, width), channels, count = self.size, 3, 0
        for conv in self.convolutions:
            count += 9 * channels * conv.filters * height * width
            channels = conv.filters
            if conv.pools:
                height, width = height // 2, width // 2
        return count

    def _layers(self, classes: int) -> Iterator[LayerRow]:
        shape: tuple[int, ...] = (*self.size, 3)
        yield LayerRow("scale", "pixels / 255", shape, 0)
        for conv in self.convolutions:
            parameters = 9 * shape[2] * conv.filters
            shape = (*shape[:2], conv.filters)
            yield LayerRow(conv.name, "convolution 3 x 3, padded", shape, parameters)
            part = conv.name.removeprefix("conv_")
            if conv.pools:
                shape = (shape[0] // 2, shape[1] // 2, conv.filters)
                yield LayerRow(f"pool_{part}", "max pooling 2 x 2", shape, 0)
            kind = "batch normalisation, ReLU"
            yield LayerRow(f"norm_{part}", kind, shape, 2 * conv.filters)
        yield from self._last_layers(shape, classes)

    def to_dict(self) -> dict[str, Any]:
        """Return the settings as JSON values."""
        return {"preset": "modern", **super().to_dict()}


def default_filters(size: tuple[int, int], first: int) -> tuple[int, ...]:
    """Return filters that double with each halving of the image, down to a map of four pixels.

    Parameters
    ----------
    size : (height, width)
        Input size in pixels.
    first : int
        Filters of the first convolution.
    """
    blocks = 1
    while blocks < MAX_BLOCKS and min(size) >> (blocks + 1) >= FINAL_SIDE:
        blocks += 1
    return tuple(first << block for block in range(blocks + 1))


def build_modern_cnn(network: ModernCNN, classes: int, seed: int) -> Any:
    """Build the network in Keras with random weights of a seed.

    Kernels of convolutions are He normal (He et al. 2015), the others Glorot uniform. Inputs and
    outputs are as of :func:`build_small_cnn`.
    """
    import keras

    seeds = iter(range(1000 * seed, 1000 * seed + 1000))

    def initializer() -> Any:
        return keras.initializers.GlorotUniform(seed=next(seeds))

    x = pixels = keras.Input((*network.size, 3), name="pixels")
    x = keras.layers.Rescaling(1 / 255, name="scale")(x)
    for conv in network.convolutions:
        part = conv.name.removeprefix("conv_")
        x = keras.layers.Conv2D(
            conv.filters, 3, padding="same", use_bias=False, name=conv.name,
            kernel_initializer=keras.initializers.HeNormal(seed=next(seeds)),
        )(x)  # fmt: skip
        if conv.pools:
            x = keras.layers.MaxPooling2D(name=f"pool_{part}")(x)
        x = keras.layers.BatchNormalization(
            momentum=BATCH_NORM_MOMENTUM, epsilon=BATCH_NORM_EPSILON, name=f"norm_{part}"
        )(x)
        x = keras.layers.ReLU(name=f"relu_{part}")(x)
    return network._classify(pixels, x, classes, initializer, "modern_cnn")
