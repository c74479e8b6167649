"""KS603: classes whose recall can be known only roughly."""

from __future__ import annotations

from kindsight.catalog.checks.balance.counting import learnable_counts
from kindsight.catalog.checks.context import CheckContext
from kindsight.catalog.checks.contract import Check, CheckResult, Finding
from kindsight.catalog.names import shown
from kindsight.intervals import wilson_interval

__all__ = ["RoughRecalls", "half_width"]

ROUGH = 0.10
"""Half of the 95% interval: beyond it, 90% of a class right cannot be told from 80%."""

USUAL_SHARE = 0.2
"""What ``kindsight train`` keeps back to validate on where the data state no parts."""

USUAL_RECALL = 0.9

SHOWN = 12


def half_width(n: int) -> float:
    """Return half of the width of the 95% Wilson interval of a recall, nine of ten of `n` right."""
    low, high = wilson_interval(round(USUAL_RECALL * n), n)
    return (high - low) / 2


class RoughRecalls(Check):
    """Classes with too few pictures to test on for their recall to be known within 10 points."""

    code = "KS603"
    title = "Classes whose recall can be known only roughly"
    severity = "note"
    advice = "Keep more pictures back: --validation 0.3; or train by folds: --fold 1/5."

    def run(self, context: CheckContext) -> CheckResult:
        """Work out the interval that each class's recall will have."""
        part, counts = self._held_back(context)
        if not counts:
            return self.not_applicable("The pictures have no labels.")
        rough = sorted(
            ((half_width(n), name) for name, n in counts.items() if half_width(n) > ROUGH),
            key=lambda pair: (-pair[0], pair[1]),
        )
        found = [self._finding(part, rough, len(counts))] if rough else []
        return self.result(found, len(counts))

    def _held_back(self, context: CheckContext) -> tuple[str, dict[str, int]]:
        """Return how many pictures of each class will say how good a classifier is."""
        for name in ("test", "validation"):
            if name in context.catalog.split:
                return f"the {name} part", learnable_counts(context, (name,))
        counts = learnable_counts(context)
        return "a fifth kept back", {
            name: max(1, round(USUAL_SHARE * n)) for name, n in counts.items()
        }

    def _finding(self, part: str, rough: list[tuple[float, str]], classes: int) -> Finding:
        named = [f"{shown(name)} ±{100 * width:.0f}" for width, name in rough[:SHOWN]]
        more = f" and {len(rough) - SHOWN:,} more" if len(rough) > SHOWN else ""
        return self.finding_outside(
            [name for _, name in rough],
            f"With {part}, the recall of {len(rough):,} of {classes:,} classes can be known within "
            f"these percentage points, at 90% right: {', '.join(named)}{more}.",
            value=round(rough[0][0], 4),
        )
