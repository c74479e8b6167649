"""Tests of the benchmarks of checks: planted data, scores and comparisons."""

from __future__ import annotations

import importlib
import json
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from PIL import Image

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"


@pytest.fixture(scope="module", autouse=True)
def on_the_path() -> Iterator[None]:
    """Let the scripts import each other."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(BENCHMARKS))
        yield


def module(name: str) -> ModuleType:
    return importlib.import_module(name)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Class folders of 12 images each, 40 x 60 pixels."""
    folder = tmp_path_factory.mktemp("data") / "photos"
    rng = np.random.default_rng(0)
    for label in ("a", "b"):
        (folder / label).mkdir(parents=True)
        for number in range(12):
            pixels = rng.integers(0, 256, (40, 60, 3), np.uint8)
            Image.fromarray(pixels).save(folder / label / f"{number}.jpg")
    return folder


def files_of(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.glob("*/*")}


# Planted data


def test_every_kind_of_copy_and_fault_is_planted(photos, tmp_path):
    data = module("planted_data")
    planted = data.plant_faults(photos, tmp_path / "planted", 2, seed=5)
    before, after = files_of(photos), files_of(tmp_path / "planted")
    kinds = [each.kind for each in planted]
    assert kinds == [kind for kind in (*data.COPIES, *data.FAULTS) for _ in range(2)]
    # Copies are new files next to their originals; faults replace an image.
    copies = [each for each in planted if each.kind in data.COPIES]
    faults = [each for each in planted if each.kind in data.FAULTS]
    assert set(after) - set(before) == {each.path for each in copies}
    assert {path for path in before if after[path] != before[path]} == {e.path for e in faults}
    assert all(each.original in before and each.path.split("/")[0] == each.original.split("/")[0]
               for each in planted)  # fmt: skip
    assert len({each.original for each in planted}) == len(planted)
    cropped = [each for each in planted if each.kind.startswith("cropped to 90")]
    for each in cropped:
        width, height = Image.open(tmp_path / "planted" / each.path).size
        assert 54 <= width <= 57 and 36 <= height <= 38
    cut = [each for each in planted if each.kind == "truncated"]
    assert all(before[each.path].startswith(after[each.path]) for each in cut)


def test_planting_is_deterministic(photos, tmp_path):
    plant = module("planted_data").plant_faults
    for number, seed in enumerate((1, 1, 2)):
        plant(photos, tmp_path / str(number), 1, seed)
    first, again, other = (files_of(tmp_path / str(number)) for number in range(3))
    assert first == again != other


def test_labels_of_a_fraction_of_the_images_are_swapped(photos, tmp_path):
    classes = module("folders").class_files(photos)
    swapped = module("planted_data").swap_labels(classes, tmp_path / "swapped", 0.25, seed=3)
    assert len(swapped) == 6
    laid_out = files_of(tmp_path / "swapped")
    assert len(laid_out) == 24
    for path, data in laid_out.items():
        label, name = path.split("/")
        correct, _, original = name.partition("-")
        assert data == (photos / correct / original).read_bytes()
        assert (label != correct) == (path in swapped)
        assert swapped.get(path, correct) == correct


# Scores


def findings(flagged: dict[str, str] | None = None, **groups: Any) -> Any:
    scoring = module("scoring")
    by_code = {code: [tuple(paths.split()) for paths in found] for code, found in groups.items()}
    by_code["KS403"] = [(path,) for path in flagged or {}]
    return scoring.Findings(by_code, flagged or {})


def planted(*pairs: str, kind: str = "mirrored") -> list[Any]:
    return [module("planted_data").Planted(kind, *pair.split()) for pair in pairs]


def test_copies_are_found_if_linked_with_their_original():
    scoring = module("scoring")
    found = findings(KS302=["a A", "b c"], KS303=["c C B"])
    copies = planted("A a", "B b", "C c", "D d")
    # b is linked with B through c; D is found nowhere.
    assert scoring.recall_of_copies(copies, found) == (3, 4)
    assert scoring.recall_of_copies(copies, found, ("KS303",)) == (1, 4)
    missed, wrong = scoring.wrong_and_missed(copies, found, findings())
    assert missed == ["D"] and wrong == [("b", "c"), ("c", "C", "B")]


def test_links_in_the_original_folder_are_excluded():
    scoring = module("scoring")
    copies = planted("A a", "B b")
    # Three links of four images: A-a and B-b were planted, one joins a with b, which are not.
    wrong = findings(KS304=["A a b B"])
    assert scoring.precision_of_copies(copies, wrong, findings()) == ((2, 3), 0)
    # Excluded if a and b are duplicates in the original folder.
    before = findings(KS302=["a b"])
    assert scoring.precision_of_copies(copies, wrong, before) == ((2, 2), 1)
    # Links of the original folder are excluded; the links of x, y and z are wrong.
    found = findings(KS302=["a b"], KS304=["x y z"])
    assert scoring.precision_of_copies(copies, found, before) == ((0, 2), 1)


def test_recall_and_precision_of_faults():
    scoring = module("scoring")
    faults = planted("a a", "b b", kind="dark") + planted("c c", kind="blurred")
    both = faults + planted("D d") + planted("e e", kind="blank")
    found = {"a", "c", "D", "d", "e"}
    assert scoring.recall_of_faults(faults[:2], found) == (1, 2)
    # c is wrong; d was found before, D is its copy; e is a dark blank image.
    fraction, excluded = scoring.precision_of_faults("dark", both, found, {"d"})
    assert fraction == (1, 2) and excluded == 2


def test_labels_flagged_in_the_original_folder_are_excluded():
    scoring = module("scoring")
    swapped = {"b/1": "a", "a/2": "b", "b/3": "a"}
    found = findings({"b/1": "a", "a/2": "c", "a/4": "b", "a/5": "b"})
    before = findings({"a/4": "b", "a/1": "b"})
    assert scoring.label_scores(swapped, found, before) == {
        "recall": ((2, 3), 0),
        "precision": ((2, 3), 1),
        "correct label suggested": ((1, 2), 0),
    }


def test_tally_rows_have_the_mean_and_the_summed_counts():
    scoring = module("scoring")
    tally = scoring.Tally()
    for fraction in ((1, 2), (8, 8), (0, 0)):
        tally.add("found", scoring.Fraction(*fraction))
    row = tally.row("found", 0.9)
    assert row.what == "found (9 of 10)"
    assert row.figure == pytest.approx((0.5 + 1 + 1) / 3) and row.met is False


def test_targets_of_rows():
    target_of = module("check_proof").target_of
    assert target_of("re-encoded: recall") == 0.98
    assert target_of("cropped to 90-95% of each side: recall") == 0.98
    assert target_of("precision of all checks of duplicates") == 0.98
    assert target_of("mirrored: recall of KS303 alone") is target_of("precision of KS303") is None
    assert target_of("cropped to 75-85% of each side: recall") is None


def test_default_seeds(tmp_path):
    parse = module("check_proof").parse
    assert parse(["--data", str(tmp_path)]).seed == [11, 12, 13]
    assert parse(["--data", str(tmp_path), "--seed", "7"]).seed == [7]


def test_findings_are_parsed(monkeypatch, tmp_path):
    proof = module("check_proof")

    def run(command, **_):
        out = Path(command[command.index("--out") + 1])
        out.mkdir()
        one = {"paths": ["a/1", "a/2"], "suggestion": None}
        doubt = {"paths": ["a/1"], "suggestion": "b"}
        checks = [{"code": "KS302", "findings": [one]}, {"code": "KS403", "findings": [doubt]}]
        (out / "findings.json").write_text(json.dumps({"checks": checks}))

    monkeypatch.setattr(proof, "run", run)
    found = proof.check(tmp_path, tmp_path)
    assert found.paths("KS302") == {"a/1", "a/2"} and found.suggested == {"a/1": "b"}


# Comparison with cleanvision


def test_issues_are_compared_by_image():
    check = module("check")
    found = {code: set() for codes in check.SAME_ISSUE.values() for code in codes}
    found |= {"KS203": {"a", "b"}, "KS302": {"c"}, "KS202": set(), "KS111": {"z"}}
    issues = {"dark": ["a"], "near_duplicates": ["c", "d"], "blurry": ["e"]}
    fraction, notes = check.compare(found, issues)
    assert fraction == pytest.approx(2 / 3)  # without blur
    assert "dark: cleanvision 1, kindsight 1 of these and 1 more (KS201/KS203/KS205)." in notes
    (near,) = (note for note in notes if note.startswith("near_duplicates"))
    assert "kindsight 1 of these and 0 more" in near and "missing: d;" in near
    assert notes[-1] == "checks that cleanvision does not have: KS111 1."


def test_generated_images_do_not_depend_on_the_workers(tmp_path):
    faults = module("faults")
    one = faults.generate(tmp_path / "one", 200, workers=1)
    two = faults.generate(tmp_path / "two", 90, workers=2)
    faults.generate(two, 200, 90)
    assert files_of(one) == files_of(two) and len(files_of(one)) == 200
    original, copy = (Image.open(one / f"class {n}" / f"{98 + n // 9:06}.jpg") for n in (8, 9))
    difference = np.asarray(original, int) - np.asarray(copy, int)
    assert 0 < np.abs(difference).mean() < 12  # number 99 is number 98, re-encoded


def test_growing_numbers_of_images_are_checked(monkeypatch, tmp_path):
    check = module("check")
    generated = []

    def generate(folder, count, first):
        generated.append((first, count))

    def fake_check(folder, work, *, memory):
        count = generated[-1][1]
        check.check.megabytes = 100.0 + count / 10
        return count / 500, {"KS302": {f"class 9/{n:06}.jpg" for n in range(98, count)}}

    monkeypatch.setattr(check, "generate", generate)
    monkeypatch.setattr(check, "check", fake_check)
    section = check.measure_generated(check.parse(["--generated", "1600"]), tmp_path)
    assert generated == [(0, 200), (200, 400), (400, 800), (800, 1600)]
    cells = {row.what: (row.figure, row.ratio, row.met) for row in section.rows}
    assert cells["1,600 images: time"] == (3.2, None, None)
    assert cells["200 images: planted copies found"] == (1.0, None, True)
    assert cells["speed with all"] == (500, 1.0, True)
    assert cells["memory with all"] == (260, 260 / 120, True)
