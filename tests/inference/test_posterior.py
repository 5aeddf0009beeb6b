"""`nuts`, `posterior_draws`, `log_predictive`: against closed forms, on programs that a user would write."""

import logging
import math

import arviz
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import MCMC, NUTS, Predictive
from pyro.infer.autoguide import AutoDelta, AutoMultivariateNormal, AutoNormal

import inference
import inference.chains
import inference.posterior
from inference.chains import chain_seeds

NOISE, PRIOR_MEAN, PRIOR_SCALE = 1.5, 0.5, 2.0


def normal(x):
    """A mean of known variance, conjugate."""
    mean = pyro.sample("mean", dist.Normal(PRIOR_MEAN, PRIOR_SCALE))
    with pyro.plate("data", len(x)):
        pyro.sample("x", dist.Normal(mean, NOISE), obs=x)


def coin(x):
    p = pyro.sample("p", dist.Beta(2.0, 3.0))
    with pyro.plate("data", len(x)):
        pyro.sample("x", dist.Bernoulli(p), obs=x)


def regression(x):
    """Two weights that the data correlate."""
    w = pyro.sample("w", dist.Normal(torch.zeros(2), 1.0).to_event(1))
    mean = (inputs() @ w.unsqueeze(-1)).squeeze(-1)
    with pyro.plate("data", len(x)):
        pyro.sample("x", dist.Normal(mean, 0.5), obs=x)


def inputs():
    return torch.stack([torch.linspace(0.0, 2.0, 12), torch.ones(12)], -1)


X = torch.tensor([1.9, 0.3, 2.8, 1.1, -0.6, 3.2, 1.5, 0.9])
FLIPS = torch.tensor([1.0, 1, 0, 1, 1, 1, 0, 1, 1, 1])


def normal_posterior(x):
    precision = PRIOR_SCALE**-2 + len(x) * NOISE**-2
    mean = (PRIOR_MEAN * PRIOR_SCALE**-2 + x.double().sum().item() * NOISE**-2) / precision
    return mean, precision**-0.5


def run(program, *args, **settings):
    quick = {"num_draws": 200, "num_chains": 2, "warmup": 100, "progress": False}
    return inference.nuts(program, *args, **{**quick, **settings})


def agrees(values, expected, errors=4):
    """Whether the mean of ``(chain, draw)`` numbers is right, within Monte Carlo errors."""
    return abs(values.mean().item() - expected) < errors * float(arviz.mcse(values.numpy(), method="mean"))


@pytest.fixture(scope="module")
def draws():
    return run(normal, X, num_draws=300)


# NUTS


def test_nuts_draws_from_a_normal_posterior(draws):
    mean, scale = normal_posterior(X)
    values = draws.samples["mean"].double()
    assert agrees(values, mean) and agrees((values - mean).square(), scale**2)
    assert float(arviz.ess(values.numpy())) > 100, "enough for the comparison to say something"


def test_nuts_draws_from_a_beta_posterior_in_its_own_space():
    draws = run(coin, FLIPS, num_draws=250)
    p = draws.samples["p"].double()
    posterior = dist.Beta(2.0 + FLIPS.sum(), 3.0 + (1 - FLIPS).sum())
    assert ((p > 0) & (p < 1)).all()
    assert agrees(p, posterior.mean.item())
    assert agrees((p - posterior.mean).square(), posterior.variance.item())
    # The energy is that of the unconstrained space: the logit, with its Jacobian.
    joint = dist.Beta(2.0, 3.0).log_prob(p) + dist.Bernoulli(p.unsqueeze(-1)).log_prob(FLIPS.double()).sum(-1)
    energy = -joint - (p * (1 - p)).log()
    torch.testing.assert_close(draws.stats["energy"], energy, atol=1e-4, rtol=1e-4)


def test_what_nuts_gives_back(draws):
    assert draws.samples["mean"].shape == (2, 300) and draws.samples["mean"].dtype == torch.float32
    assert (draws.num_chains, draws.num_draws, draws.warmup, draws.thin) == (2, 300, 100, 1)
    assert torch.equal(draws.last["mean"], draws.samples["mean"][:, -1]) and not draws.interrupted
    types = {name: value.dtype for name, value in draws.stats.items()}
    numbers = dict.fromkeys(["energy", "acceptance", "step_size"], torch.float64)
    assert types == {**numbers, "divergent": torch.bool}
    assert all(value.shape == (2, 300) for value in draws.stats.values())
    acceptance = draws.stats["acceptance"]
    assert ((acceptance >= -1e-9) & (acceptance <= 1 + 1e-9)).all() and acceptance.std() > 0.01
    assert 0.6 < acceptance.mean() < 0.99 and not draws.stats["divergent"].any()
    row = inference.diagnose(draws, sites=["mean"]).rows[-1]
    assert row.name == "mean" and row.r_hat < 1.1 and row.ess_bulk > 100
    data = inference.to_arviz(draws)
    assert data["posterior"]["mean"].shape == (2, 300)
    assert set(data["sample_stats"]) == {"energy", "lp", "acceptance_rate", "diverging", "step_size"}


def test_every_chain_starts_and_adapts_afresh(draws):
    steps = draws.stats["step_size"]
    assert (steps == steps[:, :1]).all(), "fixed after the warm-up"
    assert steps[0, 0] != steps[1, 0]
    assert not torch.equal(draws.samples["mean"][0], draws.samples["mean"][1])
    # A chain starts from a step of 1.
    narrow = run(
        lambda x: pyro.sample("z", dist.Normal(0.0, 1e-3)), X, num_draws=5, warmup=60, adapt_mass_matrix=False
    )
    assert ((narrow.stats["step_size"] < 5e-3) & (narrow.stats["step_size"] > 5e-4)).all()
    assert narrow.samples["z"].abs().max() < 0.01


def test_each_chain_has_a_seed_of_its_own():
    first, again, more, other = (
        run(normal, X, num_draws=5, warmup=5, seed=seed, num_chains=chains)
        for seed, chains in ((1, 2), (1, 2), (1, 3), (2, 2))
    )
    assert torch.equal(first.samples["mean"], again.samples["mean"])
    assert all(torch.equal(first.stats[name], again.stats[name]) for name in first.stats)
    assert torch.equal(more.samples["mean"][:2], first.samples["mean"]), "however many chains there are"
    fewer = run(normal, X, num_draws=3, warmup=5, seed=1)
    assert torch.equal(fewer.samples["mean"], first.samples["mean"][:, :3]), "or draws of the chain before"
    assert not torch.equal(other.samples["mean"], first.samples["mean"])
    kept = run(regression, torch.zeros(12), num_draws=3, warmup=2, seed=1, sites=["w"])
    assert kept.samples["w"].shape == (2, 3, 2)


def test_draws_acceptance_and_divergences_are_those_of_pyros_own_chains(monkeypatch):
    """Each chain is what Pyro's MCMC gives for a kernel that has never run, from the chain's seed."""

    def funnel():
        scale = pyro.sample("scale", dist.Normal(0.0, 9.0))
        pyro.sample("z", dist.Normal(torch.zeros(3), (scale / 2).exp()).to_event(1))

    draws = run(funnel, num_draws=40, warmup=10, step_size=2.0, adapt_step_size=False)
    for chain, seed in enumerate(chain_seeds(0, 2)):
        means = []
        kernel = NUTS(funnel, step_size=2.0, adapt_step_size=False)
        logging_of = kernel.logging
        kernel.logging = lambda means=means, of=logging_of: means.append(of()["acc. prob"]) or {}
        mcmc = MCMC(kernel, num_samples=40, warmup_steps=10, disable_progbar=True)
        torch.manual_seed(seed)
        mcmc.run()
        for name, value in mcmc.get_samples().items():
            assert torch.equal(draws.samples[name][chain], value)
        told = mcmc.diagnostics()["divergences"]["chain 0"]
        assert draws.stats["divergent"][chain].nonzero().flatten().tolist() == told and 0 < len(told) < 40
        assert f"{draws.stats['acceptance'][chain].mean().item():.3f}" == means[-1]


class Machine(pyro.nn.PyroModule):
    """PPCA with z latent; its parameters are constants to NUTS."""

    def __init__(self):
        super().__init__()
        self.V = torch.nn.Parameter(torch.tensor([[1.0, 0.3], [-0.5, 0.8], [0.7, 0.7]]))
        self.loc = torch.nn.Parameter(torch.tensor([0.5, -1.0, 0.0]), requires_grad=False)
        self.modes = set()

    def model(self, x):
        self.modes.add((self.training, self.V.requires_grad))
        pyro.module("machine", self)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z @ self.V.T + self.loc, 0.6).to_event(1), obs=x)

    def guide(self, x):
        pass


def test_nuts_over_the_codes_of_items_and_what_it_leaves_alone():
    machine, x = Machine(), torch.tensor([[1.2, -2.0, 0.4], [-0.3, 0.5, 1.0]])
    logger = logging.getLogger("pyro.infer.mcmc")
    before = torch.get_rng_state(), logger.handlers, logger.propagate
    pyro.param("mine", torch.ones(2))
    with torch.no_grad():
        draws = run(machine, x, num_draws=120, warmup=60)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert (logger.handlers, logger.propagate) == before[1:]
    assert list(pyro.get_param_store()) == ["mine"]
    assert machine.training and machine.modes == {(False, False)}
    assert machine.V.requires_grad and not machine.loc.requires_grad and machine.V.grad is None
    z = draws.samples["z"].double()
    assert z.shape == (2, 120, 2, 2) and draws.last["z"].shape == (2, 2, 2)
    V = machine.V.detach().double()
    M = V.T @ V + 0.36 * torch.eye(2)
    mean = torch.linalg.solve(M, V.T @ (x - machine.loc).double().T).T
    covariance = 0.36 * torch.linalg.inv(M)
    for item in range(2):
        centred = z[:, :, item] - mean[item]
        for i in range(2):
            assert agrees(z[:, :, item, i], mean[item, i].item())
            for j in range(i + 1):
                assert agrees(centred[..., i] * centred[..., j], covariance[i, j].item())
    alone, whole = (run(each, x, num_draws=2, warmup=1) for each in (machine.model, machine))
    assert torch.equal(alone.samples["z"], whole.samples["z"])


def test_parameters_of_a_plain_function_are_those_that_were_found():
    def program(x):
        scale = pyro.param("scale", torch.tensor(1.0), constraint=dist.constraints.positive)
        pyro.sample("z", dist.Normal(0.0, scale))

    pyro.get_param_store().setdefault("scale", torch.tensor(1e-3), dist.constraints.positive)
    assert run(program, X, num_draws=20, warmup=30, num_chains=1).samples["z"].abs().max() < 0.01
    assert list(pyro.get_param_store()) == ["scale"]
    assert posterior_sd(program) < 0.01

    def model(x):
        scale = pyro.param("noise", torch.tensor(1.0), constraint=dist.constraints.positive)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1e-3))
            pyro.sample("x", dist.Normal(5 + z, scale), obs=x)

    def guide(x):
        loc = pyro.param("loc", torch.tensor(0.3))
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(loc, 1e-3))

    elbo = inference.ELBO(model, guide)
    inference.fit(elbo, X, epochs=3, batch_size=8, lr=0.1, progress=False)
    found = elbo.program.parameter_values()["loc"].item()
    assert abs(found - 0.3) > 0.05
    z = inference.posterior_draws(elbo, 5, X).samples["z"]
    assert z.shape == (1, 5, 8) and abs(z.mean().item() - found) < 0.01
    assert run(elbo, X, num_draws=2, warmup=1).samples["z"].shape == (2, 2, 8)
    assert list(pyro.get_param_store()) == ["scale"]


def posterior_sd(program):
    return inference.posterior_draws(program, 50, X).samples["z"].std().item()


def test_sites_that_are_marked_are_summed_out():
    def program(x):
        p = pyro.sample("p", dist.Beta(1.0, 1.0))
        with pyro.plate("data", len(x)):
            k = pyro.sample("k", dist.Bernoulli(p), infer={"enumerate": "parallel"})
            pyro.sample("x", dist.Normal(4 * k, 0.1), obs=x)

    draws = run(program, torch.tensor([0.0, 4.0, 4.1, 3.9]), num_draws=100, warmup=60)
    assert set(draws.samples) == {"p"} == set(draws.last)
    assert agrees(draws.samples["p"].double(), 4 / 6)


# Ctrl-C


@pytest.mark.parametrize(("stop_at", "kept"), [(1, 0), (5, 0), (6, 1), (14, 9)])
def test_ctrl_c_keeps_what_was_drawn(stop_at, kept, monkeypatch):
    whole = run(normal, X, num_draws=10, warmup=5, num_chains=3)
    count = [0]

    class Bar:
        def advance(self, text=""):
            count[0] += 1
            if count[0] == stop_at:
                raise KeyboardInterrupt

    class Shown:
        def __init__(self, *args, **settings):
            pass

        def __enter__(self):
            return Bar()

        def __exit__(self, *error):
            pass

    monkeypatch.setattr(inference.chains, "show_progress", Shown)
    part = run(normal, X, num_draws=10, warmup=5, num_chains=3)
    assert part.interrupted and "interrupted" in str(part)
    assert torch.equal(part.samples["mean"], whole.samples["mean"][:, :kept])
    assert all(torch.equal(part.stats[name], whole.stats[name][:, :kept]) for name in part.stats)
    assert part.last["mean"].shape == (3,) == (part.num_chains,)
    assert set(part.stats) == (set(whole.stats) if kept else set())


def test_progress_counts_all_transitions(monkeypatch):
    shown = []
    real = inference.posterior.show_progress

    def progress(description, total, *, enabled):
        shown.append((description, total, enabled))
        return real(description, total, enabled=False)

    monkeypatch.setattr(inference.chains, "show_progress", progress)
    monkeypatch.setattr(inference.posterior, "show_progress", progress)
    draws = run(normal, X, num_draws=3, warmup=2, progress=True)
    inference.log_predictive(normal, draws, X)
    assert shown == [("drawing", 5, True), ("predicting", 1, True)]


# What NUTS refuses


def poisson(x):
    pyro.sample("k", dist.Poisson(3.0), infer={"enumerate": "parallel"})


def unmarked(x):
    pyro.sample("k", dist.Categorical(torch.ones(3)))


def subsampled(x):
    mean = pyro.sample("mean", dist.Normal(0.0, 1.0))
    with pyro.plate("data", 8, subsample_size=4) as index:
        pyro.sample("x", dist.Normal(mean, 1.0), obs=x[index])


def outside(x):
    p = pyro.sample("p", dist.Gamma(2.0, 3.0))
    with pyro.plate("data", len(x)):
        pyro.sample("x", dist.Gamma(p, 1.0), obs=x)


def nowhere(x):
    mean = pyro.sample("mean", dist.Normal(0.0, 1.0))
    pyro.sample("x", dist.Normal(mean, 1.0).expand(x.shape).to_event(1).mask(True), obs=x)
    pyro.factor("never", -torch.inf * (1 + mean**2))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"program": 3}, "a Pyro program and its guide, got int"),
        ({"num_draws": 0}, "num_draws must be an integer of at least 1, got 0"),
        ({"num_chains": 1.5}, "num_chains must be an integer of at least 1, got 1.5"),
        ({"warmup": -1}, "warmup must be an integer of at least 0, got -1"),
        ({"jit_compile": True}, "options out of step_size, .*, got jit_compile"),
        ({"x": X / 0 * 0}, "expected numbers, got NaN in 8"),
        ({"sites": ["mean", "x"]}, "sites to be a list of some of mean, got mean, x"),
        ({"sites": "mean"}, "sites to be a list of some of mean, got mean"),
        ({"program": unmarked}, 'discrete k: mark it with infer={"enumerate": "parallel"} if its support'),
        ({"program": poisson}, "discrete k: mark it with .*, or sum it out"),
        ({"program": subsampled}, "NUTS expects all items at once, got 4 of 8 in the plate data"),
        ({"program": lambda x: None}, "a program with continuous latent sites, got none"),
        ({"program": outside, "x": -X.abs()}, r"the data of x in GreaterThanEq.*, got -1\.9"),
        ({"program": nowhere}, "no start of positive density .* log p of never is -inf"),
    ],
)
def test_what_nuts_cannot_run_is_refused_in_one_line(change, said):
    settings = {"program": normal, "x": X, **change}
    before = torch.get_rng_state()
    with pytest.raises(ValueError, match=said) as caught:
        run(settings.pop("program"), settings.pop("x"), **settings)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 250
    assert torch.equal(torch.get_rng_state(), before)


def test_an_error_of_the_program_is_told_as_it_is():
    with pytest.raises(ValueError, match="scale"):
        run(lambda x: pyro.sample("z", dist.Normal(0.0, -1.0)), X)


def test_options_go_to_nuts():
    settings = {"num_draws": 5, "num_chains": 1, "warmup": 60}
    careful, bold = (
        run(normal, X, target_accept_prob=target, **settings).stats["step_size"][0, 0]
        for target in (0.97, 0.6)
    )
    assert bold > 1.3 * careful


# Draws from a guide


def fitted(program, guide, x, *, epochs, lr=0.05):
    elbo = inference.ELBO(program, guide)
    settings = {"batch_size": len(x), "schedule": "cosine", "progress": False}
    inference.fit(elbo, x, epochs=epochs, lr=lr, **settings)
    return guide


def test_map_of_an_auto_delta_is_that_of_the_constrained_space():
    draws = inference.posterior_draws(fitted(coin, AutoDelta(coin), FLIPS, epochs=250, lr=0.1), 1)
    p = draws.samples["p"]
    heads, tails = FLIPS.sum().item(), (1 - FLIPS).sum().item()
    assert p.shape == (1, 1) and not p.requires_grad
    assert abs(p.item() - (1 + heads) / (3 + heads + tails)) < 1e-4
    mean = inference.posterior_draws(fitted(normal, AutoDelta(normal), X, epochs=250, lr=0.1), 3).samples[
        "mean"
    ]
    assert mean.shape == (1, 3) and not mean.requires_grad
    assert (mean - normal_posterior(X)[0]).abs().max() < 1e-4
    assert len(pyro.get_param_store()) == 0


def test_a_full_covariance_reaches_a_gaussian_posterior():
    x = inputs() @ torch.tensor([1.0, -0.5]) + 0.5 * torch.randn(12)
    guide = fitted(regression, AutoMultivariateNormal(regression), x, epochs=500, lr=0.05)
    draws = inference.posterior_draws(guide, 2000, seed=3)
    covariance = torch.linalg.inv(torch.eye(2) + inputs().T @ inputs() / 0.25)
    mean = covariance @ inputs().T @ x / 0.25
    w = draws.samples["w"][0]
    assert draws.samples["w"].shape == (1, 2000, 2) and draws.stats == {}
    assert set(draws.samples) == {"w"}, "the guide's own sites are not among them"
    scale = covariance.diagonal().sqrt()
    assert ((w.mean(0) - mean).abs() / scale < 0.15).all()
    assert ((w.T.cov() - covariance).abs() / scale.outer(scale) < 0.2).all()
    assert torch.equal(inference.posterior_draws(guide, 4, x, seed=3).samples["w"][0], w[:4])
    assert not torch.equal(inference.posterior_draws(guide, 4, seed=4).samples["w"][0], w[:4])
    assert torch.equal(draws.last["w"], w[-1:])


def test_a_guide_is_left_as_it_was():
    guide = AutoNormal(normal)
    guide(X)
    guide.train()
    state, before = {k: v.clone() for k, v in guide.state_dict().items()}, torch.get_rng_state()
    names = list(pyro.get_param_store())
    inference.posterior_draws(guide, 3, X)
    assert torch.equal(torch.get_rng_state(), before) and list(pyro.get_param_store()) == names
    assert guide.training and all(torch.equal(state[k], v) for k, v in guide.state_dict().items())
    with pytest.raises(ValueError, match="num_draws must be an integer of at least 1, got 0"):
        inference.posterior_draws(guide, 0)
    with pytest.raises(ValueError, match="expected a guide with latent sites, got none"):
        inference.posterior_draws(lambda: None, 1)


# The posterior predictive density


def exact_draws(num, chains=1, seed=0):
    mean, scale = normal_posterior(X)
    generator = torch.Generator().manual_seed(seed)
    means = mean + scale * torch.randn(chains, num, generator=generator)
    return inference.Draws({"mean": means}, {}, {"mean": means[:, -1]}, warmup=0, thin=1, seed=seed)


def predict(program, draws, x, **settings):
    return inference.log_predictive(program, draws, x, progress=False, **settings)


NEW = torch.linspace(-3.0, 5.0, 30)


def closed_form(x):
    mean, scale = normal_posterior(X)
    return dist.Normal(mean, math.hypot(scale, NOISE)).log_prob(x.double())


def test_predictive_density_is_the_closed_form(draws):
    exact = closed_form(NEW)
    for given in (draws, exact_draws(1000)):
        estimate = predict(normal, given, NEW)
        assert 0 < estimate.monte_carlo_error < 0.05
        assert abs(estimate.mean - exact.mean().item()) < 4 * estimate.monte_carlo_error
        assert (estimate.per_item - exact).abs().max() < 0.3
    assert abs(estimate.standard_error - exact.std().item() / 30**0.5) < 0.02
    assert estimate.kind == "estimate" and estimate.particles == 1000 and estimate.num_dims == 1
    assert estimate.bits_per_dim == pytest.approx(-estimate.mean / math.log(2)) and "estimate" in str(
        estimate
    )


def test_error_of_the_predictive_density_is_that_of_repetitions():
    means, errors = [], []
    for seed in range(200):
        estimate = predict(normal, exact_draws(25, chains=2, seed=seed), NEW)
        means.append(estimate.mean)
        errors.append(estimate.monte_carlo_error)
    assert 0.8 < torch.tensor(errors).square().mean().sqrt() / torch.tensor(means).std() < 1.2


def test_error_counts_correlated_draws_for_less():
    independent = exact_draws(400)
    mean, scale = normal_posterior(X)
    generator, walk = torch.Generator().manual_seed(1), [torch.zeros(())]
    for _ in range(399):
        walk.append(0.95 * walk[-1] + (1 - 0.95**2) ** 0.5 * torch.randn((), generator=generator))
    sticky = {"mean": (mean + scale * torch.stack(walk)).unsqueeze(0)}
    correlated = inference.Draws(sticky, {}, {"mean": sticky["mean"][:, -1]}, warmup=0, thin=1, seed=0)
    ratio = (
        predict(normal, correlated, NEW).monte_carlo_error
        / predict(normal, independent, NEW).monte_carlo_error
    )
    assert ratio > 2.5, "√39 in the limit"


def test_predictive_density_is_the_mean_over_the_draws_given():
    given = exact_draws(7, chains=3)
    by_hand = dist.Normal(given.samples["mean"].flatten().double().unsqueeze(-1), NOISE).log_prob(
        NEW.double()
    )
    expected = by_hand.logsumexp(0) - math.log(21)
    for chunk in (20_000, 64, 7, 1):
        estimate = predict(normal, given, NEW, chunk=chunk)
        torch.testing.assert_close(estimate.per_item, expected, atol=1e-5, rtol=0)
        assert estimate.per_item.dtype == torch.float64
        assert estimate.monte_carlo_error == pytest.approx(
            predict(normal, given, NEW).monte_carlo_error, 1e-4
        )


def test_one_draw_says_nothing_of_its_error_and_copies_have_none():
    one = inference.Draws({"mean": torch.tensor([[1.0]])}, {}, {"mean": torch.ones(1)}, 0, 1, 0)
    estimate = predict(normal, one, NEW)
    torch.testing.assert_close(estimate.per_item.float(), dist.Normal(1.0, NOISE).log_prob(NEW))
    assert math.isnan(estimate.monte_carlo_error)
    copies = inference.Draws({"mean": torch.ones(1, 5)}, {}, {"mean": torch.ones(1)}, 0, 1, 0)
    assert predict(normal, copies, NEW).monte_carlo_error == 0
    assert predict(normal, copies, NEW).mean == pytest.approx(estimate.mean)


def mixture(x, calls=None):
    """Components on their own plate, which takes the place of the items' one, and a weight."""
    weights = pyro.sample("weights", dist.Dirichlet(torch.ones(3)))
    loc = pyro.sample("loc", dist.Normal(torch.zeros(3, 2), 1.0).to_event(2))
    if calls is not None:
        calls.append(weights.shape)
    components = dist.Independent(dist.Normal(loc, 0.5), 1)
    with pyro.plate("data", len(x)):
        pyro.sample("x", dist.MixtureSameFamily(dist.Categorical(weights), components), obs=x)


def stubborn(x):
    """The same, in terms of numbers by their place: it takes a single draw alone."""
    weights = pyro.sample("weights", dist.Dirichlet(torch.ones(3)))
    loc = pyro.sample("loc", dist.Normal(torch.zeros(3, 2), 1.0).to_event(2))
    parts = [weights[k].log() + dist.Normal(loc[k], 0.5).log_prob(x).sum(-1) for k in range(3)]
    with pyro.plate("data", len(x)):
        pyro.sample("x", dist.Delta(x, torch.logsumexp(torch.stack(parts), 0), event_dim=1), obs=x)


def mixture_draws(num=6, chains=3):
    """As many chains as components, so that a place may be taken for another without an error."""
    samples = {
        "weights": dist.Dirichlet(torch.ones(3)).sample((chains, num)),
        "loc": torch.randn(chains, num, 3, 2),
    }
    last = {name: value[:, -1] for name, value in samples.items()}
    return inference.Draws(samples, {}, last, warmup=0, thin=1, seed=0)


def test_a_program_of_a_single_draw_gives_the_same_numbers():
    given, x, calls = mixture_draws(), torch.randn(9, 2), []
    many = predict(lambda x: mixture(x, calls), given, x)
    assert torch.Size([18, 1, 3]) in calls, "all draws at once"
    alone = predict(stubborn, given, x)
    torch.testing.assert_close(many.per_item, alone.per_item, atol=1e-5, rtol=1e-5)
    assert many.monte_carlo_error == pytest.approx(alone.monte_carlo_error, 1e-4)
    assert many.num_dims == 2


def test_a_program_that_mixes_up_its_draws_is_run_one_by_one():
    def first(x):
        mean = pyro.sample("mean", dist.Normal(PRIOR_MEAN, PRIOR_SCALE))
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(mean.flatten()[0], NOISE), obs=x)

    given = exact_draws(9)
    right = predict(normal, given, NEW).per_item
    torch.testing.assert_close(predict(first, given, NEW).per_item, right, atol=1e-5, rtol=0)


def test_sites_on_plates_of_their_own():
    shapes = []

    def program(x):
        with pyro.plate("entries", 2, dim=-2):
            mean = pyro.sample("mean", dist.Normal(torch.zeros(()), 1.0))
        shapes.append(mean.shape)
        with pyro.plate("data", len(x), dim=-1), pyro.plate("columns", 2, dim=-2):
            pyro.sample("x", dist.Normal(mean, 1.0), obs=x.T)

    mean, x = torch.randn(1, 4, 2, 1), torch.randn(5, 2)
    given = inference.Draws({"mean": mean}, {}, {"mean": mean[:, -1]}, warmup=0, thin=1, seed=0)
    by_hand = dist.Normal(mean[0].mT, 1.0).log_prob(x).sum(-1).logsumexp(0) - math.log(4)
    torch.testing.assert_close(predict(program, given, x).per_item.float(), by_hand)
    assert torch.Size([4, 2, 1]) in shapes, "all draws at once"


def test_predictive_draws_are_pyros(draws):
    def program(x=None, *, num=1):
        mean = pyro.sample("mean", dist.Normal(PRIOR_MEAN, PRIOR_SCALE))
        with pyro.plate("data", num if x is None else len(x)):
            return pyro.sample("x", dist.Normal(mean, NOISE), obs=x)

    flat = {site: value.flatten(0, 1) for site, value in draws.samples.items()}
    x = Predictive(program, flat)(num=20)["x"]
    mean, scale = normal_posterior(X)
    assert x.shape == (600, 20) and abs(x.std().item() - math.hypot(scale, NOISE)) < 0.1


def test_prediction_leaves_everything_as_it_was():
    before = torch.get_rng_state()
    predict(normal, exact_draws(5), NEW)
    assert torch.equal(torch.get_rng_state(), before) and len(pyro.get_param_store()) == 0
    pyro.get_param_store().setdefault("noise", torch.tensor(0.1), dist.constraints.positive)

    def program(x):
        mean = pyro.sample("mean", dist.Normal(PRIOR_MEAN, PRIOR_SCALE))
        noise = pyro.param("noise", torch.tensor(1.0), constraint=dist.constraints.positive)
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(mean, noise), obs=x)

    one = inference.Draws({"mean": torch.tensor([[1.0]])}, {}, {"mean": torch.ones(1)}, 0, 1, 0)
    torch.testing.assert_close(
        predict(program, one, NEW).per_item.float(), dist.Normal(1.0, 0.1).log_prob(NEW)
    )
    assert list(pyro.get_param_store()) == ["noise"]


def local(x):
    mean = pyro.sample("mean", dist.Normal(0.0, 1.0))
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(mean, 1.0))
        pyro.sample("x", dist.Normal(z, 1.0), obs=x)


def joint(x):
    mean = pyro.sample("mean", dist.Normal(0.0, 1.0))
    pyro.sample("x", dist.Normal(mean, 1.0).expand(x.shape).to_event(1), obs=x)


def loose(x):
    normal(x)
    pyro.sample("y", dist.Normal(0.0, 1.0), obs=torch.zeros(()))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"program": local}, "latent for each summed out, got z"),
        ({"program": joint}, "one full pyro.plate over the items, .*, got no such plate"),
        ({"program": subsampled}, "one full pyro.plate over the items, .*, got no such plate"),
        ({"program": loose}, "observed inside the plate over the items, got y"),
        ({"program": coin, "x": FLIPS}, "expected draws of p, got those of mean"),
        ({"x": NEW / 0 * 0}, "expected numbers, got NaN"),
        ({"chunk": 0}, "chunk must be an integer of at least 1, got 0"),
        ({"draws": 0}, "expected draws from the posterior, got none"),
    ],
)
def test_what_cannot_be_predicted_is_refused_in_one_line(change, said):
    settings = {"program": normal, "x": NEW[:8], "draws": 5, **change}
    given = exact_draws(5)
    if settings.pop("draws") == 0:
        given = inference.Draws({"mean": given.samples["mean"][:, :0]}, {}, given.last, 0, 1, 0)
    with pytest.raises(ValueError, match=said) as caught:
        predict(settings.pop("program"), given, settings.pop("x"), **settings)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 250


def test_a_program_without_latent_sites_has_no_posterior():
    def program(x):
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(0.0, 1.0), obs=x)

    with pytest.raises(ValueError, match="expected a program with latent sites, got none"):
        predict(program, exact_draws(5), NEW)


def test_draws_of_the_same_sites_in_other_shapes_are_refused():
    def of(num):
        def program(x):
            loc = pyro.sample("loc", dist.Normal(torch.zeros(num), 1.0).to_event(1))
            with pyro.plate("data", len(x)):
                pyro.sample("x", dist.Normal(loc.sum(-1, keepdim=True), 1.0), obs=x)

        return program

    draws = inference.Draws({"loc": torch.zeros(1, 5, 2)}, {}, {"loc": torch.zeros(1, 2)}, 0, 1, 0)
    inference.log_predictive(of(2), draws, torch.zeros(4), progress=False)
    with pytest.raises(ValueError, match=r"expected draws of loc of shape \(3,\), got \(2,\)"):
        inference.log_predictive(of(3), draws, torch.zeros(4), progress=False)


def test_a_few_draws_that_alternate_have_an_error_too():
    def program(x):
        loc = pyro.sample("loc", dist.Normal(0.0, 1.0))
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(loc, 1.0), obs=x)

    loc = torch.tensor([[1.0, -1.0, 1.1, -1.2, 0.9, -1.0]])
    draws = inference.Draws({"loc": loc}, {}, {"loc": loc[:, -1]}, 0, 1, 0)
    estimate = inference.log_predictive(program, draws, torch.tensor([1.0]), progress=False)
    assert estimate.monte_carlo_error > 0
