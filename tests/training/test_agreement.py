"""The comparison of a bundle's two networks: what is alike passes, and nothing else."""

import io
import shutil
import zipfile

import h5py
import numpy as np
import pytest

from kindsight.errors import ParityError
from kindsight.models.formats.assemble import write_keras
from kindsight.models.heads.head import LinearHead, RBFHead
from kindsight.training.parity import AGREEMENT_TOLERANCE, _judge, check_written, for_all

WEIGHTS = "model.weights.h5"


def linear(width, classes=3, seed=0):
    random = np.random.default_rng(seed)
    return LinearHead(random.normal(size=(width, classes)), random.normal(size=classes))


def curved(width, seed=0):
    random = np.random.default_rng(seed)
    return RBFHead(
        random.normal(size=(width, 4)),
        random.normal(size=4),
        random.normal(size=(5, 4)),
        0.3,
        random.normal(size=(5, 3)),
        random.normal(size=3),
    )


@pytest.fixture(params=[linear, curved])
def head(request, backbone):
    return request.param(backbone.layout.width)


@pytest.fixture
def written(backbone, head, tmp_path):
    write_keras(backbone.keras, head, tmp_path / "model.keras")
    return tmp_path / "model.keras"


def change(path, edit):
    """Edit the weights in a Keras file."""
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    file = io.BytesIO(members[WEIGHTS])
    with h5py.File(file, "r+") as weights:
        edit(weights)
    members[WEIGHTS] = file.getvalue()
    path.unlink()
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)


def arrays_of(weights):
    found = []
    weights.visititems(lambda name, item: found.append(name) if hasattr(item, "shape") else None)
    return sorted(found)


def test_what_was_written_is_what_was_meant(backbone, head, written):
    check_written(backbone.keras, head, written)


def test_every_single_number_counts(backbone, head, written, tmp_path):
    names = []
    with zipfile.ZipFile(written) as archive:
        content = io.BytesIO(archive.read(WEIGHTS))
    with h5py.File(content) as weights:
        names = arrays_of(weights)
    assert len(names) > 90
    for name in (names[0], names[len(names) // 2], names[-1]):
        copy = tmp_path / "copy.keras"
        shutil.copy(written, copy)

        def nudge(weights, name=name):
            values = weights[name][()]
            values.flat[-1] = np.nextafter(values.flat[-1], np.float32(9))
            weights[name][()] = values

        change(copy, nudge)
        with pytest.raises(ParityError, match="number for number"):
            check_written(backbone.keras, head, copy)


def test_a_missing_array_and_one_too_many(backbone, head, written, tmp_path):
    copy = tmp_path / "copy.keras"
    shutil.copy(written, copy)
    change(copy, lambda weights: weights.__delitem__(arrays_of(weights)[3]))
    with pytest.raises(ParityError):
        check_written(backbone.keras, head, copy)
    shutil.copy(written, copy)
    change(copy, lambda weights: weights.create_dataset("layers/dense_99/vars/0", data=[1.0]))
    with pytest.raises(ParityError):
        check_written(backbone.keras, head, copy)


def test_another_head(backbone, head, written):
    width = backbone.layout.width
    for other in (linear(width, seed=1), linear(width, classes=4), curved(width, seed=1)):
        with pytest.raises(ParityError):
            check_written(backbone.keras, other, written)


def judge(ours, theirs, temperature=1.0):
    return _judge(np.array(ours, np.float32), np.array(theirs, np.float32), temperature, "so")


def test_the_largest_difference_by_hand():
    # Probabilities 1/2 and 1/2 against 3/4 and 1/4; the other image is alike.
    with pytest.raises(ParityError, match=r"differ by 0\.25 on 2 images"):
        judge([[0, 0], [5, 5]], [[np.log(3), 0], [5, 5]])
    # Near 1/2 a difference d of logits is d / 4 in probability: 4 tolerances are too many only
    # by rounding, and dividing by a temperature of 2 halves it.
    most = 4 * AGREEMENT_TOLERANCE
    assert judge([[0, 0]], [[0.98 * most, 0]]).largest_difference < AGREEMENT_TOLERANCE
    with pytest.raises(ParityError):
        judge([[0, 0]], [[1.02 * most, 0]])
    assert judge([[0, 0]], [[1.9 * most, 0]], 2.0).largest_difference < AGREEMENT_TOLERANCE
    with pytest.raises(ParityError):
        judge([[0, 0]], [[2.1 * most, 0]], 2.0)


def test_what_is_added_to_all_classes_means_nothing():
    agreement = judge([[1, 2, 3]], [[11, 12, 13]])
    assert (agreement.images, agreement.keras, agreement.tolerance) == (1, "so", 1e-4)
    assert agreement.largest_difference < 1e-6


@pytest.mark.parametrize("theirs", [[[np.nan, 0]], [[np.inf, 0]], [[0, 0, 0]], [[0, 0], [0, 0]]])
def test_what_cannot_be_compared_does_not_agree(theirs):
    with pytest.raises(ParityError):
        judge([[0, 0]], theirs)
    with pytest.raises(ParityError):
        judge(theirs, [[0, 0]])


def test_few_images_serve_several_parts():
    # c is in all three, b in two; a and e are needed only because parts have no more.
    parts = [["a", "b", "c"], ["b", "c", "d"], ["c", "e"]]
    assert for_all(parts, 1) == ["c"]
    assert for_all(parts, 2) == ["c", "b", "e"]
    assert for_all(parts, 9) == ["c", "b", "a", "d", "e"]
    # The first part's come first, also where others are in more parts.
    assert for_all([["x", "y"], ["z"], ["z"]], 1) == ["x", "z"]
    assert for_all([[], ["a"]], 1) == ["a"] and for_all([[]], 5) == []
