r"""Measure recall and precision of the checks on faults planted in real images.

Example::

    python benchmarks/check_proof.py --data cats-dogs/ --data sign-digits/ --markdown proof.md

``kindsight check --full`` runs on each folder, on copies of it with planted duplicates and faults
(:mod:`planted_data`), and on copies with swapped labels. *Recall* is the fraction of planted items
that the check finds, *precision* the fraction of its findings that were planted.

Real datasets already contain duplicates, blurred images and wrong labels. Findings in the original
folder are therefore excluded from precision and counted in a note. Use seeds on which no threshold
was tuned.
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

from folders import class_files, lay_out
from output import Section, add_output_options, print_sections
from planted_data import COPIES, FAULTS, plant_faults, swap_labels
from processes import environment, kindsight, log, run
from scoring import (
    DUPLICATES,
    Findings,
    Tally,
    label_scores,
    linked_groups,
    precision_of_copies,
    precision_of_faults,
    recall_of_copies,
    recall_of_faults,
    wrong_and_missed,
)

FRACTIONS = (0.02, 0.05, 0.10)

COPIES_TARGET = 0.98
LABELS_TARGET = 0.8

NO_TARGET = "cropped to 75-85% of each side"
"""Shown without a target: smaller than what counts as a crop."""


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
        help="images per kind of copy or fault  [default: 50]",
    )  # fmt: skip
    add_output_options(parser)
    options = parser.parse_args(arguments)
    options.seed = options.seed or [11, 12, 13]
    return options


def check(folder: Path, work: Path) -> Findings:
    """Run ``kindsight check --full`` on a folder, with cached features."""
    out = work / "findings"
    shutil.rmtree(out, ignore_errors=True)
    command = kindsight("check", folder, "--full", "--quiet", "--out", out)
    run(command, env=environment(work / "cache"), accepted=(0, 1))  # 1: errors were found
    content = json.loads((out / "findings.json").read_text("utf-8"))
    groups, suggested = {}, {}
    for entry in content["checks"]:
        groups[entry["code"]] = [tuple(finding["paths"]) for finding in entry["findings"]]
        if entry["code"] == "KS403":
            suggested = {each["paths"][0]: each["suggestion"] for each in entry["findings"]}
    return Findings(groups, suggested)


def measure_planted(data: Path, options: argparse.Namespace, work: Path) -> Section:
    """Return a row per planted kind and per check."""
    section = Section(f"{data.name}: planted copies and faults, {options.each} of each")
    before = check(data, work)
    tally = Tally()
    excluded: dict[str, list[int]] = defaultdict(list)
    for seed in options.seed:
        folder = work / "planted"
        planted = plant_faults(data, folder, options.each, seed)
        found = check(folder, work)
        shutil.rmtree(folder)
        copies = [each for each in planted if each.kind in COPIES]
        for kind, (code, _) in COPIES.items():
            of_kind = [each for each in copies if each.kind == kind]
            tally.add(f"{kind}: recall", recall_of_copies(of_kind, found))
            tally.add(f"{kind}: recall of {code} alone", recall_of_copies(of_kind, found, (code,)))
        tally.add("all copies: recall", recall_of_copies(copies, found))
        for codes in (*((code,) for code in DUPLICATES[1:]), DUPLICATES):
            name = codes[0] if len(codes) == 1 else "all checks of duplicates"
            fraction, count = precision_of_copies(copies, found, before, codes)
            tally.add(f"precision of {name}", fraction)
            excluded[name].append(count)
        for kind, (code, _) in FAULTS.items():
            of_kind = [each for each in planted if each.kind == kind]
            tally.add(f"{kind}: recall of {code}", recall_of_faults(of_kind, found.paths(code)))
            fraction, count = precision_of_faults(
                kind, planted, found.paths(code), before.paths(code)
            )
            tally.add(f"precision of {code}", fraction)
            excluded[code].append(count)
        missed, wrong = wrong_and_missed(copies, found, before)
        log(f"{data.name}, seed {seed}: missed {missed}; wrong links {wrong}")
    section.rows = [tally.row(name, target_of(name)) for name in tally.fractions]
    groups = len(set(linked_groups(before, DUPLICATES).values()))
    own = [f"{len(before.paths(code))} {kind} images" for kind, (code, _) in FAULTS.items()]
    section.notes = [
        f"The original folder: {groups} groups of duplicates, {', '.join(own)}. Excluded from "
        f"precision because found there, too: {_means(excluded)} (means)."
    ]
    return section


def target_of(name: str) -> float | None:
    """Return the target of a row about copies."""
    if name == "precision of all checks of duplicates":
        return COPIES_TARGET
    kind, _, rest = name.partition(": ")
    return COPIES_TARGET if rest == "recall" and kind in COPIES and kind != NO_TARGET else None


def _means(counts: Mapping[str, Sequence[int]]) -> str:
    return ", ".join(f"{name} {statistics.fmean(each):.0f}" for name, each in counts.items())


def measure_swapped(data: Path, options: argparse.Namespace, work: Path) -> Section:
    """Return rows for each fraction of swapped labels."""
    section = Section(f"{data.name}: randomly swapped labels")
    classes = class_files(data)
    before = check(swapped_folder(classes, work, 0.0, 0)[0], work)
    tally = Tally()
    excluded: dict[str, list[int]] = defaultdict(list)
    for fraction in FRACTIONS:
        for seed in options.seed:
            folder, swapped = swapped_folder(classes, work, fraction, seed)
            scores = label_scores(swapped, check(folder, work), before)
            for name, (score, count) in scores.items():
                tally.add(f"{fraction:.0%} swapped: {name}", score)
                if name == "precision":
                    excluded[f"{fraction:.0%}"].append(count)
            log(f"{data.name}, seed {seed}: {fraction:.0%} of the labels swapped")
    section.rows = [
        tally.row(name, None if name.endswith("suggested") else LABELS_TARGET)
        for name in tally.fractions
    ]
    section.notes = [
        f"The original folder: KS403 flags {len(before.paths('KS403'))} labels. Excluded from "
        f"precision because flagged there, too: {_means(excluded)} (means)."
    ]
    return section


def swapped_folder(
    classes: Mapping[str, Sequence[Path]], work: Path, fraction: float, seed: int
) -> tuple[Path, dict[str, str]]:
    """Copy the images with a fraction of the labels swapped."""
    folder = work / "swapped"
    shutil.rmtree(folder, ignore_errors=True)
    return folder, swap_labels(classes, folder, fraction, seed)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print the sections."""
    options = parse(arguments)
    sections = []
    for data in options.data:
        with tempfile.TemporaryDirectory() as name:
            work = Path(name)
            copied = lay_out(class_files(data), work / data.name)
            sections.append(measure_planted(copied, options, work))
            sections.append(measure_swapped(copied, options, work))
    print_sections(sections, options)


if __name__ == "__main__":
    main()
