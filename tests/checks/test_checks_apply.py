"""Corrected tables: the change for each kind of finding, written and read back."""

from __future__ import annotations

import csv

import pytest
from check_images import file_of, scene
from fake_context import context
from hypothesis import given, settings
from hypothesis import strategies as st

from kindsight.checks import Finding, run_checks
from kindsight.checks.apply import correct
from kindsight.checks.check import CheckResult
from kindsight.dataset import open_dataset
from kindsight.errors import UsageError


def found(code, *rows, severity="warning", suggestion=None, confidence=0.95):
    confidence = None if suggestion is None else confidence
    finding = Finding(code, severity, f"{code} it is.", rows, (), suggestion, confidence=confidence)
    return CheckResult(code, "found", (finding,))


def test_each_kind_of_finding_by_hand():
    dataset = context(["a", "a", "b", "b", "a", "b", "a", "b"]).dataset
    results = [
        found("KS101", 0, severity="error"),
        found("KS401", 1, 2, 3, severity="error", suggestion="b"),
        found("KS403", 4, suggestion="b"),
        found("KS302", 5, 6),
        found("KS304", 6, 7),
        found("KS203", 5),
    ]
    done = correct(dataset, results)
    assert done.excluded == {0}
    assert done.dataset.label == ("a", "b", "b", "b", "b", "b", "a", "b")
    assert done.previous_label == (None, "a", None, None, "a", None, None, None)
    assert len(set(done.dataset.group[5:])) == 1 and done.dataset.group[:5] == (None,) * 5
    assert done.reasons[:5] == ("KS101: KS101 it is.", "KS401: KS401 it is.", "", "",
                                "KS403: KS403 it is.")  # fmt: skip
    assert done.reasons[6] == "KS302: KS302 it is. KS304: KS304 it is."
    assert done.counts() == {"excluded": 1, "relabelled": 2, "regrouped": 3}


def test_conflicting_labels_without_majority_are_excluded_if_errors():
    dataset = context(["a", "b", "a", "b", "b"]).dataset
    results = [found("KS401", 0, 1, severity="error"), found("KS402", 2, 3, 4, suggestion="b")]
    done = correct(dataset, results)
    assert done.excluded == {0, 1} and done.dataset.label == dataset.label


def test_uncertain_suggestions_are_listed_and_left_alone():
    dataset = context(["a", "a", "a", "a", "b", "b"]).dataset
    results = [
        found("KS101", 3, severity="error"),
        *(found("KS403", k, suggestion="b", confidence=c) for k, c in enumerate((0.9, 0.89, None))),
        found("KS403", 3, suggestion="b", confidence=0.6),  # excluded anyway
        found("KS403", 4, suggestion="a", confidence=0.73),
    ]
    done = correct(dataset, results)
    assert done.dataset.label == ("b", "a", "a", "a", "b", "b")
    assert [finding.rows for finding in done.uncertain] == [(1,), (2,), (4,)]
    assert done.reasons[1] == "Check this: KS403: KS403 it is." and done.previous_label[1] is None
    assert done.counts() == {"excluded": 1, "relabelled": 1, "regrouped": 0}
    # The confidence is an option.
    lower = correct(dataset, results, 0.7)
    assert lower.dataset.label == ("b", "b", "a", "a", "a", "b")
    assert [finding.rows for finding in lower.uncertain] == [(2,)]


def test_summary_findings_exclude_nothing():
    dataset = context(["a", "a", "b", "b"]).dataset
    assert correct(dataset, [found("KS201", 0, 1, 2), found("KS404", 3)]).excluded == set()
    assert correct(dataset, [found("KS201", 1)]).excluded == {1}


def test_duplicate_class_names_are_merged():
    dataset = context(["Cat", "cat", "cat", "dog", "Cat"]).dataset
    one = Finding("KS113", "error", "Two names.", (), ("Cat", "cat"), "cat")
    results = [
        CheckResult("KS113", "found", (one,)),
        found("KS401", 0, 1, severity="error"),
        found("KS403", 3, suggestion="Cat"),
    ]
    done = correct(dataset, results)
    assert done.dataset.label == ("cat",) * 5 and done.excluded == set()
    assert done.reasons == (
        "KS113: Two names.", "", "", "KS403: KS403 it is.", "KS113: Two names."
    )  # fmt: skip


def test_duplicates_across_splits_stay_in_the_last_split():
    dataset = context(["a"] * 4, split=["train", "test", "train", "train"]).dataset
    assert correct(dataset, [found("KS501", 0, 1, severity="error")]).excluded == {0}


def test_the_table_can_be_opened_and_no_image_is_changed(make_context, tmp_path):
    jpeg = file_of(scene(1))
    files = {"cat/a.jpg": jpeg, "cat/cut.jpg": file_of(scene(2))[:700], "cat/b.jpg": scene(3)}
    files |= {"dog/a.jpg": jpeg, "dog/again.jpg": jpeg, "dog/c.jpg": scene(4)}
    made = make_context(files)
    before = {path: path.read_bytes() for path in (tmp_path / "photos").rglob("*.jpg")}
    target = tmp_path / "tables" / "corrected.csv"
    correct(made.dataset, run_checks(made)).write(target)
    with target.open(newline="") as file:
        rows = {row["path"]: row for row in csv.DictReader(file)}
    assert rows["../photos/cat/cut.jpg"]["split"] == "excluded"
    moved = rows["../photos/cat/a.jpg"]
    assert (moved["label"], moved["previous_label"]) == ("dog", "cat") and moved[
        "reason"
    ].startswith("KS")
    dataset = open_dataset(target)
    assert len(dataset) == 5 and dataset.counts() == {"cat": 1, "dog": 4}
    assert dataset.ignored == {"excluded row": 1}
    same = {path: group for path, group in zip(dataset.path, dataset.group, strict=True) if group}
    assert len(same) == 3 and len(set(same.values())) == 1
    assert before == {path: path.read_bytes() for path in (tmp_path / "photos").rglob("*.jpg")}


def test_existing_files_are_not_overwritten(tmp_path):
    done = correct(context(["a", "b"]).dataset, [])
    there = tmp_path / "there.csv"
    there.write_text("mine")
    with pytest.raises(UsageError, match="nothing is overwritten"):
        done.write(there)
    assert there.read_text() == "mine"
    with pytest.raises(UsageError, match=r"ends in \.csv"):
        done.write(tmp_path / "corrected.txt")


CODES = st.sampled_from(
    ["KS101", "KS201", "KS202", "KS301", "KS304", "KS401", "KS402", "KS403", "KS404", "KS501"]
)
FINDINGS = st.lists(
    st.tuples(
        CODES,
        st.lists(st.integers(0, 11), min_size=1, max_size=4, unique=True),
        st.sampled_from(["error", "warning"]),
        st.sampled_from([None, "a", "b"]),
        st.sampled_from([None, 0.6, 0.95]),
    ),
    max_size=12,
)


@given(
    FINDINGS, st.lists(st.sampled_from(["train", "validation", "test"]), min_size=12, max_size=12)
)
@settings(deadline=None, max_examples=30)
def test_each_change_has_a_reason(findings, split):
    dataset = context(["a", "b"] * 6, split=split).dataset
    done = correct(
        dataset,
        [found(c, *r, severity=s, suggestion=to, confidence=p) for c, r, s, to, p in findings],
    )
    named = {row for _, rows, *_ in findings for row in rows}
    doubtful = {row for finding in done.uncertain for row in finding.rows}
    for row in range(12):
        changed = (
            row in done.excluded
            or done.dataset.label[row] != dataset.label[row]
            or done.dataset.group[row] != dataset.group[row]
        )
        assert changed <= bool(done.reasons[row]) <= (changed or row in doubtful)
        assert not changed or row in named
        relabelled = done.dataset.label[row] != dataset.label[row]
        assert done.previous_label[row] == (dataset.label[row] if relabelled else None)
    assert done.dataset.path == dataset.path and done.dataset.split == dataset.split
    changes = sum(done.counts().values())
    assert changes <= sum(map(bool, done.reasons)) <= changes + len(doubtful)
