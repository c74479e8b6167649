"""Speed of ``kindsight predict``: one image in a new process, and many images."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from fixtures import Fixtures
from folders import class_files
from output import Row, Section, at_least, at_most
from processes import environment, kindsight, log, run, script

LIST = 5000


def measure(fixtures: Fixtures) -> Section:
    """Measure the latency for one image and the throughput for many."""
    section = Section("Prediction")
    section.rows = [*_one_image(fixtures), *_many(fixtures)]
    section.notes.append(
        "kindsight's throughput counts the whole process including its start; the floor counts "
        "only reading or inference on the same cores."
    )
    return section


def _one_image(fixtures: Fixtures) -> list[Row]:
    """Time processes that predict one image, kindsight's and Keras's in turns."""
    run_folder = fixtures.trained
    image = next(iter(class_files(fixtures.cats_dogs).values()))[0]
    classes = json.loads((run_folder / "bundle.json").read_text(encoding="utf-8"))["classes"]
    command = kindsight("predict", run_folder, image, "--quiet")
    keras_command = script(
        "rivals/keras_predict.py", run_folder / "model.keras", image,
        "--classes", ",".join(classes),
    )  # fmt: skip
    ours, keras = [], []
    for _ in range(fixtures.options.predict_repeats):
        # The cache folder does not exist: prediction must not need one.
        ours.append(run(command, env=environment(fixtures.folder / "no-cache")).seconds)
        keras.append(run(keras_command).seconds)
        log(f"one image: kindsight {ours[-1]:.2f} s, Keras {keras[-1]:.2f} s")
    rival = "load_model and model.predict"
    return [
        Row("one image, whole process", ours, "s", target=at_most(0.8)),
        Row("one image, whole process", ours, "s", rival, keras, at_most(1 / 6, "ratio")),
    ]


def _many(fixtures: Fixtures) -> list[Row]:
    """Time a folder, a long list, and reading and inference alone, in turns."""
    count = fixtures.count()
    long = LIST if fixtures.options.limit is None else 4 * count
    folder_names, long_names = fixtures.names(), fixtures.names(long)
    tflite = fixtures.trained / "model.tflite"
    floors: list[dict[str, Any]] = []
    folder_rates, list_rates = [], []
    for _ in range(fixtures.options.repeats):
        floors.append(run(script("floor.py", folder_names, tflite)).result)
        folder_rates.append(_rate(fixtures, count, fixtures.cats_dogs))
        list_rates.append(_rate(fixtures, long, "-", long_names))
        log(
            f"throughput: folder {folder_rates[-1]:.1f}/s, list {list_rates[-1]:.1f}/s, "
            f"reading {count / floors[-1]['read']:.1f}/s, "
            f"network {count / floors[-1]['network']:.1f}/s"
        )
    slower = [count / max(floor["read"], floor["network"]) for floor in floors]
    rival = "the slower of reading and bare LiteRT"
    target = at_least(0.85, "ratio")
    return [
        Row(f"a folder of {count:,} images", folder_rates, "/s", rival, slower, target),
        Row(f"a list of {long:,} files", list_rates, "/s", rival, slower, target),
        Row("reading and resizing alone", [count / floor["read"] for floor in floors], "/s"),
        Row("bare LiteRT alone", [count / floor["network"] for floor in floors], "/s"),
    ]


def _rate(fixtures: Fixtures, count: int, source: object, stdin: Path | None = None) -> float:
    """Return the images per second of one whole process."""
    command = kindsight("predict", fixtures.trained, source, "--format", "jsonl", "--quiet")
    done = run(command, env=environment(fixtures.folder / "no-cache"), stdin=stdin)
    predicted = done.output.count("\n")
    if predicted != count:
        raise SystemExit(f"predict returned {predicted} predictions for {count} images.")
    return count / done.seconds
