"""Fine-tuning: settings, refusals, and whole trainings that end, or stop and go on."""

import csv
import json
from dataclasses import asdict, dataclass, replace

import numpy as np
import pytest

from kindsight.bundle import load_bundle
from kindsight.classifier import ImageClassifier
from kindsight.errors import SettingsError
from kindsight.models.runtime import InterpreterPool
from kindsight.predictor import Predictor
from kindsight.runs.train import TrainSettings, train
from kindsight.training.budget import widen as one_backbone
from kindsight.training.budget import widen as widening
from kindsight.training.budget.widen import choose_widening
from kindsight.training.engine.checkpoints import CHECKPOINT_FILE
from kindsight.training.fine_tuning import (
    plan as tune_plan,
)
from kindsight.training.fine_tuning import (
    settings as tuning,
)
from kindsight.training.fine_tuning import (
    train as fine_tuning,
)
from kindsight.training.fine_tuning.settings import is_better
from kindsight.training.fine_tuning.train import FineTuning, fine_tune
from kindsight.training.fine_tuning.tta import choose_flips
from kindsight.training.frozen.candidates import Task
from kindsight.training.frozen.settings import FrozenTrainer, parse_budget
from shapes import write_small_network


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90), ("10m", 600), ("1.5h", 5400), ("45", 45), (2.5, 2.5)]
)
def test_a_budget_is_a_time(text, seconds):
    assert parse_budget(text) == seconds


@pytest.mark.parametrize("text", ["", "m", "10 minutes", "0", "-5m", "1000h", True, "nan"])
def test_what_is_no_time_is_refused(text):
    with pytest.raises(SettingsError, match="budget must be a time"):
        parse_budget(text)


def test_settings_say_what_is_fine_tuned():
    assert FrozenTrainer().tunes == "off" and FrozenTrainer(budget="5m").tunes == "light"
    assert FrozenTrainer(budget="5m", fine_tune="full").tunes == "full"
    (fault,) = FrozenTrainer(fine_tune="ful").faults()
    assert "Did you mean 'full'?" in fault
    (fault,) = FrozenTrainer(fine_tune="off", budget="5m").faults()
    assert "something to be spent on" in fault
    with pytest.raises(SettingsError, match="fine_tune, budget are settings of a frozen backbone"):
        TrainSettings("photos", model="small-cnn", fine_tune="light", budget="5m")


class Scores:
    def __init__(self, accuracy, log_loss):
        self.accuracy, self.log_loss = accuracy, log_loss


def right(*wrong):
    found = np.ones(20, bool)
    found[list(wrong)] = False
    return found


@pytest.mark.parametrize(
    ("log_loss", "wrong", "better"),
    [
        (0.29, (1, 2), True),
        # By less than a hundredth is not surer.
        (0.298, (1, 2), False),
        (0.2, (), True),
        (0.31, (), False),
        (0.3, (1, 2), False),
        # Of three that only one of them got right, it may be behind by one: 2 - 1 < 3 ** 0.5.
        (0.29, (1, 5, 6), True),
        # It may not be behind by all of them, two or one: 2 > 2 ** 0.5, and 1 is not under 1.
        (0.1, (1, 2, 5, 6), False),
        (0.1, (1, 2, 5), False),
        # 4 - 0 > 4 ** 0.5, however sure it is.
        (0.01, (1, 2, 5, 6, 7, 8), False),
    ],
)
def test_better_is_surer_with_no_more_wrong_than_by_chance(log_loss, wrong, better):
    ours, frozen = Scores(1 - len(wrong) / 20, log_loss), Scores(0.9, 0.3)
    assert is_better(ours, frozen, right(*wrong), right(1, 2)) is better


def test_without_a_validation_part_or_time_it_stays_frozen(photos, backbone, tmp_path):
    from kindsight.dataset import open_dataset

    training = FrozenTrainer(size=64)
    dataset = open_dataset(str(photos))
    features = training.features(dataset, backbone)
    fitted = training.fit(features, backbone, features.dataset.classes)
    rows = np.arange(len(features.dataset))
    for validation, seconds, said in ((rows[:9], None, "there are 9"), (rows, 1.0, "no time")):
        kept = fine_tune(FineTuning(fitted, rows, validation, None, tmp_path, seconds=seconds))
        assert (
            kept.head is fitted.head
            and not kept.fine_tuning.accepted
            and said in kept.fine_tuning.description
        )
        assert tuning.rejection_notes(kept.tuning)[0].startswith("Not fine-tuned")


def test_ctrl_c_before_the_training_keeps_the_best_head_so_far(
    photos, backbone, tmp_path, monkeypatch
):
    from kindsight.dataset import open_dataset

    training = FrozenTrainer(size=64)
    features = training.features(open_dataset(str(photos)), backbone)
    fitted = training.fit(features, backbone, features.dataset.classes)
    wider, rows, heard = replace(fitted), np.arange(len(features.dataset)), []
    keras = type("Keras", (), {"interrupted_twice": False})
    callback = type("Listener", (), {"on_interrupt": lambda self: heard.append("Ctrl-C")})()

    def tune(wish=KeyboardInterrupt, seconds=600.0, own=None):
        def pressed(work, best, own):
            best.append(replace(work, fitted=wider))
            raise wish

        monkeypatch.setattr(fine_tuning, "_fine_tune", pressed)
        work = FineTuning(fitted, rows, rows, keras, tmp_path, seconds=seconds, callback=callback)
        return fine_tune(work, own)

    kept = tune()
    assert kept.head is wider.head and kept.dataset is wider.dataset and heard == ["Ctrl-C"]
    assert (
        not kept.fine_tuning.accepted
        and "not fine-tuned: ended by Ctrl-C" in kept.fine_tuning.description
    )
    # A second one, and where nobody is promised a result.
    for more in ({"wish": fine_tuning.StopNow}, {"seconds": None}, {"own": object()}):
        with pytest.raises(KeyboardInterrupt):
            tune(**more)
    keras.interrupted_twice = True
    with pytest.raises(KeyboardInterrupt):
        tune()
    # What was trained before it was stopped is not lost: while it is judged, or begun again.
    keras.interrupted_twice = False
    (tmp_path / CHECKPOINT_FILE).write_bytes(b"")
    with pytest.raises(KeyboardInterrupt):
        tune()


class Stopper:
    """Presses Ctrl-C in an epoch."""

    def __init__(self, epoch):
        self.epoch, self.heard = epoch, []

    def on_start(self, epochs, done):
        self.done = done

    def on_step(self, phase, epoch, *told):
        if epoch == self.epoch:
            raise KeyboardInterrupt

    def on_epoch(self, row):
        self.heard.append(row.epoch)


def run(photos, runs, monkeypatch, callback=None, better=True, epochs=3, rates=1, **settings):
    monkeypatch.setattr(fine_tuning, "is_better", lambda *told: better)
    monkeypatch.setattr(tune_plan, "EPOCHS", epochs)
    monkeypatch.setattr(tune_plan, "FIRST_EPOCHS", 1)
    # Trials of rates have sixty steps at least: small ones, and few rates.
    monkeypatch.setattr(tune_plan, "BATCH", 8)
    monkeypatch.setattr(tune_plan, "LEARNING_RATES", tune_plan.LEARNING_RATES[:rates])
    monkeypatch.setattr(tune_plan, "CHECKPOINT_SECONDS", 0.0)
    given = {"run": "one", "runs": str(runs), "size": 64, "fine_tune": "light", **settings}
    return train(TrainSettings(str(photos), **given), callback=callback)


def predictions(result):
    with (result.run / "validation.csv").open(newline="") as file:
        return [row[1:] for row in csv.reader(file)]


@pytest.mark.slow
def test_a_stopped_training_goes_on_to_the_same_network(photos, tmp_path, monkeypatch):
    through = run(photos, tmp_path / "through", monkeypatch, rates=2)
    assert [row.epoch for row in through.history] == [1, 2, 3]
    assert {row.phase for row in through.history} == {"upper part"}
    assert "cut after stage5, 3 views" in through.network
    bundle = load_bundle(through.run)
    assert bundle.facts["parity"]["largest_difference"] < 1e-3
    assert "Better than frozen" in through.report.read_text("utf-8")
    # What is written is what answered.
    paths = [row["path"] for row in csv.DictReader((through.run / "validation.csv").open())]
    answers = list(Predictor(through.run).predict([str(photos / path) for path in paths[:3]]))
    assert [a.label for a in answers] == [row[1] for row in predictions(through)[1:4]]

    with pytest.raises(KeyboardInterrupt):
        run(photos, tmp_path / "halved", monkeypatch, Stopper(2), rates=2)
    heard = Stopper(0)
    halved = run(photos, tmp_path / "halved", monkeypatch, heard, rates=2)
    # It goes on from the epoch it was stopped in, or from the one after where news came late.
    assert heard.done in (1, 2) and heard.heard == [1, 2, 3]
    assert predictions(halved) == predictions(through)


@pytest.mark.slow
def test_all_layers_learn_after_the_upper_part(photos, tmp_path, monkeypatch):
    result = run(photos, tmp_path, monkeypatch, epochs=2, fine_tune="full")
    assert [row.phase for row in result.history] == ["upper part", *["all layers"] * 2]
    assert "all layers" in result.network and result.fine_tuning["accepted"]
    page = result.report.read_text("utf-8")
    assert "all layers" in page and "Better than frozen" in page
    assert load_bundle(result.run).facts["parity"]["largest_difference"] < 1e-3


@pytest.mark.slow
def test_what_is_not_better_is_refused_and_the_frozen_head_answers(photos, tmp_path, monkeypatch):
    refused = run(photos, tmp_path, monkeypatch, better=False, epochs=1)
    said = "The frozen head is kept: fine-tuned"
    assert not refused.fine_tuning["accepted"] and any(
        note.startswith(said) for note in refused.notes
    )
    plain = train(TrainSettings(str(photos), run="plain", runs=str(tmp_path), size=64))
    assert predictions(refused) == predictions(plain) and plain.fine_tuning == {}
    # Nothing of the network is left.
    assert {path.name for path in refused.run.iterdir()} <= {
        *(path.name for path in plain.run.iterdir()), "history.csv"
    }  # fmt: skip
    assert said in refused.report.read_text("utf-8")


@dataclass(frozen=True)
class Wider:
    """Wider features that take little time: two flips of larger images."""

    size: int
    model: str = "efficientnet-lite0"
    flips: tuple[int, ...] = (0, 1)
    more: tuple = ()

    def applied(self, training):
        told = {"model": self.model, "size": self.size, "flips": self.flips, **dict(self.more)}
        return replace(training, **told)

    def words(self):
        return "over 2 flips"


class Wish(Stopper):
    """Presses Ctrl-C, and hears what becomes of it."""

    def on_interrupt(self):
        self.answered = True


@pytest.fixture(scope="module")
def beside(tmp_path_factory):
    """A small network to see images beside another."""
    return write_small_network(tmp_path_factory.mktemp("own") / "beside.keras", 96)


@pytest.mark.slow
def test_within_a_budget_ctrl_c_finishes_with_the_best_so_far(
    photos, beside, tmp_path, monkeypatch
):
    # Wider features are taken whatever they bring, and answer together with the tuned network:
    # two backbones, of which the first sees the middles, too, and has images of another size.
    # What is tuned brings the images to a size of its own.
    more = (("inner", (64, 64)), ("first_crops", 2))
    chosen = Wider(96, f"efficientnet-lite0+{beside}", more=more)
    score = Task.score

    def always_the_mean(task, logits, kind, *told):
        found = score(task, logits, kind, *told)
        return replace(found, log_loss=1e-3) if kind == "mean" else found

    monkeypatch.setattr(Task, "score", always_the_mean)
    own = replace(one_backbone.get_backbone("efficientnet-lite0"), size=(64, 64))
    monkeypatch.setattr(one_backbone, "get_backbone", lambda name: own)
    for module in (widening, one_backbone):
        monkeypatch.setattr(module, "WIDE_SIZE", 96)
    monkeypatch.setattr(fine_tuning, "is_default", lambda training: True)
    monkeypatch.setattr(one_backbone, "MANY_EPOCHS", np.inf)
    monkeypatch.setattr(widening, "choose_widening", lambda *_: chosen)
    monkeypatch.setattr(widening, "BETTER", np.inf)
    monkeypatch.setattr(tune_plan, "SHARES_BESIDE", (0.5,))
    monkeypatch.setattr(tune_plan, "CLEARLY_BESIDE", 0.0)
    monkeypatch.setattr(fine_tuning, "choose_flips", lambda *told: ((0, 1), 60))
    wish = Wish(3)
    result = run(photos, tmp_path, monkeypatch, wish, fine_tune=None, budget="1h")
    assert wish.answered and "ended by Ctrl-C" in result.network
    assert 2 <= len(result.history) <= 4
    assert "over 2 flips: cross-validation" in result.network
    assert "what is tuned is efficientnet-lite0 at 64 px" in result.network
    assert "mean of 4 and 2 TTA copies" in result.report.read_text("utf-8")
    assert "2 looks, at the image as it is and flipped, together with" in result.network
    assert result.fine_tuning["accepted"] and "wider features" in result.fine_tuning["seconds"]
    bundle = load_bundle(result.run)
    assert bundle.facts["parity"]["largest_difference"] < 1e-3
    assert {path.name for path in result.run.glob("*.json")} == {"bundle.json"}


@pytest.mark.slow
def test_within_a_budget_ctrl_c_while_views_are_made_finishes_with_the_frozen_head(
    photos, tmp_path, monkeypatch
):
    monkeypatch.setattr(widening, "choose_widening", lambda *_: None)

    def press(stage, done, total):
        if stage == "views":
            raise KeyboardInterrupt

    settings = TrainSettings(str(photos), run="one", runs=str(tmp_path), size=64, budget="1h")
    result = train(settings, progress=press)
    assert not result.fine_tuning["accepted"]
    assert any(note.lower().endswith("not fine-tuned: ended by ctrl-c") for note in result.notes)
    assert load_bundle(result.run).facts["parity"]["largest_difference"] < 1e-3
    assert {path.name for path in result.run.glob("*.json")} == {"bundle.json"}


@pytest.mark.slow
def test_what_is_judged_over_flips_is_what_answers(photos, monkeypatch):
    chosen = Wider(64)
    monkeypatch.setattr(widening, "choose_widening", lambda *_: chosen)
    monkeypatch.setattr(widening, "BETTER", np.inf)
    monkeypatch.setattr(fine_tuning, "is_better", lambda *told: True)
    monkeypatch.setattr(fine_tuning, "choose_flips", lambda *told: ((0, 2), 60))
    few = {"MOST_EPOCHS": 2, "BATCH": 8, "LEARNING_RATES": (5e-5,)}
    for name, value in {"SHARES_BESIDE": (1.0,), "CLEARLY_BESIDE": 0.0, **few}.items():
        monkeypatch.setattr(tune_plan, name, value)
    fitted = ImageClassifier(size=64, budget="1h", validation=0.4).fit(photos)._fitted
    assert fitted.fine_tuning.description.endswith("2 looks, at the image as it is and flipped")
    known = fitted._logits
    assert len(known) >= 10
    rows = np.array(sorted(known))
    # What the child said of what it kept at the cut, as float16, and what the file says.
    judged = np.array([known[row] for row in rows.tolist()])
    answers = fitted.logits_of(fitted.dataset[rows])
    np.testing.assert_allclose(judged, answers, atol=0.01 * np.abs(answers).max())
    pool = InterpreterPool(fitted.tflite, 1)
    (image,) = fitted.stored.pixels(rows[:1])
    np.testing.assert_allclose(pool.run(image), pool.run(np.flipud(image)), atol=1e-4)
    assert np.abs(pool.run(image) - pool.run(np.fliplr(image))).max() > 1e-3


@pytest.mark.slow
def test_a_network_that_has_learned_nothing_is_not_kept(photos, tmp_path, monkeypatch):
    monkeypatch.setattr(fine_tuning, "choose_flips", lambda *told: ((0,), 60))
    wish = Wish(1)
    result = run(photos, tmp_path, monkeypatch, wish, fine_tune=None, budget="1h")
    assert wish.answered and not result.history
    assert "not fine-tuned: the time was over before its first epoch" in " ".join(result.notes)
    assert not result.fine_tuning["accepted"]
    assert {path.name for path in result.run.glob("*.json")} == {"bundle.json"}
    assert not (result.run / CHECKPOINT_FILE).exists()
    load_bundle(result.run)


def test_what_was_decided_otherwise_does_not_count(tmp_path):
    work = FineTuning(None, [], [], None, tmp_path)
    work.decide(views=3)
    assert work.decided()["views"] == 3
    file = tmp_path / tuning.DECISIONS_FILE
    for told in ('{"views": 3}', '{"views": 3, "format": 1}', "[]", "no JSON"):
        file.write_text(told)
        assert work.decided() == {}


class Noticing:
    """Stored images of one row of four pixels, and a network that answers with the pixels."""

    def pixels(self, rows):
        bright = [[[200, 0, 0], [0, 0, 0]], [[0, 0, 0], [0, 0, 0]]]
        dark = [[[0, 0, 0], [0, 0, 0]], [[0, 0, 0], [0, 0, 0]]]
        return np.array([bright if row % 2 else dark for row in rows], np.uint8)

    workers = 1

    def __init__(self, seen):
        self.seen = seen

    def run(self, pixels):
        return pixels[..., 0].astype(np.float32).reshape(4)[self.seen]


@pytest.mark.parametrize(
    ("seen", "flips"),
    [([0, 1, 2, 3], (0, 1, 2, 3)), ([0, 1], (0, 1)), ([0, 2], (0, 2)), ([0], (0,))],
)
def test_a_flip_is_a_view_where_it_loses_nothing(seen, flips):
    def answer(vectors):
        high = np.clip(vectors.sum(1) / 200, 0.05, 0.95)
        return np.stack([1 - high, high], 1).astype(np.float32)

    stub, rows = Noticing(seen), np.arange(20)
    assert choose_flips(stub, rows, rows % 2, stub, answer, ("dark", "bright")) == (flips, 60)


class Left:
    """A fine-tuning of 1,000 images with so many seconds left."""

    def __init__(self, seconds, size=300):
        self.seconds, self.kept, self.rows = seconds, {}, range(1000)
        self.fitted = self
        self.training = FrozenTrainer(size=size)

    def left(self):
        return self.seconds

    def decided(self):
        return self.kept

    def decide(self, **more):
        self.kept.update(more)


def test_what_is_tuned_is_small_where_time_is_short():
    def small(seconds, name="efficientnet-lite2", **more):
        return one_backbone._tunes_small(Left(seconds, **more), name, rate=100.0)

    # 40 epochs of 1,000 images, at 1.2 passes of 2.9 times the cost: 1,392 seconds.
    assert small(1391) and not small(1393)
    # The default one was small before.
    assert small(1e6, "efficientnet-lite0") and not small(1e6, "efficientnet-lite0", size=None)
    assert small(10, size=(300, 300))
    # Without a budget, and where only views were added, nothing else is tuned.
    assert not small(None) and not small(10, size=None)
    # What was decided before a stop stays.
    work = Left(1)
    work.kept = {"small": False}
    assert not one_backbone._tunes_small(work, "efficientnet-lite2", 100.0)


@pytest.mark.parametrize(
    ("told", "default"),
    [
        ({}, True), ({"seed": 3, "tta_flips": 2}, True), ({"model": "efficientnet-lite2"}, False),
        ({"size": 300}, False), ({"weights": "mine.pth"}, False),
    ],
)  # fmt: skip
def test_what_was_chosen_by_name_is_no_default(told, default):
    assert widening.is_default(FrozenTrainer(**told)) == default


class Head:
    """A head on a thousand images, with a log loss in cross-validation."""

    dataset = range(1000)
    files = type("Files", (), {"parts": ()})

    def __init__(self, log_loss, **settings):
        self.training = FrozenTrainer(budget="1h", **settings)
        self.head = type(
            "Fitted", (), {"chosen": type("Chosen", (), {"log_loss": log_loss, "network": ""})}
        )


def test_more_views_are_looked_at_where_that_is_better(tmp_path, monkeypatch):
    tried = []

    def again(losses, seconds=3600.0, folder="one", flips=(0, 1, 2, 3), **settings):
        tried.clear()

        def fit(training, work):
            tried.append(training.seen[0])
            told = {k: getattr(training, k) for k in ("tta_crops", "flips", "tta_flips")}
            return Head(losses[len(tried) - 1], **told)

        monkeypatch.setattr(widening, "fit_again", fit)
        place = tmp_path / folder
        place.mkdir(exist_ok=True)
        rows = range(1000)
        work = FineTuning(
            Head(0.3, **settings), rows, rows[:100], None, place, seconds=seconds + 25.05
        )
        found = widening.look_again(work, flips, rate=100.0)
        return found.fitted.training.seen[0], found.said

    # 0.98 of 0.3 is 0.294, of 0.293 is 0.28714.
    seen, said = again([0.293, 0.287])
    assert seen == (0, 1, 2, 3, 4, 5, 6, 7) and tried == [(0, 4), seen]
    assert "0.293 in place of 0.300" in said[0] and "flips, too: " in said[1]
    seen, said = again([0.295, 0.293], folder="two")
    assert seen == (0, 1, 2, 3) and tried == [(0, 4), seen]
    assert "middles of images, too did not help" in said[0]
    seen, said = again([0.293, 0.288], folder="three", flips=(0, 2))
    assert seen == (0, 4) and tried == [(0, 4), (0, 2, 4, 6)] and "did not help" in said[1]
    # Ten seconds of a view are a quarter of 40; of three pairs there is time for one.
    assert again([0.1, 0.05], 41.0, "four")[0] == (0, 4) and len(tried) == 1
    assert again([0.1], 39.0, "five")[0] == (0,) and not tried
    assert again([0.1, 0.05], 90.0, "six")[0] == (0, 3, 4, 7)
    # As before a stop, whatever the time is now; and not where crops were chosen by name.
    assert again([0.1, 0.05], 30.0, "six")[0] == (0, 3, 4, 7)
    assert again([0.1], 3600.0, "five")[0] == (0,) and not tried
    assert again([0.1], folder="seven", tta_crops=3, flips=(0,))[0] == (0, 4, 8) and not tried


def test_the_widest_features_there_is_time_for(monkeypatch):
    def choose(seconds, flips=(0, 1, 2, 3), rate=100.0, images=1000, **told):
        found = choose_widening(FrozenTrainer(**told), flips, images, rate, seconds)
        return found and (found.model, found.flips)

    two, three = ("efficientnet-lite0+efficientnet-lite" + number for number in "12")
    pair = (0, 3)
    # The image and its middle by the first, 2.9 times the cost of a pass by the other: 49 s of
    # 1,000 images, twice that for a pair; 16 s to build. It may take a half.
    assert choose(228.1) == (three, pair) and choose(227.9) == (three, (0,))
    assert choose(130.1) == (three, (0,))
    # The smaller one: 44 s.
    assert choose(129.9) == (two, (0,)) and choose(119.9) is None
    assert choose(2000) == (three, pair) and choose(2000, tta_flips=2) == (three, pair)
    assert choose(2000, flips=(0,)) == (three, (0,))
    assert choose(2000, flips=(0, 2)) == (three, (0, 2))
    # Flips and crops that were asked for are not fewer then.
    assert choose(227.9, tta_flips=2) == (two, pair) and choose(207.9, tta_flips=2) is None
    assert choose(2000, tta_flips=4) == (three, (0, 1, 2, 3))
    assert choose(343.9, tta_crops=2) == (three, (0,)) and choose(344.1, tta_crops=2) == (
        three,
        pair,
    )
    # What was chosen by name stays, and of many images features would be too large.
    assert choose(2000, model="mobilenet-v2") is None and choose(2000, size=128) is None
    assert choose(1e9, images=40_001) is None and choose(1e9, images=40_000) is not None
    # What is not installed is not taken.
    monkeypatch.setattr(widening, "_is_there", lambda name: not name.endswith("2"))
    assert choose(2000) == (two, pair)
    monkeypatch.setattr(widening, "_is_there", lambda name: name.endswith("0"))
    assert choose(2000) is None


@pytest.mark.parametrize(
    "told",
    [
        None, [], {"model": "efficientnet-lite0+efficientnet-lite2"}, {"model": 3, "flips": [0]},
        {"model": "efficientnet-lite2", "flips": [0]}, {"model": "efficientnet-lite0", "flips": []},
        {"model": "efficientnet-lite0", "flips": [4]}, {"model": "efficientnet-lite0", "flips": 1},
        {"model": "efficientnet-lite0+vgg16", "flips": [0]},
        {"model": "efficientnet-lite0+efficientnet-lite0", "flips": [0]},
        {"model": "efficientnet-lite0+efficientnet-lite2", "flips": [0, 0]},
        {"model": "efficientnet-lite0+efficientnet-lite2", "flips": [3]},
        {"model": "efficientnet-lite0+efficientnet-lite2", "flips": [0, 3, 1]},
    ],
)  # fmt: skip
def test_wider_features_that_cannot_be_were_not_decided(told):
    assert widening._read(told) is None


def test_wider_features_are_read_as_they_were_decided():
    chosen = widening.Widening("efficientnet-lite0+efficientnet-lite2", (0, 3))
    assert widening._read(json.loads(json.dumps(asdict(chosen)))) == chosen
    training = chosen.applied(FrozenTrainer(budget="1h"))
    assert training.seen == ((0, 3, 4, 7), (0, 3)) and training.spec().size == (300, 300)
    assert training.inner == (224, 224)
    assert "224 px, which sees the middles, too, beside efficientnet-lite2 at 300" in chosen.words()
    assert training.describe_backbone().endswith("mean of 4 and 2 TTA copies")
