r"""Compare ``kindsight check`` with cleanvision, and measure it on many generated images.

Example::

    python benchmarks/check.py --data cats-dogs/ --data sign-digits/ \
        --rivals-python ../kindsight-rivals/bin/python

Both check the same folders in turns, as whole processes with empty caches: each folder, and a
copy of it with planted faults. Their findings are compared by issue and image. Then kindsight
checks an eighth, a quarter, a half and all of many generated images: time should grow in
proportion, memory hardly at all. Measure on an idle machine; cleanvision (AGPL) belongs only in the
rivals' environment (rivals/README.md).
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

from faults import first_names, generate, plant
from output import Row, Section, add_output_options, at_least, at_most, print_sections
from processes import environment, kindsight, log, run, script

# The checks that correspond to an issue of cleanvision.
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

# Issues left out of the compared fraction, because people disagree on them.
SUBJECTIVE = ("blurry",)

# Why cleanvision may find an image that kindsight does not.
REASONS = {
    "blurry": "its score is the deviation of an edge filter at 64 pixels, which is also low for "
    "sharp images that are dark or plain",
    "odd_size": "where nearly all images have one size, it reports every other size; kindsight "
    "reports sizes that differ by a factor of 1.5 or more",
    "grayscale": "it reports every image stored without colour, even if all are; kindsight reports "
    "the minority",
    "near_duplicates": "it reports images with the same 64-bit hash; kindsight also compares their "
    "pixels",
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
        help="number of generated images; 0 for none  [default: 100000]",
    )  # fmt: skip
    add_output_options(parser)
    return parser.parse_args(arguments)


def compare_sides(options: argparse.Namespace, work: Path) -> Section:
    """Compare both sides on each folder, with and without planted faults."""
    section = Section("Checking images, nothing cached")
    for data in options.data:
        folders = {data.name: data, f"{data.name}, planted faults": plant(data, work / data.name)}
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
                    issues = done.result["issues"]
                log(f"{name}: kindsight {ours[-1]:.1f} s, cleanvision {theirs[-1:]}")
            target = at_most(1 / FASTER, "ratio") if theirs else None
            section.rows.append(Row(name, ours, "s", "cleanvision", theirs, target))
            if theirs:
                fraction, notes = compare(found, issues)
                section.notes += [f"{name}: {note}" for note in notes]
                what = f"{name}: cleanvision's findings also found, without blur"
                section.rows.append(Row(what, [fraction], "%", target=at_least(0.95)))
    return section


def check(folder: Path, work: Path, *, memory: bool = False) -> tuple[float, dict[str, set[str]]]:
    """Check a folder with an empty cache; return seconds and the paths by code."""
    shutil.rmtree(work / "cache", ignore_errors=True)
    out = work / "findings"
    shutil.rmtree(out, ignore_errors=True)
    command = kindsight("check", folder, "--quiet", "--out", out)
    # 1: errors were found.
    done = run(command, env=environment(work / "cache"), memory=memory, accepted=(0, 1))
    content = json.loads((out / "findings.json").read_text("utf-8"))
    found = {
        entry["code"]: {path for finding in entry["findings"] for path in finding["paths"]}
        for entry in content["checks"]
    }
    check.megabytes = done.megabytes  # type: ignore[attr-defined]
    return done.seconds, found


def compare(found: dict[str, set[str]], issues: dict[str, list[str]]) -> tuple[float, list[str]]:
    """Return the fraction of cleanvision's findings that kindsight has, and a note per issue."""
    notes = []
    total = missed = 0
    for issue, codes in SAME_ISSUE.items():
        theirs = issues.get(issue, [])
        ours = set().union(*(found.get(code, set()) for code in codes))
        missing = [path for path in theirs if path not in ours]
        if issue not in SUBJECTIVE:
            total, missed = total + len(theirs), missed + len(missing)
        also = len(ours - set(theirs))
        text = (
            f"{issue}: cleanvision {len(theirs)}, kindsight {len(theirs) - len(missing)} of these "
            f"and {also} more ({'/'.join(codes)})"
        )
        if missing:
            text += f"; missing: {first_names(missing, 20)}; {REASONS.get(issue, 'unknown reason')}"
        notes.append(text + ".")
    alone = sorted(set(found) - {code for codes in SAME_ISSUE.values() for code in codes})
    rest = [f"{code} {len(found[code])}" for code in alone if found[code]]
    notes.append(f"checks that cleanvision does not have: {', '.join(rest) or 'nothing'}.")
    return (1.0 if not total else 1 - missed / total), notes


def measure_generated(options: argparse.Namespace, work: Path) -> Section:
    """Check an eighth, a quarter, a half and all of the generated images."""
    section = Section(f"Checking {options.generated:,} generated images of 160 x 120")
    folder, existing = work / "generated", 0
    rates, memory = {}, {}
    for divisor in (8, 4, 2, 1):
        count = options.generated // divisor
        log(f"generating {count - existing:,} images")
        generate(folder, count, existing)
        existing = count
        seconds, found = check(folder, work, memory=True)
        copies = sum((int(Path(p).stem) % 100 == 99) for p in found["KS302"])
        rates[count], memory[count] = count / seconds, check.megabytes  # type: ignore[attr-defined]
        log(f"{count:,}: {seconds:.1f} s, {memory[count]:.0f} MB, {copies} copies found")
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
    section.notes = ["Nothing is cached. Memory is the peak of all processes together."]
    return section


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print the sections."""
    options = parse(arguments)
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        sections = [compare_sides(options, work)] if options.data else []
        if options.generated:
            sections.append(measure_generated(options, work))
    print_sections(sections, options)


if __name__ == "__main__":
    main()
