"""The search on simulated trainings: what it tries, what it takes, and how long."""

import numpy as np
import pytest
from scipy import stats

from kindsight.diagnosis import Diagnosis
from kindsight.runs.improve import search as search_module
from kindsight.runs.improve.changes import Factor, changed, describe, factors_of, frozen_head
from kindsight.runs.improve.experiments import (
    FoldResult,
    StopExperiment,
    Verdict,
    decide,
    loss_test,
)
from kindsight.runs.improve.figure import nested_folds
from kindsight.runs.improve.folder import Timer, work
from kindsight.runs.improve.result import experiment_rows
from kindsight.runs.improve.search import Search
from kindsight.runs.settings import TrainSettings
from kindsight.training.engine.history import EpochRow

PLAIN = TrainSettings("photos", model="small-cnn", epochs=10)


class Clock:
    """Seconds that only trainings take."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


class Simulated:
    """Trainings whose images are right with a probability that depends on the changes."""

    def __init__(self, clock, gains=(), *, settings=PLAIN, images=150, noise=0, cost=1e-11):
        self.settings, self.clock, self.gains = settings, clock, dict(gains)
        self.images, self.noise, self.cost = images, noise, cost
        self.trained, self.known = [], {}

    def of(self, changes):
        key = repr(sorted(changes.items()))
        if key not in self.known:
            found = changed(self.settings, changes) if changes else None
            self.known[key] = found or self.settings
        return self.known[key]

    def training_images(self):
        return 400

    def is_stored(self, changes, fold):
        return False

    def accuracy(self, changes):
        applied = self.of(changes).to_dict()
        gain = sum(g for (name, value), g in self.gains.items() if applied.get(name) == value)
        return 0.65 + gain

    def run(self, changes, fold, stage, on_epoch=None):
        seconds = self.cost * work(self.of(changes), 400)
        probability = self.accuracy(changes)
        epochs = 10
        for epoch in range(1, epochs + 1):
            self.clock.now += seconds / epochs
            loss = -np.log(probability) + 1 / epoch
            if on_epoch is not None:
                on_epoch(EpochRow(epoch, "training", 1.0, 0.1, loss, 0.5, loss, 0.5), epochs)
        key = sorted(str(item) for item in changes.items())
        random = np.random.default_rng([self.noise, fold, *map(ord, "".join(key))])
        right = random.random(self.images) < probability
        losses = np.where(right, 0.3, 1.8) + random.normal(0, 0.1, self.images)
        self.trained.append((dict(changes), fold))
        return FoldResult(right, losses, seconds, 10, 6)


def searched(simulated, clock, *, budget=1000.0, folds=5, **options):
    timer = Timer(budget, clock=clock)
    search = Search(simulated, range(1, folds + 1), timer, **options)
    return search, search.run()


# What helps ------------------------------------------------------------------------------------


def test_what_helps_is_found_and_combined():
    clock = Clock()
    gains = {("augment", "classic"): 0.1, ("batch_norm", True): 0.08, ("pooling", "average"): 0.05}
    search, verdict = searched(Simulated(clock, gains), clock)
    assert verdict.accepted and verdict.difference.difference > 0.1
    for name, value in (("augment", "classic"), ("batch_norm", True)):
        assert verdict.best.changes[name] == value
    single = [e for e in search.experiments if e.origin == "one factor"]
    assert single and all(len(e.changes) <= 2 and e.against == 0 for e in single)
    assert any(e.origin == "combined" for e in search.experiments)


def test_pure_noise_helps_in_at_most_one_of_twenty_searches():
    accepted = 0
    for noise in range(20):
        clock = Clock()
        _, verdict = searched(Simulated(clock, noise=noise), clock, budget=100.0)
        accepted += verdict.accepted
    assert accepted <= 1


def test_a_change_for_the_worse_is_not_taken():
    clock = Clock()
    search, verdict = searched(
        Simulated(clock, {("augment", "classic"): -0.3}, images=400), clock, budget=300.0
    )
    rows = experiment_rows(search.experiments, search.explored)
    (row,) = [row for row in rows if row.change == "augment classic"]
    assert row.effect == "harmed"
    assert row.difference.interval[1] < 0
    combined = [e for e in search.experiments if e.origin == "combined"]
    assert not any(e.changes.get("augment") == "classic" for e in combined)
    assert not verdict.accepted


def test_other_images_decide_than_those_that_chose():
    clock = Clock()
    gains = {("batch_norm", True): 0.2}
    search, verdict = searched(Simulated(clock, gains), clock, budget=4000.0)
    assert verdict.accepted and verdict.tests == 1
    assert not set(verdict.folds) & set(search.explored)


class Useless:
    """Least-squares classifiers on random features of random labels: no change can help.

    Each change of the training takes other features. Experiments `without` an outer fold are
    neither trained nor evaluated on its images.
    """

    def __init__(self, clock, seed, without=0, images=150, folds=5):
        self.settings, self.clock, self.without, self.known = PLAIN, clock, without, {}
        random = np.random.default_rng(seed)
        self.features, self.labels = random.normal(size=(images, 60)), random.integers(0, 2, images)
        self.fold = random.permutation(np.arange(images) % folds) + 1

    of, is_stored, training_images = Simulated.of, Simulated.is_stored, Simulated.training_images

    def run(self, changes, fold, stage, on_epoch=None):
        assert fold != self.without
        self.clock.now += 1.0
        key = "".join(sorted(str(item) for item in changes.items()))
        columns = np.random.default_rng([*map(ord, key)]).choice(60, 8, replace=False)
        x = np.c_[np.ones(len(self.labels)), self.features[:, columns]]
        trained = (self.fold != fold) & (self.fold != self.without)
        target = 2.0 * self.labels - 1
        weights = np.linalg.solve(
            x[trained].T @ x[trained] + np.eye(9), x[trained].T @ target[trained]
        )
        margin = 2 * (x @ weights * target)[self.fold == fold]
        return FoldResult(margin > 0, np.log1p(np.exp(-margin)), 1.0)


def test_nested_folds_show_how_much_of_a_gain_is_selection(monkeypatch):
    """The best of 40 useless changes looks good on the images that selected it."""
    levels = tuple({"dropout": number / 100} for number in range(1, 41))
    monkeypatch.setattr(search_module, "factors_of", lambda *_: (Factor("dropout", levels),))
    monkeypatch.setattr(search_module, "PATIENCE", 0)
    monkeypatch.setattr(search_module, "TWO_FOLDS", 1e9)
    monkeypatch.setattr(search_module, "accepts", lambda *_: True)
    monkeypatch.setattr(
        search_module, "decide",
        lambda best, *_: Verdict(True, best, None, (1,), 1, 0.0, "As the test says."),
    )  # fmt: skip
    naive, nested = [], []
    for seed in range(6):
        clock = Clock()
        runs = Useless(clock, seed)
        search, verdict = searched(runs, clock, budget=200.0)
        naive.append(verdict.best.accuracy(search.explored))
        found = nested_folds(
            runs, lambda fold, seed=seed, clock=clock: Useless(clock, seed, fold), range(1, 6),
            Timer(2000.0, clock=clock), needed=10.0,
        )  # fmt: skip
        assert found.images == 150 and len(found.outer) == 5 and not found.optimistic
        nested.append(found.best)
    assert np.mean(naive) > 0.6
    assert abs(np.mean(nested) - 0.5) < 0.05  # 900 images: a standard error of 1.7 points


def test_nested_folds_end_with_their_time():
    clock = Clock()
    runs = Useless(clock, 0)
    options = {"needed": 100.0, "reserve": 50.0}
    outer = lambda fold: Useless(clock, 0, fold)  # noqa: E731
    timer = Timer(260.0, clock=clock)
    found = nested_folds(runs, outer, (1, 2), timer, **options)
    assert found.images == 60 and clock.now <= 260.0
    assert nested_folds(runs, outer, (1, 2), Timer(240.0, clock=clock), **options) is None


# The diagnosis ---------------------------------------------------------------------------------


def test_what_the_diagnosis_recommends_comes_first():
    finding = Diagnosis(
        "KD101", "Overfitting", "warning", "text",
        remedies=({"l2": 1e-3}, {"augment": "strong", "dropout": 0.4}, {"model": "mobilenet-v2"},
                  {"validation": 60}),
    )  # fmt: skip
    factors = factors_of(PLAIN, [finding])
    assert [factor.name for factor in factors][:3] == ["l2", "augment", "dropout"]
    assert factors[1].levels[0] == {"augment": "strong"}
    assert factors[1].levels[1] == {"augment": "classic"}
    assert not {"model", "validation"} & {factor.name for factor in factors}


def test_levels_that_change_nothing_are_left_out():
    given = TrainSettings("photos", model="small-cnn", augment="classic", batch_norm=True)
    factors = {factor.name: factor.levels for factor in factors_of(given, [])}
    assert "batch_norm" not in factors and {"augment": "classic"} not in factors["augment"]
    for levels in factors.values():
        assert all(changed(given, level) is not None for level in levels)


@pytest.mark.parametrize("settings", [
    TrainSettings("photos"), TrainSettings("photos", freeze="all", dropout=0.2), PLAIN,
])  # fmt: skip
def test_experiments_stay_within_the_kind_of_model(settings):
    kind = type(settings.training())
    for factor in factors_of(settings, []):
        for level in factor.levels:
            assert type(changed(settings, level).training()) is kind


def test_a_frozen_head_is_one_change_of_any_model():
    assert frozen_head(TrainSettings("photos")) is None
    for settings in (PLAIN, TrainSettings("photos", freeze="all", dropout=0.2)):
        changes = frozen_head(settings)
        found = changed(settings, changes)
        assert found.training().model == "efficientnet-lite0" and found.seed == settings.seed
        assert type(found.training()).__name__ == "FrozenTrainer"


def test_any_model_arrives_at_the_frozen_head():
    class Better(Simulated):
        def accuracy(self, changes):
            return 0.97 if "model" in changes else super().accuracy(changes)

    clock = Clock()
    search, verdict = searched(Better(clock), clock, any_model=True)
    assert verdict.accepted and verdict.best.changes["model"] == "efficientnet-lite0"
    assert search.experiments[1].origin == "any model"
    clock = Clock()
    search, verdict = searched(Better(clock), clock)
    assert not any("model" in each.changes for each in search.experiments)


def test_changes_in_words():
    changes = {"augment": "classic", "batch_norm": True, "filters": (16, 32), "dense": ()}
    assert describe(changes) == "augment classic, batch-norm, filters 16,32, dense none"
    assert describe({}) == "as it was"


# Time ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("budget", [30.0, 100.0, 400.0, 2000.0])
def test_the_budget_is_kept(budget):
    clock = Clock()
    simulated = Simulated(clock, {("batch_norm", True): 0.1})
    searched(simulated, clock, budget=budget, reserve=lambda changes: 10.0)
    one = simulated.cost * work(PLAIN, 400)
    assert clock.now <= budget - 10.0 + one
    assert len(simulated.trained) > 1


def test_few_experiments_are_made_with_a_smaller_input_and_several_changes_first():
    clock = Clock()
    simulated = Simulated(clock)
    one = simulated.cost * work(PLAIN, 400)
    search, _ = searched(simulated, clock, budget=5 * one)
    assert search.experiments[1].changes == {"size": 75}
    assert search.experiments[2].origin == "combined" and len(search.experiments[2].changes) > 2
    assert all(e.changes.get("size") == 75 for e in search.experiments[1:])


def test_a_training_that_fails_is_an_experiment_that_was_given_up():
    class Failing(Simulated):
        def run(self, changes, fold, stage, on_epoch=None):
            if "batch_norm" in changes:
                raise StopExperiment("Training diverged.")
            return super().run(changes, fold, stage, on_epoch)

    clock = Clock()
    search, _ = searched(Failing(clock), clock, budget=300.0)
    row = next(
        r for r in experiment_rows(search.experiments, search.explored) if r.change == "batch-norm"
    )
    assert row.note == "Training diverged." and row.accuracy is None


def test_features_that_take_too_long_leave_time_for_the_confirmation():
    class Endless(Simulated):
        def run(self, changes, fold, stage, on_epoch=None):
            if "label_smoothing" in changes:  # as where features of large images are computed
                while True:
                    self.clock.now += 1.0
                    on_epoch(None, 0)
            return super().run(changes, fold, stage, on_epoch)

    clock = Clock()
    search, verdict = searched(
        Endless(clock, {("batch_norm", True): 0.2}), clock, budget=400.0,
        reserve=lambda changes: 10.0,
    )  # fmt: skip
    slow = next(e for e in search.experiments if "label_smoothing" in e.changes)
    assert slow.stopped == "no time left" and clock.now < 390.0
    assert verdict.accepted and not set(verdict.folds) & set(search.explored)


def test_the_clock_of_an_interrupted_search_goes_on():
    clock = Clock()
    timer = Timer(100.0, used=40.0, clock=clock)
    clock.now += 5
    assert (timer.used, timer.left) == (45.0, 55.0)
    timer.learn(PLAIN, 400, 8.0)
    assert timer.estimate(PLAIN, 800) == pytest.approx(16.0)
    longer = PLAIN.with_options(epochs=20)
    assert timer.estimate(longer, 400) == pytest.approx(16.0)
    assert timer.estimate(TrainSettings("photos"), 400) == 0.0
    assert timer.estimate(PLAIN.with_options(size=75), 400) < 3.0


def test_decisions_need_both_fewer_errors_and_lower_losses():
    """200 images of each fold, 20 more right; the losses of the right and wrong ones as stated."""
    from kindsight.runs.improve.experiments import Experiment

    def made(right, loss_right, loss_wrong):
        correct = np.arange(200) < right
        losses = np.where(correct, loss_right, loss_wrong) + 0.01 * np.sin(np.arange(200))
        return Experiment(1, {}, "combined", 0, {1: FoldResult(correct, losses, 1.0)})

    original = made(140, 0.3, 1.5)
    assert decide(made(160, 0.3, 1.5), original, (1,), (), 10).accepted
    assert not decide(made(160, 0.6, 2.5), original, (1,), (), 10).accepted
    assert not decide(made(141, 0.2, 1.2), original, (1,), (), 10).accepted


def test_the_loss_test_is_the_normal_approximation():
    random = np.random.default_rng(0)
    new, old = random.exponential(1.0, 200), random.exponential(1.2, 200)
    d = old - new
    wanted = stats.norm.sf(d.mean() / (d.std(ddof=1) / np.sqrt(200)))
    assert loss_test(new, old) == pytest.approx(wanted)
    assert loss_test(new[:20], old[:20]) == 1.0 and loss_test(old, old) == 1.0


def test_a_preset_replaces_what_it_decides_and_other_changes_are_added_to_it():
    given = PLAIN.with_options(dropout=0.4)
    modern = changed(given, {"preset": "modern"})
    assert modern.optimizer == "adamw" and modern.dropout == 0.2 and modern.epochs == 30
    both = changed(given, {"preset": "modern", "augment": "classic", "size": 64})
    assert both.preset == "modern" and both.size == 64 and both.augment != modern.augment
    assert "preset" in [factor.name for factor in factors_of(given, [])]
    assert "preset" not in [factor.name for factor in factors_of(modern, [])]
