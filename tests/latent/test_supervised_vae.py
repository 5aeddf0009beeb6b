"""The supervised VAE against explicit sums over the labels, where some labels are known and some are not."""

import itertools
import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.infer import TraceEnum_ELBO
from torch import Tensor

import inference
from zoo import SupervisedVAE

C = 3
Y = torch.tensor([0, -1, 2, -1, 1, -1, -1])


class Still(dist.Normal):
    """A Gaussian that always draws its mean: takes the noise out of an estimate, and leaves the density."""

    def rsample(self, sample_shape: torch.Size = torch.Size()) -> Tensor:  # noqa: B008 - as its base has it
        return self.loc.expand(self._extended_shape(sample_shape))


class StillVAE(SupervisedVAE):
    def posterior(self, features: Tensor) -> dist.Distribution:
        noisy = super().posterior(features).base_dist
        return Still(noisy.loc, noisy.scale).to_event(1)


def spread(vae: SupervisedVAE) -> SupervisedVAE:
    with torch.no_grad():
        for param in vae.parameters():
            param += 0.5 * torch.randn_like(param)
    return vae.double()


@pytest.fixture
def vae() -> SupervisedVAE:
    return spread(StillVAE((2, 3), num_classes=C, latent_dim=2, hidden=(5,), activation="tanh"))


@pytest.fixture
def x() -> Tensor:
    return torch.randint(2, (len(Y), 2, 3)).double()


def bound_given(vae: SupervisedVAE, x: Tensor, y: Tensor) -> Tensor:
    """log p(x, y, z) - log q(z | x, y) at the mean z of q, for each item: Kingma et al., equation 6."""
    posterior = vae.encode(x, y)
    z = posterior.mean
    joint = -math.log(C) + vae.prior().log_prob(z) + vae.decode(z, y).log_prob(x)
    return joint - posterior.log_prob(z)


def bound_without(vae: SupervisedVAE, x: Tensor) -> Tensor:
    """Σ_y q(y | x) (bound_given(x, y) - log q(y | x)), for each item: equation 7."""
    log_q = vae.classify(x).log_softmax(-1)
    given = torch.stack([bound_given(vae, x, torch.full((len(x),), y)) for y in range(C)], dim=-1)
    return (log_q.exp() * (given - log_q)).sum(-1)


def gradients(loss: Tensor, vae: SupervisedVAE) -> dict[str, Tensor]:
    named = dict(vae.named_parameters())
    found = torch.autograd.grad(loss, list(named.values()), allow_unused=True)
    return {
        name: torch.zeros_like(param) if grad is None else grad
        for (name, param), grad in zip(named.items(), found, strict=True)
    }


def same(ours: Tensor, theirs: Tensor, vae: SupervisedVAE) -> None:
    """Value and gradient agree to rounding, and the gradient is not nothing."""
    assert ours.item() == pytest.approx(theirs.item(), rel=1e-12)
    expected = gradients(theirs, vae)
    assert any((grad != 0).any() for grad in expected.values())
    for name, grad in gradients(ours, vae).items():
        assert torch.allclose(grad, expected[name], rtol=1e-9, atol=1e-11), name


@pytest.mark.parametrize("known", [Y, torch.tensor([0, 0, -1, 1, 1, 2, 2])])
def test_bound_of_a_partly_labelled_batch_is_the_explicit_sum(vae, x, known):
    labelled, missing = known >= 0, known < 0
    explicit = bound_given(vae, x[labelled], known[labelled]).sum() + bound_without(vae, x[missing]).sum()
    same(inference.ELBO(vae)((x, known)), -explicit / len(x), vae)


def test_bound_without_labels_is_the_explicit_sum(vae, x):
    same(inference.ELBO(vae)(x), -bound_without(vae, x).mean(), vae)


def test_bound_does_not_depend_on_the_batch_that_came_first(vae, x):
    """A first batch that shows no missing label must not decide how later ones are treated."""
    objective = inference.ELBO(vae)
    objective.prepare((x[:2], torch.tensor([0, 1])))
    same(objective((x, Y)), inference.ELBO(vae)((x, Y)), vae)


def test_known_labels_in_a_mixed_batch_are_as_good_as_separate_batches(vae, x):
    def pyros(*args: Tensor) -> Tensor:
        return TraceEnum_ELBO(max_plate_nesting=1).differentiable_loss(vae.model, vae.guide, *args)

    labelled, missing = Y >= 0, Y < 0
    with pytest.warns(UserWarning, match="no sample sites configured for enumeration"):
        separate = pyros(x[labelled], Y[labelled]) + pyros(x[missing])
    same(pyros(x, Y), separate, vae)


@pytest.mark.parametrize("scale", [1.0, 100.0])
def test_a_known_label_is_certain_whatever_the_classifier_says(vae, x, scale):
    with torch.no_grad():
        for param in vae.classify.parameters():
            param *= scale
    trace = poutine.trace(vae.guide).get_trace(x, Y)
    q = trace.nodes["y"]["fn"]
    labelled = Y >= 0
    assert torch.equal(trace.nodes["y"]["value"][labelled], Y[labelled])
    assert torch.equal(q.probs[labelled], torch.nn.functional.one_hot(Y[labelled], C).double())
    assert torch.equal(q.log_prob(Y.clamp(min=0))[labelled], torch.zeros(int(labelled.sum())).double())
    assert torch.allclose(q.logits[~labelled], vae.classify(x[~labelled]).log_softmax(-1))


def test_labelled_items_do_not_train_the_classifier_through_the_bound(vae, x):
    grads = gradients(inference.ELBO(vae)((x[Y >= 0], Y[Y >= 0])), vae)
    assert all((grad == 0).all() for name, grad in grads.items() if name.startswith("classify"))
    apart = gradients(inference.ELBO(vae)((x, Y)), vae)
    alone = gradients(inference.ELBO(vae)(x[Y < 0]) * (Y < 0).sum() / len(Y), vae)
    for name in (name for name in grads if name.startswith("classify")):
        assert torch.allclose(apart[name], alone[name], rtol=1e-9, atol=1e-12)


def test_the_cross_entropy_is_of_the_labelled_items_alone(vae, x):
    loss = inference.SupervisedELBO(vae, weight=3.0)((x, Y))
    log_q = vae.classify(x).log_softmax(-1)
    labelled = Y >= 0
    entropy = -log_q[labelled, Y[labelled]].mean()
    same(loss, inference.ELBO(vae)((x, Y)) + 3 * entropy, vae)


def test_mean_of_the_noisy_bound_is_that_of_the_explicit_sum(x):
    vae = spread(SupervisedVAE((2, 3), num_classes=C, latent_dim=2, hidden=(5,), activation="tanh"))
    num = 20_000
    with torch.no_grad():
        loss = inference.ELBO(vae, num_particles=num)((x, Y)).item()
        total = torch.zeros(())
        for y in range(C):
            labels = torch.where(Y < 0, y, Y)
            posterior = vae.encode(x, labels)
            z = posterior.rsample((num,))
            ratio = vae.prior().log_prob(z) + vae.decode(z, labels).log_prob(x) - posterior.log_prob(z)
            log_q = torch.where(Y < 0, vae.classify(x).log_softmax(-1)[:, y], -math.log(C))
            share = torch.where(Y < 0, log_q.exp(), 1 / C)
            total = total - (share * (ratio.mean(0) - math.log(C) - torch.where(Y < 0, log_q, 0.0))).mean()
    assert loss == pytest.approx(total.item(), abs=0.02)


def every_item() -> Tensor:
    return torch.cartesian_prod(*[torch.arange(2.0).double()] * 6).reshape(-1, 2, 3)


def test_weights_of_a_mixed_batch_know_which_labels_are_known():
    """p(x, y) of items with a label and p(x) of items without, in one batch: both sum to one."""
    vae = spread(SupervisedVAE((2, 3), num_classes=2, latent_dim=2, hidden=(5,), activation="tanh"))
    with torch.no_grad():
        vae.encoder.head[-1].weight.zero_()
        vae.encoder.head[-1].bias.copy_(torch.tensor([0.0, 0.0, 1.5, 1.5]))
    x = every_item()
    y = torch.tensor([-1, 0, 1]).repeat_interleave(len(x))
    with torch.no_grad():
        weights = inference.log_weights(vae, x.repeat(3, 1, 1), y, num_particles=2000).exp().mean(0)
    p, p0, p1 = weights.split(len(x))
    assert p.sum().item() == pytest.approx(1, abs=0.02)
    assert p0.sum().item() == pytest.approx(0.5, abs=0.01)
    assert p1.sum().item() == pytest.approx(0.5, abs=0.01)
    assert torch.allclose(p, p0 + p1, atol=0.003)


def test_a_label_chooses_what_is_drawn():
    vae = SupervisedVAE((2, 3), num_classes=2, latent_dim=2, hidden=(4,))
    with torch.no_grad():
        for param in vae.decoder.parameters():
            param.zero_()
        first, last = vae.decoder.layers[0], vae.decoder.layers[-1]
        first.weight[0, -1] = 1.0  # the first hidden unit is on for label 1
        last.weight[:, 0], last.bias[:] = 200.0, -100.0
    y = torch.tensor([0, 1, 1, 0])
    assert torch.equal(vae.sample(4, y=y), y.float().view(-1, 1, 1).expand(-1, 2, 3))
    assert torch.equal(vae.model(y=y), vae.sample(4, y=y))
    assert vae.sample(3, y=1).eq(1).all()
    assert {int(value) for value in vae.sample(200).flatten(1).mean(1)} == {0, 1}


def test_the_posterior_of_the_code_and_the_items_depend_on_the_label(vae, x):
    z = torch.randn(len(x), 2).double()
    posteriors = [vae.encode(x, torch.full((len(x),), y)) for y in range(C)]
    likelihoods = [vae.decode(z, torch.full((len(x),), y)) for y in range(C)]
    for one, other in itertools.combinations(range(C), 2):
        assert (posteriors[one].mean != posteriors[other].mean).all()
        assert (posteriors[one].stddev != posteriors[other].stddev).all()
        assert (likelihoods[one].mean != likelihoods[other].mean).all()


def test_every_label_is_as_likely():
    vae = SupervisedVAE((2, 3), num_classes=4, latent_dim=2)
    assert torch.allclose(vae.label_prior().probs, torch.full((4,), 0.25))


def test_labels_are_observed_in_the_model():
    vae = SupervisedVAE((2, 3), num_classes=C, latent_dim=2)
    x, y = vae.sample(4), torch.tensor([0, 1, 2, 0])
    site = poutine.trace(vae.model).get_trace(x, y).nodes["y"]
    assert site["is_observed"] and torch.equal(site["value"], y)
    assert "y" not in poutine.trace(vae.guide).get_trace(x, y).nodes
    drawn = pyro.infer.Predictive(vae.model, num_samples=5)(y=y)
    assert drawn["x"].shape == (5, 4, 2, 3)


def test_classifier_learns_labels_that_are_plain_to_see():
    vae = SupervisedVAE((2, 3), num_classes=2, latent_dim=2, hidden=(8,))
    y = torch.arange(40) % 2
    x = y.float().view(-1, 1, 1).expand(-1, 2, 3).contiguous()
    hidden = torch.where(torch.arange(40) < 4, y, -1)
    objective = inference.SupervisedELBO(vae, weight=1.0)
    inference.fit(objective, (x, hidden), epochs=30, batch_size=10, lr=0.02, progress=False)
    assert torch.equal(vae.classify(x).argmax(-1), y)


def test_features_and_reconstructions():
    vae = SupervisedVAE((2, 3), num_classes=C, latent_dim=2)
    x = vae.sample(5)
    q, code = vae.features(x).split([C, 2], dim=-1)
    y = q.argmax(-1)
    assert torch.allclose(q, vae.classify(x).softmax(-1)) and not q.requires_grad
    assert torch.equal(code, vae.encode(x, y).mean)
    assert torch.equal(vae.reconstruct(x), vae.decode(code, y).mean)
    assert not vae.reconstruct(x).requires_grad


def test_known_labels_stay_where_others_are_missing(vae, x):
    trace = poutine.trace(vae.model).get_trace(x, Y)
    drawn, known = trace.nodes["y"]["value"], Y >= 0
    assert drawn[known].tolist() == Y[known].tolist()
    assert drawn.min() >= 0
    # The program's joint is that of the same labels observed.
    observed = poutine.trace(poutine.condition(vae.model, {"z": trace.nodes["z"]["value"]})).get_trace(
        x, drawn
    )
    assert torch.allclose(trace.log_prob_sum(), observed.log_prob_sum())
