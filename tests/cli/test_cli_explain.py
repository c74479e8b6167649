"""``kindsight explain``: what it writes, prints and refuses; with a stand-in for Keras."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import tiny_bundle

from kindsight.models.networks.feature_maps import CollectedMaps, LayerMaps


class FakeKeras:
    """Gives the red channel of what it gets as the one map of a layer."""

    asked: list[dict] = []  # noqa: RUF012
    within = False

    def start(self):
        return self

    def __enter__(self):
        return self

    def __exit__(self, *_):
        return None

    def maps(self, model, pixels, **options):
        assert Path(model).name == "model.keras"
        self.asked.append(options)
        red = pixels[..., 0].astype(np.float32)[None]
        layer = LayerMaps("conv", "Conv2D", 3, np.array([1]), red, 0.0, float("nan"), 2)
        return CollectedMaps([layer], ["pool"], self.within)


@pytest.fixture
def bundle(tiny, colours, monkeypatch):
    """A bundle with a file in the place of ``model.keras``, in the working directory."""
    monkeypatch.setattr("kindsight.explain.feature_maps.KerasProcess", FakeKeras)
    monkeypatch.setattr(FakeKeras, "asked", [])
    shutil.copytree(tiny, "tiny")
    Path("tiny/model.keras").write_bytes(b"a network")
    return "tiny"


def test_a_page_is_written_beside_what_is_printed(run, bundle):
    result = run("explain", bundle, "new/red.png", "--layers", "--quiet")
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    # probabilities of (255, 0, 0): softmax of 5.1, 0, 0
    assert lines[0] == "red, 98.8% sure"
    assert lines[3].split() == ["conv", "8", "x", "8", "3", "2"]
    assert "1 of 2 layers with maps" in lines[4]
    assert lines[-1] == "page  red-layers.html"
    page = Path("red-layers.html").read_text("utf-8")
    assert "Map 1" in page and "new/red.png" in page and "98.8% sure" in page
    assert FakeKeras.asked == [{"max_layers": 16, "max_maps": 64}]


def test_a_network_within_another_is_said_to_be_one(run, bundle, monkeypatch):
    monkeypatch.setattr(FakeKeras, "within", True)
    lines = run("explain", bundle, "new/red.png", "--layers", "--quiet").stdout
    assert "several answer together" in lines
    assert "several networks together" in Path("red-layers.html").read_text("utf-8")
    shown = run("explain", bundle, "new/red.png", "--layers", "--quiet", "--json").stdout
    assert json.loads(shown)["within_another"] is True


def test_json_writes_no_page_unless_told(run, bundle):
    result = run("explain", bundle, "new/green.png", "--layers", "--json", "--quiet")
    shown = json.loads(result.stdout)
    expected = tiny_bundle.probabilities(tiny_bundle.COLOURS["green"])
    assert shown["probabilities"] == pytest.approx(expected, rel=1e-4)
    del shown["probabilities"]
    assert shown == {
        "image": "new/green.png",
        "label": "green",
        "layers": [
            {
                "name": "conv", "kind": "Conv2D", "height": 8, "width": 8, "maps": 3, "silent": 2,
                "low": 0.0, "high": None, "shown": [1],
            }
        ],
        "left_out": ["pool"],
        "within_another": False,
        "page": None,
    }  # fmt: skip
    assert list(Path().glob("*.html")) == []
    result = run("explain", bundle, "new/green.png", "--layers", "--json", "--out", "sub/x.html")
    assert json.loads(result.stdout)["page"] == str(Path("sub/x.html"))
    assert Path("sub/x.html").is_file()
    assert "Running the network" in result.stderr


def test_a_file_is_not_overwritten_unasked(run, bundle):
    Path("red-layers.html").write_bytes(b"mine")
    result = run("explain", bundle, "new/red.png", "--layers")
    assert (result.exit_code, FakeKeras.asked) == (2, [])
    assert "not overwritten unasked. Received: red-layers.html" in result.stderr
    assert Path("red-layers.html").read_bytes() == b"mine"
    result = run("explain", bundle, "new/red.png", "--layers", "--force", "--max-maps", "3",
                 "--max-layers", "2")  # fmt: skip
    assert result.exit_code == 0
    assert Path("red-layers.html").read_bytes() != b"mine"
    assert FakeKeras.asked == [{"max_layers": 2, "max_maps": 3}]


def test_without_layers_it_says_what_there_is(run, bundle):
    result = run("explain", bundle, "new/red.png")
    assert result.exit_code == 2
    assert "Give --layers" in result.stderr


@pytest.mark.parametrize(
    ("image", "said"), [("new/broken.png", "broken.png"), ("absent.png", "no such file")]
)
def test_a_image_that_cannot_be_read_is_told(run, bundle, image, said):
    result = run("explain", bundle, image, "--layers", "--quiet")
    assert (result.exit_code, FakeKeras.asked) == (1, [])
    assert said in result.stderr
    assert list(Path().glob("*.html")) == []


def test_a_bundle_without_its_keras_file_is_told(run, bundle):
    Path("tiny/model.keras").unlink()
    result = run("explain", bundle, "new/red.png", "--layers", "--quiet")
    assert result.exit_code == 1
    assert "must hold model.keras" in result.stderr


def test_a_keras_file_that_was_exchanged_is_not_loaded(run, bundle):
    facts = json.loads(Path("tiny/bundle.json").read_text("utf-8"))
    digest = hashlib.blake2b(b"another network", digest_size=16).hexdigest()
    facts["files"] = {"model.keras": digest}
    Path("tiny/bundle.json").write_text(json.dumps(facts), "utf-8")
    result = run("explain", bundle, "new/red.png", "--layers", "--quiet")
    assert (result.exit_code, FakeKeras.asked) == (1, [])
    assert "its content has changed" in result.stderr


@pytest.mark.parametrize("option", ["--max-layers", "--max-maps"])
def test_numbers_below_one_are_misuse(run, bundle, option):
    assert run("explain", bundle, "new/red.png", "--layers", option, "0").exit_code == 2


@pytest.mark.slow
def test_a_trained_classifier_is_looked_into(run, trained, photos, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    image = next(path for path in sorted(photos.glob("*/*.png")) if path.stat().st_size > 500)
    result = run("explain", str(trained.run), str(image), "--layers", "--json", "--max-layers",
                 "3", "--out", "page.html")  # fmt: skip
    assert result.exit_code == 0, result.stderr
    shown = json.loads(result.stdout)
    assert [layer["name"] for layer in shown["layers"]][::2] == ["stem_conv", "top_relu"]
    assert [layer["maps"] for layer in shown["layers"]][::2] == [32, 1280]
    # 64 pixels, halved by the stem and by four stages
    assert [layer["height"] for layer in shown["layers"]][::2] == [32, 2]
    assert len(shown["left_out"]) > 90
    assert Path("page.html").stat().st_size < 1.5e6
