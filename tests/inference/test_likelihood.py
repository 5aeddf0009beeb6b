"""`inference.log_likelihood`: against closed forms, and what it says of its own error."""

import math
import subprocess
import sys
from typing import get_args

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

import inference
import zoo
from inference.likelihood import Bound
from zoo.data.dataset import Split

X = torch.randn(12, 2, generator=torch.Generator().manual_seed(0)) * 1.5


def model(x):
    """Linear-Gaussian: p(x) = N(0, W Wᵀ + I)."""
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        loc = z.unsqueeze(-1) * torch.tensor([1.0, -0.5]).to(x.dtype)
        pyro.sample("x", dist.Normal(loc, 1.0).to_event(1), obs=x)


def posterior(x, loosened=1.0):
    weight, precision = torch.tensor([1.0, -0.5]).to(x.dtype), 1 + 1.25
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Normal((x @ weight) / precision, loosened * precision**-0.5))


def poor_guide(x):
    posterior(x, loosened=2.0)


def evidence(x):
    weight = torch.tensor([1.0, -0.5]).double()
    covariance = torch.outer(weight, weight) + torch.eye(2).double()
    return dist.MultivariateNormal(torch.zeros(2).double(), covariance).log_prob(x.double())


def estimate(**settings):
    return inference.log_likelihood(model, settings.pop("x", X), **{"progress": False, **settings})


def test_exact_posterior_gives_the_evidence_with_any_particle():
    result = estimate(x=X.double(), guide=posterior, particles=3)
    assert torch.allclose(result.per_item, evidence(X), atol=1e-6, rtol=0)
    assert result.per_item.dtype == torch.float64 and result.kind == "lower bound" and result.particles == 3
    assert result.monte_carlo_error < 1e-6
    assert result.mean == result.per_item.mean().item() == -result.nats_per_item
    assert result.standard_error == pytest.approx(result.per_item.std().item() / math.sqrt(12))
    assert result.bits_per_dim == pytest.approx(-result.mean / (2 * math.log(2)))
    assert str(result).endswith("bits per dimension (lower bound, 3 importance samples per item, 12 items)")


def test_poor_guide_is_within_its_own_error_and_the_error_is_the_spread():
    results = [estimate(guide=poor_guide, particles=50, seed=seed) for seed in range(200)]
    exact = evidence(X).mean().item()
    means = torch.tensor([result.mean for result in results]).double()
    claimed = torch.tensor([result.monte_carlo_error for result in results]).double().mean().item()
    assert claimed == pytest.approx(means.std().item(), rel=0.25)
    assert abs(results[0].mean - exact) < 4 * results[0].monte_carlo_error
    assert means.mean().item() == pytest.approx(exact, abs=4 * claimed / math.sqrt(200) + claimed**2 * 12)
    assert means.mean().item() < exact + 4 * claimed / math.sqrt(200)


def test_stream_is_the_sum_of_all_weights():
    from inference.importance import log_weights
    from inference.likelihood import _log_of_mean
    from inference.program import Program

    program = Program(model, poor_guide)
    torch.manual_seed(0)
    streamed, variance = _log_of_mean(program, X, 11, 4)
    torch.manual_seed(0)
    weights = torch.cat([log_weights(program, X, num_particles=k) for k in (4, 4, 3)]).double()
    assert torch.allclose(streamed, weights.logsumexp(0) - math.log(11))
    normed = weights.exp() / weights.exp().mean(0)
    assert torch.allclose(variance, normed.var(0, correction=0) / 11, atol=1e-9)


# The ELBO of `poor_guide`, of twice the posterior's scale and its mean, in closed form: log w is
# log p(x) + log 2 - 3/2 e² with e standard normal.

GAP = 1.5 - math.log(2)
VARIANCE = 4.5


def test_elbo_is_below_the_evidence_by_the_divergence_of_the_guide():
    result = estimate(x=X.double(), guide=poor_guide, particles=4000, bound="elbo")
    assert (result.kind, result.bound, result.particles) == ("lower bound", "elbo", 4000)
    error = math.sqrt(VARIANCE / 4000)
    assert result.monte_carlo_error == pytest.approx(error / math.sqrt(12), rel=0.03)
    assert torch.allclose(result.per_item, evidence(X) - GAP, atol=4 * error, rtol=0)
    assert result.mean == pytest.approx(evidence(X).mean().item() - GAP, abs=4 * result.monte_carlo_error)
    assert str(result).endswith("(lower bound, the ELBO, mean over 4,000 draws per item, 12 items)")


def test_error_of_the_elbo_is_the_spread_of_its_mean():
    results = [estimate(guide=poor_guide, particles=10, bound="elbo", seed=seed) for seed in range(200)]
    means = torch.tensor([result.mean for result in results]).double()
    claimed = torch.tensor([result.monte_carlo_error for result in results]).double().square().mean().sqrt()
    assert claimed.item() == pytest.approx(math.sqrt(VARIANCE / 10 / 12), rel=0.1)
    assert means.std().item() == pytest.approx(claimed.item(), rel=0.2)
    assert means.mean().item() == pytest.approx(
        evidence(X).mean().item() - GAP, abs=4 * claimed.item() / math.sqrt(200)
    )


def test_exact_posterior_gives_the_evidence_by_the_elbo_too():
    result = estimate(x=X.double(), guide=posterior, particles=3, bound="elbo")
    assert torch.allclose(result.per_item, evidence(X), atol=1e-6, rtol=0)
    assert result.monte_carlo_error < 1e-6


def test_elbo_is_below_the_other_bound_on_the_same_draws():
    elbo, weighted = (
        estimate(guide=poor_guide, particles=5, bound=bound) for bound in ("elbo", "importance-weighted")
    )
    assert (elbo.per_item < weighted.per_item).all()
    assert estimate(guide=poor_guide, particles=5).bound == "importance-weighted"


def test_a_single_particle_gives_both_bounds_alike_and_shows_no_spread():
    weighted, elbo = (estimate(guide=poor_guide, particles=1, bound=bound) for bound in get_args(Bound))
    assert torch.equal(elbo.per_item, weighted.per_item)
    assert math.isnan(elbo.monte_carlo_error) and math.isnan(weighted.monte_carlo_error)
    assert "mean over 1 draw per item" in str(elbo) and "1 importance sample per item" in str(weighted)


@pytest.mark.parametrize("at_a_time", [1, 4, 11, 100])
def test_stream_of_logs_is_their_mean_and_spread(monkeypatch, at_a_time):
    from inference.likelihood import _mean_of_logs

    # Small differences of large numbers: a sum of squares would lose them.
    weights = torch.randn(11, 3, generator=torch.Generator().manual_seed(0)).double() - 1e7
    left = list(weights)
    monkeypatch.setattr(
        "inference.likelihood.log_weights",
        lambda program, batch, num_particles: torch.stack([left.pop(0) for _ in range(num_particles)]),
    )
    mean, variance = _mean_of_logs(None, torch.zeros(3), 11, at_a_time)
    assert torch.allclose(mean, weights.mean(0), atol=0, rtol=1e-15)
    assert torch.allclose(variance, weights.var(0) / 11, rtol=1e-6)
    assert not left


def test_an_impossible_draw_makes_the_elbo_minus_infinity_and_leaves_the_other_finite(monkeypatch):
    weights = torch.tensor([[0.0], [-math.inf], [0.0]])
    monkeypatch.setattr(
        "inference.likelihood.log_weights", lambda program, batch, num_particles: weights[:num_particles]
    )
    elbo, weighted = (
        estimate(x=X[:1], guide=poor_guide, particles=3, bound=b) for b in get_args(Bound)[::-1]
    )
    assert elbo.mean == -math.inf and math.isnan(elbo.monte_carlo_error)
    assert weighted.mean == pytest.approx(math.log(2 / 3))


def test_memory_of_the_elbo_does_not_grow_with_the_particles():
    sizes = []
    for particles in (100, 2000):
        with Largest() as largest:
            estimate(guide=poor_guide, particles=particles, chunk=240, bound="elbo")
        sizes.append(largest.numel)
    assert sizes[0] == sizes[1] <= 240 * 2


def test_figure_does_not_depend_on_the_chunk():
    results = [estimate(guide=poor_guide, particles=500, chunk=chunk) for chunk in (5, 60, 24_000)]
    for result in results:
        assert abs(result.mean - evidence(X).mean().item()) < 4 * result.monte_carlo_error


class Largest(TorchDispatchMode):
    """The most elements that any tensor had."""

    numel = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        made = out if isinstance(out, tuple | list) else [out]
        self.numel = max([self.numel, *(value.numel() for value in made if isinstance(value, torch.Tensor))])
        return out


def test_memory_does_not_grow_with_the_particles():
    sizes = []
    for particles in (100, 2000):
        with Largest() as largest:
            estimate(guide=poor_guide, particles=particles, chunk=240)
        sizes.append(largest.numel)
    assert sizes[0] == sizes[1] <= 240 * 2  # each pair has two entries


def test_seed_gives_the_same_bits_and_leaves_the_generator():
    state = torch.get_rng_state()
    first, again, other = (estimate(guide=poor_guide, particles=5, seed=seed).per_item for seed in (1, 1, 2))
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert torch.equal(torch.get_rng_state(), state)
    assert len(pyro.get_param_store()) == 0


def test_program_without_latent_sites_is_exact():
    def plain(x):
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(1.0, 2.0).expand([2]).to_event(1), obs=x)

    result = inference.log_likelihood(plain, X, progress=False)
    assert (result.kind, result.particles, result.monte_carlo_error) == ("exact", 0, 0.0)
    assert result.bound is None and "(exact, 12 items)" in str(result)
    assert torch.allclose(result.per_item, dist.Normal(1.0, 2.0).log_prob(X).sum(-1).double())


class Fake:
    """A model that says what its density is."""

    def __init__(self, density: str) -> None:
        self.density, self.batches = density, []

    def model(self, x):
        raise AssertionError("not run")

    def log_prob(self, x):
        self.batches.append(len(x))
        return -x.sum(-1)


def test_exact_density_is_asked_for():
    fake = Fake("exact")
    result = inference.log_likelihood(fake, X.repeat(20, 1), bound="elbo", progress=False)
    assert torch.allclose(result.per_item, -X.repeat(20, 1).sum(-1).double())
    assert (result.kind, result.bound, result.particles) == ("exact", None, 0)
    assert sum(fake.batches) == 240 and max(fake.batches) <= 100


@pytest.mark.parametrize("density", ["unnormalized", "none"])
def test_model_without_a_likelihood_is_refused(density):
    with pytest.raises(ValueError, match=f"Fake has no likelihood to estimate: its density is '{density}'"):
        inference.log_likelihood(Fake(density), X)


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"particles": 0}, "must be at least 1, got 0"),
        ({"chunk": 0}, "must be at least 1"),
        ({"bound": "iwae"}, "bound must be one of importance-weighted, elbo, got 'iwae'"),
        ({"x": X.clone().index_fill_(0, torch.tensor([1]), math.nan)}, "NaN in 2 of the entries"),
        ({"x": X[:0]}, "expected at least one item"),
        ({"x": [1.0]}, "expected a tensor of items, got list"),
    ],
)
def test_arguments_are_checked(settings, message):
    with pytest.raises(ValueError, match=message) as caught:
        estimate(guide=posterior, **settings)
    assert "\n" not in str(caught.value)


def machine(cls, **arguments):
    """A small one with weights that differ; its exact log Z is that of an enumeration."""
    torch.manual_seed(0)
    built = cls((6,), **arguments)
    with torch.no_grad():
        for param in built.parameters():
            param += 0.8 * torch.randn_like(param)
    return built


BITS = (torch.rand(20, 6, generator=torch.Generator().manual_seed(1)) < 0.5).float()


def of_machine(model, **settings):
    return inference.log_likelihood(model, BITS, **{"progress": False, **settings})


def test_an_rbm_is_known_but_for_log_z():
    rbm = machine(zoo.RBM, hidden=4)
    result = of_machine(rbm)
    exact = rbm.log_marginal(BITS)
    assert (result.kind, result.bound, result.particles) == ("estimate", None, 0)
    assert isinstance(result.log_z, inference.LogZEstimate)
    assert len(result.log_z.log_weights) == 500 and result.log_z.betas == 2000
    shift = rbm.log_partition().item() - result.log_z.log_z.item()
    assert torch.allclose(result.per_item, exact + shift, atol=1e-5)
    assert result.mean == pytest.approx(exact.mean().item(), abs=4 * result.monte_carlo_error)
    assert result.monte_carlo_error == pytest.approx(result.log_z.relative_error.item())
    assert "(estimate, 20 items; log Z = " in str(result) and "by AIS" in str(result)


@pytest.mark.parametrize("as_what", [float, torch.tensor])
def test_an_rbm_whose_log_z_is_given_is_exact(as_what):
    rbm = machine(zoo.RBM, hidden=4)
    for bound in (None, "elbo", "importance-weighted"):
        result = of_machine(rbm, log_z=as_what(rbm.log_partition().item()), bound=bound)
        assert (result.kind, result.bound, result.particles) == ("exact", None, 0)
        assert torch.allclose(result.per_item, rbm.log_marginal(BITS), atol=1e-5)
        assert result.interval == (result.mean, result.mean) and result.monte_carlo_error == 0
    text = str(result)
    assert "(exact, 20 items; log Z = " in text and "AIS" not in text and "with that" not in text


def test_a_dbm_is_bounded_by_mean_field():
    dbm = machine(zoo.DBM, hidden=(4, 3))
    exact, log_z = dbm.log_marginal(BITS), dbm.log_partition().item()
    result = of_machine(dbm, log_z=log_z)
    assert (result.kind, result.bound, result.particles) == ("lower bound", "elbo", 0)
    assert (result.per_item < exact).all() and (exact - result.per_item).mean() < 1
    expected = dbm.variational_bound(BITS).double() - log_z
    assert torch.allclose(result.per_item, expected, atol=1e-6)
    assert "(lower bound, by mean field, 20 items; log Z = " in str(result)


def test_the_interval_is_that_of_log_z_and_not_symmetric():
    dbm = machine(zoo.DBM, hidden=(4, 3))
    log_z = inference.ais(dbm, chains=30, betas=3)
    result = of_machine(dbm, log_z=log_z)
    low, high = result.interval
    ends = [end.item() for end in log_z.interval()]
    assert high - result.mean == pytest.approx(log_z.log_z.item() - ends[0])
    assert result.mean - low == pytest.approx(ends[1] - log_z.log_z.item())
    assert low < result.mean < high
    assert abs((high - result.mean) - (result.mean - low)) > 0.01 * (high - low)
    assert f"with that, {low:.2f} … {high:.2f}" in str(result)
    truth = of_machine(dbm, log_z=dbm.log_partition().item()).mean
    covered = 0
    for seed in range(100):
        ends = of_machine(dbm, log_z=inference.ais(dbm, chains=50, betas=10, seed=seed)).interval
        covered += ends[0] <= truth <= ends[1]
    assert 88 <= covered  # 95 in expectation


def test_annealing_to_the_posterior_estimates_what_the_bound_is_below():
    dbm = machine(zoo.DBM, hidden=(4, 3))
    exact, log_z = dbm.log_marginal(BITS), dbm.log_partition().item()
    settings = {"log_z": log_z, "bound": "importance-weighted"}
    result = of_machine(dbm, particles=200, **settings)
    assert (result.kind, result.bound, result.particles) == ("estimate", None, 200)
    assert result.mean > of_machine(dbm, log_z=log_z).mean
    assert result.mean == pytest.approx(exact.mean().item(), abs=4 * result.monte_carlo_error)
    assert 0 < result.monte_carlo_error < 0.02
    assert torch.allclose(result.per_item, exact, atol=0.1)
    assert "(estimate, annealed from the mean field, 200 chains per item, 20 items; log Z" in str(result)
    again = of_machine(dbm, particles=200, chunk=1000, **settings)
    assert not torch.equal(result.per_item, again.per_item)
    assert torch.equal(of_machine(dbm, particles=200, **settings).per_item, result.per_item)


def test_labels_are_summed_out():
    rbm = machine(zoo.RBM, hidden=4, num_classes=3)
    result = of_machine(rbm, log_z=rbm.log_partition())
    assert result.kind == "exact"
    assert torch.allclose(result.per_item, rbm.log_marginal(BITS), atol=1e-5)


def test_log_z_is_refused_where_the_density_has_none():
    with pytest.raises(ValueError, match="log_z is for unnormalised densities, and that of NADE is 'exact'"):
        of_machine(zoo.NADE((6,), hidden=2), log_z=1.0)


def test_a_machine_is_left_in_its_mode_and_the_generators_as_they_were():
    dbm = machine(zoo.DBM, hidden=(4, 3))
    before = torch.get_rng_state()
    of_machine(dbm, bound="importance-weighted", particles=2)
    assert dbm.training and torch.equal(torch.get_rng_state(), before)


def test_split_or_tensor_and_a_single_item():
    split, tensor = (estimate(x=x, guide=poor_guide, particles=4) for x in (Split(X), X))
    assert torch.equal(split.per_item, tensor.per_item)
    single = estimate(x=X[:1], guide=posterior, particles=4)
    assert math.isnan(single.standard_error) and single.per_item.shape == (1,)


def test_modules_are_evaluated_in_evaluation_mode_and_left_as_they_were():
    torch.manual_seed(0)
    vae = zoo.VAE((4,), latent_dim=2, hidden=(8,))
    seen = []
    vae.decoder.register_forward_hook(lambda module, *_: seen.append(module.training))
    inference.log_likelihood(vae, (torch.rand(3, 4) < 0.5).float(), particles=2, progress=False)
    assert seen and not any(seen)
    assert vae.training and vae.decoder.training


def test_import_is_lazy():
    code = "import sys, inference; assert 'torch' not in sys.modules; print(*dir(inference))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert {"fit", "ELBO", "log_likelihood"} <= set(done.stdout.split())
    assert all(getattr(inference, name) is not None for name in inference.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = inference.nothing


def test_the_program_of_a_machine_is_refused_since_its_log_z_would_be_left_out():
    rbm = zoo.RBM((4,), hidden=3)
    with pytest.raises(ValueError, match="expected RBM itself, whose density is unnormalised"):
        inference.log_likelihood(rbm.model, torch.ones(2, 4), guide=rbm.guide, progress=False)


@pytest.mark.parametrize("log_z", [float("nan"), float("inf"), True, "1", torch.ones(2)])
def test_an_exact_log_z_is_one_finite_number(log_z):
    with pytest.raises(ValueError, match="log_z must be an estimate by inference.ais, or a finite number"):
        inference.log_likelihood(zoo.RBM((4,), hidden=3), torch.ones(2, 4), log_z=log_z, progress=False)


def test_a_machine_that_is_not_finite_has_no_likelihood():
    rbm = zoo.RBM((4,), hidden=3)
    with torch.no_grad():
        rbm.W[0][0, 0] = float("nan")
    with pytest.raises(ValueError, match="not finite in 2 of 2 items: are the parameters of RBM"):
        inference.log_likelihood(rbm, torch.ones(2, 4), log_z=1.0, progress=False)
