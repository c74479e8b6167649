"""Stratified random splits, and folds as validation splits.

An image's split is drawn from its content: a hash of the seed, the split's name, the digest and the
label. Neither the order nor the names of the files matter, and without groups, adding or removing
an image moves few others. Groups are drawn with the same probability as single images; see
:mod:`.draw_groups`.
"""

from __future__ import annotations

import numbers
import re
from collections.abc import Sequence
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from kindsight.dataset.columns.codes import CodeColumn
from kindsight.dataset.columns.convert import count_pairs, count_values, has_missing, take_rows
from kindsight.dataset.names import n_images, quoted
from kindsight.dataset.splits.choose_groups import choose_groups, images_per_class
from kindsight.dataset.splits.groups import (
    SMALLER_GROUPS,
    build_groups,
    content_keys,
    fold_indices,
    group_indices,
    groups_per_class,
    split_codes,
)
from kindsight.dataset.splits.leakage import duplicate_notes
from kindsight.dataset.table import SPLITS, ImageDataset
from kindsight.errors import DatasetError, SettingsError

__all__ = [
    "check_group_counts", "fold_split", "is_already_split", "parse_fold", "random_split",
    "rows_to_split", "split_fractions",
]  # fmt: skip

_SHOWN_CLASSES = 8
_FOLD = re.compile(r"\s*(\d{1,4})\s*(?:/|of)\s*(\d{1,4})\s*")


def random_split(
    dataset: ImageDataset, *, validation: float | int = 0.2, test: float | int = 0.0, seed: int = 0
) -> ImageDataset:
    """Split a dataset at random, stratified by class; existing splits are respected.

    Byte-identical images and images of one group stay together. Over the seeds, a group is in a
    split as often as a single image of its class, whatever its size. Each class's number of images
    in a split is within one image of its exact fraction, and at least one, if any choice of groups
    is (among the first 64 groups by key, if there are more). The numbers take precedence: a group
    with more images of a class than the split should have is only used if the others do not
    suffice, and if few choices of groups have the right numbers, their groups are drawn more often
    than others.

    Validation and test images that the dataset already has stay. If it has a train and a validation
    split, nothing changes. If it has a test split, only a validation split is taken from the other
    images. If it has only a train split, both are taken from it.

    Parameters
    ----------
    dataset : ImageDataset
        With labels and digests in all rows.
    validation, test : float or int
        A fraction, 0 <= fraction < 1, or a number of images, of those that are split here; 0 for
        no such split.
    seed : int
        Another seed gives another split.

    Returns
    -------
    ImageDataset
        Every row has a split; the notes name duplicates.

    Raises
    ------
    DatasetError
        If a class has too few groups to be in every split, or there are no images to train on.
    SettingsError
        If `validation` or `test` is invalid, or both leave no images to train on.
    ValueError
        If a row has no digest or no label.
    """
    if is_already_split(dataset):
        notes = duplicate_notes(dataset)
        if test and not len(dataset.rows_in("test")):
            notes.append(f"No test split was taken (test={test}): the data are already split.")
        return dataset.with_notes(*notes)
    rows = rows_to_split(dataset)
    fractions = split_fractions(dataset, rows, validation, test)
    result = dataset.with_columns(split=_draw_splits(dataset, rows, fractions, seed))
    return result.with_notes(*duplicate_notes(result))


def is_already_split(dataset: ImageDataset) -> bool:
    """Return whether the dataset's own splits leave nothing to split."""
    present = count_values(dataset.split)
    return {"train", "validation"} <= set(present) and None not in present


def rows_to_split(dataset: ImageDataset, *, need_digests: bool = True) -> NDArray[np.int64]:
    """Return the rows that have no split yet, or are in the train split.

    Raises
    ------
    DatasetError
        If there are none.
    ValueError
        If a row has no digest or no label.
    """
    rows = dataset.rows_in("train", None)
    if not len(rows):
        there = ", ".join(f"{n_images(n)} in {k}" for k, n in dataset.split_counts().items() if n)
        raise DatasetError(
            f"There are no images to train on: the data have {there}. Add a folder 'train', or "
            "images of this split in the table or split file; or leave the splits out for a random "
            "split."
        )
    if need_digests and has_missing(dataset.digest):
        raise ValueError("every row needs a digest; exclude unreadable images first")
    if None in count_values(take_rows(dataset.label, rows)):
        raise ValueError("every row that is split needs a label")
    return rows


def split_fractions(
    dataset: ImageDataset, rows: NDArray[np.int64], validation: float | int, test: float | int
) -> dict[str, Fraction]:
    """Return the splits to take from `rows`, test first, as exact fractions of them.

    Raises
    ------
    SettingsError
        If `validation` or `test` is invalid, or both leave no images to train on.
    """
    present = count_values(dataset.split)
    classes = len(count_values(take_rows(dataset.label, rows)))
    fractions: dict[str, Fraction] = {}
    for name, value in (("test", test), ("validation", validation)):
        fraction = _fraction(value, name, len(rows), classes)
        if fraction and name not in present:
            fractions[name] = fraction
    if sum(fractions.values()) >= 1:
        raise SettingsError(
            "`validation` and `test` together must leave images to train on; got "
            f"validation={validation} and test={test} of {n_images(len(rows))}."
        )
    return fractions


def _fraction(value: float | int, name: str, n: int, classes: int) -> Fraction:
    """Convert a fraction or a number of images to an exact fraction of `n` images."""
    if _is(numbers.Integral, value) and 0 <= value < n:
        if 0 < value < classes:
            raise SettingsError(
                f"`{name}` must be at least {classes}, one image of each class; got {value}."
            )
        return Fraction(int(value), n)
    if _is(numbers.Real, value) and not _is(numbers.Integral, value) and 0 <= value < 1:
        # The decimal as written, not its binary approximation: 0.29 of 100 is 29.
        return Fraction(str(float(value)))
    raise SettingsError(
        f"`{name}` must be a fraction below 1 or a number of images below {n:,}; got {value!r}."
    )


def _is(kind: type, value: object) -> bool:
    """Like isinstance, but bool is not a number."""
    return isinstance(value, kind) and not isinstance(value, bool)


def _draw_splits(
    dataset: ImageDataset, rows: NDArray[np.int64], fractions: dict[str, Fraction], seed: int
) -> CodeColumn:
    """Take the splits one after the other; the rest is the train split."""
    targets, indices = dataset.targets, group_indices(dataset)
    counts = dict(enumerate(np.bincount(targets[rows]).tolist()))
    counts = {k: n for k, n in counts.items() if n}
    split = split_codes(dataset)
    if fractions:
        check_group_counts(dataset, rows, indices, list(fractions))
    left = rows
    split[rows] = SPLITS.index("train")
    for i, (name, fraction) in enumerate(fractions.items()):
        reserve = len(fractions) - i
        digests, labels = (take_rows(column, left) for column in (dataset.digest, dataset.label))
        keys = content_keys(seed, name, (digest or "" for digest in digests), labels)
        groups = build_groups(left, targets[left], indices[left], keys)
        exact = {k: fraction * n for k, n in counts.items()}
        wanted = images_per_class(counts, fraction, reserve)
        split[choose_groups(groups, wanted, reserve, exact)] = SPLITS.index(name)
        left = left[split[left] == SPLITS.index("train")]
    result = CodeColumn(split, SPLITS)
    classes = CodeColumn(targets, range(len(dataset.classes)))
    present = set(count_pairs(classes.take(rows), result.take(rows)))
    _check_every_class_in_every_split(dataset, present, ["train", *fractions])
    return result


def check_group_counts(
    dataset: ImageDataset,
    rows: NDArray[np.int64],
    indices: NDArray[np.int64],
    splits: Sequence[str],
    folds: int = 0,
) -> None:
    """Raise DatasetError if a class has too few groups to be in every split, or in every fold.

    - `dataset`: with labels.
    - `rows`: the rows that are split.
    - `indices`: the group index of every row of the dataset.
    - `splits`: the splits other than the train split.
    - `folds`: for cross-validation: the number of folds, in place of `splits`.
    """
    needed = folds or len(splits) + 1
    groups = groups_per_class(dataset.targets[rows], indices[rows], len(dataset.classes))
    found = dict(zip(dataset.classes, groups.tolist(), strict=True))
    counts = count_values(take_rows(dataset.label, rows))
    small = [name for name in dataset.present_classes() if 0 < found[name] < needed]
    if not small:
        return
    grouped = any(name is not None for name in count_values(take_rows(dataset.group, rows)))
    noun = "group" if grouped else "distinct image"
    named = "; ".join(
        f"class {quoted(name)} has {found[name]:,} {noun}{'' if found[name] == 1 else 's'}"
        + (f" ({n_images(counts[name])})" if grouped or found[name] != counts[name] else "")
        for name in small[:_SHOWN_CLASSES]
    )
    if len(small) > _SHOWN_CLASSES:
        named += f"; and {len(small) - _SHOWN_CLASSES:,} more classes"
    names = sorted(splits, reverse=True)
    cures = []
    if folds:
        what = f"{folds} folds need"
        if min(found[name] for name in small) >= 2:  # there are no fewer folds than 2
            cures.append("use fewer folds")
    else:
        what = f"a {' and a '.join(names)} split need{'s' if len(names) == 1 else ''}"
        cures.append("use " + " or ".join(f"`{name}=0`" for name in names))
    cures.append(SMALLER_GROUPS if grouped else "add images")
    cures[0] = cures[0][0].upper() + cures[0][1:]
    raise DatasetError(
        f"C{named[1:]}; {what} at least {needed} {noun}s in each class. "
        f"{', '.join(cures)}, or leave the class out."
    )


def _check_every_class_in_every_split(
    dataset: ImageDataset, present: set[tuple[int, str | None]], splits: Sequence[str]
) -> None:
    """Raise DatasetError if groups of several classes leave a class out of a split."""
    for k in sorted({k for k, _ in present}):
        for name in splits:
            if (k, name) not in present:
                raise DatasetError(
                    f"The {name} split has no images of class {quoted(dataset.classes[k])}, "
                    "because groups contain images of several classes. Use fewer splits "
                    f"(`validation=0` or `test=0`), or {SMALLER_GROUPS}."
                )


def parse_fold(text: str) -> tuple[int, int]:
    """Parse ``"2/5"``, the second of five folds; SettingsError for anything else."""
    match = _FOLD.fullmatch(text) if isinstance(text, str) else None
    fold, folds = (int(match[1]), int(match[2])) if match else (0, 0)
    if not 1 <= fold <= folds or folds < 2:
        raise SettingsError(
            f"`fold` must be K/N with N at least 2 and K from 1 to N, such as 2/5; got {text!r}."
        )
    return fold, folds


def fold_split(
    dataset: ImageDataset, fold: int, folds: int, *, test: float | int = 0.0, seed: int = 0
) -> ImageDataset:
    """Use one of several folds as the validation split; each image is in exactly one fold.

    Stratified by class; byte-identical images and images of one group stay together. A test split
    is taken first, the same for every fold.

    - `dataset`: with labels and digests in all rows. Existing train and test splits are respected.
    - `fold`: from 1 to `folds`.
    - `folds`: at least 2.
    - `test`: as in :func:`kindsight.dataset.random_split`.
    - `seed`: another seed gives other folds.

    Returns
    -------
    ImageDataset
        Every row has a split.

    Raises
    ------
    DatasetError
        If a class has fewer groups than there are folds, or there is a validation split already.
    SettingsError
        If `fold`, `folds` or `test` is invalid.
    """
    if not 1 <= fold <= folds or folds < 2:
        raise SettingsError(f"`fold` must be from 1 to {folds}, of at least 2 folds; got {fold}.")
    check_no_validation(dataset)
    whole = random_split(dataset, validation=0.0, test=test, seed=seed)
    rows = whole.rows_in("train")
    subset = whole[rows]
    groups = group_indices(subset)
    check_group_counts(subset, np.arange(len(subset)), groups, [], folds)
    held_out = fold_indices(subset.targets, groups, folds, seed, subset.digest) == fold - 1
    split = split_codes(whole)
    split[rows[held_out]] = SPLITS.index("validation")
    return whole.with_columns(split=CodeColumn(split, SPLITS))


def check_no_validation(dataset: ImageDataset) -> None:
    """Raise DatasetError if the data have a validation split, which folds would replace."""
    if len(dataset.rows_in("validation")):
        raise DatasetError(
            "Folds cannot be used: the data already have a validation split of "
            f"{n_images(dataset.split_counts()['validation'])}. Leave out `fold` or `folds`."
        )
