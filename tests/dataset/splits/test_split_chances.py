"""Every group has the same chance to be in a split, whatever its number of images."""

from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest

from kindsight.dataset import ImageDataset, fold_indices, random_split
from kindsight.dataset.splits.groups import group_indices

SEEDS = 100
BOUND = 4.0  # standard errors
SIZES = (1, 2, 4, 9, 17, 33, 1000)
"""Groups are compared in these classes of size: from one number to below the next."""


def dataset_of(groups: list[dict[str, int]], singles: dict[str, int]) -> ImageDataset:
    """Make a dataset of groups, each with its images of each class, and of single images."""
    rows = [
        (label, f"g{g}{label}{i}", f"g{g}")
        for g, counts in enumerate(groups)
        for label, n in counts.items()
        for i in range(n)
    ]
    rows += [(label, f"s{label}{i}", None) for label, n in singles.items() for i in range(n)]
    labels, digests, names = zip(*rows, strict=True)
    paths = tuple(f"{i}.jpg" for i in range(len(rows)))
    return ImageDataset(path=paths, label=labels, digest=digests, group=names)


def threes() -> ImageDataset:
    """200 images, 30% of them in groups of three."""
    return dataset_of([{"ab"[g % 2]: 3} for g in range(20)], {"a": 70, "b": 70})


def patients() -> ImageDataset:
    """Patients of 1 to 40 images and one of 60; few single images."""
    sizes = np.random.default_rng(0).integers(1, 41, 60).tolist()
    groups = [{"ab"[g % 2]: n} for g, n in enumerate(sizes)]
    return dataset_of([*groups, {"a": 60}], {})


def skewed() -> ImageDataset:
    """Most groups small, some large, and single images."""
    sizes = (2 + 4 * np.random.default_rng(1).pareto(1.0, 60)).clip(2, 40).astype(int).tolist()
    groups = [{"ab"[g % 2]: n} for g, n in enumerate(sizes)]
    return dataset_of([*groups, {"a": 60}], {"a": 160, "b": 80})


def several_classes() -> ImageDataset:
    """Patients with images of up to three classes, and single images."""
    rng = np.random.default_rng(2)
    groups = []
    for _ in range(40):
        counts = rng.multinomial(int(rng.integers(1, 41)), rng.dirichlet([0.5] * 3)).tolist()
        groups.append({k: n for k, n in zip("abc", counts, strict=True) if n})
    return dataset_of([*groups, {"a": 30, "b": 30}], {"a": 50, "b": 40, "c": 60})


CASES = [threes, patients, skewed, several_classes]


def chances(
    make: Callable[[], ImageDataset], name: str, **fractions: float
) -> tuple[np.ndarray, np.ndarray, float]:
    """Return the groups' sizes, which seeds have them in a split, and the largest class deviation.

    The deviation is in images, from the exact fraction of each class.
    """
    dataset = make()
    index = group_indices(dataset)
    first = np.unique(index, return_index=True)[1]
    drawn, deviation = [], 0.0
    for seed in range(SEEDS):
        result = random_split(dataset, **{"validation": 0.0, **fractions}, seed=seed)
        drawn.append(np.array([result.split[row] == name for row in first]))
        found, whole = result.where(split=name).counts(), dataset.counts()
        deviation = max(deviation, *(abs(found[k] - fractions[name] * whole[k]) for k in whole))
    return np.bincount(index), np.array(drawn, float), deviation


def check_chances(sizes: np.ndarray, drawn: np.ndarray, fraction: float) -> None:
    """Check the mean chance of groups of each size, with the standard error over the seeds."""
    for low, high in pairwise(SIZES):
        able = (sizes >= low) & (sizes < high)
        if not able.any():
            continue
        # Groups of one split depend on each other, those of different seeds do not.
        some = drawn[:, able].mean(axis=1)
        error = max(some.std(ddof=1) / SEEDS**0.5, 0.1 / SEEDS**0.5)
        assert abs(some.mean() - fraction) < BOUND * error, (low, some.mean())


@pytest.mark.parametrize("make", CASES)
def test_a_group_is_validated_as_often_as_a_single_image(make):
    sizes, drawn, deviation = chances(make, "validation", validation=0.2)
    check_chances(sizes, drawn, 0.2)
    assert deviation <= 1


def test_a_group_is_in_the_test_split_as_often_as_a_single_image():
    sizes, drawn, deviation = chances(skewed, "test", test=0.2)
    check_chances(sizes, drawn, 0.2)
    assert deviation <= 1


def test_validation_beside_a_test_split():
    sizes, drawn, deviation = chances(threes, "validation", test=0.2, validation=0.2)
    check_chances(sizes, drawn, 0.2)
    assert deviation <= 1


def test_each_group_of_a_size_has_its_own_chance():
    """20 groups of three among 140 single images: none is left out or preferred."""
    sizes, drawn, _ = chances(threes, "validation", validation=0.2)
    times = drawn.sum(axis=0)  # binomial: 20 with a standard deviation of 4
    assert times.min() >= 20 - 5 * 4
    assert times.max() <= 20 + 5 * 4
    assert abs(times.var() / 16 - 1) < BOUND * (2 / len(times)) ** 0.5
    # Groups of equal size are stratified, too: a fifth of them.
    assert set(drawn[:, sizes == 3].sum(axis=1)) == {4}


@pytest.mark.parametrize("folds", [3, 5])
def test_every_fold_is_equally_likely_for_every_group(folds):
    """Chi-square of each group's folds over 200 seeds; the largest group has no fold of its own."""
    dataset = patients()
    index = group_indices(dataset)
    first = np.unique(index, return_index=True)[1]
    digests = [str(digest) for digest in dataset.digest]
    counts = np.zeros((len(first), folds))
    for seed in range(200):
        found = fold_indices(dataset.targets, index, folds, seed, digests)
        counts[np.arange(len(first)), found[first]] += 1
    expected = 200 / folds
    chi_square = ((counts - expected) ** 2 / expected).sum(axis=1)
    # The mean of 61 chi-squares of folds - 1 degrees of freedom, with its standard error.
    error = (2 * (folds - 1) / len(first)) ** 0.5
    assert abs(chi_square.mean() - (folds - 1)) < BOUND * error
    assert chi_square[index[-1]] < 25  # the patient of 60 images


def test_groups_that_are_larger_than_a_split_stay_in_the_train_split():
    """60 of 100 images are one group; 20 are wanted."""
    dataset = dataset_of([{"a": 60}], {"a": 40, "b": 10})
    for seed in range(10):
        split = random_split(dataset, seed=seed)
        assert split.where(split="validation").counts() == {"a": 20, "b": 2}


def test_the_wanted_number_is_met_with_single_images():
    dataset = skewed()
    whole = dataset.counts()
    for seed in range(10):
        found = random_split(dataset, validation=0.25, seed=seed).where(split="validation").counts()
        assert all(abs(found[k] - whole[k] / 4) <= 0.5 for k in whole)
