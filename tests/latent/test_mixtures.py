"""What the mixtures promise beyond the contract: formulas, steps, priors, empty components, singular ones."""

import copy
import math

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import sklearn.mixture
import torch
from pyro import poutine
from pyro.infer.autoguide import AutoDelta
from torch.distributions import biject_to

import inference
import zoo
from zoo.latent.mixture import spread_out, squared_distances

COVARIANCES = ("full", "tied", "diagonal", "spherical")


def items(num=200, n=3):
    """Two clouds and what lies between them."""
    generator = torch.Generator().manual_seed(7)
    x = torch.randn(num, n, generator=generator, dtype=torch.float64)
    return x * torch.linspace(0.5, 1.5, n) + 3.0 * (torch.arange(num) % 2).unsqueeze(-1)


def gaussian(covariance, num_components=3, n=3, **other):
    mixture = zoo.GaussianMixture((n,), num_components, covariance=covariance, **other).double()
    mixture.initialize(items(n=n), torch.Generator().manual_seed(0))
    return mixture


def by_hand(mixture, x):
    """log p(x) from the parameters that people read, one component at a time."""
    theta = {name: value.detach() for name, value in mixture.theta().items()}
    total = []
    for k in range(mixture.num_components):
        scale = theta["scale"] if mixture.covariance == "tied" else theta["scale"][k]
        scale = scale.expand(x.shape[-1])
        tril = scale.diag()
        if mixture.is_correlated:
            tril = tril @ theta["correlation_tril"][() if mixture.covariance == "tied" else k]
        component = torch.distributions.MultivariateNormal(theta["loc"][k], tril @ tril.T)
        total.append(theta["weights"][k].log() + component.log_prob(x))
    return torch.stack(total).logsumexp(0)


def shuffled(mixture):
    """The mixture with weights that differ in everything."""
    with torch.no_grad():
        for param in mixture.parameters():
            param += 0.4 * torch.randn_like(param)
    return mixture


@pytest.mark.parametrize("covariance", COVARIANCES)
def test_density_is_the_formula(covariance):
    mixture = shuffled(gaussian(covariance))
    assert torch.allclose(mixture.log_prob(items()), by_hand(mixture, items()), atol=1e-9)
    assert torch.allclose(mixture.marginal().log_prob(items()), mixture.log_prob(items()), atol=1e-9)


@pytest.mark.parametrize("covariance", COVARIANCES)
def test_assign_is_the_inverse_of_theta(covariance):
    mixture = shuffled(gaussian(covariance))
    other = zoo.GaussianMixture((3,), 3, covariance=covariance).double()
    other.assign(**mixture.theta())
    for name, value in mixture.theta().items():
        assert torch.allclose(other.theta()[name], value, atol=1e-9), name
    assert torch.allclose(other.log_prob(items()), mixture.log_prob(items()), atol=1e-9)


def test_assign_refuses_another_shape():
    with pytest.raises(ValueError, match=r"expected a parameter of shape \(3, 2\), got \(2, 2\)"):
        zoo.GaussianMixture((2,), 3, covariance="diagonal").assign(
            weights=torch.ones(3) / 3, loc=torch.zeros(2, 2), scale=torch.ones(3, 2)
        )


@pytest.mark.parametrize("covariance", COVARIANCES)
def test_em_takes_the_steps_of_scikit_learn(covariance):
    x, mixture = items(), gaussian(covariance)
    U = mixture.precision_factor().detach()
    theirs = sklearn.mixture.GaussianMixture(
        3,
        covariance_type="diag" if covariance == "diagonal" else covariance,
        tol=0,
        max_iter=7,
        reg_covar=0,
        weights_init=np.full(3, 1 / 3),
        means_init=mixture.loc.detach().clone().numpy(),
        precisions_init=(U @ U.mT if mixture.is_correlated else U.square()).numpy(),
    )
    with pytest.warns(sklearn.exceptions.ConvergenceWarning):
        theirs.fit(x.numpy())
    inference.fit_em(mixture, x, epochs=7, tolerance=0, initialize=False, progress=False)
    assert mixture.log_prob(x).mean().item() == pytest.approx(theirs.score(x.numpy()), abs=1e-10)
    assert np.allclose(mixture.loc.detach().numpy(), theirs.means_, atol=1e-9)
    assert np.allclose(mixture.theta()["weights"].detach().numpy(), theirs.weights_, atol=1e-10)


@pytest.mark.parametrize("pseudo_count", [0.0, 2.5])
@pytest.mark.parametrize("covariance", COVARIANCES)
def test_m_step_is_where_the_expected_log_likelihood_is_flat(covariance, pseudo_count):
    """Its gradient, by autograd of the program's own density and of the pseudo-items', is 0 there."""
    x = items()
    mixture = shuffled(gaussian(covariance, pseudo_count=pseudo_count, prior_scale=1.7))
    with torch.no_grad():
        responsibilities = mixture.features(x)
        mixture.m_step(mixture.e_step(x)[0])
    joint = mixture.component_log_prob(x) + mixture.weight_logits.log_softmax(-1)
    expected = (responsibilities * joint).sum() + mixture.log_prior()
    for grad in torch.autograd.grad(expected, list(mixture.parameters())):
        assert grad.abs().max() < 1e-8


@pytest.mark.parametrize("covariance", COVARIANCES)
def test_log_prior_is_that_of_pseudo_items(covariance):
    """Their mean log-density by Monte Carlo."""
    mixture = shuffled(gaussian(covariance, pseudo_count=3.0, prior_scale=0.8))
    pseudo = 0.8 * torch.randn(200_000, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    each = 3.0 * mixture.component_log_prob(pseudo).sum(-1)
    error = each.std() / math.sqrt(len(each))
    assert abs(mixture.log_prior() - each.mean()) < 4 * error


@pytest.mark.parametrize("covariance", COVARIANCES)
def test_e_step_tells_the_likelihood_and_counts_every_item(covariance):
    mixture = shuffled(gaussian(covariance))
    statistics, log_prob = mixture.e_step(items())
    assert torch.allclose(log_prob, mixture.log_prob(items()), atol=1e-9)
    assert statistics["count"].sum().item() == pytest.approx(len(items()))


@pytest.mark.parametrize("covariance", COVARIANCES)
def test_elbo_is_the_likelihood_since_the_guide_is_the_posterior_and_is_summed_out(covariance):
    mixture = shuffled(gaussian(covariance))
    loss = inference.ELBO(mixture)(items())
    assert loss.item() == pytest.approx(-mixture.log_prob(items()).mean().item(), abs=1e-9)
    grads = torch.autograd.grad(loss, list(mixture.parameters()))
    exact = torch.autograd.grad(-mixture.log_prob(items()).mean(), list(mixture.parameters()))
    assert all(torch.allclose(a, b, atol=1e-9) for a, b in zip(grads, exact, strict=True))


def test_expected_statistics_of_chunks_add_up():
    x, mixture = items(), gaussian("full")
    whole = mixture.e_step(x)[0]
    parts = [mixture.e_step(part)[0] for part in x.split(70)]
    for name, value in whole.items():
        assert value.dtype == torch.float64
        assert torch.allclose(value, sum(part[name] for part in parts), atol=1e-9)


@pytest.mark.parametrize("covariance", COVARIANCES)
def test_a_singular_covariance_names_its_component_and_a_prior_mends_it(covariance):
    x = items()
    x[:, 2] = x[:, 0] - x[:, 1] if covariance in ("full", "tied") else 5.0
    if covariance == "spherical":
        x[:] = torch.cat([x[:1]] * len(x))
    mixture = gaussian(covariance)
    if covariance == "full":  # one of them far away, on an item of its own
        x = items()
        x[0] = 50.0
        with torch.no_grad():
            mixture.loc[1] = 50.0
    with pytest.raises(
        ValueError, match="is singular.* give GaussianMixture a pseudo_count above 0"
    ) as caught:
        for _ in range(50):
            mixture.m_step(mixture.e_step(x)[0])
    assert "\n" not in str(caught.value)
    assert ("component 1" in str(caught.value)) == (covariance == "full")
    regular = gaussian(covariance, num_components=2, pseudo_count=0.1)
    result = inference.fit_em(regular, x, epochs=20, progress=False)
    assert len(result.history) > 1 and math.isfinite(result.history[-1]["train"])


@pytest.mark.parametrize("covariance", COVARIANCES)
@pytest.mark.parametrize(("shift", "scale"), [(1e4, 1.0), (0.0, 1e-6), (0.0, 1e8), (-3e3, 1e2)])
def test_items_far_from_zero_or_of_another_scale_are_fitted(covariance, shift, scale):
    """In single precision, and as well as those that were standardised."""
    x = items()
    found = []
    for values in (x, (scale * x + shift).float()):
        mixture = zoo.GaussianMixture((3,), 2, covariance=covariance).to(values.dtype)
        result = inference.fit_em(mixture, values, epochs=30, seed=1, progress=False)
        found.append(result.history[-1]["train"])
    assert found[1] == pytest.approx(found[0] + 3 * math.log(scale), abs=0.05)


def test_constant_entries_are_refused_unless_there_is_a_prior():
    x = items()
    x[:, 1] = 2.0
    with pytest.raises(ValueError, match="entry 1 .* is 2 in all 200"):
        inference.fit_em(zoo.GaussianMixture((3,), 2).double(), x, epochs=2, progress=False)
    inference.fit_em(zoo.GaussianMixture((3,), 2, pseudo_count=1.0).double(), x, epochs=2, progress=False)


def test_initialize_starts_at_items_that_are_apart():
    x = torch.cat([torch.randn(50, 2) * 0.01 + centre for centre in (0.0, 10.0, 20.0)]).double()
    for seed in range(5):
        centres = spread_out(x, 3, torch.Generator().manual_seed(seed))
        assert sorted((centres.mean(1) / 10).round().tolist()) == [0, 1, 2]
        assert all((centre == x).all(1).any() for centre in centres)
    same = spread_out(torch.ones(4, 2).double(), 3, torch.Generator().manual_seed(0))
    assert (same == 1).all() and same.shape == (3, 2)


def test_squared_distances_are_those_by_hand():
    x, y, w = torch.randn(5, 3), torch.randn(4, 3), torch.rand(4, 3)
    by_hand = ((x.unsqueeze(1) - y).square() * w).sum(-1)
    assert torch.allclose(squared_distances(x, y, w), by_hand, atol=1e-5)
    assert torch.allclose(squared_distances(x, y), (x.unsqueeze(1) - y).square().sum(-1), atol=1e-5)
    assert squared_distances(x, x).min() >= 0


# Of coins


def coins(num_components=4, pseudo_count=0.0):
    mixture = zoo.BernoulliMixture((2, 3), num_components, pseudo_count=pseudo_count).double()
    mixture.initialize(binary(), torch.Generator().manual_seed(0))
    return mixture


def binary(num=100):
    generator = torch.Generator().manual_seed(3)
    p = torch.where(torch.arange(num)[:, None, None] % 2 == 0, 0.2, 0.7).double().expand(num, 2, 3)
    return torch.bernoulli(p, generator=generator)


def test_density_of_coins_is_the_formula():
    mixture, x = coins(), binary()
    theta = mixture.theta()
    each = dist.Bernoulli(theta["probs"]).to_event(2).log_prob(x.unsqueeze(1))
    assert torch.allclose(mixture.log_prob(x), (theta["weights"].log() + each).logsumexp(-1), atol=1e-10)


def test_density_of_coins_that_are_nearly_certain_has_no_jump():
    mixture = zoo.BernoulliMixture((1,), 1).double()
    with torch.no_grad():
        mixture.logits.fill_(21.0)
    assert mixture.log_prob(torch.ones(1, 1).double()).item() == pytest.approx(-math.exp(-21), rel=1e-6)


def test_m_step_of_coins_is_where_the_expected_log_likelihood_is_flat():
    mixture, x = coins(pseudo_count=1.5), binary()
    with torch.no_grad():
        responsibilities = mixture.features(x)
        mixture.m_step(mixture.e_step(x)[0])
    joint = mixture.component_log_prob(x.flatten(1)) + mixture.weight_logits.log_softmax(-1)
    expected = (responsibilities * joint).sum() + mixture.log_prior()
    for grad in torch.autograd.grad(expected, list(mixture.parameters())):
        assert grad.abs().max() < 1e-8


def test_map_by_em_is_map_by_autodelta():
    """The prior of coins is one and the same for EM and for the program over the parameters."""
    x = binary(60)
    mixture = coins(2, pseudo_count=2.0)
    inference.fit_em(mixture, x, epochs=5000, tolerance=1e-13, initialize=False, progress=False)
    density = log_posterior(mixture, mixture.theta(), x)
    start = {name: value.detach() for name, value in coins(2, pseudo_count=2.0).theta().items()}
    guide = AutoDelta(mixture.bayesian_model, init_loc_fn=pyro.infer.autoguide.init_to_value(values=start))
    objective = inference.ELBO(mixture.bayesian_model, guide)
    inference.fit(objective, x, epochs=500, batch_size=len(x), lr=0.1, schedule="cosine", progress=False)
    found = {name: value.detach() for name, value in guide.median().items()}
    assert log_posterior(mixture, found, x).item() == pytest.approx(density.item(), abs=1e-3)
    order, theirs = mixture.theta()["weights"].argsort(), found["weights"].argsort()
    assert torch.allclose(mixture.theta()["probs"][order], found["probs"][theirs], atol=1e-2)


def log_posterior(mixture, theta, x):
    """log p(θ) p(x | θ), in the space of θ itself."""
    trace = poutine.trace(poutine.condition(mixture.bayesian_model, data=theta)).get_trace(x)
    return trace.log_prob_sum()


def test_an_empty_component_is_reseeded_and_said():
    x = binary()
    mixture = coins()
    with torch.no_grad():
        mixture.weight_logits[2] = -60.0
    statistics, _ = mixture.e_step(x)
    assert mixture.empty_components(statistics) == [2]
    before = copy.deepcopy(mixture)
    with pytest.warns(
        UserWarning, match="component 2, empty in epoch 1 of start 0, reseeded at random items"
    ):
        result = inference.fit_em(mixture, x, epochs=30, initialize=False, progress=False)
    assert result.notes and mixture.theta()["weights"][2] > 1e-3
    assert mixture.log_prob(x).mean() > before.log_prob(x).mean()


@pytest.mark.parametrize("covariance", COVARIANCES)
def test_an_empty_component_far_away_leaves_the_others_as_they_would_be(covariance):
    x, n = items(), 3
    two, three = gaussian(covariance, num_components=2), zoo.GaussianMixture((n,), 3, covariance=covariance)
    theta = {name: value.detach() for name, value in two.theta().items()}
    own = {name for name, value in theta.items() if len(value) == 2}
    third = {name: torch.cat([value, value[:1]]) if name in own else value for name, value in theta.items()}
    third["loc"] = torch.cat([theta["loc"], torch.full((1, n), 50.0).double()])
    third["weights"] = torch.tensor([*theta["weights"].tolist(), 1e-30]).double()
    three = three.double()
    three.assign(**third)
    for mixture in (two, three):
        mixture.m_step(mixture.e_step(x)[0])
    assert torch.allclose(three.log_prob(x), two.log_prob(x), atol=1e-6)


@pytest.mark.parametrize("covariance", ["full", "tied"])
def test_a_single_entry_has_no_correlations(covariance):
    mixture = zoo.GaussianMixture((1,), 2, covariance=covariance)
    trace = poutine.trace(mixture.bayesian_model).get_trace(torch.randn(5, 1))
    assert set(trace.stochastic_nodes) == {"weights", "loc", "scale", "data"}
    drawn = {name: trace.nodes[name]["value"] for name in ("weights", "loc", "scale")}
    mixture.assign(**drawn)
    trace.compute_log_prob()
    x = trace.nodes["x"]
    assert torch.allclose(mixture.log_prob(x["value"]), x["log_prob"], atol=1e-5)


@pytest.mark.parametrize("covariance", COVARIANCES)
def test_an_empty_gaussian_is_reseeded(covariance):
    mixture = gaussian(covariance)
    with torch.no_grad():
        mixture.weight_logits[0] = -60.0
    with pytest.warns(UserWarning, match="component 0, empty in epoch 1"):
        inference.fit_em(mixture, items(), epochs=20, initialize=False, progress=False)
    assert mixture.theta()["weights"][0] > 1e-3


def test_entries_never_seen_leave_a_finite_likelihood():
    x = binary()
    x[:, 0, 0] = 0.0
    mixture = coins()
    inference.fit_em(mixture, x, epochs=5, initialize=False, progress=False)
    assert mixture.log_prob(x).isfinite().all()
    assert all(param.isfinite().all() for param in mixture.parameters())


# The program over the parameters


@pytest.mark.parametrize("covariance", COVARIANCES)
def test_bayesian_program_scores_by_the_parameters_it_draws(covariance):
    mixture = shuffled(gaussian(covariance))
    theta = {name: value.detach() for name, value in mixture.theta().items()}
    trace = poutine.trace(poutine.condition(mixture.bayesian_model, data=theta)).get_trace(items())
    trace.compute_log_prob()
    assert torch.allclose(trace.nodes["x"]["log_prob"], mixture.log_prob(items()), atol=1e-9)
    assert all(trace.nodes[name]["log_prob"].shape == () for name in theta)


@pytest.mark.parametrize("covariance", COVARIANCES)
def test_priors_live_where_the_parameters_do_and_can_be_moved_on(covariance):
    mixture = gaussian(covariance)
    trace = poutine.trace(mixture.parameter_prior).get_trace()
    assert set(trace.stochastic_nodes) == set(mixture.theta())
    for name, value in mixture.theta().items():
        site = trace.nodes[name]
        assert site["value"].shape == value.shape
        assert site["fn"].support.check(value.detach()).all()
        assert biject_to(site["fn"].support) is not None


def test_bayesian_program_draws_items_and_broadcasts():
    mixture = zoo.GaussianMixture((2,), 3)
    assert mixture.bayesian_model(num=5).shape == (5, 2)
    with pyro.plate("particles", 7, dim=-2):
        trace = poutine.trace(mixture.bayesian_model).get_trace(torch.randn(5, 2))
    trace.compute_log_prob()
    assert trace.nodes["x"]["log_prob"].shape == (7, 5)
