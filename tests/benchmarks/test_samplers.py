"""Samplers against Pyro's own, and a batch of chains against chains in turn: alternated, on one machine."""

import statistics
import time

import arviz
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import HMC, MCMC
from pyro.infer.mcmc import RandomWalkKernel

import inference
from tests.benchmarks.timing import MACHINE, expect

pytestmark = pytest.mark.figures


def covariance(num, correlation):
    place = torch.arange(num)
    return correlation ** (place[:, None] - place[None]).abs().double()


def gaussian(num, correlation=0.5):
    """A program of one Gaussian site of so many dimensions."""
    factor = torch.linalg.cholesky(covariance(num, correlation)).float()

    def program():
        pyro.sample("x", dist.MultivariateNormal(torch.zeros(num), scale_tril=factor))

    return program, ()


def regression():
    """A linear regression on covariates of unlike scales, as data come."""
    generator = torch.Generator().manual_seed(0)
    scales = torch.tensor([0.2, 1.0, 5.0, 1.0, 0.5])
    covariates = torch.randn(100, 5, generator=generator) * scales
    outcome = covariates @ torch.tensor([2.0, -1.0, 0.3, 0.0, 1.0]) + torch.randn(100, generator=generator)

    def program(covariates, outcome):
        weights = pyro.sample("x", dist.Normal(torch.zeros(5), 3.0).to_event(1))
        noise = pyro.sample("noise", dist.LogNormal(0.0, 1.0))
        with pyro.plate("data", len(outcome)):
            pyro.sample("outcome", dist.Normal((covariates * weights).sum(-1), noise), obs=outcome)

    return program, (covariates, outcome)


# A target, and how many chains of how many draws, so that effective sample sizes are known to a tenth or so.
TARGETS = {"gaussian": (*gaussian(10), 8, 8000), "regression": (*regression(), 3, 3000)}


def seconds(run):
    started = time.perf_counter()
    found = run()
    return time.perf_counter() - started, found


def least_ess(draws):
    """Of the entries of x, by one chain ``(draw, n)``."""
    return min(float(arviz.ess(entry[None].numpy(), method="bulk")) for entry in draws.double().T)


def _columns(found):
    """Effective draws, and seconds, of each run by whose it was."""
    return [{name: [run[place] for run in runs] for name, runs in found.items()} for place in (0, 1)]


@pytest.mark.parametrize("target", TARGETS)
def test_effective_draws_per_second_of_the_random_walk_against_pyros(target, threads, record_result):
    program, args, chains, length = TARGETS[target]
    found = {"ours": [], "theirs": []}  # effective draws and seconds of each run
    for seed in range(chains):

        def ours(seed=seed):
            kernel = inference.RandomWalkMetropolis(program)
            draws = inference.run_chains(
                kernel, length, *args, warmup=1000, num_chains=1, seed=seed, progress=False
            )
            return draws.samples["x"][0]

        def theirs(seed=seed):
            mcmc = MCMC(
                RandomWalkKernel(program), num_samples=length, warmup_steps=1000, disable_progbar=True
            )
            pyro.set_rng_seed(seed)
            mcmc.run(*args)
            return mcmc.get_samples()["x"]

        for name, run in (("ours", ours), ("theirs", theirs)):
            time_taken, draws = seconds(run)
            found[name].append((least_ess(draws), time_taken))
    ess, taken = ({name: sum(column) for name, column in each.items()} for each in _columns(found))
    figures = {
        "ess_per_second_ratio": ess["ours"] / taken["ours"] * taken["theirs"] / ess["theirs"],
        "draws_per_second_ratio": taken["theirs"] / taken["ours"],
        "target": target,
        "threads": threads,
        "machine": MACHINE,
    }
    record_result(f"sampler-random-walk-{target}-{threads}", figures)
    expect({f"effective draws per second over Pyro's, {target}": (figures["ess_per_second_ratio"], 2.0)})


def test_pyros_hmc_under_run_chains_costs_what_it_costs_under_pyros_mcmc(threads, record_result):
    program, _ = gaussian(10)
    ratios = []
    for seed in range(9):

        def ours(seed=seed):
            return inference.run_chains(
                HMC(program), 100, warmup=50, num_chains=1, seed=[seed], progress=False
            ).samples["x"][0]

        def theirs(seed=seed):
            mcmc = MCMC(HMC(program), num_samples=100, warmup_steps=50, disable_progbar=True)
            torch.manual_seed(seed)
            mcmc.run()
            return mcmc.get_samples()["x"]

        order = (ours, theirs) if seed % 2 else (theirs, ours)
        found = {run: seconds(run) for run in order}
        assert torch.equal(found[ours][1], found[theirs][1]), "the same draws"
        ratios.append(found[theirs][0] / found[ours][0])
    figures = {"ratio": 1 / statistics.median(ratios), "threads": threads, "machine": MACHINE}
    record_result(f"sampler-hmc-overhead-{threads}", figures)
    expect({"Pyro's time over ours": (1 / figures["ratio"], 1 / 1.03)})


@pytest.mark.parametrize("form", ["program", "function"])
def test_a_thousand_chains_in_one_batch_against_a_thousand_in_turn(form, threads, record_result):
    """MALA on a Gaussian of 100 dimensions; of the runs in turn, 30 are taken for the thousand."""
    program, _ = gaussian(100)
    precision = torch.linalg.inv(covariance(100, 0.5)).float()

    def log_density(state):
        return -0.5 * ((state["x"] @ precision) * state["x"]).sum(1)

    kernel = inference.MALA(program) if form == "program" else inference.MALA(log_density=log_density)
    start = torch.randn(1000, 100, generator=torch.Generator().manual_seed(0))

    def draw(rows):
        settings = {"initial": {"x": start[rows]}, "warmup": 50, "progress": False}
        return lambda: inference.run_chains(kernel, 50, **settings)

    ratios = []
    for turn in range(5):
        batch, _ = seconds(draw(slice(0, 1000)))
        in_turn = sum(seconds(draw(slice(row, row + 1)))[0] for row in range(30 * turn, 30 * turn + 30))
        ratios.append(in_turn / 30 * 1000 / batch)
    figures = {"ratio": statistics.median(ratios), "form": form, "threads": threads, "machine": MACHINE}
    record_result(f"sampler-batch-{form}-{threads}", figures)
    expect({f"draws per second over chains in turn, {form}": (figures["ratio"], 100.0)})
