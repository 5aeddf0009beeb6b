"""What RealNVP costs, against Zuko's and nflows' with the same couplings, masks, layers and widths."""

import math

import pytest
import torch
from torch import nn
from torch.distributions import Distribution

import inference
from tests.benchmarks.timing import MACHINE, adam, expect, median_seconds, step_of
from zoo.flows import RealNVP

pytestmark = pytest.mark.figures

# Entries of an item, couplings, widths of the hidden layers.
SHAPES = {"wine": (11, 8, (128, 128)), "digits": (64, 8, (128, 128))}
BATCH = 100


def realnvp(num, layers, hidden):
    """Ours, its parameters moved from where they start."""
    model = RealNVP((num,), layers=layers, hidden=hidden)
    with torch.no_grad():
        for network in networks_of(model):
            network[-1].weight.normal_(std=0.02)
            network[-1].bias.normal_(std=0.1)
    return model


def networks_of(model):
    """The perceptrons of ours, from data to latent, as theirs are."""
    return [coupling.network for coupling in reversed(model.transform.parts[0].parts)]


def zuko_flow(num, layers, hidden):
    """Zuko's, which reads from data to latent: the masks of ours in the opposite order."""
    import zuko.flows

    masks = [torch.arange(num) % 2 == layer % 2 for layer in reversed(range(layers))]
    base = zuko.flows.UnconditionalDistribution(
        zuko.distributions.DiagNormal, loc=torch.zeros(num), scale=torch.ones(num), buffer=True
    )
    couplings = [
        zuko.flows.coupling.GeneralCouplingTransform(num, mask=mask, hidden_features=hidden) for mask in masks
    ]
    return zuko.flows.Flow(couplings, base)


def nflows_flow(num, layers, hidden):
    """The same in nflows."""
    from nflows.distributions import StandardNormal
    from nflows.flows import Flow
    from nflows.transforms import AffineCouplingTransform, CompositeTransform

    def conditioner(num_inputs, num_outputs):
        widths = [num_inputs, *hidden]
        inner = [
            layer for pair in zip(widths, widths[1:], strict=False) for layer in (nn.Linear(*pair), nn.ReLU())
        ]
        return WithoutContext(*inner, nn.Linear(hidden[-1], num_outputs))

    hides = [(torch.arange(num) % 2 != layer % 2).int() for layer in reversed(range(layers))]
    couplings = [AffineCouplingTransform(mask, conditioner) for mask in hides]
    return Flow(CompositeTransform(couplings), StandardNormal([num]))


class WithoutContext(nn.Sequential):
    """A perceptron as nflows calls it."""

    def forward(self, x, context=None):
        return super().forward(x)


class Loss(nn.Module):
    """Mean negative log-density of a flow of theirs."""

    def __init__(self, flow):
        super().__init__()
        self.flow = flow

    def forward(self, batch):
        return -log_prob(self.flow, batch).mean()


def log_prob(flow, x):
    """As their own tutorials have it: Zuko's flow is called for a distribution, at each step anew."""
    return flow.log_prob(x) if hasattr(flow, "log_prob") else flow().log_prob(x)


def drawing(flow):
    def draw(num):
        with torch.no_grad():
            return flow.sample(num) if hasattr(flow, "log_prob") else flow().sample((num,))

    return draw


@pytest.fixture(autouse=True)
def as_zuko_has_it(monkeypatch):
    """Zuko's import switches off the validation of all of torch's distributions: for all three, then.

    Afterwards it is on again. A training step of ours does not go through distributions.
    """
    monkeypatch.setattr(Distribution, "_validate_args", False)
    monkeypatch.setattr(Distribution, "arg_constraints", {}, raising=False)


@pytest.fixture(params=SHAPES)
def name(request):
    return request.param


@pytest.fixture
def flows(name):
    """Ours, Zuko's and nflows'."""
    return [make(*SHAPES[name]) for make in (realnvp, zuko_flow, nflows_flow)]


@pytest.fixture
def batch(name):
    return torch.randn(BATCH, SHAPES[name][0])


@pytest.fixture
def record(name, threads, record_result):
    def record(what, **figures):
        result = {**figures, "threads": threads, "machine": MACHINE}
        record_result(f"realnvp-{what}-{name}-{threads}", result)

    return record


def test_all_have_as_many_parameters(flows):
    ours, *theirs = (sum(param.numel() for param in flow.parameters()) for flow in flows)
    assert theirs == [ours, ours]


def test_all_compute_the_same_density_where_their_scales_are_the_same(flows, batch):
    """With s = exp(h) a constant of each entry and layer; the three make it of the network's numbers in ways
    of their own, and so of a constant too: z = (x - g) s is ours, z = x s + b theirs, and b = -g s.
    """
    ours, zukos, nflows = flows
    theirs = zip([part.hyper for part in zukos.transform.transforms], transform_nets(nflows), strict=True)
    for network, (of_zuko, of_nflows) in zip(networks_of(ours), theirs, strict=True):
        num = network[-1].out_features // 2
        with torch.no_grad():
            network[-1].weight[:num] = 0
            network[-1].bias[:num].abs_().neg_()  # nflows' scales are below 1.001
            log_scale = 3 * torch.tanh(network[-1].bias[:num] / 3)
            scale = log_scale.exp()
            for layer in (0, 2):
                for other in (of_zuko, of_nflows):
                    other[layer].load_state_dict(network[layer].state_dict())
            weight, bias = -network[-1].weight[num:] * scale[:, None], -network[-1].bias[num:] * scale
            # Zuko: log s = a / (1 + |a / log 0.001|), and b and a of an entry side by side.
            a = log_scale / (1 - (log_scale / math.log(1e-3)).abs())
            of_zuko[-1].weight.copy_(torch.stack([weight, torch.zeros_like(weight)], 1).flatten(0, 1))
            of_zuko[-1].bias.copy_(torch.stack([bias, a], 1).flatten())
            # nflows: s = sigmoid(a + 2) + 0.001, and every b before every a.
            a = (scale - 1e-3).logit() - 2
            of_nflows[-1].weight.copy_(torch.cat([weight, torch.zeros_like(weight)]))
            of_nflows[-1].bias.copy_(torch.cat([bias, a]))
    densities = [log_prob(flow, batch) for flow in flows]
    assert densities[0].std() > 1
    for density in densities[1:]:
        assert torch.allclose(density, densities[0], atol=1e-3)
    latents = torch.stack([ours.encode(batch), zukos().transform(batch), nflows.transform_to_noise(batch)])
    assert torch.allclose(latents, latents[:1].expand_as(latents), atol=1e-4)
    assert (latents[0] - batch).abs().max() > 0.1


def transform_nets(flow):
    return [part.transform_net for part in flow._transform._transforms]


def test_a_training_step_takes_no_longer_than_theirs(flows, batch, record, threads):
    ours, *theirs = flows
    objective = inference.MaximumLikelihood(ours)
    objective.prepare(batch)
    losses = [objective, *map(Loss, theirs)]
    steps = [step_of(loss, adam(loss)) for loss in losses]
    own, zukos, nflows = median_seconds(steps, batch, rounds=150, warm_up=10)
    record("step", zuko=zukos / own, nflows=nflows / own)
    expect({"Zuko": (zukos / own, 1), "nflows": (nflows / own, 1)})


def test_drawing_takes_no_longer_than_theirs(flows, record, threads):
    ours, *theirs = flows
    for flow in flows:
        flow.eval()  # theirs would draw with a dropout otherwise; ours sees to it, at a cost
    draws = [ours.sample, *map(drawing, theirs)]
    ratios = {}
    for num in (100, 1000):
        own, zukos, nflows = median_seconds(draws, num, rounds=150, warm_up=10)
        ratios |= {f"zuko-{num}": zukos / own, f"nflows-{num}": nflows / own}
    record("draw", **ratios)
    expect({what: (ratio, 1) for what, ratio in ratios.items()})
