"""Affine warps: the pixels of Keras and SciPy for every fill mode, order, type, layout and size.

Tolerances, of 255: for linear interpolation 0.05 (mean 0.002) with float32, computed by OpenCV, and
1 with integers, where halves may be rounded differently; nearest and splines are exact.
"""

from __future__ import annotations

import sys

import numpy as np
import pytest
import scipy
from hypothesis import example, given
from hypothesis import strategies as st
from packaging.version import Version
from side_by_side import KERAS, OURS, examples, random_images, run_both

from kindsight.errors import MissingExtraError
from kindsight.preprocessing import _affine
from kindsight.preprocessing._affine import MODES, fold

FLOAT_MOST = 0.05
FLOAT_MEAN = 0.002
# Before 1.16, SciPy added the terms of a coordinate in another order, which affects pixels exactly
# on an edge.
SAME_SUMS = Version(scipy.__version__) >= Version("1.16")
sides = st.one_of(st.integers(1, 4), st.integers(5, 40))
transforms = st.fixed_dictionaries(
    {},
    optional={
        "theta": st.one_of(st.floats(-180, 180), st.sampled_from([90, 180, -90])),
        "tx": st.one_of(st.floats(-50, 50), st.integers(-9, 9)),
        "ty": st.one_of(st.floats(-50, 50), st.integers(-9, 9)),
        "shear": st.floats(-60, 60),
        "zx": st.floats(0.2, 3),
        "zy": st.floats(0.2, 3),
    },
)
layouts = st.sampled_from([(0, 1, 2), (1, 2, 0), (1, 0, 2), (2, 1, 0)])


def apart(keras: np.ndarray, ours: np.ndarray) -> np.ndarray:
    assert (keras.shape, keras.dtype) == (ours.shape, ours.dtype)
    return np.abs(keras.astype(np.float64) - ours.astype(np.float64))


def image(seed: int, height: int, width: int, channels: int, dtype: str) -> np.ndarray:
    return random_images(np.random.RandomState(seed), 2, height, width, channels, dtype)[seed % 2]


@examples(120)
@given(
    transforms,
    sides,
    sides,
    st.sampled_from([1, 3, 4, 2]),
    st.sampled_from(["float32", "uint8", "float64", "int16"]),
    st.sampled_from(MODES),
    st.sampled_from([0, 1]),
    st.floats(-20, 300),
    layouts,
    st.integers(0, 1000),
)
@example({"theta": 90}, 9, 15, 3, "float32", "constant", 1, 0.0, (0, 1, 2), 0)
@example({"tx": 0.5}, 1, 1, 3, "float32", "wrap", 1, 0.0, (0, 1, 2), 0)
def test_pixels(transform, height, width, channels, dtype, mode, order, cval, layout, seed):
    x = image(seed, height, width, channels, dtype)
    row, column, channel = layout
    if channel == 0:
        x = np.ascontiguousarray(x.transpose(2, 0, 1))
    options = {
        **transform,
        "row_axis": row,
        "col_axis": column,
        "channel_axis": channel,
        "fill_mode": mode,
        "cval": cval if dtype.startswith("float") else round(cval),
        "order": order,
    }
    before = x.copy()
    keras, ours = (module.apply_affine_transform(x, **options) for module in (KERAS, OURS))
    assert np.array_equal(x, before)
    difference = apart(keras, ours)
    if not SAME_SUMS and (order == 0 or mode in ("wrap", "constant")):
        return
    most = {"float32": FLOAT_MOST, "float64": 1e-10}.get(dtype, 1) if order else 0
    assert difference.max() <= most


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_mean_difference(mode, channels):
    rng = np.random.RandomState(3)
    for dtype, mean in (("float32", FLOAT_MEAN), ("uint8", 0.01)):
        differences = []
        for x in random_images(rng, 8, 150, 150, channels, dtype):
            theta, tx, ty, shear = rng.uniform(-1, 1, 4) * (40, 30, 30, 20)
            zx, zy = rng.uniform(0.8, 1.2, 2)
            options = (theta, tx, ty, shear, zx, zy, 0, 1, 2, mode, 7.0, 1)
            differences.append(
                apart(*(m.apply_affine_transform(x, *options) for m in (KERAS, OURS))).mean()
            )
        assert np.mean(differences) <= mean


@examples(30)
@given(
    transforms,
    sides,
    sides,
    st.sampled_from([2, 3, 4, 5]),
    st.sampled_from([*MODES, "mirror", "grid-wrap", "grid-constant"]),
    st.sampled_from(["float32", "uint8"]),
)
def test_splines_and_further_modes_of_scipy(transform, height, width, order, mode, dtype):
    x = image(1, height, width, 3, dtype)
    options = {**transform, "row_axis": 0, "col_axis": 1, "channel_axis": 2, "cval": 9.0}
    keras, ours = (
        module.apply_affine_transform(x, **options, fill_mode=mode, order=order)
        for module in (KERAS, OURS)
    )
    assert apart(keras, ours).max() == 0


def test_splines_without_scipy_name_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "scipy.ndimage", None)
    x = np.zeros((4, 4, 3), np.float32)
    with pytest.raises(MissingExtraError, match=r"kindsight\[scipy\]"):
        OURS.apply_affine_transform(x, 10, order=3, row_axis=0, col_axis=1, channel_axis=2)
    turned = OURS.apply_affine_transform(x, 10, row_axis=0, col_axis=1, channel_axis=2)
    assert turned.shape == x.shape


def test_identity_returns_the_image_itself():
    x = np.zeros((3, 4, 4))
    assert OURS.apply_affine_transform(x) is x


def test_shift_by_hand():
    # Shifted by half a pixel, each pixel is the mean of itself and its neighbour to the right.
    x = np.array([[0, 10, 30, 50]], np.float32)[..., None]
    shifted = OURS.apply_affine_transform(x, tx=0.5, row_axis=0, col_axis=1, channel_axis=2)
    assert shifted[0, :, 0].tolist() == [5, 20, 40, 50]


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        # Source pixels of the coordinates -3 to 6; wrap has a period of 3, not 4.
        ("nearest", [0, 0, 0, 0, 1, 2, 3, 3, 3, 3]),
        ("reflect", [2, 1, 0, 0, 1, 2, 3, 3, 2, 1]),
        ("wrap", [3, 1, 2, 0, 1, 2, 3, 1, 2, 0]),
    ],
)
def test_coordinates_outside_the_image(mode, expected):
    coordinates = fold(np.arange(-3.0, 7.0), 4, mode)
    assert np.clip(np.floor(coordinates + 0.5), 0, 3).tolist() == expected


def test_exactness_of_opencv_is_detected(monkeypatch):
    assert _affine.opencv_is_exact() is (Version(_affine.cv2.__version__) >= Version("5"))
    original = _affine.cv2.warpAffine

    def coarse(image, matrix, *arguments, **options):
        return original(image, np.round(matrix * 32) / 32, *arguments, **options)

    monkeypatch.setattr(_affine.cv2, "warpAffine", coarse)
    assert not _affine.opencv_is_exact.__wrapped__()


@pytest.mark.parametrize("mode", MODES)
def test_older_opencv_gives_the_same_pixels(mode, monkeypatch):
    monkeypatch.setattr(_affine, "opencv_is_exact", lambda: False)
    for dtype in ("float32", "uint8"):
        x = image(2, 21, 34, 3, dtype)
        options = (33.3, 4.5, -7.25, 12, 0.8, 1.3, 0, 1, 2, mode, 5.0, 1)
        keras, ours = (module.apply_affine_transform(x, *options) for module in (KERAS, OURS))
        assert apart(keras, ours).max() == 0


@examples(25)
@given(st.integers(0, 2**31), st.sampled_from(MODES), st.sampled_from([0, 1]))
def test_random_functions(seed, mode, order):
    x = image(seed % 50, 12, 17, 3, "float32").transpose(2, 0, 1)
    more = {"fill_mode": mode, "cval": 3.0, "interpolation_order": order}

    def run(module):
        return [
            module.random_rotation(x, 30, **more),
            module.random_shift(x, 0.2, 0.4, **more),
            module.random_shear(x, 20, **more),
            module.random_zoom(x, (0.5, 1.5), **more),
            module.random_rotation(x.transpose(1, 2, 0), 9, 0, 1, 2, mode, 1.0, order),
        ]

    for one, other in zip(*run_both(run, seed), strict=True):
        assert apart(one, other).max() <= FLOAT_MOST


def test_flip_axis_is_a_view():
    x = np.arange(24).reshape(2, 3, 4)
    for axis in (0, 1, 2):
        flipped = OURS.flip_axis(x, axis)
        assert np.array_equal(flipped, KERAS.flip_axis(x, axis))
        assert np.shares_memory(flipped, x)
