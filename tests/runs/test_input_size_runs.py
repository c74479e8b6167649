"""A training on small images chooses its input size, and everything after it uses that size."""

import json

import pytest

from kindsight import ImageClassifier, Predictor
from kindsight.runs.train import TrainSettings, train
from kindsight.training.frozen import input_size

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def few_are_many():
    """Choose among sizes for which backbones are quickly built, with few images."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(input_size, "MIN_IMAGES", 60)
        patch.setattr(input_size, "SAMPLE", 60)
        patch.setattr(input_size, "SIZES", (64,))
        patch.setattr(input_size, "STANDARD_ERRORS", 1e9)  # the smaller one, whatever the noise
        patch.setattr(input_size, "typical_sides", lambda dataset: (64, 64))
        yield


@pytest.fixture(scope="module")
def own_cache(backbone, machine_cache, tmp_path_factory):
    """A cache of this module's own, with the backbones of all: other tests write features, too."""
    folder = tmp_path_factory.mktemp("cache")
    (folder / "backbones").symlink_to(machine_cache / "backbones", target_is_directory=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KINDSIGHT_CACHE", str(folder))
        yield folder


@pytest.fixture(scope="module")
def chosen(few_are_many, own_cache, photos, tmp_path_factory):
    """The result of a training with all checks."""
    runs = tmp_path_factory.mktemp("runs")
    return train(TrainSettings(str(photos), runs=str(runs), check="full"))


def test_the_choice_is_stated(chosen):
    found = chosen.to_dict()["input_size"]
    assert (found["size"], found["tried"]) == (64, [64, 224])
    assert 56 <= found["images"] <= 60  # a sample may have up to four files that are no images
    words = f"64 px, chosen from 64 and 224 on {found['images']} images"
    assert chosen.model["input"] == words
    assert words in (chosen.run / "report.html").read_text("utf-8")
    facts = json.loads((chosen.run / "bundle.json").read_text("utf-8"))
    assert facts["settings"]["size"] == 64 and "size" not in facts["requested_settings"]
    assert facts["input"]["height"] == facts["input"]["width"] == 64


def test_a_repeated_training_gives_the_same_from_the_same_features(few_are_many, chosen):
    again = TrainSettings.from_toml(chosen.run / "settings.toml", check="basic", seed=5)
    result = train(again)
    assert result.input_size == chosen.input_size
    assert result.cache["computed"] == 0 and again.size is None


def test_checks_share_the_features(chosen, own_cache):
    names = [path.name for path in (own_cache / "features").glob("*.sqlite")]
    assert names
    assert all("-64x64-crop" in name or "-224x224-crop" in name for name in names)


def test_prediction_uses_the_size(chosen, photos):
    predictor = Predictor(chosen.run)
    assert predictor.bundle.spec.size == (64, 64)
    (prediction,) = predictor.predict([photos / "ring" / "copy.png"])
    assert prediction.best in chosen.classes


def test_the_classifier_says_what_was_chosen(few_are_many, chosen, photos):
    classifier = ImageClassifier().fit(photos)
    assert classifier.input_size_.size == 64 and classifier.size is None
    assert not hasattr(classifier.set_params(size=64).fit(photos), "input_size_")
