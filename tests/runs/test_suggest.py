"""Images to label next: uncertain, diverse, copies once."""

import csv
import json
import shutil

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

import kindsight
from kindsight.cli.app import app
from kindsight.errors import DatasetError, SettingsError
from kindsight.models.head_network import FeatureNetwork
from kindsight.report.sheets import SuggestedImage, render_suggestions
from kindsight.runs.more_images.select import Candidate, Shortlist, select_diverse
from shapes import CLASSES, encoded, shape


def clusters(counts, spread=0.01):
    generator = np.random.default_rng(0)
    centres = 10 * np.eye(len(counts), 5)
    rows = np.repeat(np.arange(len(counts)), counts)
    return (centres[rows] + spread * generator.normal(size=(len(rows), 5))).astype("f4"), rows


def test_each_cluster_is_chosen_before_any_twice():
    vectors, cluster = clusters([40, 5, 3, 1])
    chosen = select_diverse(vectors, np.linspace(1, 0.9, len(vectors)), 4)
    assert chosen[0] == 0
    assert sorted(cluster[chosen]) == [0, 1, 2, 3]


def test_of_equally_distant_images_the_more_uncertain_comes_first():
    vectors = np.eye(6, dtype=np.float32)
    scores = np.array([0.2, 0.9, 0.1, 0.5, 0.8, 0.3])
    assert select_diverse(vectors, scores, 6) == [1, 4, 3, 5, 0, 2]


def test_no_row_is_chosen_twice_even_if_all_are_equal():
    assert sorted(select_diverse(np.ones((5, 3), np.float32), np.ones(5), 9)) == list(range(5))


def candidate(row, score, bits=None, digest=None):
    generator = np.random.default_rng(row if bits is None else bits)
    hashed = generator.integers(0, 2**63, 4, dtype=np.uint64)
    return Candidate(row, score, digest or str(row), hashed)


def test_a_shortlist_holds_the_highest_scores():
    scores = np.random.default_rng(0).permutation(200) / 200
    shortlist = Shortlist(10)
    for row, score in enumerate(scores):
        shortlist.add(candidate(row, float(score)))
    best = np.argsort(-scores)[:10]
    assert [item.row for item in shortlist.candidates()] == best.tolist()
    assert shortlist.duplicates == 0


def test_of_copies_the_highest_score_stays():
    shortlist = Shortlist(4)
    for row, score in enumerate((0.5, 0.9, 0.7)):
        shortlist.add(candidate(row, score, bits=1, digest=f"{row}"))
    shortlist.add(candidate(3, 0.6, bits=2))
    assert [item.row for item in shortlist.candidates()] == [1, 3]
    assert shortlist.duplicates == 2


def test_one_scene_does_not_fill_the_shortlist():
    shortlist = Shortlist(3)
    for row in range(50):
        shortlist.add(candidate(row, 0.9 + row / 1000, bits=7, digest=f"{row}"))
    for row in range(50, 53):
        shortlist.add(candidate(row, 0.1 * (row - 49)))
    assert [item.row for item in shortlist.candidates()] == [49, 52, 51]


@pytest.fixture(scope="module")
def unlabelled(tmp_path_factory):
    """30 new images, a copy of one as JPEG, its mirror image, and a file that is no image."""
    folder = tmp_path_factory.mktemp("new") / "unlabelled"
    folder.mkdir()
    for number in range(30):
        pixels = shape(CLASSES[number % 3], 700 + number)
        (folder / f"{number:02d}.png").write_bytes(encoded(pixels, "png"))
    first = shape(CLASSES[0], 700)
    (folder / "copy.jpg").write_bytes(encoded(first, "jpg"))
    (folder / "mirror.png").write_bytes(encoded(np.ascontiguousarray(first[:, ::-1]), "png"))
    (folder / "broken.png").write_bytes(b"no image")
    return folder


def test_every_image_is_ranked_once_and_copies_are_left_out(trained, unlabelled):
    found = kindsight.suggest(trained.run, unlabelled, count=40)
    names = [image.path.rpartition("/")[2] for image in found]
    assert len(names) == len(set(names)) == 30
    assert len({"00.png", "copy.jpg", "mirror.png"} & set(names)) == 1
    assert found.duplicates == 2
    assert [image.rank for image in found] == list(range(1, 31))
    assert [problem.path for problem in found.problems] == ["broken.png"]
    assert found.considered == 32
    margins = _margins(trained.run, [image.path for image in found])
    assert margins[0] == min(margins)


def _margins(run, paths):
    predictions = kindsight.Predictor(run).predict(paths)
    tops = [prediction.top(2) for prediction in predictions]
    return [first[1] - second[1] for first, second in tops]


def test_the_suggested_are_less_certain_than_the_rest(trained, unlabelled):
    found = kindsight.suggest(trained.run, unlabelled, count=4)
    every = [str(path) for path in sorted(unlabelled.iterdir()) if path.name != "broken.png"]
    chosen = _margins(trained.run, [image.path for image in found])
    assert np.median(chosen) < np.median(_margins(trained.run, every))
    # A shortlist of six for each suggestion: nothing else is considered.
    assert max(chosen) <= sorted(_margins(trained.run, every))[6 * 4 + 1]


def test_training_images_are_left_out(trained, photos, unlabelled, tmp_path):
    mixed = shutil.copytree(photos, tmp_path / "mixed")
    for path in unlabelled.glob("1?.png"):
        shutil.copy(path, mixed / path.name)
    found = kindsight.suggest(trained.run, mixed, count=100)
    assert found.trained_on >= trained.images["train"]
    assert {f"{number}.png" for number in range(10, 20)} <= {
        image.path.rpartition("/")[2] for image in found
    }
    only = tmp_path / "only"
    only.mkdir()
    (only / "a.png").write_bytes(b"no image")
    with pytest.raises(DatasetError, match="There is no image to suggest"):
        kindsight.suggest(trained.run, only)


def test_the_order_of_files_and_workers_change_nothing(trained, unlabelled):
    one, two = (
        kindsight.suggest(trained.run, unlabelled, count=8, workers=workers) for workers in (1, 3)
    )
    assert one.to_dict() == two.to_dict()


def test_unknown_images_get_a_part_of_the_list(trained, unlabelled, monkeypatch):
    from dataclasses import replace

    from kindsight.predictor import Predictor

    plain = Predictor.predict_dataset

    def strange(self, dataset, detector=None):
        for row, prediction in enumerate(plain(self, dataset, detector)):
            unknown = prediction.error is None and row % 2 == 0
            yield replace(prediction, reason="unknown") if unknown else prediction

    monkeypatch.setattr(Predictor, "predict_dataset", strange)
    found = kindsight.suggest(trained.run, unlabelled, count=10)
    assert [image.unknown for image in found].count(True) == 2
    assert not found.images[0].unknown
    assert found.unknown >= 14
    assert {image.reason for image in found if image.unknown} == {"unlike the training images"}
    everything = kindsight.suggest(trained.run, unlabelled, count=40)
    assert len(everything) == 30


def test_the_features_are_those_below_the_last_layer(trained):
    pixels = np.zeros((*kindsight.load_bundle(trained.run).spec.size, 3), np.uint8)
    network = FeatureNetwork(trained.run / "model.tflite", 1)
    vector = network.run(pixels)
    # A linear head takes the frozen features, an RBF head their distances to landmarks.
    assert len(vector) > len(trained.classes)
    assert np.isfinite(vector).all()
    assert not np.array_equal(vector, network.run(pixels + 200))


@pytest.mark.parametrize("count", [0, 2001])
def test_a_count_out_of_range_is_refused(trained, unlabelled, count):
    with pytest.raises(SettingsError, match=r"from 1 to 2,000"):
        kindsight.suggest(trained.run, unlabelled, count=count)


def test_the_command_writes_a_table_and_a_page(trained, unlabelled, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    runner = CliRunner()
    arguments = ["suggest", str(trained.run), str(unlabelled), "--count", "5", "--quiet"]
    shown = runner.invoke(app, arguments)
    assert shown.exit_code == 0, shown.output
    rows = list(csv.DictReader((tmp_path / "suggestions.csv").open()))
    assert [row["rank"] for row in rows] == ["1", "2", "3", "4", "5"]
    assert all((unlabelled / row["path"]).is_file() for row in rows)
    assert set(rows[0]) == {"rank", "path", "prediction", "confidence", "reason"}
    page = (tmp_path / "suggestions.html").read_text()
    assert page.count("data:image/jpeg") == 5
    again = runner.invoke(app, arguments)
    assert again.exit_code == 2
    assert "exists" in again.output + again.stderr
    found = runner.invoke(app, [*arguments, "--json"])
    values = json.loads(found.stdout)
    assert [image["path"] for image in values["suggestions"]] == [row["path"] for row in rows]
    assert values["out"] is None


def test_the_page_escapes_hostile_names():
    hostile = "<script>alert(1)</script>"
    image = SuggestedImage(1, hostile, None, hostile, 0.5, hostile)
    page = render_suggestions(hostile, [image], total=1, lead=hostile, created="now")
    assert "<script>" not in page
    assert "&lt;script&gt;" in page


def test_images_in_memory_can_be_suggested(trained, unlabelled):
    arrays = [
        np.asarray(Image.open(path).convert("RGB")) for path in sorted(unlabelled.glob("0?.png"))
    ]
    found = kindsight.suggest(trained.run, kindsight.ImageDataset.from_arrays(arrays), count=3)
    assert len(found) == 3
