"""Geometry, against NumPy's own moves and an implementation of its own."""

from __future__ import annotations

import math

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from policies import noise, transforms

from kindsight.augment import Augment, augment_images
from kindsight.augment.apply import apply_transforms
from kindsight.augment.sampling import Transforms, sample_transforms
from kindsight.augment.transforms import inverse_matrices

# Before 5.0, OpenCV rounds places to 1/32 of a pixel: 255 / 64 of an error in each direction.
OFF = 1.0 if int(cv2.__version__.split(".")[0]) >= 5 else 9.0
FILLS = ["nearest", "reflect", "wrap", "constant"]
NUMPY_FILLS = {"nearest": "edge", "reflect": "symmetric", "wrap": "wrap"}


def warped(image: np.ndarray, policy: Augment | None = None, **values) -> np.ndarray:
    return apply_transforms(image[None], transforms(1, **values), policy or Augment(), 1)[0]


@pytest.mark.parametrize("size", [(1, 1), (1, 4), (5, 4), (32, 33)])
@pytest.mark.parametrize("flip", [(0, 0), (0, 1), (1, 0), (1, 1)])
@pytest.mark.parametrize("turned", [0, 360])
def test_flips_are_exact_alone_and_as_part_of_a_warp(size, flip, turned):
    image = noise(1, *size)
    steps = -1 if flip[0] else 1, -1 if flip[1] else 1
    expected = image[:: steps[0], :: steps[1]]
    # A whole turn is no turn, and goes through the warp.
    assert np.array_equal(warped(image, flip=flip, rotation=turned), expected)


@pytest.mark.parametrize("side", [1, 2, 7, 40])
@pytest.mark.parametrize("quarters", [-1, 1, 2, 3])
def test_quarter_turns_are_exact_and_counter_clockwise(side, quarters):
    image = noise(2, side, side)
    assert np.array_equal(warped(image, rotation=90 * quarters), np.rot90(image, quarters))


@pytest.mark.parametrize("fill", FILLS)
@pytest.mark.parametrize(("down", "across"), [(0, 3), (2, 0), (-2, 5), (-4, -8), (0, 0)])
def test_whole_shifts_are_exact(fill, down, across):
    image = noise(3, 8, 16)
    policy = Augment(fill=fill, fill_value=(9, 99, 199))
    got = warped(image, policy, shift=(down / 8, across / 16))
    if fill == "constant":
        wide = np.empty((24, 48, 3), np.uint8)
        wide[:] = 9, 99, 199
        wide[8:16, 16:32] = image
    else:
        wide = np.pad(image, ((8, 8), (16, 16), (0, 0)), NUMPY_FILLS[fill])
    assert np.array_equal(got, wide[8 - down : 16 - down, 16 - across : 32 - across])


def test_twice_the_size_shows_the_middle_with_three_parts_of_the_nearer_pixel():
    image = np.array([[0, 100, 200, 40]], np.uint8)[..., None].repeat(3, 2)
    # Middles of pixels fall at 0.75, 1.25, 1.75, 2.25 of the original.
    assert warped(image, size=(1, 2))[0, :, 0].tolist() == [75, 125, 175, 160]
    assert warped(image, size=(2, 1)).tolist() == image.tolist()


def test_what_stood_upright_leans_to_the_right_and_level_lines_rise_to_the_right():
    image = np.zeros((41, 41, 3), np.uint8)
    image[:, 20] = 255
    leaning = warped(image, shear=(0, 45))
    assert [leaning[row, :, 0].argmax() for row in (5, 20, 35)] == [35, 20, 5]
    rising = warped(image.swapaxes(0, 1), shear=(45, 0))
    assert [rising[:, column, 0].argmax() for column in (5, 20, 35)] == [35, 20, 5]


def test_the_corners_show_what_lies_a_share_of_the_sides_away():
    corners = [[0.1, 0.05], [-0.1, 0.2], [0.05, 0.0], [0.15, -0.2]]
    height, width = 50, 80
    (matrix,) = inverse_matrices(transforms(1, corners=[corners]), (height, width))
    edges = [(0, 0), (0, 1), (1, 1), (1, 0)]
    for (down, across), (more_down, more_across) in zip(edges, corners, strict=True):
        x, y, w = matrix @ (across * width - 0.5, down * height - 0.5, 1)
        assert (x / w + 0.5) / width == pytest.approx(across + more_across)
        assert (y / w + 0.5) / height == pytest.approx(down + more_down)
    straight = [[[0.1, 0.1]] * 4]
    (moved,) = inverse_matrices(transforms(1, corners=straight), (height, width))
    assert moved == pytest.approx(np.array([[1, 0, 8], [0, 1, 5], [0, 0, 1.0]]))


# An implementation of its own: forward matrices, inverted; four pixels, weighed -------------------


def forward(sampled: Transforms, i: int, height: int, width: int) -> np.ndarray:
    """Flip, size, shear, rotation, shift, perspective, as the documentation lists them."""
    angle = math.radians(sampled.rotation[i])
    rise, lean = (math.tan(math.radians(degrees)) for degrees in sampled.shear[i])
    down, across = sampled.shift[i]
    steps = [
        np.diag([-1.0 if sampled.flip[i, 1] else 1.0, -1.0 if sampled.flip[i, 0] else 1.0, 1.0]),
        np.diag([sampled.size[i, 1], sampled.size[i, 0], 1.0]),
        np.array([[1, 0, 0], [-rise, 1, 0], [0, 0, 1.0]]),
        np.array([[1, -lean, 0], [0, 1, 0], [0, 0, 1.0]]),
        np.array(
            [
                [math.cos(angle), math.sin(angle), 0],
                [-math.sin(angle), math.cos(angle), 0],
                [0, 0, 1],
            ]
        ),
        np.array([[1, 0, across * width], [0, 1, down * height], [0, 0, 1.0]]),
    ]
    middle = np.array([[1, 0, (width - 1) / 2], [0, 1, (height - 1) / 2], [0, 0, 1.0]])
    total = np.linalg.inv(middle)
    for step in steps:
        total = step @ total
    total = middle @ total
    ends = np.array([[-0.5, -0.5], [width - 0.5, -0.5], [width - 0.5, height - 0.5],
                     [-0.5, height - 0.5]])  # fmt: skip
    seen = ends + sampled.corners[i][:, ::-1] * (width, height)
    fold = cv2.getPerspectiveTransform(seen.astype(np.float32), ends.astype(np.float32))
    return fold @ total


def sampled(image: np.ndarray, matrix: np.ndarray, fill: str, value: int) -> np.ndarray:
    """Look up each pixel of the result at the place that the inverse of `matrix` says."""
    height, width = image.shape[:2]
    if fill == "constant":
        wide = np.full((height + 2, width + 2, 3), value, np.uint8)
        wide[1:-1, 1:-1] = image
    y, x = np.mgrid[0:height, 0:width].reshape(2, -1).astype(float)
    places = np.linalg.inv(matrix) @ np.stack([x, y, np.ones_like(x)])
    x, y = places[:2] / places[2]
    left, top = np.floor(x).astype(int), np.floor(y).astype(int)
    result = np.zeros((height * width, 3))
    for rows, row_weight in ((top, 1 - (y - top)), (top + 1, y - top)):
        for columns, weight in ((left, 1 - (x - left)), (left + 1, x - left)):
            if fill == "constant":
                pixels = wide[(rows + 1).clip(0, height + 1), (columns + 1).clip(0, width + 1)]
            else:
                pixels = image[folded(rows, height, fill), folded(columns, width, fill)]
            result += (row_weight * weight)[:, None] * pixels
    return result.reshape(height, width, 3)


def folded(places: np.ndarray, count: int, fill: str) -> np.ndarray:
    if fill == "nearest":
        return places.clip(0, count - 1)
    if fill == "wrap":
        return places % count
    places = places % (2 * count)
    return np.where(places < count, places, 2 * count - 1 - places)


@pytest.mark.parametrize("perspective", [0, 0.2])
@pytest.mark.parametrize("fill", FILLS)
@pytest.mark.parametrize("size", [(24, 24), (9, 31), (1, 1), (1, 6)])
def test_any_warp_equals_an_independent_implementation(size, fill, perspective):
    policy = Augment(
        rotation=180,
        shift=(0.5, 0.3),
        scale=(0.5, 2),
        aspect=1.5,
        shear=30,
        horizontal_flip=True,
        vertical_flip=True,
        perspective=perspective,
        fill=fill,
        fill_value=130,
    )
    images = noise(4, 25, *size)
    changes = sample_transforms(policy, seed=0, epoch=1, index=np.arange(25))
    got = apply_transforms(images, changes, policy, 1)
    expected = [
        sampled(image, forward(changes, i, *size), fill, 130) for i, image in enumerate(images)
    ]
    difference = np.abs(got - expected)
    # Rounding alone makes 0.25 on average.
    assert difference.max() <= OFF and difference.mean() <= 0.35 * OFF


geometry = st.builds(
    Augment,
    rotation=st.floats(0, 180),
    shift=st.floats(0, 1),
    scale=st.floats(0, 0.9),
    aspect=st.floats(1, 4),
    shear=st.floats(0, 75),
    horizontal_flip=st.booleans(),
    vertical_flip=st.booleans(),
    perspective=st.floats(0, 0.2),
    fill=st.sampled_from(["nearest", "reflect", "wrap"]),
)


@settings(max_examples=60)
@given(
    geometry,
    st.tuples(*[st.integers(0, 255)] * 3),
    st.tuples(st.integers(1, 20), st.integers(1, 20)),
    st.integers(0, 2**31),
)
def test_an_image_of_one_colour_stays_so(policy, colour, size, seed):
    image = np.broadcast_to(np.array(colour, np.uint8), (3, *size, 3))
    got = augment_images(image, policy, seed=seed, epoch=0, index=np.arange(3))
    assert np.array_equal(got, image)
