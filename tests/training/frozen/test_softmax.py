"""Softmax regression against other solvers and numbers by hand."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from kindsight.training.frozen.softmax import _Problem, fit_softmax


def problem(images=80, columns=5, classes=3, seed=0, noise=1.5):
    """Features with nearly uncorrelated columns, and labels that they partly explain."""
    random = np.random.default_rng(seed)
    features = random.normal(size=(images, columns)).astype(np.float32)
    truth = random.normal(size=(columns, classes))
    targets = (features @ truth + noise * random.gumbel(size=(images, classes))).argmax(1)
    targets[:classes] = np.arange(classes)
    return features, targets.astype(np.int64)


def ones(problems, images):
    return np.ones((problems, images), np.float32)


def sklearn_logits(features, targets, strength, weights=None):
    """Solve the same problem with scikit-learn: it sums where we average, C is its inverse.

    For two classes it has one vector where we have two opposite ones, so half the penalty.
    """
    weights = np.ones(len(targets)) if weights is None else weights.astype(np.float64)
    classes = len(np.unique(targets))
    inverse = (2 if classes == 2 else 1) / (strength * weights.sum())
    solver = LogisticRegression(C=inverse, tol=1e-10, max_iter=10_000)
    solver.fit(features.astype(np.float64), targets, sample_weight=weights)
    scores = solver.decision_function(features.astype(np.float64))
    if classes == 2:
        scores = np.stack([-scores / 2, scores / 2], axis=1)
    return scores - scores.mean(1, keepdims=True)


def centred(logits):
    """Logits mean the same whatever is added to all of a row."""
    return logits - logits.mean(1, keepdims=True)


def exact_gradient(features, targets, weights, strength, fit, index=0):
    """The gradient of the documented objective in float64, by the kernel and by the bias."""
    features = features.astype(np.float64)
    kernel, bias = fit.kernel[index].astype(np.float64), fit.bias[index].astype(np.float64)
    logits = features @ kernel + bias
    powers = np.exp(logits - logits.max(1, keepdims=True))
    slope = powers / powers.sum(1, keepdims=True) - np.eye(kernel.shape[1])[targets]
    slope *= (weights / weights.sum())[:, None]
    return features.T @ slope + strength * kernel, slope.sum(0)


def test_two_images_by_hand():
    # Images at -1 and 1, logits ∓kx: the mean loss is log(1 + exp(-2k)) + strength k². Its slope
    # -2 / (1 + exp(2k)) + 2 strength k is zero at k = 1/2 for strength = 2 / (1 + e).
    features = np.array([[-1], [1]], np.float32)
    fit = fit_softmax(features, np.array([0, 1]), 2, ones(1, 2), 2 / (1 + np.e), tolerance=1e-6)
    assert fit.kernel[0] == pytest.approx(np.array([[-0.5, 0.5]]), abs=1e-5)
    assert fit.bias[0] == pytest.approx([0, 0], abs=1e-5)
    assert fit.logits(features).tolist()[1] == pytest.approx([-0.5, 0.5], abs=1e-5)


def test_intercepts_alone_give_class_frequencies():
    # Nothing to learn from: the probabilities are the shares of the classes, 6, 3 and 1 in ten.
    targets = np.repeat([0, 1, 2], [6, 3, 1])
    fit = fit_softmax(np.zeros((10, 2), np.float32), targets, 3, ones(1, 10), 0.1, tolerance=1e-6)
    powers = np.exp(fit.bias[0])
    assert powers / powers.sum() == pytest.approx([0.6, 0.3, 0.1], abs=1e-5)
    assert not fit.kernel.any()


@pytest.mark.parametrize(
    ("classes", "strength", "seed"),
    [(3, 0.3, 0), (3, 0.003, 1), (5, 0.03, 2), (2, 0.1, 3), (2, 0.002, 4), (9, 0.02, 5)],
)
def test_same_answer_as_scikit_learn(classes, strength, seed):
    features, targets = problem(120, 6, classes, seed)
    fit = fit_softmax(features, targets, classes, ones(1, 120), strength, tolerance=1e-5)
    wanted = sklearn_logits(features, targets, strength)
    np.testing.assert_allclose(centred(fit.logits(features)), wanted, atol=2e-3 * abs(wanted).max())


def test_columns_of_very_different_spread():
    features, targets = problem(150, 5, 3, 7)
    features *= np.array([30, 3, 1, 0.1, 0.01], np.float32)
    fit = fit_softmax(features, targets, 3, ones(1, 150), 0.01)
    wanted = sklearn_logits(features, targets, 0.01)
    np.testing.assert_allclose(centred(fit.logits(features)), wanted, atol=0.01)


def test_default_tolerance_is_enough_for_probabilities():
    features, targets = problem(200, 20, 4, 8)
    fit = fit_softmax(features, targets, 4, ones(1, 200), 0.001)
    ours = np.exp(centred(fit.logits(features)))
    theirs = np.exp(sklearn_logits(features, targets, 0.001))
    difference = ours / ours.sum(1, keepdims=True) - theirs / theirs.sum(1, keepdims=True)
    assert np.abs(difference).max() < 2e-3


def fold_weights(images, seed=3):
    """Weights of four problems: all, two folds left out, and fractional ones."""
    random = np.random.default_rng(seed)
    weights = ones(4, images)
    weights[1, ::3] = 0
    weights[2, : images // 3] = 0
    weights[3] = random.uniform(0.05, 3, images)
    return weights


def test_several_problems_are_solved_as_each_alone():
    features, targets = problem(90, 6, 4, 11)
    weights = fold_weights(90)
    together = fit_softmax(features, targets, 4, weights, 0.01, tolerance=1e-5)
    for index, row in enumerate(weights):
        alone = fit_softmax(features, targets, 4, row[None], 0.01, tolerance=1e-5)
        np.testing.assert_allclose(
            centred(together.logits(features, index)), centred(alone.logits(features)), atol=3e-3
        )
        wanted = sklearn_logits(features, targets, 0.01, row)
        np.testing.assert_allclose(centred(together.logits(features, index)), wanted, atol=5e-3)
    # The four differ by far more than the comparison allows.
    answers = [centred(together.logits(features, index)) for index in range(4)]
    assert min(np.abs(answers[0] - other).max() for other in answers[1:]) > 0.1


def test_an_image_with_weight_0_has_no_influence():
    features, targets = problem(60, 4, 3, 12)
    weights = ones(1, 60)
    weights[0, 40:] = 0
    fit = fit_softmax(features, targets, 3, weights, 0.02)
    other = features.copy()
    other[40:] *= -1
    # The scaling of the columns sees all images, and their squares are what they were.
    same = fit_softmax(other, (targets + (np.arange(60) >= 40)) % 3, 3, weights, 0.02)
    np.testing.assert_array_equal(same.kernel, fit.kernel)
    np.testing.assert_array_equal(same.bias, fit.bias)


def test_weights_count_by_their_proportion():
    features, targets = problem(60, 4, 3, 13)
    weights = fold_weights(60)[3:]
    once = fit_softmax(features, targets, 3, weights, 0.02, tolerance=1e-6)
    tenfold = fit_softmax(features, targets, 3, 10 * weights, 0.02, tolerance=1e-6)
    np.testing.assert_allclose(tenfold.kernel, once.kernel, atol=1e-3)


def test_gradient_is_the_slope_of_the_loss():
    features, targets = problem(50, 4, 3, 14)
    task = _Problem(features, targets, 3, fold_weights(50), 0.05)
    random = np.random.default_rng(0)
    for _ in range(5):
        point = random.normal(size=(4, 15)).astype(np.float32)
        _, gradient = task(point)
        direction = random.normal(size=(4, 15)).astype(np.float32)
        step = np.float32(2**-6)
        slope = (task(point + step * direction)[0] - task(point - step * direction)[0]) / (2 * step)
        np.testing.assert_allclose((gradient * direction).sum(1), slope, rtol=3e-3, atol=3e-4)


def test_loss_is_the_documented_one():
    features, targets = problem(40, 3, 3, 15)
    weights = fold_weights(40)
    task = _Problem(features, targets, 3, weights, 0.05)
    point = np.random.default_rng(1).normal(size=(4, 12)).astype(np.float32)
    kernels, biases = task.split(point)
    losses, _ = task(point)
    for index in range(4):
        logits = features.astype(np.float64) @ kernels[index] + biases[index]
        log_sum = np.log(np.exp(logits).sum(1))
        each = log_sum - logits[np.arange(40), targets]
        wanted = np.average(each, weights=weights[index]) + 0.025 * np.square(kernels[index]).sum()
        assert losses[index] == pytest.approx(wanted, rel=1e-5)


@pytest.mark.parametrize("strength", [1.0, 0.03, 0.001])
def test_the_gradient_vanishes(strength):
    features, targets = problem(100, 8, 4, 16)
    weights = fold_weights(100)
    fit = fit_softmax(features, targets, 4, weights, strength, tolerance=1e-5)
    for index, row in enumerate(weights):
        kernel, bias = exact_gradient(features, targets, row, strength, fit, index)
        assert max(np.abs(kernel).max(), np.abs(bias).max()) < 5e-5


def test_kernels_and_intercepts_sum_to_zero_over_classes():
    # What is common to all classes changes no probability and costs a penalty.
    features, targets = problem(100, 8, 4, 17)
    fit = fit_softmax(features, targets, 4, ones(1, 100), 0.01)
    assert np.abs(fit.kernel.sum(-1)).max() < 1e-4
    assert np.abs(fit.kernel).max() > 0.1


def test_more_strength_shrinks_the_kernel_and_fits_less():
    features, targets = problem(100, 8, 4, 18)
    norms, losses = [], []
    for strength in (0.001, 0.01, 0.1, 1.0, 10.0):
        fit = fit_softmax(features, targets, 4, ones(1, 100), strength)
        logits = fit.logits(features).astype(np.float64)
        norms.append(np.linalg.norm(fit.kernel))
        losses.append((np.log(np.exp(logits).sum(1)) - logits[np.arange(100), targets]).mean())
    assert norms == sorted(norms, reverse=True) and norms[0] > 20 * norms[-1]
    assert losses == sorted(losses) and losses[-1] > 1.2 * losses[0]


def test_column_that_never_varies():
    features, targets = problem(80, 4, 3, 19)
    features[:, 1] = 0
    fit = fit_softmax(features, targets, 3, ones(1, 80), 0.01)
    assert not fit.kernel[0, 1].any()
    without = fit_softmax(np.delete(features, 1, 1), targets, 3, ones(1, 80), 0.01)
    np.testing.assert_allclose(np.delete(fit.kernel[0], 1, 0), without.kernel[0], atol=2e-3)


def test_constant_column_is_left_to_the_intercept():
    features, targets = problem(80, 4, 3, 20)
    features[:, 1] = 1
    fit = fit_softmax(features, targets, 3, ones(1, 80), 0.01, tolerance=1e-5)
    wanted = sklearn_logits(features, targets, 0.01)
    np.testing.assert_allclose(centred(fit.logits(features)), wanted, atol=5e-3)
    assert np.abs(fit.kernel[0, 1]).max() < 2e-2


@pytest.mark.parametrize("strength", [1e-3, 1e-6])
def test_separable_images_give_finite_numbers(strength):
    features = np.repeat(np.eye(3, dtype=np.float32) * 4, 5, axis=0)
    targets = np.repeat(np.arange(3), 5)
    fit = fit_softmax(features, targets, 3, ones(1, 15), strength)
    logits = fit.logits(features)
    assert np.isfinite(logits).all() and (logits.argmax(1) == targets).all()
    assert np.abs(logits).max() < 200


def test_a_class_with_weight_0_is_never_predicted():
    # A fold can leave a class of few images out: its intercept falls for as long as steps last.
    features, targets = problem(60, 4, 3, 21)
    weights = ones(2, 60)
    weights[1, targets == 2] = 0
    fit = fit_softmax(features, targets, 3, weights, 0.01)
    assert np.isfinite(fit.kernel).all() and np.isfinite(fit.bias).all()
    assert not (fit.logits(features, 1).argmax(1) == 2).any()
    assert (fit.logits(features, 0).argmax(1) == 2).any()
    two = fit_softmax(
        features[targets < 2], targets[targets < 2], 2, ones(1, 60)[:, targets < 2], 0.01
    )
    gap = fit.logits(features, 1)[:, 1] - fit.logits(features, 1)[:, 0]
    np.testing.assert_allclose(
        gap, two.logits(features)[:, 1] - two.logits(features)[:, 0], atol=0.02
    )


def test_more_columns_than_images():
    random = np.random.default_rng(22)
    features = random.normal(size=(12, 40)).astype(np.float32)
    targets = np.arange(12) % 3
    fit = fit_softmax(features, targets, 3, ones(1, 12), 0.1, tolerance=1e-5)
    wanted = sklearn_logits(features, targets, 0.1)
    np.testing.assert_allclose(centred(fit.logits(features)), wanted, atol=5e-3)


def test_a_start_at_the_solution_stays_there():
    features, targets = problem(100, 8, 4, 23)
    fit = fit_softmax(features, targets, 4, fold_weights(100), 0.01)
    again = fit_softmax(features, targets, 4, fold_weights(100), 0.01, fit, steps=0)
    np.testing.assert_allclose(again.kernel, fit.kernel, rtol=1e-6)
    near = fit_softmax(features, targets, 4, fold_weights(100), 0.02, fit)
    fresh = fit_softmax(features, targets, 4, fold_weights(100), 0.02)
    np.testing.assert_allclose(near.kernel, fresh.kernel, atol=5e-3)


def test_same_input_same_bits():
    features, targets = problem(100, 8, 4, 24)
    one = fit_softmax(features, targets, 4, fold_weights(100), 0.01)
    two = fit_softmax(features, targets, 4, fold_weights(100), 0.01)
    assert one.kernel.tobytes() == two.kernel.tobytes()
    assert one.bias.tobytes() == two.bias.tobytes()


def test_inputs_are_not_changed():
    features, targets = problem(50, 4, 3, 25)
    weights = fold_weights(50)
    copies = features.copy(), targets.copy(), weights.copy()
    first = fit_softmax(features, targets, 3, weights, 0.1)
    start = first.kernel.copy()
    fit_softmax(features, targets, 3, weights, 0.01, first)
    for array, copy in zip(
        (features, targets, weights, first.kernel), (*copies, start), strict=True
    ):
        np.testing.assert_array_equal(array, copy)


def test_few_steps_are_enough_whatever_the_spread():
    # What the scaling by the bound of the curvature is for.
    features, targets = problem(150, 12, 3, 26)
    features *= np.logspace(1.5, -2, 12).astype(np.float32)
    fit = fit_softmax(features, targets, 3, ones(1, 150), 0.001, steps=20)
    wanted = sklearn_logits(features, targets, 0.001)
    np.testing.assert_allclose(centred(fit.logits(features)), wanted, atol=0.02)
