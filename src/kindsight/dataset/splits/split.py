"""Divide a dataset into training, validation and test part.

Which part an image falls into is drawn from its content: the key is a hash of the seed, the
part's name, the content digest and the label. So neither the order of files nor their names
matter, and an image added or taken away moves few others.
"""

from __future__ import annotations

import numbers
import re
from collections import Counter
from fractions import Fraction

from kindsight.dataset.names import images, shown
from kindsight.dataset.splits.choose import apportion, choose
from kindsight.dataset.splits.folds import fold_indices
from kindsight.dataset.splits.groups import Unit, build_groups, content_key, group_indices
from kindsight.dataset.splits.leakage import duplicate_notes
from kindsight.dataset.table import ImageDataset
from kindsight.errors import DatasetError, SettingsError

__all__ = [
    "fold_indices",
    "group_indices",
    "is_already_split",
    "parse_fold",
    "random_split",
    "rows_to_split",
    "split_fold",
    "split_fractions",
]


def random_split(
    dataset: ImageDataset,
    *,
    validation: float | int = 0.2,
    test: float | int = 0.0,
    seed: int = 0,
) -> ImageDataset:
    """Give every image its part; splits that are given already are respected.

    Stratified by class with largest remainders: each class's part is within one image of its
    exact share, and at least one image. Byte-identical images and images of one group stay
    together; where they are many at once, the numbers come as near as they allow.

    What is given decides what is done. Rows that are already in the validation or test part stay
    there. With a training and a validation part given, nothing is changed. With a test part
    given, only the validation part is taken, from the training part and from rows without a
    part. With a training part alone both are taken from it.

    Parameters
    ----------
    dataset : ImageDataset
        With labels and digests in all rows.
    validation, test : float or int
        A fraction, 0 <= fraction < 1, or a number of images, of those that are divided here;
        0 for none.
    seed : int
        Another seed gives another division.

    Returns
    -------
    ImageDataset
        Every row in exactly one part; with notes on what was found.

    Raises
    ------
    DatasetError
        If a class has too few different images to be in every part, or nothing can be trained
        on.
    SettingsError
        If `validation` or `test` is not a fraction or a number, or both leave nothing to train.
    ValueError
        If a row has no digest or no label.
    """
    if is_already_split(dataset):
        notes = duplicate_notes(dataset)
        if test and "test" not in dataset.split:
            notes.append(f"No test part was made (test={test}): the splits given have none.")
        return dataset.with_notes(*notes)
    pool = rows_to_split(dataset)
    parts = split_fractions(dataset, pool, validation, test)
    divided = dataset.with_columns(split=_divide(dataset, pool, parts, seed))
    return divided.with_notes(*duplicate_notes(divided))


def is_already_split(dataset: ImageDataset) -> bool:
    """Say whether the splits that are given leave nothing to divide."""
    return {"train", "validation"} <= set(dataset.split) and None not in dataset.split


def rows_to_split(dataset: ImageDataset) -> list[int]:
    """Return the rows that are in no part yet, or in the training part.

    Raises
    ------
    DatasetError
        If there are none.
    ValueError
        If a row has no digest or no label.
    """
    pool = [row for row, split in enumerate(dataset.split) if split in (None, "train")]
    if not pool:
        raise DatasetError(
            "A training part is needed. Received: "
            + ", ".join(f"{images(n)} in {k}" for k, n in dataset.split_counts().items() if n)
            + ". Add a folder 'train', or give the class folders without a split folder."
        )
    if None in dataset.digest:
        raise ValueError("every row needs a digest; set images that cannot be read aside first")
    if any(dataset.label[row] is None for row in pool):
        raise ValueError("every row to be divided needs a label")
    return pool


def split_fractions(
    dataset: ImageDataset, pool: list[int], validation: float | int, test: float | int
) -> dict[str, Fraction]:
    """Return the parts that are to be taken from the pool, the test part first, and their shares.

    Raises
    ------
    SettingsError
        If one is not a fraction or a number, or both leave nothing to train.
    """
    given = set(dataset.split)
    classes = len({dataset.label[row] for row in pool})
    parts: dict[str, Fraction] = {}
    for name, value in (("test", test), ("validation", validation)):
        share = _share(value, name, len(pool), classes)
        if share and name not in given:
            parts[name] = share
    if sum(parts.values()) >= 1:
        raise SettingsError(
            "validation and test together must leave images to train on. "
            f"Received: validation={validation}, test={test}, of {images(len(pool))}"
        )
    return parts


def _share(value: float | int, name: str, n: int, classes: int) -> Fraction:
    """Turn a fraction or a number of images into an exact share of `n` images."""
    if _is(numbers.Integral, value) and 0 <= value < n:
        if 0 < value < classes:
            raise SettingsError(
                f"{name} must be at least {classes}, one image of each class. Received: {value}"
            )
        return Fraction(int(value), n)
    if _is(numbers.Real, value) and not _is(numbers.Integral, value) and 0 <= value < 1:
        # The decimal that was written, not its binary neighbour: 0.29 of 100 is 29.
        return Fraction(str(float(value)))
    raise SettingsError(
        f"{name} must be a fraction, 0 <= {name} < 1, or a number of images below the {n:,} "
        f"that there are. Received: {value!r}"
    )


def _is(kind: type, value: object) -> bool:
    """Say whether a number is of a kind: NumPy's numbers too, truth values never."""
    return isinstance(value, kind) and not isinstance(value, bool)


def _divide(
    dataset: ImageDataset, pool: list[int], parts: dict[str, Fraction], seed: int
) -> list[str | None]:
    """Draw the parts one after the other; what is left over trains."""
    targets: list[int] = dataset.targets.tolist()
    together: list[int] = group_indices(dataset).tolist()
    counts = Counter(targets[row] for row in pool)
    split: list[str | None] = list(dataset.split)
    left = pool
    for row in pool:
        split[row] = "train"
    for i, (name, share) in enumerate(parts.items()):
        reserve = len(parts) - i
        waiting = build_groups(left, targets, together, _keys(dataset, name, seed))
        if i == 0:
            _check_units(dataset, waiting, counts, reserve + 1)
        exact = {k: share * n for k, n in counts.items()}
        for unit in choose(waiting, apportion(counts, share, reserve), reserve, exact):
            for row in unit.rows:
                split[row] = name
        left = [row for row in left if split[row] == "train"]
    _check_parts(dataset, [(targets[row], split[row]) for row in pool], {"train", *parts})
    return split


def _keys(dataset: ImageDataset, purpose: str, seed: int) -> list[bytes]:
    pairs = zip(dataset.digest, dataset.label, strict=True)
    return [content_key(seed, purpose, digest or "", label or "") for digest, label in pairs]


def _check_units(
    dataset: ImageDataset, waiting: list[Unit], counts: Counter[int], needed: int
) -> None:
    """Refuse classes that cannot have an image in every part."""
    found = Counter(k for unit in waiting for k in unit.counts)
    small = sorted(k for k in counts if found[k] < needed)
    if not small:
        return
    named = [
        f"{shown(dataset.classes[k])} with {counts[k]:,}"
        + ("" if found[k] == counts[k] else f" ({found[k]:,} if copies and groups count once)")
        for k in small[:8]
    ]
    more = f" and {len(small) - 8:,} more classes" if len(small) > 8 else ""
    raise DatasetError(
        f"Every class needs at least {needed} images, one for each part. Received: "
        f"{', '.join(named)}{more}. Add images, or leave the class out."
    )


def _check_parts(
    dataset: ImageDataset, pairs: list[tuple[int, str | None]], parts: set[str]
) -> None:
    """Refuse a division that leaves a class out of a part: groups can make one inevitable."""
    present = set(pairs)
    for k in sorted({k for k, _ in pairs}):
        for part in sorted(parts):
            if (k, part) not in present:
                raise DatasetError(
                    "Every class must be in every part. Received: groups that hold images of "
                    f"several classes and leave {shown(dataset.classes[k])} out of the {part} "
                    "part. Make the groups smaller, or ask for fewer parts."
                )


# SECTION: One fold of a cross-validation as the validation part.

_FOLD = re.compile(r"\s*(\d{1,4})\s*(?:/|of)\s*(\d{1,4})\s*")


def parse_fold(text: str) -> tuple[int, int]:
    """Read ``"2/5"``, the second of five folds.

    Raises
    ------
    SettingsError
        For anything else.
    """
    match = _FOLD.fullmatch(text) if isinstance(text, str) else None
    fold, folds = (int(match[1]), int(match[2])) if match else (0, 0)
    if not 1 <= fold <= folds or folds < 2:
        raise SettingsError(f"fold must be such as 2/5, the second of five. Received: {text!r}.")
    return fold, folds


def split_fold(
    dataset: ImageDataset, fold: int, folds: int, *, test: float | int = 0.0, seed: int = 0
) -> ImageDataset:
    """Make one of several folds the validation part; over all folds each image is in it once.

    Stratified by class; byte-identical images and images of one group stay together. A test
    part is taken first, the same for every fold.

    Parameters
    ----------
    dataset : ImageDataset
        With labels and digests in all rows. A training and a test part that are given stay.
    fold : int
        Which, from 1 to `folds`.
    folds : int
        How many, at least 2.
    test : float or int
        As in :func:`kindsight.dataset.random_split`.
    seed : int
        Another seed gives other folds.

    Returns
    -------
    ImageDataset
        Every row in exactly one part.

    Raises
    ------
    DatasetError
        If a class has fewer different images than there are folds, or there is a validation part
        already.
    SettingsError
        If there is no such fold, or `test` cannot be.
    """
    if not 1 <= fold <= folds or folds < 2:
        raise SettingsError(f"fold must be from 1 to {folds}, of 2 or more. Received: {fold}")
    if "validation" in dataset.split:
        raise DatasetError(
            "Folds are made where no validation part is given. Received: "
            f"{dataset.split_counts()['validation']:,} images of one. Leave fold away."
        )
    whole = random_split(dataset, validation=0.0, test=test, seed=seed)
    rows = [row for row, part in enumerate(whole.split) if part == "train"]
    pool = whole[rows]
    numbers = group_indices(pool)
    _check_classes(pool, numbers.tolist(), folds)
    digests = [str(digest) for digest in pool.digest]
    held = fold_indices(pool.targets, numbers, folds, seed, digests) == fold - 1
    split = list(whole.split)
    for row in (row for row, out in zip(rows, held, strict=True) if out):
        split[row] = "validation"
    return whole.with_columns(split=split)


def _check_classes(pool: ImageDataset, numbers: list[int], folds: int) -> None:
    found = Counter(label for label, _ in set(zip(pool.label, numbers, strict=True)))
    small = [name for name in pool.present_classes() if found[name] < folds]
    if small:
        raise DatasetError(
            f"Every class needs at least {folds} images, one for each fold. Received: "
            f"{shown(small[0])} with {found[small[0]]:,} if copies and groups count once. Ask for "
            "fewer folds."
        )
