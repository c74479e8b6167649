"""Running pictures through saved networks, in the process with Keras.

A frozen network can be run ahead, before the file that will hold it and its head is written. That
file is then loaded as any other; where every layer of the frozen network is in it, with the same
settings, inputs and numbers, its features are known, and only its own head is left to run.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kindsight.models.heads import FEATURES

__all__ = ["ANSWER_JOBS", "FrozenNetwork", "answers_of"]

# Eight pictures fit the processor's cache better than thirty-two: a third faster here.
BATCH = 8

Pixels = NDArray[Any]
Answers = list[NDArray[np.float32]]


@dataclass
class FrozenNetwork:
    """A frozen network that is run before the file that holds it is written.

    Parameters
    ----------
    file : str
        That it was loaded from.
    model : keras.Model
        Pixels to features.
    """

    file: str
    model: Any

    def __post_init__(self) -> None:
        self._function = _traced(self.model, BATCH)
        self._pixels: Pixels | None = None
        self._features: NDArray[np.float32] | None = None

    def run(self, pixels: Pixels) -> None:
        """Run pictures, (n, height, width, 3), and remember what comes of it."""
        self._pixels, (self._features,) = pixels, _run_batches(self._function, pixels)

    def features(self, pixels: Pixels, written: Any) -> NDArray[np.float32] | None:
        """Return the features of pictures, where these were run and the network is in `written`."""
        known = self._pixels is not None and np.array_equal(pixels, self._pixels)
        return self._features if known and self.is_in(written) else None

    def is_in(self, written: Any) -> bool:
        """Say whether this very network is a part of a loaded model."""
        try:
            theirs, ours = (
                {layer["config"]["name"]: layer for layer in model.get_config()["layers"]}
                for model in (written, self.model)
            )
        except (KeyError, NotImplementedError, TypeError):  # a model of a kind of its own
            return False
        if any(theirs.get(name) != layer for name, layer in ours.items()):
            return False
        pairs = (
            (layer.get_weights(), written.get_layer(layer.name).get_weights())
            for layer in self.model.layers
        )
        return all(
            len(one) == len(other) and all(map(np.array_equal, one, other)) for one, other in pairs
        )


_frozen: FrozenNetwork | None = None
"""The one that was loaded last."""


def _load(job: Mapping[str, Any], line: object) -> dict[str, Any]:
    """Load a frozen network, to be run later."""
    import keras

    global _frozen  # noqa: PLW0603 - a process does one thing at a time
    _frozen = FrozenNetwork(job["model"], keras.models.load_model(job["model"], compile=False))
    return {}


def _ahead(job: Mapping[str, Any], line: object) -> dict[str, Any]:
    """Run pictures through a frozen network, and remember what it gives."""
    if _frozen is None or _frozen.file != job["model"]:
        _load(job, line)
    assert _frozen is not None
    pixels = np.load(job["pixels"], allow_pickle=False)
    _frozen.run(pixels)
    return {"pictures": len(pixels)}


def _run(job: Mapping[str, Any], line: object) -> dict[str, Any]:
    """Run pictures through a saved classifier, as any user of Keras would load it."""
    import keras

    pixels = np.load(job["pixels"], mmap_mode="r", allow_pickle=False)
    model = keras.models.load_model(job["model"])
    known = None if _frozen is None else _frozen.features(pixels, model)
    features, logits = answers_of(model, pixels, known)
    np.savez(job["out"], features=features, logits=logits)
    return {"pictures": len(pixels), "ahead": known is not None}


def answers_of(model: Any, pixels: Pixels, known: NDArray[np.float32] | None = None) -> Answers:
    """Return the features and the logits that a loaded classifier gives of pictures.

    Parameters
    ----------
    model : keras.Model
        Pixels to logits. The features are what its layer ``"features"`` gives; a fine-tuned
        network has that inside a layer, and the logits stand for them.
    pixels : array (n, height, width, 3)
        Values 0-255.
    known : float32 array (n, width), optional
        The features, where :meth:`FrozenNetwork.features` has them: then only the head is run.
    """
    import keras

    named = {layer.name: layer.output for layer in model.layers if layer.name == FEATURES}
    between = named.get(FEATURES)
    if between is None:
        (logits,) = _run_batches(_traced(model, min(BATCH, len(pixels))), pixels)
        return [logits, logits]
    if known is not None:
        head = keras.Model(between, model.output)
        return [known, head(known, training=False).numpy()]
    both = keras.Model(model.input, [between, model.output])
    return _run_batches(_traced(both, min(BATCH, len(pixels))), pixels)


def _traced(model: Any, rows: int) -> Any:
    """Return a function of batches of so many pictures: a list of what each output gives."""
    import tensorflow as tf

    def answer(batch: Any) -> list[Any]:
        given = model(batch, training=False)
        return given if isinstance(given, list) else [given]

    # Twice as fast as layer by layer, the time to trace it included, from one batch on.
    function = tf.function(answer, autograph=False)
    return function.get_concrete_function(tf.TensorSpec((rows, *model.input_shape[1:]), tf.float32))


def _run_batches(function: Any, pixels: Pixels) -> Answers:
    """Run pictures through a traced network, as many at once as it was traced for."""
    import tensorflow as tf

    rows = int(function.inputs[0].shape[0])

    def answer(start: int) -> Answers:
        batch = np.asarray(pixels[start : start + rows], np.float32)
        missing = rows - len(batch)
        # The last batch is filled up: the function is for one shape only.
        full = np.pad(batch, ((0, missing), (0, 0), (0, 0), (0, 0)))
        return [part.numpy()[: len(batch)] for part in function(tf.constant(full))]

    # Where an operation has one thread, batches are run side by side.
    threading = tf.config.threading
    alone = threading.get_intra_op_parallelism_threads() == 1
    beside = threading.get_inter_op_parallelism_threads() if alone else 1
    with _unimproved(), ThreadPoolExecutor(max(1, beside)) as pool:
        parts = list(pool.map(answer, range(0, len(pixels), rows)))
    return [np.concatenate(column) for column in zip(*parts, strict=True)]


@contextmanager
def _unimproved() -> Iterator[None]:
    """Run without TensorFlow's improvements of a graph: for few pictures they only take time."""
    import tensorflow as tf

    tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": True})
    try:
        yield
    finally:
        tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": False})


ANSWER_JOBS = {"run": _run, "load": _load, "ahead": _ahead}
"""By the names that the parent calls them."""
