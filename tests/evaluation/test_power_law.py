"""The power law of a learning curve, against known parameters and SciPy."""

import numpy as np
import pytest
from scipy.optimize import curve_fit

from kindsight.errors import UsageError
from kindsight.evaluation.power_law import fit_power_law

SIZES = np.array([50, 100, 200, 400, 800, 1600.0])


def law(n, a, b, c):
    return a + b * np.asarray(n, float) ** -c


def drawn_law(generator):
    """Return parameters as the prior says, of a law that is below 0.9 at all sizes."""
    while True:
        last, fraction = (
            generator.uniform(0.02, 0.3),
            1 / (1 + np.exp(-generator.normal(-1.5, 1.6))),
        )
        c = np.exp(generator.normal(np.log(0.6), 0.6))
        found = fraction * last, (1 - fraction) * last * SIZES[-1] ** c, c
        if law(SIZES[0], *found) < 0.9:
            return found


def independent(held_out: int) -> np.ndarray:
    return np.eye(len(SIZES)) / (4 * held_out)


@pytest.mark.parametrize("truth", [(0.03, 1.2, 0.5), (0.0, 2.0, 0.8), (0.1, 0.6, 0.35)])
def test_exact_points_give_back_their_parameters(truth):
    fit = fit_power_law(SIZES, law(SIZES, *truth), independent(10**5))
    assert fit.median(SIZES) == pytest.approx(law(SIZES, *truth), abs=1e-3)
    assert fit.median([6400]) == pytest.approx(law([6400], *truth), abs=4e-3)
    assert fit.best[0] == pytest.approx(truth[0], abs=0.015)
    assert fit.best[2] == pytest.approx(truth[2], rel=0.1)


def test_the_most_probable_law_is_near_the_least_squares_of_scipy():
    generator = np.random.default_rng(3)
    for _ in range(5):
        truth = generator.uniform([0.0, 0.5, 0.4], [0.1, 2.0, 0.8])
        observed = generator.binomial(20_000, law(SIZES, *truth)) / 20_000
        spread = np.sqrt(observed * (1 - observed) / 20_000)
        found, _ = curve_fit(
            law, SIZES, observed, p0=(0.02, 1, 0.5), sigma=spread, bounds=(0, [1, 100, 3])
        )
        fit = fit_power_law(SIZES, observed, independent(20_000))
        assert law(SIZES, *fit.best) == pytest.approx(law(SIZES, *found), abs=2e-3)
        assert law([3200], *fit.best) == pytest.approx(law([3200], *found), abs=0.01)


def test_intervals_contain_the_truth_as_often_as_they_say():
    generator = np.random.default_rng(0)
    hits = gains = measured = 0
    for _ in range(150):
        a, b, c = drawn_law(generator)
        errors, later = law(SIZES, a, b, c), law([3200], a, b, c)[0]
        fit = fit_power_law(SIZES, generator.binomial(500, errors) / 500, independent(500))
        low, high = fit.interval(3200)
        hits += low[0] <= later <= high[0]
        low, high = fit.interval(3200, held_out=300)
        measured += low[0] <= generator.binomial(300, later) / 300 <= high[0]
        _, low, high = fit.gain(1600, 3200)
        gains += low <= errors[-1] - later <= high
    # 135 of 150 expected; the standard deviation is 3.7.
    assert 122 <= hits <= 148
    assert 122 <= measured <= 149
    assert 118 <= gains <= 148


def test_noise_that_all_sizes_share_widens_the_level_and_not_the_gain():
    errors, noise = law(SIZES, 0.02, 1.2, 0.5), 0.05**2 / 40
    own = fit_power_law(SIZES, errors, np.eye(6) * noise)
    shared = fit_power_law(SIZES, errors, np.full((6, 6), 0.98 * noise) + np.eye(6) * 0.02 * noise)

    def width(ends):
        return float(np.asarray(ends[-1] - ends[-2]).item())

    assert width(shared.gain(800, 3200)) < 0.5 * width(own.gain(800, 3200))
    assert width(shared.interval(1600)) > 0.8 * width(own.interval(1600))


def test_a_drifting_exponent_widens_the_extrapolation_and_never_raises_the_error():
    errors = law(SIZES, 0.02, 1.2, 0.5)
    plain = fit_power_law(SIZES, errors, independent(2000))
    drifting = fit_power_law(SIZES, errors, independent(2000), drift=0.3)
    ends = [np.subtract(*reversed(fit.interval(6400))).item() for fit in (plain, drifting)]
    assert ends[1] > 1.5 * ends[0]
    found = drifting.error([1600, 3200, 6400])
    assert (found[:, 1:] <= found[:, :1] + 1e-12).all()


def test_the_same_points_give_the_same_fit():
    fits = [fit_power_law(SIZES, law(SIZES, 0.02, 1, 0.5), independent(300)) for _ in range(2)]
    assert np.array_equal(fits[0].draws, fits[1].draws)


@pytest.mark.parametrize("errors", [np.zeros(6), np.ones(6), np.full(6, 0.5)])
def test_curves_without_slope_have_finite_intervals(errors):
    low, high = fit_power_law(SIZES, errors, independent(100)).interval([1600, 1e6])
    assert np.isfinite([low, high]).all()
    assert (low >= 0).all()
    assert (low <= high).all()
    assert (high <= 1).all()


@pytest.mark.parametrize(
    ("sizes", "errors"), [([100], [0.1]), ([100, 100], [0.1, 0.1]), ([100, 200], [0.1])]
)
def test_points_that_do_not_fit_together_are_refused(sizes, errors):
    with pytest.raises(UsageError, match="increasing numbers of images"):
        fit_power_law(sizes, errors, np.eye(len(sizes)))
