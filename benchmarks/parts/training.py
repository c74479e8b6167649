"""``kindsight train`` as a whole process, against the work that no training can do without."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from common import Row, Section, at_most
from processes import Done, environment, kindsight, run, say, script
from workshop import Workshop

AGAIN_TARGET = at_most(1 / 6, "ratio")
AGAIN = {
    "again with the next seed": ("--seed", "1"),
    "again with a linear head": ("--head", "linear"),
    "again with a far seed": ("--seed", "77"),
}


def measure(shop: Workshop) -> Section:
    """Run floor, cold training and the same again with other settings, in turns."""
    names = shop.names()
    floors: list[dict[str, Any]] = []
    seconds: dict[str, list[float]] = {"cold": [], **{name: [] for name in AGAIN}}
    stages: dict[str, Any] = {}
    for turn in range(shop.options.repeats):
        floor = run(script("floor.py", names, shop.backbone_tflite)).answer
        floors.append(floor)
        cache, runs = shop.cold_cache(), shop.new_folder("runs")
        cold = train(shop.cats_dogs, cache, runs)
        seconds["cold"].append(cold.seconds)
        stages["cold"] = cold.answer["seconds"]
        for name, settings in AGAIN.items():
            again = train(shop.cats_dogs, cache, runs, *settings)
            if again.answer["cache"]["computed"]:
                raise SystemExit(f"{name}: {again.answer['cache']} should have reused all.")
            seconds[name].append(again.seconds)
            stages[name] = again.answer["seconds"]
        last = ", ".join(f"{name} {values[-1]:.2f} s" for name, values in seconds.items())
        say(f"train, turn {turn + 1}: floor {floor['floor']:.2f} s, {last}")
    return _section(shop, floors, seconds, stages)


def train(data: Path, cache: Path, runs: Path, *settings: str) -> Done:
    """Run one training as its user does; its answer is that of ``--json``."""
    command = kindsight("train", data, "--runs", runs, "--json", "--quiet", *settings)
    return run(command, env=environment(cache))


def _section(
    shop: Workshop,
    floors: list[dict[str, Any]],
    seconds: dict[str, list[float]],
    stages: dict[str, Any],
) -> Section:
    cold = seconds["cold"]
    floor = [answer["floor"] for answer in floors]
    rows = [
        Row(
            "train, no image cached",
            cold,
            "s",
            "floor: read and resize, then the network",
            floor,
            at_most(2.0, "ratio"),
        )
    ]
    rows += [
        Row(
            f"train {name}",
            seconds[name],
            "s",
            "train, no image cached",
            cold,
            AGAIN_TARGET,
        )
        for name in AGAIN
    ]
    parts = {
        "of the floor: reading, kindsight's": "read_kindsight",
        "of the floor: reading, OpenCV alone": "read_opencv",
        "of the floor: network, an interpreter a core": "network_side_by_side",
        "of the floor: network, one interpreter on all cores": "network_all_threads",
    }
    rows += [Row(what, [answer[key] for answer in floors], "s") for what, key in parts.items()]
    rows.append(Row("making the backbone, once a machine", [shop.backbone[1]], "s"))
    notes = [
        f"{floors[0]['images']:,} images, {floors[0]['cores']} cores; the files are in the "
        "system's memory, no feature is in the cache. Training is timed as a whole process, the "
        "floor without the start of Python; of each two ways the floor takes the faster.",
        *(f"Stages of the last '{name}': {_stages(found)}." for name, found in stages.items()),
    ]
    return Section("Time to train", rows, notes)


def _stages(found: dict[str, float]) -> str:
    return ", ".join(f"{name} {value:.2f} s" for name, value in found.items())
