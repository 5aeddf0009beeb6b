"""Enumeration of one side against the sum over everything, value by value."""

import math

import pytest
import torch

from tests.undirected.machines import (
    ALL,
    BINARY,
    REAL,
    built,
    energy_by_formula,
    every_value,
    groups,
    is_distributed_as,
    log_sum,
    tally,
)
from zoo import DBM, RBM
from zoo.undirected import enumeration

X = torch.tensor([[0.3, -1.1], [1.5, 0.2], [-0.4, 0.6]], dtype=torch.float64)


def joint(machine):
    every = every_value(machine)
    return every, -energy_by_formula(machine, every)


@pytest.fixture(params=[enumeration.PIECE, 7], ids=["whole", "pieces"])
def piece(request, monkeypatch):
    monkeypatch.setattr(enumeration, "PIECE", request.param)


@pytest.mark.parametrize("name", BINARY)
def test_log_partition_is_the_sum_over_everything(name, piece):
    machine = built(name)
    log_z = machine.log_partition()
    assert log_z.shape == () and log_z.dtype == torch.float64
    assert torch.allclose(log_z, joint(machine)[1].logsumexp(0))


@pytest.mark.parametrize("name", BINARY)
def test_log_marginal_is_the_sum_over_all_else(name, piece):
    machine = built(name)
    every, log_joint = joint(machine)
    log_joint = log_joint - log_joint.logsumexp(0)
    assert torch.allclose(machine.log_marginal(every["v"]), log_sum(log_joint, groups(every, ("v",))))
    if machine.num_classes:
        expected = log_sum(log_joint, groups(every, ("v", "y")))
        assert torch.allclose(machine.log_marginal(every["v"], every["y"]), expected)


@pytest.mark.parametrize("name", BINARY)
def test_moments_are_those_of_the_joint(name, piece):
    machine = built(name)
    every, log_joint = joint(machine)
    p = log_joint.softmax(0)
    s = [machine.statistic(each, every[each]) for each in machine.names]
    moments = machine.exact_moments()
    assert tuple(moments.means) == machine.names
    for each, statistic in zip(machine.names, s, strict=True):
        assert torch.allclose(moments.means[each], p @ statistic), each
    for below, pair in enumerate(moments.pairs):
        assert torch.allclose(pair, torch.einsum("n,ni,nj->ij", p, s[below], s[below + 1]))


@pytest.mark.parametrize("name", BINARY)
def test_posterior_means_are_those_of_the_joint(name, piece):
    machine = built(name)
    every, log_joint = joint(machine)
    x = every_value(machine, ("v",))["v"]
    for given in ("v",), ("v", "y"):
        if given[-1] not in machine.names:
            continue
        p = (log_joint - log_sum(log_joint, groups(every, given))).exp()
        y = torch.ones(len(x), dtype=torch.int64) if "y" in given else None
        means = machine.exact_posterior_means(x, y)
        assert set(means) == set(machine.names) - set(given)
        for item in range(len(x)):
            rows = (every["v"] == x[item]).flatten(1).all(1)
            if y is not None:
                rows &= every["y"] == 1
            for each, mean in means.items():
                assert torch.allclose(
                    mean[item], p[rows] @ machine.statistic(each, every[each])[rows].double()
                )


@pytest.mark.parametrize("name", BINARY)
def test_draws_are_exact(name):
    machine = built(name)
    every, log_joint = joint(machine)
    drawn = machine.exact_sample(50_000, seed=0)
    assert is_distributed_as(tally(drawn, every), log_joint.softmax(0))


def test_real_items_are_summed_out():
    machine = built("gaussian rbm")
    grid = torch.linspace(-40, 40, 801, dtype=torch.float64)
    v = torch.cartesian_prod(grid, grid)
    density = machine.log_marginal(v).exp() * (grid[1] - grid[0]) ** 2
    assert density.sum().item() == pytest.approx(1.0, abs=1e-3)
    s = machine.statistic("v", v)
    h = machine.exact_posterior_means(v)["h_1"]
    moments = machine.exact_moments()
    assert torch.allclose(moments.means["v"], density @ s, atol=1e-2)
    assert torch.allclose(moments.means["h_1"], density @ h, atol=1e-3)
    assert torch.allclose(moments.pairs[0], torch.einsum("n,ni,nj->ij", density, s, h), atol=1e-2)


@pytest.mark.parametrize("name", REAL)
def test_draws_of_real_items_have_the_moments(name):
    machine = built(name)
    moments = machine.exact_moments()
    drawn = machine.exact_sample(50_000, seed=0)
    s = [machine.statistic(each, drawn[each]).double() for each in machine.names]
    for each, statistic in zip(machine.names, s, strict=True):
        error = statistic.std(0) / math.sqrt(50_000)
        assert ((statistic.mean(0) - moments.means[each]).abs() < 4.5 * error).all(), each
    for below, pair in enumerate(moments.pairs):
        products = s[below].unsqueeze(2) * s[below + 1].unsqueeze(1)
        error = products.std(0) / math.sqrt(50_000)
        assert ((products.mean(0) - pair).abs() < 4.5 * error).all()


@pytest.mark.parametrize("name", ALL)
def test_moments_are_the_gradient_of_log_z(name):
    """∂ log Z / ∂W = E[s̄ s̄ᵀ], by a small step of one weight."""
    machine = built(name)
    machine.centred = False
    pairs = machine.exact_moments().pairs
    for W, pair in zip(machine.W, pairs, strict=True):
        ends = []
        for step in (-1e-5, 2e-5):
            with torch.no_grad():
                W[0, -1] += step
            ends.append(machine.log_partition())
        assert torch.allclose((ends[1] - ends[0]) / 2e-5, pair[0, -1], atol=1e-7)


def test_draws_are_reproducible_and_in_the_type_of_the_machine():
    machine = built("labelled dbm").float()
    state = torch.get_rng_state()
    first, again = (machine.exact_sample(20, seed=1) for _ in range(2))
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(first[name], again[name]) for name in machine.names)
    assert first["v"].dtype == first["h_1"].dtype == torch.float32 and first["y"].dtype == torch.int64
    assert not torch.equal(first["v"], machine.exact_sample(20, seed=2)["v"])
    assert not torch.equal(machine.exact_sample(20)["v"], machine.exact_sample(20)["v"])


def test_machine_in_float32_stays_so_and_is_summed_in_float64():
    machine = built("centred rbm").float()
    log_z = machine.log_partition()
    assert machine.b[0].dtype == torch.float32
    assert torch.allclose(log_z, machine.double().log_partition(), rtol=0, atol=1e-12)
    assert not log_z.requires_grad


def test_side_with_fewer_configurations_is_enumerated():
    machine = RBM((28, 28), 5)
    with torch.no_grad():
        machine.W[0].zero_()
    assert machine.log_partition().item() == pytest.approx(789 * math.log(2))
    assert machine.log_marginal(torch.ones(3, 28, 28)).tolist() == pytest.approx([-784 * math.log(2)] * 3)
    wide = RBM((3,), 1000, num_classes=10)
    assert wide.log_partition().isfinite()


def test_what_is_too_large_is_refused():
    with pytest.raises(
        ValueError, match=r"at most 2\^20 configurations, got v, h_2 with 2\^40 and h_1 with 2\^21$"
    ):
        DBM((30,), (21, 10)).log_partition()
    with pytest.raises(ValueError, match=r"got v with real values and h_1 with 2\^21$"):
        RBM((2,), 21, visible="gaussian").exact_moments()
    large = DBM((30,), (21, 10))
    assert large.exact_posterior_means(torch.ones(1, 30))["h_1"].shape == (1, 21)
    with pytest.raises(ValueError, match=r"got h_2 with 2\^22 and h_1 with 2\^21$"):
        DBM((30,), (21, 22)).exact_posterior_means(torch.ones(1, 30))


def test_arguments_are_checked():
    machine = RBM((4,), 3, num_classes=3)
    with pytest.raises(ValueError, match=r"items of shape \(batch, 4\), got \(2, 5\)"):
        machine.log_marginal(torch.ones(2, 5))
    with pytest.raises(ValueError, match=r"labels must lie in 0..2, got -1..0"):
        machine.log_marginal(torch.ones(2, 4), torch.tensor([0, -1]))
    with pytest.raises(ValueError, match="has no label unit; build it with num_classes"):
        RBM((4,), 3).log_marginal(torch.ones(2, 4), torch.tensor([0, 1]))
    with pytest.raises(ValueError, match="num must be at least 1, got 0"):
        machine.exact_sample(0)
