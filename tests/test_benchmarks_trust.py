"""Tests of the benchmark of trust: images, splits, and the verdict on its figures."""

from __future__ import annotations

import importlib
import json
from pathlib import Path

import numpy as np
import pytest

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"


@pytest.fixture(scope="module")
def trust():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(BENCHMARKS))
        yield importlib.import_module("trust")


def figures(count: int, **changes: float) -> dict[str, list[float]]:
    """The figures of splits that meet every target."""
    kinds = ("overall", "per class")
    found = {
        "accuracy": 0.98,
        "ECE": 0.01,
        "ECE before": 0.02,
        "scaled": 1.0,
        "kept 0.99": 1.0,
        "labelled 0.99": 0.9,
        "accuracy 0.99": 0.995,
        "known": 0.96,
        "refused noise": 1.0,
        **{f"coverage {kind}": 0.91 for kind in kinds},
        **{f"worst class {kind}": 0.8 for kind in kinds},
        **{f"size {kind}": 0.92 for kind in kinds},
        **{f"empty {kind}": 0.08 for kind in kinds},
    }
    return {
        key: [changes.get(key.replace(" ", "_"), value)] * count for key, value in found.items()
    }


def missed(trust, found: dict[str, list[float]]) -> list[str]:
    return [row.what for row in trust.sections("d", found, (0.99,)).rows if row.met is False]


def test_targets(trust):
    assert missed(trust, figures(20)) == []
    assert missed(trust, figures(20, coverage_overall=0.925)) == [
        "d: coverage of 90% sets, overall: distance from 90%"
    ]
    assert missed(trust, figures(20, coverage_overall=0.875)) != []
    assert missed(trust, figures(20, ECE=0.021)) == ["d: ECE"]
    assert missed(trust, figures(20, known=0.94)) == ["d: known images kept"]
    assert missed(trust, figures(20, refused_noise=0.9)) == ["d: foreign images refused, noise"]


def test_a_promise_may_be_broken_in_two_of_twenty_splits(trust):
    found = figures(20)
    found["kept 0.99"] = [0, 0] + [1] * 18
    assert missed(trust, found) == []
    found["kept 0.99"] = [0, 0, 0] + [1] * 17
    assert missed(trust, found) == ["d: splits with at least the promised 99% accuracy"]


def test_a_promise_that_was_never_made_is_noted(trust):
    found = figures(3)
    for key in ("kept 0.99", "labelled 0.99", "accuracy 0.99"):
        del found[key]
    section = trust.sections("d", found, (0.99,))
    assert "99% accuracy could not be promised in any split" in section.notes
    assert all(row.met is not False for row in section.rows)


def test_synthetic_images_are_of_their_kind(trust):
    noise, plain, text = (
        trust.synthetic_images(kind, 3, 64) for kind in ("noise", "plain", "text")
    )
    for images in (noise, plain, text):
        assert [image.shape for image in images] == [(64, 64, 3)] * 3
        assert not (images[0] == images[1]).all()
    assert all(len(np.unique(image.reshape(-1, 3), axis=0)) == 1 for image in plain)
    assert all(image.std() > 60 for image in noise)
    assert all(0.02 < (image < 128).mean() < 0.5 for image in text)  # black on white


def test_measured_splits_are_not_measured_again(trust, tmp_path, monkeypatch, capsys):
    promises = (0.95, 0.98)  # of other datasets
    found = {
        **{key: values[0] for key, values in figures(1).items() if not key.endswith("0.99")},
        **{f"{key} {p}": 1.0 for key in ("kept", "labelled", "accuracy") for p in promises},
    }
    lines = [json.dumps({"data": "d", "seed": seed, **found}) for seed in (0, 1)]
    path = tmp_path / "splits.jsonl"
    path.write_text("\n".join(lines), "utf-8")
    command = ["trust.py", "somewhere/d", "--splits", "2", "--results", str(path)]
    monkeypatch.setattr("sys.argv", command)
    trust.main()
    assert "d: known images kept" in capsys.readouterr().out
    assert trust.read_results(path)["d", 1]["known"] == 0.96


def test_splits_are_stratified_and_depend_on_the_seed(trust):
    labels = ["a"] * 40 + ["b"] * 80
    train, test = trust.split_rows(labels, 0)
    assert len(train) == 90 and sorted([*train, *test]) == [*range(120)]
    assert sum(labels[row] == "a" for row in test) == 10
    assert trust.split_rows(labels, 0)[1].tolist() == test.tolist()
    assert trust.split_rows(labels, 1)[1].tolist() != test.tolist()
