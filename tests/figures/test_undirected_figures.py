"""The headline figures of annealed importance sampling, on machines whose log Z is known by enumeration."""

import math

import pytest
import torch
from torch.distributions import Bernoulli

import inference
import zoo
from tests.undirected.machines import random_machine

pytestmark = pytest.mark.figures


@pytest.fixture(scope="module")
def patches():
    """Binary patches of 4 by 4 pixels, of which a digit has nine that overlap."""
    x = zoo.load("digits").train.x
    corners = [(top, left) for top in (0, 2, 4) for left in (0, 2, 4)]
    return torch.cat([x[:, top : top + 4, left : left + 4] for top, left in corners])


@pytest.fixture(scope="module")
def rbm(patches):
    torch.manual_seed(0)
    machine = zoo.RBM((4, 4), hidden=14)
    objective = inference.PersistentContrastiveDivergence(machine)
    inference.fit(objective, patches, epochs=40, lr=1e-2, schedule="cosine", progress=False)
    return machine


def test_weights_of_twenty_random_machines_are_unbiased_at_any_number_of_steps(record_result):
    figures = {}
    for seed in range(20):
        machine = random_machine(seed)
        log_z = machine.log_partition()
        exact = machine.exact_sample(100_000, seed=seed)
        for betas in (1, 2, 5):
            forward = inference.ais(machine, chains=100_000, betas=betas, seed=seed)
            reverse = inference.reverse_ais(machine, exact, betas=betas, seed=seed)
            for direction, log_w in (
                ("forward", forward.log_weights - (log_z - forward.log_z_start)),
                ("reverse", reverse.log_weights + (log_z - reverse.log_z_start)),
            ):
                w = log_w.exp()
                figures[direction, seed, betas] = ((w.mean() - 1) / (w.std() / math.sqrt(len(w)))).item()
    errors = torch.tensor(list(figures.values()))
    summary = {"machines": 20, "chains": 100_000, "largest_in_standard_errors": errors.abs().max().item()}
    summary["rms_in_standard_errors"] = errors.square().mean().sqrt().item()
    record_result("ais-random-machines", summary)
    assert errors.abs().max() < 4
    assert summary["rms_in_standard_errors"] == pytest.approx(1.0, abs=0.25)


def test_strong_weights_are_bracketed():
    """Up to a scale of 2, where the weights of few steps vary too much for a mean to say anything."""
    for seed in range(20):
        machine = random_machine(seed, least=0.5, most=2.0)
        log_z = machine.log_partition().item()
        assert inference.ais(machine, chains=1000, betas=1, seed=seed).log_z.isfinite()
        forward = inference.ais(machine, chains=1000, betas=1000, seed=seed)
        exact = machine.exact_sample(1000, seed=seed)
        reverse = inference.reverse_ais(machine, exact, betas=1000, seed=seed)
        assert forward.interval(0.9999)[0] < log_z < reverse.interval(0.9999)[1]
        assert forward.log_z.item() == pytest.approx(log_z, abs=0.1)
        assert reverse.log_z.item() == pytest.approx(log_z, abs=0.1)


def test_rbm_on_patches_has_learnt(patches, rbm, record_result):
    pixels = -Bernoulli(patches.flatten(1).double().mean(0)).entropy().sum().item()
    machine = rbm.log_marginal(patches).mean().item()
    record_result("rbm-patches", {"nats_per_item": -machine, "independent_pixels": -pixels})
    assert machine > pixels + 2.0


def test_error_of_log_z_at_a_hundred_a_thousand_and_ten_thousand_steps(rbm, record_result):
    """Root mean square over seeds, each of 100 chains."""
    log_z = rbm.log_partition()
    errors = {}
    for betas, seeds in ((100, 100), (1000, 40), (10_000, 40)):
        estimates = [inference.ais(rbm, chains=100, betas=betas, seed=seed).log_z for seed in range(seeds)]
        errors[betas] = (torch.stack(estimates) - log_z).square().mean().sqrt().item()
    record_result("ais-error", {f"rms_nats_at_{betas}": error for betas, error in errors.items()})
    assert errors[100] <= 0.5
    assert errors[1000] <= 0.05
    assert errors[10_000] <= 0.005


def test_interval_covers_log_z_forward_and_in_reverse(rbm, record_result):
    """95 % intervals of 100 chains and 200 steps, 1,000 seeds; in reverse the chains start exactly."""
    log_z = rbm.log_partition()
    seeds, chains = 1000, 100
    exact = rbm.exact_sample(seeds * chains, seed=0)
    covered, bias, bracketed = {"forward": 0, "reverse": 0}, {"forward": 0.0, "reverse": 0.0}, 0
    for seed in range(seeds):
        state = {name: value[chains * seed : chains * (seed + 1)] for name, value in exact.items()}
        forward = inference.ais(rbm, chains=chains, betas=200, seed=seed)
        reverse = inference.reverse_ais(rbm, state, betas=200, seed=seed)
        for direction, estimate in (("forward", forward), ("reverse", reverse)):
            low, high = estimate.interval()
            covered[direction] += bool(low <= log_z <= high)
            bias[direction] += (estimate.log_z - log_z).item() / seeds
        bracketed += bool(forward.interval()[0] <= log_z <= reverse.interval()[1])
    shares = {direction: count / seeds for direction, count in covered.items()} | {"both": bracketed / seeds}
    record_result("ais-coverage", {"covered": shares, "bias_nats": bias})
    assert min(shares.values()) >= 0.93
