"""The process that TensorFlow lives in: it takes jobs from its parent, one JSON line each.

Started by :class:`kindsight.models.keras_process.KerasProcess`, never by hand. Jobs come on
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
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TextIO

from kindsight.models.keras_answers import ANSWER_JOBS

__all__ = ["Job", "Line", "main", "serve"]

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
    from kindsight.models.assemble import PIXELS
    from kindsight.models.backbones import get_backbone
    from kindsight.models.convert import check_agreement, convert_to_litert
    from kindsight.models.feature_model import build_feature_model, build_network
    from kindsight.models.folding import fold_normalisations
    from kindsight.models.heads import FEATURES
    from kindsight.models.tflite_file import read_tflite

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
    """Run one picture through a saved network; keep what its layers make of it."""
    import numpy as np

    from kindsight.models.feature_maps import collect_maps, write_maps

    pixels = np.load(job["pixels"], allow_pickle=False)
    found = collect_maps(job["model"], pixels, job["max_layers"], job["max_maps"])
    layers = write_maps(found.layers, job["out"])
    return {"layers": layers, "left_out": found.left_out, "within": found.within}
