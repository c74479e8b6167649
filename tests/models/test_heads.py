"""Heads as NumPy, as a chain of layers and as arrays on disk."""

import itertools

import numpy as np
import pytest

from kindsight.errors import WeightsError
from kindsight.models.heads import EnsembleHead, Head, LinearHead, RBFHead


def linear(features=6, classes=3, seed=0):
    random = np.random.default_rng(seed)
    return LinearHead(
        kernel=random.normal(size=(features, classes)), bias=random.normal(size=classes)
    )


def rbf(features=6, classes=3, joined=True, seed=0):
    random = np.random.default_rng(seed)
    return RBFHead(
        project_kernel=random.normal(size=(features, 4)),
        project_bias=random.normal(size=4),
        landmarks=random.normal(size=(5, 4)),
        gamma=0.2,
        kernel=random.normal(size=(5, classes)),
        bias=random.normal(size=classes),
        linear_kernel=random.normal(size=(4, classes)) if joined else None,
    )


def ensemble(*heads):
    return EnsembleHead(heads)


HEADS = [
    linear(), rbf(), rbf(joined=False), linear(classes=50), rbf(classes=2),
    ensemble(linear(2), linear(4, seed=1)), ensemble(rbf(2, joined=False), linear(4)),
    ensemble(linear(4), rbf(2)), ensemble(rbf(3), rbf(3, seed=1)),
    ensemble(rbf(1, joined=False), linear(2), rbf(3, joined=False, seed=1)),
    ensemble(rbf(1), rbf(2, seed=1), rbf(3, seed=2)),
]  # fmt: skip


def run_layers(head, features):
    """Compute the chain of layers in float64, as HeadLayer documents it."""
    values = {"features": np.asarray(features, np.float64)}
    for step in head.layers():
        inputs = [values[name] for name in step.inputs]
        if step.kind == "dense":
            result = inputs[0] @ step.kernel.astype(np.float64) + step.bias
            result = np.exp(result) if step.activation == "exponential" else result
        elif step.kind == "multiply":
            result = inputs[0] * inputs[1]
        else:
            result = np.concatenate(inputs, axis=1)
        assert result.shape == (len(features), step.width)
        values[step.name] = result
    return result


def test_linear_head_by_hand():
    head = LinearHead(kernel=[[1, 0], [0, 2], [3, -1]], bias=[0.5, -0.5])
    assert head.logits([[1, 2, 3], [0, 0, 0]]).tolist() == [[10.5, 0.5], [0.5, -0.5]]


def test_rbf_head_by_hand():
    # Projected, the image is at (1, 2): on the first landmark, at squared distance 5 of the second.
    arrays = {
        "project_kernel": [[1, 0], [0, 1]],
        "project_bias": [0, 1],
        "landmarks": [[1, 2], [0, 0]],
        "gamma": 0.1,
        "kernel": [[1, 0], [0, 1]],
        "bias": [0, 0],
    }
    head = RBFHead(**arrays)
    assert head.logits([[1, 1]])[0] == pytest.approx([1.0, np.exp(-0.5)], rel=1e-6)
    joined = RBFHead(**arrays, linear_kernel=[[10, 0], [0, 10]])
    assert joined.logits([[1, 1]])[0] == pytest.approx([11.0, 20 + np.exp(-0.5)], rel=1e-6)


@pytest.mark.parametrize("head", HEADS)
def test_layers_give_the_logits(head):
    features = np.random.default_rng(1).normal(size=(9, head.features))
    assert head.layers()[-1].name == "logits"
    got = head.logits(features)
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, run_layers(head, features), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("head", HEADS)
def test_each_layer_takes_the_one_before(head):
    # The order of layers in a Keras file is that of the graph's depth: a chain has one only.
    layers = head.layers()
    assert all(before.name in after.inputs for before, after in itertools.pairwise(layers))


@pytest.mark.parametrize("head", HEADS)
def test_arrays_round_trip(head, tmp_path):
    np.savez(tmp_path / "head.npz", **head.to_arrays())
    with np.load(tmp_path / "head.npz", allow_pickle=False) as arrays:
        back = Head.from_arrays(dict(arrays))
    assert type(back) is type(head)
    features = np.ones((2, head.features))
    assert (back.logits(features) == head.logits(features)).all()


@pytest.mark.parametrize("head", HEADS)
def test_scaled_head_scales_the_logits(head):
    features = np.random.default_rng(1).normal(size=(4, head.features))
    wanted = 0.3 * head.logits(features)
    np.testing.assert_allclose(head.scaled(0.3).logits(features), wanted, rtol=1e-4, atol=1e-5)


def test_ensemble_sums_logits_of_separate_features():
    first, second = linear(2), rbf(4)
    features = np.random.default_rng(1).normal(size=(5, 6))
    wanted = first.logits(features[:, :2]) + second.logits(features[:, 2:])
    np.testing.assert_allclose(ensemble(first, second).logits(features), wanted, rtol=1e-5)


@pytest.mark.parametrize("heads", [(), (linear(),), (linear(), linear(classes=2)), (linear(), 3)])
def test_invalid_ensembles_are_rejected(heads):
    with pytest.raises(WeightsError, match="two or more heads, for the same classes"):
        EnsembleHead(heads)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"1/kernel": None}, "must have the arrays"),
        ({"1/kind": "odd"}, "of kind"),
        ({"x/kind": "linear"}, "numbered from 0 on"),
        ({"1/kind": "ensemble"}, "must not contain another"),
        ({f"{number}/kind": "linear" for number in range(2, 40)}, "up to 16 heads"),
    ],
)
def test_hostile_arrays_of_an_ensemble_are_rejected(change, message):
    arrays = ensemble(linear(2), rbf(4)).to_arrays()
    arrays |= {name: np.array(value) for name, value in change.items() if value is not None}
    for name in [name for name, value in change.items() if value is None]:
        del arrays[name]
    with pytest.raises(WeightsError, match=message):
        Head.from_arrays(arrays)


def test_many_rows_give_the_same_logits_as_few():
    head = rbf()
    features = np.random.default_rng(2).normal(size=(5000, head.features))
    np.testing.assert_allclose(head.logits(features)[4990:], head.logits(features[4990:]), 1e-5)


def test_arrays_of_the_caller_stay_writable():
    kernel = np.zeros((2, 2), np.float32)
    LinearHead(kernel=kernel, bias=np.zeros(2))
    kernel[0, 0] = 1
    assert kernel.flags.writeable


@pytest.mark.parametrize(
    "change",
    [
        {"bias": np.zeros(4)},
        {"kernel": np.zeros(6)},
        {"kernel": np.zeros((6, 0))},
        {"kernel": np.full((6, 3), np.nan)},
        {"kernel": np.full((6, 3), np.inf)},
        {"kernel": np.array([["a"]])},
        {"kernel": [[1, 2], [3]]},
        {"kind": np.array("bent")},
        {"extra": np.zeros(1)},
        {"bias": None},
    ],
)
def test_wrong_linear_arrays_are_rejected(change):
    arrays = {**linear().to_arrays(), **change}
    with pytest.raises(WeightsError, match="head"):
        Head.from_arrays({name: value for name, value in arrays.items() if value is not None})


@pytest.mark.parametrize(
    "change",
    [
        {"gamma": 0.0},
        {"gamma": -1.0},
        {"gamma": np.nan},
        {"gamma": np.ones(2)},
        {"landmarks": np.zeros((5, 3))},
        {"kernel": np.zeros((4, 3))},
        {"linear_kernel": np.zeros((4, 2))},
        {"project_bias": np.zeros(3)},
    ],
)
def test_wrong_rbf_arrays_are_rejected(change):
    with pytest.raises(WeightsError, match="A head's"):
        Head.from_arrays({**rbf().to_arrays(), **change})


def test_features_of_another_width_are_rejected():
    with pytest.raises(WeightsError, match=r"\(n, 6\)"):
        linear().logits(np.zeros((2, 5)))
