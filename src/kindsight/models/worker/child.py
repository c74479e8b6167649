"""The process that TensorFlow lives in: it takes jobs from its parent, one JSON line each.

Started by :class:`kindsight.models.worker.process.KerasProcess`, never by hand. Jobs come on
standard input, answers go to what was standard output when the process began; from then on
descriptor 1 leads to standard error, so that no print of a library can get among the answers.
When the parent ends, for whatever reason, standard input ends, and so does this process.
"""

from __future__ import annotations

import json
import os
import queue
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

import numpy as np
from numpy.typing import NDArray

from kindsight.models.heads.head import FEATURES

__all__ = [
    "ANSWER_JOBS",
    "FrozenNetwork",
    "Job",
    "Line",
    "answers_of",
    "main",
    "serve",
]

# SECTION: Running images through saved networks, in the process with Keras.
#
# A frozen network can be run ahead, before the file that will hold it and its head is written. That
# file is then loaded as any other; where every layer of the frozen network is in it, with the same
# settings, inputs and numbers, its features are known, and only its own head is left to run.

# Eight images fit the processor's cache better than thirty-two: a third faster here.
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
        """Run images, (n, height, width, 3), and remember what comes of it."""
        self._pixels, (self._features,) = pixels, _run_batches(self._function, pixels)

    def features(self, pixels: Pixels, written: Any) -> NDArray[np.float32] | None:
        """Return the features of images, where these were run and the network is in `written`."""
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
    """Run images through a frozen network, and remember what it gives."""
    if _frozen is None or _frozen.file != job["model"]:
        _load(job, line)
    assert _frozen is not None
    pixels = np.load(job["pixels"], allow_pickle=False)
    _frozen.run(pixels)
    return {"images": len(pixels)}


def _run(job: Mapping[str, Any], line: object) -> dict[str, Any]:
    """Run images through a saved classifier, as any user of Keras would load it."""
    import keras

    pixels = np.load(job["pixels"], mmap_mode="r", allow_pickle=False)
    model = keras.models.load_model(job["model"])
    known = None if _frozen is None else _frozen.features(pixels, model)
    features, logits = answers_of(model, pixels, known)
    np.savez(job["out"], features=features, logits=logits)
    return {"images": len(pixels), "ahead": known is not None}


def answers_of(model: Any, pixels: Pixels, known: NDArray[np.float32] | None = None) -> Answers:
    """Return the features and the logits that a loaded classifier gives of images.

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
    """Return a function of batches of so many images: a list of what each output gives."""
    import tensorflow as tf

    def answer(batch: Any) -> list[Any]:
        given = model(batch, training=False)
        return given if isinstance(given, list) else [given]

    # Twice as fast as layer by layer, the time to trace it included, from one batch on.
    function = tf.function(answer, autograph=False)
    return function.get_concrete_function(tf.TensorSpec((rows, *model.input_shape[1:]), tf.float32))


def _run_batches(function: Any, pixels: Pixels) -> Answers:
    """Run images through a traced network, as many at once as it was traced for."""
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
    """Run without TensorFlow's improvements of a graph: for few images they only take time."""
    import tensorflow as tf

    tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": True})
    try:
        yield
    finally:
        tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": False})


ANSWER_JOBS = {"run": _run, "load": _load, "ahead": _ahead}
"""By the names that the parent calls them."""


UNWANTED = ("sklearn", "matplotlib", "pandas", "scipy", "cv2", "PIL", "pygments")


class Line:
    """The line to the parent, for a job that takes long: news go out, and a wish to stop comes in.

    Attributes
    ----------
    stop : threading.Event
        Set when the parent wants the job to end as soon as it can.
    """

    def __init__(self, answers: TextIO) -> None:
        self._answers = answers
        self.stop = threading.Event()

    def tell(self, news: Mapping[str, Any]) -> None:
        """Send something before the answer; it must not have a key ``"ok"``."""
        self._answers.write(json.dumps(news) + "\n")
        self._answers.flush()


Job = Callable[[dict[str, Any], Line], dict[str, Any]]


def main() -> None:
    """Answer jobs until told to quit."""
    serve({})


def serve(more: Mapping[str, Job], begin: Callable[[], None] | None = None) -> None:
    """Answer jobs until told to quit.

    Parameters
    ----------
    more : mapping of str to callable
        Jobs by name, besides this module's own: from the job and the line to its answer.
    begin : callable, optional
        Called once TensorFlow is imported, before it computes anything.
    """
    # Ctrl-C reaches every process of a terminal; the parent decides what becomes of this one.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    line = Line(os.fdopen(os.dup(1), "w", encoding="utf-8"))
    os.dup2(2, 1)
    jobs: queue.Queue[dict[str, Any]] = queue.Queue()
    threading.Thread(target=_listen, args=(jobs, line.stop), daemon=True).start()
    line.tell(_guarded(lambda job, line: _start(begin), {}, line))
    own: Mapping[str, Job] = {"build": _build, "maps": _maps}
    table = {**own, **ANSWER_JOBS, **more}
    while (job := jobs.get())["job"] != "quit":
        line.stop.clear()
        line.tell(_guarded(table[job["job"]], job, line))
    # Leaving TensorFlow to tear itself down takes longer than the jobs of a small training.
    os._exit(0)


def _listen(jobs: queue.Queue[dict[str, Any]], stop: threading.Event) -> None:
    for line in sys.stdin:
        job = json.loads(line)
        if job["job"] == "stop":
            stop.set()
        else:
            jobs.put(job)
    # The parent is gone: whatever is being computed is computed for nobody.
    os._exit(1)


def _guarded(task: Job, job: dict[str, Any], line: Line) -> dict[str, Any]:
    """Run a task; turn an error into an answer."""
    try:
        return {"ok": True, **task(job, line)}
    except Exception as error:
        traceback.print_exc()
        return {"ok": False, "error": type(error).__name__, "message": str(error)}


def _start(begin: Callable[[], None] | None) -> dict[str, Any]:
    """Import Keras as fast as can be, with the settings that the project's models are made for.

    The first answer, not asked for: when it comes, the process is ready.
    """
    import gc

    # Keras looks for these at import, which costs most of a second and is of no use here.
    unwanted = [library for library in UNWANTED if library not in sys.modules]
    sys.modules.update(dict.fromkeys(unwanted))  # type: ignore[arg-type]
    # A fifth of the import is the collector walking over objects that all stay.
    gc.disable()
    import keras
    import tensorflow as tf

    for library in unwanted:  # a job may want them
        del sys.modules[library]
    gc.freeze()
    gc.enable()
    if begin is not None:
        begin()
    # The user's keras.json may say otherwise.
    keras.config.set_floatx("float32")
    keras.config.set_image_data_format("channels_last")
    keras.config.set_dtype_policy("float32")
    return {"versions": {"keras": keras.__version__, "tensorflow": tf.__version__}}


def _build(job: dict[str, Any], line: Line) -> dict[str, Any]:
    """Build a backbone's two files and compare them."""
    from kindsight.models.backbones.features import build_feature_model, build_network
    from kindsight.models.backbones.table import get_backbone
    from kindsight.models.formats.assemble import PIXELS
    from kindsight.models.formats.convert import check_agreement, convert_to_litert
    from kindsight.models.formats.tflite import read_tflite
    from kindsight.models.heads.head import FEATURES
    from kindsight.models.networks.fine_tuned import fold_normalisations

    backbone = get_backbone(job["name"])
    given = None if job["given"] is None else tuple(job["given"])
    network = build_network(backbone, tuple(job["size"]), job["weights"], job["seed"], given)
    model, layout = build_feature_model(backbone, network)
    if job["folded"] and backbone.file is None:  # a user's own network stays as it is
        model = fold_normalisations(model)
    model.save(job["keras"])
    target = Path(job["tflite"])
    target.write_bytes(convert_to_litert(model))
    graph = read_tflite(target)
    graph.name_ends(PIXELS, graph.output, FEATURES)
    named = bytes(graph.to_bytes())
    target.write_bytes(named)
    return {
        "difference": check_agreement(model, named),
        "width": int(model.output_shape[-1]),
        "layout": layout.to_dict(),
    }


def _maps(job: dict[str, Any], line: Line) -> dict[str, Any]:
    """Run one image through a saved network; keep what its layers make of it."""
    import numpy as np

    from kindsight.models.networks.feature_maps import collect_maps, write_maps

    pixels = np.load(job["pixels"], allow_pickle=False)
    found = collect_maps(job["model"], pixels, job["max_layers"], job["max_maps"])
    layers = write_maps(found.layers, job["out"])
    return {"layers": layers, "left_out": found.left_out, "within": found.within}
