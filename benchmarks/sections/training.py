"""Time of ``kindsight train`` as a whole process compared with the unavoidable work."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fixtures import Fixtures
from output import Row, Section, at_most
from processes import CompletedRun, environment, kindsight, log, run, script

CACHED_TARGET = at_most(1 / 6, "ratio")
CACHED = {
    "again with the next seed": ("--seed", "1"),
    "again with a linear head": ("--head", "linear"),
    "again with a distant seed": ("--seed", "77"),
}
COLD = "train, nothing cached"


def measure(fixtures: Fixtures) -> Section:
    """Run the floor, a training with an empty cache and trainings with cached features."""
    names = fixtures.names()
    floors: list[dict[str, Any]] = []
    seconds: dict[str, list[float]] = {"cold": [], **{name: [] for name in CACHED}}
    stages: dict[str, dict[str, float]] = {}
    for repeat in range(fixtures.options.repeats):
        floors.append(run(script("floor.py", names, fixtures.backbone_tflite)).result)
        cache, runs = fixtures.cold_cache(), fixtures.new_folder("runs")
        for name, settings in {"cold": (), **CACHED}.items():
            done = train(fixtures.cats_dogs, cache, runs, *settings)
            if name in CACHED and done.result["cache"]["computed"]:
                raise SystemExit(f"{name}: features were computed again: {done.result['cache']}.")
            seconds[name].append(done.seconds)
            stages[name] = done.result["seconds"]
        last = ", ".join(f"{name} {values[-1]:.2f} s" for name, values in seconds.items())
        log(f"train, repeat {repeat + 1}: floor {floors[-1]['floor']:.2f} s, {last}")
    return _section(fixtures, floors, seconds, stages)


def train(data: Path, cache: Path, runs: Path, *settings: str) -> CompletedRun:
    """Run ``kindsight train --json``; its output is the result."""
    command = kindsight("train", data, "--runs", runs, "--json", "--quiet", *settings)
    return run(command, env=environment(cache))


def _section(
    fixtures: Fixtures,
    floors: list[dict[str, Any]],
    seconds: dict[str, list[float]],
    stages: dict[str, dict[str, float]],
) -> Section:
    cold = seconds["cold"]
    floor_name = "floor: read and resize, then the network"
    floor = [each["floor"] for each in floors]
    rows = [Row(COLD, cold, "s", floor_name, floor, at_most(2.0, "ratio"))]
    rows += [Row(f"train {name}", seconds[name], "s", COLD, cold, CACHED_TARGET) for name in CACHED]
    components = {
        "floor: reading, kindsight's": "read_kindsight",
        "floor: reading, OpenCV alone": "read_opencv",
        "floor: network, one interpreter per core": "network_many_interpreters",
        "floor: network, one interpreter on all cores": "network_all_threads",
    }
    rows += [Row(what, [each[key] for each in floors], "s") for what, key in components.items()]
    rows.append(Row("building the backbone, once per machine", [fixtures.backbone[1]], "s"))
    notes = [
        f"{floors[0]['images']:,} images, {floors[0]['cores']} cores; the files are in the page "
        "cache, no feature is cached. Training is timed as a whole process, the floor without the "
        "start of Python; the floor uses the faster reader and the faster network.",
        *(f"Stages of the last '{name}': {_stages(each)}." for name, each in stages.items()),
    ]
    return Section("Time to train", rows, notes)


def _stages(seconds: dict[str, float]) -> str:
    return ", ".join(f"{name} {value:.2f} s" for name, value in seconds.items())
