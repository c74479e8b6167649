"""Iterators over arrays: Keras's batches, labels, weights and draws for all settings.

Tolerances of 255: 0.05 (mean 0.002). Brightness truncates pixels and multiplies them, so one in
some hundreds may differ by the factor (mean 0.05). Splines and types other than float32 are exact.
"""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from side_by_side import (
    COURSE,
    KERAS,
    MEAN,
    MOST,
    OURS,
    compare,
    examples,
    random_images,
    run_both,
)

from kindsight.preprocessing._affine import MODES

TRANSFORMS = {
    "nothing": {},
    "rotation": {"rotation_range": 90},
    "width": {"width_shift_range": 0.4},
    "height": {"height_shift_range": [-3, 1, 5]},
    "pixels": {"width_shift_range": 4, "height_shift_range": 2.5},
    "shear": {"shear_range": 25},
    "zoom": {"zoom_range": (0.5, 1.7)},
    "shift-of-channels": {"channel_shift_range": 60.0},
    "flips": {"horizontal_flip": True, "vertical_flip": True},
    "course": COURSE,
    "all": {
        **COURSE,
        "shear_range": 15.0,
        "vertical_flip": True,
        "channel_shift_range": 30.0,
        "rescale": 1 / 255,
    },
}


def flow(module, x, settings_, number=3, seed=None, **options):
    generator = module.ImageDataGenerator(**settings_)
    iterator = generator.flow(x, batch_size=3, seed=seed, **options)
    return [next(iterator) for _ in range(number)]


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", TRANSFORMS)
def test_transformations(name, mode, channels):
    chosen = {**TRANSFORMS[name], "fill_mode": mode, "cval": 20.0}
    for number, dtype in enumerate(("float32", "uint8")):
        for layout in ("channels_last", "channels_first"):
            rng = np.random.RandomState(number)
            x = random_images(rng, 4, 30, 22, channels, dtype)
            x = x if layout == "channels_last" else x.transpose(0, 3, 1, 2)
            keras, ours = run_both(
                lambda module, x=x, layout=layout: flow(
                    module, x, {**chosen, "data_format": layout}
                ),
                number,
            )
            assert compare(keras, ours).within(MEAN, MOST)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("order", [0, 2, 3])
def test_other_interpolation_orders_are_exact(mode, order):
    x = random_images(np.random.RandomState(1), 3, 19, 24, 3, "float32")
    chosen = {**COURSE, "fill_mode": mode, "interpolation_order": order, "rescale": 0.5}
    keras, ours = run_both(lambda module: flow(module, x, chosen), 4)
    assert compare(keras, ours).within(0, 0)


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 6), (5, 1), (2, 2)])
@pytest.mark.parametrize("mode", MODES)
def test_tiny_images(height, width, mode):
    for channels in (1, 3, 4):
        x = random_images(np.random.RandomState(2), 4, height, width, channels, "float32")
        for seed in range(5):
            keras, ours = run_both(
                lambda module, x=x: flow(module, x, {**TRANSFORMS["all"], "fill_mode": mode}), seed
            )
            assert compare(keras, ours).within(MOST, MOST)


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("more", [{}, COURSE, {**COURSE, "fill_mode": "constant", "cval": 9.0}])
def test_brightness(channels, more):
    x = random_images(np.random.RandomState(3), 6, 40, 40, channels, "float32")
    x[0] = 77.0
    for seed in range(4):
        chosen = {**more, "brightness_range": (0.5, 1.5), "channel_shift_range": 9.0}
        keras, ours = run_both(lambda module, chosen=chosen: flow(module, x, chosen), seed)
        assert compare(keras, ours).within(0.05, 2)


@pytest.mark.parametrize("span", [(0, 1), (-1, 1), (0, 400)])
def test_brightness_of_other_ranges(span):
    x = np.random.RandomState(4).uniform(*span, (4, 12, 12, 3)).astype(np.float32)
    chosen = {"brightness_range": (0.5, 1.5), "horizontal_flip": True}
    keras, ours = run_both(lambda module: flow(module, x, chosen), 1)
    assert compare(keras, ours).within(0, 0)
    keras, ours = run_both(lambda module: flow(module, x, {**chosen, "rotation_range": 30}), 1)
    size = (span[1] - span[0]) / 255
    assert compare(keras, ours).within(0.1 * size if span != (0, 1) else 0.05, 3 * max(size, 1))


@examples(40)
@given(
    st.fixed_dictionaries(
        {
            "rotation_range": st.sampled_from([0, 30, 12.5]),
            "width_shift_range": st.sampled_from([0.0, 0.3, 3, [1, 2, 5], [0.1, -0.2]]),
            "height_shift_range": st.sampled_from([0.0, 0.1, 2.5, [-4, 4]]),
            "shear_range": st.sampled_from([0.0, 0.2, 30]),
            "zoom_range": st.sampled_from([0.0, 0.3, (0.5, 0.5), [1, 2]]),
            "channel_shift_range": st.sampled_from([0.0, 25.0]),
            "fill_mode": st.sampled_from(MODES),
            "cval": st.sampled_from([0.0, 255.0, -3.5]),
            "interpolation_order": st.sampled_from([0, 1, 1, 1, 3]),
            "horizontal_flip": st.booleans(),
            "vertical_flip": st.booleans(),
            "rescale": st.sampled_from([None, 1 / 255, 2]),
            "samplewise_center": st.booleans(),
            "data_format": st.sampled_from(["channels_last", "channels_first"]),
            "dtype": st.sampled_from(["float32", "float32", "float64", None]),
        }
    ),
    st.integers(1, 24),
    st.integers(1, 24),
    st.sampled_from([1, 3, 4]),
    st.sampled_from([None, 0, 11]),
    st.booleans(),
    st.integers(0, 2**32 - 1),
)
def test_any_combination(chosen, height, width, channels, seed, shuffle, start):
    rng = np.random.RandomState(start % 1000)
    x = random_images(rng, 7, height, width, channels, "float32")
    if chosen["data_format"] == "channels_first":
        x = np.ascontiguousarray(x.transpose(0, 3, 1, 2))
    y, weights = np.arange(7), rng.rand(7)
    keras, ours = run_both(
        lambda module: flow(
            module, x, chosen, 5, seed, y=y, sample_weight=weights, shuffle=shuffle
        ),
        start,
    )
    unit = chosen["rescale"] or 1
    assert compare(keras, ours).within(MOST * unit, 2 * MOST * unit)


@pytest.mark.parametrize(
    "extra",
    [
        {"samplewise_center": True, "samplewise_std_normalization": True},
        {"samplewise_center": True, "samplewise_std_normalization": True, "rescale": 1 / 255},
        {"preprocessing_function": lambda x: 255 - x, "rescale": 1 / 255},
        {"preprocessing_function": lambda x: x.astype("float64")[::-1].copy()},
    ],
)
def test_standardisation(extra):
    x = random_images(np.random.RandomState(5), 7, 16, 16, 3, "float32")
    with np.errstate(all="ignore"):
        keras, ours = run_both(lambda module: flow(module, x, {**COURSE, **extra}), 2)
    assert compare(keras, ours).within(MEAN, MOST)


def test_uniform_image_divided_by_its_deviation():
    x = np.full((3, 9, 9, 3), 0.3, np.float32)
    chosen = {**COURSE, "samplewise_center": True, "samplewise_std_normalization": True}
    keras, ours = run_both(lambda module: flow(module, x, chosen), 2)
    assert compare(keras, ours).within(1e-6, 0.02)


def test_preprocessing_function_may_draw_random_numbers():
    def noisy(image):
        return image + np.random.uniform(-1, 1, image.shape)

    x = random_images(np.random.RandomState(6), 7, 8, 8, 3, "float32")
    chosen = {**COURSE, "preprocessing_function": noisy}
    keras, ours = run_both(lambda module: flow(module, x, chosen, 5), 2)
    assert compare(keras, ours).within(MEAN, MOST)


@pytest.mark.parametrize("model", ["vgg16", "mobilenet_v2"])
def test_preprocessing_functions_of_keras_use_all_threads(model):
    import keras

    function = getattr(keras.applications, model).preprocess_input
    x = random_images(np.random.RandomState(6), 7, 8, 8, 3, "float32")
    chosen = {**COURSE, "preprocessing_function": function}
    assert OURS.ImageDataGenerator(**chosen)._draws_without_foreign_code
    one, other = run_both(lambda module: flow(module, x, chosen), 2)
    assert compare(one, other).within(MEAN, MOST)


def test_methods_of_a_subclass_are_used():
    def make(module):
        class Same(module.ImageDataGenerator):
            def get_random_transform(self, img_shape, seed=None):
                parameters = super().get_random_transform(img_shape, seed)
                return {**parameters, "zy": parameters["zx"], "extra": np.random.random()}

        class Inverted(module.ImageDataGenerator):
            def apply_transform(self, x, transform_parameters):
                return 255 - super().apply_transform(x, transform_parameters)

        class Halved(module.ImageDataGenerator):
            def standardize(self, x):
                return super().standardize(x) / 2

        return Same, Inverted, Halved

    x = random_images(np.random.RandomState(8), 5, 14, 14, 3, "float32")
    for number in range(3):

        def run(module, number=number):
            iterator = make(module)[number](**COURSE, rescale=2.0).flow(x, batch_size=2)
            return [next(iterator) for _ in range(4)]

        assert compare(*run_both(run, number)).within(2 * MEAN, 2 * MOST)


def test_replaced_method_is_used():
    x = random_images(np.random.RandomState(8), 3, 6, 6, 3, "float32")
    generator = OURS.ImageDataGenerator()
    generator.standardize = lambda image: image * 0
    assert not next(generator.flow(x)).any()


def test_generator_of_keras_is_accepted():
    x = random_images(np.random.RandomState(8), 5, 9, 9, 3, "float32")

    def run(module):
        generator = KERAS.ImageDataGenerator(**COURSE)
        iterator = module.NumpyArrayIterator(x, None, generator, batch_size=2, shuffle=True)
        return [next(iterator) for _ in range(3)]

    assert compare(*run_both(run, 1)).within(0, 0)


def test_further_inputs_labels_and_weights():
    x = random_images(np.random.RandomState(9), 8, 6, 6, 3, "float32")
    one, two = np.arange(8), np.arange(16).reshape(8, 2)
    labels, weights = np.eye(8)[:, :4], np.linspace(0, 1, 8)
    for given_x in ((x, one), [x, [one, two]], x):
        for more in ({}, {"y": labels}, {"y": labels, "sample_weight": weights}):
            keras, ours = run_both(lambda m, g=given_x, o=more: flow(m, g, {}, 4, **o), 1)
            assert compare(keras, ours).within(0, 0)


def test_subsets_are_the_first_and_the_last_images():
    x = random_images(np.random.RandomState(9), 10, 3, 3, 3, "float32")
    y, weights = np.arange(10) % 2, np.arange(10.0)
    for subset in ("training", "validation"):
        for more in ({}, {"sample_weight": weights}):

            def run(module, subset=subset, more=more):
                generator = module.ImageDataGenerator(validation_split=0.35)
                iterator = generator.flow(
                    (x, np.arange(10)), y, subset=subset, shuffle=False, **more
                )
                return [next(iterator), np.array([iterator.n, len(iterator)])]

            assert compare(*run_both(run)).within(0, 0)


def test_subsets_may_have_different_classes_if_allowed():
    x, y = np.zeros((4, 2, 2, 3)), np.array([0, 0, 1, 1])
    for module in (KERAS, OURS):
        generator = module.ImageDataGenerator(validation_split=0.5)
        assert generator.flow(x, y, subset="training", ignore_class_split=True).n == 2


def test_unusual_number_of_channels():
    x = np.zeros((2, 4, 4, 2), np.float32)
    for module in (KERAS, OURS):
        with pytest.warns(UserWarning, match="channels"):
            iterator = module.ImageDataGenerator(rotation_range=20).flow(x)
        assert next(iterator).shape == x.shape


def test_images_are_saved(tmp_path):
    x = random_images(np.random.RandomState(9), 5, 6, 6, 3, "float32")

    def run(module):
        folder = tmp_path / module.__name__.split(".")[0]
        folder.mkdir()
        iterator = module.ImageDataGenerator(**COURSE, rescale=1 / 255).flow(
            x, batch_size=3, save_to_dir=str(folder), save_prefix="pic", save_format="png"
        )
        return [next(iterator) for _ in range(2)]

    assert compare(*run_both(run, 5)).within(MEAN, MOST)
    keras, ours = (sorted(p.name for p in (tmp_path / n).iterdir()) for n in ("keras", "kindsight"))
    assert keras == ours
    assert len(ours) == 5 and all(name.startswith("pic_") for name in ours)
    for name in ours:
        one, other = (
            np.asarray(OURS.load_img(tmp_path / n / name)) for n in ("keras", "kindsight")
        )
        assert np.abs(one.astype(int) - other).max() <= 1


def test_pickled_iterator_gives_the_same_batches():
    x = random_images(np.random.RandomState(9), 6, 5, 5, 3, "float32")
    iterator = OURS.ImageDataGenerator(rotation_range=20).flow(x, np.arange(6), batch_size=2)
    next(iterator)
    copy = pickle.loads(pickle.dumps(iterator))  # noqa: S301
    results = []
    for one in (iterator, copy):
        np.random.seed(1)
        results.append([next(one) for _ in range(4)])
    assert compare(*results).within(0, 0)
