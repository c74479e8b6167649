"""``kindsight explain``: pages, output and errors; feature maps with a fake Keras process."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import tiny_bundle
import tiny_conv
from html_page import Page
from kindsight.digest import content_digest
from kindsight.models.networks.feature_maps import CollectedMaps, LayerMaps
from kindsight.runs.settings import TrainSettings


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
    monkeypatch.setattr("kindsight.explain.feature_maps.KerasProcess", FakeKeras)
    monkeypatch.setattr("kindsight.explain.feature_maps.collect_maps_in_worker", fake_maps)
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


def write_conv_run(folder: Path, training: int = 0) -> str:
    """Write a bundle of the colour network; with training images, a run folder with records."""
    tiny_conv.write_bundle(folder, tiny_conv.colour_weights(), fit="crop")
    if training:
        rows = []
        for number in range(training):
            label = tiny_conv.CLASSES[number % 2]
            path = Path("data", label, f"{number}.png")
            path.parent.mkdir(parents=True, exist_ok=True)
            colour = (255 - number, 20, 20) if label == "red" else (20, 255 - number, 20)
            Image.fromarray(tiny_conv.patched(number % 4, colour)).save(path)
            digest = content_digest(path.read_bytes())
            rows.append(f"{label}/{number}.png,{label},train,{digest}")
        (folder / "split.csv").write_text("path,label,split,digest\n" + "\n".join(rows) + "\n")
        TrainSettings("data", model="small-cnn").write(folder / "settings.toml")
    return str(folder)


@pytest.fixture
def conv(colours):
    """Return a run with its records, and write two.png: red top left, green bottom right."""
    pixels = np.maximum(
        tiny_conv.patched(0, (255, 20, 20), 64), tiny_conv.patched(3, (20, 200, 20), 64)
    )
    Image.fromarray(pixels).save("two.png")
    return write_conv_run(Path("conv"), training=8)


def brightest_quarter(path: str) -> int:
    """Return the quarter of an overlay with the strongest colour, row by row."""
    colour = np.ptp(np.asarray(Image.open(path)).astype(float), axis=2)
    down, right = colour.shape[0] // 2, colour.shape[1] // 2
    parts = [colour[:down, :right], colour[:down, right:], colour[down:, :right],
             colour[down:, right:]]  # fmt: skip
    return int(np.argmax([part.sum() for part in parts]))


def test_overlays_and_a_page_are_written(run, conv):
    result = run("explain", conv, "two.png", "--quiet", "--nearest", "3")
    assert result.exit_code == 0, result.stderr
    lines = result.stdout.splitlines()
    assert lines[0].startswith("two.png: red, confidence ")
    assert lines[1].split() == ["explained", "red"]
    assert lines[2].split() == ["nearest", "3", "red"] or "red" in lines[2]
    page = Page(Path("two-explained.html").read_text("utf-8"))
    assert page.unbalanced == [] and "script" not in page.names
    assert page.names.count("img") == 1 + 3 + 3  # scale; image and two overlays; neighbours
    for method in ("grad-cam", "occlusion"):
        assert brightest_quarter(f"two-explained/two-{method}.png") == 0


def test_class_and_versus_choose_what_is_explained(run, conv):
    result = run("explain", conv, "two.png", "--class", "green", "--versus", "red", "--json",
                 "--quiet", "--out", "g.html", "--nearest", "0", "--method",
                 "grad-cam")  # fmt: skip
    (shown,) = json.loads(result.stdout)["images"]
    assert (shown["label"], shown["class"], shown["versus"]) == ("red", "green", "red")
    assert shown["nearest"] == []
    assert list(shown["overlays"]) == ["grad-cam"]
    assert brightest_quarter(shown["overlays"]["grad-cam"]) == 3
    assert set(shown["probabilities"]) == {"red", "green"}


def test_json_writes_nothing_without_out(run, conv):
    before = sorted(map(str, Path().rglob("*")))
    result = run("explain", conv, "two.png", "--json", "--quiet")
    (shown,) = json.loads(result.stdout)["images"]
    assert sorted(map(str, Path().rglob("*"))) == before
    assert (shown["height"], shown["width"], shown["overlays"]) == (64, 64, {})
    assert len(shown["nearest"]) == 5
    assert shown["nearest"][0]["file"] is not None


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_overlay_has_the_orientation_and_proportion_of_the_image(run, conv, orientation):
    """Stored turned, with EXIF; displayed 120 wide and 80 high, red at the top left."""
    upright = np.full((80, 120, 3), 20, np.uint8)
    upright[10:35, 25:55] = (255, 20, 20)
    turns = {1: 0, 3: 2, 6: 1, 8: 3}[orientation]  # counterclockwise, undone by the viewer
    image = Image.fromarray(np.rot90(upright, turns))
    exif = Image.Exif()
    exif[274] = orientation
    image.save("turned.jpg", exif=exif, quality=95)
    result = run("explain", conv, "turned.jpg", "--class", "red", "--quiet", "--json",
                 "--out", "t.html", "--force", "--nearest", "0")  # fmt: skip
    (shown,) = json.loads(result.stdout)["images"]
    assert (shown["height"], shown["width"]) == (80, 120)
    for path in shown["overlays"].values():
        assert Image.open(path).size == (120, 80)
        assert brightest_quarter(path) == 0


def test_unreadable_images_are_named_and_the_others_explained(run, conv):
    result = run("explain", conv, "new/broken.png", "two.png", "--quiet")
    assert result.exit_code == 1
    assert "broken.png" in result.stderr
    assert "two.png: red" in result.stdout
    assert Path("explained/two-grad-cam.png").is_file()
    assert "broken.png" in Path("explained.html").read_text("utf-8")


def test_overlays_of_equal_names_are_numbered(run, conv):
    shutil.copy("two.png", "new/two.png")
    assert run("explain", conv, "two.png", "new/two.png", "--quiet").exit_code == 0
    names = sorted(path.name for path in Path("explained").iterdir())
    assert names == ["1-two-grad-cam.png", "1-two-occlusion.png", "2-two-grad-cam.png",
                     "2-two-occlusion.png"]  # fmt: skip


@pytest.mark.parametrize("taken", ["two-explained.html", "two-explained/two-occlusion.png"])
def test_existing_explanations_are_not_overwritten(run, conv, taken):
    Path(taken).parent.mkdir(exist_ok=True)
    Path(taken).write_bytes(b"mine")
    result = run("explain", conv, "two.png", "--quiet")
    assert result.exit_code == 2 and "exists" in result.stderr
    assert Path(taken).read_bytes() == b"mine"
    assert run("explain", conv, "two.png", "--quiet", "--force").exit_code == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["two.png", "--class", "gren"], "class of the classifier; got 'gren'. Did you mean"),
        (["two.png", "--class", "red", "--versus", "red"], "another class"),
        (["two.png", "--method", "lime"], "grad-cam or occlusion; got 'lime'"),
        ([], "image file is missing"),
        (["two.png", "--map"], "Leave out the image files"),
        (["two.png", "two.png", "--layers"], "takes one image; got 2"),
        (["--map", "--layers"], "cannot be combined"),
    ],
)
def test_wrong_arguments(run, conv, arguments, message):
    result = run("explain", conv, *arguments)
    assert result.exit_code == 2
    assert message in " ".join(result.stderr.split())


def test_a_network_without_maps_is_explained_by_occlusion(run, tiny, colours):
    result = run("explain", tiny, "new/red.png", "--quiet", "--out", "r.html")
    assert result.exit_code == 0, result.stderr
    assert "no convolutional layer" in " ".join(result.stdout.split())
    assert sorted(path.name for path in Path("r").iterdir()) == ["red-occlusion.png"]
    refused = run("explain", tiny, "new/red.png", "--quiet", "--method", "grad-cam", "--force")
    assert refused.exit_code == 1
    assert "Use the method occlusion" in " ".join(refused.stderr.split())


def test_a_bundle_without_records_has_no_nearest_images(run, colours):
    conv = write_conv_run(Path("bare"))
    result = run("explain", conv, "new/red.png")
    assert result.exit_code == 0
    assert "No nearest training images" in " ".join(result.stderr.split())
    assert run("explain", conv, "--map", "--quiet").exit_code == 2


def test_map_of_the_images(run, conv):
    result = run("explain", conv, "--map", "--quiet")
    assert result.exit_code == 0, result.stderr
    page = Page(Path("conv-map.html").read_text("utf-8"))
    assert page.unbalanced == [] and "script" not in page.names
    assert page.names.count("i") == 8
    shown = json.loads(run("explain", conv, "--map", "--json", "--quiet").stdout)
    assert (shown["split"], shown["total"], len(shown["images"])) == ("train", 8, 8)
    assert len({(image["x"], image["y"]) for image in shown["images"]}) == 8


def test_python(conv):
    from kindsight.explain import explain_images

    (found,) = explain_images(conv, ["two.png"], target="green", methods=["occlusion"])
    assert found.prediction.label == "red" and found.target == "green"
    assert found.maps["occlusion"].values.shape == found.image.shape[:2] == (64, 64)
    assert found.overlay("occlusion").dtype == np.uint8
