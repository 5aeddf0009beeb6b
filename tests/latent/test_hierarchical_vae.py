"""The hierarchical VAE against what is known in closed form: linear-Gaussian layers, quadrature, the VAE."""

import math

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from torch import Tensor, nn
from torch.nn.functional import softplus

import inference
import zoo
from tests.cases import wide_posteriors
from zoo.latent.autoencoder import MIN_SCALE
from zoo.latent.hierarchical_vae import HierarchicalVAE

GUIDES = ("ladder", "bottom-up")

both = pytest.mark.parametrize("posterior", GUIDES)


def inverse_softplus(value: Tensor) -> Tensor:
    return value.expm1().log()


class Affine(nn.Module):
    """Raw parameters of the Gaussian N(slope · input, scale²), for an input of one number."""

    def __init__(self, slope: Tensor, scale: Tensor, *, stacked: bool) -> None:
        super().__init__()
        self.slope, self.raw = nn.Parameter(slope), nn.Parameter(inverse_softplus(scale))
        self.stacked = stacked

    def forward(self, x: Tensor) -> Tensor:
        params = self.slope * x, self.raw.expand_as(x)
        return torch.stack(params) if self.stacked else torch.cat(params, dim=-1)

    def with_hidden(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x, self(x)


A, S, B, T = (torch.tensor(value, dtype=torch.float64) for value in (1.5, 0.6, 0.8, 0.5))


def linear(posterior: str) -> HierarchicalVAE:
    """z_2 ~ N(0, 1), z_1 ~ N(A z_2, S²), x ~ N(B z_1, T²), with a guide that is the exact posterior."""
    vae = HierarchicalVAE((1,), (1, 1), posterior=posterior, hidden=(2,), likelihood="gaussian").double()
    vae.decoders[0] = Affine(B, T - MIN_SCALE, stacked=True)
    vae.decoders[1] = Affine(A, S - MIN_SCALE, stacked=True)
    above = A**2 + S**2  # variance of z_1
    if posterior == "bottom-up":  # z_1 given x, and z_2 given z_1
        variance = 1 / (1 / above + (B / T) ** 2)
        vae.encoders[0] = Affine(variance * B / T**2, variance.sqrt(), stacked=False)
        variance = 1 / (1 + (A / S) ** 2)
        vae.encoders[1] = Affine(variance * A / S**2, variance.sqrt(), stacked=False)
    else:  # what x says of z_1, and z_2 given x
        vae.encoders[0] = Affine(1 / B, T / B, stacked=False)
        variance = 1 / (1 + (A * B) ** 2 / (T**2 + (B * S) ** 2))
        vae.encoders[1] = Affine(variance * A * B / (T**2 + (B * S) ** 2), variance.sqrt(), stacked=False)
    return vae


@pytest.fixture
def items() -> Tensor:
    return 2 * torch.randn(6, 1, dtype=torch.float64)


def log_likelihood(x: Tensor) -> Tensor:
    scale = ((A * B) ** 2 + (B * S) ** 2 + T**2).sqrt()
    return dist.Normal(0.0, scale).log_prob(x[:, 0])


@both
def test_both_guides_can_be_the_exact_posterior(posterior, items):
    """Then every draw's weight is the likelihood itself."""
    weights = inference.log_weights(linear(posterior), items, num_particles=5)
    assert torch.allclose(weights, log_likelihood(items).expand(5, 6), rtol=0, atol=1e-10)


def test_divergences_of_the_ladder_are_those_in_closed_form(items):
    vae = linear("ladder")
    mean, variance = vae.encode(items).mean[:, 0], vae.encode(items).variance[:, 0]
    top = (variance + mean**2 - 1 - variance.log()) / 2
    # Given z_2, the mean of q(z_1 | x, z_2) lies a share of the way from A z_2 to x / B.
    share = S**2 / (S**2 + (T / B) ** 2)
    way = share**2 * ((items[:, 0] / B - A * mean) ** 2 + A**2 * variance)
    ratio = (T / B) ** 2 / (S**2 + (T / B) ** 2)
    bottom = (ratio + way / S**2 - 1 - ratio.log()) / 2
    found = vae.divergences(items, num_draws=50_000)
    assert torch.allclose(found[:, 1], top, rtol=0, atol=1e-12)
    assert torch.allclose(found[:, 0], bottom, rtol=0.02, atol=0.01)


def test_divergences_of_the_exact_posterior_add_up_to_the_same_under_both_guides(items):
    ladder, upward = (linear(posterior).divergences(items, num_draws=50_000) for posterior in GUIDES)
    assert torch.allclose(ladder.sum(1), upward.sum(1), rtol=0.02, atol=0.03)
    # The top is drawn from x alone in the one, from what was drawn of z_1 in the other.
    assert (ladder[:, 1] < upward[:, 1]).all()


def lively(posterior: str, dims: tuple[int, ...] = (3, 2), **settings) -> HierarchicalVAE:
    settings = {"hidden": ((5, 4), (6,)), "activation": "tanh"} | settings
    vae = HierarchicalVAE((2, 3), dims, posterior=posterior, **settings).double()
    with torch.no_grad():
        for param in vae.parameters():
            param += 0.5 * torch.randn_like(param)
        wide_posteriors(vae)
    return vae


def binary(num: int) -> Tensor:
    return torch.randint(2, (num, 2, 3)).double()


def traced(program, *args, data=None) -> dict[str, dict]:
    trace = poutine.trace(poutine.condition(program, data=data or {})).get_trace(*args)
    trace.compute_log_prob()
    return {name: trace.nodes[name] for name in ("z_1", "z_2", "x") if name in trace.nodes}


def gaussian(value: Tensor, loc: Tensor, variance: Tensor) -> Tensor:
    return (-0.5 * ((value - loc) ** 2 / variance + variance.log() + math.log(2 * math.pi))).sum(-1)


def test_the_model_is_the_decoders():
    vae, x = lively("ladder"), binary(4)
    z_1, z_2 = torch.randn(4, 3).double(), torch.randn(4, 2).double()
    found = traced(vae.model, x, data={"z_1": z_1, "z_2": z_2})
    loc, raw = vae.decoders[1](z_2)
    logits = vae.decoders[0](z_1)[0]
    expected = {
        "z_2": gaussian(z_2, torch.zeros(2), torch.ones(2).double()),
        "z_1": gaussian(z_1, loc, (softplus(raw) + MIN_SCALE) ** 2),
        "x": (x * logits - softplus(logits)).sum((1, 2)),
    }
    for name, log_prob in expected.items():
        assert torch.allclose(found[name]["log_prob"], log_prob, rtol=0, atol=1e-12), name


def test_the_bottom_up_guide_goes_from_each_layer_to_the_next():
    vae, x = lively("bottom-up"), binary(4)
    found = traced(vae.guide, x)
    assert list(found) == ["z_1", "z_2"]
    for name, encoder, below in (
        ("z_1", vae.encoders[0], x),
        ("z_2", vae.encoders[1], found["z_1"]["value"]),
    ):
        loc, raw = encoder(below).chunk(2, -1)
        expected = gaussian(found[name]["value"], loc, softplus(raw) ** 2)
        assert torch.allclose(found[name]["log_prob"], expected, rtol=0, atol=1e-12), name


def test_the_ladder_weighs_by_precision_what_comes_up_and_what_comes_down():
    vae, x = lively("ladder"), binary(4)
    trace = poutine.trace(vae.guide).get_trace(x)
    assert [name for name in trace.nodes if name.startswith("z_")] == ["z_2", "z_1"]
    found = traced(vae.guide, x, data={name: trace.nodes[name]["value"] for name in ("z_1", "z_2")})
    hidden = vae.encoders[0].head[:-1](x.flatten(1))
    loc_1, raw_1 = vae.encoders[0].head[-1](hidden).chunk(2, -1)
    loc_2, raw_2 = vae.encoders[1].head(hidden).chunk(2, -1)
    z_1, z_2 = found["z_1"]["value"], found["z_2"]["value"]
    assert torch.allclose(found["z_2"]["log_prob"], gaussian(z_2, loc_2, softplus(raw_2) ** 2), atol=1e-12)
    loc_p, raw_p = vae.decoders[1](z_2)
    upward, downward = 1 / softplus(raw_1) ** 2, 1 / (softplus(raw_p) + MIN_SCALE) ** 2
    loc = (upward * loc_1 + downward * loc_p) / (upward + downward)
    expected = gaussian(z_1, loc, 1 / (upward + downward))
    assert torch.allclose(found["z_1"]["log_prob"], expected, rtol=0, atol=1e-12)


def test_a_ladder_of_tiny_scales_stays_finite():
    vae = HierarchicalVAE((2, 3), (3, 2), hidden=(4,))
    with torch.no_grad():
        vae.encoders[0].head[-1].bias[3:] = -45.0  # a scale whose square has no inverse in float32
        vae.decoders[1].layers[-1].bias[3:] = -45.0
    loss = inference.ELBO(vae)(binary(4).float())
    loss.backward()
    assert loss.isfinite() and all(param.grad.isfinite().all() for param in vae.parameters())


@both
def test_loss_and_gradient_are_those_of_quadrature(posterior):
    """The ladder draws in the model's order, with the divergence exact; the other does not."""
    vae, x = lively(posterior, (1, 1)), binary(4)
    nodes, weights = (torch.from_numpy(values) for values in np.polynomial.hermite_e.hermegauss(40))
    shapes = iter([(40, 1, 1, 1), (1, 40, 1, 1)])
    log_ratio, codes = 0.0, {}

    def at_the_nodes(layer: int, q: dist.Distribution) -> Tensor:
        nonlocal log_ratio
        codes[layer] = q.mean + q.stddev * nodes.reshape(next(shapes))
        log_ratio = log_ratio - q.log_prob(codes[layer])
        return codes[layer]

    vae._draw(x, at_the_nodes)
    log_ratio = log_ratio + vae.prior().log_prob(codes[2]) + vae.conditional(1, codes[2]).log_prob(codes[1])
    log_ratio = log_ratio + vae.emission(codes[1]).log_prob(x)
    exact = -torch.einsum("i,j,ijn->", weights, weights, log_ratio) / (2 * math.pi * len(x))
    loss = inference.ELBO(vae, num_particles=20_000)(x)
    assert loss.item() == pytest.approx(exact.item(), abs=0.05)
    params = list(vae.parameters())
    pairs = zip(torch.autograd.grad(loss, params), torch.autograd.grad(exact, params), strict=True)
    for ours, expected in pairs:
        assert torch.allclose(ours, expected, rtol=0.03, atol=0.04)


@both
def test_divergences_are_the_means_of_draws_of_the_guide(posterior):
    vae, x, num = lively(posterior), binary(3), 20_000
    many = x.repeat(num, 1, 1)
    drawn = traced(vae.guide, many)
    priors = traced(vae.model, many, data={name: site["value"] for name, site in drawn.items()})
    found = vae.divergences(x, num_draws=2000)
    assert found.shape == (3, 2) and not found.requires_grad
    for layer, name in enumerate(("z_1", "z_2")):
        draws = (drawn[name]["log_prob"] - priors[name]["log_prob"]).view(num, 3).detach()
        error = (draws.var(0) * (1 / num + 1 / 2000)).sqrt()
        assert ((found[:, layer] - draws.mean(0)).abs() < 5 * error).all(), name
    reconstruction = priors["x"]["log_prob"].view(num, 3).mean()
    loss = inference.ELBO(vae, num_particles=2000).eval()(x)
    assert loss.item() == pytest.approx((found.sum(1).mean() - reconstruction).item(), abs=0.15)


def test_divergences_are_exact_where_the_order_allows_it():
    x = binary(3)
    ladder, upward = lively("ladder"), lively("bottom-up")
    one, other = ladder.divergences(x), ladder.divergences(x)
    assert torch.equal(one[:, 1], other[:, 1]) and not torch.equal(one[:, 0], other[:, 0])
    q, z = ladder.encode(x), torch.randn(2).double()
    assert torch.allclose(one[:, 1], torch.distributions.kl_divergence(q, ladder.prior()))
    assert not torch.equal(upward.divergences(x), upward.divergences(x))
    assert (upward.divergences(x, num_draws=50)[:, 1] > 0).all()
    with torch.no_grad():  # where z_2 says nothing of z_1, both guides' bottom layer is a VAE's
        ladder.decoders[1].layers[0].weight.zero_()
    one, other = ladder.divergences(x), ladder.divergences(x)
    assert torch.allclose(one, other, rtol=0, atol=1e-12) and ladder.decode(z).mean.shape == (2, 3)
    with pytest.raises(ValueError, match="num_draws must be at least 1, got 0"):
        ladder.divergences(x, num_draws=0)


@both
def test_one_layer_is_the_vae(posterior):
    one = HierarchicalVAE((2, 3), (2,), posterior=posterior, hidden=(4,)).double()
    vae = zoo.VAE((2, 3), latent_dim=2, hidden=(4,)).double()
    names = {"encoder": "encoders.0", "decoder": "decoders.0"}
    state = one.state_dict()
    vae.load_state_dict({name: state[names[name.split(".")[0]] + name[7:]] for name in vae.state_dict()})
    x, losses = binary(5), []
    for model in (one, vae):
        objective = inference.ELBO(model)
        objective.prepare(x)
        pyro.set_rng_seed(1)
        losses.append(objective(x).item())
    assert losses[0] == pytest.approx(losses[1], abs=1e-12)
    assert torch.equal(one.features(x), vae.features(x))
    assert torch.equal(one.reconstruct(x), vae.reconstruct(x))
    divergence = torch.distributions.kl_divergence(vae.encode(x), vae.prior())
    assert torch.allclose(one.divergences(x)[:, 0], divergence)


def test_features_are_the_means_of_all_layers():
    for posterior in GUIDES:
        vae, x = lively(posterior), binary(5)
        features, means = vae.features(x), vae.reconstruct(x)
        assert features.shape == (5, 5) and not features.requires_grad and not means.requires_grad
        bottom, top = features.split((3, 2), dim=1)
        assert torch.equal(vae.encode(x).mean, top)
        assert torch.equal(means, vae.emission(bottom).mean)
        assert torch.equal(vae.decode(top).mean, vae.emission(vae.conditional(1, top).mean).mean)
        if posterior == "bottom-up":
            assert torch.equal(bottom, vae.encoders[0](x)[:, :3])
            assert torch.equal(top, vae.encoders[1](bottom)[:, :2])
        else:
            _, features = vae.encoders[0].with_hidden(x)
            p = vae.conditional(1, top)
            share = p.variance / (p.variance + vae.posterior(features).variance)
            assert torch.allclose(bottom, share * features[:, :3] + (1 - share) * p.mean)


def test_widths_are_of_each_layer_or_of_all():
    one = HierarchicalVAE((4,), (3, 2), hidden=(7, 5))
    other = HierarchicalVAE((4,), [3, 2], hidden=[[7, 5], [7, 5]])  # as a JSON file holds them
    shapes = [[param.shape for param in vae.parameters()] for vae in (one, other)]
    assert shapes[0] == shapes[1]
    vae = HierarchicalVAE((4,), (3, 2), posterior="bottom-up", hidden=((7,), (5, 6)))
    assert [encoder.head[0].in_features for encoder in vae.encoders] == [4, 3]
    assert [decoder.layers[0].out_features for decoder in vae.decoders] == [7, 6]
