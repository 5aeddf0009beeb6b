"""Programs and functions that chains run on: their log-density, where they start, and what is refused."""

from functools import partial
from typing import NamedTuple

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.distributions import constraints
from pyro.infer.mcmc.util import initialize_model

import inference
from inference.batched_program import BatchedProgram
from inference.density import FunctionDensity, Layout, ProgramDensity

X = torch.tensor([0.4, -1.0, 2.5, 0.1])
FLIPS = torch.tensor([1.0, 1.0, 0.0])
WALK = inference.RandomWalkMetropolis


def hierarchy(x):
    """Sites of every kind of support, in plates of two depths, with a mask, a scale and a factor."""
    weights = pyro.sample("weights", dist.Dirichlet(torch.tensor([2.0, 1.0, 3.0])))
    scale = pyro.sample("scale", dist.LogNormal(0.0, 0.5))
    bound = pyro.sample("bound", dist.Uniform(-1.0, 3.0))
    corr = pyro.sample("corr", dist.LKJCholesky(3, 2.0))
    with pyro.plate("groups", 3, dim=-2):
        loc = pyro.sample("loc", dist.Normal(bound, scale))
        with pyro.plate("items", len(x), dim=-1):
            z = pyro.sample("z", dist.Normal(loc, 1.0).mask(torch.arange(4) > 0))
            with pyro.poutine.scale(scale=0.5):
                pyro.sample("x", dist.StudentT(4.0, z, scale), obs=x.expand(3, 4))
    pyro.deterministic("twice", 2 * scale)
    pyro.factor("extra", corr[..., 2, 0] + weights[..., 0].log())


def coin(x):
    p = pyro.sample("p", dist.Beta(2.0, 2.0))
    with pyro.plate("data", len(x)):
        pyro.sample("x", dist.Bernoulli(p), obs=x)


def run(kernel, *args, num_draws=3, **settings):
    return inference.run_chains(kernel, num_draws, *args, **{"progress": False, **settings})


# The log-density


def test_it_is_minus_the_potential_of_pyros_hmc_for_every_chain():
    density = ProgramDensity(hierarchy, (X,), {})
    state = density.start(5)
    _, potential, transforms, _ = initialize_model(hierarchy, (X,))
    assert density.transforms.keys() == transforms.keys()
    found = density(state)
    assert found.dtype == torch.float64 and found.shape == (5,)
    for chain in range(5):
        one = {name: value[chain] for name, value in state.items()}
        assert found[chain].item() == pytest.approx(-potential(one).item(), abs=1e-4)
        alone = {name: value[chain : chain + 1] for name, value in state.items()}
        assert torch.allclose(density(alone), found[chain], atol=1e-5)


def test_the_values_are_in_their_supports_and_back():
    density = ProgramDensity(hierarchy, (X,), {})
    state = density.start(5)
    values = density.constrain(state)
    for name, site in density.program.sites.items():
        if site.draws:
            assert (
                values[name].shape == (5, *site.shape) and site.distribution.support.check(values[name]).all()
            )
            assert torch.allclose(density.transforms[name](values[name]), state[name], atol=1e-4)


def test_sites_outside_the_support_of_their_data_are_seen_before_the_run():
    with pytest.raises(ValueError, match=r"the data of x in Boolean\(\), got 2"):
        run(WALK(coin), FLIPS + 1)


def test_data_in_float64_and_parameters_stay_as_they_are():
    class Program(pyro.nn.PyroModule):
        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.ones(1, dtype=torch.float64))
            self.seen = set()

        def model(self, x):
            pyro.module("program", self)
            self.seen.add((self.training, self.weight.requires_grad))
            mean = pyro.sample("mean", dist.Normal(torch.zeros((), dtype=torch.float64), 1.0))
            with pyro.plate("data", len(x)):
                pyro.sample("x", dist.Normal(mean * self.weight, 1.0), obs=x)

    program = Program()
    pyro.param("mine", torch.ones(2))
    before = torch.get_rng_state()
    for kernel in (inference.MALA(program), inference.HMC(program, num_steps=2), WALK(program)):
        for chains in (1, 3):
            draws = run(kernel, X.double(), num_chains=chains)
            assert draws.samples["mean"].dtype == torch.float64
    assert program.seen == {(False, False)} and program.training and program.weight.requires_grad
    assert program.weight.grad is None and list(pyro.get_param_store()) == ["mine"]
    assert torch.equal(torch.get_rng_state(), before)


def test_parameters_of_plain_functions_are_those_of_pyros_store():
    def program(x):
        loc = pyro.param("loc", torch.tensor(0.0))
        mean = pyro.sample("mean", dist.Normal(loc, 0.01))
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(mean, 10.0), obs=x)

    pyro.param("loc", torch.tensor(50.0))
    draws = run(inference.HMC(program), X, num_draws=50, num_chains=4)
    assert abs(draws.samples["mean"].mean().item() - 50) < 0.1


def test_a_function_may_have_supports():
    def gamma(state):
        return 2 * state["rate"].log() - 3 * state["rate"]

    kernel = inference.HMC(log_density=gamma, support={"rate": constraints.positive})
    draws = run(kernel, num_draws=60, initial={"rate": torch.ones(200)})
    assert (draws.samples["rate"] > 0).all()
    means = draws.samples["rate"].mean(1)
    assert abs(means.mean() - 1.0) < 4 * means.std() / 200**0.5


def test_the_gradient_is_torchs():
    density = FunctionDensity(lambda s: (-(s["a"] ** 4)).sum(1) - s["b"] ** 2, None)
    state = {"a": torch.randn(4, 2), "b": torch.randn(4)}
    layout = Layout(state, ("b", "a"))
    x = layout.flat(state)
    assert x.shape == (4, 3) and torch.equal(layout.sites(x)["a"], state["a"])
    total, slope = density.gradient(layout, x, state)
    assert torch.allclose(slope, torch.cat([-2 * state["b"].unsqueeze(1), -4 * state["a"] ** 3], 1))
    assert torch.allclose(total, density(state)) and not total.requires_grad


def test_sites_of_several_types_keep_theirs():
    kernel = WALK(log_density=lambda s: -(s["a"] ** 2) - s["b"].double() ** 2)
    start = {"a": torch.zeros(3, dtype=torch.float64), "b": torch.zeros(3)}
    draws = run(kernel, initial=start)
    assert draws.samples["a"].dtype == torch.float64 and draws.samples["b"].dtype == torch.float32


# Plates


def test_dimensions_have_the_names_of_their_plates():
    draws = run(WALK(hierarchy), X, num_chains=2)
    assert draws.dims["loc"] == ["groups", "loc_dim_1"]
    assert draws.dims["z"] == ["groups", "items"]
    assert draws.dims["weights"] == ["weights_dim_0"] and draws.dims["scale"] == []
    assert draws.dims["corr"] == ["corr_dim_0", "corr_dim_1"]


def test_draws_of_the_prior_are_made_side_by_side():
    def program():
        scale = pyro.sample("scale", dist.Gamma(4.0, 2.0))
        with pyro.plate("items", 3):
            z = pyro.sample("z", dist.Normal(0.0, scale))
            pyro.sample("w", dist.Poisson(z.exp().clamp(max=5.0)))

    calls = []
    batched = BatchedProgram(lambda: (calls.append(1), program()))
    drawn = batched.draw(20_000)
    assert {name: tuple(value.shape) for name, value in drawn.items()} == {
        "scale": (20_000,),
        "z": (20_000, 3),
        "w": (20_000, 3),
    }
    assert len(calls) < 50
    assert abs(drawn["scale"].mean() - 2) < 4 * 1 / 20_000**0.5
    assert abs((drawn["z"] / drawn["scale"].unsqueeze(1)).var() - 1) < 0.03
    given = batched.draw(5, {"scale": torch.full((5,), 1e-6)})
    assert (given["scale"] == 1e-6).all() and given["z"].abs().max() < 1e-4


# What does not broadcast


def flattened(x):
    mean = pyro.sample("mean", dist.Normal(torch.zeros(4), 1.0).to_event(1))
    pyro.sample("x", dist.Normal(mean.reshape(2, 2).sum(1), 1.0).to_event(1), obs=x[:2])


def summed(x):
    with pyro.plate("items", 4):
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
    pyro.sample("x", dist.Normal(z.sum(), 1.0), obs=x[0])


def branching(x):
    mean = pyro.sample("mean", dist.Normal(0.0, 1.0))
    pyro.sample("x", dist.Normal(1.0 if mean > 0 else -1.0, 1.0), obs=x[0])


@pytest.mark.parametrize(
    ("program", "reason"),
    [
        (
            flattened,
            r"it raised RuntimeError after site mean \(shape '\[2, 2\]' is invalid for input of size 64\)",
        ),
        (summed, "site x has other log-probabilities for many chains than for each alone"),
        (branching, "it raised RuntimeError after site mean"),
    ],
)
def test_a_program_that_does_not_broadcast_is_refused_with_the_reason(program, reason):
    said = "expected a program that broadcasts, to run 3 chains as one more dimension on the left: " + reason
    for kernel in (WALK(program), inference.HMC(program)):
        with pytest.raises(ValueError, match=said) as caught:
            run(kernel, X, num_chains=3)
        assert "num_chains=1" in str(caught.value) and "\n" not in str(caught.value)


def test_one_chain_runs_any_program():
    draws = run(inference.HMC(summed, num_steps=4), X, num_draws=200, num_chains=1, warmup=60)
    # z_i | x ~ N(x/5, 1 - 1/5), so that their sum has the mean 4 x / 5 and the variance 4 / 5.
    total = draws.samples["z"].sum(-1)
    assert abs(total.mean().item() - 0.8 * 0.4) < 0.25 and abs(total.var().item() - 0.8) < 0.3
    assert run(WALK(branching), X, num_chains=1).num_chains == 1


@pytest.mark.parametrize("seed", range(4))
def test_a_branch_that_is_rarely_taken_is_seen(seed):
    with pytest.raises(ValueError, match="expected a program that broadcasts"):
        run(WALK(rarely_branching), num_chains=16, seed=seed)
    lone = run(WALK(rarely_branching), num_draws=2000, num_chains=1, seed=seed)
    assert (lone.samples["x"] > 1.0).float().mean() < 0.01, "nor does a lone chain look ahead"


def test_a_walk_needs_no_gradient_to_start():
    x = torch.tensor([1.0, torch.nan, 2.0])
    assert run(WALK(masked), x, num_chains=3).num_draws == 3
    with pytest.raises(ValueError, match="its gradient is not finite"):
        run(inference.MALA(masked), x, num_chains=3)


def test_arguments_that_have_an_x_are_left_alone():
    class Point(NamedTuple):
        x: torch.Tensor
        y: torch.Tensor

    def program(point):
        pyro.sample("mean", dist.Normal(point.x + point.y, 1.0))

    assert run(WALK(program), Point(torch.tensor(1.0), torch.tensor(2.0))).num_draws == 3


# What is refused


def mixed(x):
    z = pyro.sample("z", dist.Categorical(torch.ones(3)))
    pyro.sample("mean", dist.Normal(1.0 * z, 1.0))


def nested_support():
    low = pyro.sample("low", dist.Normal(0.0, 1.0))
    pyro.sample("x", dist.Uniform(low, low + 1.0))


def subsampled(x):
    mean = pyro.sample("mean", dist.Normal(0.0, 1.0))
    with pyro.plate("data", 4, subsample_size=2) as index:
        pyro.sample("x", dist.Normal(mean, 1.0), obs=x[index])


def gated_support():
    """A support that hardly ever differs."""
    k = pyro.sample("k", dist.Bernoulli(0.02))
    pyro.sample("x", dist.Uniform(torch.zeros_like(k), 1.0 + k))


def rarely_branching():
    x = pyro.sample("x", dist.Normal(0.0, 1.0))
    pyro.factor("tail", -5.0 + 0 * x if (x > 1.0).any() else 0 * x)


def noisy():
    x = pyro.sample("x", dist.Normal(0.0, 1.0))
    pyro.factor("noise", x * torch.rand(()))


def masked(x):
    mean = pyro.sample("mean", dist.Normal(0.0, 1.0))
    with pyro.plate("data", len(x)), pyro.poutine.mask(mask=~x.isnan()):
        pyro.sample("x", dist.Normal(mean, 1.0), obs=x)


def never(x):
    mean = pyro.sample("mean", dist.Normal(0.0, 1.0))
    pyro.factor("never", torch.full_like(mean, -torch.inf))


def steep(x):
    mean = pyro.sample("mean", dist.Normal(0.0, 1.0))
    pyro.factor("root", (mean * 0).sqrt())  # 0 everywhere, and its slope is not a number


@pytest.mark.parametrize(
    ("kernel", "args", "settings", "said"),
    [
        (
            inference.MALA(mixed),
            (X,),
            {},
            r"MALA moves continuous sites, got discrete z: let Gibbs draw it, as in Cycle\(\[Gibbs\(model, ",
        ),
        (
            inference.Gibbs(mixed),
            (X,),
            {},
            "Gibbs moves discrete sites, got continuous mean: let another kernel",
        ),
        (WALK(mixed, sites=["mean", "w"]), (X,), {}, "sites out of z, mean, got w"),
        (WALK(mixed, sites=[]), (X,), {}, "sites out of z, mean, got none"),
        (WALK(nested_support), (), {}, "a support of x that depends on no other site"),
        (WALK(subsampled), (X,), {}, "all items at once, got 2 of 4 in the plate data"),
        (WALK(lambda x: None), (X,), {}, "a program with latent sites, got none"),
        (
            WALK(never),
            (X,),
            {},
            "no start of positive density was found in 100 tries: log p of never is -inf",
        ),
        (
            inference.MALA(steep),
            (X,),
            {},
            "no start of positive density was found .*: its gradient is not finite",
        ),
        (
            WALK(coin),
            (FLIPS,),
            {"initial": {"p": torch.tensor([0.5, torch.nan, 0.2])}},
            "start where the log-density and its gradient are finite, got 1 of 3 that do not",
        ),
        (
            WALK(coin),
            (FLIPS,),
            {"initial": {"p": torch.full((3, 2), 0.5)}},
            r"values of p of shape \(\) by chain, got \(2,\)",
        ),
        (
            WALK(coin),
            (FLIPS,),
            {"initial": {"q": torch.ones(3)}},
            r"values of p of shape \(\) by chain, got none",
        ),
        (
            WALK(coin),
            (FLIPS,),
            {"initial": {"p": torch.tensor([1, 0])}},
            r"values of p as floating point numbers, got torch.int64",
        ),
        (
            WALK(coin),
            (FLIPS,),
            {"initial": {"p": 0.5}},
            "p to be a tensor whose first dimension is the chains, got float",
        ),
        (
            inference.Gibbs(mixed, sites=["z"]),
            (X,),
            {"initial": {"z": torch.tensor([0, 7]), "mean": torch.zeros(2)}},
            "values of z out of 0, 1, 2, …, got others",
        ),
        (
            inference.Cycle([inference.Gibbs(gated_support, sites=["k"]), WALK(gated_support, sites=["x"])]),
            (),
            {"num_draws": 300, "num_chains": 20},
            "a support of x that depends on no other site",
        ),
        (
            WALK(noisy),
            (),
            {"num_chains": 1},
            "a log-density that is the same each time, got two for one state",
        ),
        (
            WALK(log_density=lambda s: -(s["x"] ** 2), support={"y": constraints.positive}),
            (),
            {"initial": {"x": torch.zeros(3)}},
            "supports of some of x, got y",
        ),
        (WALK(log_density=lambda s: s["x"]), (), {}, "knows no state to start from: expected initial values"),
        (
            WALK(log_density=lambda s: s["x"].sum()),
            (),
            {"initial": {"x": torch.zeros(3)}},
            r"the log-density of 3 chains, of shape \(3,\), got \(\)",
        ),
        (
            WALK(log_density=lambda s: -torch.inf * (1 + s["x"] ** 2)),
            (),
            {"initial": {"x": torch.zeros(3)}},
            "got 3 of 3 that do not: its log-density is -inf",
        ),
        (
            inference.MALA(log_density=lambda s: (s["x"] * 0).sqrt()),
            (),
            {"initial": {"x": torch.zeros(3)}},
            "got 3 of 3 that do not: its gradient is not finite",
        ),
        (
            inference.MALA(log_density=lambda s: -(s["x"].detach() ** 2)),
            (),
            {"initial": {"x": torch.zeros(3)}},
            "a log-density that depends on x by torch's operations, got one without a gradient",
        ),
        (
            inference.MALA(log_density=lambda s: -1.0 * s["k"]),
            (),
            {"initial": {"k": torch.zeros(3, dtype=torch.int64)}},
            "MALA moves continuous sites, got discrete k",
        ),
        (
            WALK(log_density=lambda s: -(s["x"] ** 2)),
            (X,),
            {"initial": {"x": X}},
            "runs without arguments, got 1",
        ),
    ],
)
def test_what_cannot_be_run_is_refused_in_one_line(kernel, args, settings, said):
    before = torch.get_rng_state()
    with pytest.raises(ValueError, match=said) as caught:
        run(kernel, *args, **settings)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 260
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    ("made", "said"),
    [
        (lambda: WALK(), "expects a program or a log_density, got neither"),
        (lambda: WALK(coin, log_density=coin), "expects a program or a log_density, got both"),
        (lambda: WALK(log_density=3), "log_density to be a function, got int"),
        (lambda: WALK(coin, sites="p"), "sites to be a list of names, got 'p'"),
        (lambda: WALK(3), "a Pyro program and its guide, got int"),
        (lambda: inference.HMC(coin, num_steps=0), "num_steps must be an integer of at least 1, got 0"),
        (lambda: inference.Langevin(coin, step_size=-1.0), "step_size to be a positive number, got -1.0"),
        (
            lambda: inference.StochasticHillClimb(coin, step_size=0),
            "step_size to be a positive number, got 0",
        ),
    ],
)
def test_what_cannot_be_made_is_refused(made, said):
    with pytest.raises(ValueError, match=said):
        made()


# Langevin and the hill climb


def test_langevin_that_diverges_says_so_and_what_to_do():
    kernel = inference.Langevin(log_density=lambda s: -(s["x"] ** 4), step_size=1.0)
    said = r"3 of 3 chains of Langevin left .* after \d+ transitions: a step_size below 1 is needed, or MALA"
    with pytest.raises(FloatingPointError, match=said):
        run(kernel, num_draws=50, initial={"x": torch.full((3,), 5.0)})


def test_langevins_step_may_fall_as_the_chain_goes():
    steps = []
    kernel = inference.Langevin(log_density=lambda s: -(s["x"] ** 2), step_size=lambda t: 1 / (10 + t))
    draws = run(kernel, num_draws=4, warmup=2, initial={"x": torch.zeros(3)})
    steps = draws.stats["step_size"][0].tolist()
    assert steps == pytest.approx([1 / 12, 1 / 13, 1 / 14, 1 / 15])
    again = run(kernel, num_draws=4, warmup=2, initial={"x": torch.zeros(3)})
    assert torch.equal(draws.samples["x"], again.samples["x"]), "counted anew in each run"
    wrong = inference.Langevin(log_density=lambda s: -(s["x"] ** 2), step_size=lambda t: 0.0)
    with pytest.raises(ValueError, match=r"step_size to be a positive number, got 0\.0"):
        run(wrong, initial={"x": torch.zeros(3)})


def test_the_hill_climb_never_goes_down_and_ends_at_a_mode():
    def modes(state):
        return torch.logsumexp(torch.stack([-((state["x"] - 3) ** 2), -((state["x"] + 2) ** 2) - 1]), 0)

    climb = inference.StochasticHillClimb(log_density=modes, step_size=0.3)
    draws = run(climb, num_draws=400, warmup=0, initial={"x": torch.linspace(-4, 5, 50)})
    assert (draws.stats["energy"].diff(dim=1) <= 0).all()
    away = torch.minimum((draws.last["x"] - 3).abs(), (draws.last["x"] + 2).abs())
    assert away.max() < 0.05 and (draws.last["x"] > 0).any() and (draws.last["x"] < 0).any()


def correlated():
    """Two numbers whose covariance has no factor where |r| ≥ 2.1, as chains may propose, and never start."""
    r = pyro.sample("r", dist.Normal(0.0, 1.0))
    covariance = torch.stack([torch.ones_like(r), r / 2.1, r / 2.1, torch.ones_like(r)], -1)
    tril = torch.linalg.cholesky(covariance.reshape(*r.shape, 2, 2))
    pyro.sample("x", dist.MultivariateNormal(torch.zeros(2), scale_tril=tril), obs=torch.ones(2))


def test_a_matrix_without_a_factor_loses_its_chain_alone():
    density = ProgramDensity(correlated, (), {})
    state = {"r": torch.tensor([0.5, 3.0, -0.3, 2.5, 0.0])}
    layout = Layout(state, ["r"])
    total, slope = density.gradient(layout, layout.flat(state), state)
    assert total.isneginf().tolist() == [False, True, False, True, False]
    single = [{"r": state["r"][[i]]} for i in (0, 2, 4)]
    alone = [density.gradient(layout, layout.flat(each), each) for each in single]
    assert torch.equal(total[[0, 2, 4]], torch.cat([each[0] for each in alone]))
    assert torch.allclose(slope[[0, 2, 4]], torch.cat([each[1] for each in alone]))
    for kernel in (inference.HMC, inference.MALA, inference.RandomWalkMetropolis):
        draws = inference.run_chains(kernel(correlated), 15, num_chains=10, progress=False)
        assert draws.samples["r"].abs().max() < 2.1
        draws = inference.run_chains(kernel(correlated), 15, num_chains=1, progress=False)
        assert draws.samples["r"].abs().max() < 2.1


@pytest.mark.parametrize("kernel", [inference.MALA, partial(inference.HMC, num_steps=2)])
def test_proposals_that_are_no_number_are_rejected_and_told(kernel):
    def half(state):
        """A half-normal with nothing to say below zero."""
        return torch.where(state["x"] > 0, -0.5 * state["x"] ** 2, torch.nan)

    draws = run(
        kernel(log_density=half, step_size=0.5), num_draws=100, initial={"x": torch.rand(100)}, warmup=0
    )
    assert (draws.samples["x"] > 0).all()
    assert draws.stats["divergent"].any() and not draws.stats["divergent"].all()
    assert torch.equal(draws.stats["divergent"], draws.stats["divergent"] & (draws.stats["acceptance"] == 0))
