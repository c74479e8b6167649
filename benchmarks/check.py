r"""Checking images: ``kindsight check`` beside cleanvision, and on very many images.

Example::

    python benchmarks/check.py --data cats-dogs/ --data sign-digits/ \
        --rivals-python ../kindsight-rivals/bin/python

Both sides look at the same folders in turns, as whole processes with nothing cached: each folder as
it is, and a copy of it with faults planted. What each finds is compared issue by issue and image
by image. Then images are made up, and kindsight checks an eighth, a quarter, a half and all of
them: time must grow in proportion, memory hardly. Measure on an idle machine; cleanvision (AGPL) is
only ever in the rivals' environment (rivals/README.md).
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

from common import Row, Section, at_least, at_most
from faulty import generate, names, plant
from processes import environment, kindsight, run, say, script
from telling import tell

# Which of our checks find what cleanvision calls by this name.
SAME_ISSUE = {
    "dark": ("KS201", "KS203", "KS205"),
    "light": ("KS201", "KS204", "KS205"),
    "odd_aspect_ratio": ("KS110",),
    "odd_size": ("KS109",),
    "low_information": ("KS201", "KS205", "KS208"),
    "blurry": ("KS201", "KS202", "KS205"),
    "grayscale": ("KS206",),
    "exact_duplicates": ("KS301", "KS302"),
    "near_duplicates": ("KS201", "KS301", "KS302", "KS303", "KS304"),
}

# What calls for a look: every image that only cleanvision finds is named, with the reason.
TO_BE_LOOKED_AT = ("blurry",)

# Why an image may be found by cleanvision and not by kindsight.
WHY = {
    "blurry": "its score is the deviation of an edge filter at 64 pixels: low for dark or plain "
    "images, too, that are sharp",
    "odd_size": "where nearly all images have one size it names every other size, by how little "
    "it differs; kindsight from a factor of 1.5 on",
    "grayscale": "it names every image stored without colour, also where all are; kindsight "
    "names the odd kind",
    "near_duplicates": "it calls images alike that have the same hash of 64 bits; kindsight also "
    "compares them closely",
}

FASTER = 3.0
MEMORY = 1_500.0


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", maxsplit=1)[0])
    parser.add_argument(
        "--data", type=Path, action="append", default=[], metavar="DIR",
        help="images in class folders; may be given several times",
    )  # fmt: skip
    parser.add_argument("--rivals-python", type=Path, metavar="PATH", help="see rivals/README.md")
    parser.add_argument("--repeats", type=int, default=3, metavar="N", help="[default: 3]")
    parser.add_argument(
        "--generated", type=int, default=100_000, metavar="N",
        help="how many images to make up; 0 for none  [default: 100000]",
    )  # fmt: skip
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--markdown", type=Path, metavar="FILE")
    return parser.parse_args(arguments)


def side_by_side(options: argparse.Namespace, work: Path) -> Section:
    """Compare both sides on each folder, as it is and with faults."""
    section = Section("Checking images, nothing cached")
    for data in options.data:
        folders = {data.name: data, f"{data.name}, faults planted": plant(data, work / data.name)}
        for name, folder in folders.items():
            ours: list[float] = []
            theirs: list[float] = []
            for _ in range(options.repeats):
                seconds, found = check(folder, work)
                ours.append(seconds)
                if options.rivals_python is not None:
                    done = run(
                        script("rivals/cleanvision_check.py", folder, python=options.rivals_python)
                    )
                    theirs.append(done.seconds)
                    issues = done.answer["issues"]
                say(f"{name}: kindsight {ours[-1]:.1f} s, cleanvision {theirs[-1:]}")
            target = at_most(1 / FASTER, "ratio") if theirs else None
            section.rows.append(Row(name, ours, "s", "cleanvision", theirs, target))
            if theirs:
                shares, notes = compare(found, issues)
                section.notes += [f"{name}: {note}" for note in notes]
                what = f"{name}: of what cleanvision finds, blur apart"
                section.rows.append(Row(what, [shares], "%", target=at_least(0.95)))
    return section


def check(folder: Path, work: Path, *, memory: bool = False) -> tuple[float, dict[str, set[str]]]:
    """Check a folder with an empty cache; return seconds, and the images by code."""
    shutil.rmtree(work / "cache", ignore_errors=True)
    out = work / "findings"
    shutil.rmtree(out, ignore_errors=True)
    command = kindsight("check", folder, "--quiet", "--out", out)
    # 1 says that errors were found.
    done = run(command, env=environment(work / "cache"), memory=memory, good=(0, 1))
    said = json.loads((out / "findings.json").read_text("utf-8"))
    found = {
        entry["code"]: {path for finding in entry["findings"] for path in finding["paths"]}
        for entry in said["checks"]
    }
    check.megabytes = done.megabytes  # type: ignore[attr-defined]
    return done.seconds, found


def compare(found: dict[str, set[str]], issues: dict[str, list[str]]) -> tuple[float, list[str]]:
    """Compare issue by issue; return the share of theirs that is ours too, and sentences.

    Blur is left out of the share: what is called blurred is a matter of looking.
    """
    notes = []
    total = missed = 0
    for issue, codes in SAME_ISSUE.items():
        theirs = issues.get(issue, [])
        ours = set().union(*(found.get(code, set()) for code in codes))
        missing = [path for path in theirs if path not in ours]
        if issue not in TO_BE_LOOKED_AT:
            total, missed = total + len(theirs), missed + len(missing)
        also = len(ours - set(theirs))
        text = (
            f"{issue}: cleanvision {len(theirs)}, of which kindsight {len(theirs) - len(missing)}, "
            f"and {also} more ({'/'.join(codes)})"
        )
        if missing:
            text += f"; not: {names(missing, 20)}; {WHY.get(issue, 'to be explained')}"
        notes.append(text + ".")
    alone = sorted(set(found) - {code for codes in SAME_ISSUE.values() for code in codes})
    rest = [f"{code} {len(found[code])}" for code in alone if found[code]]
    notes.append(f"what cleanvision does not look for: {', '.join(rest) or 'nothing'}.")
    return (1.0 if not total else 1 - missed / total), notes


def very_many(options: argparse.Namespace, work: Path) -> Section:
    """Check an eighth, a quarter, a half and all of many images that are made up."""
    section = Section(f"Checking {options.generated:,} images of 160 x 120 that are made up")
    folder, there = work / "made up", 0
    rates, memory = {}, {}
    for share in (8, 4, 2, 1):
        count = options.generated // share
        say(f"making {count - there:,} images up")
        generate(folder, count, there)
        there = count
        seconds, found = check(folder, work, memory=True)
        copies = sum((int(Path(p).stem) % 100 == 99) for p in found["KS302"])
        rates[count], memory[count] = count / seconds, check.megabytes  # type: ignore[attr-defined]
        say(f"{count:,}: {seconds:.1f} s, {memory[count]:.0f} MB, {copies} copies found")
        section.rows += [
            Row(f"{count:,} images: time", [seconds], "s"),
            Row(f"{count:,} images: speed", [rates[count]], "/s"),
            Row(f"{count:,} images: memory", [memory[count]], "MB"),
            Row(f"{count:,} images: planted copies found", [copies / (count // 100)], "%",
                target=at_least(0.98)),
        ]  # fmt: skip
    first, last = min(rates), max(rates)
    eighth = f"{first:,} images"
    section.rows += [
        Row("speed with all", [rates[last]], "/s", eighth, [rates[first]], at_least(0.8, "ratio")),
        Row("memory with all", [memory[last]], "MB", eighth, [memory[first]], at_most(MEMORY)),
    ]
    section.notes = [
        "Nothing is cached, and no image has been looked at before. Memory is the most that all "
        "processes held together."
    ]
    return section


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure what was asked for, and print it."""
    options = parse(arguments)
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        sections = [side_by_side(options, work)] if options.data else []
        if options.generated:
            sections.append(very_many(options, work))
    tell(sections, options)


if __name__ == "__main__":
    main()
