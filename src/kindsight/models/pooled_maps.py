"""The feature maps that a network's head pools, and gradients with respect to them, by LiteRT.

A classifier ends with reductions of feature maps (global means, maxima and deviations, or a
flattening) and operators on what they give. LiteRT runs the network up to the maps; the few
operators after them are computed again in NumPy, with their gradients. So the gradient of a logit
needs neither TensorFlow nor the Keras file.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kindsight.errors import KindsightError
from kindsight.models.formats.tflite import TfliteGraph, damage_as_weights_error, read_tflite
from kindsight.models.head_network import OPERATORS
from kindsight.models.runtime import make_interpreter, schema

__all__ = ["MapNetwork", "PooledMap"]

# Operators whose output depends on the neighbours of a pixel; matrix products are for attention.
_SPATIAL = ("BATCH_MATMUL", "CONV_2D", "DEPTHWISE_CONV_2D", "TRANSPOSE_CONV", "CONV_3D",
            "MAX_POOL_2D", "AVERAGE_POOL_2D", "RESIZE_BILINEAR",
            "RESIZE_NEAREST_NEIGHBOR")  # fmt: skip
_REDUCTIONS = ("MEAN", "SUM", "REDUCE_MAX", "REDUCE_MIN", "RESHAPE")
# A map's sides are in proportion to the image's up to this factor; others are rows of tokens.
_MAX_DISTORTION = 4.0
# The beginning of a deviation: the map that it is of is its first input.
_DIFFERENCES = ("SQUARED_DIFFERENCE", "SUB")

TOLERANCE = 1e-3
"""Largest difference between NumPy's and LiteRT's logits, as a fraction of the largest logit."""


@dataclass(frozen=True)
class PooledMap:
    """Feature maps that the head pools.

    Parameters
    ----------
    tensor : int
        Number of the tensor in the graph.
    height, width, channels : int
    flips : tuple of int
        Axes of (batch, height, width, channels) along which the image was flipped before, for
        test-time augmentation.
    is_cropped : bool
        Whether they are of a crop of the image, for test-time augmentation.
    is_last : bool
        Whether no other pooled maps are computed from them.
    is_flattened : bool
        Whether the head has a weight for each position, so that its gradient differs between them.
    """

    tensor: int
    height: int
    width: int
    channels: int
    flips: tuple[int, ...] = ()
    is_cropped: bool = False
    is_last: bool = True
    is_flattened: bool = False


class MapNetwork:
    """A network that also returns the feature maps that its head pools.

    Parameters
    ----------
    path : path
        The LiteRT file of a classifier, from pixels to logits.
    threads : int
        Threads of one run.
    content : bytes, optional
        Content of the file, which then is not read.

    Attributes
    ----------
    maps : tuple of PooledMap
        In the order in which they are computed.

    Raises
    ------
    KindsightError
        If the head pools no feature maps.
    WeightsError
        If the file is missing, damaged, or cannot be run.
    """

    def __init__(
        self, path: str | os.PathLike[str], threads: int = 1, content: bytes | None = None
    ) -> None:
        self.path = Path(path)
        with damage_as_weights_error(path):
            graph = _Graph(read_tflite(path, content))
            self.maps = graph.pooled_maps()
            if not self.maps:
                raise KindsightError(
                    f"{path} has no convolutional layer whose feature maps its head pools, so that "
                    "there is no Grad-CAM. Use the method occlusion."
                )
            self._graph = graph
            with_maps = graph.with_outputs([each.tensor for each in self.maps])
        self._interpreter = make_interpreter(with_maps, threads)
        self._input = self._interpreter.get_input_details()[0]["index"]
        # In the order of the outputs, whatever their numbers in the interpreter.
        self._outputs = [each["index"] for each in self._interpreter.get_output_details()]

    def run(
        self, pixels: NDArray[np.uint8]
    ) -> tuple[NDArray[np.float32], list[NDArray[np.float32]]]:
        """Return the logits, float32 (classes,), and the maps, each (height, width, channels)."""
        self._interpreter.set_tensor(self._input, np.asarray(pixels, np.float32)[None])
        self._interpreter.invoke()
        logits, *maps = (self._interpreter.get_tensor(index)[0] for index in self._outputs)
        return logits, maps

    def gradients(
        self,
        logits: NDArray[np.float32],
        maps: Sequence[NDArray[np.float32]],
        weights: NDArray[np.floating[Any]],
    ) -> list[NDArray[np.float64]]:
        """Return the gradient of a weighted sum of the logits with respect to each of the maps.

        Maps that are computed from others count as independent of them: the gradients are those
        of the head alone.

        - `logits`, `maps`: of :meth:`run`.
        - `weights`: array (classes,).

        Raises `KindsightError` for a head with an operator that is not differentiated here.
        """
        values = {
            each.tensor: found.astype(np.float64)[None]
            for each, found in zip(self.maps, maps, strict=True)
        }
        with np.errstate(all="ignore"):
            output, gradients = self._graph.differentiate(values, np.asarray(weights, np.float64))
        difference = float(np.abs(output.ravel() - logits).max())
        if not difference <= TOLERANCE * max(1.0, float(np.abs(logits).max())):
            raise KindsightError(
                f"The head of {self.path} cannot be differentiated: computed in NumPy, its logits "
                f"differ by {difference:.2g}. Use the method occlusion."
            )
        return [gradients[each.tensor][0] for each in self.maps]


class _Graph:
    """The operators of a LiteRT file, by name, with their connections."""

    def __init__(self, file: TfliteGraph) -> None:
        names = {
            code: name
            for name, code in vars(schema().BuiltinOperator).items()
            if isinstance(code, int)
        }
        self._file, self._graph = file, file.table
        graph = self._graph
        self._operators = [graph.Operators(index) for index in range(graph.OperatorsLength())]
        codes = [max(c.builtinCode, c.deprecatedBuiltinCode) for c in file.model.operatorCodes]
        self._names = [names.get(codes[op.OpcodeIndex()], "CUSTOM") for op in self._operators]
        self._producer = {
            output: index
            for index, operator in enumerate(self._operators)
            for output in _numbers(operator.OutputsAsNumpy())
        }

    def _shape(self, tensor: int) -> tuple[int, ...]:
        return tuple(_numbers(self._graph.Tensors(tensor).ShapeAsNumpy()))

    def _inputs(self, operator: int) -> list[int]:
        inputs = _numbers(self._operators[operator].InputsAsNumpy())
        return [tensor for tensor in inputs if tensor >= 0]

    def _is_map(self, tensor: int) -> bool:
        """Whether a tensor is of feature maps larger than one pixel."""
        shape = self._shape(tensor)
        if len(shape) != 4 or shape[1] * shape[2] <= 1:
            return False
        (graph,) = self._file.model.subgraphs
        image = self._shape(int(graph.inputs[0]))
        if len(image) != 4:
            return True
        down, across = shape[1] / image[1], shape[2] / image[2]
        return max(down, across) <= _MAX_DISTORTION * min(down, across)

    def _reduces_space(self, operator: int) -> bool:
        """Whether a reduction is over rows or columns, not over channels alone (a layer norm)."""
        if self._names[operator] == "RESHAPE":
            (output,) = _numbers(self._operators[operator].OutputsAsNumpy())
            return len(self._shape(output)) == 2
        axes = self._constant(self._inputs(operator)[1])
        return not {int(axis) % 4 for axis in np.atleast_1d(axes)}.isdisjoint({1, 2})

    def _before(self, tensor: int) -> set[int]:
        """Return the operators that a tensor is computed by."""
        found: set[int] = set()
        waiting = [tensor]
        while waiting:
            operator = self._producer.get(waiting.pop())
            if operator is not None and operator not in found:
                found.add(operator)
                waiting += self._inputs(operator)
        return found

    def pooled_maps(self) -> tuple[PooledMap, ...]:
        """Return the maps that are reduced by operators after which none reads neighbours."""
        head = set(self._head_operators())
        reductions: dict[int, set[str]] = {}
        for operator in self._before(self._file.output) & head:
            if (
                self._names[operator] in _REDUCTIONS
                and self._is_map(self._inputs(operator)[0])
                and self._reduces_space(operator)
            ):
                tensor = self._reduced_map(self._inputs(operator)[0])
                reductions.setdefault(tensor, set()).add(self._names[operator])
        tensors = {tensor for tensor in reductions if tensor in self._producer}
        before = {tensor: self._before(tensor) for tensor in tensors}
        found = []
        for tensor in sorted(tensors, key=self._producer.__getitem__):
            _, height, width, channels = self._shape(tensor)
            flips, is_cropped = self._variant(tensor)
            is_last = not any(
                self._producer[tensor] in before[other] for other in tensors if other != tensor
            )
            found.append(
                PooledMap(
                    tensor, height, width, channels, flips, is_cropped, is_last,
                    is_flattened=reductions[tensor] == {"RESHAPE"},
                )
            )  # fmt: skip
        return tuple(found)

    def _head_operators(self) -> Iterator[int]:
        """Yield the operators after which none reads neighbours, the last first."""
        spatial: set[int] = set()  # tensors that such an operator is computed from
        for index in reversed(range(len(self._operators))):
            operator = self._operators[index]
            if self._names[index] in _SPATIAL or spatial.intersection(
                _numbers(operator.OutputsAsNumpy())
            ):
                spatial.update(self._inputs(index))
            else:
                yield index

    def _reduced_map(self, tensor: int) -> int:
        """Return the map that a deviation is of; any other tensor itself."""
        operator = self._producer.get(tensor)
        while operator is not None and self._names[operator] in _DIFFERENCES:
            tensor = self._inputs(operator)[0]
            operator = self._producer.get(tensor)
        return tensor

    def _variant(self, tensor: int) -> tuple[tuple[int, ...], bool]:
        """Return the axes along which the image was flipped for a tensor, and if it was cropped."""
        flips: set[int] = set()
        is_cropped = False
        while (operator := self._producer.get(tensor)) is not None:
            tensor, *others = self._inputs(operator)
            # A slice of the image; networks may also slice their tokens.
            is_image = self._shape(tensor)[-1:] == (3,)
            is_cropped |= is_image and self._names[operator] in ("STRIDED_SLICE", "SLICE")
            if self._names[operator] == "REVERSE_V2":
                flips ^= {int(axis) for axis in np.atleast_1d(self._constant(others[0]))}
        return tuple(sorted(flips)), is_cropped

    def with_outputs(self, tensors: Sequence[int]) -> bytes:
        """Return the file with the logits and then these tensors as outputs."""
        (graph,) = self._file.model.subgraphs
        before = graph.outputs, self._file.model.signatureDefs
        graph.outputs = np.array([self._file.output, *tensors], np.int32)
        self._file.model.signatureDefs = []
        content = bytes(self._file.to_bytes())
        graph.outputs, self._file.model.signatureDefs = before
        return content

    def differentiate(
        self, values: dict[int, NDArray[np.float64]], weights: NDArray[np.float64]
    ) -> tuple[NDArray[np.float64], dict[int, NDArray[np.float64]]]:
        """Return the logits, and the gradient of their weighted sum by each given tensor."""
        tensors: dict[int, NDArray[Any]] = dict(values)
        backwards = []
        for index in sorted(self._between(set(values))):
            operator = schema().OperatorT.InitFromObj(self._operators[index])
            name = self._names[index]
            (output,) = map(int, operator.outputs)
            if name not in OPERATORS:
                raise KindsightError(
                    f"Grad-CAM cannot follow the operator {name} of this network's head. Use the "
                    "method occlusion."
                )
            inputs = self._inputs(index)
            for tensor in inputs:
                if tensor not in tensors:
                    tensors[tensor] = self._constant(tensor)
            given = [tensors[tensor] for tensor in inputs]
            result = OPERATORS[name](given, operator.builtinOptions, self._shape(output))
            tensors[output], backward = result
            backwards.append((output, inputs, backward))
        gradients = {self._file.output: weights[None]}
        for output, inputs, backward in reversed(backwards):
            for tensor, part in zip(inputs, backward(gradients[output]), strict=True):
                if part is not None:
                    gradients[tensor] = gradients.get(tensor, 0.0) + part
        zeros = {tensor: np.zeros_like(value) for tensor, value in values.items()}
        return tensors[self._file.output], {**zeros, **gradients}

    def _between(self, start: set[int]) -> set[int]:
        """Return the operators from some tensors to the logits."""
        found: set[int] = set()
        waiting = [self._file.output]
        while waiting:
            tensor = waiting.pop()
            operator = self._producer.get(tensor)
            if tensor not in start and operator is not None and operator not in found:
                found.add(operator)
                waiting += self._inputs(operator)
        return found

    def _constant(self, tensor: int) -> NDArray[Any]:
        """Return the value of a constant tensor."""
        types, found = schema().TensorType, self._file.model.subgraphs[0].tensors[tensor]
        data = self._file.model.buffers[found.buffer].data
        kinds = {types.FLOAT32: "<f4", types.INT32: "<i4", types.INT64: "<i8"}
        if data is None or found.type not in kinds:
            raise KindsightError(
                "Grad-CAM cannot follow this network's head, which uses a tensor beside its "
                "feature maps. Use the method occlusion."
            )
        return np.frombuffer(np.asarray(data, np.uint8).tobytes(), kinds[found.type]).reshape(
            self._shape(tensor)
        )


def _numbers(values: NDArray[np.int32] | int) -> list[int]:
    """Return the numbers of a list in the file; the schema gives 0 for one that is missing."""
    return list(map(int, values)) if isinstance(values, np.ndarray) else []
