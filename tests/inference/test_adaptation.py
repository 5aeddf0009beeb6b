"""Warm-up: what step size and scale are learnt, from whom, and that they stay afterwards."""

import copy
import math
from dataclasses import replace
from functools import partial

import pytest
import torch

import inference
from inference.adaptation import Moments, window_ends, window_start

KERNELS = {
    "random walk": inference.RandomWalkMetropolis,
    "mala": inference.MALA,
    "hmc": partial(inference.HMC, num_steps=3),
}
SCALES = torch.tensor([0.1, 1.0, 10.0])


def scaled(state):
    """Independent Gaussians of very different scales."""
    return -0.5 * (state["x"] / SCALES).square().sum(1)


def correlated(state):
    a, b = state["x"].unbind(1)
    return -0.5 * (a**2 + b**2 - 2 * 0.95 * a * b) / (1 - 0.95**2)


def run(kernel, num_draws=100, *, dim=3, chains=30, **settings):
    start = {"x": torch.randn(chains, dim, generator=torch.Generator().manual_seed(1))}
    return inference.run_chains(kernel, num_draws, **{"initial": start, "progress": False, **settings})


@pytest.mark.parametrize("name", KERNELS)
def test_acceptance_comes_to_its_target_and_the_scale_to_the_standard_deviations(name):
    kernel = KERNELS[name](log_density=scaled)
    draws = run(kernel, 200, warmup=400)
    assert draws.stats["acceptance"].mean().item() == pytest.approx(kernel.default_target, abs=0.06)
    ratio = draws.adapted["scale"][0] / SCALES
    assert ratio.max() / ratio.min() < 1.6, "up to what the step size makes good"
    again = run(KERNELS[name](log_density=scaled, target_accept_prob=0.65), 200, warmup=400)
    assert again.stats["acceptance"].mean().item() == pytest.approx(0.65, abs=0.06)


@pytest.mark.parametrize("name", KERNELS)
def test_a_dense_scale_learns_the_correlation(name):
    draws = run(KERNELS[name](log_density=correlated, dense=True), 100, dim=2, warmup=400)
    (factor,) = draws.adapted["scale"]
    assert factor[0, 1] == 0
    covariance = factor @ factor.T
    assert covariance[0, 1] / covariance.diagonal().prod().sqrt() > 0.9
    plain = run(KERNELS[name](log_density=correlated), 100, dim=2, warmup=400)
    moved = [each.samples["x"].sum(2).diff(dim=1).abs().mean() for each in (draws, plain)]
    assert moved[0] > 1.3 * moved[1], "and moves further along the long axis for it"


@pytest.mark.parametrize("name", KERNELS)
def test_what_was_learnt_is_frozen_after_warm_up(name):
    draws = run(KERNELS[name](log_density=scaled), 50, warmup=60)
    step = draws.stats["step_size"]
    assert (step == step[:, :1]).all() and torch.equal(step[:, 0], draws.adapted["step_size"])
    moving = run(KERNELS[name](log_density=scaled), 60, warmup=0)
    assert (moving.stats["step_size"] == moving.stats["step_size"][0, 0]).all()


@pytest.mark.parametrize("name", KERNELS)
def test_each_run_of_a_kernel_learns_anew(name):
    kernel = KERNELS[name](log_density=scaled)
    first = run(kernel, 20, warmup=80)
    again = run(kernel, 20, warmup=80)
    assert torch.equal(first.samples["x"], again.samples["x"])
    assert torch.equal(first.stats["step_size"], again.stats["step_size"])


@pytest.mark.parametrize("dense", [False, True])
def test_chains_go_on_with_what_another_run_has_learnt(dense):
    kernel = inference.MALA(log_density=scaled, dense=dense)
    first = run(kernel, 20, warmup=200)
    on = inference.run_chains(kernel, 50, initial=first, seed=1, progress=False)
    assert on.warmup == 0
    assert torch.equal(on.stats["step_size"][:, 0], first.adapted["step_size"])
    assert torch.equal(on.adapted["scale"], first.adapted["scale"])
    assert on.stats["acceptance"].mean().item() == pytest.approx(0.574, abs=0.1)
    untaught = inference.run_chains(kernel, 50, initial=first.last, warmup=0, progress=False)
    assert untaught.adapted["scale"] is None and untaught.stats["acceptance"].mean() < 0.1


def test_what_another_kernel_has_learnt_is_not_taken_over():
    """It then warms up anew, from where the other stopped."""
    mala = partial(inference.MALA, log_density=scaled)
    first = run(mala(), 5, warmup=60)
    others = {
        "of another kind": KERNELS["hmc"](log_density=scaled),
        "dense": mala(dense=True),
        "of other sites": mala(sites=["x"]),
        "in a cycle": inference.Cycle([mala()]),
    }
    for name, kernel in others.items():
        on = inference.run_chains(kernel, 5, initial=first, progress=False)
        assert on.warmup == (0 if name == "of other sites" else 5), name
    fewer = replace(first, last={"x": first.last["x"][:4]})
    assert inference.run_chains(mala(), 5, initial=fewer, progress=False).warmup == 5
    cycle = run(inference.Cycle([mala()]), 5, warmup=60)
    assert inference.run_chains(mala(), 5, initial=cycle, progress=False).warmup == 5
    assert inference.run_chains(inference.Cycle([mala()]), 5, initial=cycle, progress=False).warmup == 0
    unfinished = replace(first, adapted={**first.adapted, "finished": False})
    assert inference.run_chains(mala(), 5, initial=unfinished, progress=False).warmup == 5


def test_kernels_can_be_copied_after_a_run():
    kernel = inference.RandomWalkMetropolis(log_density=scaled)
    run(kernel, 5, chains=1)
    assert torch.equal(run(copy.deepcopy(kernel), 5).samples["x"], run(kernel, 5).samples["x"])


def test_switches_leave_what_they_name_as_it_is():
    fixed = run(inference.MALA(log_density=scaled, step_size=0.3, adapt_step_size=False), 20, warmup=100)
    assert (fixed.stats["step_size"] == 0.3).all() and fixed.adapted["scale"] is not None
    plain = run(inference.MALA(log_density=scaled, adapt_scale=False), 20, warmup=100)
    assert plain.adapted["scale"] is None and len(plain.stats["step_size"].unique()) == 1
    neither = inference.MALA(log_density=scaled, step_size=0.3, adapt_step_size=False, adapt_scale=False)
    assert (run(neither, 20, warmup=100).stats["step_size"] == 0.3).all()


def test_chains_with_seeds_of_their_own_learn_from_themselves_alone():
    together = run(inference.RandomWalkMetropolis(log_density=scaled), 20, chains=6, warmup=100)
    apart = run(inference.RandomWalkMetropolis(log_density=scaled), 20, chains=6, warmup=100, seed=range(6))
    assert len(together.adapted["step_size"].unique()) == 1 and len(together.adapted["scale"]) == 1
    assert len(apart.adapted["step_size"].unique()) == 6 and len(apart.adapted["scale"]) == 6


@pytest.mark.parametrize("dense", [False, True])
@pytest.mark.parametrize("apart", [False, True])
def test_moments_are_those_of_torch(apart, dense):
    x = 3.0 + torch.randn(40, 5, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    moments = Moments(dense, apart)
    for each in x:
        moments.add(each)
    for chain in range(5 if apart else 1):
        points = x[:, chain] if apart else x.flatten(0, 1)
        weight = len(points) / (len(points) + 5)
        exact = weight * points.T.cov() + 1e-3 * (1 - weight) * torch.eye(3, dtype=torch.float64)
        assert torch.allclose(moments.spread()[chain], exact if dense else exact.diagonal())
        if dense:
            factor = moments.scale()[chain]
            assert torch.allclose(factor @ factor.T, exact)


@pytest.mark.parametrize("apart", [False, True])
def test_scales_differ_as_far_as_they_are_known_to(apart):
    """Of slow chains, whose standard deviations are hardly known, and of independent points."""
    generator = torch.Generator().manual_seed(0)
    scales = torch.tensor([0.05, 0.2, 1.0, 1.0, 5.0, 20.0])
    for phi, chains in ((0.98, 1), (0.0, 4)):
        alike, unlike = Moments(False, apart), Moments(False, apart)
        x = torch.randn(chains, 6, generator=generator)
        for _ in range(400):
            x = phi * x + (1 - phi**2) ** 0.5 * torch.randn(chains, 6, generator=generator)
            alike.add(x)
            unlike.add(scales * x)
        deviations = alike.spread().sqrt()
        ratio = (alike.scale().amax(1) / alike.scale().amin(1)).max()
        assert ratio < 1.15 and (phi == 0 or (deviations.amax(1) / deviations.amin(1)).max() > 1.5)
        found = (unlike.scale() / scales).log()
        assert (found - found.mean(1, keepdim=True)).abs().max() < (1.0 if phi else 0.2)


@pytest.mark.parametrize("warmup", [0, 1, 10, 41, 42, 100, 1000, 1001])
def test_windows_double_and_lie_within_warm_up(warmup):
    start, ends = window_start(warmup), window_ends(warmup)
    assert ends == sorted(set(ends)) and all(start < end <= warmup for end in ends)
    sizes = [end - begin for begin, end in zip([start, *ends], ends, strict=False)]
    assert sizes[:-1] == [25 * 2**place for place in range(len(sizes) - 1)]
    assert bool(ends) == (warmup >= 41)
    if ends:
        assert warmup - ends[-1] == int(0.25 * warmup) and sizes[-1] >= 25


@pytest.mark.parametrize("kernel", KERNELS.values())
@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"step_size": 0.0}, "step_size to be a positive number, got 0.0"),
        ({"step_size": math.inf}, "step_size to be a positive number, got inf"),
        ({"step_size": "large"}, "step_size to be a positive number, got 'large'"),
        ({"target_accept_prob": 1.0}, "target_accept_prob between 0 and 1, got 1.0"),
        ({"target_accept_prob": 2}, "target_accept_prob between 0 and 1, got 2"),
    ],
)
def test_settings_out_of_range_are_refused(kernel, settings, said):
    with pytest.raises(ValueError, match=said):
        kernel(log_density=scaled, **settings)


# A lone chain looks ahead


def test_a_lone_chain_looks_ahead_and_draws_the_same_distribution():
    """A chain that tries eight proposals at once has the law of one that tries them one by one."""
    runs = 400
    kernel = inference.RandomWalkMetropolis(log_density=lambda s: -0.5 * s["x"] ** 2, step_size=2.4)
    lone = [
        inference.run_chains(kernel, 12, initial={"x": torch.zeros(1)}, warmup=0, seed=seed, progress=False)
        for seed in range(runs)
    ]
    x = torch.cat([each.samples["x"] for each in lone])
    chance = torch.cat([each.stats["acceptance"] for each in lone])
    many = inference.run_chains(
        kernel, 12, initial={"x": torch.zeros(20_000)}, warmup=0, seed=1, progress=False
    )
    for mine, theirs in (
        (x, many.samples["x"]),
        (x**2, many.samples["x"] ** 2),
        (chance, many.stats["acceptance"]),
    ):
        error = (mine.var(0) / len(mine) + theirs.var(0) / len(theirs)).sqrt()
        assert ((mine.double().mean(0) - theirs.double().mean(0)).abs() < 4 * error).all()
    moved = x[:, 1:] != x[:, :-1]
    expected = many.samples["x"][:, 1:] != many.samples["x"][:, :-1]
    assert abs(moved.float().mean() - expected.float().mean()) < 4 * (0.25 / moved.numel()) ** 0.5


def test_looking_ahead_spares_runs_of_the_program():
    calls = []

    def normal(state):
        calls.append(len(state["x"]))
        return -0.5 * state["x"].square().sum(1)

    kernel = inference.RandomWalkMetropolis(log_density=normal)
    draws = inference.run_chains(kernel, 400, initial={"x": torch.zeros(1, 5)}, warmup=100, progress=False)
    assert draws.num_draws == 400 and len(calls) < 100 + 400 / 2
    energy = -normal({"x": draws.samples["x"][0]})
    assert torch.allclose(energy.double(), draws.stats["energy"][0]), "of the draw itself"
    seen = len(calls)
    inference.run_chains(kernel, 50, initial={"x": torch.zeros(1, 5)}, warmup=0, seed=[3], progress=False)
    assert len(calls) >= seen + 50, "not where the chain is to draw what it would among others"
