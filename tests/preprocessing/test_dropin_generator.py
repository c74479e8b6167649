"""ImageDataGenerator: settings, statistics and standardisation as in Keras."""

from __future__ import annotations

import contextlib
import inspect

import numpy as np
import pytest
from side_by_side import COURSE, KERAS, OURS, compare, random_images, run_both

SETTINGS = [
    {"featurewise_center": True},
    {"featurewise_center": True, "featurewise_std_normalization": True},
    {"featurewise_center": True, "zca_whitening": True, "zca_epsilon": 1e-3},
    {"featurewise_center": True, "featurewise_std_normalization": True, "rescale": 1 / 255},
    {"samplewise_center": True},
]


@pytest.mark.parametrize("chosen", SETTINGS)
@pytest.mark.parametrize("layout", ["channels_last", "channels_first"])
@pytest.mark.parametrize("channels", [1, 3])
def test_statistics_and_standardised_batches(chosen, layout, channels):
    x = random_images(np.random.RandomState(1), 12, 5, 4, channels, "uint8")
    x = x if layout == "channels_last" else x.transpose(0, 3, 1, 2)
    before = x.copy()

    def run(module):
        generator = module.ImageDataGenerator(**chosen, data_format=layout)
        generator.fit(x)
        statistics = [generator.mean, generator.std, generator.zca_whitening_matrix]
        batch = generator.standardize(x.astype(np.float32))
        return [*(s for s in statistics if s is not None), batch, next(generator.flow(x))]

    keras, ours = run_both(run)
    assert len(keras) == len(ours)
    for one, other in zip(keras, ours, strict=True):
        np.testing.assert_allclose(other, one, rtol=1e-5, atol=1e-5)
    assert np.array_equal(x, before)


def test_statistics_of_transformed_images():
    x = random_images(np.random.RandomState(2), 6, 8, 8, 3, "float32")

    def run(module):
        generator = module.ImageDataGenerator(
            **COURSE, featurewise_center=True, featurewise_std_normalization=True
        )
        generator.fit(x, augment=True, rounds=2, seed=4)
        return [generator.mean, generator.std]

    for one, other in zip(*run_both(run), strict=True):
        np.testing.assert_allclose(other, one, rtol=1e-5)


def test_whitened_batches():
    x = random_images(np.random.RandomState(3), 20, 4, 4, 3, "float32")

    def run(module):
        generator = module.ImageDataGenerator(
            featurewise_center=True, zca_whitening=True, zca_epsilon=1.0, horizontal_flip=True
        )
        generator.fit(x)
        iterator = generator.flow(x, batch_size=8)
        return [next(iterator) for _ in range(4)]

    assert compare(*run_both(run)).within(1e-3, 0.02)


def test_whitening_decorrelates():
    x = np.random.RandomState(4).uniform(0, 255, (400, 2, 2, 1)).astype(np.float32)
    x[:, 1] = x[:, 0] * 0.7 + x[:, 1] * 0.3
    generator = OURS.ImageDataGenerator(featurewise_center=True, zca_whitening=True)
    generator.fit(x)
    white = generator.standardize(x.copy()).reshape(400, 4)
    np.testing.assert_allclose(white.T @ white / 400, np.eye(4), atol=1e-2)


def test_dependent_settings():
    names = (
        "featurewise_center",
        "featurewise_std_normalization",
        "samplewise_center",
        "samplewise_std_normalization",
        "zca_whitening",
    )
    for bits in range(32):
        chosen = {name: bool(bits >> index & 1) for index, name in enumerate(names)}
        found = []
        for module in (KERAS, OURS):
            with pytest.warns(UserWarning) if _incomplete(chosen) else contextlib.nullcontext():
                generator = module.ImageDataGenerator(**chosen)
            found.append([getattr(generator, name) for name in names])
        assert found[0] == found[1], chosen


def _incomplete(chosen):
    by_set = chosen["featurewise_std_normalization"] or chosen["zca_whitening"]
    return (
        (by_set and not chosen["featurewise_center"])
        or (chosen["zca_whitening"] and chosen["featurewise_std_normalization"])
        or (chosen["samplewise_std_normalization"] and not chosen["samplewise_center"])
    )


def test_attributes_and_signatures():
    one, other = KERAS.ImageDataGenerator(), OURS.ImageDataGenerator()
    assert vars(one) == vars(other)
    for name in dir(KERAS):
        thing = getattr(KERAS, name)
        home = getattr(thing, "__module__", "") or ""
        if name.startswith("_") or home != KERAS.__name__:
            continue
        ours = getattr(OURS, name)
        assert _parameters(thing) == _parameters(ours), name
        if inspect.isclass(thing):
            for method, function in vars(thing).items():
                if inspect.isfunction(function) and not method.startswith("_"):
                    assert _parameters(function) == _parameters(getattr(ours, method)), method


def _parameters(thing):
    return [(p.name, p.kind, p.default) for p in inspect.signature(thing).parameters.values()]
