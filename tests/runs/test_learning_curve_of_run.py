"""The learning curve of a finished run, from Python and the command line."""

import json
import shutil
from dataclasses import replace

import pytest
from typer.testing import CliRunner

import kindsight
from kindsight.cli.app import app
from kindsight.errors import BundleError, DatasetError
from kindsight.runs.more_images.learning_curve import frozen_trainer
from kindsight.runs.record import load_run
from kindsight.training.frozen.settings import FrozenTrainer
from kindsight.training.trainer import make_training
from shapes import encoded, shape


@pytest.fixture
def run(trained, tmp_path):
    return shutil.copytree(trained.run, tmp_path / "run")


def test_the_curve_of_a_run_is_written_for_the_report(run, trained):
    curve = kindsight.learning_curve(run)
    written = json.loads((run / "learning_curve.json").read_text())
    assert written["sentence"] == curve.sentence
    assert written["images"] == trained.images["train"]
    # Every image but those of a test split is held out once.
    judged = trained.images["train"] + trained.images["validation"]
    assert written["held_out"]["images"] == judged
    assert {entry["name"] for entry in written["classes"]} == set(trained.classes)
    for name in ("points", "fit"):
        for point in written[name]:
            assert 0 <= point["low"] <= point["accuracy"] <= point["high"] <= 1
    assert len(written["fit"]) <= 40
    assert "the run's own" in written["model"]


def test_the_bundle_still_works_and_nothing_else_changes(run):
    before = {path.name: path.read_bytes() for path in run.iterdir()}
    kindsight.learning_curve(run)
    after = {path.name: path.read_bytes() for path in run.iterdir()}
    assert after.keys() - before.keys() == {"learning_curve.json"}
    assert all(after[name] == content for name, content in before.items())


def test_a_bare_bundle_is_refused_with_the_reason(run):
    (run / "settings.toml").unlink()
    with pytest.raises(BundleError, match=r"no settings.toml.*kindsight train run"):
        kindsight.learning_curve(run)


def test_images_that_are_gone_are_named_with_the_cure(run, photos, tmp_path):
    others = shutil.copytree(photos, tmp_path / "others")
    for number, path in enumerate((others / "ring").iterdir()):
        path.unlink()
        path.with_name(f"new {number}.png").write_bytes(encoded(shape("ring", 900 + number), "png"))
    with pytest.raises(DatasetError, match="training images of 'ring' are no longer in the data"):
        kindsight.learning_curve(run, data=str(others))


def test_moved_images_are_found_by_content(run, photos, tmp_path):
    curve = kindsight.learning_curve(
        run, data=str(shutil.copytree(photos, tmp_path / "moved")), write=False
    )
    assert len(curve.errors.targets) > 80
    assert not (run / "learning_curve.json").exists()


def test_the_command_prints_a_table_or_json(run):
    runner = CliRunner()
    shown = runner.invoke(app, ["learning-curve", str(run), "--quiet"])
    assert shown.exit_code == 0, shown.output
    assert "expected, 2 times" in shown.output
    assert "more images" in shown.output.lower() or "twice as many" in shown.output.lower()
    found = runner.invoke(app, ["learning-curve", str(run), "--quiet", "--json"])
    values = json.loads(found.stdout)
    assert values["run"] == str(run)
    assert values["double"]["images"] == 2 * values["images"]


def test_a_network_gets_the_curve_of_a_frozen_head(trained):
    record = load_run(trained.run)
    small, text = frozen_trainer(record, make_training({"model": "small-cnn", "size": 64}))
    assert small == FrozenTrainer()  # not the size of the network from scratch
    assert "small-cnn itself is not refitted" in text
    own = {"model": "mobilenetv2", "size": 96, "freeze": "all", "resize": "pad", "seed": 5}
    borrowed, text = frozen_trainer(record, make_training(own))
    assert (borrowed.model, borrowed.size, borrowed.resize, borrowed.seed) == (
        "mobilenetv2", 96, "pad", 5,
    )  # fmt: skip
    assert "trained layers are not refitted" in text
    random, _ = frozen_trainer(record, make_training({**own, "weights": "none"}))
    assert random.model == "efficientnet-lite0"


def test_the_settings_that_a_budget_selected_are_used(trained):
    record = load_run(trained.run)
    facts = {**record.bundle.facts, "settings": {"size": [80, 80], "tta_flips": 2}}
    chosen, _ = frozen_trainer(
        replace(record, bundle=replace(record.bundle, facts=facts)),
        FrozenTrainer(budget="10m", size=64),
    )
    assert (chosen.size, chosen.tta_flips, chosen.budget) == ((80, 80), 2, None)
    facts["settings"] = {"size": "huge"}  # a damaged bundle
    chosen, _ = frozen_trainer(
        replace(record, bundle=replace(record.bundle, facts=facts)), FrozenTrainer(size=64)
    )
    assert chosen.size == 64
