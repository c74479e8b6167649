"""The jobs of the Keras worker process: build a backbone, run a saved network, collect maps.

On a GPU only the job ``"network"`` and trainings run; all others stay on the CPU.

Started by :class:`kindsight.models.worker.process.KerasProcess`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kindsight.models.backbones.features import build_feature_model, build_network
from kindsight.models.backbones.table import get_backbone
from kindsight.models.formats.assemble import PIXELS
from kindsight.models.formats.tflite import compact, read_tflite
from kindsight.models.graph import fold_batch_norm
from kindsight.models.heads import FEATURES
from kindsight.models.networks.feature_maps import collect_maps, write_maps
from kindsight.models.networks.fine_tuned import build_frozen_base, load_network
from kindsight.models.networks.transfer import check_layers
from kindsight.models.runtime import check_agreement, convert_to_litert
from kindsight.models.worker.device import device_name, on_cpu
from kindsight.models.worker.serve import Connection, Job, serve

__all__ = ["Backbone", "main", "predict", "serve_keras_jobs"]

# Eight images fit the processor's cache better than thirty-two: a third faster.
BATCH = 8

Pixels = NDArray[Any]


def main() -> None:
    """Run these jobs until the parent ends."""
    serve_keras_jobs({})


def serve_keras_jobs(more: Mapping[str, Job], on_start: Callable[[], None] | None = None) -> None:
    """Run these jobs, and `more` by name, until the parent ends; see :func:`.serve.serve`."""
    own = {"build": _build, "maps": _maps, "run": _run, "load": _load, "ahead": _ahead}
    on_any = {name: on_cpu(job) for name, job in own.items()}
    serve({**on_any, "network": _network, **more}, on_start)


def _build(job: dict[str, Any], connection: Connection) -> dict[str, Any]:
    """Build a backbone's two files and compare them."""
    backbone = get_backbone(job["name"])
    input_size = None if job["input_size"] is None else tuple(job["input_size"])
    if job["layers"] is not None:  # before weights are downloaded or files written
        untrained = build_network(backbone, tuple(job["size"]), "none", job["seed"], input_size)
        check_layers(untrained, *job["layers"])
    network = build_network(backbone, tuple(job["size"]), job["weights"], job["seed"], input_size)
    model, layout = build_feature_model(backbone, network)
    if job["fold_batch_norm"] and backbone.file is None:  # a user's own network is not changed
        model = fold_batch_norm(model)
    model.save(job["keras"])
    target = Path(job["tflite"])
    target.write_bytes(convert_to_litert(model))
    graph = read_tflite(target)
    graph.name_ends(PIXELS, {FEATURES: graph.output})
    content = compact(bytes(graph.to_bytes()))
    target.write_bytes(content)
    return {
        "difference": check_agreement(model, content),
        "width": int(model.output_shape[-1]),
        "layout": layout.to_dict(),
    }


def _maps(job: dict[str, Any], connection: Connection) -> dict[str, Any]:
    """Run one image through a saved network and write the feature maps of its layers."""
    pixels = np.load(job["pixels"], allow_pickle=False)
    found = collect_maps(job["model"], pixels, job["max_layers"], job["max_maps"])
    layers = write_maps(found.layers, job["out"])
    return {"layers": layers, "left_out": found.left_out, "within": found.within}


def _run(job: Mapping[str, Any], connection: object) -> dict[str, Any]:
    """Run images through a saved classifier, loaded as any user of Keras would load it."""
    import keras

    pixels = np.load(job["pixels"], mmap_mode="r", allow_pickle=False)
    model = keras.models.load_model(job["model"])
    known = None if _backbone is None else _backbone.features(pixels, model)
    features, logits, *scores = predict(model, pixels, known)
    # Without scores an empty array.
    np.savez(job["out"], features=features, logits=logits, scores=np.array(scores).reshape(-1))
    return {}


def predict(
    model: Any, pixels: Pixels, known: NDArray[np.float32] | None = None
) -> list[NDArray[np.float32]]:
    """Return the features and the outputs of images, (n, height, width, 3) with values 0-255.

    The outputs are the logits and, where the network has it, the out-of-distribution score.

    `known` are features computed before, float32 (n, width): then only the head is run. In a
    fine-tuned network, whose layer ``"features"`` is inside another, the logits are returned twice.
    """
    import keras

    features = next((layer.output for layer in model.layers if layer.name == FEATURES), None)
    rows = min(BATCH, len(pixels))
    if features is None:
        outputs = _run_batches(_traced(model, rows), pixels)
        return [outputs[0], *outputs]
    if known is not None:
        head = keras.Model(features, model.outputs)
        outputs = head(known, training=False)
        outputs = outputs if isinstance(outputs, list) else [outputs]
        return [known, *(np.asarray(output) for output in outputs)]
    both = keras.Model(model.input, [features, *model.outputs])
    return _run_batches(_traced(both, rows), pixels)


# The backbone that was loaded last. It can be run before the classifier that contains it is
# written. The classifier is then loaded as any other; where every layer of the backbone is in it,
# with the same settings, inputs and weights, only the head has to be run.
_backbone: Backbone | None = None


def _load(job: Mapping[str, Any], connection: object) -> dict[str, Any]:
    """Load a backbone, to be run later."""
    import keras

    global _backbone  # noqa: PLW0603 - a worker runs one job at a time
    _backbone = Backbone(job["model"], keras.models.load_model(job["model"], compile=False))
    return {}


def _ahead(job: Mapping[str, Any], connection: object) -> dict[str, Any]:
    """Run images through a backbone and store its features."""
    if _backbone is None or _backbone.file != job["model"]:
        _load(job, connection)
    assert _backbone is not None
    pixels = np.load(job["pixels"], allow_pickle=False)
    _backbone.run(pixels)
    return {}


class Backbone:
    """A backbone, from pixels to features, that is run before the classifier with it is written."""

    def __init__(self, file: str, model: Any) -> None:
        self.file = file
        self.model = model
        self._function = _traced(model, BATCH)
        self._pixels: Pixels | None = None
        self._features: NDArray[np.float32] | None = None

    def run(self, pixels: Pixels) -> None:
        """Compute the features of images, (n, height, width, 3), and store them."""
        self._pixels, (self._features,) = pixels, _run_batches(self._function, pixels)

    def features(self, pixels: Pixels, classifier: Any) -> NDArray[np.float32] | None:
        """Return stored features, if they are of these images and of the classifier's backbone."""
        known = self._pixels is not None and np.array_equal(pixels, self._pixels)
        return self._features if known and self.is_in(classifier) else None

    def is_in(self, classifier: Any) -> bool:
        """Whether a classifier contains this backbone: its layers, their inputs and weights."""
        try:
            theirs, ours = (
                {layer["config"]["name"]: layer for layer in model.get_config()["layers"]}
                for model in (classifier, self.model)
            )
        except (KeyError, NotImplementedError, TypeError):  # not a functional model
            return False
        if any(theirs.get(name) != layer for name, layer in ours.items()):
            return False
        pairs = (
            (layer.get_weights(), classifier.get_layer(layer.name).get_weights())
            for layer in self.model.layers
        )
        return all(
            len(one) == len(other) and all(map(np.array_equal, one, other)) for one, other in pairs
        )


# The network that was run last by :func:`_network`: its file and stage, and its function.
_running: tuple[tuple[str, str], Any] | None = None


def _network(job: Mapping[str, Any], connection: object) -> dict[str, Any]:
    """Run images through a network on the worker's device, and write its outputs."""
    global _running  # noqa: PLW0603 - a worker runs one job at a time
    source = (job["model"], job["stage"])
    if _running is None or _running[0] != source:
        _running = source, device_function(*source)
    pixels = np.load(job["pixels"], allow_pickle=False)
    np.save(job["out"], _running[1](pixels), allow_pickle=False)
    return {}


def device_function(file: str, stage: str = "") -> Callable[[Pixels], NDArray[np.float32]]:
    """Return a function that runs a Keras file on the worker's device.

    It maps uint8 (n, height, width, 3) to float32 (n, width): the network's outputs, or the
    flattened activations of a `stage`.
    """
    import tensorflow as tf

    with tf.device(device_name()):
        model = load_network(file)
        model = build_frozen_base(model, None, stage) if stage else model
        spec = tf.TensorSpec((None, *model.input_shape[1:]), tf.uint8)
        call = tf.function(
            lambda pixels: model(tf.cast(pixels, tf.float32), training=False),
            autograph=False, input_signature=[spec],
        )  # fmt: skip

    def run(pixels: Pixels) -> NDArray[np.float32]:
        # A GPU looks for the fastest convolutions again for each size of a batch.
        rows = 1 << (len(pixels) - 1).bit_length()
        full = np.pad(pixels, ((0, rows - len(pixels)), (0, 0), (0, 0), (0, 0)))
        with tf.device(device_name()):
            outputs: NDArray[np.float32] = call(tf.constant(full)).numpy()
        return outputs[: len(pixels)]

    return run


def _traced(model: Any, rows: int) -> Any:
    """Return a function of batches of `rows` images: a list of the model's outputs."""
    import tensorflow as tf

    def call(batch: Any) -> list[Any]:
        outputs = model(batch, training=False)
        return outputs if isinstance(outputs, list) else [outputs]

    # Twice as fast as layer by layer, the time to trace it included, from one batch on.
    function = tf.function(call, autograph=False)
    return function.get_concrete_function(tf.TensorSpec((rows, *model.input_shape[1:]), tf.float32))


def _run_batches(function: Any, pixels: Pixels) -> list[NDArray[np.float32]]:
    """Run images through a traced network, in batches of the size it was traced for."""
    import tensorflow as tf

    rows = int(function.inputs[0].shape[0])

    def call(start: int) -> list[NDArray[np.float32]]:
        batch = np.asarray(pixels[start : start + rows], np.float32)
        missing = rows - len(batch)
        full = np.pad(batch, ((0, missing), (0, 0), (0, 0), (0, 0)))  # one shape only
        return [output.numpy()[: len(batch)] for output in function(tf.constant(full))]

    # Where an operation has one thread, batches run in parallel.
    threading = tf.config.threading
    single = threading.get_intra_op_parallelism_threads() == 1
    threads = threading.get_inter_op_parallelism_threads() if single else 1
    with _graph_optimizer_off(), ThreadPoolExecutor(max(1, threads)) as pool:
        batches = list(pool.map(call, range(0, len(pixels), rows)))
    return [np.concatenate(column) for column in zip(*batches, strict=True)]


@contextmanager
def _graph_optimizer_off() -> Iterator[None]:
    """Turn TensorFlow's graph optimisation off: for few images it takes longer than it saves."""
    import tensorflow as tf

    tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": True})
    try:
        yield
    finally:
        tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": False})
