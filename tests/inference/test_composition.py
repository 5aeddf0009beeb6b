"""`inference.Cycle` and `inference.Mixture`: several kernels on one state, each seeing it as it expects."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import MCMC

import inference

WALK = inference.RandomWalkMetropolis
X = torch.tensor([0.2, 5.1, 4.0, 0.6])


def clusters(x):
    """Two clusters of unknown spread: discrete assignments, and continuous sites with a constraint."""
    scale = pyro.sample("scale", dist.LogNormal(0.0, 0.3))
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Bernoulli(0.5))
        pyro.sample("x", dist.Normal(5 * z, scale), obs=x)


def scale_given_rest(state):
    """A draw of the scale on a grid, from its values in its own space."""
    assert (state["scale"] > 0).all(), "not unconstrained"
    grid = torch.linspace(0.05, 4.0, 400)
    residual = (X - 5 * state["z"]).square().sum(1)
    logits = dist.LogNormal(0.0, 0.3).log_prob(grid) - 4 * grid.log() - 0.5 * residual.unsqueeze(1) / grid**2
    return grid[dist.Categorical(logits=logits).sample()]


def exact_mean_of_scale():
    grid = torch.linspace(0.001, 8.0, 8000).double()
    z = torch.cartesian_prod(*[torch.tensor([0.0, 1.0])] * 4).double()
    log_p = dist.LogNormal(0.0, 0.3).log_prob(grid) + dist.Normal(5 * z.unsqueeze(2), grid).log_prob(
        X.double().unsqueeze(1)
    ).sum(1)
    weight = log_p.logsumexp(0).softmax(0)
    return (weight * grid).sum().item()


def cycle():
    return inference.Cycle(
        [inference.Gibbs(clusters, sites=["z"]), inference.HMC(clusters, sites=["scale"], num_steps=3)]
    )


def run(kernel, *args, num_draws=40, **settings):
    return inference.run_chains(kernel, num_draws, *args, **{"progress": False, **settings})


@pytest.mark.parametrize(
    "kernel",
    [
        cycle(),
        inference.Cycle(
            [inference.BlockGibbs({"scale": scale_given_rest}), inference.Gibbs(clusters, sites=["z"])]
        ),
        inference.Mixture(
            [
                inference.Gibbs(clusters, sites=["z"]),
                inference.RandomWalkMetropolis(clusters, sites=["scale"]),
            ],
            weights=[1, 3],
        ),
    ],
    ids=["Gibbs, HMC", "conditionals, Gibbs", "mixture"],
)
def test_kernels_of_parts_sample_the_whole(kernel):
    start = {"scale": torch.full((300,), 2.0), "z": torch.zeros(300, 4)}
    draws = run(kernel, X, initial=start, warmup=60)
    means = draws.samples["scale"].double().mean(1)
    assert abs(means.mean().item() - exact_mean_of_scale()) < 4 * means.std().item() / 300**0.5
    assert draws.samples["z"].dtype == torch.float32 and set(draws.samples) == {"z", "scale"}
    assert draws.dims["z"] == ["data"]


def test_statistics_of_all_parts_are_told():
    both = inference.Cycle(
        [
            inference.MALA(clusters, sites=["scale"]),
            inference.Gibbs(clusters, sites=["z"]),
            inference.RandomWalkMetropolis(clusters, sites=["scale"]),
        ]
    )
    draws = run(both, X, num_chains=4, num_draws=5)
    names = {"energy", "acceptance", "step_size", "divergent", "acceptance_2", "step_size_2"}
    assert set(draws.stats) == names
    state = {name: value[:, -1] for name, value in draws.samples.items()}
    density = inference.density.ProgramDensity(clusters, (X,), {})
    unconstrained = {
        name: density.transforms[name](v) if name in density.transforms else v for name, v in state.items()
    }
    assert torch.allclose(draws.stats["energy"][:, -1], -density(unconstrained), atol=1e-4), "of the draw"


@pytest.mark.parametrize("weights", [None, [1, 9]])
def test_a_mixture_applies_one_kernel_at_a_time_by_weight(weights):
    count = [0, 0]

    class Step(inference.Kernel):
        def __init__(self, place):
            self.place = place

        def sample(self, params):
            count[self.place] += 1
            return {"n": params["n"] + 1}

    mixture = inference.Mixture([Step(0), Step(1)], weights)
    draws = run(mixture, num_draws=1000, warmup=0, initial={"n": torch.zeros(2)})
    assert draws.samples["n"][0].tolist() == list(range(1, 1001)) and sum(count) == 1000
    expected = 1000 * (0.5 if weights is None else 0.1)
    assert abs(count[0] - expected) < 4 * (expected * (1 - expected / 1000)) ** 0.5


def test_adaptation_ends_with_warm_up_however_rarely_a_kernel_has_moved():
    rare = inference.MALA(clusters, sites=["scale"])
    mixture = inference.Mixture([inference.Gibbs(clusters, sites=["z"]), rare], weights=[4, 1])
    for draws in (run(mixture, X, num_chains=5, warmup=50), run(cycle(), X, num_chains=5, warmup=50)):
        step = draws.stats["step_size"]
        assert (step[:, 20:] == step[:, 20:21]).all()
    seen = []
    mcmc = MCMC(
        mixture,
        num_samples=40,
        warmup_steps=50,
        disable_progbar=True,
        hook_fn=lambda kernel, *_: seen.append(rare.adaptation.step_size.clone()),
    )
    mcmc.run(X)
    assert len({float(each[0]) for each in seen[:50]}) > 3
    assert len({float(each[0]) for each in seen[50:]}) == 1, "though Pyro never says that warm-up is over"


def test_chains_go_on_with_what_all_parts_have_learnt():
    first = run(cycle(), X, num_chains=5, warmup=80)
    on = run(cycle(), X, initial=first, num_draws=3, seed=1)
    assert torch.equal(on.stats["step_size"][:, 0], first.stats["step_size"][:, 0])


def test_pyros_mcmc_gives_values_in_their_own_space_and_type():
    def program():
        k = pyro.sample("k", dist.Categorical(torch.tensor([0.2, 0.3, 0.5])))
        pyro.sample("rate", dist.Gamma(1.0 + k, 1.0))

    parts = [inference.Gibbs(program, sites=["k"]), inference.MALA(program, sites=["rate"])]
    mcmc = MCMC(inference.Cycle(parts), num_samples=5, warmup_steps=5, disable_progbar=True)
    mcmc.run()
    samples = mcmc.get_samples()
    assert samples["k"].dtype == torch.int64 and samples["k"].shape == (5, 1)
    assert (samples["rate"] > 0).all()


def test_processes_of_pyros_know_the_transforms_of_kernels_that_run_elsewhere():
    def program():
        k = pyro.sample("k", dist.Categorical(torch.tensor([0.2, 0.3, 0.5])))
        pyro.sample("rate", dist.Gamma(1.0 + k, 1.0))

    parts = [inference.Gibbs(program, sites=["k"]), inference.MALA(program, sites=["rate"])]
    for kernel in (inference.Cycle(parts), *parts):
        mcmc = MCMC(kernel, num_samples=1, warmup_steps=0, disable_progbar=True)
        mcmc._set_transforms()  # as it does in the process that collects what others have drawn
        assert mcmc.transforms["rate"].inv(torch.tensor(-3.0)) > 0
        assert mcmc.transforms["k"].inv(torch.tensor(2.0)).dtype == torch.int64
    free = inference.MALA(log_density=lambda s: -(s["x"] ** 2))
    for kernel in (free, inference.BlockGibbs({"x": len})):
        assert inference.Cycle([kernel]).transforms == {}


def test_the_parts_share_the_values_that_an_objective_was_trained_to():
    def program(x):
        loc = pyro.param("loc", torch.tensor(0.0))
        z = pyro.sample("z", dist.Normal(loc, 1e-3))
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    def guide(x):
        pyro.sample("z", dist.Normal(3.0, 1e-3))

    elbo = inference.ELBO(program, guide)
    elbo.program.prepare(X)
    with torch.no_grad():
        elbo.program.free_parameters[0].fill_(3.0)
    for kernel in (inference.MALA(elbo), inference.Cycle([inference.MALA(elbo)])):
        draws = run(kernel, X, num_draws=5, initial={"z": torch.full((4,), 3.0)}, warmup=0)
        assert (draws.samples["z"] - 3.0).abs().max() < 0.1 and draws.stats["energy"].max() < 100
    pyro.clear_param_store()


def test_what_a_part_does_not_move_is_the_same_to_the_bit():
    only = inference.Cycle([inference.Gibbs(clusters, sites=["z"])])
    start = {"scale": torch.rand(50) + 0.1, "z": torch.zeros(50, 4)}
    draws = run(only, X, initial=start, num_draws=20)
    assert set(draws.samples) == {"z"}
    assert torch.allclose(draws.last["scale"], start["scale"])
    kept = run(only, X, initial=start, num_draws=20, sites=["scale"])
    assert (kept.samples["scale"] == kept.samples["scale"][:, :1]).all()


@pytest.mark.parametrize(
    ("made", "said"),
    [
        (lambda: inference.Cycle([]), r"a list of kernels, got \[\]"),
        (lambda: inference.Cycle(cycle()), "a list of kernels, got <"),
        (lambda: inference.Cycle([clusters]), "kernels that move many chains at once, got function"),
        (
            lambda: inference.Mixture([cycle()], [1, 2]),
            r"weight for each of 1 kernels, got \[1, 2\]",
        ),
        (lambda: inference.Mixture([cycle()], [0]), r"a positive weight for each of 1 kernels, got \[0\]"),
    ],
)
def test_what_is_no_list_of_kernels_is_refused(made, said):
    with pytest.raises(ValueError, match=said):
        made()
