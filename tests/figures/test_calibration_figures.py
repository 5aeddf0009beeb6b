"""Simulation-based calibration of our kernels and of NUTS: ranks are uniform; a wrong posterior's are not."""

from functools import partial

import pyro
import pyro.distributions as dist
import pytest
import torch

import inference
from tests.inference.test_calibration import normal, rates

pytestmark = pytest.mark.figures


def mixture(x):
    loc = pyro.sample("loc", dist.Normal(0.0, 2.0))
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Bernoulli(0.3))
        pyro.sample("x", dist.Normal(loc + 3 * z, 1.0), obs=x)


DATA = {
    "normal": (normal, torch.zeros(5)),
    "rates": (rates, torch.ones(4), torch.zeros(5)),
    "mixture": (mixture, torch.zeros(4)),
}


def gibbs_and_mala(program, sites):
    return inference.Cycle([inference.Gibbs(program, sites=["z"]), inference.MALA(program, sites=["loc"])])


def nuts(program, seed):
    return inference.nuts(
        program, num_draws=19, num_chains=1, warmup=25, seed=seed, adapt_mass_matrix=False, progress=False
    )


def too_narrow(program, seed):
    """The posterior of `normal`, of half its standard deviation."""
    x = pyro.poutine.trace(program).get_trace().nodes["x"]["value"]
    precision = 1 + len(x) / 4
    draws = x.sum() / 4 / precision + 0.5 * precision**-0.5 * torch.randn(1, 99)
    return inference.Draws({"mean": draws}, {}, {"mean": draws[:, -1]}, warmup=0, thin=1, seed=seed)


RIGHT = {
    "RandomWalkMetropolis, normal": {"kernel": inference.RandomWalkMetropolis, "warmup": 200, "thin": 6},
    "RandomWalkMetropolis, rates": {"kernel": inference.RandomWalkMetropolis, "warmup": 200, "thin": 6},
    "MALA, normal": {"kernel": inference.MALA, "warmup": 200, "thin": 6},
    "MALA, rates": {"kernel": inference.MALA, "warmup": 200, "thin": 6},
    "HMC, rates": {"kernel": partial(inference.HMC, num_steps=5), "warmup": 200, "thin": 2},
    "Cycle of Gibbs and MALA, mixture": {"kernel": gibbs_and_mala, "warmup": 200, "thin": 5},
    "NUTS, normal": {"method": nuts},
}
WRONG = {
    "Langevin of step 0.7, normal": {"kernel": partial(inference.Langevin, step_size=0.7), "thin": 5},
    "half the standard deviation, normal": {"method": too_narrow},
}


def figures(name, settings):
    program, *args = DATA[name.split(", ")[1]]
    found = inference.simulation_based_calibration(program, *args, **settings, progress=False)
    return {
        "p_value": found.p_value,
        "ranks": sum(each.numel() for each in found.p_values.values()),
        "draws": found.num_draws,
        "bins": found.num_bins,
        "replications": found.replications,
        "problems": list(found.problems),
    }


def test_ranks_are_uniform_and_those_of_a_wrong_posterior_are_not(record_result):
    right = {name: figures(name, settings) for name, settings in RIGHT.items()}
    wrong = {name: figures(name, settings) for name, settings in WRONG.items()}
    record_result("sbc", {"right": right, "wrong": wrong})
    for name, found in right.items():
        assert found["p_value"] > 0.01 and found["replications"] == 200 and not found["problems"], name
    for name, found in wrong.items():
        assert found["p_value"] < 1e-4 and found["problems"], name
