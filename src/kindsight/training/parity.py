"""Proof that the two written networks of a bundle agree.

The proof has two halves. A backbone's ``.keras`` and ``.tflite`` file are compared once, when they
are built (:func:`kindsight.models.runtime.check_parity`). The head is checked in every
training: NumPy against LiteRT on validation images, and its weights are read back from both files.
Keras itself loads and runs the whole ``.keras`` file when this pairing of backbone and kind of head
is new on this machine, and with ``verify="full"``.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import io
import json
import zipfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from kindsight.bundle import KERAS_FILE, TFLITE_FILE
from kindsight.errors import ParityError
from kindsight.evaluation import to_probabilities
from kindsight.files import write_json
from kindsight.models.backbones.build import BackboneFiles
from kindsight.models.formats.keras import MEMBERS, WEIGHTS
from kindsight.models.heads import Head, HeadLayer
from kindsight.models.ood import OODScore, output_layers
from kindsight.models.runtime import InterpreterPool
from kindsight.training.protocols import Parity

__all__ = [
    "COMPARED_IMAGES", "LOGIT_TOLERANCE", "MAX_TOLERANCE", "NUMPY_IMAGES", "SCORE_TOLERANCE",
    "TOLERANCE", "NetworkOutputs", "check_keras_weights", "check_tflite_weights", "compare_logits",
    "compare_outputs", "compare_scores", "compared_rows", "is_verified", "record_verified",
    "run_tflite",
]  # fmt: skip

COMPARED_IMAGES = 64
"""Images on which Keras and LiteRT are compared, unless ``verify="full"`` asks for all."""

NUMPY_IMAGES = 8
"""Images on which NumPy and LiteRT are compared where Keras is not needed."""

TOLERANCE = 1e-4
"""Difference of a probability between the two networks that needs no note."""

LOGIT_TOLERANCE = 1e-3
"""Largest difference of logits that is accepted with a note, as a fraction of their range: float32
sums of thousands of terms that partly cancel are about that precise."""

MAX_TOLERANCE = 0.01
"""Largest difference of a probability that is ever accepted."""

SCORE_TOLERANCE = 0.01
"""Largest difference of an out-of-distribution score that is accepted, as a fraction of the score
or, where that is smaller, of a typical one, 1. A squared distance is a sum of terms that do not
cancel, precise to 1e-6, but runtimes differ by 1e-5 of a layer's size in the features, and a
feature's deviation may be as small as 1e-4 of it. A change of the threshold by a hundredth moves
the fraction of known images that are kept by a few thousandths."""

ADVICE = "Train with another model or image size, or report it with the output of 'kindsight info'."

MAX_RECORD_BYTES = 2**16
VERSIONS = ("kindsight", "keras", "ai-edge-litert")


def compared_rows(
    digests: Sequence[str | None], rows: NDArray[np.int64], verify: str
) -> NDArray[np.int64]:
    """Return rows of distinct images in the order of their digests, int64 (n,).

    At most :data:`COMPARED_IMAGES`, or all with ``verify="full"``.
    """
    first = {str(digests[row]): row for row in reversed(rows.tolist())}
    limit = None if verify == "full" else COMPARED_IMAGES
    return np.array([first[digest] for digest in sorted(first)[:limit]], np.int64)


class NetworkOutputs(NamedTuple):
    """What a network returns for n images.

    `logits` are float32 (n, classes), `scores` float32 (n,), None without a second output.
    """

    logits: NDArray[np.float32]
    scores: NDArray[np.float32] | None

    def first(self, count: int) -> NetworkOutputs:
        """Return the outputs for the first images."""
        return NetworkOutputs(
            self.logits[:count], None if self.scores is None else self.scores[:count]
        )


def run_tflite(tflite: Path, pixels: NDArray[np.uint8]) -> NetworkOutputs:
    """Return a LiteRT file's outputs for images (n, height, width, 3)."""
    pool = InterpreterPool(tflite)
    with ThreadPoolExecutor(pool.workers) as executor:
        found = list(executor.map(lambda image: pool.run_both([image])[0], pixels))
    outputs = np.stack([output for output, _ in found])
    scores = np.array([score[0] for _, score in found]) if pool.second_width == 1 else None
    return NetworkOutputs(outputs, scores)


def compare_outputs(
    ours: NetworkOutputs, theirs: NetworkOutputs, temperature: float, keras: str
) -> Parity:
    """Compare the logits and the scores of two networks, as the two functions below."""
    compare_scores(ours.scores, theirs.scores)
    return compare_logits(ours.logits, theirs.logits, temperature, keras)


def compare_logits(
    ours: NDArray[np.float32], theirs: NDArray[np.float32], temperature: float, keras: str
) -> Parity:
    """Compare the logits of two networks on the same images, as probabilities.

    A difference of up to :data:`TOLERANCE` is normal. A larger one is accepted, with a note, if all
    labels agree and it follows from a difference of the logits by :data:`LOGIT_TOLERANCE` of their
    range over the classes: a probability changes by a quarter of the difference of its logit at
    most.

    Raises
    ------
    ParityError
        If a probability differs by more, or is not finite, or a label differs.
    """
    if ours.shape != theirs.shape or not (np.isfinite(ours).all() and np.isfinite(theirs).all()):
        raise ParityError(
            f"The two written networks disagree: their outputs for {len(ours)} images have the "
            f"shapes {ours.shape} and {theirs.shape}, or are not finite. The bundle was not "
            f"finished. {ADVICE}"
        )
    one, other = (to_probabilities(logits, temperature) for logits in (ours, theirs))
    difference = float(np.abs(one - other).max())
    spread = float(np.ptp(theirs, axis=1).max()) / temperature
    accepted = max(TOLERANCE, min(MAX_TOLERANCE, LOGIT_TOLERANCE * spread / 4))
    if difference <= TOLERANCE:
        return Parity(len(ours), difference, accepted, keras)
    labels = int((one.argmax(1) != other.argmax(1)).sum())
    if difference > accepted or labels:
        raise ParityError(
            f"The two written networks disagree: a probability differs by {difference:.2g} on "
            f"{len(ours)} images, where {accepted:.2g} is accepted, and {labels} labels differ. "
            f"The bundle was not finished. {ADVICE}"
        )
    note = (
        f"The probabilities of {KERAS_FILE} and {TFLITE_FILE} differ by up to {difference:.2g} on "
        f"{len(ours)} images; below {TOLERANCE:g} is usual, and {accepted:.2g} is accepted for "
        "logits of this range. All labels agree."
    )
    return Parity(len(ours), difference, accepted, keras, note)


def compare_scores(ours: NDArray[np.float32] | None, theirs: NDArray[np.float32] | None) -> None:
    """Compare the out-of-distribution scores of two networks on the same images.

    Raises
    ------
    ParityError
        If one differs by more than :data:`SCORE_TOLERANCE`, is not finite, or is missing.
    """
    if ours is None and theirs is None:
        return
    if ours is None or theirs is None or ours.shape != theirs.shape:
        raise ParityError(
            "The two written networks disagree: only one of them gives an out-of-distribution "
            f"score. The bundle was not finished. {ADVICE}"
        )
    difference = float((np.abs(ours - theirs) / np.maximum(np.abs(theirs), 1)).max())
    if not difference <= SCORE_TOLERANCE:  # a NaN fails, too
        raise ParityError(
            "The two written networks disagree: an out-of-distribution score differs by "
            f"{difference:.2g} of its value on {len(ours)} images, where {SCORE_TOLERANCE:g} is "
            f"accepted. The bundle was not finished. {ADVICE}"
        )


# Which pairings of backbone and kind of head Keras has run on this machine ---------------------


def is_verified(
    files: BackboneFiles, head: Head | None = None, score: OODScore | None = None
) -> bool:
    """Return whether Keras has run this backbone with this kind of head and score, or any kind."""
    try:
        with _record_path(files).open("rb") as file:
            record = json.loads(file.read(MAX_RECORD_BYTES))
        pairings = record["pairings"] if record["key"] == _key(files) else []
        return bool(pairings) if head is None else _pairing(head, score) in pairings
    except (OSError, KeyError, TypeError, ValueError, RecursionError):
        return False


def record_verified(files: BackboneFiles, head: Head, score: OODScore | None = None) -> None:
    """Record that Keras has run this backbone with this kind of head and score, and agreed."""
    path, pairings = _record_path(files), [_pairing(head, score)]
    if is_verified(files):
        pairings += json.loads(path.read_bytes())["pairings"]
    write_json(path, {"key": _key(files), "pairings": sorted(set(pairings))})


def _record_path(files: BackboneFiles) -> Path:
    return files.tflite.with_suffix(".parity.json")


def _key(files: BackboneFiles) -> str:
    versions = [importlib.metadata.version(name) for name in VERSIONS]
    return hashlib.blake2b(json.dumps([files.digest, *versions]).encode()).hexdigest()


def _pairing(head: Head, score: OODScore | None) -> str:
    """Describe the structure of a head and score: their layers' kinds, whatever their sizes."""
    steps = output_layers(head, score)
    return "-".join([head.kind, *(f"{step.kind}:{step.activation}" for step in steps)])


# Reading weights back ---------------------------------------------------------------------------


def check_tflite_weights(layers: Sequence[HeadLayer], written: Path) -> None:
    """Compare the weights of a head's and score's layers with a ``.tflite`` file, bit for bit.

    Raises
    ------
    ParityError
        If an array of a layer is not in the file.
    """
    content = written.read_bytes()
    for step in layers:
        for array in (step.kernel, step.bias):
            if array is None:
                continue
            # LiteRT stores dense kernels as (outputs, inputs).
            stored = (np.ascontiguousarray(array.T), np.ascontiguousarray(array))
            if not any(form.tobytes() in content for form in stored):
                raise ParityError(
                    f"{written.name} does not hold the weights of the layer {step.name!r}. "
                    "The bundle was not finished. Train again; if it happens again, report it."
                )


def check_keras_weights(template: Path, layers: Sequence[HeadLayer], written: Path) -> None:
    """Compare a written ``.keras`` file with the weights that it was made of, bit for bit.

    Parameters
    ----------
    template : pathlib.Path
        The backbone's ``.keras`` file, pixels to features.
    layers : sequence of HeadLayer
        The layers that were appended.
    written : pathlib.Path
        The result of :func:`.assemble.write_keras`.

    Raises
    ------
    ParityError
        If a number differs, is missing, or should not be in the file.
    """
    expected, found = _arrays(template), _arrays(written)
    added = {name: array for name, array in found.items() if name not in expected}
    dense = [step for step in layers if step.kind == "dense"]
    wanted = [array for step in dense for array in (step.kernel, step.bias)]
    same = expected.keys() <= found.keys() and all(
        _same(array, found[name]) for name, array in expected.items()
    )
    # Kernel and bias of each layer, in the order of the layers.
    ordered = [added[name] for name in sorted(added, key=_order)]
    if not same or len(ordered) != len(wanted) or not all(map(_same, wanted, ordered)):
        raise ParityError(
            f"{written.name} does not hold the weights of the backbone and the head. The bundle "
            "was not finished. Train again; if it happens again, report it."
        )


def _arrays(path: Path) -> dict[str, Any]:
    """Read all weights of a ``.keras`` file, by name."""
    import h5py

    with zipfile.ZipFile(path) as archive, archive.open(WEIGHTS) as member:
        content = member.read(MEMBERS[WEIGHTS] + 1)
    arrays: dict[str, Any] = {}

    with h5py.File(io.BytesIO(content), "r") as file:

        def visit(name: bytes) -> None:
            # By h5py's inner functions: the others take ten times as long for small arrays.
            item = h5py.h5o.open(file.id, name)
            if isinstance(item, h5py.h5d.DatasetID):
                array = np.empty(item.shape, item.dtype)
                item.read(h5py.h5s.ALL, h5py.h5s.ALL, array)
                arrays[name.decode()] = array

        h5py.h5o.visit(file.id, visit)
    return arrays


def _order(name: str) -> tuple[int, str]:
    """Sort ``layers/dense_2/vars/1`` by layer number, then variable number."""
    layer = name.split("/")[1]
    number = layer.rpartition("_")[2]
    return (int(number) if number.isdigit() else 0, name.rpartition("/")[2])


def _same(one: Any, other: Any) -> bool:
    return bool(np.array_equal(np.asarray(one), np.asarray(other), equal_nan=True))
