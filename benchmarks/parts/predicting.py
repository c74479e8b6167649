"""``kindsight predict``: one image from a standing start, and many at full speed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from common import Row, Section, at_least, at_most
from folders import class_files
from processes import environment, kindsight, run, say, script
from workshop import Workshop

LIST = 5000


def measure(shop: Workshop) -> Section:
    """Measure both."""
    section = Section("Prediction")
    section.rows += _one_image(shop)
    section.rows += _many(shop, section)
    return section


def _one_image(shop: Workshop) -> list[Row]:
    """Time processes that answer for one image, ours and Keras's in turns."""
    run_folder = shop.trained
    image = next(iter(class_files(shop.cats_dogs).values()))[0]
    classes = json.loads((run_folder / "bundle.json").read_text(encoding="utf-8"))["classes"]
    ours_command = kindsight("predict", run_folder, image, "--quiet")
    keras_command = script(
        "rivals/keras_predict.py",
        run_folder / "model.keras",
        image,
        "--classes",
        ",".join(classes),
    )
    ours, keras = [], []
    for _ in range(shop.options.predict_repeats):
        # A cache that is not there: a prediction must not need one.
        ours.append(run(ours_command, env=environment(shop.folder / "no-cache")).seconds)
        keras.append(run(keras_command).seconds)
        say(f"one image: kindsight {ours[-1]:.2f} s, Keras {keras[-1]:.2f} s")
    rival = "load_model and model.predict"
    return [
        Row("one image, whole process", ours, "s", target=at_most(0.8)),
        Row("one image, whole process", ours, "s", rival, keras, at_most(1 / 6, "ratio")),
    ]


def _many(shop: Workshop, section: Section) -> list[Row]:
    """Time a folder and a long list, and reading and network alone, in turns."""
    count = shop.count()
    long = LIST if shop.options.limit is None else 4 * count
    folder_names, long_names = shop.names(), shop.names(long)
    tflite = shop.trained / "model.tflite"
    floors: list[dict[str, Any]] = []
    folder_rates, list_rates = [], []
    for _ in range(shop.options.repeats):
        floors.append(run(script("floor.py", folder_names, tflite)).answer)
        folder_rates.append(_rate(shop, count, shop.cats_dogs))
        list_rates.append(_rate(shop, long, "-", long_names))
        say(
            f"throughput: folder {folder_rates[-1]:.1f}/s, list {list_rates[-1]:.1f}/s, "
            f"reading {count / floors[-1]['read']:.1f}/s, "
            f"network {count / floors[-1]['network']:.1f}/s"
        )
    slower = [count / max(floor["read"], floor["network"]) for floor in floors]
    rival = "the slower of reading and bare LiteRT"
    target = at_least(0.85, "ratio")
    section.notes.append(
        "Throughput counts the whole process of kindsight, its start included, and of the other "
        "side the bare work alone on the same cores."
    )
    return [
        Row(f"a folder of {count:,} images", folder_rates, "/s", rival, slower, target),
        Row(f"a list of {long:,} names", list_rates, "/s", rival, slower, target),
        Row("reading and resizing alone", [count / floor["read"] for floor in floors], "/s"),
        Row("bare LiteRT alone", [count / floor["network"] for floor in floors], "/s"),
    ]


def _rate(shop: Workshop, count: int, what: object, given: Path | None = None) -> float:
    """Return images a second of one whole process."""
    command = kindsight("predict", shop.trained, what, "--format", "jsonl", "--quiet")
    done = run(command, env=environment(shop.folder / "no-cache"), given=given)
    answered = done.output.count("\n")
    if answered != count:
        raise SystemExit(f"predict answered for {answered} of {count} images.")
    return count / done.seconds
