"""Whether and how a network from scratch is trained within a budget: decisions by hand."""

import numpy as np
import pytest

from kindsight.training.budget.scratch_plan import (
    FILTERS,
    MAX_EPOCHS,
    Trial,
    choose_filters,
    fits_epoch,
    is_candidate,
    needs_another,
    planned_epochs,
    predict_log_loss,
    trial_rows,
    trial_seconds,
)


@pytest.mark.parametrize(
    ("side", "images", "seconds", "tried"),
    [
        (32, 5000, 300, True),
        (112, 1000, 45, True),
        (113, 5000, 300, False),  # larger images, and not many of them
        (float("inf"), 10_000, 300, True),
        (32, 999, 300, False),
        (32, 5000, 44, False),
    ],
)
def test_images_that_are_small_or_many_are_tried(side, images, seconds, tried):
    assert is_candidate(side, images, seconds) == tried


def test_epochs_that_fit():
    # 85% of 100 seconds at 50 images a second: 4,250 images.
    assert fits_epoch(4250, 50, 100) and not fits_epoch(4251, 50, 100)
    assert planned_epochs(1000, 50, 100) == 4
    assert planned_epochs(10_000, 50, 100) == 1
    assert planned_epochs(10, 50, 100) == MAX_EPOCHS


def test_each_trial_takes_twice_the_time_of_the_one_before():
    assert trial_seconds(480) == [15, 30, 60, 120] and trial_seconds(80) == [5, 10, 20, 40]


def test_two_trials_that_have_begun_to_learn_are_enough():
    # Guessing among ten classes has a log loss of 2.303; four fifths of it are 1.842.
    slow, good = Trial(1000, 1.85), Trial(2000, 1.84)

    def decides(*trials, expected=0.7):
        return not needs_another(trials, expected, head=0.5, classes=10)

    assert decides(good, Trial(4000, 1.5))
    assert not decides(good) and not decides(slow, good)
    assert decides(slow, expected=0.4)  # it is trained
    assert decides(slow, good, Trial(4000, 1.5))
    # After three trials that began late, only a promising network gets a fourth.
    late = Trial(1000, 2.3), slow, Trial(4000, 1.1)
    assert not decides(*late, expected=1.0) and decides(*late, expected=1.01)


def test_a_trial_has_whole_epochs_or_a_part_of_the_images():
    rows, targets = np.arange(100, 200), np.arange(100) % 4
    found, epochs = trial_rows(rows, targets, 25.0, 10.0, seed=0)
    assert epochs == 2 and found is rows
    found, epochs = trial_rows(rows, targets, 2.0, 15.0, seed=0)
    assert epochs == 1 and len(found) == len(set(found)) == 30 and set(found) <= set(rows)
    # Each class has an image, however short the trial.
    rare = np.where(np.arange(100) < 99, 0, 1)
    found, _ = trial_rows(rows, rare, 1.0, 1.0, seed=0)
    assert len(found) == 2 and 199 in found
    assert (trial_rows(rows, targets, 2.0, 15.0, seed=1)[0] != found[:1]).any()


def test_the_log_loss_falls_by_the_same_factor_with_each_doubling():
    short, longer = Trial(1000, 2.0), Trial(2000, 1.5)
    assert predict_log_loss([short, longer], 2000) == 1.5
    assert predict_log_loss([short, longer], 8000) == pytest.approx(1.5 * 0.75**2)
    # A trial of four times the images: each doubling is half of the way.
    assert predict_log_loss([Trial(500, 2.0), longer], 8000) == pytest.approx(1.5 * 0.75)


def test_no_gain_is_expected_where_there_was_none():
    assert predict_log_loss([Trial(1000, 2.0), Trial(2000, 2.1)], 10**6) == 2.1
    assert predict_log_loss([Trial(1000, 2.0), Trial(2000, float("nan"))], 10**6) != 0.0
    assert predict_log_loss([Trial(1000, 2.0), Trial(1000, 1.5)], 10**6) == 1.5


def test_a_wider_network_needs_time_for_its_epochs():
    # 24 epochs of 1,000 images; 48 filters cost nine times as much as 16.
    images, rate = 1000, 100.0
    seconds = 24 * images / rate / 0.85
    assert choose_filters(images, rate, 0.9 * seconds) == FILTERS[0] == 16
    assert choose_filters(images, rate, 2.3 * seconds) == 24
    assert choose_filters(images, rate, 4.1 * seconds) == 32
    assert choose_filters(images, rate, 9.1 * seconds) == 48
