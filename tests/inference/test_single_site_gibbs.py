"""`inference.Gibbs`: the discrete sites of any program, by its joint density alone."""

import itertools

import pyro
import pyro.distributions as dist
import pytest
import torch

import inference
import zoo

X = torch.tensor([0.1, 2.2, 1.4, 3.9, 2.1])


def mixture(x):
    """Assignments along a plate, given weights that are discrete too."""
    skewed = pyro.sample("skewed", dist.Bernoulli(0.3))
    probs = torch.stack([0.2 + 0.5 * skewed, 0.5 - 0.2 * skewed, 0.3 - 0.3 * skewed + 1e-3], -1)
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Categorical(probs))
        pyro.sample("x", dist.Normal(2.0 * z, 1.0), obs=x)


def coupled(x):
    """Sites along a plate that a factor outside of it ties together: no plate should say otherwise."""
    with pyro.plate("data", 3):
        z = pyro.sample("z", dist.Bernoulli(0.5))
    pyro.factor("pair", 2.0 * (z.sum(-1, keepdim=True) - 1.5) ** 2)


def chained(x):
    """Sites along a plate of which each depends on its neighbour."""
    with pyro.plate("data", 4):
        z = pyro.sample("z", dist.Bernoulli(0.4))
        pyro.factor("alike", 2.0 * (z == z.roll(1, -1)))


def far_apart(x):
    """Sites along a plate of which each depends on the one after the next: all even or all odd."""
    with pyro.plate("data", 4):
        z = pyro.sample("z", dist.Bernoulli(0.4))
        pyro.factor("alike", 2.0 * (z == z.roll(2, -1)))


def one_by_one(x):
    """Does not broadcast."""
    z = pyro.sample("z", dist.Bernoulli(torch.tensor([0.5, 0.5])).to_event(1))
    pyro.factor("both", 3.0 * (z[0] == z[1]))


def entries(x):
    """Events of several entries, of one-hot vectors, and of no plate."""
    v = pyro.sample("v", dist.Bernoulli(torch.tensor([[0.2, 0.5], [0.7, 0.4]])).to_event(2))
    one = pyro.sample("one", dist.OneHotCategorical(torch.tensor([[0.2, 0.8], [0.5, 0.5]])).to_event(1))
    k = pyro.sample("k", dist.Binomial(2, torch.tensor([0.3, 0.6])).to_event(1))
    pyro.factor("all", (v.sum((-1, -2)) - one[..., 0].sum(-1) * k.sum(-1)).tanh())


def in_two_plates(x):
    with pyro.plate("columns", 3, dim=-1), pyro.plate("rows", 2, dim=-2):
        z = pyro.sample("z", dist.Bernoulli(0.4))
        pyro.factor("drive", z * torch.tensor([[1.0, -1.0, 0.0], [0.5, 2.0, -2.0]]))


def joint(program, sites):
    """All joint values of the sites and their probabilities, by scoring the program at each."""
    batched = inference.batched_program.BatchedProgram(program, (X,))
    every = {name: list(value) for name, value in sites.items()}
    rows = list(itertools.product(*every.values()))
    values = {name: torch.stack([row[place] for row in rows]) for place, name in enumerate(every)}
    return values, batched.log_prob(values, len(rows)).softmax(0)


def binary(*shape):
    count = torch.Size(shape).numel()
    return torch.cartesian_prod(*[torch.tensor([0.0, 1.0])] * count).reshape(-1, *shape)


CASES = {
    "mixture": (mixture, {"skewed": binary(), "z": torch.cartesian_prod(*[torch.arange(3)] * 5)}),
    "coupled": (coupled, {"z": binary(3)}),
    "chained": (chained, {"z": binary(4)}),
    "entries": (
        entries,
        {
            "v": binary(2, 2),
            "one": torch.eye(2)[torch.cartesian_prod(torch.arange(2), torch.arange(2))],
            "k": torch.cartesian_prod(torch.arange(3.0), torch.arange(3.0)),
        },
    ),
    "in two plates": (in_two_plates, {"z": binary(2, 3)}),
}


@pytest.mark.parametrize("name", CASES)
def test_it_samples_the_joint_by_enumeration(name):
    program, sites = CASES[name]
    values, probabilities = joint(program, sites)
    chains = 2000
    draws = inference.run_chains(inference.Gibbs(program), 1, X, num_chains=chains, warmup=15, progress=False)
    for site, value in values.items():
        entry = value.reshape(len(value), -1).double()
        mean = probabilities @ entry
        second = torch.einsum("s,si,sj->ij", probabilities, entry, entry)
        found = draws.samples[site][:, 0].reshape(chains, -1).double()
        products = torch.einsum("ci,cj->cij", found, found)
        assert draws.samples[site].dtype == value.dtype
        assert (found.mean(0) - mean).abs().le(4 * found.std(0) / chains**0.5 + 1e-9).all()
        assert (products.mean(0) - second).abs().le(4 * products.std(0) / chains**0.5 + 1e-9).all()


@pytest.mark.parametrize(
    ("program", "at_once"),
    [(mixture, True), (coupled, False), (chained, False), (far_apart, False), (in_two_plates, True)],
)
def test_entries_along_plates_are_drawn_at_once_where_they_are_independent(program, at_once):
    calls = []

    def counted(x):
        calls.append(1)
        program(x)

    kernel = inference.Gibbs(counted, sites=["z"])
    inference.run_chains(kernel, 5, X, num_chains=1, warmup=0, progress=False)
    assert kernel.independent == {"z": at_once}
    before = len(calls)
    inference.run_chains(kernel, 25, X, num_chains=1, warmup=0, progress=False)
    per_sweep = (len(calls) - before - (before - 5)) / 20
    assert per_sweep < 3.5 if at_once else per_sweep > 3


def test_one_chain_of_a_program_that_does_not_broadcast():
    draws = inference.run_chains(inference.Gibbs(one_by_one), 400, X, num_chains=1, progress=False)
    alike = (draws.samples["z"][..., 0] == draws.samples["z"][..., 1]).double().mean()
    assert abs(alike - torch.sigmoid(torch.tensor(3.0))) < 0.06
    with pytest.raises(ValueError, match="a program that broadcasts"):
        inference.run_chains(inference.Gibbs(one_by_one), 2, X, num_chains=2, progress=False)


def test_what_ties_entries_together_at_other_states_is_seen_too():
    """At the start of the chains nothing does: a coefficient is zero, a gate shut, a value never next."""
    covariates = torch.tensor([[1.0, 0.5], [0.2, -1.0], [1.5, 0.3]])

    def spike_and_slab(x):
        with pyro.plate("coefficients", 2):
            z = pyro.sample("z", dist.Bernoulli(0.5))
            b = pyro.sample("b", dist.Normal(0.0, 1.0))
        loc = ((z * b).unsqueeze(-2) * covariates).sum(-1)
        with pyro.plate("data", 3):
            pyro.sample("y", dist.Normal(loc, 0.5), obs=torch.tensor([1.0, 0.5, 2.0]))

    def gate(x):
        g = pyro.sample("g", dist.Bernoulli(0.1))
        with pyro.plate("data", 2):
            z = pyro.sample("z", dist.Bernoulli(0.5))
        pyro.factor("both", 5 * g * (z[..., :1] == z[..., 1:]).squeeze(-1))

    def third(x):
        with pyro.plate("data", 2):
            z = pyro.sample("z", dist.Categorical(torch.ones(3)))
        pyro.factor("both", -5.0 * ((z == 2).all(-1, keepdim=True)))

    slab = inference.Gibbs(spike_and_slab, sites=["z"])
    start = {"z": torch.zeros(4, 2), "b": torch.zeros(4, 2)}
    inference.run_chains(slab, 2, X, initial=start, warmup=0, progress=False)
    assert slab.independent == {"z": False}
    shut = inference.Gibbs(third)
    inference.run_chains(shut, 2, X, initial={"z": torch.zeros(8, 2).long()}, warmup=0, progress=False)
    assert shut.independent == {"z": False}
    gated = inference.Gibbs(gate)
    inference.run_chains(gated, 2, X, num_chains=1, warmup=0, progress=False)
    assert not gated.independent["z"]


def test_a_sweep_leaves_the_joint_of_a_machine_as_it_is():
    machine = zoo.DBM((2, 2), (3, 2))
    with torch.no_grad():
        for parameter in machine.parameters():
            parameter.normal_(0.0, 0.8, generator=torch.Generator().manual_seed(0))
    exact = inference.run_chains(
        inference.BlockGibbs(machine), 1, num_chains=4000, warmup=100, progress=False
    )
    kernel = inference.Gibbs(lambda: machine.model(num=1))
    start = {name: value.unsqueeze(1) for name, value in exact.last.items()}
    draws = inference.run_chains(kernel, 1, initial=start, warmup=1, seed=1, progress=False)
    for name, value in exact.last.items():
        found, before = draws.last[name].squeeze(1).double(), value.double()
        error = (found.var(0) + before.var(0)).div(2000).sqrt()
        assert ((found.mean(0) - before.mean(0)).abs() < 4 * error).all() and (found != before).any()


@pytest.mark.parametrize(
    ("site", "said"),
    [
        (lambda: dist.Poisson(3.0), "Gibbs expects sites of finitely many values, got k of a Poisson"),
        (lambda: dist.Geometric(0.5), "Gibbs expects sites of finitely many values, got k of a Geometric"),
    ],
)
def test_infinitely_many_values_are_refused(site, said):
    with pytest.raises(ValueError, match=said):
        inference.run_chains(inference.Gibbs(lambda: pyro.sample("k", site())), 2, progress=False)
