"""The features on which a classifier's last layer decides, from its LiteRT file."""

from __future__ import annotations

import os
import queue
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kindsight.models.formats.tflite import TfliteGraph, damage_as_weights_error, read_tflite
from kindsight.models.runtime import make_interpreter, schema
from kindsight.threads import count_cores

__all__ = ["FeatureNetwork"]

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
