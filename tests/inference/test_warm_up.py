"""The warm-up of the ELBO: what it weighs by how much, at which step, and that nothing else sees of it."""

import pyro
import pyro.distributions as dist
import pytest
import torch

import inference
import zoo
from inference.program import log_prob
from tests.inference.test_objectives import (
    X,
    bottom_up_guide,
    bottom_up_model,
    gaussian_bound,
    gaussian_guide,
    gaussian_model,
    masked_guide,
    masked_model,
)
from tests.inference.test_resume import EPOCHS, FailsAt, train, weights


def auxiliary_guide(x):
    with pyro.plate("data", len(x)):
        u = pyro.sample("u", dist.Normal(0.0, pyro.param("width", torch.tensor(0.5))))
        pyro.sample("z", dist.Normal(pyro.param("slope", torch.tensor(0.4)) * x + u, 0.8))


def auxiliary_model(x):
    with pyro.plate("data", len(x)):
        u = pyro.sample("u", dist.Normal(0.0, 1.0))
        z = pyro.sample("z", dist.Normal(0.1 * u, 1.0))
        pyro.sample("x", dist.Normal(z, 1.0), obs=x)


def learnt_upward_guide(x):
    with pyro.plate("data", len(x)):
        z1 = pyro.sample("z1", dist.Normal(pyro.param("slope", torch.tensor(0.4)) * x, 0.8))
        pyro.sample("z2", dist.Normal(pyro.param("up", torch.tensor(0.3)) * z1, 0.7))


def noisier_guide(x):
    """Draws a number that the model does not have."""
    with pyro.plate("data", len(x)):
        u = pyro.sample("u", dist.Normal(0.1 * x, 0.5), infer={"is_auxiliary": True})
        pyro.sample("z", dist.Normal(pyro.param("slope", torch.tensor(0.4)) * x + u, 0.8))


PAIRS = {
    "analytic": (gaussian_model, gaussian_guide),
    "masked": (masked_model, lambda x: masked_guide(pyro.param("stretch", torch.tensor(1.2)) * x)),
    "in the model's order": (auxiliary_model, auxiliary_guide),
    "in another order": (bottom_up_model, learnt_upward_guide),
    "with a site of the guide alone": (gaussian_model, noisier_guide),
}


def at(objective, step: int, seed: int = 4) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """Loss and gradients of a training step, at the noise of a seed."""
    objective.warm_up_steps.fill_(step)
    torch.manual_seed(seed)
    loss = objective(X)
    return loss.detach(), torch.autograd.grad(loss, list(objective.parameters()), allow_unused=True)


def test_the_weight_goes_from_0_to_1_over_the_training_steps():
    objective = inference.ELBO(gaussian_model, gaussian_guide, warm_up=4)
    weights = []
    for _ in range(6):
        weights.append(float(objective.latent_weight))
        objective(X)
    assert weights == [0, 0.25, 0.5, 0.75, 1, 1]
    assert objective.warm_up_steps.item() == 6


def test_the_first_step_sees_the_reconstruction_alone_and_a_later_one_a_share_of_the_divergence():
    objective = inference.ELBO(gaussian_model, gaussian_guide, num_particles=50_000, warm_up=10)
    objective.prepare(X)
    loc, scale = (objective.program.parameter_values()[name] for name in ("loc", "scale"))
    divergence = (0.5 * ((loc * X) ** 2 + scale**2 - 1) - scale.log()).mean()
    reconstruction = gaussian_bound(X, loc, scale) + divergence
    for step, share in ((0, 0.0), (3, 0.3), (10, 1.0), (99, 1.0)):
        loss, _ = at(objective, step)
        assert loss.item() == pytest.approx((share * divergence - reconstruction).item(), abs=0.02), step


@pytest.mark.parametrize("name", PAIRS)
def test_no_latent_term_has_a_part_in_the_first_step(name):
    objective = inference.ELBO(*PAIRS[name], warm_up=8)
    objective.prepare(X)
    loss, _ = at(objective, 0)
    torch.manual_seed(4)
    with objective.program.scope():
        drawn = objective.program.run(objective.program.guide, (X,))
        sites = objective.program.run(objective.program.model, (X,), drawn=drawn)
    assert loss.item() == pytest.approx(-log_prob(sites["x"]).mean().item(), abs=1e-6)


@pytest.mark.parametrize("num_particles", [1, 3])
@pytest.mark.parametrize("name", PAIRS)
def test_loss_and_gradient_are_linear_in_the_weight_and_those_of_the_elbo_at_its_end(name, num_particles):
    model, guide = PAIRS[name]
    objective = inference.ELBO(model, guide, num_particles=num_particles, warm_up=8)
    plain = inference.ELBO(model, guide, num_particles=num_particles)
    for each in (objective, plain):
        each.prepare(X)
    (first, of_first), (middle, of_middle), (last, of_last) = (at(objective, step) for step in (0, 2, 8))
    assert not torch.allclose(first, last)
    assert torch.allclose(middle, 0.75 * first + 0.25 * last, atol=1e-6)
    for start, between, end in zip(of_first, of_middle, of_last, strict=True):
        assert between is not None and end is not None
        assert torch.allclose(between, 0.75 * start + 0.25 * end, atol=1e-6)
    torch.manual_seed(4)
    loss = plain(X)
    assert torch.equal(loss.detach(), last)
    for ours, end in zip(torch.autograd.grad(loss, list(plain.parameters())), of_last, strict=True):
        assert torch.equal(ours, end)


def test_what_lowers_the_divergence_alone_learns_nothing_at_first():
    vae = zoo.HierarchicalVAE((3,), (2, 2), posterior="bottom-up", hidden=(4,))
    objective = inference.ELBO(vae, warm_up=5)
    x = torch.randint(2, (6, 3)).float()
    for step in range(2):
        vae.zero_grad()
        objective(x).backward()
        of_upper = [part for layer in (vae.encoders[1], vae.decoders[1]) for part in layer.parameters()]
        assert all((param.grad == 0).all() == (step == 0) for param in of_upper)
        assert all((param.grad != 0).any() for param in vae.decoders[0].parameters())


def test_evaluation_is_the_bound_and_counts_nothing():
    objective = inference.ELBO(gaussian_model, gaussian_guide, warm_up=5)
    plain = inference.ELBO(gaussian_model, gaussian_guide)
    losses = []
    for each in (plain, objective, objective.eval()):
        each.prepare(X)
        torch.manual_seed(4)
        with torch.set_grad_enabled(not each.training):
            losses.append(each(X).item())
    assert losses[0] == losses[1] == losses[2]
    assert objective.warm_up_steps.item() == 0
    assert objective.latent_weight == 1 and objective.train().latent_weight == 0


def test_its_name_and_its_buffer_are_there_where_it_is_asked_for():
    plain = inference.ELBO(gaussian_model, gaussian_guide)
    warm = inference.ELBO(gaussian_model, gaussian_guide, warm_up=7)
    assert plain.extra_repr() == "num_particles=1" and plain.latent_weight == 1
    assert warm.extra_repr() == "num_particles=1, warm_up=7"
    assert set(warm.state_dict()) - set(plain.state_dict()) == {"warm_up_steps"}
    both = inference.ELBO(gaussian_model, gaussian_guide, gradient="reparameterized", warm_up=7)
    assert both.extra_repr() == "num_particles=1, gradient=reparameterized, warm_up=7"
    assert both(X).isfinite() and both.warm_up_steps.item() == 1


@pytest.mark.parametrize("warm_up", [-1, 2.5, True, "10"])
def test_what_is_no_number_of_steps_is_refused(warm_up):
    with pytest.raises(ValueError, match=f"warm_up must be a number of steps, at least 0, got {warm_up!r}"):
        inference.ELBO(gaussian_model, gaussian_guide, warm_up=warm_up)


@pytest.mark.parametrize("gradient", ["score-function", "baseline", "leave-one-out", "enumerated"])
def test_gradients_that_take_no_draws_through_the_program_are_refused(gradient):
    with pytest.raises(
        ValueError, match=f'warm_up expects gradient=None or .*, got 3 steps and "{gradient}"'
    ):
        inference.ELBO(gaussian_model, gaussian_guide, num_particles=2, gradient=gradient, warm_up=3)


def coin_model(x):
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Bernoulli(0.5))
        pyro.sample("x", dist.Normal(z, 1.0), obs=x)


def coin_guide(x):
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Bernoulli(logits=pyro.param("logit", torch.tensor(0.3)) + x))


@pytest.mark.parametrize("counted", [False, True])
def test_programs_without_draws_that_have_a_gradient_are_refused(counted):
    guide = pyro.infer.config_enumerate(coin_guide) if counted else coin_guide
    reason = "is summed out" if counted else "cannot be reparameterised"
    objective = inference.ELBO(coin_model, guide, warm_up=3)
    with pytest.raises(ValueError, match=f"warm_up expects .*, got z, which {reason}; leave it at 0"):
        objective.prepare(X)


def test_a_batch_that_needs_a_sum_is_refused_where_the_first_did_not():
    vae = zoo.SupervisedVAE((4,), num_classes=3, latent_dim=2, hidden=(8,))
    objective = inference.ELBO(vae, warm_up=3)
    x = torch.randint(2, (5, 4)).float()
    assert objective((x, torch.arange(5) % 3)).isfinite()
    with pytest.raises(ValueError, match="warm_up expects .*, got y, which is summed out"):
        objective((x, torch.tensor([0, 1, 2, -1, 0])))
    assert objective.warm_up_steps.item() == 1


def warm_objective() -> inference.ELBO:
    torch.manual_seed(3)
    return inference.ELBO(zoo.HierarchicalVAE((4,), (3, 2), hidden=(8,)), warm_up=10)  # 4 steps an epoch


@pytest.mark.parametrize("epoch", [1, 2, 4])
def test_interrupted_and_resumed_it_ends_in_the_same_bits(tmp_path, epoch):
    whole, first, second = warm_objective(), warm_objective(), warm_objective()
    history = train(whole).history
    assert train(first, checkpoint=tmp_path / "c.pt", logger=FailsAt(epoch)).interrupted
    resumed = train(second, checkpoint=tmp_path / "c.pt")
    assert resumed.history == history and len(history) == EPOCHS
    assert torch.equal(weights(second), weights(whole))
    assert second.warm_up_steps.item() == 4 * resumed.best_epoch


def test_a_training_without_it_is_another(tmp_path):
    train(warm_objective(), checkpoint=tmp_path / "c.pt", logger=FailsAt(2))
    other = inference.ELBO(warm_objective().program.source[0], warm_up=11)
    with pytest.raises(ValueError, match="another objective"):
        train(other, checkpoint=tmp_path / "c.pt")


def test_the_graph_of_a_step_counts_and_weighs_as_the_step_does(monkeypatch):
    monkeypatch.setattr(torch, "compile", lambda graph, **_: graph)
    compiled, eager = warm_objective(), warm_objective()
    result, expected = train(compiled, compile=True), train(eager)
    for name in ("train", "valid"):
        ours, theirs = ([row[name] for row in each.history] for each in (result, expected))
        assert ours == pytest.approx(theirs, abs=1e-4)
    assert torch.allclose(weights(compiled), weights(eager), atol=1e-4)
    assert compiled.warm_up_steps == eager.warm_up_steps > 10


def test_the_exact_posterior_has_no_noise_at_full_weight_in_any_order():
    objective = inference.ELBO(bottom_up_model, bottom_up_guide, warm_up=1)
    objective.warm_up_steps.fill_(1)
    expected = -dist.Normal(0.0, 3**0.5).log_prob(X).mean()
    assert objective(X).item() == pytest.approx(expected.item(), abs=1e-5)
