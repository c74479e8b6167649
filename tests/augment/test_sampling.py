"""Transforms: within their bounds, spread over them, and each setting for itself."""

from __future__ import annotations

from dataclasses import fields

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from policies import POLICIES

from kindsight.augment import Augment
from kindsight.augment.sampling import AUTO, Transforms, sample_transforms

MANY = np.arange(4000)
NAMES = [field.name for field in fields(Transforms)]


def many(**settings_) -> Transforms:
    return sample_transforms(Augment(**settings_), seed=1, epoch=2, index=MANY)


def spread_over(values: np.ndarray, low: float, high: float) -> bool:
    """Whether values are even between two bounds: the largest gap of their distribution."""
    places = np.sort((values - low) / (high - low))
    gap = np.abs(places - (np.arange(len(places)) + 0.5) / len(places)).max()
    # Kolmogorov's bound that is passed once in a thousand.
    return places[0] >= 0 and places[-1] <= 1 and gap < 1.95 / np.sqrt(len(places))


@settings(max_examples=60)
@given(POLICIES, st.integers(), st.lists(st.integers(0, 10**6), max_size=6), st.integers(0, 3))
def test_a_row_is_the_same_alone_and_in_any_company(policy, seed, index, copy):
    together = sample_transforms(
        policy, seed=seed, epoch=3, index=np.array(index, np.int64), copy=copy
    )
    assert len(together) == len(index)
    for row, one in enumerate(index):
        alone = sample_transforms(policy, seed=seed, epoch=3, index=np.array([one]), copy=copy)
        for name in NAMES:
            assert np.array_equal(getattr(alone, name)[0], getattr(together, name)[row]), name


@pytest.mark.parametrize(
    ("setting", "column", "bounds"),
    [
        ({"rotation": 40}, lambda d: d.rotation, (-40, 40)),
        ({"shift": (0.1, 0.3)}, lambda d: d.shift[:, 0], (-0.1, 0.1)),
        ({"shift": (0.1, 0.3)}, lambda d: d.shift[:, 1], (-0.3, 0.3)),
        ({"scale": (0.5, 2)}, lambda d: np.log2(d.size[:, 0]), (-1, 1)),
        ({"aspect": 2}, lambda d: np.log2(d.size[:, 1] / d.size[:, 0]), (-1, 1)),
        ({"shear": 15}, lambda d: d.shear[:, 1], (-15, 15)),
        ({"perspective": 0.1}, lambda d: d.corners[:, 2, 1], (-0.1, 0.1)),
        ({"brightness": (0.4, 1.2)}, lambda d: d.brightness, (0.4, 1.2)),
        ({"contrast": 0.5}, lambda d: d.contrast, (0.5, 1.5)),
        ({"saturation": (0, 3)}, lambda d: d.saturation, (0, 3)),
        ({"hue": 30}, lambda d: d.hue, (-30, 30)),
        ({"blur": 2}, lambda d: d.blur[d.blur > 0], (0, 2)),
        ({"noise": 9}, lambda d: d.noise[d.noise > 0], (0, 9)),
        ({"erasing": 0.3}, lambda d: (d.erased[:, 2] * d.erased[:, 3])[d.erased[:, 2] > 0],
         (0.02, 0.3)),
    ],
)  # fmt: skip
def test_draws_are_even_between_their_bounds(setting, column, bounds):
    assert spread_over(column(many(**setting)), *bounds)


def test_one_scale_is_drawn_for_both_sides_and_the_aspect_keeps_the_area():
    scaled = many(scale=(0.5, 2)).size
    assert np.array_equal(scaled[:, 0], scaled[:, 1])
    assert many(aspect=3).size.prod(axis=1) == pytest.approx(np.ones(len(MANY)))


@pytest.mark.parametrize(
    ("setting", "column"),
    [
        ({"horizontal_flip": True}, lambda d: d.flip[:, 1]),
        ({"vertical_flip": True}, lambda d: d.flip[:, 0]),
        ({"blur": 1}, lambda d: d.blur > 0),
        ({"noise": 1}, lambda d: d.noise > 0),
        ({"jpeg_quality": 30}, lambda d: d.jpeg_quality > 0),
        ({"erasing": 0.2}, lambda d: d.erased[:, 2] > 0),
    ],
)
def test_what_falls_on_half_of_the_images(setting, column):
    # 4,000 images: 4 standard deviations are 126.
    assert abs(int(column(many(**setting)).sum()) - 2000) < 126


def test_qualities_are_whole_numbers_up_to_95():
    qualities = many(jpeg_quality=90).jpeg_quality
    found, counts = np.unique(qualities[qualities > 0], return_counts=True)
    assert found.tolist() == [90, 91, 92, 93, 94, 95]
    assert counts.min() > 0.8 * counts.mean()
    assert set(many(jpeg_quality=98).jpeg_quality.tolist()) == {0, 98}


@pytest.mark.parametrize("erasing", [0.001, 0.1, 0.5, 0.8])
def test_what_is_erased_lies_within_the_image_and_has_the_area(erasing):
    top, left, height, width = many(erasing=erasing).erased.T
    there = height > 0
    assert (top >= 0).all() and (left >= 0).all()
    assert (top + height).max() <= 1 + 1e-12 and (left + width).max() <= 1 + 1e-12
    area, shape = (height * width)[there], (height[there] / width[there])
    assert area.max() <= erasing + 1e-12 and area.min() >= min(erasing, 0.02) - 1e-12
    assert shape.min() >= 0.3 - 1e-9 and shape.max() <= 1 / 0.3 + 1e-9
    assert 0.4 < (shape > 1).mean() < 0.6


def test_a_setting_draws_the_same_whatever_else_is_set():
    alone, among = many(rotation=10), many(rotation=10, noise=9, shift=0.2, auto=False, erasing=0.4)
    assert np.array_equal(alone.rotation, among.rotation)
    assert np.array_equal(many(hue=10).hue, 2 * many(hue=5, mixup=1).hue)


def test_epochs_copies_and_seeds_draw_anew():
    policy = Augment(rotation=10)
    one = sample_transforms(policy, seed=1, epoch=2, index=MANY).rotation
    for other in (
        sample_transforms(policy, seed=2, epoch=2, index=MANY),
        sample_transforms(policy, seed=1, epoch=3, index=MANY),
        sample_transforms(policy, seed=1, epoch=2, index=MANY, copy=1),
        sample_transforms(policy, seed=1, epoch=2, index=MANY, copy=2),
    ):
        assert abs(np.corrcoef(one, other.rotation)[0, 1]) < 0.08
    assert np.array_equal(
        one, sample_transforms(policy, seed=1, epoch=2, index=MANY, copy=0).rotation
    )


def test_auto_chooses_one_operation_and_leaves_all_else():
    sampled, nothing = many(auto=True), many()
    counts = np.bincount(sampled.auto, minlength=len(AUTO))
    # 4,000 in 14: chi-square of 13 degrees is above 34.5 once in a thousand.
    assert len(counts) == len(AUTO) == 14
    assert ((counts - 4000 / 14) ** 2 / (4000 / 14)).sum() < 34.5
    changed = {
        "rotation": sampled.rotation != 0,
        "shear": sampled.shear[:, 1] != 0,
        "shear-level": sampled.shear[:, 0] != 0,
        "shift-across": sampled.shift[:, 1] != 0,
        "shift-down": sampled.shift[:, 0] != 0,
        "brightness": sampled.brightness != 1,
        "contrast": sampled.contrast != 1,
        "saturation": sampled.saturation != 1,
        "sharpness": sampled.sharpness != 1,
        "posterize": sampled.posterize != 8,
        "solarize": sampled.solarize != 256,
        "autocontrast": sampled.autocontrast,
        "equalize": sampled.equalize,
    }
    for name, where in changed.items():
        others = sampled.auto != AUTO.index(name)
        assert not where[others].any(), name
        # The weakest posterize and solarize do nothing.
        assert where[~others].mean() > 0.8, name
    assert not (sampled.blur.any() or sampled.noise.any() or sampled.erased[:, 2].any())
    assert np.array_equal(sampled.size, nothing.size)


@pytest.mark.parametrize(
    ("name", "column", "bounds"),
    [
        ("rotation", lambda d: d.rotation, (-30, 30)),
        ("shear", lambda d: d.shear[:, 1], (-17, 17)),
        ("shift-down", lambda d: d.shift[:, 0], (-0.3, 0.3)),
        ("contrast", lambda d: d.contrast, (0.1, 1.9)),
        ("sharpness", lambda d: d.sharpness, (0.1, 1.9)),
    ],
)
def test_the_strength_of_auto_is_even(name, column, bounds):
    sampled = many(auto=True)
    assert spread_over(column(sampled)[sampled.auto == AUTO.index(name)], *bounds)


def test_the_strength_of_steps():
    sampled = many(auto=True)
    assert set(sampled.posterize.tolist()) == {4, 5, 6, 7, 8}
    assert 0 <= sampled.solarize.min() < 30
