"""Random parameters: the same draws in the same order as in Keras."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from side_by_side import OURS, examples, run_both, same_state

from kindsight.preprocessing._random_parameters import draw_many

fractions = st.floats(0, 0.9)
shifts = st.one_of(
    fractions,
    st.floats(1, 9),
    st.integers(-3, 9),
    st.lists(st.integers(-9, 9), min_size=1, max_size=4),
    st.lists(st.floats(-0.9, 0.9), min_size=1, max_size=4),
)
pairs = st.tuples(st.floats(0.1, 1), st.floats(1, 3))
ranges = st.fixed_dictionaries(
    {
        "rotation_range": st.one_of(st.just(0), st.integers(0, 180), st.floats(0, 180)),
        "width_shift_range": shifts,
        "height_shift_range": shifts,
        "shear_range": st.one_of(st.just(0.0), st.floats(-30, 30)),
        "zoom_range": st.one_of(fractions, pairs, st.just([1, 1]), st.just((1.0, 1.5))),
        "channel_shift_range": st.one_of(st.just(0.0), st.floats(-90, 90)),
        "brightness_range": st.one_of(st.none(), pairs),
        "horizontal_flip": st.booleans(),
        "vertical_flip": st.booleans(),
        "data_format": st.sampled_from(["channels_last", "channels_first"]),
    }
)
seeds = st.integers(0, 2**32 - 1)


def plain(parameters: dict) -> dict:
    return {name: None if value is None else float(value) for name, value in parameters.items()}


@examples(40)
@given(ranges, seeds, st.sampled_from([None, 5]))
def test_parameters_of_one_image(chosen, seed, inner):
    shape = (30, 47, 3)
    keras, ours = run_both(
        lambda module: module.ImageDataGenerator(**chosen).get_random_transform(shape, seed=inner),
        seed,
    )
    assert list(keras) == list(ours)
    assert plain(keras) == plain(ours)


@examples(40)
@given(ranges, seeds, st.integers(0, 7))
def test_parameters_of_a_batch_are_those_of_its_images(chosen, seed, count):
    generator = OURS.ImageDataGenerator(**chosen)
    shape = (30, 47, 3)
    np.random.seed(seed)
    single = [plain(generator.get_random_transform(shape)) for _ in range(count)]
    state = np.random.get_state()
    np.random.seed(seed)
    batch = draw_many(generator, shape, count)
    assert same_state(state, np.random.get_state())
    assert [plain(batch.parameters(index)) for index in range(count)] == single


def test_another_source_does_not_change_the_global_state():
    generator = OURS.ImageDataGenerator(
        rotation_range=9, width_shift_range=5, brightness_range=(0.5, 1), zoom_range=0.3
    )
    np.random.seed(3)
    before = np.random.get_state()
    source = np.random.RandomState(3)
    separate = draw_many(generator, (9, 9, 3), 4, source)
    assert same_state(before, np.random.get_state())
    drawn = draw_many(generator, (9, 9, 3), 4)
    assert np.array_equal(separate.affine, drawn.affine)
    assert separate.brightness == drawn.brightness
    assert same_state(source.get_state(), np.random.get_state())


@examples(30)
@given(seeds)
def test_random_functions_draw_as_in_keras(seed):
    x = np.random.RandomState(1).uniform(0, 255, (3, 8, 8)).astype(np.float32)

    def run(module):
        module.random_rotation(x, 30)
        module.random_shift(x, 0.2, 0.3)
        module.random_shear(x, 20)
        module.random_zoom(x, (0.5, 1.5))
        module.random_zoom(x, (1, 1))
        module.random_channel_shift(x, 40)
        last = x.transpose(1, 2, 0)
        module.random_brightness(last, (0.5, 1.5), scale=False)
        return np.random.random()

    keras, ours = run_both(run, seed)
    assert keras == ours
