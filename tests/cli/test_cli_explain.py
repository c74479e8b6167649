"""``kindsight explain``: page, output and errors, with a fake Keras process."""

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
    """Stands for the Keras process, which the fake feature maps do not need."""

    calls: list[dict] = []  # noqa: RUF012
    within = False

    def start(self):
        return self

    def __enter__(self):
        return self

    def __exit__(self, *_):
        return None


def fake_maps(keras, model, pixels, **options):
    """Return the red channel of the image as the only feature map of a layer."""
    assert Path(model).name == "model.keras"
    keras.calls.append(options)
    red = pixels[..., 0].astype(np.float32)[None]
    layer = LayerMaps("conv", "Conv2D", 3, np.array([1]), red, 0.0, float("nan"), 2)
    return CollectedMaps([layer], ["pool"], keras.within)


@pytest.fixture
def bundle(tiny, colours, monkeypatch):
    """Return a bundle with a fake ``model.keras`` in the working directory."""
    monkeypatch.setattr("kindsight.explain.KerasProcess", FakeKeras)
    monkeypatch.setattr("kindsight.explain.collect_maps_in_worker", fake_maps)
    monkeypatch.setattr(FakeKeras, "calls", [])
    shutil.copytree(tiny, "tiny")
    Path("tiny/model.keras").write_bytes(b"a network")
    return "tiny"


def test_layers_write_a_page(run, bundle):
    result = run("explain", bundle, "new/red.png", "--layers", "--quiet")
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    # probabilities of (255, 0, 0): softmax of 5.1, 0, 0
    assert lines[0] == "red, confidence 98.8%"
    assert lines[3].split() == ["conv", "8", "x", "8", "3", "2"]
    assert "1 of 2 layers, evenly spaced" in lines[4]
    assert lines[-1].split() == ["page", "red-layers.html"] and lines[-1].startswith("  page")
    page = Path("red-layers.html").read_text("utf-8")
    assert "Map 1" in page and "new/red.png" in page and "confidence 98.8%" in page
    assert FakeKeras.calls == [{"max_layers": 16, "max_maps": 64}]


def test_layers_of_a_submodel_are_announced(run, bundle, monkeypatch):
    monkeypatch.setattr(FakeKeras, "within", True)
    lines = run("explain", bundle, "new/red.png", "--layers", "--quiet").stdout
    assert "one of the averaged networks" in lines
    assert "averages several networks" in Path("red-layers.html").read_text("utf-8")
    shown = run("explain", bundle, "new/red.png", "--layers", "--quiet", "--json").stdout
    assert json.loads(shown)["is_submodel"] is True


def test_json_writes_a_page_only_with_out(run, bundle):
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
                "name": "conv", "kind": "Conv2D", "height": 8, "width": 8, "maps": 3, "constant": 2,
                "low": 0.0, "high": None, "shown": [1],
            }
        ],
        "not_shown": ["pool"],
        "is_submodel": False,
        "page": None,
    }  # fmt: skip
    assert list(Path().glob("*.html")) == []
    result = run("explain", bundle, "new/green.png", "--layers", "--json", "--out", "sub/x.html")
    assert json.loads(result.stdout)["page"] == str(Path("sub/x.html"))
    assert Path("sub/x.html").is_file()
    assert "Computing feature maps" in result.stderr


def test_existing_file_is_not_overwritten(run, bundle):
    Path("red-layers.html").write_bytes(b"mine")
    result = run("explain", bundle, "new/red.png", "--layers")
    assert (result.exit_code, FakeKeras.calls) == (2, [])
    assert "red-layers.html" in result.stderr
    assert Path("red-layers.html").read_bytes() == b"mine"
    result = run("explain", bundle, "new/red.png", "--layers", "--force", "--max-maps", "3",
                 "--max-layers", "2")  # fmt: skip
    assert result.exit_code == 0
    assert Path("red-layers.html").read_bytes() != b"mine"
    assert FakeKeras.calls == [{"max_layers": 2, "max_maps": 3}]


def test_feature_maps_are_the_default(run, bundle):
    result = run("explain", bundle, "new/red.png")
    assert (result.exit_code, Path("red-layers.html").is_file()) == (0, True)
    named = run("explain", bundle, "new/red.png", "--layers", "--force")
    assert result.stdout == named.stdout
    assert "\n  page " in result.stdout


@pytest.mark.parametrize(
    ("image", "message"), [("new/broken.png", "broken.png"), ("absent.png", "no such file")]
)
def test_unreadable_image_is_an_error(run, bundle, image, message):
    result = run("explain", bundle, image, "--layers", "--quiet")
    assert (result.exit_code, FakeKeras.calls) == (1, [])
    assert message in result.stderr
    assert list(Path().glob("*.html")) == []


def test_bundle_without_keras_file_is_an_error(run, bundle):
    Path("tiny/model.keras").unlink()
    result = run("explain", bundle, "new/red.png", "--layers", "--quiet")
    assert result.exit_code == 1
    assert "Feature maps need model.keras" in result.stderr


def test_changed_keras_file_is_not_loaded(run, bundle):
    facts = json.loads(Path("tiny/bundle.json").read_text("utf-8"))
    digest = hashlib.blake2b(b"another network", digest_size=16).hexdigest()
    facts["files"] = {"model.keras": digest}
    Path("tiny/bundle.json").write_text(json.dumps(facts), "utf-8")
    result = run("explain", bundle, "new/red.png", "--layers", "--quiet")
    assert (result.exit_code, FakeKeras.calls) == (1, [])
    assert "has changed since bundle.json was written" in result.stderr


@pytest.mark.parametrize("option", ["--max-layers", "--max-maps"])
def test_numbers_below_one_are_errors(run, bundle, option):
    assert run("explain", bundle, "new/red.png", "--layers", option, "0").exit_code == 2


@pytest.mark.slow
def test_trained_classifier(run, trained, photos, tmp_path, monkeypatch):
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
    assert len(shown["not_shown"]) > 90
    assert Path("page.html").stat().st_size < 1.5e6
