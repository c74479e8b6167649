r"""How right the checks are: known faults are planted in real images, and looked for.

Example::

    python benchmarks/check_proof.py --data cats-dogs/ --data sign-digits/ --markdown proof.md

``kindsight check --full`` looks at each folder as it is, at copies of it with copies and faults
planted (:mod:`planting`), and at copies with labels swapped. Of each kind *recall* is the share of
what was planted that the check names, *precision* the share of what it names that was planted.

Real images have duplicates, blurred images and wrong labels of their own. What the check names
in the folder as it is cannot be held for or against it by a machine: it is left out of precision,
counted, and said in a row of its own. A check whose thresholds were tuned on some seeds is proven
on others: take seeds here that nobody has looked at.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import tempfile
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

from common import Section
from folders import class_files, lay_out
from planting import COPIES, FAULTS, plant_faults, swap_labels
from processes import environment, kindsight, run, say
from scoring import (
    DUPLICATES,
    Findings,
    Tally,
    label_shares,
    linked_groups,
    precision_of_copies,
    precision_of_faults,
    recall_of_copies,
    recall_of_faults,
    unlike_planted,
)
from telling import tell

SHARES = (0.02, 0.05, 0.10)

WANTED_OF_COPIES = 0.98
WANTED_OF_LABELS = 0.8

PARTS = "parts, 75-85% of each side"
"""Smaller than what counts as cropped: there to be known."""


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", maxsplit=1)[0])
    parser.add_argument(
        "--data", type=Path, action="append", required=True, metavar="DIR",
        help="images in class folders; may be given several times",
    )  # fmt: skip
    parser.add_argument(
        "--seed", type=int, action="append", metavar="N",
        help="may be given several times  [default: 11, 12 and 13]",
    )  # fmt: skip
    parser.add_argument(
        "--each", type=int, default=50, metavar="N",
        help="how many images of each fault  [default: 50]",
    )  # fmt: skip
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--markdown", type=Path, metavar="FILE")
    options = parser.parse_args(arguments)
    options.seed = options.seed or [11, 12, 13]
    return options


def check(folder: Path, work: Path) -> Findings:
    """Run ``kindsight check --full`` on a folder; features of the same images are kept."""
    out = work / "findings"
    shutil.rmtree(out, ignore_errors=True)
    command = kindsight("check", folder, "--full", "--quiet", "--out", out)
    run(command, env=environment(work / "cache"), good=(0, 1))  # 1 says that errors were found
    said = json.loads((out / "findings.json").read_text("utf-8"))
    groups, suggested = {}, {}
    for entry in said["checks"]:
        groups[entry["code"]] = [tuple(finding["paths"]) for finding in entry["findings"]]
        if entry["code"] == "KS403":
            suggested = {each["paths"][0]: each["suggestion"] for each in entry["findings"]}
    return Findings(groups, suggested)


def copies_and_faults(data: Path, options: argparse.Namespace, work: Path) -> Section:
    """Plant copies and faults; rows for each kind and each check."""
    section = Section(f"{data.name}: copies and faults planted, {options.each} of each")
    before = check(data, work)
    tally = Tally()
    left_out: dict[str, list[int]] = defaultdict(list)
    for seed in options.seed:
        folder = work / "planted"
        planted = plant_faults(data, folder, options.each, seed)
        found = check(folder, work)
        shutil.rmtree(folder)
        copies = [each for each in planted if each.kind in COPIES]
        for kind, (code, _) in COPIES.items():
            made = [each for each in copies if each.kind == kind]
            tally.add(f"{kind}: found", recall_of_copies(made, found))
            tally.add(f"{kind}: by {code} itself", recall_of_copies(made, found, (code,)))
        tally.add("all copies: found", recall_of_copies(copies, found))
        for codes in (*((code,) for code in DUPLICATES[1:]), DUPLICATES):
            name = codes[0] if len(codes) == 1 else "all checks of duplicates"
            share, out = precision_of_copies(copies, found, before, codes)
            tally.add(f"precision of {name}", share)
            left_out[name].append(out)
        for kind, (code, _) in FAULTS.items():
            made, named = [each for each in planted if each.kind == kind], found.named(code)
            tally.add(f"{kind}: found by {code}", recall_of_faults(made, named))
            share, out = precision_of_faults(kind, planted, named, before.named(code))
            tally.add(f"precision of {code}", share)
            left_out[code].append(out)
        missed, wrong = unlike_planted(copies, found, before)
        say(f"{data.name}, seed {seed}: not found {missed}; linked wrongly {wrong}")
    section.rows = [tally.row(what, wanted(what)) for what in tally.shares]
    groups = len(set(linked_groups(before, DUPLICATES).values()))
    own = [f"{len(before.named(code))} {kind} ones" for kind, (code, _) in FAULTS.items()]
    section.notes = [
        f"The folder as it is: {groups} groups of duplicates, {', '.join(own)}. What of these is "
        f"found again is left out of precision: {_means(left_out)} (means)."
    ]
    return section


def wanted(what: str) -> float | None:
    """Return what is wanted of a row about copies: all kinds but parts, by any check of copies."""
    if what == "precision of all checks of duplicates":
        return WANTED_OF_COPIES
    kind, _, rest = what.partition(": ")
    return WANTED_OF_COPIES if rest == "found" and kind in COPIES and kind != PARTS else None


def _means(counts: Mapping[str, Sequence[int]]) -> str:
    return ", ".join(f"{name} {statistics.fmean(each):.0f}" for name, each in counts.items())


def swapped_labels(data: Path, options: argparse.Namespace, work: Path) -> Section:
    """Swap labels; rows for each share of them."""
    section = Section(f"{data.name}: labels swapped at random")
    classes = class_files(data)
    before = check(swapped_folder(classes, work, 0.0, 0)[0], work)
    tally = Tally()
    left_out: dict[str, list[int]] = defaultdict(list)
    for share in SHARES:
        for seed in options.seed:
            folder, swapped = swapped_folder(classes, work, share, seed)
            for what, (part, out) in label_shares(swapped, check(folder, work), before).items():
                tally.add(f"{share:.0%} swapped: {what}", part)
                if what == "precision":
                    left_out[f"{share:.0%}"].append(out)
            say(f"{data.name}, seed {seed}: {share:.0%} of the labels swapped")
    section.rows = [
        tally.row(what, None if what.endswith("suggested") else WANTED_OF_LABELS)
        for what in tally.shares
    ]
    section.notes = [
        f"The folder as it is: KS403 doubts {len(before.named('KS403'))} labels. What of these is "
        f"doubted again is left out of precision: {_means(left_out)} (means)."
    ]
    return section


def swapped_folder(
    classes: Mapping[str, Sequence[Path]], work: Path, share: float, seed: int
) -> tuple[Path, dict[str, str]]:
    """Lay the images out anew with a share of the labels swapped."""
    folder = work / "swapped"
    shutil.rmtree(folder, ignore_errors=True)
    return folder, swap_labels(classes, folder, share, seed)


def main(arguments: Sequence[str] | None = None) -> None:
    """Prove what was asked for, and print it."""
    options = parse(arguments)
    sections = []
    for data in options.data:
        with tempfile.TemporaryDirectory() as name:
            work = Path(name)
            copied = lay_out(class_files(data), work / data.name)
            sections.append(copies_and_faults(copied, options, work))
            sections.append(swapped_labels(copied, options, work))
    tell(sections, options)


if __name__ == "__main__":
    main()
