"""The contract of all checks."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import numpy as np
import pytest
from check_images import assert_contract, context_of, file_of, scene, with_features

from kindsight.cache.folder import Cache
from kindsight.checks import (
    SEVERITIES,
    Check,
    CheckContext,
    all_checks,
    measure_dataset,
    run_checks,
)
from kindsight.checks.check import COSTS
from kindsight.checks.rules import KINDS
from kindsight.dataset import ImageDataset

ROOT = Path(__file__).resolve().parents[2]
CHECKS = all_checks()
each_check = pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.code)


@pytest.fixture(scope="module")
def contexts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, CheckContext]:
    """Datasets: with faults of all kinds, in memory, unreadable, unlabelled."""
    folder = tmp_path_factory.mktemp("contract")
    cache = folder / "cache"
    jpeg = file_of(scene(1))
    faulty = {
        "train/cat/a.jpg": jpeg,
        "train/cat/b.jpg": jpeg,
        "train/cat/mirrored.png": scene(1)[:, ::-1],
        "train/cat/cut.jpg": jpeg[: len(jpeg) // 2],
        "train/cat/empty.png": b"",
        "train/cat/letter.jpg": b"Dear reader",
        "train/cat/notes.txt": b"no image",
        "train/cat/liar.png": jpeg,
        "train/cat/black.png": np.zeros((50, 60, 3), np.uint8),
        "train/Dog/grey.png": scene(2).mean(-1).astype(np.uint8),
        "train/Dog/dark.png": scene(3) // 12,
        "train/Dog/A.jpg": scene(4),
        "train/Dog/a.jpg": scene(5),
        "train/dog /tiny.png": scene(6, 8, 9),
        "train/dog /long.png": scene(6, 30, 600),
        "test/cat/a.jpg": jpeg,
        "test/Dog/x.jpg": scene(8),
        "test/dog /x.jpg": scene(9),
    }
    for number in range(8):
        faulty[f"train/cat/more {number}.jpg"] = scene(20 + number)
        faulty[f"train/Dog/more {number}.jpg"] = scene(40 + number)
    made = {"faulty": context_of(folder / "faulty", cache, faulty)}
    arrays = ImageDataset.from_arrays([scene(n) for n in range(4)], ["a", "a", "b", "b"])
    made["arrays"] = CheckContext(*measure_dataset(arrays, Cache(cache)))
    (folder / "letter.jpg").write_bytes(b"Dear reader")
    one = ImageDataset.from_files([folder / "letter.jpg", folder / "absent.jpg"])
    made["unreadable"] = CheckContext(*measure_dataset(one, Cache(cache)))
    unlabelled = ImageDataset.from_folder(folder / "faulty", labelled=False)
    made["unlabelled"] = CheckContext(*measure_dataset(unlabelled, Cache(cache)))
    return made


def refuse() -> None:
    raise AssertionError("a cheap check must not compute features")


def test_codes_are_unique_and_in_order() -> None:
    codes = [check.code for check in CHECKS]
    assert codes == sorted(set(codes)) and codes


@each_check
def test_metadata_of_a_check(check: Check) -> None:
    assert re.fullmatch(r"KS[1-9]\d\d", check.code)
    assert type(check) in list(KINDS.values())[int(check.code[2]) - 1]
    assert check.title and check.title[0].isupper() and not check.title.endswith(".")
    assert check.severity in SEVERITIES and check.cost in COSTS
    assert check.description.endswith(".") and check.advice.endswith(".")
    assert not inspect.signature(type(check)).parameters


@each_check
def test_a_check_has_a_page_and_a_test(check: Check) -> None:
    page = ROOT / "docs" / check.docs
    assert page.is_file(), f"write docs/{check.docs}"
    text = page.read_text("utf-8")
    assert text.startswith(f"# {check.code}: {check.title}\n")
    tests = [path.read_text("utf-8") for path in Path(__file__).parent.glob("test_*.py")]
    assert any(f'"{check.code}"' in text for text in tests), "write its own test"


@each_check
@pytest.mark.parametrize("kind", ["faulty", "arrays", "unreadable", "unlabelled"])
def test_result_of_a_check(check: Check, kind: str, contexts: dict[str, CheckContext]) -> None:
    context = with_features(contexts[kind])
    if check.cost == "cheap":
        context.compute_features = context.compute_out_of_fold = refuse  # type: ignore[assignment]
    assert_contract(check, context)


@each_check
def test_full_checks_are_skipped_by_default(
    check: Check, contexts: dict[str, CheckContext]
) -> None:
    (result,) = run_checks(contexts["faulty"], checks=[check])
    assert (result.state == "skipped") == (check.cost == "full")
    (ignored,) = run_checks(contexts["faulty"], checks=[check], ignore=[check.code], full=True)
    assert ignored.state == "skipped" and ignored.reason == "The check is ignored."


def test_unknown_codes_are_refused_with_the_closest(
    contexts: dict[str, CheckContext],
) -> None:
    from kindsight.errors import SettingsError

    with pytest.raises(SettingsError, match=r"no check 'ks101'\. Did you mean KS101"):
        run_checks(contexts["faulty"], ignore=["ks101"])
