r"""Measure how the stages of a training scale: time and memory on many images.

Example::

    python benchmarks/scale.py --images 40000 --generated 100000

Two datasets are generated (see generated_images.py): frames of tracks of 30, as in the recordings
of traffic signs, and images that have nothing to do with each other; both as PNG files of 20 to 64
pixels in 43 class folders. A training with nothing cached runs on each, stage by stage: features,
the search for near-duplicates, the fit of the head; and the first two again, from the cache. Then a
head is fitted to generated features of more images, to measure its memory. Each is a process of its
own; building the backbone does not count. Features of 40,000 images take 1.2 GB of disk space, with
their small versions, those of 100,000 generated images 1 GB. Measure on an idle machine.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from generated_images import FRAMES, KINDS, write_images
from output import Row, Section, add_output_options, at_least, at_most, print_sections
from processes import environment, log, run, script

FRACTION = 0.2
"""Maximum time of the search for near-duplicates, relative to that of the features."""

MEMORY = 1_500.0
"""Maximum memory of a training, MB."""

TITLES = {"tracks": f"frames in tracks of {FRAMES}", "unrelated": "unrelated images"}


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


def main() -> None:
    """Run the measurements and print their tables."""
    options = parse()
    sections = []
    with tempfile.TemporaryDirectory(prefix="kindsight-scale-") as folder:
        if options.images:
            log("Building the backbone")
            run(script("scale_job.py", "--cache", Path(folder, "cache")))
        for kind in options.kind or KINDS:
            if options.images:
                sections.append(dataset_section(kind, options.images, Path(folder)))
        if options.generated:
            sections.append(generated_section(options.generated, Path(folder, "generated")))
    print_sections(sections, options)


if __name__ == "__main__":
    main()
