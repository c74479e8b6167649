"""The seconds reserved for what follows training, and the TTA flips that fit."""

import numpy as np
import pytest

from kindsight.training.budget import plan, run
from kindsight.training.budget.plan import (
    FINISH_SECONDS,
    PARITY_PASSES,
    TTA_FRACTION,
    choose_tta_flips,
    measure_seconds_per_image,
    seconds_left,
)
from kindsight.training.fine_tuning.images import whole_images
from kindsight.training.fine_tuning.state import FineTuningState

# A hundred images, of which sixty train and thirty validate: forty are predicted afterwards.
PREDICTED = PARITY_PASSES + 40


class Fitted:
    dataset = range(100)

    def __init__(self, mode, members=()):
        self.files = type("Files", (), {"members": members, "tflite": "net.tflite", "layout": None})
        spec = type("Spec", (), {"size": (8, 8)})
        settings = {"fine_tune_mode": mode, "spec": lambda self: spec, "workers": 1}
        self.training = type("Trainer", (), settings)()


def make(tmp_path, seconds, mode="light", members=(), **more):
    rows, validation = np.arange(60), np.arange(60, 90)
    fitted = Fitted(mode, members)
    return FineTuningState(fitted, rows, validation, None, tmp_path, seconds=seconds, **more)


@pytest.mark.parametrize(("mode", "passes"), [("light", PREDICTED), ("full", PREDICTED + 2 * 30)])
def test_time_is_reserved_for_predictions_in_every_flip(tmp_path, mode, passes):
    state = make(tmp_path, 1000.0, mode, tta_flips=4, seconds_per_image=0.125)
    assert seconds_left(state) == pytest.approx(1000 - FINISH_SECONDS - passes * 0.5, abs=0.5)


def test_without_predictions_only_the_files_take_time(tmp_path):
    more = {"predicts_afterwards": False, "tta_flips": 4, "seconds_per_image": 1.0}
    state = make(tmp_path, 1000.0, **more)
    assert seconds_left(state) == pytest.approx(1000 - FINISH_SECONDS, abs=0.5)
    # In full fine-tuning the worker still evaluates the validation images.
    state = make(tmp_path, 1000.0, "full", **more)
    assert seconds_left(state) == pytest.approx(1000 - FINISH_SECONDS - 2 * 30 * 4, abs=0.5)


def test_an_ensemble_head_takes_time_besides(tmp_path):
    more = {"seconds_per_image": 0.1, "head_seconds_per_image": 0.5}
    state = make(tmp_path, 1000.0, members=(None,), **more)
    reserved = FINISH_SECONDS + PREDICTED * (0.1 + 0.5)
    assert seconds_left(state) == pytest.approx(1000 - reserved, abs=0.5)
    reserved = FINISH_SECONDS + PREDICTED * 0.1
    assert seconds_left(make(tmp_path, 1000.0, **more)) == pytest.approx(1000 - reserved, abs=0.5)


@pytest.mark.parametrize("mode", ["light", "full"])
@pytest.mark.parametrize("seconds", [60.0, 600.0, 3600.0])
@pytest.mark.parametrize("each", [0.001, 0.05, 0.2])
def test_flips_after_the_first_take_a_tenth_of_the_time_at_most(tmp_path, mode, seconds, each):
    one = make(tmp_path, seconds, mode, seconds_per_image=each)
    chosen = choose_tta_flips(one, 4, seconds_left(one))

    def left(flips):
        return seconds_left(make(tmp_path, seconds, mode, tta_flips=flips, seconds_per_image=each))

    allowed = (1 - TTA_FRACTION) * seconds_left(one)
    assert chosen == 1 or left(chosen) >= allowed - 0.5
    assert chosen == 4 or left(chosen + 1) < allowed + 0.5


def test_flips_by_hand(tmp_path):
    def allowed(each):
        return choose_tta_flips(make(tmp_path, 1.0, seconds_per_image=each), 4, 1000.0)

    # 296 images: 29.6 s, 44.4 s and 103.6 s a flip, of 100 s.
    assert [allowed(each) for each in (0.1, 0.15, 0.35)] == [4, 3, 1]


def test_the_network_itself_is_measured(tmp_path, monkeypatch):
    runs = []

    class Pool:
        workers = 2

        def __init__(self, file, workers):
            runs.append(file)

        def run(self, pixels):
            runs.append(int(pixels))

    class Stored:
        def __len__(self):
            return 5

        def pixels(self, rows):
            return rows

    monkeypatch.setattr(plan, "InterpreterPool", Pool)
    state = make(tmp_path, 600.0)
    monkeypatch.setattr(plan.time, "monotonic", iter([100.0, 110.0]).__next__)
    # Two first runs are not counted, then each of five images once: two seconds each.
    assert measure_seconds_per_image(state, Stored()) == 2.0
    assert runs[0] == "net.tflite" and sorted(runs[1:]) == [0, 0, 1, 1, 2, 3, 4]


def test_a_resumed_run_has_as_many_flips_as_before(tmp_path, monkeypatch):
    def flips(each, seconds=600.0, folder=tmp_path):
        monkeypatch.setattr(run, "measure_seconds_per_image", lambda *_: each)
        return run._with_tta_flips(make(folder, seconds), None, 3).tta_flips

    assert flips(5.0, None) == 1  # without a budget
    assert flips(0.001) == 3 and flips(5.0) == 3
    state = make(tmp_path, 600.0)
    for wrong in (0, 4, True, 2.0, "2", None, [2]):
        state.decide(tta_flips=wrong)
        assert flips(5.0) == 1


def test_validation_images_are_flipped_as_often_as_fits_and_training_images_always(
    tmp_path, monkeypatch
):
    stored = type("Stored", (), {"file": tmp_path / "pixels", "offsets": np.arange(100) * 7})
    monkeypatch.setattr("kindsight.training.fine_tuning.images.stages_of", lambda layout: ())
    images = whole_images(make(tmp_path, 600.0, "full", tta_flips=2), stored, (0, 1, 2, 3))
    assert images.job["flips"] == [0, 1]
    np.testing.assert_array_equal(images.val_flips, np.arange(60, 90)[:, None] * [7, 7])
    policy = str(images.job["phases"][0]["augment"])
    assert "horizontal_flip" in policy and "vertical_flip" in policy


def test_all_layers_are_trained_after_the_upper_part(tmp_path, monkeypatch):
    stored = type("Stored", (), {"file": tmp_path / "pixels", "offsets": np.arange(100)})
    stages = ("stage4", "stage5", "top")
    monkeypatch.setattr("kindsight.training.fine_tuning.images.stages_of", lambda layout: stages)
    phases = whole_images(make(tmp_path, None, "full"), stored, (0,)).job["phases"]
    assert [(phase["name"], phase["epochs"]) for phase in phases] == [
        ("upper layers", 2), ("all layers", 10)
    ]  # fmt: skip
    assert phases[0]["freeze"] == "stage5" and phases[1]["freeze"] == "none"
