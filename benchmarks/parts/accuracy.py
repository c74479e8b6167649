"""How often the classifier is right, with the default settings and with the demo's."""

from __future__ import annotations

from typing import Any

from common import Row, Section, Target, at_least
from processes import environment, run, say, script
from workshop import Workshop

PAPER = 0.8842
PAPER_NAME = "VGG-19, fine-tuned (Deitsch et al. 2019)"


def measure(shop: Workshop) -> Section:
    """Measure the data sets that are there."""
    section = Section("Accuracy, frozen backbone")
    if shop.options.cats_dogs is None or shop.options.sign_digits is None:
        section.notes.append("Data sets without their folder were left out.")
    if shop.options.cats_dogs is not None:
        answer = _ask(shop, shop.cats_dogs)
        section.rows.append(_row("cats-dogs, mean of 5 folds", answer, at_least(0.99)))
    if shop.options.sign_digits is not None:
        answer = _ask(shop, shop.sign_digits)
        section.rows.append(_row("sign-digits, mean of 5 folds", answer, at_least(0.97)))
    section.rows += _elpv(shop, section)
    return section


def _elpv(shop: Workshop, section: Section) -> list[Row]:
    default, demo = _ask(shop, "elpv"), _ask(shop, "elpv", "--demo")
    above = Target("above", PAPER, "kindsight")
    changed = ", ".join(f"{name} {value}" for name, value in demo["settings"].items())
    section.notes.append(
        "elpv: 25% stratified test, four divisions; the paper divided the images once, in its "
        f"own way. The demo's options: {changed}."
    )
    return [
        _row("elpv, mean of 4 divisions", default, at_least(0.873)),
        Row(
            "elpv with the demo's options",
            [demo["mean"]],
            "%",
            PAPER_NAME,
            [PAPER],
            above,
        ),
        Row(
            "the demo's options: features and fit, cold",
            [demo["cold_seconds"]],
            "s",
            "default settings",
            [default["cold_seconds"]],
        ),
    ]


def _ask(shop: Workshop, data: object, *more: str) -> dict[str, Any]:
    """Let a process of its own measure one data set."""
    command = script("accuracy_job.py", data, *more)
    if shop.options.limit is not None:
        command += ["--limit", str(shop.options.limit)]
    done = run(command, env=environment(shop.cold_cache()))
    answer = done.answer
    say(
        f"accuracy {answer['data']}: {100 * answer['mean']:.2f}% of "
        f"{[round(100 * value, 2) for value in answer['accuracies']]} in {done.seconds:.0f} s; "
        f"heads {sorted(set(answer['heads']))}"
    )
    return answer


def _row(what: str, answer: dict[str, Any], target: Target) -> Row:
    return Row(what, [answer["mean"]], "%", target=target)
