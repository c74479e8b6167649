"""Divide a catalog into training, validation and test part.

Which part a picture falls into is drawn from its content: the key is a hash of the seed, the
part's name, the content digest and the label. So neither the order of files nor their names
matter, and a picture added or taken away moves few others.
"""

from __future__ import annotations

import numbers
from collections import Counter
from fractions import Fraction

from kindsight.catalog.catalog import Catalog
from kindsight.catalog.choose import apportion, choose
from kindsight.catalog.folds import fold_indices
from kindsight.catalog.leaks import copy_notes
from kindsight.catalog.names import pictures, shown
from kindsight.catalog.units import Unit, draw, make_units, units
from kindsight.errors import CatalogError, SettingsError

__all__ = [
    "fold_indices",
    "given_enough",
    "shares_of",
    "split_catalog",
    "units",
    "what_to_divide",
]


def split_catalog(
    catalog: Catalog,
    *,
    validation: float | int = 0.2,
    test: float | int = 0.0,
    seed: int = 0,
) -> Catalog:
    """Give every picture its part; splits that are given already are respected.

    Stratified by class with largest remainders: each class's part is within one picture of its
    exact share, and at least one picture. Byte-identical pictures and pictures of one group stay
    together; where they are many at once, the numbers come as near as they allow.

    What is given decides what is done. Rows that are already in the validation or test part stay
    there. With a training and a validation part given, nothing is changed. With a test part
    given, only the validation part is taken, from the training part and from rows without a
    part. With a training part alone both are taken from it.

    Parameters
    ----------
    catalog : Catalog
        With labels and digests in all rows.
    validation, test : float or int
        A fraction, 0 <= fraction < 1, or a number of pictures, of those that are divided here;
        0 for none.
    seed : int
        Another seed gives another division.

    Returns
    -------
    Catalog
        Every row in exactly one part; with notes on what was found.

    Raises
    ------
    CatalogError
        If a class has too few different pictures to be in every part, or nothing can be trained
        on.
    SettingsError
        If `validation` or `test` is not a fraction or a number, or both leave nothing to train.
    ValueError
        If a row has no digest or no label.
    """
    if given_enough(catalog):
        notes = copy_notes(catalog)
        if test and "test" not in catalog.split:
            notes.append(f"No test part was made (test={test}): the splits given have none.")
        return catalog.with_notes(*notes)
    pool = what_to_divide(catalog)
    parts = shares_of(catalog, pool, validation, test)
    divided = catalog.with_columns(split=_divide(catalog, pool, parts, seed))
    return divided.with_notes(*copy_notes(divided))


def given_enough(catalog: Catalog) -> bool:
    """Say whether the splits that are given leave nothing to divide."""
    return {"train", "validation"} <= set(catalog.split) and None not in catalog.split


def what_to_divide(catalog: Catalog) -> list[int]:
    """Return the rows that are in no part yet, or in the training part.

    Raises
    ------
    CatalogError
        If there are none.
    ValueError
        If a row has no digest or no label.
    """
    pool = [row for row, split in enumerate(catalog.split) if split in (None, "train")]
    if not pool:
        raise CatalogError(
            "A training part is needed. Received: "
            + ", ".join(f"{pictures(n)} in {k}" for k, n in catalog.split_counts().items() if n)
            + ". Add a folder 'train', or give the class folders without a split folder."
        )
    if None in catalog.digest:
        raise ValueError("every row needs a digest; set pictures that cannot be read aside first")
    if any(catalog.label[row] is None for row in pool):
        raise ValueError("every row to be divided needs a label")
    return pool


def shares_of(
    catalog: Catalog, pool: list[int], validation: float | int, test: float | int
) -> dict[str, Fraction]:
    """Return the parts that are to be taken from the pool, the test part first, and their shares.

    Raises
    ------
    SettingsError
        If one is not a fraction or a number, or both leave nothing to train.
    """
    given = set(catalog.split)
    classes = len({catalog.label[row] for row in pool})
    parts: dict[str, Fraction] = {}
    for name, value in (("test", test), ("validation", validation)):
        share = _share(value, name, len(pool), classes)
        if share and name not in given:
            parts[name] = share
    if sum(parts.values()) >= 1:
        raise SettingsError(
            "validation and test together must leave pictures to train on. "
            f"Received: validation={validation}, test={test}, of {pictures(len(pool))}"
        )
    return parts


def _share(value: float | int, name: str, n: int, classes: int) -> Fraction:
    """Turn a fraction or a number of pictures into an exact share of `n` pictures."""
    if _is(numbers.Integral, value) and 0 <= value < n:
        if 0 < value < classes:
            raise SettingsError(
                f"{name} must be at least {classes}, one picture of each class. Received: {value}"
            )
        return Fraction(int(value), n)
    if _is(numbers.Real, value) and not _is(numbers.Integral, value) and 0 <= value < 1:
        # The decimal that was written, not its binary neighbour: 0.29 of 100 is 29.
        return Fraction(str(float(value)))
    raise SettingsError(
        f"{name} must be a fraction, 0 <= {name} < 1, or a number of pictures below the {n:,} "
        f"that there are. Received: {value!r}"
    )


def _is(kind: type, value: object) -> bool:
    """Say whether a number is of a kind: NumPy's numbers too, truth values never."""
    return isinstance(value, kind) and not isinstance(value, bool)


def _divide(
    catalog: Catalog, pool: list[int], parts: dict[str, Fraction], seed: int
) -> list[str | None]:
    """Draw the parts one after the other; what is left over trains."""
    targets: list[int] = catalog.targets.tolist()
    together: list[int] = units(catalog).tolist()
    counts = Counter(targets[row] for row in pool)
    split: list[str | None] = list(catalog.split)
    left = pool
    for row in pool:
        split[row] = "train"
    for i, (name, share) in enumerate(parts.items()):
        reserve = len(parts) - i
        waiting = make_units(left, targets, together, _keys(catalog, name, seed))
        if i == 0:
            _check_units(catalog, waiting, counts, reserve + 1)
        exact = {k: share * n for k, n in counts.items()}
        for unit in choose(waiting, apportion(counts, share, reserve), reserve, exact):
            for row in unit.rows:
                split[row] = name
        left = [row for row in left if split[row] == "train"]
    _check_parts(catalog, [(targets[row], split[row]) for row in pool], {"train", *parts})
    return split


def _keys(catalog: Catalog, purpose: str, seed: int) -> list[bytes]:
    pairs = zip(catalog.digest, catalog.label, strict=True)
    return [draw(seed, purpose, digest or "", label or "") for digest, label in pairs]


def _check_units(catalog: Catalog, waiting: list[Unit], counts: Counter[int], needed: int) -> None:
    """Refuse classes that cannot have a picture in every part."""
    found = Counter(k for unit in waiting for k in unit.counts)
    small = sorted(k for k in counts if found[k] < needed)
    if not small:
        return
    named = [
        f"{shown(catalog.classes[k])} with {counts[k]:,}"
        + ("" if found[k] == counts[k] else f" ({found[k]:,} if copies and groups count once)")
        for k in small[:8]
    ]
    more = f" and {len(small) - 8:,} more classes" if len(small) > 8 else ""
    raise CatalogError(
        f"Every class needs at least {needed} pictures, one for each part. Received: "
        f"{', '.join(named)}{more}. Add pictures, or leave the class out."
    )


def _check_parts(catalog: Catalog, pairs: list[tuple[int, str | None]], parts: set[str]) -> None:
    """Refuse a division that leaves a class out of a part: groups can make one inevitable."""
    present = set(pairs)
    for k in sorted({k for k, _ in pairs}):
        for part in sorted(parts):
            if (k, part) not in present:
                raise CatalogError(
                    "Every class must be in every part. Received: groups that hold pictures of "
                    f"several classes and leave {shown(catalog.classes[k])} out of the {part} "
                    "part. Make the groups smaller, or ask for fewer parts."
                )
