"""A head whose logits are a sum of other heads', each on features of its own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from kindsight.errors import WeightsError
from kindsight.models.head_steps import FEATURES, LOGITS, HeadLayers, HeadStep

__all__ = ["SummedHead"]

Floats = NDArray[np.float32]

# More than this many heads are no head of ours.
MOST_HEADS = 16


@dataclass(frozen=True, eq=False)
class SummedHead(HeadLayers):
    """The sum of the logits of several heads.

    Parameters
    ----------
    heads : tuple of HeadLayers
        At least two, for the same classes. The first takes the first features, the second those
        that follow them, and so on.
    """

    heads: tuple[HeadLayers, ...]
    kind: ClassVar[str] = "summed"

    def __post_init__(self) -> None:
        known = all(isinstance(head, HeadLayers) for head in self.heads)
        if len(self.heads) < 2 or not known or len({head.classes for head in self.heads}) > 1:
            raise WeightsError(
                "Heads whose logits are summed must be two or more, for the same classes. "
                f"Received: {len(self.heads)} of them."
            )

    @property
    def features(self) -> int:
        """How many features it takes."""
        return sum(head.features for head in self.heads)

    @property
    def classes(self) -> int:
        """How many logits it gives."""
        return self.heads[0].classes

    def scaled(self, factor: float) -> SummedHead:
        """Return the head whose logits are as many times as large."""
        return SummedHead(tuple(head.scaled(factor) for head in self.heads))

    def _logits(self, rows: Floats) -> Floats:
        total, start = np.zeros((len(rows), self.classes), np.float32), 0
        for head in self.heads:
            total += head._logits(rows[:, start : start + head.features])
            start += head.features
        return total

    def steps(self) -> tuple[HeadStep, ...]:
        """Return the head as a chain of layers.

        Each head's layers come after those of the one before it, whose last numbers they are
        given, too, and multiply by nothing: two branches could be walked in either order. The last
        layer is all heads' last layers in one.
        """
        chain: list[HeadStep] = []
        ends: list[tuple[str, int]] = [(FEATURES, self.features)]
        direct = np.zeros((self.features, self.classes), np.float32)
        kernels, bias, start = [direct], np.zeros(self.classes, np.float32), 0
        for number, head in enumerate(self.heads):
            columns = slice(start, start + head.features)
            start = columns.stop
            *inner, last = head.steps()
            assert last.kernel is not None and last.bias is not None
            bias += last.bias
            if not inner:  # from the features straight to the logits
                direct[columns] = last.kernel
                continue
            given, width = FEATURES, self.features
            if len(ends) > 1:
                before, more = ends[-1]
                given, width = _named(number, "given"), width + more
                chain.append(HeadStep("concatenate", given, (FEATURES, before), width))
            for step in inner:
                chain.append(_moved(step, number, given, width, columns))
            ends.append((chain[-1].name, chain[-1].width))
            kernels.append(last.kernel)
        if not direct.any() and len(ends) > 1:
            ends, kernels = ends[1:], kernels[1:]
        name, width = ends[0]
        if len(ends) > 1:
            name, width = "head_all", sum(wide for _, wide in ends)
            chain.append(HeadStep("concatenate", name, tuple(end for end, _ in ends), width))
        kernel = np.concatenate(kernels)
        chain.append(HeadStep("dense", LOGITS, (name,), self.classes, kernel, bias))
        return tuple(chain)

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """Return a flat dict of arrays: those of each head, by its number."""
        arrays: dict[str, NDArray[Any]] = {"kind": np.array(self.kind)}
        for number, head in enumerate(self.heads):
            arrays |= {f"{number}/{name}": array for name, array in head.to_arrays().items()}
        return arrays

    @classmethod
    def _from(cls, arrays: Mapping[str, NDArray[Any]]) -> SummedHead:
        parts: dict[str, dict[str, NDArray[Any]]] = {}
        for name, array in arrays.items():
            number, _, rest = name.partition("/")
            parts.setdefault(number, {})[rest] = array
        if len(parts) > MOST_HEADS or set(parts) != {str(number) for number in range(len(parts))}:
            raise WeightsError(
                f"A summed head must hold up to {MOST_HEADS} heads, numbered from 0 on. "
                f"Received: {', '.join(sorted(parts)[:MOST_HEADS])}."
            )
        if any(str(part.get("kind")) == cls.kind for part in parts.values()):
            raise WeightsError("A summed head must not hold another one.")
        return cls(tuple(HeadLayers.from_arrays(parts[str(k)]) for k in range(len(parts))))


def _named(number: int, name: str) -> str:
    return f"head{number}_{name.removeprefix('head_')}"


def _moved(step: HeadStep, number: int, given: str, width: int, columns: slice) -> HeadStep:
    """Return a step of one head with a name of its own, on the features of all."""
    inputs = tuple(given if name == FEATURES else _named(number, name) for name in step.inputs)
    kernel = step.kernel
    if FEATURES in step.inputs:
        assert step.kind == "dense" and step.kernel is not None
        kernel = np.zeros((width, step.width), np.float32)
        kernel[columns] = step.kernel
    name = _named(number, step.name)
    return HeadStep(step.kind, name, inputs, step.width, kernel, step.bias, step.activation)
