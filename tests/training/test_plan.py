"""Plans, phases and schedules: numbers by hand, invalid settings."""

import dataclasses
import json
import math

import pytest

from kindsight.augment import Augment
from kindsight.errors import SettingsError
from kindsight.models.steps.optimizers import Optimizer
from kindsight.training.engine.plan import Phase, Plan, scheduled_learning_rate


def rates(schedule, warmup, steps, highest=1.0):
    return [
        scheduled_learning_rate(schedule, highest, warmup, step, steps) for step in range(steps)
    ]


def test_constant_with_warm_up():
    assert rates("constant", 0, 3) == [1, 1, 1]
    # Three steps on a line towards the fourth.
    assert rates("constant", 3, 5, 2.0) == pytest.approx([0.5, 1, 1.5, 2, 2])


def test_cosine():
    wanted = [1, (1 + math.cos(math.pi / 4)) / 2, 0.5, (1 - math.cos(math.pi / 4)) / 2]
    assert rates("cosine", 0, 4) == pytest.approx(wanted)
    assert rates("cosine", 2, 4) == pytest.approx([1 / 3, 2 / 3, 1, 0.5])


def test_one_cycle():
    found = rates("one-cycle", 0, 10)
    # Three of ten steps up, from a 25th; seven down, to a 10,000th after the last.
    assert found[0] == pytest.approx(1 / 25)
    assert found[3] == pytest.approx(1)
    up = 1 / 25 + (1 - 1 / 25) * (1 - math.cos(math.pi / 3)) / 2
    assert found[1] == pytest.approx(up)
    down = 1e-4 + (1 - 1e-4) * (1 + math.cos(math.pi * 6 / 7)) / 2
    assert found[9] == pytest.approx(down)
    assert rates("one-cycle", 5, 10)[5] == 1


@pytest.mark.parametrize("schedule", ["constant", "cosine", "one-cycle"])
@pytest.mark.parametrize("warmup", [0, 0.5, 7])
def test_learning_rates_are_positive_and_at_most_the_peak(schedule, warmup):
    for steps in (1, 2, 7, 50):
        assert all(0 < rate <= 0.01 + 1e-12 for rate in rates(schedule, warmup, steps, 0.01))


def test_a_phase_counts_steps_through_its_epochs():
    phase = Phase(epochs=2, schedule="cosine", learning_rate=1.0, warmup=0.5)
    # Two epochs of four steps: two of warm-up, then six of cosine.
    assert phase.learning_rate_at(0, 4) == pytest.approx(1 / 3)
    assert phase.learning_rate_at(2, 4) == 1
    assert phase.learning_rate_at(5, 4) == pytest.approx(0.5)


def test_default_optimizer_constants():
    assert Phase().update_rule() == Optimizer("rmsprop", 0.0, 0.0)
    assert Phase(optimizer="sgd").update_rule() == Optimizer("sgd", 0.9, 0.0)
    assert Phase(optimizer="sgd", momentum=0.0).update_rule() == Optimizer("sgd", 0.0, 0.0)
    assert Phase(optimizer="adamw").update_rule() == Optimizer("adamw", 0.0, 0.004)
    assert (Phase().peak_learning_rate, Phase(optimizer="sgd").peak_learning_rate) == (0.001, 0.01)


def test_all_invalid_settings_are_reported_at_once():
    phase = Phase(
        epochs=0, batch_size=1.5, optimizer="adamm", learning_rate=0, schedule="cosin",
        label_smoothing=1, warmup=-1, patience=0,
    )  # fmt: skip
    faults = phase.faults()
    assert [fault.split("`")[1] for fault in faults] == [
        *("epochs", "batch_size", "learning_rate", "optimizer", "schedule", "patience"),
        *("warmup", "label_smoothing"),
    ]
    assert "Did you mean 'adam'?" in faults[3] and "Did you mean 'cosine'?" in faults[4]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"optimizer": "adam", "momentum": 0.5},
            "`momentum` is a setting of the optimizer sgd and",
        ),
        ({"weight_decay": 0.1}, "`weight_decay` is a setting of the optimizer adamw"),
        ({"optimizer": "sgd", "momentum": 1.0}, "`momentum` must be a number from 0 to below 1"),
        ({"epochs": 3, "warmup": 4}, "`warmup` must be at most the number of epochs, 3"),
        ({"learning_rate": math.nan}, "`learning_rate` must be a number above 0"),
        ({"learning_rate": True}, "`learning_rate` must be a number above 0"),
    ],
)
def test_invalid_settings(settings, message):
    (fault,) = Phase(**settings).faults()
    assert message in fault


def test_plan_is_restored_from_json():
    plan = Plan(
        (
            Phase("head", 2, augment=Augment.recipe("classic")),
            Phase("all", 3, optimizer="adamw", learning_rate=1e-4, patience=2),
        ),
        "last",
    )
    assert Plan.from_dict(json.loads(json.dumps(plan.to_dict()))) == plan
    assert plan.epochs == 5 and plan.faults() == []


def test_invalid_plan_raises():
    good = Plan((Phase(),)).to_dict()
    with pytest.raises(SettingsError, match="no setting depth"):
        Plan.from_dict({**good, "phases": [{**good["phases"][0], "depth": 3}]})
    with pytest.raises(SettingsError, match="`final_weights` must be one of best, last"):
        Plan.from_dict({**good, "final_weights": "first"})


def test_every_setting_is_in_the_saved_phase():
    names = {item.name for item in dataclasses.fields(Phase)}
    assert set(Phase().to_dict()) == names


def test_description_of_a_phase():
    assert Phase().describe() == "rmsprop, learning rate 0.001, batch size 20"
    long = Phase(
        optimizer="sgd", schedule="one-cycle", warmup=1, label_smoothing=0.1, patience=3
    ).describe()
    assert long == (
        "sgd, learning rate 0.01, one-cycle, 1 epochs of warm-up, momentum 0.9, batch size 20, "
        "label smoothing 0.1, patience 3"
    )
