"""KS601 to KS603: counts and Wilson intervals computed by hand."""

from __future__ import annotations

import pytest
from check_images import run
from fake_context import context

from kindsight.checks.rules.balance import half_width


def test_classes_with_few_images():
    labels = ["a"] * 20 + ["b"] * 19 + ["c"] * 5
    digests = [str(i) for i in range(39)] + ["same"] * 5
    result = run("KS601", context(labels, digest=digests))
    assert [(f.paths, f.severity, f.value) for f in result.findings] == [
        (("c",), "error", 1.0),
        (("b",), "warning", 19.0),
    ]
    assert "Class 'c' has 1 readable image, too few" in result.findings[0].message
    assert result.findings[1].message == "Class 'b' has 19 readable, distinct images."
    assert result.examined == 3


def test_unreadable_images_do_not_count():
    codes = ["corrupt"] * 19 + [""] * 21
    result = run("KS601", context(["a"] * 20 + ["b"] * 20, code=codes))
    assert [finding.paths for finding in result.findings] == [("a",)]


def test_enough_images_and_no_labels():
    assert run("KS601", context(["a"] * 20)).state == "passed"
    assert run("KS601", context([None] * 3)).state == "not applicable"
    assert run("KS603", context([None] * 3)).state == "not applicable"


def test_imbalanced_classes():
    result = run("KS602", context(["a"] * 100 + ["b"] * 10 + ["c"] * 11 + ["d"] * 4))
    assert [(f.paths, f.value) for f in result.findings] == [(("d", "a"), 25.0), (("b", "a"), 10.0)]
    assert "25 times as many" in result.findings[0].message
    assert run("KS602", context(["a"] * 5)).state == "not applicable"


def test_imbalance_of_the_train_split_only():
    labels, split = ["a"] * 20 + ["b"] * 20, ["train"] * 20 + ["test"] * 18 + ["train"] * 2
    assert len(run("KS602", context(labels, split=split)).findings) == 1


@pytest.mark.parametrize(
    ("n", "expected"),
    # Wilson's score interval, z = 1.959964, of 9 of 10, 45 of 50 and 90 of 100, by hand.
    [
        (10, (0.982124 - 0.595850) / 2),
        (50, (0.956523 - 0.786401) / 2),
        (100, (0.944771 - 0.825633) / 2),
    ],
)
def test_half_widths(n, expected):
    assert half_width(n) == pytest.approx(expected, abs=5e-5)


def test_wide_confidence_intervals():
    """A fifth of 300 is 60, ±8 points; of 50 it is 10, ±19 points."""
    result = run("KS603", context(["a"] * 300 + ["b"] * 50))
    (finding,) = result.findings
    assert finding.paths == ("b",) and finding.severity == "note"
    assert "1 of 2 classes" in finding.message and "'b' ±19" in finding.message


def test_the_test_split_is_counted():
    labels = (["a"] * 300 + ["b"] * 50) * 2
    split = ["train"] * 350 + ["test"] * 350
    assert run("KS603", context(labels, split=split)).state == "passed"
