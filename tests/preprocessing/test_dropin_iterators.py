"""Order of batches: iteration, indexing, both mixed, and prefetching."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import threading

import numpy as np
import pytest
from side_by_side import COURSE, KERAS, MEAN, MOST, OURS, compare, run_both, same_state

from kindsight.preprocessing import _batches


@pytest.fixture(autouse=True)
def two_threads(monkeypatch):
    """Prefetch on any machine, even for small images."""
    monkeypatch.setattr(_batches._pool, "helpers", 2)
    monkeypatch.setattr(_batches, "_LIGHT", 0.0)


def make(module, folder, settings_=COURSE, **options):
    generator = module.ImageDataGenerator(**settings_)
    options = {"target_size": (12, 10), "batch_size": 5, **options}
    return generator.flow_from_directory(folder, **options)


@pytest.mark.parametrize("seed", [None, 7])
@pytest.mark.parametrize("shuffle", [False, True])
def test_indexing_as_in_fit(class_folders, seed, shuffle):
    def run(module):
        iterator = make(module, class_folders, seed=seed, shuffle=shuffle)
        results = [iterator[0], iterator[1]]  # fit() reads two batches first
        for _ in range(3):
            results += [iterator[number] for number in range(len(iterator))]
            iterator.on_epoch_end()
        return [*results, np.array([iterator.total_batches_seen, iterator.batch_index])]

    assert compare(*run_both(run, 3)).within(MEAN, MOST)


@pytest.mark.parametrize("seed", [None, 7])
def test_mixed_access_with_random_draws_in_between(class_folders, seed):
    def run(module):
        iterator = make(module, class_folders, seed=seed)
        other = make(module, class_folders, {}, seed=seed, shuffle=True, batch_size=3)
        results = [next(iterator), iterator[2], iterator[3], iterator[0], next(iterator)]
        results += [np.random.rand(3), next(other), next(iterator), next(iterator)]
        iterator.reset()
        results += [next(iterator), next(other), next(other)]
        iterator.batch_size = 2
        results += [next(iterator), next(iterator)]
        iterator.image_data_generator.rotation_range = 90
        results += [next(iterator), next(iterator)]
        iterator.image_data_generator.rescale = 0.5
        results += [iterator[1], iterator[2]]
        np.random.seed(5)
        results += [next(iterator), np.random.rand(2), next(iterator), np.random.rand(1)]
        iterator.on_epoch_end()
        results += [iterator[0], next(iterator.index_generator), next(iterator), iterator[1]]
        iterator.seed = 3
        results += [next(iterator), np.random.rand(1), iterator[0], next(iterator)]
        return results

    assert compare(*run_both(run, 3)).within(MEAN, MOST)


def test_iteration_over_several_epochs(class_folders):
    for size in (1, 4, 16, 20):

        def run(module, size=size):
            iterator = make(module, class_folders, batch_size=size)
            results = [next(iterator) for _ in range(2 * len(iterator) + 1)]
            return [*results, np.array([iterator.batch_index, iterator.total_batches_seen])]

        assert compare(*run_both(run, 4)).within(MEAN, MOST)


def test_batch_is_prefetched(class_folders):
    iterator = make(OURS, class_folders)
    next(iterator)
    prefetched = iterator._prefetcher._prefetched
    assert prefetched is not None
    prefetched.pending.work.finish()
    state = np.random.get_state()
    first = next(iterator)
    assert not same_state(state, np.random.get_state())
    np.random.set_state(state)
    # Without prefetching, the batch is the same.
    again = make(OURS, class_folders)
    again.index_array, again.batch_index = iterator.index_array, 1
    again.index_generator = again._flow_index(restart=False)
    assert compare(list(first), list(next(again))).within(0, 0)


def test_prefetching_does_not_change_the_global_state(class_folders):
    iterator = make(OURS, class_folders)
    np.random.seed(9)
    next(iterator)
    before = np.random.get_state()
    iterator._prefetcher.prepare(iterator, None)
    assert same_state(before, np.random.get_state())
    counts = (iterator.batch_index, iterator.total_batches_seen)
    assert counts == (1, 1)


@pytest.mark.parametrize("seed", [None, 4])
def test_images_and_masks_in_parallel(class_folders, seed):
    def run(module):
        images = make(module, class_folders, seed=seed, class_mode=None)
        masks = make(module, class_folders, {"rotation_range": 9}, seed=seed, class_mode=None)
        return [[next(images), next(masks)] for _ in range(9)]

    assert compare(*run_both(run)).within(MEAN, MOST)


def test_with_a_seed_other_draws_do_not_matter(class_folders):
    iterator = make(OURS, class_folders, seed=4)
    next(iterator)
    prefetched = iterator._prefetcher._prefetched
    np.random.rand(3)
    assert iterator._prefetcher.take(iterator, None) is prefetched.pending


def test_no_prefetching_after_a_light_batch(class_folders, monkeypatch):
    iterator = make(OURS, class_folders)
    next(iterator)
    for _ in range(3):
        next(iterator)  # the images are few and small, and cached
    monkeypatch.setattr(_batches, "_LIGHT", 1.0)
    next(iterator)
    next(iterator)
    assert iterator._prefetcher._prefetched is None
    monkeypatch.setattr(_batches, "_LIGHT", 0.0)
    next(iterator)
    next(iterator)
    assert iterator._prefetcher._prefetched is not None


def test_misses_reduce_prefetching(class_folders):
    iterator = make(OURS, class_folders)
    prefetched = []
    for _ in range(40):
        np.random.rand()
        next(iterator)
        prefetched.append(iterator._prefetcher._prefetched is not None)
    # A pause of 1, 3, 7, 15 batches after each miss.
    assert [index for index, found in enumerate(prefetched) if found] == [0, 2, 6, 14, 30]
    for _ in range(32):
        next(iterator)
    assert iterator._prefetcher._prefetched is not None
    next(iterator)
    assert iterator._prefetcher._misses == 0


def test_range_modified_in_place_is_detected(class_folders):
    iterator = make(OURS, class_folders)
    next(iterator)
    iterator.image_data_generator.zoom_range[0] = 0.5
    assert iterator._prefetcher.take(iterator, None) is None


def test_no_prefetching_with_foreign_code(class_folders, tmp_path):
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
        assert iterator._prefetcher._prefetched is None


def test_error_of_a_prefetched_batch_is_raised_when_it_is_requested(class_folders, tmp_path):
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


def test_indexing_from_several_threads(class_folders):
    iterator = make(OURS, class_folders, {}, shuffle=False, batch_size=1)
    right = [iterator[number] for number in range(16)]
    results: dict[int, object] = {}

    def work(start):
        for number in range(start, 16, 4):
            results[number] = iterator[number]

    threads = [threading.Thread(target=work, args=(start,)) for start in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert compare([right[n] for n in range(16)], [results[n] for n in range(16)]).within(0, 0)


def test_threads_with_a_seed_do_not_mix_draws(class_folders):
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
    # Each batch was drawn from one of the eight seeds.
    seeds = [next(k for k in range(8) if expected[k][number] == total) for number, total in found]
    assert sorted(seeds) == list(range(8))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_forked_process_shares_decoded_images(class_folders, monkeypatch):
    first = make(OURS, class_folders, {"rescale": 1.0}, shuffle=False, batch_size=16)
    second = make(OURS, class_folders, {"rescale": 1.0}, shuffle=False, batch_size=16)
    next(OURS.ImageDataGenerator().flow_from_directory(class_folders))  # starts the threads
    assert first._cache is second._cache
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=lambda: sender.send(first[0]))
    process.start()
    assert receiver.poll(60)
    from_child = receiver.recv()
    process.join(200)
    assert process.exitcode == 0
    monkeypatch.setattr("kindsight.preprocessing._file_batches.load_pixels", None)
    # The child process has decoded all images.
    assert compare(from_child, second[0]).within(0, 0)


def test_pickled_iterator_continues(class_folders):
    iterator = make(OURS, class_folders)
    next(iterator)
    next(iterator)
    copy = pickle.loads(pickle.dumps(iterator))  # noqa: S301
    results = []
    for one in (iterator, copy):
        np.random.seed(2)
        results.append([next(one) for _ in range(4)])
    assert compare(*results).within(0, 0)
    fresh = pickle.loads(pickle.dumps(make(OURS, class_folders)))  # noqa: S301
    assert sorted(fresh.index_array) == list(range(16))


def test_index_out_of_range(class_folders):
    for module in (KERAS, OURS):
        iterator = make(module, class_folders)
        with pytest.raises(ValueError):
            iterator[len(iterator)]
        assert len(iterator[-1][0]) == 0


def test_custom_iterator_needs_one_method():
    def run(module):
        class Squares(module.Iterator):
            def _get_batches_of_transformed_samples(self, index_array):
                return np.asarray(index_array) ** 2 + np.random.rand()

        iterator = Squares(7, 3, shuffle=True, seed=None, workers=2, max_queue_size=3)
        assert (iterator.workers, iterator.max_queue_size) == (2, 3)
        return [next(iterator), iterator[1], iterator[2], next(iterator), next(iterator)]

    assert compare(*run_both(run)).mean == 0
    with pytest.raises(NotImplementedError):
        next(OURS.Iterator(3, 2, False, None))


def test_custom_iterator_over_files(class_folders):
    def run(module):
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

    assert compare(*run_both(run)).within(MEAN, MOST)


def test_subclass_may_change_batches(class_folders):
    def run(module):
        class Doubled(module.DirectoryIterator):
            def _get_batches_of_transformed_samples(self, index_array):
                images, labels = super()._get_batches_of_transformed_samples(index_array)
                return images * 2, labels

        iterator = Doubled(class_folders, module.ImageDataGenerator(**COURSE), (8, 8), batch_size=6)
        return [next(iterator), iterator[1], next(iterator)]

    assert compare(*run_both(run)).within(2 * MEAN, 2 * MOST)
