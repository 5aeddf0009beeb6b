"""The headline figures of EM, mixtures and PPCA."""

import pytest
import torch
from pyro.infer import SVI, Trace_ELBO
from pyro.optim import ClippedAdam

import inference
import zoo
from tests.figures.recipes import recorded, run

pytestmark = pytest.mark.figures


def test_mixture_of_coins_on_digits(trained_on_digits, record_result):
    metrics = trained_on_digits("bernoulli-mixture")
    record_result("bernoulli-mixture-digits", metrics)
    assert metrics["test"]["kind"] == "exact"
    assert metrics["parameters"] == 60 * 64 + 60
    assert metrics["test"]["nats_per_item"] <= 17.8


@pytest.mark.parametrize(("model", "figure"), [("gaussian-mixture", 10.52), ("ppca", 13.9)])
def test_red_wine(model, figure, tmp_path, record_result):
    metrics = run(f"{model} --data red-wine", tmp_path / "run")
    record_result(f"{model}-red-wine", metrics)
    assert metrics["folds"] == 10
    assert metrics["test"]["nats_per_item"] <= figure


def test_principal_components_by_em_by_eigenvectors_and_by_svi(record_result):
    """On red wine: the same likelihood, and the same posterior of the code up to a rotation."""
    x = zoo.load("red-wine").train.x.double()
    exact, em, svi = (zoo.PPCA((11,), latent_dim=3).double() for _ in range(3))
    exact.closed_form(x)
    inference.fit_em(em, x, epochs=5000, tolerance=1e-12, progress=False)
    steps, start = 2000, 0.03
    optimizer = ClippedAdam({"lr": start, "lrd": 0.01 ** (1 / steps)})
    loop = SVI(svi.model, svi.guide, optimizer, Trace_ELBO())
    for _ in range(steps):
        loop.step(x)
    best = exact.log_prob(x).mean().item()
    gaps = {name: best - model.log_prob(x).mean().item() for name, model in (("em", em), ("svi", svi))}

    def seen(model):
        """E[V z | x] of every wine and the covariance of V z: what a rotation of z leaves."""
        posterior = model.posterior(x)
        return posterior.mean @ model.V.T, model.V @ posterior.covariance_matrix[0] @ model.V.T

    with torch.no_grad():
        differences = {
            name: max((a - b).abs().max().item() for a, b in zip(seen(model), seen(exact), strict=True))
            for name, model in (("em", em), ("svi", svi))
        }
    record_result("ppca-agreement", {"gap_nats": gaps, "posterior_difference": differences})
    assert abs(gaps["em"]) <= 1e-6 and abs(gaps["svi"]) <= 0.01
    assert differences["em"] < 1e-3 and differences["svi"] < 0.1


def test_long_runs_are_of_the_whole_test_set():
    mnist, wine = recorded("bernoulli-mixture-mnist"), recorded("gaussian-mixture-white-wine")
    assert mnist["finished"] and mnist["test"]["items"] == 10_000 and mnist["test"]["kind"] == "exact"
    assert mnist["test"]["nats_per_item"] <= 137.64  # the mixture of 500 of Larochelle & Murray (2011)
    assert wine["folds"] == 10 and wine["test"]["nats_per_item"] <= 11.02
