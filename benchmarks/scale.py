r"""Measure how commands and the stages of a training scale: time and memory on many images.

Example::

    python benchmarks/scale.py --images 40000 --generated 100000
    python benchmarks/scale.py --images 0 --generated 0 --rows 10000 100000 1000000
    python benchmarks/scale.py --images 0 --generated 0 --photographs 100000

Two datasets are generated (see generated_images.py): frames of tracks of 30, as in the recordings
of traffic signs, and images that have nothing to do with each other; both as PNG files of 20 to 64
pixels in 43 class folders. A training with nothing cached runs on each, stage by stage: features,
the search for near-duplicates, the fit of the head; and the first two again, from the cache. Then a
head is fitted to generated features of more images, to measure its memory. Each is a process of its
own; building the backbone does not count. Features of 40,000 images take 1.2 GB of disk space, with
their small versions, those of 100,000 generated images 1 GB.

``--rows`` runs whole commands on folders of so many images: 10,000 different small images and hard
links to them, so that a million rows need neither much space nor many computed features. What is
computed for each row (predict, evaluate) is computed by a small CNN. Time per row and memory at
each size are compared with those at the size before. ``--photographs`` runs ``check --full`` and
``train`` on photographs of 800 x 600 pixels, all different, 160 kB each; with ``--work``, they are
kept there. Processor time changes less than time when the machine is busy.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from generated_images import FRAMES, KINDS, write_images, write_links
from output import Row, Section, add_output_options, at_least, at_most, print_sections
from processes import CompletedRun, environment, kindsight, log, run, script

FRACTION = 0.2
"""Maximum time of the search for near-duplicates, relative to that of the features."""

MEMORY = 1_500.0
"""Maximum memory of a training, MB."""

TITLES = {"tracks": f"frames in tracks of {FRAMES}", "unrelated": "unrelated images"}

DIFFERENT = 10_000
"""Different images among the rows of ``--rows``."""

LINEAR = 1.2
"""Maximum time per row, relative to that at the size before."""

BYTES_PER_ROW = 600.0
"""Maximum memory of a command that holds the dataset for each further row: its path of some 60
bytes, digest, label, split, and what is measured of it."""

STEPS = ("predict", "evaluate", "check", "train")
"""The commands of ``--rows``."""


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", maxsplit=1)[0])
    parser.add_argument(
        "--images", type=int, default=40_000, metavar="N",
        help="images of each dataset; 0 for none  [default: 40000]",
    )  # fmt: skip
    parser.add_argument(
        "--generated", type=int, default=100_000, metavar="N",
        help="rows of generated features; 0 for none  [default: 100000]",
    )  # fmt: skip
    parser.add_argument(
        "--kind", action="append", choices=tuple(KINDS), default=[], metavar="KIND",
        help="tracks or unrelated; may be given twice  [default: both]",
    )  # fmt: skip
    parser.add_argument(
        "--rows", type=int, nargs="+", default=[], metavar="N",
        help="sizes at which whole commands run, ascending  [default: none]",
    )  # fmt: skip
    parser.add_argument(
        "--step", action="append", choices=STEPS, default=[], metavar="COMMAND",
        help=f"command of --rows and --photographs: {', '.join(STEPS)}; may be repeated  "
        "[default: all]",
    )  # fmt: skip
    parser.add_argument(
        "--photographs", type=int, default=0, metavar="N",
        help="photographs for train and check --full  [default: 0]",
    )  # fmt: skip
    parser.add_argument(
        "--work", type=Path, metavar="DIR",
        help="existing folder for the images  [default: a temporary one]",
    )  # fmt: skip
    add_output_options(parser)
    return parser.parse_args(arguments)


def dataset_section(kind: str, count: int, work: Path) -> Section:
    """Train on a generated dataset."""
    log(f"Writing {count:,} images ({TITLES[kind]})")
    write_images(kind, work / kind, count)
    log(f"Training on {count:,} images ({TITLES[kind]})")
    command = script("scale_job.py", "--folder", work / kind, "--cache", work / "cache")
    done = run(command, env=environment(work / "cache"), memory=True)
    return section_of(kind, done.result, done.megabytes)


def section_of(kind: str, found: dict[str, Any], megabytes: float) -> Section:
    """Return the table of a training's stages."""
    section, seconds = Section(f"{found['images']:,} {TITLES[kind]}"), found["seconds"]
    for name, value in seconds.items():
        if name.startswith("near-duplicates"):
            features = [seconds["features"]]
            target = at_most(FRACTION, "ratio")
            section.rows.append(Row(name, [value], "s", "features", features, target))
        else:
            section.rows.append(Row(name, [value], "s"))
    section.rows.append(Row("peak memory", [megabytes], "MB", target=at_most(MEMORY)))
    if kind == "tracks":
        fraction = found["grouped"] / found["images"]
        section.rows.append(Row("frames in a group", [fraction], "%", target=at_least(0.99)))
    if not found["complete"]:
        section.notes.append("Too many images are similar: only the most similar were compared.")
    section.notes.append(f"{found['groups']:,} groups of {found['grouped']:,} images.")
    return section


def generated_section(count: int, work: Path) -> Section:
    """Fit a head to generated features."""
    log(f"Fitting a head to generated features of {count:,} images")
    work.mkdir()
    done = run(script("scale_job.py", "--generated", count, "--cache", work), memory=True)
    section = Section(f"Head of {count:,} generated images")
    section.rows += [Row(name, [value], "s") for name, value in done.result["seconds"].items()]
    section.rows.append(Row("peak memory", [done.megabytes], "MB", target=at_most(MEMORY)))
    return section


def row_sections(sizes: Sequence[int], steps: Sequence[str], work: Path) -> list[Section]:
    """Run whole commands on folders of images and links."""
    small = work / "small-cnn"
    write_images("unrelated", work / "different", min(DIFFERENT, *sizes))
    log("Training the small CNN")
    options = ("--model", "small-cnn", "--size", 32, "--epochs", 2, "--quiet")
    run(
        kindsight("train", work / "different", "--runs", small, *options),
        env=environment(work / "cache"),
    )
    (bundle,) = small.iterdir()
    sections = [
        Section(f"{step}: {DIFFERENT:,} different images and links to them") for step in steps
    ]
    before: dict[str, tuple[int, CompletedRun]] = {}
    for size in sizes:
        folder = work / f"rows-{size}"
        log(f"Linking {size:,} images")
        write_links("unrelated", folder, size, DIFFERENT)
        for step, section in zip(steps, sections, strict=True):
            log(f"{step}: {size:,} images")
            command = command_of(step, bundle, folder, work / f"out-{size}")
            done = run(command, env=environment(work / "cache"), memory=True, accepted=(0, 1))
            section.rows += size_rows(size, done, before.get(step))
            before[step] = size, done
    return sections


def command_of(step: str, bundle: Path, folder: Path, out: Path) -> list[str]:
    """Return the command of a step."""
    if step == "predict":
        return kindsight("predict", bundle, folder, "--out", f"{out}-predictions/", "--quiet")
    if step == "evaluate":
        return kindsight("evaluate", bundle, folder, "--quiet", "--json")
    if step == "check":
        return kindsight("check", folder, "--out", f"{out}-checks", "--quiet", "--json")
    return kindsight("train", folder, "--runs", out, "--size", 64, "--quiet")


def size_rows(size: int, done: CompletedRun, before: tuple[int, CompletedRun] | None) -> list[Row]:
    """Return the rows of a size: time and memory, compared with those of the size before."""
    named = f"{size:,} rows"
    cpu, memory = f"{named}, processor time", f"{named}, peak memory"
    if before is None:
        return [
            Row(named, [done.seconds], "s"),
            Row(cpu, [done.cpu], "s"),
            Row(memory, [done.megabytes], "MB"),
        ]
    fewer, earlier = before
    scaled, linear = f"{fewer:,} rows, times {size / fewer:g}", at_most(LINEAR, "ratio")
    allowed = earlier.megabytes + (size - fewer) * BYTES_PER_ROW / 1e6
    return [
        Row(named, [done.seconds], "s", scaled, [earlier.seconds * size / fewer], linear),
        Row(cpu, [done.cpu], "s", scaled, [earlier.cpu * size / fewer], linear),
        Row(
            memory, [done.megabytes], "MB", f"{fewer:,} rows", [earlier.megabytes], at_most(allowed)
        ),
    ]


def photograph_section(count: int, photographs: Path, steps: Sequence[str], work: Path) -> Section:
    """Run check --full and train on photographs, each with nothing cached."""
    section = Section(f"{count:,} photographs of 800 x 600 pixels")
    written = photographs.with_suffix(".written")
    if not written.exists():
        log(f"Writing {count:,} photographs")
        write_images("photographs", photographs, count)
        written.touch()
    commands = {
        "check": ("check", photographs, "--full", "--out", work / "checks", "--quiet", "--json"),
        "train": ("train", photographs, "--runs", work / "runs", "--quiet"),
    }
    for step in (step for step in commands if step in steps):
        name = "check --full" if step == "check" else step
        log(f"{name}: {count:,} photographs")
        own = environment(work / f"cache-{step}", KINDSIGHT_CACHE_LIMIT="100GB")
        done = run(kindsight(*commands[step]), env=own, memory=True, accepted=(0, 1))
        section.rows += [
            Row(name, [done.seconds], "s"),
            Row(f"{name}, images per second", [count / done.seconds], "/s"),
            Row(f"{name}, processor time", [done.cpu], "s"),
            Row(f"{name}, peak memory", [done.megabytes], "MB"),
        ]
    return section


def main() -> None:
    """Run the measurements and print their tables."""
    options = parse()
    sections = []
    with tempfile.TemporaryDirectory(prefix="kindsight-scale-", dir=options.work) as folder:
        if options.images:
            log("Building the backbone")
            run(script("scale_job.py", "--cache", Path(folder, "cache")))
        for kind in options.kind or KINDS:
            if options.images:
                sections.append(dataset_section(kind, options.images, Path(folder)))
        steps = options.step or STEPS
        if options.rows:
            sections += row_sections(sorted(options.rows), steps, Path(folder))
        if options.photographs:
            kept = (options.work or Path(folder)) / f"photographs-{options.photographs}"
            sections.append(photograph_section(options.photographs, kept, steps, Path(folder)))
        if options.generated:
            sections.append(generated_section(options.generated, Path(folder, "generated")))
    print_sections(sections, options)


if __name__ == "__main__":
    main()
