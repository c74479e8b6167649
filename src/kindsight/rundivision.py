"""Dividing the pictures of a run: into parts, without leaks, and written down."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kindsight.cache import Cache
from kindsight.catalog import Catalog, open_parts
from kindsight.catalog.checks import CheckContext, all_checks, measure_catalog, run_checks
from kindsight.catalog.leaks import LEAKS_FILE, Leaks, write_leaks
from kindsight.catalog.names import shown_list
from kindsight.catalog.split_file import write_split
from kindsight.errors import CatalogError
from kindsight.files import write_csv
from kindsight.runresult import Scored
from kindsight.settings import TrainSettings
from kindsight.trained_on import TRAINED_ON_FILE, TrainedPictures
from kindsight.training.alike import find_alike
from kindsight.training.common import Progress
from kindsight.training.kinds import Pictures

__all__ = ["SPLIT_FILE", "Divided", "divide", "open_data", "rows_of", "write_problems"]

SPLIT_FILE = "split.csv"

CHEAP = ("KS402", "KS601", "KS602")
"""Checks that need nothing but what a training has in hand. What KS401, KS501 and KS503 would say
is said where the pictures are opened and divided."""

NOTES_EACH = 3


@dataclass(frozen=True)
class Divided:
    """Pictures with their parts.

    Parameters
    ----------
    pictures : Pictures
        Whose catalog states the parts; what was left out is in none.
    leaks : Leaks
        What was found in several parts, and what was done.
    trained_on : TrainedPictures
        The training part, to be known again.
    with_seed : callable
        From another seed to the rows of the validation part that it would have made.
    """

    pictures: Pictures
    leaks: Leaks
    trained_on: TrainedPictures
    with_seed: Callable[[int], NDArray[np.int64]]

    def written(self, folder: Path) -> Divided:
        """Write split.csv, trained_on.npz and, where there is something to say, leaks.csv."""
        write_split(self.pictures.catalog, folder / SPLIT_FILE)
        self.trained_on.write(folder / TRAINED_ON_FILE)
        if self.leaks.table:
            write_leaks(self.leaks, folder / LEAKS_FILE)
        return self

    def facts(self, scored: Mapping[str, Scored]) -> dict[str, Any]:
        """Return what ``bundle.json`` says of the data, and of the scores on their parts."""
        catalog = self.pictures.catalog
        metrics = {name: part.evaluation.to_dict() for name, part in scored.items()}
        return {
            "data": {
                "digest": catalog.digest_of_data(),
                "pictures": catalog.split_counts(),
                "set_aside": len(self.pictures.problems),
                "leaks": self.leaks.to_dict(),
            },
            "metrics": {"validation": None, "test": None, **metrics},
        }


def open_data(settings: TrainSettings) -> Catalog:
    """Return the catalog of the data that settings name.

    Raises
    ------
    CatalogError
        If no classifier can be made of them.
    """
    return open_parts(
        settings.data,
        settings.data_options(),
        validation=settings.validation_data,
        test=settings.test_data,
    )


def rows_of(catalog: Catalog, split: str) -> NDArray[np.int64]:
    """Return the rows of one part."""
    return np.array([row for row, name in enumerate(catalog.split) if name == split], np.int64)


def divide(
    pictures: Pictures, settings: TrainSettings, catalog: Catalog, progress: Progress | None = None
) -> Divided:
    """Divide what could be read, after making sure that no class was lost.

    Parameters
    ----------
    pictures : Pictures
        The readable ones.
    settings : TrainSettings
        How.
    catalog : Catalog
        All pictures, also those that cannot be read.
    progress : callable, optional
        Told of reading dates, where they are asked for.

    Raises
    ------
    CatalogError
        If a class has no picture left, or the pictures cannot be divided so.
    """
    left = pictures.catalog.counts()
    if lost := [name for name in catalog.classes if not left.get(name)]:
        raise CatalogError(
            "Every class must have pictures that can be read. Received: none left of "
            f"{', '.join(lost)}; problems.csv in the run folder says why."
        )
    readable = pictures.catalog
    alike = find_alike(readable, pictures.small_grey)

    def taken() -> NDArray[np.float64]:
        def step(done: int, total: int) -> None:
            if progress is not None:
                progress("dates", done, total)

        cache = Cache(settings.training().cache)
        _, measured = measure_catalog(readable, cache, workers=settings.workers, progress=step)
        return np.asarray(measured.taken, np.float64)

    groups = [group.tolist() for group in alike.groups]
    mended, leaks = settings.division().without_leaks(readable, groups, taken)
    mended = mended.with_notes(*_cheap_notes(alike.context))
    train = rows_of(mended, "train")
    known = TrainedPictures(
        frozenset(str(mended.digest[row]) for row in train), alike.hashes[train]
    )

    def with_seed(seed: int) -> NDArray[np.int64]:
        other = replace(settings, seed=seed).division()
        try:
            return rows_of(other.without_leaks(readable, groups, taken)[0], "validation")
        except CatalogError:  # groups may allow one division and not another
            return np.empty(0, np.int64)

    return Divided(pictures.with_catalog(mended), leaks, known, with_seed)


def _cheap_notes(context: CheckContext) -> Iterator[str]:
    """Say what the cheap checks found."""
    for result in run_checks(context, checks=[c for c in all_checks() if c.code in CHEAP]):
        for finding in result.findings[:NOTES_EACH]:
            named = f" ({shown_list(finding.paths, 2)})" if finding.rows else ""
            yield f"{finding.code}: {finding.message[:-1]}{named}."
        if len(result.findings) > NOTES_EACH:
            more = len(result.findings) - NOTES_EACH
            yield f"{result.code}: and {more:,} more; kindsight check lists them."


def write_problems(folder: Path, pictures: Pictures) -> None:
    """Write which pictures cannot be read, and why."""
    rows = (
        (error.path, label or "", error.code, error.reason)
        for error, label in zip(pictures.problems, pictures.problem_labels, strict=True)
    )
    write_csv(folder / "problems.csv", ("path", "label", "code", "reason"), rows)
