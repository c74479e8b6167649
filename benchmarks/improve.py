"""Improve a plain small CNN, as a small CNN and by any model, and a healthy run.

Example::

    python benchmarks/improve.py --cats-dogs DIR --sections small-cnn any-model healthy

The course's network is trained without augmentation on cats and dogs, and improved within
``--budget``: the accuracy on the test split, which no experiment saw, must rise by 8 points with a
95% interval above zero while it stays a small CNN. With ``--any-model`` the search must arrive at a
frozen head. On a frozen head, which is healthy, it must say that nothing helped. The search's
constants were chosen on other splits (seed 7) than the one measured here (seed 0). A budget is
wall-clock time: measure on an idle machine.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from output import Row, Section, Target, add_output_options, at_least, print_sections, warn_if_busy
from processes import log

SECTIONS = ("small-cnn", "any-model", "healthy")
TEST = 0.25
PLAIN = {"model": "small-cnn", "test": TEST}
FROZEN = {"test": TEST}


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", maxsplit=1)[0])
    parser.add_argument("--cats-dogs", type=Path, metavar="DIR", required=True)
    parser.add_argument("--budget", default="30m", metavar="TIME", help="[default: 30m]")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="[default: 0]")
    parser.add_argument(
        "--runs", type=Path, metavar="DIR", help="keep runs here; those that it has are used again"
    )
    parser.add_argument("--sections", nargs="+", choices=SECTIONS, default=SECTIONS)
    add_output_options(parser)
    return parser.parse_args(arguments)


def trained(options: argparse.Namespace, name: str, settings: dict[str, Any]) -> Path:
    """Return a finished run; train it unless it exists."""
    from kindsight.runs.train import TrainSettings, train

    folder = options.runs / name
    if not (folder / "bundle.json").exists():
        log(f"Training {name}")
        train(TrainSettings(str(options.cats_dogs), run=str(folder), seed=options.seed, **settings))
    return folder


def improved(options: argparse.Namespace, run: Path, name: str, *, any_model: bool) -> Any:
    """Improve a run; return the result and the seconds that it took."""
    from kindsight import improve

    log(f"Improving {run.name}: {name}")
    start = time.monotonic()
    result = improve(
        run, budget=options.budget, any_model=any_model, folder=options.runs / f"improve-{name}",
        on_experiment=lambda experiment, search, timer: log(
            f"{timer.left:6.0f} s left  {experiment.number}: {experiment.words}: "
            + (experiment.stopped or f"{experiment.accuracy(search.explored):.1%}")
        ),
    )  # fmt: skip
    return result, time.monotonic() - start


def small_cnn(options: argparse.Namespace) -> list[Row]:
    """Improve the course's network as a small CNN."""
    run = trained(options, "plain", PLAIN)
    result, seconds = improved(options, run, "small-cnn", any_model=False)
    test = result.final
    gain, low = (
        (0.0, 0.0) if test is None else (test.difference.difference, test.difference.interval[0])
    )
    said = result.change if result.helped else "nothing helped"
    before, after = (0.0, 0.0) if test is None else (test.original, test.best)
    return [
        Row(f"gain in test accuracy ({said})", [gain], "%", target=at_least(0.08)),
        Row("lower end of its interval", [low], "%", target=Target("above", 0.0, "kindsight")),
        Row("test accuracy", [after], "%", "the original", [before]),
        Row("time", [seconds], "s"),
    ]


def any_model(options: argparse.Namespace) -> list[Row]:
    """Improve the course's network by any model."""
    run = trained(options, "plain", PLAIN)
    result, seconds = improved(options, run, "any-model", any_model=True)
    frozen = float("small-cnn" not in result.changes.get("model", "small-cnn"))
    gain = 0.0 if result.final is None else result.final.difference.difference
    return [
        Row(f"arrived at a frozen head ({result.change})", [frozen], "%", target=at_least(1.0)),
        Row("gain in test accuracy", [gain], "%"),
        Row("time", [seconds], "s"),
    ]


def healthy(options: argparse.Namespace) -> list[Row]:
    """Improve a run that is healthy."""
    run = trained(options, "frozen", FROZEN)
    result, seconds = improved(options, run, "healthy", any_model=False)
    return [
        Row(
            f"nothing helped, of {len(result.experiments) - 1} experiments",
            [float(not result.helped)],
            "%",
            target=at_least(1.0),
        ),
        Row("time", [seconds], "s"),
    ]


def main() -> None:
    """Run the sections and print them."""
    options = parse()
    warn_if_busy()
    with tempfile.TemporaryDirectory(prefix="kindsight-improve-") as temporary:
        options.runs = options.runs or Path(temporary)
        measured = {"small-cnn": small_cnn, "any-model": any_model, "healthy": healthy}
        titles = {
            "small-cnn": "The course's network, staying a small CNN",
            "any-model": "The course's network, any model",
            "healthy": "A frozen head, which is healthy",
        }
        sections = [Section(titles[name], measured[name](options)) for name in options.sections]
    print_sections(sections, options)


if __name__ == "__main__":
    main()
