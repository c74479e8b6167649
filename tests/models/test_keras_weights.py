"""Sources of weights: downloaded by Keras, random, or a file."""

import dataclasses

import pytest

from kindsight.errors import SettingsError, WeightsError
from kindsight.models.backbones.build import ensure_backbone
from kindsight.models.backbones.features import build_feature_model, build_network
from kindsight.models.backbones.table import get_backbone
from kindsight.models.backbones.weights import (
    check_weights,
    download_notice,
    download_weights,
    keras_folder,
    source_digest,
)
from kindsight.models.runtime import make_images, run_litert
from kindsight.models.worker.process import KerasProcess

NAME = "mobilenet-v2"
FILE = "mobilenet_v2_weights_tf_dim_ordering_tf_kernels_1.0_224_no_top.h5"


@pytest.fixture
def no_network(monkeypatch, tmp_path):
    """An empty download folder, and a server that does not answer."""
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))
    monkeypatch.setattr("keras.src.utils.file_utils.config.keras_home", lambda: str(tmp_path / "k"))
    backbone = get_backbone(NAME)
    published = dataclasses.replace(backbone.published, url=f"http://127.0.0.1:9/{FILE}")
    return dataclasses.replace(backbone, published=published)


def test_a_download_is_announced(monkeypatch, tmp_path):
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    message = download_notice(get_backbone(NAME), "imagenet")
    # 2,257,984 numbers of four bytes
    assert FILE in message and "about 9 MB" in message and "storage.googleapis.com" in message
    assert download_notice(get_backbone(NAME), "none") is None
    assert download_notice(get_backbone("efficientnet-lite0"), "imagenet") is None
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / FILE).write_bytes(b"x")
    assert download_notice(get_backbone(NAME), "imagenet") is None


def test_without_a_network_the_error_names_the_file(no_network):
    with pytest.raises(WeightsError) as raised:
        download_weights(no_network)
    message = str(raised.value)
    assert "\n" not in message
    for text in (f"Download http://127.0.0.1:9/{FILE}", "`weights`", str(keras_folder())):
        assert text in message


@pytest.mark.slow
def test_downloaded_weights_are_used(monkeypatch, tmp_path):
    """From the file in Keras's folder to the features of the built backbone."""
    import keras

    backbone = get_backbone(NAME)
    source = build_network(backbone, (32, 32), "none", seed=5)
    folder = tmp_path / "home" / "models"
    folder.mkdir(parents=True)
    plain = keras.applications.MobileNetV2(weights=None, include_top=False, input_shape=(32, 32, 3))
    plain.set_weights(source.get_weights())
    plain.save(folder / FILE)
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "home"))
    with KerasProcess() as process:
        files = ensure_backbone(NAME, (32, 32), tmp_path / "cache", process=process)
    images = make_images(3, (32, 32))
    expected, layout = build_feature_model(backbone, source)
    got = run_litert(files.tflite.read_bytes(), images)
    wanted = expected(images, training=False)
    assert files.layout == layout
    assert abs(got - wanted.numpy()).max() < 1e-4 * abs(wanted.numpy()).max()


def test_sources_have_different_digests(tmp_path):
    file = tmp_path / "a.h5"
    file.write_bytes(b"weights")
    one, other = get_backbone(NAME), get_backbone("resnet50")
    digests = [
        source_digest(one, "imagenet", 0),
        source_digest(other, "imagenet", 0),
        source_digest(one, "none", 0),
        source_digest(one, "none", 1),
        source_digest(one, str(file), 0),
    ]
    assert len(set(digests)) == 5
    assert source_digest(one, "imagenet", 1) == digests[0]


@pytest.mark.parametrize("weights", ["ImageNet", "weights.txt", "weights.pth", ""])
def test_unknown_weights_are_rejected(weights):
    with pytest.raises(SettingsError, match="`weights` must be imagenet, none, or a file"):
        check_weights(get_backbone(NAME), weights)


def test_missing_weights_are_rejected():
    with pytest.raises(WeightsError, match=r"absent\.h5 does not exist"):
        check_weights(get_backbone(NAME), "absent.h5")
