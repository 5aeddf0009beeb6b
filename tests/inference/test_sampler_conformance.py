"""Every kernel that samples, on every target that it can take; and that broken ones are found out.

A kernel more is one more `Case`; a target more, one more function in `tests.inference.targets`.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import pyro.distributions as dist
import pytest
import torch
from pyro.infer import HMC as PyroHMC
from pyro.infer import MCMC, NUTS
from pyro.infer.mcmc import RandomWalkKernel

import inference
from inference.density_kernel import accept
from tests.inference.targets import SEVERAL, TARGETS, Known, Target, log_modes

SEED = 0


# Which kernel can take which target


def continuous(target: Target) -> bool:
    return not any(target.discrete.values())


def discrete(target: Target) -> bool:
    return all(target.discrete.values())


def known_by_blocks(target: Target) -> bool:
    return target.blocks is not None


def anything(target: Target) -> bool:
    return True


def small(target: Target) -> bool:
    """Continuous, and little work: Pyro's kernels move one chain after the other."""
    return continuous(target) and target.model is None and target.is_cheap and target.dim <= 2


# Kernels


def parts(target: Target, first: Any, second: Any) -> list[inference.Kernel]:
    """Two kernels that together move all sites: the discrete ones by Gibbs."""
    if continuous(target):
        return [first(**target.density), second(**target.density)]
    one = target.sites(discrete=True)
    two = target.sites(discrete=False) or [one.pop(), one.pop()]
    last = inference.Gibbs if discrete(target) else first
    return [inference.Gibbs(target.model, sites=one), last(target.model, sites=two)]


SHORT = partial(inference.HMC, num_steps=4)


def potential(target: Target) -> Callable[[dict], torch.Tensor]:
    return lambda z: -target.log_density({name: value.unsqueeze(0) for name, value in z.items()})[0]


@dataclass(frozen=True)
class Case:
    """How a kernel is made, and how long it is run.

    Attributes:
        make: The kernel for a target.
        takes: Whether it can take one.
        warmup: Transitions in which it adapts and comes to where the target's mass is.
        draws: Transitions afterwards.
        chains: How many.
        is_local: Whether it needs thousands of transitions in a hundred dimensions.
        is_ours: Whether it moves all chains at once; else it is one of Pyro's own.
    """

    make: Callable[[Target], Any]
    takes: Callable[[Target], bool]
    warmup: int
    draws: int
    chains: int = 400
    is_local: bool = False
    is_ours: bool = True


CASES = {
    "RandomWalkMetropolis": Case(
        lambda target: inference.RandomWalkMetropolis(**target.density), continuous, 300, 300, is_local=True
    ),
    "MALA": Case(lambda target: inference.MALA(**target.density), continuous, 140, 140),
    "HMC": Case(lambda target: inference.HMC(num_steps=5, **target.density), continuous, 60, 60),
    "Gibbs": Case(lambda target: inference.Gibbs(target.model), discrete, 15, 16),
    "BlockGibbs": Case(lambda target: inference.BlockGibbs(target.blocks), known_by_blocks, 100, 100),
    "Cycle": Case(lambda target: inference.Cycle(parts(target, inference.MALA, SHORT)), anything, 50, 50),
    "Mixture": Case(
        lambda target: inference.Mixture(parts(target, inference.MALA, SHORT), [2, 1]),
        anything,
        80,
        80,
    ),
    "Pyro's HMC": Case(
        lambda target: PyroHMC(potential_fn=potential(target), trajectory_length=2.0),
        small,
        20,
        20,
        chains=16,
        is_ours=False,
    ),
    "Pyro's NUTS": Case(
        lambda target: NUTS(potential_fn=potential(target)), small, 20, 20, chains=16, is_ours=False
    ),
}


Samples = dict[str, torch.Tensor]


def agree(target: Target, samples: Samples) -> None:
    """Holds the moments of draws against the exact ones: within four of their Monte Carlo standard errors."""
    worst = target.deviations(samples).abs().max().item()
    assert worst < 4, f"a moment of {target.name} is {worst:.1f} MCSE off"


def reached(kernel: Any, target: Target, case: Case, seed: int = SEED) -> Samples:
    """Where chains come from where they start by themselves.

    Where a chain is when warm-up ends has to do with what it has learnt: the first half of the draws is left
    out, in which that is forgotten.
    """
    initial = None
    if target.model is None:
        torch.manual_seed(seed + 1)
        initial = {
            name: torch.empty_like(value).uniform_(-2, 2) for name, value in target.draw(case.chains).items()
        }
    draws = inference.run_chains(
        kernel,
        case.draws,
        *target.args,
        num_chains=case.chains,
        warmup=case.warmup,
        initial=initial,
        seed=seed,
        progress=False,
    )
    return {name: value[:, case.draws // 2 :] for name, value in draws.samples.items()}


def stayed(kernel: inference.Kernel, target: Target) -> Samples:
    """Exact draws after a few transitions at fixed settings."""
    torch.manual_seed(SEED + 1)
    initial = target.draw(4000 if target.dim <= SEVERAL else 1000)
    if isinstance(kernel, inference.BlockGibbs):  # knows of no plate
        initial = {name: value.squeeze(1) for name, value in initial.items()}
    draws = inference.run_chains(
        kernel, 1, *target.args, warmup=0, thin=20, initial=initial, seed=SEED, progress=False
    )
    return draws.samples


def pairs(chosen: Callable[[Case, Target], bool]) -> Any:
    """All kernels on all targets that they can take, of those that are chosen."""
    taken = [
        pytest.param(name, of, id=f"{name}-{of}")
        for name, case in CASES.items()
        for of, target in TARGETS.items()
        if case.takes(target()) and chosen(case, target())
    ]
    return pytest.mark.parametrize(("kernel", "of"), taken)


def is_slow(case: Case, target: Target) -> bool:
    """Whether the pair is left to the figures."""
    return (case.is_local and target.dim > SEVERAL) or (not case.is_ours and target.name != "two modes")


@pairs(lambda case, target: not is_slow(case, target))
def test_chains_reach_the_target(kernel, of):
    target, case = TARGETS[of](), CASES[kernel]
    agree(target, reached(case.make(target), target, case))


@pairs(lambda case, target: case.is_ours)
def test_exact_draws_stay_exact(kernel, of):
    target = TARGETS[of]()
    agree(target, stayed(CASES[kernel].make(target), target))


# Broken kernels: the same checks find them out


def accepts(module: str, rule: Callable[[torch.Tensor], Any]) -> Callable[[pytest.MonkeyPatch], None]:
    return lambda patch: patch.setattr(f"inference.{module}.accept", rule)


def always(log_ratio):
    return torch.ones_like(log_ratio, dtype=torch.bool), torch.ones_like(log_ratio)


def without_hastings(patch):
    """MALA's ratio is that of the densities alone."""
    own, ratio = inference.MALA.propose, []

    def propose(self, here, x):
        there = own(self, here, x)
        ratio[:] = [there.log_density - here.log_density]
        return there

    patch.setattr(inference.MALA, "propose", propose)
    patch.setattr("inference.langevin.accept", lambda _: accept(ratio[0]))


def without_kinetic_energy(patch):
    patch.setattr("inference.hmc.kinetic", lambda v: torch.zeros(()))


def old_gradient(kernel: type) -> Callable[[pytest.MonkeyPatch], None]:
    """The gradient where a move began stands for that where it ends."""

    def breaks(patch):
        propose, at = kernel.propose, kernel.at

        def fresh(self, state):
            self._place = None
            return at(self, state)

        patch.setattr(
            kernel, "propose", lambda self, here, x: propose(self, here, x)._replace(gradient=here.gradient)
        )
        patch.setattr(kernel, "at", fresh)

    return breaks


def rejected(kernel: type, *parts: str) -> Callable[[pytest.MonkeyPatch], None]:
    """Parts of a place are kept from a proposal, whether it was accepted or not."""

    def breaks(patch):
        own = kernel.settle

        def settle(self, here, there, accepted):
            place = own(self, here, there, accepted)
            self._place = place._replace(**{part: getattr(there, part) for part in parts})
            return self._place

        patch.setattr(kernel, "settle", settle)

    return breaks


def does_not_see_the_others(patch):
    """MALA's cache is not renewed where another kernel has moved another site."""
    own = inference.MALA.at

    def at(self, state):
        place = self._place
        if place is not None and all(state[name] is place.state[name] for name in self.moved):
            return place._replace(state=state)
        return own(self, state)

    patch.setattr(inference.MALA, "at", at)


def without_jacobian(patch):
    patch.setattr(
        "inference.density.LogDensity.__call__", lambda self, state: self.log_prob(self.constrain(state))
    )


def tempered_gibbs(patch):
    own = inference.Gibbs._scores
    patch.setattr(inference.Gibbs, "_scores", lambda *args: 0.5 * own(*args))


def gibbs_at_once(patch):
    def sample(self, params):
        return params | {name: self._swept(name, params) for name in self.moved}

    patch.setattr(inference.Gibbs, "sample", sample)


def tempered_block(patch):
    patch.setattr("tests.inference.targets.log_modes", lambda x: 0.5 * log_modes(x))


def blocks_at_once(patch):
    def sample(self, params):
        return params | {name: value for block in self.blocks for name, value in block.draw(params).items()}

    patch.setattr(inference.BlockGibbs, "sample", sample)


def parts_at_once(patch):
    """Each part of a cycle sees what was there before all of them."""

    def sample(self, params):
        state = dict(params)
        for kernel in self.kernels:
            moved = kernel.sample(self._as_seen(params, kernel))
            state |= {name: moved[name] for name in kernel.moved}
        return state

    patch.setattr(inference.Cycle, "sample", sample)


def chosen_by_place(patch):
    """Which part of a mixture moves a chain depends on where the chain is."""

    def sample(self, params):
        one, other = (self._moved(params, kernel) for kernel in self.kernels)
        left = params["x"][:, 0] < 0
        return {"x": torch.where(left.unsqueeze(1), one["x"], other["x"])}

    patch.setattr(inference.Mixture, "sample", sample)


BROKEN = {
    "accepts always": ("RandomWalkMetropolis", "two-modes", accepts("random_walk", always)),
    "accepts by the squared ratio": (
        "RandomWalkMetropolis",
        "banana",
        accepts("random_walk", lambda log_ratio: accept(2 * log_ratio)),
    ),
    "accepts by the root of the ratio": (
        "RandomWalkMetropolis",
        "two-modes",
        accepts("random_walk", lambda log_ratio: accept(0.5 * log_ratio)),
    ),
    "RandomWalkMetropolis with the density of what it rejected": (
        "RandomWalkMetropolis",
        "ppca",
        rejected(inference.RandomWalkMetropolis, "log_density"),
    ),
    "MALA accepts always": ("MALA", "two-modes", accepts("langevin", always)),
    "MALA accepts always, of many": ("MALA", "gaussian-100", accepts("langevin", always)),
    "MALA without Hastings' terms": ("MALA", "flow", without_hastings),
    "MALA with the old gradient for the way back": ("MALA", "two-modes", old_gradient(inference.MALA)),
    "MALA with the gradient of what it rejected": (
        "MALA",
        "constrained",
        rejected(inference.MALA, "gradient"),
    ),
    "HMC accepts always": ("HMC", "gaussian-10", accepts("hmc", always)),
    "HMC without kinetic energy": ("HMC", "flow", without_kinetic_energy),
    "HMC with the old gradient along the way": ("HMC", "two-modes", old_gradient(inference.HMC)),
    "HMC with the gradient of what it rejected": (
        "HMC",
        "constrained",
        rejected(inference.HMC, "gradient"),
    ),
    "RandomWalkMetropolis without Jacobian": ("RandomWalkMetropolis", "constrained", without_jacobian),
    "MALA without Jacobian": ("MALA", "constrained", without_jacobian),
    "HMC without Jacobian": ("HMC", "constrained", without_jacobian),
    "Gibbs from tempered conditionals": ("Gibbs", "dbm", tempered_gibbs),
    "Gibbs of all sites at once": ("Gibbs", "fvsbn", gibbs_at_once),
    "BlockGibbs from tempered conditionals": ("BlockGibbs", "modes-and-place", tempered_block),
    "BlockGibbs of all blocks at once": ("BlockGibbs", "dbm", blocks_at_once),
    "Cycle of parts that see an old state": ("Cycle", "modes-and-place", parts_at_once),
    "Cycle with a part that keeps an old gradient": ("Cycle", "three-types", does_not_see_the_others),
    "Mixture with a part that keeps an old gradient": ("Mixture", "three-types", does_not_see_the_others),
    "Mixture that chooses by place": ("Mixture", "two-modes", chosen_by_place),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_kernel_is_found_out(name, monkeypatch):
    kernel, of, breaks = BROKEN[name]
    target = TARGETS[of]()
    breaks(monkeypatch)
    samples = stayed(CASES[kernel].make(target), target)
    with pytest.raises(AssertionError, match="MCSE off"):
        agree(target, samples)


# Langevin's, without a correction, is off by as much as is foretold


def langevin(target: Target, step: float, initial: Samples, num_draws: int = 20) -> Samples:
    kernel = inference.Langevin(**target.density, step_size=step)
    settings = {"warmup": int(4 / step), "thin": int(1 / step), "seed": SEED, "progress": False}
    return inference.run_chains(kernel, num_draws, initial=initial, **settings).samples


def gaussian_2() -> Target:
    covariance = torch.tensor([[1.0, 0.6], [0.6, 1.0]], dtype=torch.float64)
    precision, zero = covariance.inverse(), torch.zeros(2, dtype=torch.float64)
    return Target(
        "Gaussian of 2",
        {"x": False},
        2,
        Known(zero, covariance),
        draw=lambda num: {"x": dist.MultivariateNormal(zero, covariance).sample((num,))},
        log_density=lambda state: -0.5 * (state["x"] @ precision * state["x"]).sum(-1),
    )


def as_foretold(target: Target, step: float) -> Target:
    """The Gaussian that Langevin's draws follow: σ² / (1 - ε / 2σ²) in every direction, centred at 0."""
    mean, covariance, _ = target.known
    wider = covariance @ (torch.eye(2) - step / 2 * covariance.inverse()).inverse()
    return replace(target, known=Known(mean, wider))


def bias_foretold(target: Target, step: float) -> float:
    return (as_foretold(target, step).known.second - target.known.second).trace().item()


def bias(target: Target, samples: Samples) -> float:
    """How far E[|x|²] is from the exact one."""
    return samples["x"].square().sum(-1).mean().item() - target.known.second.trace().item()


def test_langevin_is_as_wide_on_a_gaussian_as_its_step_size_makes_it():
    target, found, foretold = gaussian_2(), {}, {}
    for step in (0.4, 0.2, 0.1):
        torch.manual_seed(SEED + 1)
        samples = langevin(target, step, target.draw(3000))
        agree(as_foretold(target, step), samples)
        with pytest.raises(AssertionError, match="MCSE off"):
            agree(target, samples)
        found[step] = bias(target, samples)
        foretold[step] = bias_foretold(target, step)
    assert foretold[0.4] / foretold[0.2] > foretold[0.2] / foretold[0.1] > 2  # ε, and less and less ε²
    assert found[0.4] / found[0.2] == pytest.approx(foretold[0.4] / foretold[0.2], rel=0.2)
    assert found[0.2] / found[0.1] == pytest.approx(foretold[0.2] / foretold[0.1], rel=0.2)


def test_langevins_bias_halves_with_its_step_size_on_two_modes():
    target = TARGETS["two-modes"]()
    torch.manual_seed(SEED + 1)
    start = target.draw(3000)
    wide, narrow = (bias(target, langevin(target, step, start, 60)) for step in (0.3, 0.15))
    assert narrow > 0 and wide / narrow == pytest.approx(2, rel=0.3)


# Types, warm-up, and one run after the other


ADAPTIVE = {
    "RandomWalkMetropolis": lambda target: inference.RandomWalkMetropolis(**target.density),
    "MALA": CASES["MALA"].make,
    "HMC": lambda target: SHORT(**target.density),
    "Cycle": CASES["Cycle"].make,
    "Mixture": CASES["Mixture"].make,
}
adaptive = pytest.mark.parametrize("name", ADAPTIVE)


def under_pyro(
    kernel: Any, initial: Any = None, *, draws: int = 20, warmup: int = 20, **settings: Any
) -> Any:
    chains = MCMC(kernel, draws, warmup, initial_params=initial, disable_progbar=True, **settings)
    chains.run()
    return chains.get_samples(group_by_chain=settings.get("num_chains", 1) > 1)


@pytest.mark.parametrize("kernel", ["Cycle", "Mixture"])
def test_every_site_comes_back_in_its_own_type(kernel):
    target = TARGETS["three-types"]()
    types = {"k": torch.int64, "b": torch.bool, "x": torch.float64}
    draws = inference.run_chains(CASES[kernel].make(target), 20, num_chains=5, warmup=20, progress=False)
    assert {name: value.dtype for name, value in draws.samples.items()} == types
    assert {name: value.dtype for name, value in draws.last.items()} == types
    samples = under_pyro(CASES[kernel].make(target), target.draw(5))
    assert {name: value.dtype for name, value in samples.items()} == types
    assert set(samples["k"].unique().tolist()) == {0, 1, 2} and samples["b"].any() and not samples["b"].all()


@pytest.mark.parametrize("kernel", ["Cycle", "Mixture"])
def test_pyros_mcmc_draws_from_the_target_too(kernel):
    target = TARGETS["three-types"]()
    samples = under_pyro(CASES[kernel].make(target), target.draw(500), draws=40, warmup=40)
    agree(target, {name: value[20:].transpose(0, 1) for name, value in samples.items()})


def test_pyros_mcmc_takes_values_back_to_where_they_are_constrained():
    target = TARGETS["constrained"]()
    samples = under_pyro(inference.MALA(target.model), draws=200, warmup=100)
    assert samples["p"].shape == (200, 1) and samples["w"].shape == (200, 1, 3)
    assert ((samples["p"] > 0) & (samples["p"] < 1)).all() and (samples["s"] > 0).all()
    assert torch.allclose(samples["w"].sum(-1), torch.ones(200, 1, dtype=torch.float64))


def step_sizes(kernel: Any) -> list[torch.Tensor]:
    """Those that a kernel, or the parts of one, are at."""
    found = [each.adaptation for each in getattr(kernel, "kernels", [kernel]) if hasattr(each, "adaptation")]
    return [each.step_size for each in found]


@adaptive
def test_what_warm_up_has_learnt_is_frozen(name):
    target = TARGETS["two-modes"]()
    start = target.draw(10)
    draws = inference.run_chains(ADAPTIVE[name](target), 15, warmup=25, initial=start, progress=False)
    told = [value for stat, value in draws.stats.items() if stat.startswith("step_size")]
    assert len(told) == (2 if name in ("Cycle", "Mixture") else 1)
    seen = {"Warmup": [], "Sample": []}

    def hook(kernel, params, stage, step):
        seen["Warmup" if stage.lower().startswith("warmup") else "Sample"].append(
            torch.stack(step_sizes(kernel))
        )

    kernel = ADAPTIVE[name](target)
    under_pyro(kernel, start, draws=15, warmup=25, hook_fn=hook)
    for frozen in (*told, torch.stack(seen["Sample"]).flatten(1).T):
        assert frozen.shape[1] == 15 and (frozen == frozen[:, :1]).all()
    assert len(seen["Warmup"]) == 25
    moving = torch.stack(seen["Warmup"]).flatten(1).T
    assert all(len(each.unique()) > 5 for each in moving), "in warm-up it moves"


def test_a_mixture_tells_of_its_parts_by_the_same_names_whichever_has_moved():
    target = TARGETS["two-modes"]()
    start, told = target.draw(3), []
    for seed in range(4):  # in some the one moves first, in some the other
        kernel = inference.Mixture(parts(target, inference.MALA, SHORT))
        draws = inference.run_chains(kernel, 6, warmup=0, initial=start, seed=seed, progress=False)
        told.append(draws.stats)
    for stats in told:
        assert stats.keys() == told[0].keys()
        for each, kernel in (("", inference.MALA), ("_2", inference.HMC)):
            default = kernel(log_density=target.log_density).default_step_size(2)
            assert (stats[f"step_size{each}"] == default).all()
        assert not stats["divergent"].any() and not stats["divergent_2"].any()


SAME = {name: "two-modes" for name in ADAPTIVE} | {
    "Gibbs": "fvsbn",
    "BlockGibbs": "dbm",
    "Pyro's HMC": "two-modes",
    "Pyro's NUTS": "two-modes",
}


@pytest.mark.parametrize("name", SAME)
def test_a_kernel_that_has_run_before_draws_the_same_bits(name):
    target = TARGETS[SAME[name]]()
    kernel = CASES[name].make(target)
    torch.manual_seed(SEED)
    initial = target.draw(4) if target.model is None else None
    first, again = (
        inference.run_chains(kernel, 8, num_chains=4, warmup=12, initial=initial, progress=False)
        for _ in range(2)
    )
    for one, other in ((first.samples, again.samples), (first.stats, again.stats), (first.last, again.last)):
        assert one.keys() == other.keys()
        assert all(torch.equal(one[each], other[each]) for each in one)
    assert not torch.equal(first.samples[next(iter(first.samples))][:, 0], next(iter(first.last.values())))


@adaptive
def test_chains_start_where_they_are_told(name):
    """Pyro's `RandomWalkKernel` does not: it draws a start of its own, whatever it is given."""

    def near(state):
        return -0.5 * (1e4 * (state["x"] - 7.0)).square().sum(-1)

    target = replace(TARGETS["two-modes"](), log_density=near)
    start = {"x": torch.full((3, 2), 7.0, dtype=torch.float64)}
    kernel = ADAPTIVE[name](target)
    draws = inference.run_chains(kernel, 1, warmup=0, initial=start, progress=False)
    assert torch.allclose(draws.samples["x"][:, 0], start["x"], atol=0.01)
    assert torch.allclose(under_pyro(kernel, start, draws=1, warmup=0)["x"][0], start["x"], atol=0.01)


@pytest.mark.parametrize("name", [each for each in ADAPTIVE if each != "Mixture"])  # it begins by chance
def test_no_chain_of_pyros_mcmc_goes_on_with_the_step_size_of_the_one_before(name, monkeypatch):
    """Pyro's `RandomWalkKernel` does: only the first of its chains begins with the one that it was given."""
    monkeypatch.setattr("pyro.infer.mcmc.api.mp.cpu_count", lambda: 1)
    target, first = TARGETS["two-modes"](), {}

    def hook(kernel, params, stage, step):
        first.setdefault(stage, kernel.logging()["step_size"])

    kernel = ADAPTIVE[name](target)
    start = {"x": target.draw(6)["x"].reshape(3, 2, 2)}
    with pytest.warns(UserWarning, match="sequentially"):
        under_pyro(kernel, start, draws=3, warmup=10, num_chains=3, hook_fn=hook)
    default = getattr(kernel, "kernels", [kernel])[0].default_step_size(2)
    begun = [step for stage, step in first.items() if stage.startswith("Warmup")]
    later = [step for stage, step in first.items() if stage.startswith("Sample")]
    assert begun == [f"{default:.3g}"] * 3
    assert len(later) == 3 and not set(later) & set(begun)


def test_pyros_own_random_walk_is_clean_from_chain_to_chain():
    target = TARGETS["gaussian-10"]()
    kernel = RandomWalkKernel(target.model)
    two, alone = (
        inference.run_chains(kernel, 5, warmup=10, seed=seeds, progress=False) for seeds in ([3, 4], [4])
    )
    assert torch.equal(two.samples["x"][1], alone.samples["x"][0])
    assert torch.equal(two.stats["step_size"][1], alone.stats["step_size"][0])
    with pytest.raises(ValueError, match="RandomWalkMetropolis takes them"):
        inference.run_chains(kernel, 5, initial=target.draw(2), progress=False)
