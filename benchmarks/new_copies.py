"""Compare fine-tuning on cached augmented copies with fine-tuning on new copies in every epoch.

The upper layers of EfficientNet-Lite0 are trained for the same epochs from the same head, once from
the cached activations of a few augmented copies per image, once from images that are augmented in
every epoch. Both networks are tested on held-out images, without an ensemble, even if fine-tuning
would reject them.

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
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np

from accuracy_job import load, some_rows
from fine_tune import splits_for
from output import Row, Section, add_output_options, print_sections, warn_if_busy
from processes import log


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", maxsplit=1)[0])
    parser.add_argument("data", nargs="+", help="folders of class folders, or elpv")
    parser.add_argument("--repeats", type=int, default=2, help="number of splits  [default: 2]")
    parser.add_argument("--limit", type=int, metavar="N", help="about N images: a trial")
    add_output_options(parser)
    return parser.parse_args(arguments)


@contextmanager
def single_network(fresh: bool) -> Iterator[None]:
    """Make fine-tuning accept its network without an ensemble; if `fresh`, with new copies."""
    from kindsight.training.fine_tuning import images
    from kindsight.training.fine_tuning import train as fine_tuning

    full_phases = images.full_phases

    def upper_layers(stages: Sequence[str], policy: Any) -> list[Any]:
        first, _ = full_phases(stages, policy)
        return [dataclasses.replace(first, epochs=images.EPOCHS)]

    with (
        patch.object(fine_tuning, "is_clearly_better", lambda *_: True),
        # An ensemble must lower the log loss by this fraction: never.
        patch.object(fine_tuning, "MARGIN", 1.0),
        patch.object(images, "full_phases", upper_layers if fresh else full_phases),
    ):
        yield


def fit(dataset: Any, train: Any, test: Any, seed: int, fresh: bool, cache: str) -> dict[str, Any]:
    """Fine-tune once; return the test accuracy, log loss and training time in seconds."""
    from kindsight import ImageClassifier

    mode = "full" if fresh else "light"
    with single_network(fresh):
        fitted = ImageClassifier(fine_tune=mode, seed=seed, cache=cache).fit(dataset[train])
    probabilities = np.asarray(fitted.predict_proba(dataset[test]), np.float64)
    names = [str(name) for name in fitted.classes_]
    labels = [names.index(str(label)) for label in dataset[test].label]
    true_class = np.maximum(probabilities[np.arange(len(labels)), labels], 1e-9)
    result = fitted.fine_tuning_
    return {
        "accuracy": float((probabilities.argmax(1) == labels).mean()),
        "log_loss": float(-np.log(true_class).mean()),
        "seconds": result.seconds["training"] + result.seconds.get("activations", 0.0),
        "description": result.description,
    }


def measure(options: argparse.Namespace) -> Section:
    """Compare both on each dataset."""
    section = Section("Fine-tuning upper layers: cached copies compared with new copies")
    for data in options.data:
        name, dataset = Path(data).name, load(data)
        dataset = dataset[some_rows(dataset.label, options.limit)]
        results: dict[bool, list[dict[str, Any]]] = {False: [], True: []}
        for number, (train, test) in enumerate(splits_for(data, dataset)[: options.repeats]):
            with tempfile.TemporaryDirectory(prefix="kindsight-bench-") as cache:
                for fresh, measured in results.items():
                    measured.append(fit(dataset, train, test, number, fresh, cache))
                    log(f"{name} {number + 1}, {'new' if fresh else 'cached'}: {measured[-1]}")
        for figure, unit in (("accuracy", "%"), ("log_loss", "nats"), ("seconds", "s")):
            cached, new = ([each[figure] for each in results[fresh]] for fresh in (False, True))
            mean = list if figure == "seconds" else _mean
            section.rows.append(
                Row(f"{name}: {figure.replace('_', ' ')}", mean(cached), unit, "new", mean(new))
            )
    return section


def _mean(values: list[float]) -> list[float]:
    return [float(np.mean(values))]


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print the results."""
    options = parse(arguments)
    warn_if_busy()
    print_sections([measure(options)], options, " (a trial on few images)" if options.limit else "")


if __name__ == "__main__":
    main()
