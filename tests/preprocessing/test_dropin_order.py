"""Which batch comes when: plain iteration, by number, both mixed, and prepared ahead of time."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import threading

import numpy as np
import pytest
from side_by_side import COURSE, KERAS, MEAN, MOST, OURS, ask_both, compare, same_state

from kindsight.preprocessing import _batches as _threads


@pytest.fixture(autouse=True)
def two_threads(monkeypatch):
    """Prepare ahead whatever the machine, and however small the images."""
    monkeypatch.setattr(_threads._pool, "helpers", 2)
    monkeypatch.setattr(_threads, "_LIGHT", 0.0)


def make(module, folder, settings_=COURSE, **options):
    generator = module.ImageDataGenerator(**settings_)
    options = {"target_size": (12, 10), "batch_size": 5, **options}
    return generator.flow_from_directory(folder, **options)


@pytest.mark.parametrize("seed", [None, 7])
@pytest.mark.parametrize("shuffle", [False, True])
def test_epochs_by_number_as_keras_s_fit_asks(class_folders, seed, shuffle):
    def ask(module):
        iterator = make(module, class_folders, seed=seed, shuffle=shuffle)
        answers = [iterator[0], iterator[1]]  # Keras looks at two batches before it begins
        for _ in range(3):
            answers += [iterator[number] for number in range(len(iterator))]
            iterator.on_epoch_end()
        return [*answers, np.array([iterator.total_batches_seen, iterator.batch_index])]

    assert compare(*ask_both(ask, 3)).within(MEAN, MOST)


@pytest.mark.parametrize("seed", [None, 7])
def test_whatever_is_asked_and_drawn_in_between(class_folders, seed):
    def ask(module):
        iterator = make(module, class_folders, seed=seed)
        other = make(module, class_folders, {}, seed=seed, shuffle=True, batch_size=3)
        answers = [next(iterator), iterator[2], iterator[3], iterator[0], next(iterator)]
        answers += [np.random.rand(3), next(other), next(iterator), next(iterator)]
        iterator.reset()
        answers += [next(iterator), next(other), next(other)]
        iterator.batch_size = 2
        answers += [next(iterator), next(iterator)]
        iterator.image_data_generator.rotation_range = 90
        answers += [next(iterator), next(iterator)]
        iterator.image_data_generator.rescale = 0.5
        answers += [iterator[1], iterator[2]]
        np.random.seed(5)
        answers += [next(iterator), np.random.rand(2), next(iterator), np.random.rand(1)]
        iterator.on_epoch_end()
        answers += [iterator[0], next(iterator.index_generator), next(iterator), iterator[1]]
        iterator.seed = 3
        answers += [next(iterator), np.random.rand(1), iterator[0], next(iterator)]
        return answers

    assert compare(*ask_both(ask, 3)).within(MEAN, MOST)


def test_whole_epochs_of_plain_iteration(class_folders):
    for size in (1, 4, 16, 20):

        def ask(module, size=size):
            iterator = make(module, class_folders, batch_size=size)
            answers = [next(iterator) for _ in range(2 * len(iterator) + 1)]
            return [*answers, np.array([iterator.batch_index, iterator.total_batches_seen])]

        assert compare(*ask_both(ask, 4)).within(MEAN, MOST)


def test_a_batch_is_prepared_and_given_out(class_folders):
    iterator = make(OURS, class_folders)
    next(iterator)
    prepared = iterator._ahead._prepared
    assert prepared is not None
    prepared.making.work.finish()
    state = np.random.get_state()
    first = next(iterator)
    assert not same_state(state, np.random.get_state())
    np.random.set_state(state)
    # Asked for by itself, without what was prepared, it is the same.
    again = make(OURS, class_folders)
    again.index_array, again.batch_index = iterator.index_array, 1
    again.index_generator = again._flow_index(anew=False)
    assert compare(list(first), list(next(again))).within(0, 0)


def test_preparing_leaves_the_user_s_chance_alone(class_folders):
    iterator = make(OURS, class_folders)
    np.random.seed(9)
    next(iterator)
    before = np.random.get_state()
    iterator._ahead.prepare(iterator, None)
    assert same_state(before, np.random.get_state())
    counts = (iterator.batch_index, iterator.total_batches_seen)
    assert counts == (1, 1)


@pytest.mark.parametrize("seed", [None, 4])
def test_images_and_masks_side_by_side(class_folders, seed):
    def ask(module):
        images = make(module, class_folders, seed=seed, class_mode=None)
        masks = make(module, class_folders, {"rotation_range": 9}, seed=seed, class_mode=None)
        return [[next(images), next(masks)] for _ in range(9)]

    assert compare(*ask_both(ask)).within(MEAN, MOST)


def test_with_a_seed_it_does_not_matter_who_draws_in_between(class_folders):
    iterator = make(OURS, class_folders, seed=4)
    next(iterator)
    prepared = iterator._ahead._prepared
    np.random.rand(3)
    assert iterator._ahead.take(iterator, None) is prepared.making


def test_after_a_light_batch_none_is_prepared(class_folders, monkeypatch):
    iterator = make(OURS, class_folders)
    next(iterator)
    for _ in range(3):
        next(iterator)  # the images are few and small, and kept by now
    monkeypatch.setattr(_threads, "_LIGHT", 1.0)
    next(iterator)
    next(iterator)
    assert iterator._ahead._prepared is None
    monkeypatch.setattr(_threads, "_LIGHT", 0.0)
    next(iterator)
    next(iterator)
    assert iterator._ahead._prepared is not None


def test_after_misses_fewer_batches_are_prepared(class_folders):
    iterator = make(OURS, class_folders)
    prepared = []
    for _ in range(40):
        np.random.rand()
        next(iterator)
        prepared.append(iterator._ahead._prepared is not None)
    # A pause of 1, 3, 7, 15 after each batch that was made in vain.
    assert [place for place, found in enumerate(prepared) if found] == [0, 2, 6, 14, 30]
    for _ in range(32):
        next(iterator)
    assert iterator._ahead._prepared is not None
    next(iterator)
    assert iterator._ahead._misses == 0


def test_a_range_that_is_changed_in_its_place_is_noticed(class_folders):
    iterator = make(OURS, class_folders)
    next(iterator)
    iterator.image_data_generator.zoom_range[0] = 0.5
    assert iterator._ahead.take(iterator, None) is None


def test_nothing_is_prepared_where_somebody_s_code_might_notice(class_folders, tmp_path):
    class Subclass(OURS.DirectoryIterator):
        pass

    class Drawing(OURS.ImageDataGenerator):
        def get_random_transform(self, img_shape, seed=None):
            return super().get_random_transform(img_shape, seed)

    iterators = [
        Subclass(class_folders, OURS.ImageDataGenerator(), (8, 8)),
        Drawing(rotation_range=9).flow_from_directory(class_folders, (8, 8)),
        make(OURS, class_folders, {"preprocessing_function": lambda x: x}),
        make(OURS, class_folders, save_to_dir=tmp_path),
        OURS.ImageDataGenerator().flow(np.zeros((9, 4, 4, 3))),
    ]
    for iterator in iterators:
        next(iterator)
        assert iterator._ahead._prepared is None


def test_a_batch_that_failed_ahead_of_time_fails_when_it_is_asked_for(class_folders, tmp_path):
    for number in range(4):
        folder = tmp_path / "a"
        folder.mkdir(exist_ok=True)
        (folder / f"{number}.jpg").write_bytes((class_folders / "cat" / "p00.jpg").read_bytes())
    (tmp_path / "a" / "1.jpg").write_bytes(b"damaged")
    iterator = make(OURS, tmp_path, batch_size=1, shuffle=False)
    next(iterator)
    with pytest.raises(OSError, match=r"1\.jpg"):
        next(iterator)
    assert next(iterator)[0].shape == (1, 12, 10, 3)


def test_many_threads_each_get_a_whole_batch(class_folders):
    iterator = make(OURS, class_folders, {}, shuffle=False, batch_size=1)
    right = [iterator[number] for number in range(16)]
    answers: dict[int, object] = {}

    def work(start):
        for number in range(start, 16, 4):
            answers[number] = iterator[number]

    threads = [threading.Thread(target=work, args=(start,)) for start in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert compare([right[n] for n in range(16)], [answers[n] for n in range(16)]).within(0, 0)


def test_threads_with_a_seed_draw_whole_batches(class_folders):
    iterator = make(OURS, class_folders, seed=5, batch_size=2, shuffle=False)
    expected = []
    for seed in range(5, 13):
        one = make(OURS, class_folders, seed=seed, batch_size=2, shuffle=False)
        sums = []
        for number in range(8):
            one.total_batches_seen = 0
            sums.append(one[number][0].sum())
        expected.append(sums)
    found = []
    threads = [
        threading.Thread(target=lambda n=number: found.append((n, iterator[n][0].sum())))
        for number in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    # Each batch was drawn from one of the eight seeds, undisturbed by the others.
    seeds = [next(k for k in range(8) if expected[k][number] == total) for number, total in found]
    assert sorted(seeds) == list(range(8))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_a_forked_process_works_and_shares_what_it_read(class_folders, monkeypatch):
    first = make(OURS, class_folders, {"rescale": 1.0}, shuffle=False, batch_size=16)
    second = make(OURS, class_folders, {"rescale": 1.0}, shuffle=False, batch_size=16)
    next(OURS.ImageDataGenerator().flow_from_directory(class_folders))  # threads are running
    assert first._shelf is second._shelf
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=lambda: sender.send(first[0]))
    process.start()
    assert receiver.poll(60)
    from_child = receiver.recv()
    process.join(60)
    assert process.exitcode == 0
    monkeypatch.setattr("kindsight.preprocessing._files.load_pixels", None)
    # The child has read everything, so nothing is left to be read here.
    assert compare(from_child, second[0]).within(0, 0)


def test_a_pickled_iterator_goes_on_where_it_was(class_folders):
    iterator = make(OURS, class_folders)
    next(iterator)
    next(iterator)
    copy = pickle.loads(pickle.dumps(iterator))  # noqa: S301
    answers = []
    for one in (iterator, copy):
        np.random.seed(2)
        answers.append([next(one) for _ in range(4)])
    assert compare(*answers).within(0, 0)
    fresh = pickle.loads(pickle.dumps(make(OURS, class_folders)))  # noqa: S301
    assert sorted(fresh.index_array) == list(range(16))


def test_a_number_beyond_the_epoch_is_refused_and_one_below_gives_nothing(class_folders):
    for module in (KERAS, OURS):
        iterator = make(module, class_folders)
        with pytest.raises(ValueError):
            iterator[len(iterator)]
        assert len(iterator[-1][0]) == 0


def test_an_own_iterator_needs_one_method_only():
    def ask(module):
        class Squares(module.Iterator):
            def _get_batches_of_transformed_samples(self, index_array):
                return np.asarray(index_array) ** 2 + np.random.rand()

        iterator = Squares(7, 3, shuffle=True, seed=None, workers=2, max_queue_size=3)
        assert (iterator.workers, iterator.max_queue_size) == (2, 3)
        return [next(iterator), iterator[1], iterator[2], next(iterator), next(iterator)]

    assert compare(*ask_both(ask)).mean == 0
    with pytest.raises(NotImplementedError):
        next(OURS.Iterator(3, 2, False, None))


def test_an_own_iterator_over_files(class_folders):
    def ask(module):
        class Reversed(module.BatchFromFilesMixin, module.Iterator):
            def __init__(self, paths, generator):
                self.set_processing_attrs(
                    generator, (7, 9), "rgb", "channels_last", None, "", "png", None, "nearest", 0
                )
                self.paths, self.dtype, self.class_mode = paths, "float32", "sparse"
                self.classes = np.arange(len(paths))
                super().__init__(len(paths), 2, False, None)

            filepaths = property(lambda self: self.paths[::-1])
            labels = property(lambda self: self.classes)
            sample_weight = property(lambda self: None)

        paths = sorted(str(path) for path in (class_folders / "cat").glob("p*.*"))
        iterator = Reversed(paths, module.ImageDataGenerator(**COURSE))
        return [next(iterator) for _ in range(4)]

    assert compare(*ask_both(ask)).within(MEAN, MOST)


def test_what_a_subclass_makes_of_a_batch_is_used(class_folders):
    def ask(module):
        class Doubled(module.DirectoryIterator):
            def _get_batches_of_transformed_samples(self, index_array):
                images, labels = super()._get_batches_of_transformed_samples(index_array)
                return images * 2, labels

        iterator = Doubled(class_folders, module.ImageDataGenerator(**COURSE), (8, 8), batch_size=6)
        return [next(iterator), iterator[1], next(iterator)]

    assert compare(*ask_both(ask)).within(2 * MEAN, 2 * MOST)
