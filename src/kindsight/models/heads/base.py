"""What all heads on frozen features share: checked arrays, and a description as layers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from kindsight.errors import WeightsError

__all__ = ["FEATURES", "LOGITS", "Head", "HeadLayer"]

# Images whose logits are computed at a time; bounds the memory of an RBF head's kernel values.
_ROWS = 4096

FEATURES = "features"
"""The name of the layer of features."""

LOGITS = "logits"
"""The name of the last layer."""


@dataclass(frozen=True)
class HeadLayer:
    """One layer of a head.

    ``"dense"`` is activation(input @ kernel + bias), ``"multiply"`` the elementwise product of its
    inputs. Inputs are names of earlier layers, or ``"features"``; the last layer is ``"logits"``.
    `kernel` is float32 (inputs, width), `bias` float32 (width,); both None except of a dense layer.
    """

    kind: Literal["dense", "multiply", "concatenate"]
    name: str
    inputs: tuple[str, ...]
    width: int
    kernel: NDArray[np.float32] | None = None
    bias: NDArray[np.float32] | None = None
    activation: Literal["linear", "exponential"] = "linear"


@dataclass(frozen=True, eq=False)
class Head(ABC):
    """A head on frozen features: linear, RBF, or an ensemble of heads.

    Arrays are converted to contiguous float32 and checked on creation: WeightsError for one whose
    shape does not fit the others', or that is not finite.
    """

    kind: ClassVar[str]
    _kinds: ClassVar[dict[str, type[Head]]] = {}

    def __init_subclass__(cls) -> None:
        Head._kinds[cls.kind] = cls

    @property
    def features(self) -> int:
        """Number of features it takes."""
        return self._shape()[0]

    @property
    def classes(self) -> int:
        """Number of classes."""
        return self._shape()[1]

    @abstractmethod
    def _shape(self) -> tuple[int, int]:
        """Return the numbers of features and classes."""

    @abstractmethod
    def layers(self) -> tuple[HeadLayer, ...]:
        """Return the head as a chain of layers: each takes the output of the one before it."""

    @abstractmethod
    def scaled(self, factor: float) -> Head:
        """Return the head with its logits multiplied by `factor`."""

    @abstractmethod
    def _logits(self, rows: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the logits of a bounded number of rows."""

    def logits(self, features: NDArray[Any]) -> NDArray[np.float32]:
        """Return the logits, float32 (n, k), from features (n, d), not standardised.

        WeightsError for features of another width.
        """
        values = np.asarray(features, np.float32)
        if values.ndim != 2 or values.shape[1] != self.features:
            raise WeightsError(
                f"This head needs features of shape (n, {self.features}); got {values.shape}."
            )
        result = np.empty((len(values), self.classes), np.float32)
        for start in range(0, len(values), _ROWS):
            result[start : start + _ROWS] = self._logits(values[start : start + _ROWS])
        return result

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """Return a flat dict of arrays for ``np.savez``; ``"kind"`` names the kind of head."""
        arrays: dict[str, NDArray[Any]] = {"kind": np.array(self.kind)}
        for field in fields(self):
            value = getattr(self, field.name)
            if value is not None:
                arrays[field.name] = np.asarray(value, np.float32)
        return arrays

    @staticmethod
    def from_arrays(arrays: Mapping[str, NDArray[Any]]) -> Head:
        """Return the head of a :meth:`to_arrays`.

        WeightsError for an unknown kind, missing or unknown arrays, or arrays that do not fit.
        """
        kinds = Head._kinds
        kind = str(arrays["kind"]) if "kind" in arrays else "none"
        if kind not in kinds:
            raise WeightsError(f"A head must be of kind {' or '.join(kinds)}; got {kind!r}.")
        return kinds[kind]._from({k: array for k, array in arrays.items() if k != "kind"})

    @classmethod
    def _from(cls, arrays: Mapping[str, NDArray[Any]]) -> Head:
        known = {field.name for field in fields(cls)}
        required = known - {"linear_kernel"}
        if not required <= arrays.keys() <= known:
            raise WeightsError(
                f"A {cls.kind} head must have the arrays {', '.join(sorted(required))}; got "
                f"{', '.join(sorted(arrays))}."
            )
        return cls(**arrays)

    def _convert(self, name: str, *shape: int | None) -> tuple[int, ...]:
        """Convert an attribute to read-only float32, check it, and return its shape."""
        try:
            array = np.array(getattr(self, name), np.float32, order="C")
        except (TypeError, ValueError):
            raise WeightsError(f"A head's {name} must be an array of numbers.") from None
        fits = array.ndim == len(shape) and all(
            size > 0 and want in (None, size) for size, want in zip(array.shape, shape, strict=True)
        )
        if not fits or not np.isfinite(array).all():
            wanted = ", ".join("any" if want is None else str(want) for want in shape)
            raise WeightsError(
                f"A head's {name} must be finite and of shape ({wanted}); got {array.shape}"
                f"{' with values that are not finite' * fits}."
            )
        array.setflags(write=False)
        object.__setattr__(self, name, array)
        converted: tuple[int, ...] = array.shape
        return converted
