"""Heads fitted to columns in a file: equal to those in memory, whatever the threads."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest

from kindsight.checks.rules.labels import find_label_errors
from kindsight.errors import CacheError
from kindsight.models.backbones.backbone import FeatureBlock, FeatureLayout
from kindsight.training.frozen import softmax
from kindsight.training.frozen.column_store import ColumnFile, ColumnStore
from kindsight.training.frozen.feature_rows import FeatureRows
from kindsight.training.frozen.select_head import fit_head, predict_out_of_fold

LAYOUT = FeatureLayout((FeatureBlock("stage_mean", 0, 24), FeatureBlock("top_mean", 24, 40)))
TRAINED, CLASSES = 1_500, 4


@pytest.fixture(scope="module")
def images():
    """Features of classes that overlap, 1,500 rows to fit to and 1,000 to predict."""
    random = np.random.default_rng(3)
    targets = random.integers(0, CLASSES, TRAINED + 1_000)
    centers = random.normal(0, 0.8, (CLASSES, 40))
    values = centers[targets] + random.normal(size=(len(targets), 40))
    return values.astype(np.float32), targets, random.integers(0, 5, TRAINED)


@pytest.fixture(autouse=True)
def few_select(monkeypatch):
    """Select by few images, so that all images are more."""
    monkeypatch.setattr("kindsight.training.frozen.select_head.SELECTION_IMAGES", 400)


def fit(images, kind, store):
    values, targets, folds = images
    return fit_head(
        values[:TRAINED], targets[:TRAINED], CLASSES, LAYOUT, folds=folds, kind=kind, store=store
    )


@pytest.mark.parametrize("kind", ["linear", "rbf"])
def test_a_head_fitted_from_a_file_is_that_in_memory(images, kind, tmp_path):
    held_out = images[0][TRAINED:]
    inside = fit(images, kind, None)
    filed = fit(images, kind, ColumnStore(tmp_path, 0))
    assert filed.chosen == inside.chosen and filed.temperature == inside.temperature
    wanted, found = (centred(head.layers.logits(held_out)) for head in (inside, filed))
    assert np.abs(found - wanted).max() < 2e-3 * np.ptp(wanted)
    assert (found.argmax(1) == wanted.argmax(1)).mean() > 0.998
    assert not list(tmp_path.iterdir())


def test_the_threads_do_not_change_a_head(images, tmp_path, monkeypatch):
    monkeypatch.setattr(softmax, "FILE_BLOCK", 100_000)
    found = []
    for cores in (1, 3):
        for module in ("softmax", "column_store"):
            monkeypatch.setattr(
                f"kindsight.training.frozen.{module}.count_cores", lambda c=cores: c
            )
        found.append(fit(images, "linear", ColumnStore(tmp_path, 0)).layers)
    assert found[0].kernel.tobytes() == found[1].kernel.tobytes()


def test_out_of_fold_predictions_from_a_file_question_the_same_labels(images, tmp_path):
    values, targets, folds = images
    given = targets[:TRAINED].copy()
    swapped = np.arange(0, TRAINED, 20)
    given[swapped] = (given[swapped] + 1) % CLASSES
    reported: list[tuple[int, int]] = []
    inside, filed = (
        predict_out_of_fold(
            values[:TRAINED], given, CLASSES, LAYOUT, folds=folds, store=store,
            progress=lambda done, total: reported.append((done, total)),
        )
        for store in (None, ColumnStore(tmp_path, 0))
    )  # fmt: skip
    # Each of the two ends with all images; the second also reports while the file is written.
    ends = [index for index, (done, _) in enumerate(reported) if done == TRAINED]
    first, second = reported[: ends[0] + 1], reported[ends[0] + 1 :]
    for states in (first, second):
        assert states == sorted(states) and states[-1] == (TRAINED, TRAINED)
    assert any(0.2 * TRAINED < done <= 0.5 * TRAINED for done, _ in second)
    assert filed.dtype == np.float32 and np.abs(filed - inside).max() < 0.01
    one, other = ({*find_label_errors(each, given).rows.tolist()} for each in (inside, filed))
    assert len(one & {*swapped.tolist()}) > 50
    assert len(one ^ other) <= 0.01 * len(one)


def test_a_fit_from_a_file_reads_it_a_bounded_number_of_times(images, tmp_path, monkeypatch):
    passes = []
    plain = softmax.fit_softmax

    def counted(features, *args, **options):
        found = plain(features, *args, **options)
        passes.append((type(features), found.passes))
        return found

    monkeypatch.setattr("kindsight.training.frozen.select_head.fit_softmax", counted)
    fit(images, "linear", ColumnStore(tmp_path, 0))
    assert [kind is ColumnFile for kind, _ in passes] == [False, True]
    assert 2 < passes[1][1] < 40


def test_rows_of_a_file_are_read_in_any_order(tmp_path):
    values = np.arange(60, dtype=np.float32).reshape(20, 3) / 8
    store = ColumnStore(tmp_path, 0)
    with store.computed(FeatureRows.of(values), lambda block: block[:, ::-1], 3) as found:
        for rows in (slice(7, 9), slice(0, 20), slice(19, 40), slice(4, 4)):
            np.testing.assert_array_equal(found[rows], values[rows, ::-1])
    with pytest.raises(ValueError, match="closed"):
        found[0:1]


def test_too_little_space_is_found_first(tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=1_000))
    with pytest.raises(CacheError, match=r"500 images.*need 0\.0 GB.*Free some space"):
        ColumnFile(500, 3, tmp_path)


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no SIGKILL")
def test_a_killed_process_leaves_no_file(tmp_path):
    program = (
        "import sys, time; from pathlib import Path; import numpy as np\n"
        "from kindsight.training.frozen.column_store import ColumnFile\n"
        "file = ColumnFile(1000, 100, Path(sys.argv[1])); file.append(np.ones((1000, 100)))\n"
        "print('written', flush=True); time.sleep(60)"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "written\n"
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not list(tmp_path.iterdir())


def centred(logits):
    return logits - logits.mean(axis=1, keepdims=True)
