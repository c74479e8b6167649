"""``predict --out DIR/``: Parquet files, skipped where they are there."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from pyarrow import dataset, parquet

import kindsight.cli.terminal.prediction_files as files
import kindsight.cli.terminal.prediction_parts as parts
from fake_executor import use_fake_executor
from kindsight import network_outputs
from tiny_bundle import write_bundle, write_image

SIZE = 4
IMAGES = 11


@pytest.fixture
def many(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with new/00.png to new/10.png, of which 03.png is unreadable."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(parts, "PART_ROWS", SIZE)
    for number in range(IMAGES):
        write_image(Path("new", f"{number:02d}.png"), (20 * number, 200 - 17 * number, 90))
    Path("new", "03.png").write_bytes(b"no image at all")
    settle()
    return tmp_path


def settle() -> None:
    """Wait until a later change of the files has other times."""
    time.sleep(0.06)


def written() -> dict[str, bytes]:
    """Return the parts by name, in the order of the images."""
    return {path.name: path.read_bytes() for path in sorted(Path("out").glob("part-*.parquet"))}


def manifest() -> dict[str, object]:
    return json.loads(Path("out", "_predictions.json").read_text("utf-8"))


def test_the_parts_are_the_rows_of_a_single_file(run, tiny, many):
    run("predict", tiny, "new", "--out", "rows.parquet")
    result = run("predict", tiny, "new", "--out", "out/")
    assert result.exit_code == 1 and result.stdout == ""
    assert "11 predictions in out/, 3 parts." in result.stderr
    whole = parquet.read_table("rows.parquet")
    assert dataset.dataset("out").to_table().equals(whole)
    assert [parquet.read_metadata(path).num_rows for path in sorted(Path("out").glob("*.pa*"))] == [
        4,
        4,
        3,
    ]
    pandas = pytest.importorskip("pandas")
    found = pandas.read_parquet("out")
    assert found["path"].tolist() == [f"new/{number:02d}.png" for number in range(IMAGES)]
    assert found["error"].tolist().count("not-an-image") == 1
    assert manifest()["complete"] is True and manifest()["unreadable"] == 1


def test_parts_of_other_schemas_are_read_as_one(run, tiny, many):
    """A part without any value in a column has the type of the other parts."""
    for name in ("00", "01", "02"):
        Path("new", f"{name}.png").write_bytes(b"no image either")
    settle()
    run("predict", tiny, "new", "--out", "out/")
    schemas = [parquet.read_schema(path) for path in sorted(Path("out").glob("part-*"))]
    assert all(schema.equals(schemas[0]) for schema in schemas)
    assert dataset.dataset("out").to_table().num_rows == IMAGES


def test_a_second_run_computes_the_missing_parts_alone(run, tiny, many, monkeypatch):
    run("predict", tiny, "new", "--out", "out/")
    first = written()
    lost = list(first)[1]
    Path("out", lost).unlink()
    read = []
    plain = files.to_arrow
    monkeypatch.setattr(
        parts, "to_arrow", lambda header, rows: read.extend(rows) or plain(header, rows)
    )
    result = run("predict", tiny, "new", "--out", "out")
    assert "(1 computed, 2 reused)" in result.stderr
    assert [row[0] for row in read] == [f"new/{number:02d}.png" for number in range(4, 8)]
    assert written() == first
    assert result.exit_code == 1 and "1 of 11 images could not be read" in result.stderr
    assert "11 predictions in out" in run("predict", tiny, "new", "--out", "out/").stderr


def test_a_run_that_was_stopped_goes_on(run, tiny, many, monkeypatch):
    run("predict", tiny, "new", "--out", "out/")
    whole = written()
    for name in whole:
        Path("out", name).unlink()
    plain = parts.PartFolder.write

    def stopped(folder, name, content):
        if "-00000001-" in name:
            raise KeyboardInterrupt
        plain(folder, name, content)

    monkeypatch.setattr(parts.PartFolder, "write", stopped)
    result = run("predict", tiny, "new", "--out", "out/")
    assert result.exit_code == 130
    assert "1 part written to out/ so far. Run the same command again" in result.stderr
    assert list(written()) == list(whole)[:1] and manifest()["complete"] is False
    monkeypatch.setattr(parts.PartFolder, "write", plain)
    Path("out", ".part-00000001-x.part.parquet").write_bytes(b"half a file of a killed run")
    result = run("predict", tiny, "new", "--out", "out/")
    assert "(2 computed, 1 reused)" in result.stderr
    assert written() == whole and manifest()["complete"] is True
    assert not list(Path("out").glob(".*"))


def test_parts_of_changed_and_of_removed_images_are_renamed(run, tiny, many):
    run("predict", tiny, "new", "--out", "out/")
    first = written()
    write_image(Path("new", "05.png"), (255, 0, 0))
    for number in (8, 9, 10):
        Path("new", f"{number:02d}.png").unlink()
    settle()
    result = run("predict", tiny, "new", "--out", "out/")
    assert "(1 computed, 1 reused)" in result.stderr
    assert "2 parts of images or options that have changed were renamed" in result.stderr
    kept, changed = written()
    assert kept == next(iter(first)) and changed not in first
    aside = sorted(path.name for path in Path("out").glob("*.stale"))
    assert aside == [f"_{name}.stale" for name in list(first)[1:]]
    assert Path("out", aside[0]).read_bytes() == first[list(first)[1]]
    rows = dataset.dataset("out").to_table().to_pylist()
    assert [row["path"] for row in rows] == [f"new/{number:02d}.png" for number in range(8)]
    assert rows[5]["best"] == "red"


def test_a_damaged_part_is_computed_again(run, tiny, many):
    run("predict", tiny, "new", "--out", "out/")
    first = written()
    Path("out", list(first)[2]).write_bytes(first[list(first)[2]][:-9])
    assert "(1 computed, " in run("predict", tiny, "new", "--out", "out/").stderr
    assert written() == first


def test_other_options_and_classifiers_are_refused_or_rename_the_parts(run, tiny, many, tmp_path):
    run("predict", tiny, "new", "--out", "out/")
    first = written()
    other = str(write_bundle(tmp_path / "other", temperature=2.0))
    for arguments in ([tiny, "new", "--top", "1"], [other, "new"]):
        result = run("predict", *arguments, "--out", "out/")
        assert result.exit_code == 2 and "out/ has predictions of another classifier" in (
            result.stderr
        )
        assert written() == first
    result = run("predict", other, "new", "--out", "out/", "--force")
    assert "3 parts of images or options that have changed were renamed" in result.stderr
    assert len(written()) == 3 and not first.keys() & written().keys()
    again = run("predict", other, "new", "--out", "out/")
    assert "3 reused" in again.stderr


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--sort", "confidence"], "--sort cannot be used with a folder as --out"),
        (["--sheet", "a.html"], "--sheet cannot be used with a folder as --out"),
        (["--format", "csv"], "--format and --json cannot be used with a folder"),
        (["--json"], "--format and --json cannot be used with a folder"),
        (["--out", "none/out/"], "--out must be in a folder that exists; got 'none/out/'"),
        (["--out", "mine/"], "mine/ has files that 'kindsight predict' did not write"),
        (["--out", "mine"], "mine has files that 'kindsight predict' did not write"),
        (["--out", "mine/a.txt/"], "mine/a.txt/ is not a folder"),
        (["--out", "out"], "--out must end in .csv, .xlsx or .parquet, or in / for a folder"),
    ],
)
def test_what_cannot_be_written_is_an_error_before_the_work(run, tiny, many, options, message):
    Path("mine").mkdir()
    Path("mine", "a.txt").write_text("mine")
    result = run("predict", tiny, "new", "--out", "out/", *options)
    assert result.exit_code == 2 and message in result.stderr
    assert not Path("out").exists() and [path.name for path in Path("mine").iterdir()] == ["a.txt"]


@pytest.mark.skipif(sys.platform != "linux", reason="/proc is Linux's")
@pytest.mark.parametrize("out", ["/proc/nope/", "/proc/nope.csv"])
def test_a_folder_that_takes_no_files_is_named_before_the_work(run, tiny, many, monkeypatch, out):
    monkeypatch.setattr("kindsight.predictor.Predictor.predict_named", None)
    result = run("predict", tiny, "new", "--out", out)
    assert result.exit_code == 2
    assert "No file can be written to the folder /proc (" in result.stderr
    assert "Choose another --out, or change the permissions of the folder." in result.stderr


def test_a_missing_package_is_named_with_its_command(run, tiny, many, monkeypatch):
    real = parts.find_spec
    monkeypatch.setattr(parts, "find_spec", lambda name: None if name == "pyarrow" else real(name))
    result = run("predict", tiny, "new", "--out", "out/")
    assert result.exit_code == 2 and "pip install 'kindsight[parquet]'" in result.stderr


def test_all_inputs_are_parts_of_one_row_of_images(run, tiny, many):
    colours = np.full((5, 8, 8, 3), (10, 10, 140), np.uint8)
    np.savez("more.npz", colours)
    names = "\n".join(["new/01.png", "missing.png"])
    result = run("predict", tiny, "new/00.png", "more.npz", "-", "--out", "out/", input=names)
    assert result.exit_code == 1 and "8 predictions in out/, 2 parts." in result.stderr
    rows = dataset.dataset("out").to_table().to_pylist()
    assert [row["path"] for row in rows] == [
        "new/00.png", *(f"more.npz:arr_0[{k}]" for k in range(5)), "new/01.png", "missing.png",
    ]  # fmt: skip
    assert rows[3]["best"] == "blue" and rows[-1]["error"] == "missing"
    again = run("predict", tiny, "new/00.png", "more.npz", "-", "--out", "out/", input=names)
    assert "2 reused" in again.stderr
    colours[4, 0, 0, 0] ^= 1
    np.savez("more.npz", colours)
    changed = run("predict", tiny, "new/00.png", "more.npz", "-", "--out", "out/", input=names)
    assert "(1 computed, 1 reused)" in changed.stderr


def test_no_image_makes_no_folder(run, tiny, many):
    Path("empty").mkdir()
    assert run("predict", tiny, "-", "--out", "out/", input="").exit_code == 0
    result = run("predict", tiny, "empty", "--out", "out/")
    assert result.exit_code == 2 and "No images found" in result.stderr
    assert not Path("out").exists()


def test_a_large_table_is_written_in_groups_of_rows(tmp_path, monkeypatch):
    header = [*files.COLUMNS, "p_a"]
    rows = [[f"{k}.png", "a", k / 8, *[None] * 6, k / 8] for k in range(7)]
    files.write_table(str(tmp_path / "one.parquet"), header, iter(rows))
    monkeypatch.setattr(files, "ROWS", 3)
    monkeypatch.setattr(files, "GROUP_BYTES", 1)
    files.write_table(str(tmp_path / "three.parquet"), header, iter(rows))
    assert parquet.read_metadata(tmp_path / "one.parquet").num_row_groups == 1
    assert parquet.read_metadata(tmp_path / "three.parquet").num_row_groups == 3
    one, three = (parquet.read_table(tmp_path / f"{name}.parquet") for name in ("one", "three"))
    assert three.equals(one)
    assert one.column("p_a").to_pylist() == [k / 8 for k in range(7)]


def test_rows_are_not_held_for_a_file(run, tiny, many, monkeypatch):
    """When a row is written, hardly any prediction beyond it has been made."""
    made, ahead = [], []
    from kindsight.cli.terminal.prediction_rows import CsvRows
    from kindsight.predictor import Predictor

    plain, cells = Predictor._predictions, CsvRows.safe_cells

    def predictions(self, names, outputs, decisions=None):
        made.extend(names)
        return plain(self, names, outputs, decisions)

    def counted(self, prediction):
        ahead.append(len(made) - len(ahead))
        return cells(self, prediction)

    monkeypatch.setattr(Predictor, "_predictions", predictions)
    monkeypatch.setattr(CsvRows, "safe_cells", counted)
    for number in range(200):
        write_image(Path("many", f"{number:03d}.png"), (number, 0, 0))
    run("predict", tiny, "many", "--workers", "1", "--out", "rows.csv")
    assert len(ahead) == 200 and max(ahead) < 60


def test_parts_at_an_address_are_those_of_a_folder(run, tiny, many):
    fsspec = pytest.importorskip("fsspec")
    memory = fsspec.filesystem("memory")
    memory.store.clear()
    run("predict", tiny, "new", "--out", "out/")
    result = run("predict", tiny, "new", "--out", "memory://predictions/")
    assert result.exit_code == 1 and "11 predictions in memory://predictions/" in result.stderr

    def remote() -> dict[str, bytes]:
        paths = memory.glob("/predictions/part-*.parquet")
        return {path.rpartition("/")[2]: memory.cat(path) for path in sorted(paths)}

    assert remote() == written()
    write_image(Path("new", "05.png"), (255, 0, 0))
    settle()
    result = run("predict", tiny, "new", "--out", "memory://predictions/")
    assert "(1 computed, 2 reused)" in result.stderr
    assert len(remote()) == 3 and len(memory.glob("/predictions/_part-*.stale")) == 1
    assert dataset.dataset("/predictions", filesystem=memory).to_table().num_rows == IMAGES
    refused = run("predict", tiny, "new", "--top", "1", "--out", "memory://predictions/")
    assert refused.exit_code == 2 and "Choose another --out" in refused.stderr
    memory.store.clear()


def test_images_at_addresses_are_recognised(run, tiny, many, monkeypatch):
    fsspec = pytest.importorskip("fsspec")
    # The times of images as young as these would not tell a later change.
    monkeypatch.setattr("kindsight.storage.access._SETTLED_SECONDS", 0.0)
    memory = fsspec.filesystem("memory")
    memory.store.clear()
    for path in Path("new").iterdir():
        memory.pipe(f"/pictures/{path.name}", path.read_bytes())
    names = "memory://pictures/00.png\nmemory://pictures/none.png\n"
    for given, more in (("memory://pictures/", None), ("-", names)):
        out = f"out{len(given)}/"
        first = run("predict", tiny, given, "--out", out, input=more)
        assert "reused" not in first.stderr
        assert "(0 computed, " in run("predict", tiny, given, "--out", out, input=more).stderr
    memory.pipe("/pictures/06.png", Path("new", "01.png").read_bytes())
    changed = run("predict", tiny, "memory://pictures/", "--out", "out18/")
    assert "(1 computed, 2 reused)" in changed.stderr
    memory.store.clear()


@pytest.mark.parametrize(
    ("out", "message"),
    [
        ("memory://predictions", "must be a folder: end it in /"),
        ("http://127.0.0.1:9/out/", "Files cannot be written to web servers"),
    ],
)
def test_out_addresses_without_parts_are_rejected(run, tiny, many, out, message):
    result = run("predict", tiny, "new", "--out", out)
    assert result.exit_code == 2 and message in result.stderr


@pytest.mark.parametrize("workers", [1, 3])
def test_a_cluster_writes_the_same_bytes(run, tiny, many, monkeypatch, workers):
    executor = use_fake_executor(monkeypatch, workers=workers)
    monkeypatch.setattr(network_outputs, "BLOCK", 3)
    np.savez("more.npz", np.full((5, 8, 8, 3), (10, 10, 140), np.uint8))
    given = ["predict", tiny, "new", "more.npz", "-"]
    names = "new/01.png\nmissing.png\n"
    here = run(*given, "--json", input=names)
    there = run(*given, "--json", "--on", "ray", input=names)
    assert there.stdout == here.stdout and there.stderr == here.stderr
    assert there.exit_code == here.exit_code == 1 and executor.tasks == 6
    run(*given, "--out", "out/", input=names)
    first = written()
    for name in first:
        Path("out", name).unlink()
    assert run(*given, "--out", "out/", "--on", "ray", input=names).exit_code == 1
    assert written() == first and len(first) == 5
    assert executor.tasks == 12 and executor.opened == 2
    # Where all parts exist, no cluster is started.
    assert run(*given, "--out", "out/", "--on", "ray", input=names).exit_code == 1
    assert executor.tasks == 12 and executor.opened == 2
    sheet = run("predict", tiny, "new", "more.npz", "--sheet", "a.html", "--on", "ray")
    assert sheet.exit_code == 1 and Path("a.html").read_text("utf-8").count("data:image") == 15


def test_a_place_that_is_none_is_an_error_before_the_work(run, tiny, many):
    for command in (["predict", tiny, "new", "--out", "out/"], ["evaluate", tiny, "new"]):
        result = run(*command, "--on", "nowhere")
        assert result.exit_code == 2 and "got 'nowhere'" in result.stderr
    assert not Path("out").exists()


@pytest.mark.slow
def test_a_killed_process_goes_on(start, tiny, many):
    """Kill -9 in the middle: the parts that were written are not computed again."""
    names = "\n".join(f"new/{number % IMAGES:02d}.png" for number in range(13_000))
    Path("names.txt").write_text(names)
    for out in ("out", "whole"):
        with Path("names.txt").open("rb") as given:
            process = start("predict", tiny, "-", "--out", f"{out}/", stdin=given)
        if out == "out":
            end = time.monotonic() + 120
            while not written() and time.monotonic() < end:
                time.sleep(0.01)
            process.kill()
        process.communicate(timeout=120)
    first = written()
    assert 0 < len(first) < 4 and manifest()["complete"] is False
    with Path("names.txt").open("rb") as given:
        process = start("predict", tiny, "-", "--out", "out/", stdin=given)
    _, errors = process.communicate(timeout=120)
    assert f"{4 - len(first)} computed" in errors.decode()
    whole = {path.name: path.read_bytes() for path in Path("whole").glob("part-*")}
    assert written() == whole and len(whole) == 4 and manifest()["complete"] is True
