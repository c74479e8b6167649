"""Wider frozen features: which fit a budget, and when they are used."""

import numpy as np
import pytest

from kindsight.training.budget import plan, wider
from kindsight.training.budget.plan import (
    choose_wide_flips,
    fine_tunes_small,
    fits_extra_copies,
    is_default,
)
from kindsight.training.fine_tuning.state import FineTuningState
from kindsight.training.frozen.settings import FrozenTrainer

PAIR = "efficientnet-lite0+efficientnet-lite2"


@pytest.mark.parametrize(
    ("settings", "default"),
    [
        ({}, True), ({"seed": 3, "tta_flips": 2}, True), ({"model": "efficientnet-lite2"}, False),
        ({"size": 300}, False), ({"weights": "mine.pth"}, False),
    ],
)  # fmt: skip
def test_a_model_size_or_weights_of_the_user_are_no_default(settings, default):
    assert is_default(FrozenTrainer(**settings)) == default


def test_the_widest_features_that_fit(monkeypatch):
    def choose(seconds, flips=(0, 1, 2, 3), rate=100.0, images=1000, **settings):
        return choose_wide_flips(FrozenTrainer(**settings), flips, images, rate, seconds)

    # The image and its middle by Lite0, 2.9 times the cost of a pass by Lite2: 49 s for 1,000
    # images, twice that for two flips; 16 s to build. They may take half of the time.
    assert choose(228.1) == (0, 3) and choose(227.9) == (0,)
    assert choose(130.1) == (0,) and choose(129.9) is None
    assert choose(2000) == choose(2000, tta_flips=2) == (0, 3)
    assert choose(2000, flips=(0,)) == (0,) and choose(2000, flips=(0, 2)) == (0, 2)
    # There are never fewer flips and crops than the user set.
    assert choose(227.9, tta_flips=2) is None and choose(2000, tta_flips=4) == (0, 1, 2, 3)
    assert choose(343.9, tta_crops=2) == (0,) and choose(344.1, tta_crops=2) == (0, 3)
    # The user's model stays; features of many images would be too large.
    assert choose(2000, model="mobilenet-v2") is None and choose(2000, size=128) is None
    assert choose(1e9, images=40_001) is None and choose(1e9, images=40_000) is not None
    monkeypatch.setattr(plan, "_has_weights", lambda name: False)
    assert choose(2000) is None


def test_copies_of_many_images_leave_the_time_of_fine_tuning():
    def fits(images, seconds):
        return fits_extra_copies(1, images, 100.0, seconds)

    # A quarter of the time; a variant of 4,999 images takes 49.99 s.
    assert fits(4999, 200) and not fits(4999, 199)
    # 16 passes of 50 s each are left, besides the 50 s of the variant.
    assert fits(5000, 850) and not fits(5000, 849)


def test_the_default_backbone_is_fine_tuned_where_time_is_short():
    # 40 epochs of 1,000 images, at 1.2 passes of 2.9 times the cost: 1,392 seconds.
    assert fine_tunes_small("efficientnet-lite2", 1000, 100.0, 1391)
    assert not fine_tunes_small("efficientnet-lite2", 1000, 100.0, 1393)
    assert fine_tunes_small("efficientnet-lite0", 1000, 100.0, 1e6)
    assert not fine_tunes_small("efficientnet-lite0", 1000, 100.0, None)


def test_wide_settings():
    trainer = wider._wide_trainer(FrozenTrainer(budget="1h"), (0, 3))
    assert trainer.model == PAIR and trainer.spec().size == (300, 300)
    assert trainer.variants_by_backbone == ((0, 3, 4, 7), (0, 3))
    assert trainer.first_size == (224, 224)
    assert trainer.describe_backbone().endswith("mean of 4 and 2 TTA variants")


class Head:
    """A head on a thousand images, with a cross-validated log loss."""

    dataset = range(1000)
    files = type("Files", (), {"members": ()})

    def __init__(self, log_loss, **settings):
        self.training = FrozenTrainer(budget="1h", **settings)
        chosen = type("Chosen", (), {"log_loss": log_loss, "network": ""})
        self.head = type("Fitted", (), {"chosen": chosen})


@pytest.fixture
def try_heads(tmp_path, monkeypatch):
    """Try wider features with heads of given log losses, without reading an image."""
    tried = []

    def run(losses, seconds=3600.0, folder="one", flips=(0, 1, 2, 3), **settings):
        tried.clear()

        def fit(trainer, state):
            tried.append(trainer)
            names = ("model", "size", "tta_crops", "flip_ids", "tta_flips")
            return Head(losses[len(tried) - 1], **{k: getattr(trainer, k) for k in names})

        monkeypatch.setattr(wider, "fit_again", fit)
        path = tmp_path / folder
        path.mkdir(exist_ok=True)
        rows = np.arange(1000)
        state = FineTuningState(
            Head(0.3, **settings), rows, rows[:100], None, path, seconds=seconds + 25.05
        )
        found = wider.try_wider(state, flips, 100.0)
        return found.fitted.training, found.notes, list(tried)

    return run


def test_a_second_backbone_is_used_where_cross_validation_is_better(try_heads):
    trainer, notes, tried = try_heads([0.29])
    assert trainer.model == PAIR and len(tried) == 1
    assert notes == [
        "efficientnet-lite0 at 224 px with middle crops and efficientnet-lite2 at 300 px, over 2 "
        "flips: cross-validated log loss 0.290 instead of 0.300"
    ]
    # Where it is not, more variants by the first backbone are tried.
    trainer, notes, tried = try_heads([0.299, 0.28, 0.279], folder="two")
    assert trainer.model == "efficientnet-lite0" and trainer.tta_crops == 2
    assert [len(one.variants_by_backbone[0]) for one in tried] == [4, 2, 8]
    assert "did not help in cross-validation" in notes[0] and "middle crops: " in notes[1]


def test_more_variants_by_the_same_backbone(try_heads):
    def run(*arguments, **options):
        trainer, notes, tried = try_heads(*arguments, model="mobilenet-v2", **options)
        tried = [one.variants_by_backbone[0] for one in tried]
        return trainer.variants_by_backbone[0], notes, tried

    # 0.98 of 0.3 is 0.294, of 0.293 is 0.28714.
    variants, notes, tried = run([0.293, 0.287])
    assert variants == (0, 1, 2, 3, 4, 5, 6, 7) and tried == [(0, 4), variants]
    assert "0.293 instead of 0.300" in notes[0] and notes[1].startswith("flips: ")
    variants, notes, tried = run([0.295, 0.293], folder="two")
    assert variants == (0, 1, 2, 3) and "middle crops did not help" in notes[0]
    variants, notes, tried = run([0.293, 0.288], folder="three", flips=(0, 2))
    assert variants == (0, 4) and tried == [(0, 4), (0, 2, 4, 6)] and "did not help" in notes[1]
    # Ten seconds of a variant are a quarter of 40; of three pairs there is time for one.
    variants, _, tried = run([0.1, 0.05], 41.0, "four")
    assert variants == (0, 4) and len(tried) == 1
    assert run([0.1], 39.0, "five")[::2] == ((0,), [])
    assert run([0.1, 0.05], 90.0, "six")[0] == (0, 3, 4, 7)
    # A resumed run decides as before, whatever time is left; crops of the user stay.
    assert run([0.1, 0.05], 30.0, "six")[0] == (0, 3, 4, 7)
    assert run([0.1], 3600.0, "five")[::2] == ((0,), [])
    assert run([0.1], folder="seven", tta_crops=3, flips=(0,))[::2] == ((0, 4, 8), [])


@pytest.mark.parametrize("stored", [None, 3, "0", {}, [], [4], [3], [0, 0], [0, 3, 1], [0, True]])
def test_invalid_stored_flips_are_ignored(stored):
    assert wider._valid_flips(stored) is None


def test_a_resumed_run_uses_the_stored_flips(try_heads, tmp_path):
    trainer, _, _ = try_heads([0.29])
    assert trainer.flip_ids == (0, 3)
    trainer, _, _ = try_heads([0.29], 140.0)  # time for one flip only, if it were decided now
    assert trainer.flip_ids == (0, 3)


def test_whether_the_network_is_small_is_decided_once(tmp_path):
    def small(seconds, folder, **settings):
        path = tmp_path / folder
        path.mkdir(exist_ok=True)
        rows = np.arange(1000)
        head = Head(0.3, **settings)
        state = FineTuningState(head, rows, rows[:100], None, path, seconds=seconds)
        return wider._decide_small(state, "efficientnet-lite2", 100.0)

    assert small(1000.0, "one", size=300) and small(1e6, "one", size=300)
    assert not small(1e6, "two", size=300) and not small(1000.0, "two", size=300)
    assert not small(1000.0, "three", size=224)
