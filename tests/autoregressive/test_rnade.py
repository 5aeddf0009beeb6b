"""RNADE against the formula of its paper, and the densities against plain torch."""

import math

import pytest
import torch

import inference
import zoo
from zoo.autoregressive.rnade import MIN_SCALE


def density(x, loc, scale, mixture):
    standard = (x - loc) / scale
    if mixture == "gaussian":
        return torch.exp(-standard.square() / 2) / (scale * math.sqrt(2 * math.pi))
    return torch.exp(-standard) / (scale * (1 + torch.exp(-standard)).square())


@pytest.mark.parametrize("mixture", ["gaussian", "logistic"])
@pytest.mark.parametrize("order", [None, (2, 0, 3, 1)], ids=["natural", "scrambled"])
def test_each_conditional_is_the_formula(order, mixture):
    K = 3
    rnade = zoo.RNADE((2, 2), hidden=5, components=K, mixture=mixture, order=order).double()
    with torch.no_grad():
        rnade.c.normal_()
        rnade.b.normal_()
        rnade.rho.uniform_(0.3, 2)
    x = torch.randn(7, 2, 2, dtype=torch.float64)
    ours = rnade.conditionals(x).log_prob(x).flatten(1)
    entries = x.flatten(1)[:, torch.tensor(rnade.order)]
    for step, variable in enumerate(rnade.order):
        a = rnade.c + sum(entries[:, j : j + 1] * rnade.W[j, 0] for j in range(step))
        h = (rnade.rho[step] * a).clamp(min=0)
        parts = [rnade.V[step, k * K : (k + 1) * K] for k in range(3)]
        biases = rnade.b.view(4, 3, K)[step]
        share, loc, log_scale = (h @ V.T + b for V, b in zip(parts, biases, strict=True))
        p = share.softmax(-1) * density(entries[:, step, None], loc, log_scale.exp() + 1e-3, mixture)
        assert torch.allclose(ours[:, variable], p.sum(-1).log(), rtol=0, atol=1e-10)


def test_number_of_parameters():
    rnade = zoo.RNADE((11,), hidden=50, components=10)
    expected = 10 * 50 + 50 + 11 * 30 * 50 + 11 * 30 + 11
    assert sum(param.numel() for param in rnade.parameters()) == expected


def test_factors_start_at_one_over_the_root_of_the_place():
    rho = zoo.RNADE((4,)).rho
    assert torch.allclose(rho, torch.tensor([1.0, 2.0, 3.0, 4.0]).rsqrt())


def test_components_start_apart():
    rnade = zoo.RNADE((3,), components=4)
    loc = rnade.conditionals(torch.zeros(1, 3)).component_distribution.mean
    assert len(loc.detach().flatten().unique()) == 12


def test_scales_never_vanish():
    rnade = zoo.RNADE((2,), hidden=3, components=2)
    entry = rnade.entry(torch.full((6,), -1e3))
    assert torch.allclose(entry.component_distribution.stddev, torch.tensor(MIN_SCALE))
    assert entry.log_prob(torch.tensor(-1e3)).isfinite()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"components": 0}, "components must be at least 1, got 0"),
        ({"mixture": "laplace"}, "mixture must be one of gaussian, logistic, got 'laplace'"),
        ({"hidden": 0}, "hidden must be at least 1, got 0"),
        ({"order": (0, 2, 1, 3)}, r"permutation of 0 \.\.\. 2, got \(0, 2, 1, 3\)"),
    ],
)
def test_wrong_arguments_are_refused(arguments, words):
    with pytest.raises(ValueError, match=words):
        zoo.RNADE((3,), **arguments)


def test_an_entry_that_never_varies_is_refused_before_training():
    rnade, x = zoo.RNADE((3,), hidden=4, components=2), torch.randn(20, 3)
    rnade.check_training(x)
    x[:, 1] = 2.5
    rnade.check(x)  # to be scored it may well be so
    with pytest.raises(ValueError, match=r"got entry 1 \(and 0 more\) that is 2\.5 in all 20"):
        rnade.check_training(x)
    with pytest.raises(ValueError, match="got entry 1"):
        inference.fit(inference.MaximumLikelihood(rnade), x, epochs=1, progress=False)


@pytest.mark.parametrize("mixture", ["gaussian", "logistic"])
def test_it_learns_a_density_of_two_peaks(mixture):
    """x_1 is 1 or -1 and some noise, x_2 is -x_1 and some more: the entropy is known up to the overlap."""
    sign = torch.randint(2, (2000, 1)) * 2.0 - 1
    x = torch.cat([sign, torch.zeros_like(sign)], dim=1) + 0.2 * torch.randn(2000, 2)
    x[:, 1] -= x[:, 0]
    rnade = zoo.RNADE((2,), hidden=10, components=3, mixture=mixture)
    inference.fit(
        inference.MaximumLikelihood(rnade),
        x,
        epochs=30,
        batch_size=100,
        lr=1e-2,
        schedule="cosine",
        progress=False,
    )
    entropy = math.log(2) + 2 * (0.5 * math.log(2 * math.pi * math.e) + math.log(0.2))
    assert -rnade.log_prob(x).mean().item() == pytest.approx(entropy, abs=0.1)
