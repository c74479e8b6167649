r"""Measure whether a classifier's uncertainty can be trusted, over many random splits.

Example::

    python benchmarks/trust.py cats-dogs/ sign-digits/ elpv --results splits.jsonl

Each dataset is split at random, stratified, into three quarters for training and one for testing,
20 times; the features of the frozen backbone are computed once. On the test images of each split:

- the coverage of the 90% prediction sets, overall and per class, and their size;
- the calibration error (ECE) with the fitted temperature and without;
- the accuracy of the images that are labelled at a target accuracy;
- the fraction of known images that is kept, and of foreign images that is rejected as unknown: the
  other datasets, noise, plain colours and text.

Sixty splits take a few minutes on an idle machine. ``--results`` stores the figures, one line per
split: another call continues, and one with other seeds adds to it.

Splits have the seeds 0 to 19. No constant of kindsight was chosen on them: those of
``kindsight.evaluation.selective`` were chosen on the seeds 100 to 109.
"""

from __future__ import annotations

import argparse
import json
import time
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from accuracy_job import load
from output import Row, Section, Target, add_output_options, at_least, at_most, print_sections

SPLITS = 20
TEST_FRACTION = 0.25
LEVEL = 0.9
COVERAGE_TOLERANCE = 0.02
KEPT_SPLITS = 0.9  # 18 of 20
REFUSED = 0.95
KNOWN_KEPT = 0.95

PROMISES = {"cats-dogs": (0.98, 0.99), "sign-digits": (0.98, 0.99), "elpv": (0.9, 0.95)}
"""Promised accuracies; 0.95 and 0.98 for other datasets."""

SYNTHETIC = 200
"""Images of each synthetic kind."""

Figures = dict[str, list[float]]


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", maxsplit=1)[0])
    parser.add_argument("data", nargs="+", help="folders of class folders, and elpv")
    parser.add_argument(
        "--splits", type=int, default=SPLITS, metavar="N", help="splits  [default: 20]"
    )
    parser.add_argument(
        "--first-seed", type=int, default=0, metavar="N", help="seed of the first  [default: 0]"
    )
    parser.add_argument(
        "--results",
        type=Path,
        metavar="FILE",
        help="figures of each split; those in it are not measured again",
    )
    parser.add_argument("--limit", type=int, metavar="N", help="use about this many images of each")
    add_output_options(parser)
    return parser.parse_args(arguments)


def synthetic_images(kind: str, count: int = SYNTHETIC, side: int = 224) -> list[Any]:
    """Return images of noise, of one plain colour, or of text: uint8 (side, side, 3) each."""
    from PIL import Image, ImageDraw

    generator = np.random.default_rng(sum(map(ord, kind)))
    images = []
    for _ in range(count):
        if kind == "noise":
            images.append(generator.integers(0, 256, (side, side, 3)).astype(np.uint8))
            continue
        image = Image.new("RGB", (side, side), tuple(generator.integers(0, 256, 3).tolist()))
        if kind == "text":
            image = Image.new("RGB", (side, side), "white")
            draw = ImageDraw.Draw(image)
            for line in range(8, side - 12, 14):
                letters = generator.integers(97, 123, 34)
                letters[generator.random(34) < 0.18] = 32
                draw.text((8, line), "".join(map(chr, letters)), fill="black")
        images.append(np.array(image))
    return images


def prepare_all(names: Sequence[str], limit: int | None) -> dict[str, Any]:
    """Return the features of each dataset and of the synthetic images, by name."""
    from accuracy_job import some_rows
    from kindsight import ImageClassifier, ImageDataset
    from kindsight.training.trainer import make_training, prepare

    trainer = make_training(ImageClassifier().get_params())
    found = {}
    with trainer.process() as keras:
        for name in names:
            dataset = load(name)
            dataset = dataset[some_rows(dataset.label, limit)]
            found[Path(name).name] = prepare(trainer, dataset, None, keras)
        for kind in ("noise", "plain", "text"):
            images = synthetic_images(kind)
            dataset = ImageDataset.from_arrays(images, [kind] * len(images))
            found[kind] = prepare(trainer, dataset, None, keras)
    return found


def split_rows(labels: Sequence[str], seed: int) -> tuple[Any, Any]:
    """Return training and test rows, sorted."""
    from sklearn.model_selection import StratifiedShuffleSplit

    splitter = StratifiedShuffleSplit(1, test_size=TEST_FRACTION, random_state=seed)
    train, test = next(splitter.split(np.arange(len(labels)), labels))
    return np.sort(train), np.sort(test)


def measure_split(prepared: Any, seed: int, promises: Sequence[float], others: Any) -> Figures:
    """Fit a classifier on a split; return the figures of its test images by name."""
    from kindsight.training.write_bundle import measure_sets, measure_unsure

    dataset = prepared.dataset
    train, test = split_rows(dataset.label, seed)
    model = prepared.fit(dataset.classes, train, np.zeros(0, np.int64), keras=None)
    held_out, targets = model.held_out(), dataset[test].targets
    probabilities = model.probabilities(test)
    found: Figures = defaultdict(list)
    _measure_calibration(model, test, targets, found)
    stored = measure_sets(held_out).sets
    for kind, sets in (("overall", stored), ("per class", per_class(stored))):
        inside = sets.predict(probabilities, LEVEL)
        covered = inside[np.arange(len(targets)), targets]
        found[f"coverage {kind}"].append(covered.mean())
        found[f"worst class {kind}"].append(
            min(covered[targets == label].mean() for label in np.unique(targets))
        )
        found[f"size {kind}"].append(inside.sum(1).mean())
        found[f"empty {kind}"].append((inside.sum(1) == 0).mean())
    curve, confidence = measure_unsure(held_out).curve, probabilities.max(1)
    correct = probabilities.argmax(1) == targets
    found["accuracy"].append(correct.mean())
    for promise in promises:
        threshold = curve.threshold_for_accuracy(promise)
        if threshold is not None:
            labelled = confidence >= threshold
            found[f"kept {promise}"].append(correct[labelled].mean() >= promise)
            found[f"labelled {promise}"].append(labelled.mean())
            found[f"accuracy {promise}"].append(correct[labelled].mean())
    _measure_unknown(model, test, others, found)
    return found


def per_class(sets: Any) -> Any:
    """Return the same scores with the confidence level for each class."""
    from dataclasses import replace

    return replace(sets, per_class=True)


def _measure_calibration(model: Any, test: Any, targets: Any, found: Figures) -> None:
    from kindsight.evaluation import expected_calibration_error, to_probabilities

    logits = model.head.layers.logits(model.features.vectors[test])
    for name, temperature in (("ECE", model.temperature), ("ECE before", 1.0)):
        found[name].append(
            float(expected_calibration_error(to_probabilities(logits, temperature), targets))
        )
    found["scaled"].append(model.temperature != 1)


def _measure_unknown(model: Any, test: Any, others: Any, found: Figures) -> None:
    """Measure what the out-of-distribution score rejects at the default threshold."""
    if not hasattr(model, "fitted_score"):
        return

    threshold = model.fitted_score.to_dict(KNOWN_KEPT)["threshold"]
    found["known"].append((model.ood_scores(test) <= threshold).mean())
    for name, prepared in others.items():
        scores = model.fitted_score.score(prepared.features.vectors)
        found[f"refused {name}"].append((scores > threshold).mean())


def sections(name: str, found: Figures, promises: Sequence[float]) -> Section:
    """Return the table of one dataset."""
    section, splits = Section(name), len(found["accuracy"])
    mean = {key: float(np.mean(values)) for key, values in found.items()}
    spread = {
        key: float(np.std(values, ddof=1)) if splits > 1 else 0.0 for key, values in found.items()
    }
    for kind in ("overall", "per class"):
        section.rows.append(
            Row(
                f"{name}: coverage of 90% sets, {kind}: distance from 90%",
                [abs(mean[f"coverage {kind}"] - LEVEL)],
                "%",
                target=at_most(COVERAGE_TOLERANCE) if kind == "overall" else None,
            )
        )
        section.notes.append(
            f"sets {kind}: coverage {mean[f'coverage {kind}']:.2%} (standard deviation over splits "
            f"{spread[f'coverage {kind}']:.2%}), worst class {mean[f'worst class {kind}']:.1%}, "
            f"{mean[f'size {kind}']:.3f} classes on average, {mean[f'empty {kind}']:.1%} empty"
        )
    section.rows.append(
        Row(
            f"{name}: ECE",
            [mean["ECE"]],
            "%",
            "without scaling",
            [mean["ECE before"]],
            Target("at most", 1.0),
        )
    )
    section.notes.append(
        f"accuracy {mean['accuracy']:.2%}; scaled by a temperature in {sum(found['scaled']):.0f} "
        f"of {splits} splits"
    )
    for promise in promises:
        kept = found.get(f"kept {promise}", [])
        if not kept:
            section.notes.append(f"{promise:.0%} accuracy could not be promised in any split")
            continue
        section.rows.append(
            Row(
                f"{name}: splits with at least the promised {promise:.0%} accuracy",
                [float(np.mean(kept))],
                "%",
                target=at_least(KEPT_SPLITS),
            )
        )
        section.notes.append(
            f"{promise:.0%} accuracy: promised in {len(kept)} of {splits} splits, kept in "
            f"{sum(kept):.0f}; {mean[f'labelled {promise}']:.1%} labelled, "
            f"{mean[f'accuracy {promise}']:.2%} of them correctly"
        )
    if "known" in mean:
        section.rows.append(
            Row(f"{name}: known images kept", [mean["known"]], "%", target=at_least(KNOWN_KEPT))
        )
    for key in sorted(key for key in mean if key.startswith("refused ")):
        section.rows.append(
            Row(
                f"{name}: foreign images refused, {key.removeprefix('refused ')}",
                [mean[key]],
                "%",
                target=at_least(REFUSED),
            )
        )
    return section


def read_results(path: Path | None) -> dict[tuple[str, int], dict[str, float]]:
    """Return the figures of each split that was measured before, by dataset and seed."""
    found = {}
    if path is not None and path.exists():
        for line in path.read_text("utf-8").splitlines():
            figures = json.loads(line)
            found[figures.pop("data"), figures.pop("seed")] = figures
    return found


def main() -> None:
    """Measure and print."""
    options = parse()
    start = time.perf_counter()
    known = read_results(options.results)
    names = [Path(data).name for data in options.data]
    seeds = range(options.first_seed, options.first_seed + options.splits)
    missing = any((name, seed) not in known for name in names for seed in seeds)
    prepared = prepare_all(options.data, options.limit) if missing else {}
    tables = []
    for name in names:
        promises = PROMISES.get(name, (0.95, 0.98))
        others = {other: images for other, images in prepared.items() if other != name}
        total: Figures = defaultdict(list)
        for seed in seeds:
            found = known.get((name, seed))
            if found is None:
                found = _plain(measure_split(prepared[name], seed, promises, others))
                line = json.dumps({"data": name, "seed": seed, **found})
                print(line, flush=True)
                if options.results is not None:
                    with options.results.open("a", encoding="utf-8") as file:
                        file.write(line + "\n")
            for key, value in found.items():
                total[key].append(value)
        tables.append(sections(name, total, promises))
    print_sections(tables, options, f" ({time.perf_counter() - start:.0f} s)")


def _plain(found: Figures) -> dict[str, float]:
    return {key: round(float(values[0]), 5) for key, values in found.items()}


if __name__ == "__main__":
    main()
