"""The modern small CNN: padded 3x3 convolutions with batch normalisation, and global pooling.

Its settings and table of layers do not need Keras, which only :func:`build_modern_cnn` imports.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

from kindsight.models.heads import FEATURES
from kindsight.models.networks.keras_heads import classifier_model, pooling_layer
from kindsight.models.networks.small_cnn import MAX_PARAMETERS, LayerRow, head_rows

__all__ = ["BATCH_NORM_EPSILON", "BATCH_NORM_MOMENTUM", "Convolution", "ModernCNN",
           "build_modern_cnn", "default_filters"]  # fmt: skip

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
class ModernCNN:
    """Settings of a modern small CNN, in the ranges that :mod:`kindsight.options` declares.

    The first of the `filters` is a single 3x3 convolution. Each other is a block of two: the first
    is followed by 2x2 max pooling. Every convolution is padded, and followed by batch normalisation
    (Ioffe & Szegedy 2015) and ReLU. Pixels are scaled by 1/255. The last layer is as of
    :class:`.small_cnn.SmallCNN`.

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
        least = 2 ** (len(self.filters) - 1)
        if min(self.size) < least:
            return [
                f"`size` must be at least {least} pixels for {len(self.filters)} numbers of "
                f"`filters`: each but the first halves the image; got {self.size[0]} x "
                f"{self.size[1]}. Use a larger `size` or fewer `filters`."
            ]
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

    def layers(self, classes: int) -> tuple[LayerRow, ...]:
        """Return the table of layers, for at least two classes."""
        return tuple(self._layers(classes))

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
        yield from head_rows(
            shape, classes, pooling=self.pooling, dense=self.dense, dropout=self.dropout
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the settings as JSON values."""
        values = {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}
        return {"preset": "modern", **values}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> ModernCNN:
        """Restore settings from :meth:`to_dict`."""
        given: dict[str, Any] = {
            k: tuple(v) if isinstance(v, list) else v for k, v in values.items() if k != "preset"
        }
        return cls(**given)


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
    outputs are as of :func:`.small_cnn.build_small_cnn`.
    """
    import keras

    seeds = iter(range(1000 * seed, 1000 * seed + 1000))

    def dense(units: int, name: str, activation: str | None = None) -> Any:
        initializer = keras.initializers.GlorotUniform(seed=next(seeds))
        return keras.layers.Dense(
            units, activation=activation, kernel_initializer=initializer, name=name
        )

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
    x = pooling_layer(network.pooling, FEATURES)(x)
    for number, units in enumerate(network.dense, 1):
        x = dense(units, f"dense_{number}", "relu")(x)
    if network.dropout:
        x = keras.layers.Dropout(network.dropout, name="dropout")(x)
    return classifier_model(pixels, x, classes, dense, "modern_cnn")
