"""Advice in errors and notes: it names what exists, and following it gets the user on."""

from __future__ import annotations

import ast
import re
import shutil
import sys
import types
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import typer
from PIL import Image

import kindsight
from kindsight.cache.folder import MARKER, Cache
from kindsight.cli.app import app
from kindsight.cli.terminal.command import _explain
from kindsight.dataset import ImageDataset
from kindsight.dataset.splits.leakage import resolve_leakage
from kindsight.errors import CacheError, DatasetError, SettingsError, UsageError, WeightsError
from kindsight.models.backbones.table import get_backbone
from kindsight.models.backbones.weights import download_weights, is_available
from kindsight.options import OPTIONS
from kindsight.runs.folder import claim_run
from kindsight.runs.settings import TrainSettings
from kindsight.runs.split import open_data, split_images
from kindsight.training.common import class_targets
from kindsight.training.frozen.feature_cache import FeatureTable
from kindsight.training.trainer import make_training, prepare

SOURCE = Path(kindsight.__file__).parent

ADVICE = re.compile(
    r"\b(Add|Ask|Check|Choose|Clear|Collect|Compare|Convert|Crop|Delete|Did you mean|Download|End|"
    r"Free|Give|Increase|Install|Leave|Lower|Make|Mend|Move|Name|Omit|Pass|Put|Raise|Remove|Rename|"
    r"Restore|Run|Save|Set|Train|Try|Unpack|Use)\b|--[a-z]|kindsight [a-z]+ "
)
"""What a sentence that recommends something contains."""


def text_of(node: ast.AST) -> str | None:
    """Return the text of a constant, an f-string or a sum of these, {} for what is filled in."""
    if isinstance(node, ast.Constant):
        return node.value if isinstance(node.value, str) else None
    if isinstance(node, ast.JoinedStr):
        return "".join(v.value if isinstance(v, ast.Constant) else "{}" for v in node.values)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        parts = text_of(node.left), text_of(node.right)
        return None if parts == (None, None) else "".join(part or "{}" for part in parts)
    return None


def messages(node: ast.AST) -> list[tuple[int, str]]:
    """Return all texts below a node with their lines, without docstrings."""
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
        return []
    text = text_of(node)
    if text is not None:
        return [(node.lineno, text)]  # type: ignore[attr-defined]
    return [found for child in ast.iter_child_nodes(node) for found in messages(child)]


def advice() -> list[tuple[str, str]]:
    """Return every message that recommends something, with its place."""
    found = []
    for path in sorted(SOURCE.rglob("*.py")):
        for line, text in messages(ast.parse(path.read_text("utf-8"))):
            if len(text) > 20 and " " in text and ADVICE.search(text):
                found.append((f"{path.relative_to(SOURCE)}:{line}", text))
    return found


def commands() -> dict[str, set[str]]:
    """Return the flags of each command, those of its own commands included."""

    def flags(command) -> set[str]:  # type: ignore[no-untyped-def]
        own = {flag for p in command.params for flag in (*p.opts, *p.secondary_opts)}
        return own.union(*map(flags, getattr(command, "commands", {}).values()))

    group = typer.main.get_command(app)
    return {name: flags(command) for name, command in group.commands.items()}  # type: ignore[attr-defined]


def test_every_recommended_option_and_command_exists():
    known, found = commands(), advice()
    assert len(found) > 150
    flags = set().union(*known.values()) | {"--help", "--version"}
    for place, message in found:
        text = re.sub(r"pip install.*", "", message)
        for flag in re.findall(r"(?<![\w-])--[a-z][a-z-]*[a-z]", text):
            assert flag in flags, (place, flag)
        for command, rest in re.findall(
            r"\bkindsight (train|predict|check|evaluate)\b([^.;]*)", text
        ):
            for flag in re.findall(r"(?<![\w-])--[a-z][a-z-]*[a-z]", rest):
                assert flag in known[command], (place, command, flag)


def test_memory_advice_names_options_of_the_command():
    assert "`size`" in _explain(MemoryError(), ["size", "workers"])
    assert "`size`" not in _explain(MemoryError(), ["workers"])
    assert _explain(MemoryError(), []) == "out of memory. Use fewer or smaller images."


def test_an_unusable_cache_folder_is_replaced_as_it_was_chosen(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("x")
    monkeypatch.setenv("KINDSIGHT_CACHE", str(tmp_path / "file"))
    with pytest.raises(CacheError, match="set KINDSIGHT_CACHE to a folder"):
        Cache().folder()
    # The variable has no effect where a folder is given.
    with pytest.raises(CacheError, match="give a folder as `cache`"):
        Cache(tmp_path / "file").folder()
    assert Cache(tmp_path / "other").folder().is_dir()
    monkeypatch.setenv("KINDSIGHT_CACHE", str(tmp_path / "third"))
    assert Cache().folder().is_dir()


def test_a_folder_for_runs_is_replaced_by_the_option_that_chose_it(tmp_path):
    (tmp_path / "file").write_text("x")
    inside = str(tmp_path / "file" / "run")
    with (
        pytest.raises(UsageError, match=r"Choose another `run`\."),
        claim_run(TrainSettings("photos", run=inside, runs=str(tmp_path / "runs"))),
    ):
        pass
    with (
        pytest.raises(UsageError, match=r"Choose another `runs`\."),
        claim_run(TrainSettings("photos", run="mine", runs=str(tmp_path / "file"))),
    ):
        pass


VALUES = {
    "filters": (8,), "dense": (8,), "epochs": 2, "augment": "light", "pooling": "average",
    "dropout": 0.2, "l2": 0.01, "batch_norm": True, "head": "linear",
}  # fmt: skip


@pytest.mark.parametrize("name", sorted(VALUES))
@pytest.mark.parametrize("model", ["efficientnet-lite0", "small-cnn"])
def test_following_the_advice_on_an_option_of_another_model_works(name, model):
    given = {"model": model, name: VALUES[name]}
    try:
        TrainSettings("photos", **given)
        return
    except SettingsError as error:
        said = str(error)
    assert name in OPTIONS and f"`{name}`" in said
    without = {key: value for key, value in given.items() if key != name}
    TrainSettings("photos", **without)
    if 'freeze="all"' in said:
        TrainSettings("photos", **given, freeze="all")
    if re.search(r"only to [^;]*network from scratch", said):
        TrainSettings("photos", **{**given, "model": "small-cnn"})
    assert make_training(without)


@pytest.mark.parametrize(
    ("given", "cures"),
    [
        (
            {"size": 1000, "dense": (4096,)},
            [{"size": 100}, {"pooling": "average"}, {"dense": (64,)}],
        ),
        # The pooling is average already, or there are no dense layers.
        ({"size": 400, "pooling": "average", "dense": (32768, 32768)}, [{"dense": (64, 64)}]),
    ],
)
def test_advice_on_a_network_that_is_too_large(given, cures):
    settings = {"model": "small-cnn", **given}
    with pytest.raises(SettingsError, match="parameters, more than") as caught:
        TrainSettings("photos", **settings)
    for name in ("size", "pooling", "dense"):
        recommended = f"`{name}" in str(caught.value)
        assert recommended == any(name in cure for cure in cures), name
    for cure in cures:
        TrainSettings("photos", **{**settings, **cure})


def test_leakage_advice_is_typed_and_works(tmp_path):
    dataset = ImageDataset(
        path=("a/1.png", "a/2.png", "b/3.png", "b/4.png"),
        label=("a", "a", "b", "b"),
        split=("train", "test", "train", "test"),
    )
    with pytest.raises(DatasetError) as caught:
        resolve_leakage(dataset, [(0, 1)], "drop")
    recommended = re.findall(r'`leakage="(\w+)"`', str(caught.value).partition(" or use ")[2])
    assert recommended == ["move", "keep"]
    for mode in recommended:
        assert "train" in resolve_leakage(dataset, [(0, 1)], mode)[0].split[:2]


def test_a_cache_file_is_put_elsewhere_as_the_cache_was_chosen(tmp_path, monkeypatch):
    def full(path: Path) -> str:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.with_suffix(".sqlite").mkdir()  # SQLite cannot open it
        with pytest.raises(CacheError) as caught:
            FeatureTable(path.with_suffix(".sqlite"), 3)
        return str(caught.value)

    monkeypatch.setenv("KINDSIGHT_CACHE", str(tmp_path / "usual"))
    assert "set KINDSIGHT_CACHE to another folder" in full(Cache().features_file("a"))
    said = full(Cache(tmp_path / "given").features_file("a"))
    assert "give another folder as `cache`" in said and "KINDSIGHT_CACHE" not in said
    for cache, advice in (
        (Cache(), "set KINDSIGHT_CACHE to its folder"),
        (Cache(tmp_path / "given"), "give its folder as `cache`"),
    ):
        (cache.root / MARKER).unlink()
        with pytest.raises(CacheError, match=advice):
            cache.clear()


def write_noise(path: Path) -> None:
    """Write a small image of noise, different for each path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng([*map(ord, str(path))])
    Image.fromarray(rng.integers(0, 255, (40, 40, 3), np.uint8)).save(path)


def test_an_unreadable_class_is_mended_or_removed(tmp_path, monkeypatch):
    monkeypatch.setenv("KINDSIGHT_CACHE", str(tmp_path / "cache"))
    data = tmp_path / "photos"
    for name in ("cat", "dog", "owl"):
        for number in range(4):
            write_noise(data / name / f"{number}.png")
    for path in (data / "owl").iterdir():
        path.write_text("no image")
    settings = TrainSettings(str(data), model="small-cnn", size=40)

    def split() -> None:
        dataset = open_data(settings)
        with closing(prepare(settings.training(), dataset)) as prepared:
            split_images(prepared, settings, dataset)

    with pytest.raises(DatasetError, match=r"No image of 'owl'.*Repair the files, or remove"):
        split()
    write_noise(data / "owl" / "0.png")
    write_noise(data / "owl" / "1.png")
    split()
    shutil.rmtree(data / "owl")
    split()


def test_images_of_one_group_are_not_called_copies(tmp_path):
    dataset = ImageDataset(
        path=("1.png", "2.png"), label=("a", "b"), group=("p", "p"), digest=("1", "2")
    )
    with pytest.raises(DatasetError, match=r"All 2 are of one\. Use fewer images .*groups smaller"):
        class_targets(dataset, ("a", "b"))
    class_targets(dataset.with_columns(group=("p", "q")), ("a", "b"))
    with pytest.raises(DatasetError, match="2 times the same one"):
        class_targets(dataset.with_columns(digest=("1", "1"), group=(None, None)), ("a", "b"))


def test_weights_that_cannot_be_downloaded_work_where_the_message_puts_them(tmp_path, monkeypatch):
    def get_file(*_, **__):
        raise OSError("no network")

    fake = types.ModuleType("keras")
    fake.utils = types.SimpleNamespace(get_file=get_file)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "keras", fake)
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "home"))
    backbone = get_backbone("mobilenet-v2")
    with pytest.raises(WeightsError) as caught:
        download_weights(backbone)
    url, folder = re.findall(r"Download (\S+) .* put the file into (\S+); if", str(caught.value))[0]
    Path(folder).mkdir(parents=True)
    file = Path(folder, url.rpartition("/")[2])
    file.write_bytes(b"weights")
    assert is_available(backbone)
    # One backbone takes the file itself; several do not, so that they need the folder.
    assert make_training({"model": "mobilenet-v2", "weights": str(file)}).faults() == []
    (fault,) = make_training({"model": "mobilenet-v2+resnet50", "weights": str(file)}).faults()
    assert "for several backbones" in fault


def test_an_interrupted_run_continues_with_its_settings_file_and_its_folder(tmp_path):
    first = TrainSettings("photos", runs=str(tmp_path))
    with claim_run(first) as folder:
        (folder / "checkpoint").write_text("trained so far")
    other = TrainSettings("photos", runs=str(tmp_path), run=folder.name, seed=1)
    with pytest.raises(UsageError, match="To continue it, give") as caught, claim_run(other):
        pass
    (file,) = re.findall(r"give (\S+) as `settings`", str(caught.value))
    for given in ({}, {"run": folder.name}):
        with claim_run(TrainSettings.from_toml(file, **given)) as again:
            assert again == folder
        assert (folder / "checkpoint").exists()
