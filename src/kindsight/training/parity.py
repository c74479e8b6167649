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
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kindsight.bundle import KERAS_FILE, TFLITE_FILE
from kindsight.errors import ParityError
from kindsight.evaluation import to_probabilities
from kindsight.files import write_json
from kindsight.models.backbones.build import BackboneFiles
from kindsight.models.formats.keras import MEMBERS, WEIGHTS
from kindsight.models.heads import Head
from kindsight.models.runtime import InterpreterPool
from kindsight.training.protocols import Parity

__all__ = [
    "COMPARED_IMAGES",
    "LOGIT_TOLERANCE",
    "MAX_TOLERANCE",
    "NUMPY_IMAGES",
    "TOLERANCE",
    "check_keras_weights",
    "check_tflite_weights",
    "compare_logits",
    "compared_rows",
    "is_verified",
    "record_verified",
    "run_tflite",
]

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


def run_tflite(tflite: Path, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return a LiteRT file's logits of images (n, height, width, 3), float32 (n, classes)."""
    pool = InterpreterPool(tflite)
    with ThreadPoolExecutor(pool.workers) as executor:
        return np.stack(list(executor.map(pool.run, pixels)))


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


# Which pairings of backbone and kind of head Keras has run on this machine ---------------------


def is_verified(files: BackboneFiles, head: Head | None = None) -> bool:
    """Return whether Keras has run this backbone with this kind of head, or with any kind."""
    try:
        with _record_path(files).open("rb") as file:
            record = json.loads(file.read(MAX_RECORD_BYTES))
        pairings = record["pairings"] if record["key"] == _key(files) else []
        return bool(pairings) if head is None else _pairing(head) in pairings
    except (OSError, KeyError, TypeError, ValueError, RecursionError):
        return False


def record_verified(files: BackboneFiles, head: Head) -> None:
    """Record that Keras has run this backbone with this kind of head, and agreed."""
    path, pairings = _record_path(files), [_pairing(head)]
    if is_verified(files):
        pairings += json.loads(path.read_bytes())["pairings"]
    write_json(path, {"key": _key(files), "pairings": sorted(set(pairings))})


def _record_path(files: BackboneFiles) -> Path:
    return files.tflite.with_suffix(".parity.json")


def _key(files: BackboneFiles) -> str:
    versions = [importlib.metadata.version(name) for name in VERSIONS]
    return hashlib.blake2b(json.dumps([files.digest, *versions]).encode()).hexdigest()


def _pairing(head: Head) -> str:
    """Describe the structure of a head: the kinds of its layers, whatever their sizes."""
    return "-".join([head.kind, *(f"{step.kind}:{step.activation}" for step in head.layers())])


# Reading weights back ---------------------------------------------------------------------------


def check_tflite_weights(head: Head, written: Path) -> None:
    """Compare the head's weights with those in a written ``.tflite`` file, bit for bit.

    Raises
    ------
    ParityError
        If an array of the head is not in the file.
    """
    content = written.read_bytes()
    for step in head.layers():
        for array in (step.kernel, step.bias):
            if array is None:
                continue
            # LiteRT stores dense kernels as (outputs, inputs).
            stored = (np.ascontiguousarray(array.T), np.ascontiguousarray(array))
            if not any(form.tobytes() in content for form in stored):
                raise ParityError(
                    f"{written.name} does not hold the weights of the head's layer {step.name!r}. "
                    "The bundle was not finished. Train again; if it happens again, report it."
                )


def check_keras_weights(template: Path, head: Head, written: Path) -> None:
    """Compare a written ``.keras`` file with the backbone's and the head's weights, bit for bit.

    Parameters
    ----------
    template : pathlib.Path
        The backbone's ``.keras`` file, pixels to features.
    head : Head
        The head that was appended.
    written : pathlib.Path
        The result of :func:`.assemble.write_keras`.

    Raises
    ------
    ParityError
        If a number differs, is missing, or should not be in the file.
    """
    expected, found = _arrays(template), _arrays(written)
    added = {name: array for name, array in found.items() if name not in expected}
    dense = [step for step in head.layers() if step.kind == "dense"]
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

    def visit(name: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset):
            arrays[name] = item[()]

    with h5py.File(io.BytesIO(content), "r") as file:
        file.visititems(visit)
    return arrays


def _order(name: str) -> tuple[int, str]:
    """Sort ``layers/dense_2/vars/1`` by layer number, then variable number."""
    layer = name.split("/")[1]
    number = layer.rpartition("_")[2]
    return (int(number) if number.isdigit() else 0, name.rpartition("/")[2])


def _same(one: Any, other: Any) -> bool:
    return bool(np.array_equal(np.asarray(one), np.asarray(other), equal_nan=True))
