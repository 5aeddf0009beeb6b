"""Objectives: their values against Pyro's and against sums by hand, their gradients against exact ones."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.infer import Trace_ELBO, TraceEnum_ELBO, TraceMeanField_ELBO, config_enumerate
from pyro.infer.autoguide import AutoNormal
from torch import nn

import inference
import zoo

X = torch.tensor([-1.0, 0.5, 2.0])


def gaussian_model(x):
    """p(x) = N(0, 2)."""
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        pyro.sample("x", dist.Normal(z, 1.0), obs=x)


def gaussian_guide(x):
    loc, scale = pyro.param("loc", torch.tensor(0.3)), pyro.param("scale", torch.tensor(0.9))
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Normal(loc * x, scale))


def gaussian_bound(x, loc, scale):
    """The evidence lower bound of the two, exact, mean over the items."""
    divergence = 0.5 * ((loc * x) ** 2 + scale**2 - 1) - scale.log()
    expected = -0.5 * math.log(2 * math.pi) - 0.5 * ((x - loc * x) ** 2 + scale**2)
    return (expected - divergence).mean()


def pyro_loss(estimator, model, guide, *args, **settings):
    with pyro.get_param_store().scope():
        return estimator(**settings).differentiable_loss(model, guide, *args).detach() / len(args[0])


def masked_model(x):
    with pyro.plate("data", len(x)), poutine.mask(mask=x > 0):
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        pyro.sample("x", dist.Normal(z, 1.0), obs=x)


def masked_guide(x):
    with pyro.plate("data", len(x)), poutine.mask(mask=x > 0):
        pyro.sample("z", dist.Normal(0.3 * x, 0.9))


def nested_model(x):
    with pyro.plate("data", len(x), dim=-2):
        u = pyro.sample("u", dist.Normal(torch.zeros(1), 1.0))
        with pyro.plate("columns", 4, dim=-1):
            z = pyro.sample("z", dist.Normal(u, 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x.unsqueeze(-1).expand(-1, 4))


def nested_guide(x):
    with pyro.plate("data", len(x), dim=-2):
        u = pyro.sample("u", dist.Normal(x.unsqueeze(-1) * 0.5, 0.7))
        with pyro.plate("columns", 4, dim=-1):
            pyro.sample("z", dist.Normal(u + 0.1 * x.unsqueeze(-1), 0.8))


def unknown_divergence_model(x):
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.StudentT(4.0))
        pyro.sample("x", dist.Normal(z, 1.0), obs=x)


SCALED = [poutine.scale(program, scale=0.3) for program in (gaussian_model, gaussian_guide)]
PAIRS = {
    "gaussian": (gaussian_model, gaussian_guide),
    "masked": (masked_model, masked_guide),
    "scaled": tuple(SCALED),
    "nested": (nested_model, nested_guide),
    "divergence unknown": (unknown_divergence_model, gaussian_guide),
}


@pytest.mark.parametrize("name", PAIRS)
@pytest.mark.parametrize("num_particles", [1, 3])
def test_elbo_equals_pyros_mean_field_at_the_same_seed(name, num_particles):
    model, guide = PAIRS[name]
    nesting = 2 if name == "nested" else 1
    objective = inference.ELBO(model, guide, num_particles=num_particles)
    objective.prepare(X)
    torch.manual_seed(4)
    ours = objective(X)
    torch.manual_seed(4)
    theirs = pyro_loss(
        TraceMeanField_ELBO,
        model,
        guide,
        X,
        num_particles=num_particles,
        vectorize_particles=num_particles > 1,
        max_plate_nesting=nesting,
    )
    assert torch.allclose(ours, theirs, atol=1e-5)


@pytest.mark.parametrize("name", PAIRS)
def test_elbo_equals_pyros_in_mean(name):
    model, guide = PAIRS[name]
    objective = inference.ELBO(model, guide, num_particles=20_000)
    settings = {"num_particles": 20_000, "vectorize_particles": True}
    settings["max_plate_nesting"] = 2 if name == "nested" else 1
    theirs = pyro_loss(Trace_ELBO, model, guide, X, **settings)
    assert torch.allclose(objective(X), theirs, atol=0.05)


def bottom_up_model(x):
    with pyro.plate("data", len(x)):
        z2 = pyro.sample("z2", dist.Normal(0.0, 1.0))
        z1 = pyro.sample("z1", dist.Normal(z2, 1.0))
        pyro.sample("x", dist.Normal(z1, 1.0), obs=x)


def bottom_up_guide(x):
    """The exact posterior, drawn from the bottom up: log p(x) = log N(0, 3) at every draw."""
    with pyro.plate("data", len(x)):
        z1 = pyro.sample("z1", dist.Normal(2 * x / 3, (2 / 3) ** 0.5))
        pyro.sample("z2", dist.Normal(z1 / 2, 0.5**0.5))


def test_divergence_is_not_analytic_where_the_guide_draws_in_another_order():
    exact = -dist.Normal(0.0, 3**0.5).log_prob(X).mean()
    assert torch.allclose(inference.ELBO(bottom_up_model, bottom_up_guide)(X), exact, atol=1e-5)


def gamma_model(x):
    rate = pyro.sample("rate", dist.Gamma(2.0, 1.0))
    with pyro.plate("data", len(x)):
        pyro.sample("x", dist.Exponential(rate), obs=x)


def test_auto_guides_jacobian_is_counted():
    """An AutoNormal draws an auxiliary site and a Delta whose density is the Jacobian of the constraint."""
    x = X.abs()
    guide = AutoNormal(gamma_model, init_scale=0.5)
    objective = inference.ELBO(gamma_model, guide)
    objective.prepare(x)
    torch.manual_seed(0)
    ours = objective(x)
    torch.manual_seed(0)
    assert torch.allclose(ours, pyro_loss(Trace_ELBO, gamma_model, guide, x), atol=1e-5)


@config_enumerate
def mixture_guide(x):
    logits = pyro.param("logits", torch.tensor([0.2, -0.4, 0.1]))
    with pyro.plate("data", len(x)):
        pyro.sample("k", dist.Categorical(logits=logits + x.unsqueeze(-1)))


def mixture_model(x):
    locs = pyro.param("locs", torch.tensor([-1.0, 0.0, 2.0]))
    with pyro.plate("data", len(x)):
        k = pyro.sample("k", dist.Categorical(torch.tensor([0.2, 0.3, 0.5])))
        pyro.sample("x", dist.Normal(locs[k], 1.0), obs=x)


def exact_mixture(logits, locs, x=X):
    """Log-evidence and evidence lower bound of the mixture by enumeration, means over the items."""
    log_joint = torch.tensor([0.2, 0.3, 0.5]).log() + dist.Normal(locs, 1.0).log_prob(x.unsqueeze(-1))
    log_q = (logits + x.unsqueeze(-1)).log_softmax(-1)
    return log_joint.logsumexp(-1).mean(), (log_q.exp() * (log_joint - log_q)).sum(-1).mean()


START = torch.tensor([0.2, -0.4, 0.1]), torch.tensor([-1.0, 0.0, 2.0])


def test_enumerated_guide_is_summed_out():
    objective = inference.ELBO(mixture_model, mixture_guide)
    assert torch.allclose(objective(X), -exact_mixture(*START)[1], atol=1e-5)
    assert torch.allclose(objective(X), pyro_loss(TraceEnum_ELBO, mixture_model, mixture_guide, X), atol=1e-5)


def test_sites_enumerated_in_the_model_alone_are_summed_out():
    objective = inference.ELBO(config_enumerate(mixture_model))
    assert torch.allclose(objective(X), -exact_mixture(*START)[0], atol=1e-5)
    with torch.no_grad():
        assert torch.allclose(objective(X), -exact_mixture(*START)[0], atol=1e-5)


def mean_and_error(draws):
    draws = torch.stack(draws)
    return draws.mean(0), draws.std(0) / math.sqrt(len(draws))


def test_score_function_gradient_is_the_exact_one_in_mean():
    guide = poutine.infer_config(mixture_guide, lambda site: {"enumerate": None})
    objective = inference.ELBO(mixture_model, guide)
    objective.prepare(X)
    names = objective.program._free_names
    grads = []
    for _ in range(600):
        grads.append(torch.cat(torch.autograd.grad(objective(X), list(objective.program.free_parameters))))
    logits, locs = (value.clone().requires_grad_() for value in START)
    exact = torch.autograd.grad(-exact_mixture(logits, locs)[1], [logits, locs])
    exact = torch.cat([exact[("logits", "locs").index(name)] for name in names])
    mean, error = mean_and_error(grads)
    assert (error > 0).all() and ((mean - exact).abs() < 4 * error).all()
    assert exact.abs().min() < 4 * error.max() < exact.abs().max()


def test_reparameterised_gradient_is_the_exact_one_in_mean():
    objective = inference.ELBO(gaussian_model, gaussian_guide)
    objective.prepare(X)
    params = list(objective.program.free_parameters)
    assert objective.program._free_names == ["loc", "scale"]
    grads = [torch.stack(torch.autograd.grad(objective(X), params)) for _ in range(400)]
    loc, scale = torch.tensor(0.3, requires_grad=True), torch.tensor(0.9, requires_grad=True)
    exact = torch.stack(torch.autograd.grad(-gaussian_bound(X, loc, scale), [loc, scale]))
    mean, error = mean_and_error(grads)
    assert (error > 0).all() and ((mean - exact).abs() < 4 * error).all()


def test_loss_is_a_mean_over_the_batch():
    objective = inference.ELBO(gaussian_model, gaussian_guide, num_particles=50_000)
    assert torch.allclose(objective(X), -gaussian_bound(X, torch.tensor(0.3), torch.tensor(0.9)), atol=0.02)
    assert torch.allclose(objective(X.repeat(5)), objective(X), atol=0.04)


def test_guide_that_lacks_a_site_is_refused():
    with pytest.raises(ValueError, match="the guide lacks latent sites of the model: z"):
        inference.ELBO(gaussian_model)(X)


def auxiliary_guide(x):
    with pyro.plate("data", len(x)):
        u = pyro.sample("u", dist.Normal(x, 1.0), infer={"is_auxiliary": True})
        pyro.sample("z", dist.Normal(u / 2, 0.9))


def test_auxiliary_site_of_the_guide_is_scored():
    objective = inference.ELBO(gaussian_model, auxiliary_guide, num_particles=20_000)
    settings = {"num_particles": 20_000, "vectorize_particles": True, "max_plate_nesting": 1}
    theirs = pyro_loss(Trace_ELBO, gaussian_model, auxiliary_guide, X, **settings)
    assert torch.allclose(objective(X), theirs, atol=0.05)


def test_importance_weighted_by_hand_at_the_same_seed():
    objective = inference.ImportanceWeighted(gaussian_model, gaussian_guide, num_particles=7)
    objective.prepare(X)
    torch.manual_seed(1)
    ours = objective(X)
    torch.manual_seed(1)
    q = dist.Normal(0.3 * X, 0.9)
    z = q.expand([7, 3]).sample()
    weights = dist.Normal(0.0, 1.0).log_prob(z) + dist.Normal(z, 1.0).log_prob(X) - q.log_prob(z)
    assert torch.allclose(ours, -(weights.logsumexp(0) - math.log(7)).mean(), atol=1e-5)


def test_importance_weighted_tightens_from_the_elbo_to_the_evidence():
    evidence = -dist.Normal(0.0, 2**0.5).log_prob(X).mean()
    x = X.repeat(3000)
    means = [
        inference.ImportanceWeighted(gaussian_model, gaussian_guide, num_particles=k)(x).item()
        for k in (1, 3, 30)
    ]
    assert means[0] == pytest.approx(
        -gaussian_bound(X, torch.tensor(0.3), torch.tensor(0.9)).item(), abs=0.03
    )
    assert means[0] > means[1] + 0.02 > means[2] + 0.03
    assert means[2] == pytest.approx(evidence.item(), abs=0.01)


def test_importance_weights_with_nested_plates():
    """By the exact posterior all weights are the evidence; u couples the four columns."""
    variance = torch.ones(4, 4) + 2 * torch.eye(4)
    evidence = dist.MultivariateNormal(torch.zeros(4), variance).log_prob(X.unsqueeze(-1).expand(-1, 4))

    def posterior(x):
        precision = 1 + 4 / 2  # x_j given u is N(u, 2)
        with pyro.plate("data", len(x), dim=-2):
            u = pyro.sample("u", dist.Normal(2 * x.unsqueeze(-1) / precision, precision**-0.5))
            with pyro.plate("columns", 4, dim=-1):
                pyro.sample("z", dist.Normal((u + x.unsqueeze(-1)) / 2, 0.5**0.5))

    weights = inference.log_weights(nested_model, X, guide=posterior, num_particles=5)
    assert weights.shape == (5, 3) and torch.allclose(weights, evidence.expand(5, 3), atol=1e-4)
    # Four items, as many as there are columns: the plates are still told apart.
    x = torch.cat([X, X[:1]])
    weights = inference.log_weights(nested_model, x, guide=posterior, num_particles=2)
    assert torch.allclose(weights[:, :3], evidence.expand(2, 3), atol=1e-4)


def test_importance_weighted_refuses_what_it_cannot_weigh():
    def loose(x):
        pyro.sample("g", dist.Normal(0.0, 1.0))
        gaussian_model(x)

    def loose_guide(x):
        pyro.sample("g", dist.Normal(0.0, 1.0))
        gaussian_guide(x)

    for model, guide, message in (
        (loose, loose_guide, "outside it: g"),
        (gaussian_model, loose_guide, "outside it: g"),
        (mixture_model, mixture_guide, "one of k cannot"),
        (gaussian_model, None, "missing there: z"),
    ):
        objective = inference.ImportanceWeighted(model, guide, num_particles=2)
        for use in (objective, objective.prepare):
            with pytest.raises(ValueError, match=message):
                use(X)
    with pytest.raises(ValueError, match="num_particles must be an integer of at least 1"):
        inference.log_weights(gaussian_model, X, guide=gaussian_guide, num_particles=0)
    for kind in (inference.ELBO, inference.ImportanceWeighted):
        with pytest.raises(ValueError, match="num_particles must be an integer of at least 1"):
            kind(gaussian_model, gaussian_guide, num_particles=0)


def test_maximum_likelihood_by_hand_and_its_refusal():
    def model(x):
        with pyro.plate("data", len(x)), poutine.scale(scale=0.5):
            pyro.sample("x", dist.Normal(1.0, 2.0), obs=x)

    expected = -0.5 * dist.Normal(1.0, 2.0).log_prob(X).mean()
    assert torch.allclose(inference.MaximumLikelihood(model)(X), expected)
    with pytest.raises(ValueError, match="without latent sites, got z; use ELBO or ImportanceWeighted"):
        inference.MaximumLikelihood(gaussian_model, gaussian_guide)(X)


@pytest.fixture
def labelled():
    torch.manual_seed(0)
    vae = zoo.SupervisedVAE((4,), num_classes=3, latent_dim=2, hidden=(8,))
    x = (torch.rand(6, 4) < 0.5).float()
    return vae, x, torch.tensor([0, 1, 2, 1, 0, 2])


def test_supervised_elbo_adds_the_weighted_cross_entropy_of_the_known(labelled):
    vae, x, y = labelled
    missing = y.clone()
    missing[3:] = -1
    for labels in (y, missing):
        known = labels >= 0
        expected = nn.functional.cross_entropy(vae.classify(x[known]), y[known])
        losses = []
        for weight in (0.0, 5.0):
            torch.manual_seed(2)
            losses.append(inference.SupervisedELBO(vae, weight=weight)((x, labels)))
        assert torch.allclose(losses[1] - losses[0], 5 * expected, atol=1e-4)
        torch.manual_seed(2)
        assert torch.allclose(inference.ELBO(vae)((x, labels)), losses[0], atol=1e-5)
    torch.manual_seed(2)
    none = inference.SupervisedELBO(vae, weight=5.0)((x, torch.full_like(y, -1)))
    torch.manual_seed(2)
    assert torch.allclose(none, inference.ELBO(vae)(x), atol=1e-4)


def test_label_that_is_missing_in_a_later_batch_is_summed_out(labelled):
    """Whether a label is latent differs from batch to batch."""
    vae, x, y = labelled
    missing = torch.full_like(y, -1)
    first, second = inference.ELBO(vae), inference.ELBO(vae)
    first.prepare((x, y))
    second.prepare((x, missing))
    losses = []
    for objective in (first, second):
        torch.manual_seed(0)
        losses.append(objective((x, missing)))
    assert torch.equal(*losses)
    losses[0].backward()
    assert all(param.grad.abs().sum() > 0 for param in vae.classify.parameters())


def test_label_that_is_missing_in_a_later_batch_is_refused_by_importance_weighting(labelled):
    vae, x, y = labelled
    objective = inference.ImportanceWeighted(vae, num_particles=2)
    objective((x, y))
    with pytest.raises(ValueError, match="can all be reparameterised"):
        objective((x, torch.full_like(y, -1)))


def test_supervised_elbo_refuses_a_missing_classifier():
    vae = zoo.VAE((4,), latent_dim=2, hidden=(8,))
    with pytest.raises(ValueError, match="expects programs with an argument y and a classifier, got VAE"):
        inference.SupervisedELBO(vae)


def test_classifier_of_another_module_is_trained(labelled):
    vae, x, y = labelled
    net = nn.Sequential(nn.Linear(4, 3))
    for classifier in (net, net.forward):
        names = {id(param) for param in inference.SupervisedELBO(vae, classifier=classifier).parameters()}
        assert {id(param) for param in net.parameters()} <= names
        assert {id(param) for param in inference.CrossEntropy(classifier).parameters()} == {
            id(param) for param in net.parameters()
        }


def test_cross_entropy_of_the_known_labels():
    net, x = nn.Linear(2, 3), torch.randn(4, 2)
    objective = inference.CrossEntropy(net)
    expected = -net(x).log_softmax(-1)[torch.tensor([0, 2]), torch.tensor([1, 2])].mean()
    assert torch.allclose(objective((x, torch.tensor([1, -1, 2, -1]))), expected)
    assert objective((x, torch.full((4,), -1))) == 0
    with pytest.raises(ValueError, match="expects items and their labels, got 1 tensors"):
        objective.check(x)
