"""Proof that a bundle's two networks, Keras and LiteRT, give the same probabilities.

The written LiteRT file is always run on the images. Keras takes seconds to start, and the lower
part of its network is frozen: what Keras itself computed there is kept like any frozen thing.
Where that is known for enough of the images, the written Keras file is compared with the one
that Keras ran, number for number, and its head is applied to what Keras had computed. Otherwise
Keras loads the written file and runs it; what is frozen in it may have been run ahead, from the
backbone's own file, and counts where the written file has it number for number
(:mod:`.keras_answers`). The images are, as far as there are such, those that the next seeds will
have in their validation parts too, so that these need no Keras; and the second time Keras is run on
more than are compared now, so that all further splits find enough of them.
"""

from __future__ import annotations

import io
import zipfile
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kindsight.digest import file_digest
from kindsight.errors import ParityError
from kindsight.evaluation import to_probabilities
from kindsight.models.formats.keras import MEMBERS, WEIGHTS
from kindsight.models.heads.head import Head
from kindsight.models.runtime import InterpreterPool
from kindsight.models.worker.process import KerasProcess
from kindsight.training.frozen.feature_cache import FeatureTable
from kindsight.training.frozen.fitted import FittedFrozenHead
from kindsight.training.frozen.prepared import FrozenImages
from kindsight.training.network.fitted import FittedNetwork

__all__ = [
    "AGREEMENT_IMAGES",
    "AGREEMENT_TOLERANCE",
    "Agreement",
    "check_agreement",
    "check_network",
    "check_written",
    "for_all",
    "images_for_keras",
    "needs_keras",
]

# SECTION: Proof that a written ``.keras`` file holds a template's network and a head, bit for bit.


def check_written(template: Path, head: Head, written: Path) -> None:
    """Compare the weights of a written file with those it was made of.

    Parameters
    ----------
    template : pathlib.Path
        The backbone's ``.keras`` file, pixels to features.
    head : Head
        What was put behind it.
    written : pathlib.Path
        The result of :func:`.assemble.write_keras`.

    Raises
    ------
    ParityError
        If any number differs, is missing, or is there too many.
    """
    expected, found = _arrays(template), _arrays(written)
    added = {name: array for name, array in found.items() if name not in expected}
    dense = [step for step in head.steps() if step.kind == "dense"]
    wanted = [array for step in dense for array in (step.kernel, step.bias)]
    same = expected.keys() <= found.keys() and all(
        _same(array, found[name]) for name, array in expected.items()
    )
    # Kernel and bias of each layer, in the order in which the layers were added.
    ordered = [added[name] for name in sorted(added, key=_order)]
    if not same or len(ordered) != len(wanted) or not all(map(_same, wanted, ordered)):
        raise ParityError(
            f"{written} must hold the network of {template} and the fitted head, number for "
            "number. It does not. Delete the cache (kindsight cache clear) and train again."
        )


def _arrays(path: Path) -> dict[str, Any]:
    """Read all weights of a ``.keras`` file by their names in it."""
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
    """Sort ``layers/dense_2/vars/1`` by the layer's number, then by the variable's."""
    layer = name.split("/")[1]
    number = layer.rpartition("_")[2]
    return (int(number) if number.isdigit() else 0, name.rpartition("/")[2])


def _same(one: Any, other: Any) -> bool:
    return bool(np.array_equal(np.asarray(one), np.asarray(other), equal_nan=True))


AGREEMENT_IMAGES = 64
# Largest difference of a probability between the two networks.
AGREEMENT_TOLERANCE = 1e-4
# How many images Keras runs for a second split: a fifth of them is more than is compared.
KEPT_IMAGES = 400

LOADED = "model.keras was loaded and run by Keras"
RAN_AHEAD = f"{LOADED}, its frozen layers ahead, from the file that it has them of"
KEPT = "model.keras holds the network that Keras ran before on these images, number for number"


@dataclass(frozen=True)
class Agreement:
    """How closely the two networks of a bundle agree.

    Parameters
    ----------
    images : int
        How many were compared.
    largest_difference : float
        Of any probability of any of them.
    keras : str
        How Keras's answers were come by.
    tolerance : float
        What was allowed.
    """

    images: int
    largest_difference: float
    keras: str
    tolerance: float = AGREEMENT_TOLERANCE


def check_agreement(
    fitted: FittedFrozenHead,
    rows: NDArray[np.int64],
    write_tflite: Callable[[], Path],
    keras_file: Path,
    keras: KerasProcess,
    later: Sequence[NDArray[np.int64]] = (),
) -> Agreement:
    """Compare the two written networks on some images.

    Parameters
    ----------
    fitted : FittedFrozenHead
        What the files were made of.
    rows : array
        int64: the images to compare on; at least :data:`AGREEMENT_IMAGES` of them are taken,
        or all.
    write_tflite : callable
        Writes the LiteRT file, while Keras loads the other, and says where it is.
    keras_file : pathlib.Path
        The written Keras file.
    keras : KerasProcess
        Started only where it is needed.
    later : sequence of array
        int64: what later trainings may have to compare on. Where Keras is run, it is run on enough
        images for these, too.

    Raises
    ------
    ParityError
        If any probability differs by more than :data:`AGREEMENT_TOLERANCE`.
    """
    wanted, *others = (_digests_of(fitted, part) for part in (rows, *later))
    needed = min(AGREEMENT_IMAGES, len(wanted))
    model = file_digest(fitted.files.keras)
    with closing(FeatureTable(fitted.features.table, fitted.files.layout.width)) as table:
        kept = table.keras_vectors(model, wanted)
        if len(kept) >= needed:
            return _check_known(fitted, kept, write_tflite, keras_file)
        run = _run_by_keras(fitted, table, model, [wanted, *others])
        pixels = fitted.kept_pixels(run)
        with ThreadPoolExecutor(1) as aside:
            # Keras takes most of its time to load the file, on one core.
            answering = aside.submit(keras.run, keras_file, pixels)
            tflite = write_tflite()
            check_written(fitted.files.keras, fitted.head.layers, keras_file)
            ours = _run(tflite, pixels[:needed])
            features, answers = answering.result()
            how = RAN_AHEAD if keras.ran_ahead else LOADED
        agreement = _judge(ours, answers[:needed], fitted.head.temperature, how)
        # Only now: what failed must be run by Keras again, not taken from here.
        table.put_keras(model, dict(zip(run, features, strict=True)))
        return agreement


def _check_known(
    fitted: FittedFrozenHead,
    kept: Mapping[str, NDArray[np.float32]],
    write_tflite: Callable[[], Path],
    keras_file: Path,
) -> Agreement:
    """Compare on images of which Keras's features are known."""
    compared = sorted(kept)[:AGREEMENT_IMAGES]
    vectors = np.stack([kept[digest] for digest in compared])
    with ThreadPoolExecutor(1) as aside:
        written = aside.submit(check_written, fitted.files.keras, fitted.head.layers, keras_file)
        ours = _run(write_tflite(), fitted.kept_pixels(compared))
        written.result()
    return _judge(ours, fitted.head.layers.logits(vectors), fitted.head.temperature, KEPT)


def check_network(
    fitted: FittedNetwork,
    rows: NDArray[np.int64],
    tflite: Path,
    keras_file: Path,
    keras: KerasProcess,
) -> Agreement:
    """Compare the two written forms of a trained network on some images.

    Parameters
    ----------
    fitted : FittedNetwork
        What was trained.
    rows, keras_file, keras
        As :func:`check_agreement` has them.
    tflite : pathlib.Path
        The written LiteRT file.

    Raises
    ------
    ParityError
        As there.
    """
    different = {str(fitted.dataset.digest[row]): row for row in reversed(rows.tolist())}
    compared = [different[digest] for digest in sorted(different)[:AGREEMENT_IMAGES]]
    pixels = fitted.stored.pixels(np.array(compared))
    with ThreadPoolExecutor(1) as aside:
        answering = aside.submit(keras.run, keras_file, pixels)
        ours = _run(tflite, pixels)
        answers = answering.result()[1]
    return _judge(ours, answers, fitted.temperature, LOADED)


def needs_keras(images: FrozenImages, rows: NDArray[np.int64]) -> bool:
    """Tell whether :func:`check_agreement` will have to run Keras on these images."""
    wanted = _digests_of(images, rows)
    with closing(FeatureTable(images.features.table, images.files.layout.width)) as table:
        kept = table.keras_vectors(file_digest(images.files.keras), wanted)
    return len(kept) < min(AGREEMENT_IMAGES, len(wanted))


def images_for_keras(images: FrozenImages, parts: Sequence[NDArray[np.int64]]) -> list[str]:
    """Tell on which images, by digest, :func:`check_agreement` will run Keras, if it has to.

    Known before the head is fitted, so that Keras can run the frozen part of the network meanwhile.
    The first of `parts` is what is compared, the others what later trainings may compare.
    """
    digests = [_digests_of(images, part) for part in parts]
    with closing(FeatureTable(images.features.table, images.files.layout.width)) as table:
        return _run_by_keras(images, table, file_digest(images.files.keras), digests)


def _run_by_keras(
    images: FrozenImages | FittedFrozenHead,
    table: FeatureTable,
    model: str,
    parts: Sequence[Sequence[str]],
) -> list[str]:
    """Return the images that Keras is to be run on, those of the first part first."""
    chosen = for_all(parts, AGREEMENT_IMAGES)
    return chosen + _more(images, table, model, chosen)


def _digests_of(images: FrozenImages | FittedFrozenHead, rows: NDArray[np.int64]) -> list[str]:
    """Return the different images among some rows."""
    return sorted({str(images.dataset.digest[row]) for row in rows})


def for_all(parts: Sequence[Sequence[str]], count: int) -> list[str]:
    """Choose few images of which each part has `count`, or all that it has.

    Those that are in many parts come first; the first part's are at the beginning of the answer.
    """
    shared = Counter(digest for part in parts for digest in part)
    chosen: dict[str, None] = {}
    for part in parts:
        ordered = sorted(part, key=lambda digest: (-shared[digest], digest))
        missing = count - sum(digest in chosen for digest in ordered)
        fresh = (digest for digest in ordered if digest not in chosen)
        chosen.update(dict.fromkeys(islice(fresh, max(0, missing))))
    return list(chosen)


def _more(
    images: FrozenImages | FittedFrozenHead, table: FeatureTable, model: str, compared: list[str]
) -> list[str]:
    """Return further images for Keras, once a second split shows that more splits may come."""
    every = sorted({str(digest) for digest in images.features.dataset.digest})
    if not table.keras_vectors(model, every):
        return []
    return [digest for digest in every[:KEPT_IMAGES] if digest not in compared]


def _run(tflite: Path, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    pool = InterpreterPool(tflite)
    with ThreadPoolExecutor(pool.workers) as executor:
        return np.stack(list(executor.map(pool.run, pixels)))


def _judge(
    ours: NDArray[np.float32], theirs: NDArray[np.float32], temperature: float, how: str
) -> Agreement:
    difference = np.inf
    if ours.shape == theirs.shape and np.isfinite(ours).all() and np.isfinite(theirs).all():
        one, other = (to_probabilities(logits, temperature) for logits in (ours, theirs))
        difference = float(np.abs(one - other).max())
    if difference > AGREEMENT_TOLERANCE:
        raise ParityError(
            f"model.keras and model.tflite must agree to {AGREEMENT_TOLERANCE:g} in probability. "
            f"They differ by {difference:g} on {len(ours)} images; the bundle is not finished. "
            "Delete the cache (kindsight cache clear) and train again."
        )
    return Agreement(len(ours), difference, how)
