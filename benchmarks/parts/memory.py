"""The most memory that a training and a prediction hold, child processes included."""

from __future__ import annotations

from common import Row, Section, at_most
from processes import Done, environment, kindsight, run, say
from workshop import Workshop

TRAIN_MB = 1500.0
PREDICT_MB = 400.0
TIMES = 10


def measure(shop: Workshop) -> Section:
    """Watch one training and two predictions, the second over ten times as many images."""
    count = shop.count()
    training = run(
        kindsight("train", shop.cats_dogs, "--runs", shop.new_folder("runs"), "--quiet"),
        env=environment(shop.cold_cache()),
        memory=True,
    )
    _say("train", training)
    rows = [Row("train, no image cached", [training.megabytes], "MB", target=at_most(TRAIN_MB))]
    # Round figures read better than ten times a count: 14,000 for 1,399.
    many = round(TIMES * count, -3) or TIMES * count
    for number in (count, many):
        command = kindsight("predict", shop.trained, "-", "--format", "csv", "--quiet")
        done = run(
            command,
            env=environment(shop.folder / "no-cache"),
            given=shop.names(number),
            memory=True,
        )
        _say(f"predict {number:,}", done)
        target = at_most(PREDICT_MB)
        rows.append(Row(f"predict {number:,} images", [done.megabytes], "MB", target=target))
    return Section(
        "Peak memory",
        rows,
        [
            "Resident memory of a process and all its children together, sampled every 50 ms "
            "(pages that they share count more than once), or the system's own maximum of the "
            "largest of them where that is more. 1 MB is a million bytes."
        ],
    )


def _say(what: str, done: Done) -> None:
    say(
        f"memory, {what}: {done.tree / 1e6:.0f} MB together, largest {done.largest / 1e6:.0f} MB, "
        f"{done.seconds:.1f} s"
    )
