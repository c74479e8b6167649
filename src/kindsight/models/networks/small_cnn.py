"""The small CNN: convolution and pooling layers, then dense layers.

Its settings and table of layers do not need Keras, which only :func:`build_small_cnn` imports.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from math import prod
from typing import Any, NamedTuple

from kindsight.models.heads import FEATURES, LOGITS
from kindsight.models.networks.keras_heads import UNIT, classifier_model, pooling_layer

__all__ = ["NETWORKS", "LayerRow", "SmallCNN", "build_small_cnn", "head_rows"]

NETWORKS = ("small-cnn",)
"""Names of networks that are trained from random weights."""

MAX_PARAMETERS = 500_000_000


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


@dataclass(frozen=True)
class SmallCNN:
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
        least = 1
        for _ in self.filters:
            least = 2 * least + 2
        if min(self.size) < least:
            return [
                f"`size` must be at least {least} pixels for {len(self.filters)} convolutions: "
                f"each removes 2 pixels and halves the rest; got {self.size[0]} x {self.size[1]}. "
                "Use a larger `size` or fewer `filters`."
            ]
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

    def layers(self, classes: int) -> tuple[LayerRow, ...]:
        """Return the table of layers, for at least two classes."""
        return tuple(self._layers(classes))

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
        yield from head_rows(
            shape, classes, pooling=self.pooling, dense=self.dense, dropout=self.dropout
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the settings as JSON values."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> SmallCNN:
        """Restore settings from :meth:`to_dict`."""
        given: dict[str, Any] = {
            k: tuple(v) if isinstance(v, list) else v for k, v in values.items()
        }
        return cls(**given)


def head_rows(
    shape: tuple[int, ...], classes: int, *, pooling: str, dense: tuple[int, ...], dropout: float
) -> Iterator[LayerRow]:
    """Yield the rows of the layers after the last maps, which have the shape (height, width, C)."""
    kinds = {
        "flatten": "flatten",
        "average": "mean of each channel",
        "max": "maximum of each channel",
    }
    shape = (prod(shape),) if pooling == "flatten" else shape[-1:]
    yield LayerRow(FEATURES, kinds[pooling], shape, 0)
    for number, units in enumerate(dense, 1):
        yield LayerRow(f"dense_{number}", "dense, ReLU", (units,), (shape[0] + 1) * units)
        shape = (units,)
    if dropout:
        yield LayerRow("dropout", f"dropout {dropout:g}", shape, 0)
    if classes == 2:
        yield LayerRow(UNIT, "dense, sigmoid", (1,), shape[0] + 1)
    else:
        yield LayerRow(LOGITS, "dense, softmax", (classes,), (shape[0] + 1) * classes)


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

    def dense(units: int, name: str, activation: str | None = None) -> Any:
        return keras.layers.Dense(
            units, activation=activation, kernel_initializer=initializer(), name=name
        )

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
    x = pooling_layer(network.pooling, FEATURES)(x)
    for number, units in enumerate(network.dense, 1):
        x = dense(units, f"dense_{number}", "relu")(x)
    if network.dropout:
        x = keras.layers.Dropout(network.dropout, name="dropout")(x)
    return classifier_model(pixels, x, classes, dense, "small_cnn")
