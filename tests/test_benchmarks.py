"""Tests of the benchmarks' arguments, data, tables and results. Nothing is timed."""

from __future__ import annotations

import importlib
import json
import sys
from collections import Counter
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"


@pytest.fixture(scope="module", autouse=True)
def on_the_path():
    """Let the scripts import each other."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(BENCHMARKS))
        yield


def module(name: str) -> ModuleType:
    return importlib.import_module(name)


# Arguments


def test_only_selects_sections():
    parse = module("main_job").parse
    assert parse([]).only == ["accuracy", "train", "rivals", "predict", "memory"]
    assert parse(["--only", "memory,train"]).only == ["train", "memory"]
    options = parse([])
    assert (options.repeats, options.rival_repeats, options.predict_repeats) == (3, 1, 7)
    assert options.limit is None


@pytest.mark.parametrize(
    ("arguments", "rule"),
    [
        (["--only", "train,speed"], "got speed"),
        (["--repeats", "0"], "whole number of at least 1"),
        (["--limit", "some"], "whole number of at least 1"),
        (["--cats-dogs", "no-such-folder"], "must be a folder"),
    ],
)
def test_invalid_arguments_are_rejected(arguments, rule, capsys):
    with pytest.raises(SystemExit) as caught:
        module("main_job").parse(arguments)
    assert caught.value.code == 2
    assert rule in capsys.readouterr().err


def test_sections_without_images_are_skipped(tmp_path, capsys):
    module("main_job").main(["--only", "train,memory", "--json", str(tmp_path / "out.json")])
    captured = capsys.readouterr()
    assert "train is skipped" in captured.err
    assert "memory is skipped" in captured.err
    assert captured.out == ""


# Images and splits


@pytest.fixture
def classes(tmp_path: Path) -> Path:
    for name, count in (("a", 20), ("b", 10)):
        (tmp_path / "data" / name).mkdir(parents=True)
        for number in range(count):
            (tmp_path / "data" / name / f"{number:02}.jpg").write_bytes(f"{name}{number}".encode())
    (tmp_path / "data" / "a" / "notes.txt").write_text("no image")
    return tmp_path / "data"


def test_images_are_listed_by_class_and_limited_equally(classes):
    folders = module("folders")
    found = folders.class_files(classes)
    assert {name: len(files) for name, files in found.items()} == {"a": 20, "b": 10}
    some = folders.first_of_each(found, 12)
    assert {name: len(files) for name, files in some.items()} == {"a": 6, "b": 6}
    assert folders.first_of_each(found, None) == found


def test_a_folder_without_classes_is_rejected(tmp_path):
    with pytest.raises(SystemExit, match="two or more class folders"):
        module("folders").class_files(tmp_path)


def test_hold_out_is_stratified_and_deterministic(classes):
    folders = module("folders")
    found = folders.class_files(classes)
    train, validation = folders.hold_out(found)
    assert {name: len(files) for name, files in validation.items()} == {"a": 4, "b": 2}
    for name, files in found.items():
        assert sorted(train[name] + validation[name]) == files
    assert folders.hold_out(found) == (train, validation)
    assert folders.hold_out(found, seed=1) != (train, validation)


def test_images_are_copied_not_linked(classes, tmp_path):
    folders = module("folders")
    target = folders.lay_out(folders.class_files(classes), tmp_path / "copy")
    copied = sorted(path.relative_to(target).as_posix() for path in target.glob("*/*"))
    assert len(copied) == 30
    assert not any(path.is_symlink() for path in target.glob("*/*"))
    assert (target / "b" / "07.jpg").read_bytes() == b"b7"


def test_names_are_repeated_until_there_are_enough(classes, tmp_path):
    folders = module("folders")
    file = folders.name_list(folders.class_files(classes), 70, tmp_path / "names.txt")
    names = file.read_text(encoding="utf-8").splitlines()
    assert len(names) == 70
    assert sorted(Counter(names).values()) == [2] * 20 + [3] * 10
    assert all(Path(name).is_file() for name in names)


def test_folds_test_each_image_once_and_splits_a_quarter():
    make_splits = module("accuracy_job").make_splits
    labels = ["a"] * 40 + ["b"] * 20
    tested = [test for _, test in make_splits(labels, folds=True)]
    assert [len(test) for test in tested] == [12] * 5
    assert sorted(np.concatenate(tested)) == list(range(60))
    splits = make_splits(labels, folds=False)
    assert [(len(train), len(test)) for train, test in splits] == [(45, 15)] * 4
    assert all(sum(labels[row] == "a" for row in test) == 10 for _, test in splits)
    assert all(not set(train) & set(test) for train, test in splits)
    assert len({tuple(sorted(test)) for _, test in splits}) == 4


def test_columns_are_selected_by_stage_and_statistic():
    layouts = importlib.import_module("kindsight.models.backbones.backbone")
    names = ("stage3_mean", "stage3_max", "stage4_mean", "top_mean")
    layout = layouts.FeatureLayout(
        tuple(layouts.FeatureBlock(name, 2 * i, 2 * i + 2) for i, name in enumerate(names))
    )
    columns, chosen = module("feature_choice").choose_columns(layout, (3, 4), ("mean",))
    assert columns.tolist() == [0, 1, 4, 5, 6, 7]
    assert chosen.names == ("stage3_mean", "stage4_mean", "top_mean")
    assert chosen.width == 6


# Processes


def test_environment_drops_variables_that_change_speeds(monkeypatch, tmp_path):
    processes = module("processes")
    for name in ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE", "OMP_NUM_THREADS", "KINDSIGHT_CACHE"):
        monkeypatch.setenv(name, "1")
    monkeypatch.setenv("HARMLESS", "1")
    names = "OPENBLAS_CORETYPE OPENBLAS_L2_SIZE OMP_NUM_THREADS KINDSIGHT_CACHE HARMLESS ADDED"
    code = f"import json, os; print(json.dumps([os.environ.get(n) for n in {names.split()!r}]))"
    done = processes.run(
        [sys.executable, "-c", code], env=processes.environment(tmp_path, ADDED="2")
    )
    assert done.result == [None, None, None, str(tmp_path), "1", "2"]


def test_run_passes_input_and_reports_failures(tmp_path):
    processes = module("processes")
    names = tmp_path / "names.txt"
    names.write_text("names\n")
    code = "import sys; print(sys.stdin.read())"
    assert processes.run([sys.executable, "-c", code], stdin=names).output.strip() == "names"
    with pytest.raises(SystemExit, match="the reason"):
        processes.run([sys.executable, "-c", "import sys; sys.exit('the reason')"])


def test_memory_includes_child_processes():
    processes = module("processes")
    hold = "import time; x = b'1' * {}; time.sleep(1.5)"
    child = f"{hold.format(60_000_000)}"
    code = f"import subprocess, sys; p = subprocess.Popen([sys.executable, '-c', {child!r}]); "
    code += f"{hold.format(90_000_000)}; p.wait()"
    done = processes.run([sys.executable, "-c", code], memory=True)
    assert done.tree > 150_000_000
    assert done.megabytes > 150


# Rows and tables


def test_rows_compare_medians_with_targets():
    output = module("output")
    row = output.Row("train", [3.0, 9.0, 2.0], "s", "floor", [1.0, 2.0, 8.0], output.at_most(2.0))
    assert (row.figure, row.rival_figure, row.ratio) == (3.0, 2.0, 1.5)
    assert row.met is False
    ratio = output.Row("train", [3.0], "s", "floor", [2.0], output.at_most(1.5, "ratio"))
    assert ratio.met is True
    assert output.Row("x", [0.25], "s", "y", [1.0], output.Target("under", 0.25)).met is False
    assert output.Row(
        "x", [0.8842], "%", target=output.Target("above", 0.8842, "kindsight")
    ).met is (False)
    assert output.Row("x", [0.99], "%", target=output.at_least(0.99)).met is True
    assert output.Row("x", [1.0], "s").met is None
    assert output.Row("x", [1.0], "s", target=output.at_most(2.0, "ratio")).met is False


def test_rounded_accuracies_tie():
    exact_fraction = module("sections.rivals").exact_fraction
    assert exact_fraction(0.91667, 12) == exact_fraction(11 / 12, 12) == 11 / 12
    assert exact_fraction(0.98929, 280) == 277 / 280


@pytest.mark.parametrize(
    ("value", "text"),
    [(1 / 6, "1/6"), (0.25, "1/4"), (0.85, "0.85"), (2.0, "2"), (1.7249, "1.725")],
)
def test_ratio_text(value, text):
    assert module("output").ratio_text(value) == text


def test_tables_have_all_rows_and_the_verdict_names_missed_targets():
    output = module("output")
    section = output.Section(
        "Times",
        [
            output.Row("train | cold", [3.0], "s", "floor", [2.0], output.at_most(2.0, "ratio")),
            output.Row("memory", [1600.0], "MB", target=output.at_most(1500.0)),
            output.Row("network", [1.25], "s"),
        ],
        ["A note."],
    )
    lines = output.plain(section).splitlines()
    assert lines[0] == "Times"
    cells = [" ".join(line.split()) for line in lines[3:7]]
    assert cells == [
        "train | cold 3.00 s floor 2.00 s 1.5 at most 2 met",
        "memory 1,600 MB at most 1,500 MB NOT MET",
        "network 1.25 s",
        "A note.",
    ]
    page = output.markdown(section).splitlines()
    assert page[0] == "### Times"
    assert page[4] == "| train \\| cold | 3.00 s | floor | 2.00 s | 1.5 | at most 2 | met |"
    assert len({line.replace("\\|", "").count("|") for line in page[2:7]}) == 1
    assert output.verdict([section]) == "1 of 2 targets met; not met: memory"
    stored = json.loads(json.dumps(section.to_dict()))
    assert [row["met"] for row in stored["rows"]] == [True, False, None]
    assert stored["rows"][0]["theirs"] == [2.0]


# Augmentation


@pytest.mark.parametrize("library", ["kindsight", "opencv"])
def test_augmentation_epochs_have_all_images(library, monkeypatch, capsys):
    monkeypatch.setattr("os.sched_setaffinity", lambda *_: None, raising=False)
    sizes = ["--images", "23", "--epochs", "2", "--side", "12"]
    monkeypatch.setattr(sys, "argv", ["augment_images.py", library, *sizes])
    module("augment_images").main()
    rates = json.loads(capsys.readouterr().out)["rates"]
    assert len(rates) == 2 and min(rates) > 0


def test_augmentation_compares_all_libraries_on_each_number_of_cores(monkeypatch):
    augmentation = module("augmentation")
    speeds = {"kindsight": 40.0, "opencv": 50.0, "keras": 3.0, "torchvision": 10.0}
    monkeypatch.setattr(
        augmentation, "_rates", lambda name, cores, _: [speeds.get(name, 80.0) * cores]
    )
    section = augmentation.measure(augmentation.parse(["--rivals-python", "python"]))
    assert [(row.figure, row.rival_figure, row.met) for row in section.rows] == [
        (40, 50, None), (40, 3, True), (40, 10, True), (40, 80, False),
        (80, 6, True), (80, 20, True), (80, 160, False),
    ]  # fmt: skip
    alone = augmentation.measure(augmentation.parse(["--cores", "1"]))
    assert len(alone.rows) == 2 and "torchvision, albumentations" in alone.notes[0]


# Tables


def test_all_table_readers_return_the_same_images(tmp_path):
    tables = module("tables")
    file = tables.write_pixels(tmp_path / "train.csv", rows=3)
    dataset = tables.kindsight(str(file))
    for name in ("numpy", "csv and lists"):
        images, labels = tables.READERS[name](str(file))
        assert images.shape == (3, 28, 28)
        assert [int(label) for label in labels] == [int(label) for label in dataset.label]
        assert all(np.array_equal(a, b) for a, b in zip(images, dataset.arrays, strict=True))
    paths = tables.kindsight(str(tables.write_paths(tmp_path / "paths.csv", rows=9)))
    assert len(paths) == 9 and paths.size[0] == 1
    assert (tables.PIXEL_ROWS, tables.PIXELS) == (27_455, 784)


# The image generator


def write_photos(root: Path) -> Path:
    from PIL import Image

    for name in ("a", "b"):
        (root / name).mkdir(parents=True)
        for number in range(6):
            Image.new("RGB", (30, 20), (40 * number, 90, 0)).save(root / name / f"{number}.jpg")
    return root


@pytest.mark.parametrize("library", ["kindsight", "keras"])
def test_generator_epochs_have_all_images(library, tmp_path, monkeypatch, capsys):
    folder = write_photos(tmp_path / "photos")
    arguments = [library, "course", str(folder), "--epochs", "2"]
    monkeypatch.setattr(sys, "argv", ["generator_epochs.py", *arguments])
    module("generator_epochs").main()
    result = json.loads(capsys.readouterr().out)
    assert result["images"] == 12
    assert len(result["rates"]) == 2 and min(result["rates"]) > 0


def test_generator_targets(monkeypatch, tmp_path):
    generator = module("generator")
    speeds = {"kindsight": [40.0, 100.0, 110.0], "keras": [10.0, 10.0, 10.0]}
    monkeypatch.setattr(
        generator, "_rates", lambda side, job, *_: speeds.get(side, [50.0, 50.0, 50.0])
    )
    arguments = ["--cats-dogs", str(tmp_path), "--repeats", "2"]
    section = generator.measure(generator.parse(arguments), tmp_path)
    assert [(row.rival, row.ratio, row.met) for row in section.rows] == [
        ("Keras's ImageDataGenerator", 4.0, True),
        ("Keras's ImageDataGenerator", 10.5, True),
        ("Keras's ImageDataGenerator", 4.0, True),
        ("Keras's ImageDataGenerator", 10.5, True),
        ("tf.data with Keras layers", 0.8, False),
        ("tf.data with Keras layers", 2.1, True),
        ("tf.data with Keras layers", 0.8, False),
        ("tf.data with Keras layers", 2.1, True),
        ("tf.data with cached batches", 0.8, None),
        ("tf.data with cached batches", 2.1, None),
        ("tf.data with cached batches", 0.8, None),
        ("tf.data with cached batches", 2.1, None),
    ]
    assert section.rows[1].target.value == 10 and section.rows[3].target.value == 8
    assert "torchvision, albumentations" in section.notes[0]
    arguments += ["--rivals-python", "python"]
    assert len(generator.measure(generator.parse(arguments), tmp_path).rows) == 20


# Curves


def rows_of(data, budget, accuracy, frozen, seconds):
    output = module("output")
    rows = [
        output.Row(f"{data}, {budget}: {figure}", ours, unit, "frozen head", theirs)
        for figure, unit, ours, theirs in (
            ("accuracy, mean of 4", "%", [accuracy], [frozen]),
            ("seconds", "s", seconds, [9.0, 7.0, 8.0]),
        )
    ]
    return [row.to_dict() for row in rows]


def test_curves_have_one_point_per_budget_sorted_by_time():
    curves = module("draw_curves")
    rows = [
        *rows_of("solar, cells", "10m", 0.9, 0.8, [400.0, 500.0, 600.0]),
        *rows_of("solar, cells", "2m", 0.85, 0.7, [100.0]),
        *rows_of("hands", "1m", 0.9, 0.6, [50.0]),
        {"what": "cats, images a second", "ours": [3.0], "theirs": [1.0]},
    ]
    found = curves.points_of(rows)
    assert list(found) == ["solar, cells", "hands"]
    assert [(p.name, p.seconds, p.accuracy) for p in found["solar, cells"]] == [
        ("frozen head", 8.0, 0.8),
        ("2m", 100.0, 0.85),
        ("10m", 500.0, 0.9),
    ]


def test_curves_are_drawn_deterministically(tmp_path, capsys):
    curves, file = module("draw_curves"), tmp_path / "rows.json"
    section = {"rows": rows_of("hands", "1m", 0.9, 0.6, [50.0])}
    file.write_text(json.dumps([section]))
    for name in ("one.svg", "two.svg"):
        curves.main([str(file), "--out", str(tmp_path / name)])
    assert (tmp_path / "one.svg").read_bytes() == (tmp_path / "two.svg").read_bytes()
    assert "hands: frozen head 60.00% in 8 s, 1m 90.00% in 50 s" in capsys.readouterr().err
    file.write_text("[]")
    with pytest.raises(SystemExit, match="have no rows of budgets"):
        curves.main([str(file), "--out", str(tmp_path / "none.svg")])


# Input size


def test_predictions_of_two_sizes_are_compared(tmp_path):
    header = "path,label,prediction,p_a,p_b\n"
    rows = {
        "own": ["1,a,a,0.9,0.1", "2,a,a,0.8,0.2", "3,b,a,0.7,0.3"],
        "chosen": ["3,b,b,0.4,0.6", "1,a,a,0.9,0.1", "2,a,a,0.8,0.2"],
    }
    results = {}
    for name, lines in rows.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "test.csv").write_text(header + "\n".join(lines) + "\n")
        results[name] = {"run": str(tmp_path / name)}
    results["chosen"]["input_size"] = {"size": 128, "tried": [128, 224]}
    section = module("input_size").compared("d", results, {"chosen": [10.0], "own": [40.0]})
    time, accuracy, loss = section.rows
    assert (time.ratio, time.met) == (0.25, True)
    assert (accuracy.figure, accuracy.rival_figure) == pytest.approx((1, 2 / 3))
    assert loss.figure == pytest.approx(-np.log([0.9, 0.8, 0.6]).mean(), abs=1e-6)
    assert section.notes[0] == "128 px was chosen; tried: 128, 224."
    assert "+33.33 points" in section.notes[1] and "no loss beyond noise" in section.notes[1]


# Cold start


def test_the_cold_start_is_compared_with_bare_litert(trained, photos):
    section = module("predict").measure(trained.run, photos / "ring" / "ring 004.jpg", 1)
    assert [row.what for row in section.rows][:2] == ["kindsight.Predictor", "kindsight predict"]
    assert all(row.figure > 0 and row.rival == "bare LiteRT" for row in section.rows)
