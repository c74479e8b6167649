"""The head of a LiteRT network: its operators and gradients in NumPy, and the features it gets.

The function of an operator takes its inputs and returns its output, together with a function from
the gradient of a number with respect to the output to those with respect to the inputs. An input
that is a constant of whole numbers has no gradient (None).
"""

from __future__ import annotations

import os
import queue
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kindsight.models.formats.tflite import TfliteGraph, damage_as_weights_error, read_tflite
from kindsight.models.runtime import make_interpreter, schema
from kindsight.threads import count_cores

__all__ = ["OPERATORS", "FeatureNetwork", "Operator"]

Floats = NDArray[np.float64]
Backward = Callable[[Floats], Sequence[Floats | None]]
Operator = Callable[[Sequence[NDArray[Any]], Any, tuple[int, ...]], tuple[Floats, Backward]]
"""From the inputs, the operator's options and the output's shape to the output and its gradient."""

_RELU, _RELU_N1_TO_1, _RELU6 = 1, 2, 3
_BOUNDS = {_RELU: (0.0, np.inf), _RELU_N1_TO_1: (-1.0, 1.0), _RELU6: (0.0, 6.0)}
"""Codes of the activations that an operator may include, and the bounds of their values."""


def _summed(gradient: Floats, shape: tuple[int, ...]) -> Floats:
    """Return the gradient of an input that was broadcast from `shape`."""
    extra = gradient.ndim - len(shape)
    total = gradient.sum(axis=tuple(range(extra)))
    axes = tuple(axis for axis, side in enumerate(shape) if side == 1 != total.shape[axis])
    result: Floats = total.sum(axis=axes, keepdims=True) if axes else total
    return result


def _activated(output: Floats, options: Any) -> tuple[Floats, Floats | float]:
    """Return the output after the activation that the operator includes, and its derivative."""
    code = int(getattr(options, "fusedActivationFunction", 0) or 0)
    if not code:
        return output, 1.0
    low, high = _BOUNDS[code]
    inside = (output > low) & (output < high)
    return np.clip(output, low, high), inside.astype(np.float64)


def _elementwise(
    value: Callable[[Any, Any], Any], derivatives: Callable[[Any, Any], tuple[Any, Any]]
) -> Operator:
    def operator(inputs: Sequence[Any], options: Any, shape: Any) -> tuple[Floats, Backward]:
        a, b = inputs
        output, slope = _activated(value(a, b), options)

        def backward(gradient: Floats) -> Sequence[Floats | None]:
            by_a, by_b = derivatives(a, b)
            inner = gradient * slope
            return _summed(inner * by_a, np.shape(a)), _summed(inner * by_b, np.shape(b))

        return output, backward

    return operator


def _unary(value: Callable[[Any], Any], derivative: Callable[[Any, Any], Any]) -> Operator:
    """Return an operator of one input; `derivative` takes the input and the output."""

    def operator(inputs: Sequence[Any], options: Any, shape: Any) -> tuple[Floats, Backward]:
        output = value(inputs[0])
        return output, lambda gradient: (gradient * derivative(inputs[0], output),)

    return operator


def _reduction(kind: str) -> Operator:
    """Return a mean, sum, maximum or minimum over some axes."""

    def operator(inputs: Sequence[Any], options: Any, shape: Any) -> tuple[Floats, Backward]:
        values, axes = inputs[0], tuple(np.atleast_1d(inputs[1]).astype(int).tolist())
        kept = getattr(np, kind)(values, axis=axes, keepdims=True)

        def backward(gradient: Floats) -> Sequence[Floats | None]:
            spread = gradient.reshape(kept.shape)
            if kind in ("max", "min"):
                # Of several largest values, each gets an equal share.
                chosen = (values == kept).astype(np.float64)
                chosen /= chosen.sum(axis=axes, keepdims=True)
                return spread * chosen, None
            count = values.size / kept.size if kind == "mean" else 1.0
            return np.broadcast_to(spread / count, values.shape), None

        return kept.reshape(shape), backward

    return operator


def _reshaped(inputs: Sequence[Any], options: Any, shape: Any) -> tuple[Floats, Backward]:
    values = inputs[0]
    rest: list[Floats | None] = [None] * (len(inputs) - 1)
    return values.reshape(shape), lambda gradient: (gradient.reshape(values.shape), *rest)


def _concatenated(inputs: Sequence[Any], options: Any, shape: Any) -> tuple[Floats, Backward]:
    axis = int(options.axis)
    ends = np.cumsum([values.shape[axis] for values in inputs])[:-1]
    return np.concatenate(inputs, axis), lambda gradient: np.split(gradient, ends, axis)


def _dense(inputs: Sequence[Any], options: Any, shape: Any) -> tuple[Floats, Backward]:
    values, kernel = inputs[0], inputs[1].astype(np.float64)  # (outputs, inputs)
    rows = values.reshape(-1, kernel.shape[1])
    total = rows @ kernel.T + (inputs[2] if len(inputs) > 2 else 0.0)
    output, slope = _activated(total.reshape(shape), options)

    def backward(gradient: Floats) -> Sequence[Floats | None]:
        back = (gradient * slope).reshape(-1, len(kernel)) @ kernel
        return back.reshape(values.shape), *([None] * (len(inputs) - 1))

    return output, backward


def _logistic(values: Any) -> Any:
    return 0.5 * (1 + np.tanh(0.5 * values))


OPERATORS: Mapping[str, Operator] = {
    "MEAN": _reduction("mean"),
    "SUM": _reduction("sum"),
    "REDUCE_MAX": _reduction("max"),
    "REDUCE_MIN": _reduction("min"),
    "RESHAPE": _reshaped,
    "SQUEEZE": _reshaped,
    "EXPAND_DIMS": _reshaped,
    "CONCATENATION": _concatenated,
    "FULLY_CONNECTED": _dense,
    "ADD": _elementwise(np.add, lambda a, b: (1.0, 1.0)),
    "SUB": _elementwise(np.subtract, lambda a, b: (1.0, -1.0)),
    "MUL": _elementwise(np.multiply, lambda a, b: (b, a)),
    "DIV": _elementwise(np.divide, lambda a, b: (1 / b, -a / b**2)),
    "MAXIMUM": _elementwise(np.maximum, lambda a, b: (a >= b, a < b)),
    "MINIMUM": _elementwise(np.minimum, lambda a, b: (a <= b, a > b)),
    "SQUARED_DIFFERENCE": _elementwise(
        lambda a, b: (a - b) ** 2, lambda a, b: (2 * (a - b), 2 * (b - a))
    ),
    "SQRT": _unary(np.sqrt, lambda x, y: 0.5 / y),
    "RSQRT": _unary(lambda x: 1 / np.sqrt(x), lambda x, y: -0.5 * y / x),
    "SQUARE": _unary(np.square, lambda x, y: 2 * x),
    "NEG": _unary(np.negative, lambda x, y: -1.0),
    "EXP": _unary(np.exp, lambda x, y: y),
    "TANH": _unary(np.tanh, lambda x, y: 1 - y**2),
    "LOGISTIC": _unary(_logistic, lambda x, y: y * (1 - y)),
    "RELU": _unary(lambda x: np.maximum(x, 0), lambda x, y: x > 0),
    "RELU6": _unary(lambda x: np.clip(x, 0, 6), lambda x, y: (x > 0) & (x < 6)),
    "LEAKY_RELU": lambda inputs, options, shape: _unary(
        lambda x: np.where(x > 0, x, options.alpha * x),
        lambda x, y: np.where(x > 0, 1.0, options.alpha),
    )(inputs, options, shape),
}
"""By the operator's name in LiteRT's schema."""


MOST_FEATURES = 2**17
"""Features above which the logits are used instead."""

STEPS = 64
"""Operators between the logits and the last dense layer above which the logits are used."""


class FeatureNetwork:
    """A network up to the input of its last dense layer, or to its logits if it has none.

    That is the frozen features of a linear head, the kernel values of an RBF head, and the last
    hidden layer of a network trained by gradient. Of the averaged heads of an ensemble, it is all
    of their inputs.

    Parameters
    ----------
    path : path
        The LiteRT file of a classifier.
    workers : int, optional
        Images run at once; the number of cores by default.

    Raises
    ------
    WeightsError
        If the file is missing or damaged.
    """

    def __init__(self, path: str | os.PathLike[str], workers: int | None = None) -> None:
        graph = read_tflite(path)
        with damage_as_weights_error(path):
            tensors = _feature_tensors(graph)
            (subgraph,) = graph.model.subgraphs
            subgraph.outputs = np.array(tensors, np.int32)
            graph.model.signatureDefs = []
            self._content = bytes(graph.to_bytes())
        self._path = Path(path)
        self._free: queue.LifoQueue[Any] = queue.LifoQueue()
        for _ in range(workers or count_cores()):
            self._free.put(None)

    def run(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return the features, float32 (n,), of an image uint8 (height, width, 3); thread-safe."""
        interpreter = self._free.get()
        try:
            if interpreter is None:
                interpreter = make_interpreter(self._content)
            (source,) = interpreter.get_input_details()
            interpreter.set_tensor(source["index"], pixels[None].astype(np.float32))
            interpreter.invoke()
            found = [
                np.asarray(interpreter.get_tensor(output["index"]), np.float32).ravel()
                for output in interpreter.get_output_details()
            ]
            return np.concatenate(found)
        finally:
            self._free.put(interpreter)


def _feature_tensors(graph: TfliteGraph) -> list[int]:
    """Return the numbers of the tensors that the last dense layers take."""
    (subgraph,) = graph.model.subgraphs
    producers = {
        int(output): operator for operator in subgraph.operators for output in operator.outputs
    }
    found = list(dict.fromkeys(_last_inputs(graph, producers)))
    sizes = [int(np.prod(graph.shape(tensor))) for tensor in found]
    return found if found and sum(sizes) <= MOST_FEATURES else [graph.output]


def _last_inputs(graph: TfliteGraph, producers: dict[int, Any]) -> Iterator[int]:
    """Yield the inputs of the dense layers that are nearest to the logits."""
    dense = schema().BuiltinOperator.FULLY_CONNECTED
    codes = graph.model.operatorCodes
    waiting, seen = [graph.output], {graph.output}
    for _ in range(STEPS):
        if not waiting:
            return
        operator = producers.get(waiting.pop(0))
        if operator is None:
            continue
        code = codes[operator.opcodeIndex]
        if max(code.builtinCode, code.deprecatedBuiltinCode) == dense:
            yield int(operator.inputs[0])
            continue
        for tensor in map(int, operator.inputs):
            if tensor >= 0 and tensor not in seen:
                seen.add(tensor)
                waiting.append(tensor)
