"""The linear predictor: against a series whose coefficients and entropy are known, and its densities."""

import math

import numpy as np
import pytest
import torch
from scipy.stats import cauchy, laplace, logistic, norm, t

from zoo.data.linear_prediction import DENSITIES, LEAST, LinearPredictor, _masses, fit_linear_predictor
from zoo.data.speech import inverse_mu_law, mu_law

COEFFICIENTS = (1.5, -0.8)


def series(num, seed, scale=0.02):
    """Levels of a Gaussian autoregression of second order."""
    noise = scale * np.random.default_rng(seed).standard_normal(num)
    x = [0.0, 0.0]
    for e in noise:
        x.append(COEFFICIENTS[0] * x[-1] + COEFFICIENTS[1] * x[-2] + e)
    return mu_law(torch.tensor(x[2:]).clamp(-1, 1))


@pytest.fixture(scope="module")
def fitted():
    return fit_linear_predictor([series(20_000, 0), series(5_000, 1)], [series(4_000, 2)], order=2)


def test_the_weights_are_those_of_the_series(fitted):
    assert fitted.weights == pytest.approx(COEFFICIENTS, abs=0.02)
    assert fitted.density == "Gaussian"
    assert fitted.scale == pytest.approx(0.02, rel=0.2)


def test_the_bits_are_the_entropy_of_the_series(fitted):
    x = series(20_000, 3)
    # A Gaussian's differential entropy less the logarithm of the width of the cells.
    edges = inverse_mu_law(x + 0.5) - inverse_mu_law(x - 0.5)
    expected = 0.5 * math.log2(2 * math.pi * math.e * 0.02**2) - edges.log2().mean().item()
    assert fitted.bits([x]) == pytest.approx(expected, abs=0.03)
    assert fitted.bits([x[:4_000], x[4_000:]]) == pytest.approx(expected, abs=0.03)


def test_more_past_samples_than_the_series_has_do_not_help(fitted):
    train, valid, test = [series(20_000, 0)], [series(4_000, 2)], [series(4_000, 3)]
    one, many = (fit_linear_predictor(train, valid, order).bits(test) for order in (1, 60))
    assert one > fitted.bits(test) + 0.3 and abs(many - fitted.bits(test)) < 0.05


@pytest.mark.parametrize("name", DENSITIES)
def test_every_density_sums_to_one_over_the_levels(name):
    for centre in (-0.9, 0.0, 0.003, 1.4):
        predictor = LinearPredictor(np.zeros(1), name, 0.01, 256)
        masses = _masses(torch.arange(256), np.full(256, centre), predictor)
        assert masses.sum() == pytest.approx(1, abs=1e-9)
        assert (masses >= LEAST).all()


def test_densities_are_those_of_their_names():
    z = -np.linspace(0.01, 8, 50)
    known = {
        "Gaussian": norm,
        "logistic": logistic,
        "Laplace": laplace,
        "Student-t of 2 degrees": t(2),
        "Cauchy": cauchy,
    }
    assert set(known) == set(DENSITIES)
    for name, density in known.items():
        assert DENSITIES[name](z) == pytest.approx(density.cdf(z), rel=1e-9)


def test_wrong_arguments_are_refused():
    with pytest.raises(ValueError, match="order must be at least 1, got 0"):
        fit_linear_predictor([series(10, 0)], [series(10, 1)], order=0)
