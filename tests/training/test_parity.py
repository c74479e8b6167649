"""Parity of a bundle's two networks: weights read back, logits compared, pairings recorded."""

import io
import shutil
import zipfile
from dataclasses import replace

import h5py
import numpy as np
import pytest

from kindsight.errors import ParityError
from kindsight.models.formats.assemble import write_keras, write_tflite
from kindsight.models.heads import LinearHead, RBFHead
from kindsight.training.parity import (
    MAX_TOLERANCE,
    TOLERANCE,
    check_keras_weights,
    check_tflite_weights,
    compare_logits,
    compared_rows,
    is_verified,
    record_verified,
)

WEIGHTS = "model.weights.h5"


def linear(width, classes=3, seed=0):
    random = np.random.default_rng(seed)
    return LinearHead(random.normal(size=(width, classes)), random.normal(size=classes))


def rbf(width, seed=0):
    random = np.random.default_rng(seed)
    return RBFHead(
        random.normal(size=(width, 4)),
        random.normal(size=4),
        random.normal(size=(5, 4)),
        0.3,
        random.normal(size=(5, 3)),
        random.normal(size=3),
    )


@pytest.fixture(params=[linear, rbf])
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


def test_a_written_file_holds_the_weights(backbone, head, written):
    check_keras_weights(backbone.keras, head.layers(), written)


def test_every_weight_is_compared(backbone, head, written, tmp_path):
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
        with pytest.raises(ParityError, match="does not hold the weights"):
            check_keras_weights(backbone.keras, head.layers(), copy)


def test_a_missing_array_and_one_too_many(backbone, head, written, tmp_path):
    copy = tmp_path / "copy.keras"
    shutil.copy(written, copy)
    change(copy, lambda weights: weights.__delitem__(arrays_of(weights)[3]))
    with pytest.raises(ParityError):
        check_keras_weights(backbone.keras, head.layers(), copy)
    shutil.copy(written, copy)
    change(copy, lambda weights: weights.create_dataset("layers/dense_99/vars/0", data=[1.0]))
    with pytest.raises(ParityError):
        check_keras_weights(backbone.keras, head.layers(), copy)


def test_another_head(backbone, head, written):
    width = backbone.layout.width
    for other in (linear(width, seed=1), linear(width, classes=4), rbf(width, seed=1)):
        with pytest.raises(ParityError):
            check_keras_weights(backbone.keras, other.layers(), written)


def judge(ours, theirs, temperature=1.0):
    return compare_logits(
        np.array(ours, np.float32), np.array(theirs, np.float32), temperature, "so"
    )


def test_the_largest_difference_by_hand():
    # Probabilities 1/2 and 1/2 against 3/4 and 1/4; the other image is alike.
    with pytest.raises(ParityError, match=r"differs by 0\.25 on 2 images"):
        judge([[0, 0], [5, 5]], [[np.log(3), 0], [5, 5]])
    # Near 1/2 a difference d of logits is d / 4 in probability: 4 tolerances are too many only
    # by rounding, and dividing by a temperature of 2 halves it.
    most = 4 * TOLERANCE
    assert judge([[0, 0]], [[0.98 * most, 0]]).largest_difference < TOLERANCE
    with pytest.raises(ParityError):
        judge([[0, 0]], [[1.02 * most, 0]])
    assert judge([[0, 0]], [[1.9 * most, 0]], 2.0).largest_difference < TOLERANCE
    with pytest.raises(ParityError):
        judge([[0, 0]], [[2.1 * most, 0]], 2.0)


def test_a_larger_difference_of_large_logits_has_a_note():
    # A range of 8 allows 8e-3 of a logit, 2e-3 of a probability. Near 1/2 a difference of 4e-3 of
    # a logit is 1e-3 of a probability.
    found = judge([[8, 0], [0.1, 0]], [[8, 0], [0.104, 0]])
    assert found.tolerance == pytest.approx(2e-3)
    assert found.largest_difference == pytest.approx(1e-3, rel=0.01)
    assert "differ by up to 0.001 on 2 images" in found.note and "0.002 is accepted" in found.note
    # Twice the temperature halves the range, and the difference.
    found = judge([[8, 0], [0.1, 0]], [[8, 0], [0.104, 0]], 2.0)
    assert found.tolerance == pytest.approx(1e-3)
    assert found.largest_difference == pytest.approx(5e-4, rel=0.01)
    assert not judge([[8, 0]], [[8.001, 0]]).note
    with pytest.raises(ParityError, match=r"0\.002 is accepted, and 0 labels differ"):
        judge([[8, 0], [0.1, 0]], [[8, 0], [0.109, 0]])
    # However large the logits are.
    assert judge([[1e6, 0], [0.1, 0]], [[1e6, 0], [0.13, 0]]).tolerance == MAX_TOLERANCE
    with pytest.raises(ParityError, match=r"0\.01 is accepted"):
        judge([[1e6, 0], [0.1, 0]], [[1e6, 0], [0.15, 0]])


def test_another_label_is_refused():
    with pytest.raises(ParityError, match="and 1 labels differ"):
        judge([[8, 0], [0.001, 0]], [[8, 0], [-0.001, 0]])
    # A tie within what is usual is none.
    assert not judge([[8, 0], [1e-5, 0]], [[8, 0], [-1e-5, 0]]).note


def test_a_constant_added_to_all_logits_changes_nothing():
    agreement = judge([[1, 2, 3]], [[11, 12, 13]])
    assert (agreement.images, agreement.keras, agreement.tolerance) == (1, "so", 5e-4)
    assert agreement.largest_difference < 1e-6


@pytest.mark.parametrize("theirs", [[[np.nan, 0]], [[np.inf, 0]], [[0, 0, 0]], [[0, 0], [0, 0]]])
def test_shapes_and_finite_values_are_required(theirs):
    with pytest.raises(ParityError):
        judge([[0, 0]], theirs)
    with pytest.raises(ParityError):
        judge(theirs, [[0, 0]])


def test_distinct_images_are_compared_in_the_order_of_their_digests():
    rows = np.array([4, 2, 0, 3])
    digests = ["d", "x", "a", "d", "b"]
    assert compared_rows(digests, rows, "auto").tolist() == [2, 4, 0]
    many = [f"{n:03}" for n in range(100)]
    assert compared_rows(many, np.arange(100), "auto").tolist() == list(range(64))
    assert len(compared_rows(many, np.arange(100), "full")) == 100


def test_the_head_is_read_back_from_the_litert_file(backbone, head, tmp_path):
    write_tflite(backbone.tflite, head, tmp_path / "model.tflite")
    check_tflite_weights(head.layers(), tmp_path / "model.tflite")
    with pytest.raises(ParityError, match="does not hold the weights"):
        check_tflite_weights(head.scaled(1.01).layers(), tmp_path / "model.tflite")


def test_a_pairing_is_verified_once_it_is_recorded(backbone, tmp_path):
    files = replace(backbone, tflite=tmp_path / "copy.tflite")
    width = backbone.layout.width
    assert not is_verified(files)
    record_verified(files, linear(width))
    # Another head of the same kind, whatever its weights and classes.
    assert is_verified(files) and is_verified(files, linear(width, classes=7, seed=3))
    assert not is_verified(files, rbf(width))
    record_verified(files, rbf(width))
    assert is_verified(files, rbf(width)) and is_verified(files, linear(width))
    # Another backbone file, a damaged record.
    assert not is_verified(replace(files, digest="other"), linear(width))
    (tmp_path / "copy.parity.json").write_text("{")
    assert not is_verified(files)
