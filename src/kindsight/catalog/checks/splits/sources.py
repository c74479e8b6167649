"""KS504 and KS505: parts, and classes, that come from different sources.

Where all pictures of one class were taken by one camera, cut to one size or saved by one program, a
network learns the camera, the size or the program. So it went with chest X-rays, whose hospital
could be told from the picture and told the disease (Zech et al. 2018, "Variable generalization
performance of a deep learning model to detect pneumonia in chest radiographs").
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from kindsight import chance
from kindsight.catalog.checks.context import CheckContext
from kindsight.catalog.checks.contract import Check, CheckResult
from kindsight.catalog.checks.splits.parts import NO_PARTS, stated_parts
from kindsight.catalog.checks.splits.telling import Telling, tell_apart
from kindsight.catalog.checks.splits.wording import difference
from kindsight.catalog.units import connected

__all__ = ["ClassesOfDifferentSources", "PartsOfDifferentSources"]

SOURCE = ("size", "proportion", "density", "format", "mode", "quality", "encoder", "camera")
"""What says how a picture came to be, and not what it shows."""

LOOK = ("brightness", "contrast", "sharpness", "colourfulness", "tint")
"""What says how a picture looks; parts that were divided at random do not differ in it."""

MUCH = 0.25
"""Skill, from guessing (0) to always right (1), from which on sources differ: two kinds are told
apart in more than 62.5%, surely."""

SOME = 0.10
"""Skill from which on a single measurement is named."""

FEWEST = 20
"""Pictures of a part or class; smaller ones are left out."""

SAMPLE = 20_000
NAMED = 3


class PartsOfDifferentSources(Check):
    """Training, validation and test part that can be told apart by measurements alone."""

    code = "KS504"
    title = "Parts of different sources"
    severity = "warning"
    advice = "If it is not meant, put the pictures together and divide them anew."

    def run(self, context: CheckContext) -> CheckResult:
        """Try to tell the parts apart."""
        names = stated_parts(context.catalog)
        if len(names) < 2:
            return self.not_applicable(NO_PARTS)
        place: dict[str | None, int] = {name: i for i, name in enumerate(names)}
        kinds = np.array([place.get(part, -1) for part in context.catalog.split], np.int64)
        return _compare(self, context, kinds, names, SOURCE + LOOK, "The parts")


class ClassesOfDifferentSources(Check):
    """Classes that can be told apart by size, format, encoder or camera alone."""

    code = "KS505"
    title = "Classes of different sources"
    severity = "warning"
    advice = "Gather every class from every source; test on pictures of another one."

    def run(self, context: CheckContext) -> CheckResult:
        """Try to tell the classes apart."""
        names = context.catalog.classes
        if len(context.catalog.present_classes()) < 2:
            return self.not_applicable("There are fewer than two classes.")
        return _compare(self, context, context.catalog.targets, names, SOURCE, "The classes")


def _compare(
    check: Check,
    context: CheckContext,
    kinds: NDArray[np.int64],
    names: tuple[str, ...],
    measurements: tuple[str, ...],
    what: str,
) -> CheckResult:
    rows, kinds, names = _enough(context, kinds, names)
    if len(names) < 2:
        return check.not_applicable(f"Fewer than two of them have {FEWEST} pictures.")
    columns = {
        name: column[rows]
        for name, column in _columns(context).items()
        if name in measurements and len(set(column[rows].tolist())) > 1
    }
    if not columns:
        return check.result([], len(rows))
    catalog = context.catalog
    units = connected([catalog.digest[r] for r in rows], [catalog.group[r] for r in rows])
    # On matrices as small as these, threads wait for each other longer than they work.
    with threadpool_limits(1, user_api="blas"):
        told = tell_apart(columns, kinds, units)
        if told.skill < MUCH:
            return check.result([], len(rows))
        alone = {name: tell_apart({name: column}, kinds, units) for name, column in columns.items()}
    ranked = sorted(alone, key=lambda name: -alone[name].skill)
    telling = [name for name in ranked[:NAMED] if alone[name].skill >= SOME] or ranked[:1]
    reasons = [difference(name, columns[name], kinds, names) for name in telling]
    message = (
        f"{what} can be told apart without looking at what they show: right for "
        f"{_percent(told)}, where guessing gives {told.chance:.0%}. What tells: "
        + "; ".join(reasons)
        + "."
    )
    finding = check.finding_outside(names, message, value=round(told.accuracy, 4))
    return check.result([finding], len(rows))


def _percent(told: Telling) -> str:
    return f"{told.accuracy:.0%} (95% interval {told.low:.0%}-{told.high:.0%}, all counting alike)"


def _enough(
    context: CheckContext, kinds: NDArray[np.int64], names: tuple[str, ...]
) -> tuple[NDArray[np.int64], NDArray[np.int64], tuple[str, ...]]:
    """Return the rows to look at, their kinds counted anew, and the names of these."""
    rows = context.readable_rows
    rows = rows[kinds[rows] >= 0]
    rows = rows[np.sort(chance.permutation(0, "check sources", 0, len(rows))[:SAMPLE])]
    counts = np.bincount(kinds[rows], minlength=len(names))
    kept = np.flatnonzero(counts >= FEWEST)
    rows = rows[np.isin(kinds[rows], kept)]
    return rows, np.searchsorted(kept, kinds[rows]), tuple(names[k] for k in kept)


def _columns(context: CheckContext) -> dict[str, NDArray[Any]]:
    """Gather what can tell: of measurements those that do not depend on each other's unit."""
    m = context.measurements
    with np.errstate(divide="ignore", invalid="ignore"):
        area = m.height.astype(np.float64) * m.width
        encoder = np.array(
            [
                f"{s} {'progressive' if p else ''} {e}".strip()
                for s, p, e in zip(m.subsampling, m.progressive, m.encoder, strict=True)
            ],
            object,
        )
        return {
            "size": np.sqrt(area),
            "proportion": m.width / m.height.astype(np.float64),
            "density": np.where(m.format == "", np.nan, 8 * m.bytes / area),
            "format": m.format,
            "mode": m.mode,
            "quality": m.quality.astype(np.float64),
            "encoder": encoder,
            "camera": m.camera,
            "brightness": m.brightness,
            "contrast": m.contrast,
            "sharpness": m.sharpness,
            "colourfulness": m.colourfulness,
            "tint": m.red - m.blue,
        }
