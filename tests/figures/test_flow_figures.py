"""The headline figures of the flows, by their recipes; on levels, bits per dimension of the discrete data."""

import math

import pytest
import torch
from sklearn.mixture import GaussianMixture

import zoo
from tests.figures.recipes import recorded, run
from zoo.flows import Logit

pytestmark = pytest.mark.figures


def test_one_gaussian_on_levels_of_digits(record_result):
    """What to beat: every covariance, after the customary logit, by formula."""
    data = zoo.load("digits-levels")
    logit = Logit(0.0, 17.0, offset=0.05)

    def numbers(x, draws):
        x = x.repeat(draws, 1, 1).double()
        y, log_det = logit.call_and_log_det(x + torch.rand_like(x))
        return y.flatten(1), log_det.flatten(1).sum(1)

    learn = numbers(data.train.x, 20)[0]
    gaussian = torch.distributions.MultivariateNormal(learn.mean(0), learn.T.cov())
    test, log_det = numbers(data.test.x, 20)
    bits = -(gaussian.log_prob(test) + log_det).mean().item() / 64 / math.log(2)
    record_result("gaussian-digits-levels", {"bits_per_dim": bits})
    assert bits == pytest.approx(2.443, abs=0.01)


@pytest.mark.parametrize(
    ("model", "figure"), [("linear-flow", 2.45), ("nice", 2.40), ("realnvp", 2.24), ("mintnet", 2.30)]
)
def test_levels_of_digits(model, figure, tmp_path, record_result):
    metrics = run(f"{model} --data digits-levels", tmp_path / "run")
    if model == "mintnet":
        inversion = metrics["inversion"]
        assert inversion["items"] == 1000
        assert inversion["residual"] <= 1e-5
        assert inversion["iterations"] < 100  # what the reference spends on each, converged or not
    record_result(f"{model}-digits-levels", metrics)
    assert metrics["test"]["kind"] == "lower bound"
    assert metrics["test"]["bound"] == "elbo"
    assert metrics["test"]["bits_per_dim"] <= figure


@pytest.mark.parametrize(("colour", "figure"), [("red", -10.52), ("white", -11.02)])
def test_realnvp_on_wine_beats_a_mixture_of_ten_gaussians(colour, figure, tmp_path, record_result):
    metrics = run(f"realnvp --data {colour}-wine", tmp_path / "run")
    mixture = [ten_gaussians(zoo.load(f"{colour}-wine", fold=fold)) for fold in range(10)]
    metrics["mixture"] = {"nats_per_item": -sum(mixture) / 10, "components": 10}
    record_result(f"realnvp-{colour}-wine", metrics)
    assert metrics["folds"] == 10
    assert metrics["test"]["kind"] == "exact"
    assert -metrics["test"]["nats_per_item"] > max(figure, sum(mixture) / 10)


def ten_gaussians(data):
    """Log-likelihood of a test item in nats under scikit-learn's mixture of ten Gaussians."""
    mixture = GaussianMixture(10, reg_covar=1e-2, random_state=0)
    return float(mixture.fit(data.train.x.numpy()).score(data.test.x.numpy()))


@pytest.mark.parametrize("model", ["realnvp", "mintnet"])
def test_mnist_results_are_of_the_whole_test_set(model):
    result = recorded(f"{model}-mnist-levels")
    assert result["finished"]
    assert result["test"]["items"] == 10_000
    assert result["test"]["kind"] == "lower bound"
    assert result["test"]["bits_per_dim"] <= 1.3
    if model == "mintnet":
        assert result["inversion"]["items"] == 1000
        assert result["inversion"]["residual"] <= 1e-5
