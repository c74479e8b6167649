"""What the cut's cache costs in accuracy: views that are kept, beside views drawn afresh.

The same upper part of EfficientNet-Lite0 learns for as many epochs from the same head, once from
the views that the cut's cache keeps of each image, once from images that are moved and flipped
anew in every epoch and run through the frozen layers in every step. Both answer test images that
neither has seen, alone, whether a training would have kept them or not.

Examples
--------
::

    python benchmarks/new_copies.py sign-digits/ elpv
    python benchmarks/new_copies.py sign-digits/ --repeats 1 --limit 100
"""

from __future__ import annotations

import argparse
import dataclasses
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from accuracy_job import load, some_rows
from fine_tune import splits_of
from output import Row, Section, add_output_options, print_sections, warn_if_busy
from processes import log


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", maxsplit=1)[0])
    parser.add_argument("data", nargs="+", help="folders of class folders, or elpv")
    parser.add_argument("--repeats", type=int, default=2, help="divisions  [default: 2]")
    parser.add_argument("--limit", type=int, metavar="N", help="about N images: a trial")
    add_output_options(parser)
    return parser.parse_args(arguments)


def always_alone(fresh: bool) -> None:
    """Let fine-tuning keep its network, alone; `fresh`: its upper part learns from new views."""
    from kindsight.training.fine_tuning import images, job_settings
    from kindsight.training.fine_tuning import train as fine_tuning

    fine_tuning.is_clearly_better = lambda *_: True
    job_settings.MARGIN = 1.0  # no ensemble
    phases = images.full_phases

    def upper(stages: Sequence[str], policy: Any) -> list[Any]:
        first, _ = phases(stages, policy)
        return [dataclasses.replace(first, epochs=images.EPOCHS)]

    images.full_phases = upper if fresh else phases


def fit(dataset: Any, train: Any, test: Any, seed: int, fresh: bool, cache: str) -> dict[str, Any]:
    """Fine-tune once; return accuracy, log loss and seconds of the training."""
    from kindsight import ImageClassifier

    always_alone(fresh)
    way = "full" if fresh else "light"
    fitted = ImageClassifier(fine_tune=way, seed=seed, cache=cache).fit(dataset[train])
    shares = np.asarray(fitted.predict_proba(dataset[test]), np.float64)
    names = [str(name) for name in fitted.classes_]
    right = [names.index(str(label)) for label in dataset[test].label]
    told = np.maximum(shares[np.arange(len(right)), right], 1e-9)
    tuning = fitted.fine_tuning_
    return {
        "accuracy": float((shares.argmax(1) == right).mean()),
        "log_loss": float(-np.log(told).mean()),
        "seconds": tuning.seconds["training"] + tuning.seconds.get("activations", 0.0),
        "words": tuning.description,
    }


def measure(options: argparse.Namespace) -> Section:
    """Compare both on each set of images."""
    section = Section("The upper part: views kept at the cut, beside views drawn afresh")
    for data in options.data:
        name, dataset = Path(data).name, load(data)
        dataset = dataset[some_rows(dataset.label, options.limit)]
        found: dict[bool, list[dict[str, Any]]] = {False: [], True: []}
        for number, (train, test) in enumerate(splits_of(data, dataset)[: options.repeats]):
            with tempfile.TemporaryDirectory(prefix="kindsight-bench-") as cache:
                for fresh, takes in found.items():
                    takes.append(fit(dataset, train, test, number, fresh, cache))
                    log(f"{name} {number + 1}, {'afresh' if fresh else 'kept'}: {takes[-1]}")
        for figure, unit in (("accuracy", "%"), ("log_loss", "nats"), ("seconds", "s")):
            kept, fresh = ([take[figure] for take in found[way]] for way in (False, True))
            mean = (lambda takes: takes) if figure == "seconds" else _mean
            section.rows.append(
                Row(f"{name}: {figure.replace('_', ' ')}", mean(kept), unit, "afresh", mean(fresh))
            )
    return section


def _mean(takes: list[float]) -> list[float]:
    return [float(np.mean(takes))]


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print the results."""
    options = parse(arguments)
    warn_if_busy()
    print_sections([measure(options)], options, " (a trial on few images)" if options.limit else "")


if __name__ == "__main__":
    main()
