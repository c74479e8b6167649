"""Peak memory of a training and of predictions, child processes included."""

from __future__ import annotations

from fixtures import Fixtures
from output import Row, Section, at_most
from processes import CompletedRun, environment, kindsight, log, run

TRAIN_MB = 1500.0
PREDICT_MB = 400.0
TIMES = 10


def measure(fixtures: Fixtures) -> Section:
    """Measure one training and two predictions, the second on ten times as many images."""
    count = fixtures.count()
    training = run(
        kindsight("train", fixtures.cats_dogs, "--runs", fixtures.new_folder("runs"), "--quiet"),
        env=environment(fixtures.cold_cache()),
        memory=True,
    )
    _log("train", training)
    rows = [Row("train, nothing cached", [training.megabytes], "MB", target=at_most(TRAIN_MB))]
    # A round number: 14,000 for 1,399 images.
    many = round(TIMES * count, -3) or TIMES * count
    for number in (count, many):
        done = run(
            kindsight("predict", fixtures.trained, "-", "--format", "csv", "--quiet"),
            env=environment(fixtures.folder / "no-cache"),
            stdin=fixtures.names(number),
            memory=True,
        )
        _log(f"predict {number:,}", done)
        target = at_most(PREDICT_MB)
        rows.append(Row(f"predict {number:,} images", [done.megabytes], "MB", target=target))
    return Section(
        "Peak memory",
        rows,
        [
            "Summed resident memory of a process and all its children, sampled every 50 ms "
            "(shared pages count once per process), or the operating system's peak of the largest "
            "process if that is more. 1 MB is 10^6 bytes."
        ],
    )


def _log(what: str, done: CompletedRun) -> None:
    log(
        f"memory, {what}: {done.tree / 1e6:.0f} MB in all, largest process "
        f"{done.largest / 1e6:.0f} MB, {done.seconds:.1f} s"
    )
