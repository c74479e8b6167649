"""Blur, noise, JPEG and erasing."""

from __future__ import annotations

import io
import math

import numpy as np
import pytest
from PIL import Image
from policies import noise, transforms

from kindsight.augment import Augment, augment_images
from kindsight.augment.apply import apply_transforms
from kindsight.augment.transforms import NOISE_VALUES, noise_table


def changed(image: np.ndarray, **values) -> np.ndarray:
    return apply_transforms(image[None], transforms(1, **values), Augment(), 1)[0]


def flat(value: int, height: int = 60, width: int = 80) -> np.ndarray:
    return np.full((height, width, 3), value, np.uint8)


def test_blur_is_a_gaussian_of_that_spread():
    image = flat(0, 1, 41)
    image[0, 20] = 255
    got = changed(image, blur=2.0)[0, :, 0]
    weights = np.array([math.exp(-(x**2) / 8) for x in range(-20, 21)])
    # OpenCV rounds the weights to 1/256.
    assert np.abs(got - 255 * weights / weights.sum()).max() < 1.5
    assert np.array_equal(changed(flat(77), blur=3.0), flat(77))


@pytest.mark.parametrize("factor", [0.1, 1.5])
def test_sharpness_mixes_with_the_smoothed_image(factor):
    image = flat(90, 5, 5)
    image[2, 2] = 130
    # The pixel keeps 5/13 of its 40 more when smoothed, its neighbours get 1/13 each.
    got = changed(image, sharpness=factor)[..., 1]
    assert abs(got[2, 2] - (90 + 40 * (5 + 8 * factor) / 13)) <= 1
    assert abs(got[1, 3] - (90 + 40 * (1 - factor) / 13)) <= 1
    assert got[0, 0] == 90


def test_noise_has_the_spread_and_no_bias():
    image = flat(128, 120, 120)
    values = changed(image, noise=10.0, noise_offset=0.3) - 128.0
    # 43,200 numbers: standard errors 0.048 of the mean, 0.034 of the spread; rounding adds 1/12.
    assert abs(values.mean()) < 0.2
    assert abs(values.std() - math.sqrt(100 + 1 / 12)) < 0.15
    assert np.abs(np.corrcoef(values.reshape(-1, 3).T) - np.eye(3)).max() < 0.04
    elsewhere = changed(image, noise=10.0, noise_offset=0.8) - 128.0
    assert abs(np.corrcoef(values.ravel(), elsewhere.ravel())[0, 1]) < 0.03


def test_noise_is_cut_off_at_black_and_white():
    assert set(np.unique(changed(flat(255), noise=5.0))) <= set(range(225, 256))
    assert (changed(flat(255), noise=5.0) == 255).mean() > 0.4


def test_the_table_of_noise_is_normal():
    table = noise_table()
    assert table.shape == (NOISE_VALUES,) and not table.flags.writeable
    assert abs(table.mean()) < 5 / math.sqrt(NOISE_VALUES)
    # Shares within 1, 2 and 3 standard deviations.
    for bound, share in ((1, 0.682689), (2, 0.954500), (3, 0.997300)):
        assert abs((np.abs(table) < bound).mean() - share) < 0.003


def test_an_image_larger_than_the_table_takes_it_from_the_start_again():
    image = flat(128, 500, 400)  # 600,000 numbers of 524,288
    got = changed(image, noise=4.0, noise_offset=0.5).ravel()
    again = got[NOISE_VALUES:]
    assert np.array_equal(got[: len(again)], again)
    assert got.std() == pytest.approx(4, abs=0.1)


@pytest.mark.parametrize("quality", [5, 50, 95])
def test_jpeg_is_that_of_pillow(quality):
    image = np.array(Image.fromarray(noise(1, 6, 8)).resize((64, 48), Image.Resampling.BICUBIC))
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=quality, subsampling="4:2:0")
    expected = np.asarray(Image.open(file), float)
    assert np.abs(changed(image, jpeg_quality=quality) - expected).mean() < 2
    loss = np.abs(expected - image).mean()
    assert np.abs(changed(image, jpeg_quality=quality) - image.astype(float)).mean() == (
        pytest.approx(loss, abs=0.5)
    )


def test_erasing_paints_a_rectangle_and_nothing_else():
    image = noise(2, 40, 50)
    got = changed(image, erased=(0.25, 0.5, 0.5, 0.2), erased_colour=(10, 20, 30))
    expected = image.copy()
    expected[10:30, 25:35] = 10, 20, 30
    assert np.array_equal(got, expected)


def test_the_smallest_rectangle_is_a_pixel_and_the_largest_ends_at_the_edge():
    got = changed(flat(0, 3, 3), erased=(0.999, 0.999, 0.001, 0.001), erased_colour=(9, 9, 9))
    assert got[..., 0].tolist() == [[0, 0, 0], [0, 0, 0], [0, 0, 9]]
    assert (changed(flat(0, 3, 3), erased=(0, 0, 1, 1), erased_colour=(9, 9, 9)) == 9).all()


def test_the_erased_area_is_the_requested_one():
    images = np.zeros((400, 50, 50, 3), np.uint8)
    policy = Augment(erasing=0.3)
    got = augment_images(images, policy, seed=0, epoch=0, index=np.arange(400))
    shares = (got != 0).any(axis=3).mean(axis=(1, 2))
    # Half of the images, 0.02 to 0.3 of each: 0.16 on average, and rounding to pixels.
    assert 160 < (shares > 0).sum() < 240
    assert shares[shares > 0].mean() == pytest.approx(0.16, abs=0.02)
    assert shares.max() < 0.32
