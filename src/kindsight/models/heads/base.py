"""What every head has: arrays that are checked, and one description of itself as layers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from kindsight.errors import WeightsError

__all__ = ["FEATURES", "LOGITS", "Head", "HeadLayer"]

# Rows of features turned into logits at a time: bounds the memory of the expansion.
_ROWS = 4096

FEATURES = "features"
LOGITS = "logits"


@dataclass(frozen=True)
class HeadLayer:
    """One layer of a head.

    Parameters
    ----------
    kind : str
        ``"dense"``: activation(input @ kernel + bias). ``"multiply"``: the product of its inputs,
        number by number. ``"concatenate"``: its inputs side by side.
    name : str
        The layer's name. The last step is named ``"logits"``.
    inputs : tuple of str
        Names of earlier steps, or ``"features"``.
    width : int
        Numbers that it gives for one image.
    kernel, bias : float32 array (inputs, width) and (width,), or None
        Of a dense step only.
    activation : str
        Of a dense step only.
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
    """A head as arrays: a :class:`.heads.LinearHead`, a :class:`.heads.RBFHead`, or several.

    Arrays are turned into contiguous float32 and checked when a head is made.

    Raises
    ------
    WeightsError
        For an array of another shape than the rest calls for, or one that is not finite.
    """

    kind: ClassVar[str]
    _kinds: ClassVar[dict[str, type[Head]]] = {}

    def __init_subclass__(cls) -> None:
        Head._kinds[cls.kind] = cls

    @property
    @abstractmethod
    def features(self) -> int:
        """How many features it takes."""

    @property
    @abstractmethod
    def classes(self) -> int:
        """How many logits it gives."""

    @abstractmethod
    def steps(self) -> tuple[HeadLayer, ...]:
        """Return the head as a chain of layers: each step needs the one before it."""

    @abstractmethod
    def _logits(self, rows: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the logits of a bounded number of rows."""

    def logits(self, features: NDArray[Any]) -> NDArray[np.float32]:
        """Compute the logits of images from their features.

        Parameters
        ----------
        features : array (n, d)
            As the backbone gives them, not standardised.

        Returns
        -------
        float32 array (n, k)

        Raises
        ------
        WeightsError
            For features of another width.
        """
        values = np.asarray(features, np.float32)
        if values.ndim != 2 or values.shape[1] != self.features:
            raise WeightsError(
                f"The features for this head must be of shape (n, {self.features}). "
                f"Received: {values.shape}."
            )
        result = np.empty((len(values), self.classes), np.float32)
        for start in range(0, len(values), _ROWS):
            result[start : start + _ROWS] = self._logits(values[start : start + _ROWS])
        return result

    @abstractmethod
    def scaled(self, factor: float) -> Head:
        """Return the head whose logits are as many times as large."""

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """Return a flat dict of arrays, for ``np.savez``; ``"kind"`` says which head it is."""
        arrays: dict[str, NDArray[Any]] = {"kind": np.array(self.kind)}
        for field in fields(self):
            value = getattr(self, field.name)
            if value is not None:
                arrays[field.name] = np.asarray(value, np.float32)
        return arrays

    @staticmethod
    def from_arrays(arrays: Mapping[str, NDArray[Any]]) -> Head:
        """Make a head from what :meth:`to_arrays` gave.

        Raises
        ------
        WeightsError
            For an unknown kind, an array too many or too few, or arrays that do not fit.
        """
        kinds = Head._kinds
        kind = str(arrays["kind"]) if "kind" in arrays else "none"
        if kind not in kinds:
            raise WeightsError(f"A head must be of kind {' or '.join(kinds)}. Received: {kind!r}.")
        return kinds[kind]._from({k: array for k, array in arrays.items() if k != "kind"})

    @classmethod
    def _from(cls, arrays: Mapping[str, NDArray[Any]]) -> Head:
        """Make a head of this kind from its arrays."""
        known = {field.name for field in fields(cls)}
        needed = known - {"linear_kernel"}
        if not needed <= arrays.keys() <= known:
            raise WeightsError(
                f"A {cls.kind} head must hold the arrays {', '.join(sorted(needed))}. "
                f"Received: {', '.join(sorted(arrays))}."
            )
        return cls(**arrays)

    def _take(self, name: str, *shape: int | None) -> tuple[int, ...]:
        """Turn an array into float32 in place, check it, and return its shape."""
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
                f"A head's {name} must be finite and of shape ({wanted}). "
                f"Received: {array.shape}{' with values that are not finite' * fits}."
            )
        array.setflags(write=False)
        object.__setattr__(self, name, array)
        shape_taken: tuple[int, ...] = array.shape
        return shape_taken
