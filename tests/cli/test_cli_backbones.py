from __future__ import annotations

import json

import pytest

from kindsight.errors import KindsightError


@pytest.fixture(autouse=True)
def keras_home(monkeypatch, tmp_path):
    """Keras's download folder, with one file."""
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "convnext_tiny_notop.h5").write_bytes(b"x")


def test_the_table_names_every_backbone_once(run):
    from kindsight.models.backbones.table import BACKBONES

    lines = run("backbones").stdout.splitlines()
    names = [line.split()[0] for line in lines[1 : len(BACKBONES) + 1]]
    assert names == list(BACKBONES)
    (row,) = (line for line in lines if line.split()[:1] == ["inception-v3"])
    # 3 * (288 + 768 + 768) + 2048 features
    assert row.split() == ["inception-v3", "299", "7,520", "21.8", "M", "no", "Apache-2.0"]
    (installed,) = (line for line in lines if line.split()[:1] == ["convnext-tiny"])
    assert "yes" in installed.split()
    assert max(map(len, lines)) <= 100


def test_json_holds_all_facts(run):
    rows = json.loads(run("backbones", "--json").stdout)["backbones"]
    (row,) = (row for row in rows if row["name"] == "inception-v3")
    assert row["cuts"] == [f"mixed{number}" for number in range(11)]
    assert row["size"] == [299, 299] and row["min_size"] == 75
    assert row["url"].startswith("https://") and row["url"].endswith("_notop.h5")
    assert row["installed"] is False


def test_one_backbone_in_full(run):
    text = run("backbones", "inception-v3").stdout
    assert text.startswith("inception-v3\n")
    for part in ("mixed7", "pixels / 127.5 - 1", "21,802,784", "not downloaded yet"):
        assert part in " ".join(text.split())


def test_a_keras_file_of_the_users(run, tmp_path):
    import keras

    file = tmp_path / "own.keras"
    keras.Sequential([keras.Input((40, 48, 3)), keras.layers.Conv2D(2, 3)]).save(file)
    text = " ".join(run("backbones", str(file)).stdout.split())
    assert text.startswith("own size 40 x 48 pixels") and "determined when it is built" in text


def test_a_near_name_is_suggested(run):
    result = run("backbones", "InceptionV3")
    assert result.exit_code == 2
    assert "Did you mean 'inception-v3'?" in result.stderr


def raise_error(*_, **__):
    raise KindsightError("Said in time: nothing was trained.")


def test_training_announces_a_download(run, monkeypatch, tmp_path):
    monkeypatch.setattr("kindsight.runs.train.train", raise_error)
    said: list[str] = []
    monkeypatch.setattr("kindsight.cli.train.note", said.append)
    run("train", "photos", "--model", "resnet50")
    # 23,587,712 numbers of four bytes
    (text,) = said
    assert "about 94 MB" in text and "storage.googleapis.com" in text and "once" in text
    said.clear()
    run("train", "photos", "--model", "resnet50", "--weights", "none")
    run("train", "photos", "--model", "resnet50", "--quiet")
    assert said == []


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--weights", "imgnet"], "--weights must be imagenet, none, or a file"),
        (["--model", "inception-v3", "--weights", "a.pth"], "ending in .h5"),
        (["--model", "inception-v3", "--weights", "absent.h5"], "absent.h5"),
        (["--model", "inception-v3", "--size", "64"], "75 to 1024"),
        (["--model", "absent.keras"], "absent.keras"),
    ],
)
def test_invalid_backbone_settings_are_reported_before_images_are_read(run, options, words):
    result = run("train", "photos", *options)
    assert result.exit_code == 2
    assert words in result.stderr
