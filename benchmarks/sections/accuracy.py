"""Accuracy of the classifier with the default settings and with the demo's settings."""

from __future__ import annotations

from typing import Any

from fixtures import Fixtures
from output import Row, Section, Target, at_least
from processes import environment, log, run, script

PAPER = 0.8842
PAPER_NAME = "VGG-19, fine-tuned (Deitsch et al. 2019)"


def measure(fixtures: Fixtures) -> Section:
    """Measure the accuracy on the datasets that are available."""
    section = Section("Accuracy, frozen backbone")
    given = fixtures.options
    if given.cats_dogs is None or given.sign_digits is None:
        section.notes.append("Datasets without their option were skipped.")
    if given.cats_dogs is not None:
        result = _accuracy(fixtures, fixtures.cats_dogs)
        section.rows.append(_row("cats-dogs, mean of 5 folds", result, at_least(0.99)))
    if given.sign_digits is not None:
        result = _accuracy(fixtures, fixtures.sign_digits)
        section.rows.append(_row("sign-digits, mean of 5 folds", result, at_least(0.97)))
    default, demo = _accuracy(fixtures, "elpv"), _accuracy(fixtures, "elpv", "--demo")
    above = Target("above", PAPER, "kindsight")
    cold = "cold_seconds"
    section.rows += [
        _row("elpv, mean of 4 splits", default, at_least(0.873)),
        Row("elpv, demo settings", [demo["mean"]], "%", PAPER_NAME, [PAPER], above),
        Row("demo settings: features and fit, nothing cached", [demo[cold]], "s",
            "default settings", [default[cold]]),
    ]  # fmt: skip
    changed = ", ".join(f"{name} {value}" for name, value in demo["settings"].items())
    section.notes.append(
        "elpv: four splits with a stratified test split of 25%; the paper used one split of its "
        f"own. Demo settings: {changed}."
    )
    return section


def _accuracy(fixtures: Fixtures, data: object, *more: str) -> dict[str, Any]:
    """Run ``accuracy_job.py`` on one dataset."""
    command = script("accuracy_job.py", data, *more)
    if fixtures.options.limit is not None:
        command += ["--limit", str(fixtures.options.limit)]
    done = run(command, env=environment(fixtures.cold_cache()))
    result = done.result
    log(
        f"accuracy {result['data']}: {result['mean']:.2%}, mean of "
        f"{[round(100 * value, 2) for value in result['accuracies']]}, in {done.seconds:.0f} s; "
        f"heads {sorted(set(result['heads']))}"
    )
    return result


def _row(what: str, result: dict[str, Any], target: Target) -> Row:
    return Row(what, [result["mean"]], "%", target=target)
