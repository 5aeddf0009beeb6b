"""The four models against the formulas of their densities, with determinants by autograd."""

import math

import pyro.distributions as dist
import pytest
import torch
from torch.distributions import MultivariateNormal
from torch.nn.functional import softplus

from zoo.flows import (
    NICE,
    AffineCoupling,
    ConvergenceError,
    Flow,
    LinearFlow,
    LULinear,
    MintNet,
    RealNVP,
)


def moved(flow: Flow, spread: float = 0.4) -> Flow:
    with torch.no_grad():
        for param in flow.parameters():
            param += spread * torch.randn_like(param)
    return flow.double()


def log_prior(z: torch.Tensor, prior: str) -> torch.Tensor:
    if prior == "gaussian":
        return (-z.square() / 2).sum(-1) - z.shape[-1] * math.log(2 * math.pi) / 2
    return -(z + 2 * softplus(-z)).sum(-1)


def test_the_linear_flow_is_a_gaussian_of_full_covariance():
    """p_X(x) = p_Z(A⁻¹ x) / |det A|, with A Aᵀ for the covariance."""
    flow = moved(LinearFlow((2, 3)))
    linear = flow.transform.parts[0].transform
    inverse = linear.matrix()
    A = torch.linalg.inv(inverse)
    loc = -A @ linear.bias
    x = 2 * torch.randn(20, 2, 3, dtype=torch.float64)
    z = (x.flatten(1) - loc) @ inverse.T
    by_hand = log_prior(z, "gaussian") - torch.linalg.slogdet(A)[1]
    assert torch.allclose(flow.log_prob(x), by_hand, rtol=0, atol=1e-9)
    expected = MultivariateNormal(loc, A @ A.T, validate_args=False).log_prob(x.flatten(1))
    assert torch.allclose(flow.log_prob(x), expected, rtol=0, atol=1e-8)
    drawn = flow.sample(20_000, seed=0).flatten(1)
    assert torch.allclose(drawn.mean(0), loc, atol=0.15)
    assert torch.allclose(drawn.T.cov(), A @ A.T, rtol=0.1, atol=0.2)


@pytest.mark.parametrize("permute", [False, True])
def test_a_matrix_in_factors_has_their_determinant(permute):
    linear = LULinear(6, permute=permute).double()
    with torch.no_grad():
        for param in linear.parameters():
            param.normal_()
    A = linear.matrix()
    L, U = linear.lower(), linear.upper()
    assert torch.equal(L.diag(), torch.ones(6).double()) and (L.triu(1) == 0).all()
    assert (U.tril(-1) == 0).all() and (U.diag() > 0).all()
    assert sorted(linear.permutation.tolist()) == list(range(6))
    assert permute == (linear.permutation.tolist() != list(range(6)))
    assert torch.allclose(A, (L @ U)[linear.permutation])
    x = torch.randn(4, 6, dtype=torch.float64)
    y, log_det = linear.call_and_log_det(x)
    assert torch.allclose(y, torch.einsum("ij,bj->bi", A, x) + linear.bias)
    assert torch.allclose(log_det, torch.linalg.slogdet(A)[1].expand(4))


FLOWS = {
    "nice": lambda prior: NICE((2, 3), layers=3, hidden=(5,), prior=prior),
    "nice-affine": lambda prior: NICE((7,), layers=2, hidden=(5,), coupling="affine", prior=prior),
    "realnvp": lambda prior: RealNVP((5,), layers=3, hidden=(4,), prior=prior),
    "realnvp-image": lambda prior: RealNVP((4, 4), layers=2, hidden=(3,), scales=2, prior=prior),
    "realnvp-colour": lambda prior: RealNVP((2, 2, 4), layers=2, hidden=(3, 3), scales=2, prior=prior),
    "mintnet": lambda prior: MintNet((2, 3), layers=3, hidden=3, prior=prior),
    "mintnet-colour": lambda prior: MintNet((2, 2, 2), layers=2, hidden=2, squeezes=1, prior=prior),
}


@pytest.mark.parametrize("prior", ["gaussian", "logistic"])
@pytest.mark.parametrize("name", FLOWS)
def test_the_density_is_that_of_the_latents_times_the_determinant(name, prior):
    """p_X(x) = p_Z(h(x)) |det h'(x)| with h the inverse of the transform."""
    flow = moved(FLOWS[name](prior), spread=0.2)
    x = torch.randn(2, *flow.event_shape, dtype=torch.float64)
    for item, ours in zip(x, flow.log_prob(x), strict=True):
        h = torch.autograd.functional.jacobian(flow.transform._inverse, item)
        h = h.reshape(item.numel(), item.numel())
        expected = log_prior(flow.encode(item[None]).flatten(1), prior) + torch.linalg.slogdet(h)[1]
        assert ours.item() == pytest.approx(expected.item(), rel=1e-12, abs=1e-9)


@pytest.mark.parametrize("prior", ["gaussian", "logistic"])
def test_priors_are_standard(prior):
    flow = LinearFlow((3,), prior=prior)
    z = flow.prior().sample((20_000,))
    variance = 1.0 if prior == "gaussian" else math.pi**2 / 3
    assert torch.allclose(z.mean(0), torch.zeros(3), atol=0.06)
    assert torch.allclose(z.var(0), torch.full((3,), variance), rtol=0.05)
    assert torch.allclose(flow.prior().log_prob(z), log_prior(z, prior), atol=1e-4)


def test_nice_and_realnvp_have_the_couplings_that_they_say():
    nice = NICE((7,), layers=4, hidden=(3,))
    even = torch.arange(7) % 2 == 0
    couplings = nice.transform.parts[0].parts[1:]
    assert [torch.equal(part.mask, even) for part in couplings] == [True, False, True, False]
    assert [torch.equal(part.mask, ~even) for part in couplings] == [False, True, False, True]
    realnvp = RealNVP((2, 4, 4), layers=3, hidden=(3,), scales=2)
    masks = [part.mask for part in realnvp.modules() if isinstance(part, AffineCoupling)]
    assert [mask.dim() for mask in masks] == [1, 1, 1, 3, 3, 3, 3, 3, 3]
    assert [tuple(mask.shape) for mask in masks] == 3 * [(8,)] + 3 * [(2, 4, 4)] + 3 * [(4, 2, 2)]
    for mask in masks[3:]:
        assert (mask.roll(1, -1) != mask).all() and (mask.roll(1, -2) != mask).all()
    assert all((one != other).all() for one, other in ((masks[0], masks[1]), (masks[3], masks[4])))


def test_a_fresh_coupling_flow_is_its_prior():
    for flow in (
        NICE((6,), prior="gaussian"),
        NICE((6,), coupling="affine", prior="gaussian"),
        RealNVP((6,)),
    ):
        x = torch.randn(5, 6)
        assert torch.allclose(flow.log_prob(x), dist.Normal(0, 1).log_prob(x).sum(1), atol=1e-5)


@pytest.mark.parametrize(
    "build",
    [lambda: NICE((1,)), lambda: NICE((1, 1)), lambda: RealNVP((1,))],
    ids=["nice", "image", "realnvp"],
)
def test_an_item_of_one_entry_has_nothing_to_couple(build):
    with pytest.raises(ValueError, match="at least 2 entries.* got 1"):
        build()


# MintNet


@pytest.mark.parametrize("shape", [(3, 3), (2, 2, 2)], ids=str)
def test_mintnets_layers_are_triangular_along_the_scan_and_against_it_in_turn(shape):
    flow = moved(MintNet(shape, layers=3, hidden=3), spread=2.0)
    channels, *sides = (1, *shape)[-3:]
    place = torch.arange(math.prod(shape)).view(channels, *sides).permute(1, 2, 0).flatten()
    for number, layer in enumerate(flow.convolutions):
        x = torch.randn(channels, *sides, dtype=torch.float64)
        matrix = torch.autograd.functional.jacobian(lambda x, layer=layer: layer(x), x)
        matrix = matrix.reshape(len(place), len(place))[place][:, place]
        assert ((matrix.triu(1) if number % 2 == 0 else matrix.tril(-1)) == 0).all()
        assert (matrix.diag() > 0).all()
        diagonal = layer.value_and_diagonal(x[None])[1].flatten()[place]
        assert torch.allclose(matrix.diag(), diagonal, rtol=1e-9, atol=1e-12)


def test_mintnet_depends_on_every_entry():
    """One scan leaves out what lies ahead; both together do not."""
    flow = moved(MintNet((3, 3), layers=2, hidden=3))
    x = torch.randn(3, 3, dtype=torch.float64)
    matrix = torch.autograd.functional.jacobian(flow.transform._inverse, x).reshape(9, 9)
    assert (matrix != 0).all()


def test_mintnet_reports_on_the_inverse_of_each_layer():
    flow = moved(MintNet((4, 4), layers=3, hidden=3))
    z = flow.prior().sample((6,))
    found = flow.invert(z)
    assert len(found) == 3 and all(report.iterations.shape == (6,) for report in found)
    assert torch.allclose(found[-1].x[:, 0], flow.decode(z), rtol=0, atol=1e-10)
    rough = flow.invert(z, tolerance=0.1)
    assert all((report.residual <= 0.1).all() for report in rough)
    assert rough[0].iterations.sum() < found[0].iterations.sum()
    with pytest.raises(ConvergenceError, match="of 6 items"):
        flow.invert(z, max_iterations=1)


# What is no number


def spoiled(name: str) -> Flow:
    """A flow with infinite weights in a layer in the middle."""
    flow = moved(FLOWS[name]("gaussian"), spread=0.1)
    params = [param for key, param in flow.named_parameters() if key.endswith("bias")]
    with torch.no_grad():
        params[len(params) // 2].flatten()[[0, -1]] = math.inf  # scales have limits, and some units too
    return flow


@pytest.mark.parametrize("name", [name for name in FLOWS if not name.startswith("mintnet")])
def test_an_infinite_weight_is_an_error_that_names_the_layer(name):
    flow = spoiled(name)
    x = torch.rand(30, *flow.event_shape, dtype=torch.float64)
    z = torch.rand(30, *flow.latent_shape, dtype=torch.float64)
    words = (
        r"layer \d+ \(.*Coupling\) gives a (value|log-determinant) that is not finite in its (call|inverse)"
    )
    for run in (
        lambda: flow.log_prob(x),
        lambda: flow.encode(x),
        lambda: flow.decode(z),
        lambda: flow.sample(30, seed=0),
        lambda: flow.model(num=30),
    ):
        with pytest.raises(FloatingPointError, match=words):
            run()


@pytest.mark.parametrize("name", ["mintnet", "mintnet-colour"])
def test_an_infinite_weight_of_a_mintnet_is_an_error_in_both_directions(name):
    """In drawing it is the inverse that says so: of such a layer there is none."""
    flow = spoiled(name)
    with pytest.raises(FloatingPointError, match=r"layer \d \(MaskedConvolution\) gives a (value|log-det)"):
        flow.log_prob(torch.rand(30, *flow.event_shape, dtype=torch.float64))
    with pytest.raises(ConvergenceError, match="the inverse of 30 of 30 items"):
        flow.sample(30, seed=0)


# Arguments


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"prior": "laplace"}, "prior must be one of gaussian, logistic, got 'laplace'"),
        ({"offset": 0.1}, r"an offset of the logit expects num_levels, got None and 0\.1"),
        ({"num_levels": 1}, "num_levels must be an integer of at least 2, got 1"),
        ({"num_levels": 4, "offset": 0.5}, r"offset must be at least 0 and below 0\.5, got 0\.5"),
        ({"num_levels": 4, "offset": -0.1}, r"offset must be at least 0 and below 0\.5, got -0\.1"),
    ],
)
def test_wrong_arguments_are_refused(arguments, words):
    for build in (lambda **given: LinearFlow((2, 2), **given), lambda **given: NICE((2, 2), **given)):
        with pytest.raises(ValueError, match=words):
            build(**arguments)


def test_dropout_drops_nothing_where_items_are_drawn_or_interpolated():
    flow = moved(RealNVP((4,), hidden=(32, 32), dropout=0.5, num_levels=5, offset=0.01))
    x = torch.randint(5, (6, 4))
    flow.transform.parts[0].parts[1].eval()  # as whoever froze it left it
    modes = [part.training for part in flow.modules()]
    drawn, between = flow.sample(6, seed=1), flow.interpolate(x[:3], x[3:], steps=4)
    assert [part.training for part in flow.modules()] == modes
    assert not torch.equal(flow.encode(x), flow.encode(x)), "encode keeps to the mode"
    flow.eval()
    assert torch.equal(drawn, flow.sample(6, seed=1))
    assert torch.equal(between, flow.interpolate(x[:3], x[3:], steps=4))
    assert torch.equal(between[:, 0], x[:3]) and torch.equal(between[:, -1], x[3:])


def test_an_entry_that_is_the_same_in_all_training_items_is_refused_where_it_is_real():
    x = torch.randn(10, 3)
    x[:, 1] = 2.5
    with pytest.raises(ValueError, match=r"RealNVP expects entries that vary .* entry 1 .* 2.5 in all 10"):
        RealNVP((3,)).check_training(x)
    RealNVP((3,)).check_training(torch.randn(10, 3))
    RealNVP((3,), num_levels=4).check_training(torch.zeros(10, 3, dtype=torch.int64))


def test_ways_need_as_many_ends_as_starts_and_items_that_suit():
    flow = RealNVP((4,), num_levels=5, offset=0.01)
    x = torch.randint(5, (3, 4))
    for start, end in ((x, x[:1]), (x[:1], x), (x, x[:2])):
        with pytest.raises(ValueError, match=f"as many ends as starts, got 11, {len(start)} and {len(end)}"):
            flow.interpolate(start, end)
    with pytest.raises(ValueError, match="RealNVP expects entries in"):
        flow.interpolate(x, x + 5)


def test_a_mintnet_draws_under_autocast():
    flow = moved(MintNet((4, 4), layers=2, hidden=4), spread=0.1).float()
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(flow.sample(5, seed=0), flow.sample(5, seed=0))


@pytest.mark.parametrize("hidden", [(0,), (4, -1)])
def test_hidden_layers_of_nothing_are_refused(hidden):
    with pytest.raises(ValueError, match="hidden must be widths of at least 1"):
        NICE((4,), hidden=hidden)


@pytest.mark.parametrize("event_shape", [(6,), (4, 4)])
def test_the_limit_of_a_realnvp_is_that_of_all_its_couplings(event_shape):
    flow = RealNVP(event_shape, layers=2, hidden=(4,), limit=0.5)
    limits = [part.limit for part in flow.modules() if isinstance(part, AffineCoupling)]
    assert len(limits) >= 2 and set(limits) == {0.5}
    with pytest.raises(ValueError, match="limit must be above 0 and finite, got 0"):
        RealNVP(event_shape, limit=0.0)
