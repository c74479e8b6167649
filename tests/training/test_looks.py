"""How often a fine-tuned network looks at an image, and the time that is kept back for it."""

import json

import numpy as np
import pytest

from kindsight.training.fine_tuning import tta as looks
from kindsight.training.fine_tuning.images import pixels_to_tune
from kindsight.training.fine_tuning.settings import DECISIONS_FILE
from kindsight.training.fine_tuning.tta import LOOKING, allow_looks
from kindsight.training.fine_tuning.work import AFTERWARDS, COMPARED, FineTuning

# Fitted: a hundred images, of which sixty are learned from and thirty judged by.
ANSWERED = COMPARED + 40


class Fitted:
    dataset = range(100)
    files = type("Files", (), {"parts": (), "tflite": None, "layout": None})

    def __init__(self, tunes):
        spec = type("Spec", (), {"size": (8, 8)})
        settings = {"tunes": tunes, "spec": lambda self: spec, "workers": 1}
        self.training = type("Training", (), settings)()


def make(tmp_path, seconds, tunes="light", **more):
    rows, validation = np.arange(60), np.arange(60, 90)
    return FineTuning(Fitted(tunes), rows, validation, None, tmp_path, seconds=seconds, **more)


@pytest.mark.parametrize(("tunes", "seen"), [("light", ANSWERED), ("full", ANSWERED + 2 * 30)])
def test_time_is_kept_back_for_every_look(tmp_path, tunes, seen):
    work = make(tmp_path, 1000.0, tunes, looks=4, look_seconds=0.125)
    assert work.left() == pytest.approx(1000 - AFTERWARDS - seen * 0.5, abs=0.5)


@pytest.mark.parametrize("tunes", ["light", "full"])
@pytest.mark.parametrize("seconds", [60.0, 200.0, 600.0, 3600.0])
@pytest.mark.parametrize("each", [0.001, 0.01, 0.05, 0.2])
def test_looks_after_the_first_take_a_tenth_of_the_time_at_most(
    tmp_path, monkeypatch, tunes, seconds, each
):
    monkeypatch.setattr(looks, "_measured", lambda *told: each)
    work = allow_looks(make(tmp_path, seconds, tunes), None, 4)
    one = make(tmp_path, seconds, tunes, look_seconds=each)
    assert work.looks == 1 or work.left() >= (1 - LOOKING) * one.left() - 0.5
    if work.looks < 4:
        more = make(tmp_path, seconds, tunes, looks=work.looks + 1, look_seconds=each)
        assert more.left() < (1 - LOOKING) * one.left() + 0.5


def test_how_many_by_hand(tmp_path, monkeypatch):
    def allowed(each):
        monkeypatch.setattr(looks, "_measured", lambda *told: each)
        folder = tmp_path / str(each)
        folder.mkdir()
        # What is left of it for one look is a thousand seconds.
        return allow_looks(make(folder, AFTERWARDS + ANSWERED * each + 1000.5), None, 4).looks

    # 296 images: 29.6 s, 44.4 s and 103.6 s a look, of 100 s.
    assert [allowed(each) for each in (0.1, 0.15, 0.35)] == [4, 3, 1]


def test_without_a_budget_it_is_one_look(tmp_path):
    assert allow_looks(make(tmp_path, None), None, 4).looks == 1


def test_after_a_stop_it_is_as_many_as_before(tmp_path, monkeypatch):
    monkeypatch.setattr(looks, "_measured", lambda *told: 0.001)
    assert allow_looks(make(tmp_path, 600.0), None, 3).looks == 3
    monkeypatch.setattr(looks, "_measured", lambda *told: 5.0)
    assert allow_looks(make(tmp_path, 600.0), None, 3).looks == 3
    file = tmp_path / DECISIONS_FILE
    kept = json.loads(file.read_text("utf-8"))
    for wrong in (0, 4, True, 2.0, "2", None, [2]):
        file.write_text(json.dumps({**kept, "looks": wrong}), "utf-8")
        assert allow_looks(make(tmp_path, 600.0), None, 3).looks == 1


def test_the_pace_is_measured_on_the_network_itself(tmp_path, monkeypatch):
    asked = []

    class Pool:
        workers = 2

        def __init__(self, file, workers):
            asked.append(file)

        def run(self, pixels):
            asked.append(int(pixels))

    class Stored:
        def __len__(self):
            return 5

        def pixels(self, places):
            return places

    monkeypatch.setattr(looks, "InterpreterPool", Pool)
    monkeypatch.setattr(looks.time, "monotonic", iter([100.0, 110.0]).__next__)
    # Two to begin with are not counted, then each of five once: two seconds each.
    assert looks._measured(make_still(tmp_path), Stored()) == 2.0
    assert asked[0] == "network.tflite" and sorted(asked[1:]) == [0, 0, 1, 1, 2, 3, 4]


def make_still(tmp_path):
    files = type("Files", (), {"tflite": "network.tflite"})
    training = type("Training", (), {"workers": None})
    fitted = type("Fitted", (), {"files": files, "training": training})
    return FineTuning(fitted, range(3), range(2), None, tmp_path, _start=0.0)


def test_only_the_flips_there_is_time_for_are_asked(tmp_path, monkeypatch):
    stored = type("Stored", (), {"file": tmp_path / "pixels", "places": np.arange(100) * 7})
    monkeypatch.setattr("kindsight.training.fine_tuning.images.stages_of", lambda layout: ())
    work = make(tmp_path, 600.0, "full", looks=2, look_seconds=0.01)
    images = pixels_to_tune(work, stored, (0, 1, 2, 3))
    assert images.job["flips"] == [0, 1]
    np.testing.assert_array_equal(images.val_views, np.arange(60, 90)[:, None] * [7, 7])
    # What is learned from is flipped in every way.
    policy = images.job["phases"][0]["augment"]
    assert "horizontal_flip" in str(policy) and "vertical_flip" in str(policy)


def test_what_answers_nothing_afterwards_keeps_no_time_for_it(tmp_path):
    work = make(tmp_path, 1000.0, asked=False, looks=4, look_seconds=1.0)
    assert work.left() == pytest.approx(1000 - AFTERWARDS, abs=0.5)
    # All layers: the process with Keras looks at the validation images before it ends.
    work = make(tmp_path, 1000.0, "full", asked=False, looks=4, look_seconds=1.0)
    assert work.left() == pytest.approx(1000 - AFTERWARDS - 2 * 30 * 4, abs=0.5)


def test_a_head_of_several_views_takes_its_time_to_answer(tmp_path):
    work = make(tmp_path, 1000.0, look_seconds=0.1, head_seconds=0.5)
    work.fitted.files = type("Files", (), {"parts": (None,)})
    kept_back = AFTERWARDS + ANSWERED * (0.1 + 0.5)
    assert work.left() == pytest.approx(1000 - kept_back, abs=0.5)
    work = make(tmp_path, 1000.0, look_seconds=0.1, head_seconds=0.5)
    assert work.left() == pytest.approx(1000 - AFTERWARDS - ANSWERED * 0.1, abs=0.5)
