"""What every transform of the flows promises: the same tests on every case, here and inside Pyro."""

import copy
import inspect
import math
import pickle
import re
from collections.abc import Callable
from dataclasses import dataclass

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.distributions.transforms import AffineCoupling as PyroAffineCoupling
from pyro.distributions.transforms import Permute, Spline, TanhTransform
from pyro.nn import DenseNN
from torch import Tensor, nn
from torch.distributions.transforms import ComposeTransform, IndependentTransform
from torch.nn.functional import pixel_unshuffle

import zoo.flows
from zoo.flows import (
    MLP,
    AdditiveCoupling,
    AffineCoupling,
    Composed,
    ConvergenceError,
    DiagonalScaling,
    FlowDistribution,
    FlowTransform,
    Inverse,
    Logit,
    LULinear,
    MaskedConvolution,
    MultiScale,
    ResidualNetwork,
    Squeeze,
)

CONTIGUOUS = torch.arange(5) < 2
ALTERNATE = torch.arange(5) % 2 == 0
ARBITRARY = torch.tensor([False, True, True, False, True])
BOARD = ((torch.arange(4)[:, None] + torch.arange(2)) % 2 == 0).expand(3, -1, -1)
PIXELS = torch.tensor([[[True, False], [False, False]], [[True, True], [False, True]]])
CHANNELS = torch.tensor([True, False, True])


def sines(shown: Tensor) -> Tensor:
    """A conditioner that is no module: from 2 entries to 3."""
    return torch.cat([shown.sin(), shown[..., :1] * shown[..., 1:]], dim=-1)


class Pooled(nn.Module):
    """A conditioner of one's own: from all of an image to as many numbers as are asked for."""

    def __init__(self, num: int) -> None:
        super().__init__()
        self.num, self.weight = num, nn.Parameter(torch.randn(()))

    def forward(self, shown: Tensor) -> Tensor:
        mean = shown.mean((-3, -2, -1), keepdim=True)
        return (self.weight * mean).tanh().expand(*shown.shape[:-3], self.num, *shown.shape[-2:])


def two_scales() -> MultiScale:
    """As in RealNVP: (1, 4, 4) to (4, 2, 2), of which half goes on."""
    first = [
        Inverse(Squeeze()),
        AffineCoupling(BOARD[:1].repeat(1, 1, 2), ResidualNetwork(1, 3, 2), event_dim=3),
    ]
    second = [AdditiveCoupling(torch.tensor([True, False]), ResidualNetwork(1, 3, 1), event_dim=3)]
    return MultiScale([Composed(first), Composed(second)], (1, 4, 4))


def three_scales() -> MultiScale:
    scales = [DiagonalScaling((5, 2, 1)), DiagonalScaling((3, 2, 1)), DiagonalScaling((2, 2, 1))]
    return MultiScale(scales, (5, 2, 1))


@dataclass(frozen=True)
class TransformCase:
    """A transform, the shape of what it is called with, whether these are numbers of an interval.

    And whether it has a part with a cache, which torch can then not copy.
    """

    name: str
    build: Callable[[], FlowTransform]
    shape: tuple[int, ...]
    interval: tuple[float, float] | None = None
    tolerance: float = 1e-10
    caches: bool = False

    def __str__(self) -> str:
        return self.name

    def perturbed(self, dtype: torch.dtype = torch.float64) -> FlowTransform:
        transform = self.build()
        with torch.no_grad():
            for param in transform.parameters():
                param += 0.3 * torch.randn_like(param)
        return transform.to(dtype)

    def twin(self, transform: FlowTransform) -> FlowTransform:
        """Another instance with the same parameters."""
        other = self.build().to(torch.float64)
        other.load_state_dict(transform.state_dict())
        return other

    def inputs(self, *batch: int, dtype: torch.dtype = torch.float64) -> Tensor:
        if self.interval is None:
            return torch.randn(*batch, *self.shape, dtype=dtype)
        low, high = self.interval
        return low + (high - low) * (0.01 + 0.98 * torch.rand(*batch, *self.shape, dtype=dtype))


def pyros() -> list:
    """Transforms that are not ours, one of them with a cache and parameters."""
    coupling = PyroAffineCoupling(2, DenseNN(2, [4], [3, 3]))
    return [DiagonalScaling((5,)), Permute(torch.tensor([3, 0, 4, 1, 2])), coupling, TanhTransform()]


def cached() -> Composed:
    """One of Pyro's with a cache at both ends, where it is given the very tensor that the whole is given."""
    ends = [PyroAffineCoupling(2, DenseNN(2, [4], [3, 3])) for _ in range(2)]
    return Composed([ends[0], Permute(torch.tensor([3, 0, 4, 1, 2])), ends[1]])


CASES = (
    *(
        TransformCase(f"{kind.__name__}-{name}", build, shape)
        for kind, num in ((AdditiveCoupling, 1), (AffineCoupling, 2))
        for name, build, shape in (
            ("contiguous", lambda kind=kind, num=num: kind(CONTIGUOUS, MLP(2, (4,), num * 3)), (5,)),
            ("alternate", lambda kind=kind, num=num: kind(ALTERNATE, MLP(3, (4, 3), num * 2)), (5,)),
            ("arbitrary", lambda kind=kind, num=num: kind(ARBITRARY, MLP(3, (), num * 2)), (5,)),
            (
                "channels",
                lambda kind=kind, num=num: kind(CHANNELS, ResidualNetwork(2, 3, num), event_dim=3),
                (3, 2, 2),
            ),
            (
                "checkerboard",
                lambda kind=kind, num=num: kind(BOARD, ResidualNetwork(3, 3, 3 * num), event_dim=3),
                (3, 4, 2),
            ),
            ("pixels", lambda kind=kind, num=num: kind(PIXELS, Pooled(2 * num), event_dim=3), (2, 2, 2)),
        )
    ),
    TransformCase("AdditiveCoupling-function", lambda: AdditiveCoupling(CONTIGUOUS, sines), (5,)),
    TransformCase("DiagonalScaling", lambda: DiagonalScaling((4,)), (4,)),
    TransformCase("DiagonalScaling-image", lambda: DiagonalScaling((2, 1, 3)), (2, 1, 3)),
    TransformCase("LULinear", lambda: LULinear(4), (4,)),
    TransformCase("LULinear-permuted", lambda: LULinear(4, permute=True), (4,)),
    TransformCase("LULinear-one", lambda: LULinear(1), (1,)),
    TransformCase("Squeeze", Squeeze, (2, 4, 2)),
    TransformCase("MultiScale", two_scales, (16,)),
    TransformCase("MultiScale-three", three_scales, (10,)),
    TransformCase("Logit", Logit, (3,), interval=(0.0, 1.0)),
    TransformCase("Logit-offset", lambda: Logit(0.0, 256.0, offset=0.05), (3,), interval=(0.0, 256.0)),
    TransformCase("Logit-beyond", lambda: Logit(-3.0, 5.0, offset=0.3), (3,), interval=(-6.0, 8.0)),
    *(
        TransformCase(
            f"MaskedConvolution-{channels}-{'reversed' if reverse else 'forwards'}",
            lambda channels=channels, reverse=reverse: MaskedConvolution(
                (channels, 2, 3), 3, reverse=reverse
            ),
            (channels, 2, 3),
        )
        for channels in (1, 3)
        for reverse in (False, True)
    ),
    TransformCase(
        "Composed", lambda: Composed([LULinear(5), AffineCoupling(ALTERNATE, MLP(3, (4,), 4))]), (5,)
    ),
    TransformCase("Composed-pyro", lambda: Composed(pyros()), (5,), caches=True),
    TransformCase("Composed-cached", cached, (5,), caches=True),
    TransformCase(
        "Composed-shapes",
        lambda: Composed([two_scales(), DiagonalScaling((1, 4, 4)), Inverse(Logit(-1.0, 2.0))]),
        (16,),
    ),
    TransformCase("Composed-elementwise", lambda: Composed([Inverse(Logit()), TanhTransform()]), (2,)),
    TransformCase(
        "Composed-nested",
        lambda: Composed([Composed(pyros()[:3]), Inverse(Composed([LULinear(5)]))]),
        (5,),
        caches=True,
    ),
    TransformCase("Inverse", lambda: Inverse(AffineCoupling(ARBITRARY, MLP(3, (4,), 4))), (5,)),
    TransformCase("Inverse-MultiScale", lambda: Inverse(two_scales()), (1, 4, 4)),
    TransformCase("Inverse-MaskedConvolution", lambda: Inverse(MaskedConvolution((1, 2, 2), 3)), (1, 2, 2)),
)

every_case = pytest.mark.parametrize("case", CASES, ids=str)


def dims(transform: FlowTransform) -> tuple[int, int]:
    """How many dimensions an item has before and after; at least one, so that a batch has items."""
    return transform.domain.event_dim, transform.codomain.event_dim


def jacobian_log_det(function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """log |det ∂f/∂x| of one item, all of its entries together."""
    matrix = torch.autograd.functional.jacobian(function, x)
    return torch.linalg.slogdet(matrix.reshape(x.numel(), x.numel()))[1]


def test_every_transform_has_a_case():
    exported = {
        value
        for name in zoo.flows.__all__
        if inspect.isclass(value := getattr(zoo.flows, name)) and issubclass(value, FlowTransform)
    }
    assert exported - {FlowTransform} == {type(case.build()) for case in CASES}
    assert len({case.name for case in CASES}) == len(CASES)


@every_case
def test_the_inverse_undoes_the_call(case):
    transform, x = case.perturbed(), case.inputs(6)
    y, log_det = transform.call_and_log_det(x)
    back, back_log_det = transform.inverse_and_log_det(y)
    assert torch.allclose(back, x, rtol=0, atol=case.tolerance)
    assert torch.allclose(transform._inverse(y), x, rtol=0, atol=case.tolerance)
    assert torch.allclose(back_log_det, -log_det, rtol=0, atol=1e-8)
    assert not torch.equal(y, x) if y.shape == x.shape else y.numel() == x.numel()


@every_case
def test_log_determinants_are_those_of_the_jacobian(case):
    transform, x = case.perturbed(), case.inputs(2)
    y, log_det = transform.call_and_log_det(x)
    _, back = transform.inverse_and_log_det(y)
    event_dim = dims(transform)[0]
    if event_dim == 0:  # of each entry
        assert log_det.shape == x.shape
        log_det, back = log_det.sum(-1), back.sum(-1)
    assert log_det.shape == back.shape == (2,)
    for item, expected, other, image in zip(x, log_det, back, y, strict=True):
        assert jacobian_log_det(transform._call, item).item() == pytest.approx(expected.item(), abs=1e-8)
        assert jacobian_log_det(transform._inverse, image).item() == pytest.approx(other.item(), abs=1e-8)


@every_case
def test_one_pass_gives_what_the_single_calls_give(case):
    transform, x = case.perturbed(), case.inputs(4)
    y, log_det = transform.call_and_log_det(x)
    assert torch.equal(transform._call(x), y) and torch.equal(transform(x), y)
    assert torch.allclose(transform.log_abs_det_jacobian(x, y), log_det, rtol=0, atol=1e-9)
    assert torch.equal(transform.inv(y), transform.inverse_and_log_det(y)[0])
    back = transform.inv.log_abs_det_jacobian(y, x)
    assert torch.allclose(back, transform.inverse_and_log_det(y)[1], rtol=0, atol=1e-9)
    other = transform.inv  # the inverse of an inverse is what it is the inverse of
    assert transform.bijective and (other.inv is transform or other.inv.inv is other)


@every_case
@pytest.mark.parametrize("batch", [(), (3,), (2, 3), (1, 2, 2)], ids=len)
def test_any_number_of_dimensions_on_the_left_is_a_batch(case, batch):
    transform, x = case.perturbed(), case.inputs(*batch)
    y, log_det = transform.call_and_log_det(x)
    before, after = dims(transform)
    lead = (*batch, *case.shape[: len(case.shape) - before])
    assert log_det.shape == lead
    assert y.shape[: y.dim() - after] == lead
    flat_y, flat_log_det = transform.call_and_log_det(x.reshape(-1, *case.shape))
    assert torch.allclose(flat_y.reshape(y.shape), y, rtol=0, atol=1e-10)
    assert torch.allclose(flat_log_det.reshape(log_det.shape), log_det, rtol=0, atol=1e-10)
    back, back_log_det = transform.inverse_and_log_det(y)
    assert back.shape == x.shape and back_log_det.shape == lead
    assert torch.allclose(back, x, rtol=0, atol=case.tolerance)


@every_case
def test_shapes_are_told_by_torchs_rules(case):
    transform, x = case.perturbed(), case.inputs(2, 3)
    y = transform(x)
    assert transform.forward_shape(x.shape) == y.shape
    assert transform.inverse_shape(y.shape) == x.shape
    assert transform.inv.forward_shape(y.shape) == x.shape
    before, after = dims(transform)
    assert before - after == x.dim() - y.dim()
    assert before in (0, len(case.shape))
    lead = (2, 3, *case.shape[: len(case.shape) - before])
    assert transform.domain.check(x).shape == transform.codomain.check(y).shape == lead
    assert transform.domain.check(x).all() and transform.codomain.check(y).all()


@every_case
def test_gradients_reach_every_parameter_in_both_directions(case):
    transform, x = case.perturbed(), case.inputs(8)
    y = transform(x).detach()
    for step, given in ((transform.call_and_log_det, x), (transform.inverse_and_log_det, y)):
        given = given.requires_grad_()
        result, log_det = step(given)
        loss = result.square().sum() + log_det.sum()
        grads = torch.autograd.grad(loss, [given, *transform.parameters()])
        for grad in grads:
            assert grad.isfinite().all()
            assert (grad != 0).any() or grad.shape == (1, 1), "a matrix with nothing beside its diagonal"
        given.requires_grad_(False)


@every_case
def test_float32_is_close_to_float64(case):
    transform, x = case.perturbed(), case.inputs(6)
    y, log_det = transform.call_and_log_det(x)
    single = case.twin(transform).float()
    for step, given, expected in (
        (single.call_and_log_det, x, (y, log_det)),
        (single.inverse_and_log_det, y, (x, -log_det)),
    ):
        for ours, theirs in zip(step(given.float()), expected, strict=True):
            assert ours.dtype == torch.float32
            scale = max(1.0, theirs.abs().max().item())
            assert torch.allclose(ours.double(), theirs, rtol=0, atol=1e-3 * scale)


@every_case
@pytest.mark.parametrize("copied", [copy.deepcopy, lambda part: pickle.loads(pickle.dumps(part))])
def test_a_copy_gives_the_same_and_owns_its_parameters(case, copied):
    transform, x = case.perturbed(), case.inputs(3)
    twin = copied(transform) if case.caches else None
    y, log_det = transform.call_and_log_det(x)
    transform.inv(y)
    twin = twin or copied(transform)
    ours = twin.call_and_log_det(x)
    assert torch.equal(ours[0], y) and torch.equal(ours[1], log_det)
    assert [name for name, _ in twin.named_parameters()] == [name for name, _ in transform.named_parameters()]
    if list(twin.parameters()):
        with torch.no_grad():
            for param in twin.parameters():
                param += 0.1
        assert not torch.equal(twin.call_and_log_det(x)[0], y)
    assert torch.equal(transform.call_and_log_det(x)[0], y)


@every_case
def test_a_state_dict_is_all_that_another_instance_needs(case):
    transform, other, x = case.perturbed(), case.perturbed(), case.inputs(3)
    expected = transform.call_and_log_det(x)
    assert not list(transform.parameters()) or not torch.equal(other.call_and_log_det(x)[0], expected[0])
    other.load_state_dict(transform.state_dict())
    for ours, theirs in zip(other.call_and_log_det(x), expected, strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize("case", [case for case in CASES if list(case.build().parameters())], ids=str)
def test_nothing_is_remembered_from_one_call_to_the_next(case):
    """The very same tensor as before, after the parameters were changed in place."""
    transform, x = case.perturbed(), case.inputs(3)
    y = transform(x).detach()
    for step, value in (("call_and_log_det", x), ("inverse_and_log_det", y)):
        before = getattr(transform, step)(value)
        with torch.no_grad():
            for param in transform.parameters():
                param += 0.1 * torch.randn_like(param)
        after = getattr(transform, step)(value)
        expected = getattr(case.twin(transform), step)(value.clone())
        assert torch.equal(after[0], expected[0]) and torch.equal(after[1], expected[1])
        assert not torch.equal(after[0], before[0])


# Inside Pyro


def base_of(case: TransformCase) -> dist.Distribution:
    """A base distribution over what the transform takes."""
    zero = torch.zeros(case.shape, dtype=torch.float64)
    if case.interval is None:
        return dist.Normal(zero, 1.0).to_event(len(case.shape))
    low, high = case.interval
    return dist.Uniform(zero + low, zero + high).to_event(len(case.shape))


@every_case
def test_plain_transformed_distributions_give_the_same_density(case):
    transform = case.perturbed()
    plain, ours = (
        kind(base_of(case), [transform]) for kind in (dist.TransformedDistribution, FlowDistribution)
    )
    x = plain.rsample((4,))
    assert x.requires_grad == any(param.requires_grad for param in transform.parameters())
    y, log_det = transform.inverse_and_log_det(x)
    expected = base_of(case).log_prob(y) + log_det.reshape(4, -1).sum(-1)
    for density in (plain, ours):
        assert density.event_shape == x.shape[1:] and density.batch_shape == ()
        assert density.log_prob(x).shape == (4,)
        assert torch.allclose(density.log_prob(x), expected, rtol=0, atol=1e-8)
        assert density.support.check(x).all()
        larger = density.expand((2, 4))
        assert type(larger) is type(density)
        assert larger.sample().shape == (2, 4, *density.event_shape)
        assert torch.allclose(larger.log_prob(x), expected.expand(2, 4), rtol=0, atol=1e-8)


@every_case
def test_the_inverse_stands_in_a_transformed_distribution(case):
    transform = case.perturbed()
    y = transform(case.inputs(4)).detach()
    base = dist.Normal(torch.zeros_like(y[0]), 0.3).to_event(y.dim() - 1)
    x, log_det = transform.inverse_and_log_det(y)
    expected = base.log_prob(y) - log_det.reshape(4, -1).sum(-1)
    for kind in (dist.TransformedDistribution, FlowDistribution):
        ours = kind(base, [transform.inv]).log_prob(x)
        assert torch.allclose(ours, expected, rtol=0, atol=1e-7)


@every_case
def test_a_program_draws_and_scores_under_plates(case):
    transform = case.perturbed()

    def program(x=None):
        with pyro.plate("particles", 2, dim=-2), pyro.plate("data", 4, dim=-1):
            return pyro.sample("x", FlowDistribution(base_of(case), [transform]), obs=x)

    trace = pyro.poutine.trace(program).get_trace()
    trace.compute_log_prob()
    site = trace.nodes["x"]
    assert site["value"].shape[:2] == site["log_prob"].shape == (2, 4)
    assert len(site["log_prob"].detach().unique()) == 8
    x = site["value"].detach()
    expected = dist.TransformedDistribution(base_of(case), [transform]).log_prob(x.flatten(0, 1))
    assert torch.allclose(site["log_prob"].flatten(), expected, rtol=0, atol=1e-8)


# What a layer makes of numbers that are none


LAYERS = {
    "additive": lambda: AdditiveCoupling(CONTIGUOUS, MLP(2, (4,), 3)),
    "affine": lambda: AffineCoupling(CONTIGUOUS, MLP(2, (4,), 6)),
    "scaling": lambda: DiagonalScaling((5,)),
    "linear": lambda: LULinear(5),
}


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("value", [math.inf, math.nan])
def test_a_layer_that_gives_no_number_is_named(layer, value):
    layers = [LULinear(5), LAYERS[layer](), DiagonalScaling((5,)), LULinear(5)]
    with torch.no_grad():
        for param in layers[1].parameters():
            param.flatten()[-1] = value
    transform, x = Composed(layers), torch.randn(3, 5)
    flow = FlowDistribution(dist.Normal(torch.zeros(5), 1.0).to_event(1), [transform])
    name = (
        rf"layer 1 \({type(layers[1]).__name__}\) gives a (value|log-determinant) that is not finite in its"
    )
    for direction, run in (
        ("call", lambda: transform(x)),
        ("call", lambda: flow.sample((3,))),
        ("inverse", lambda: transform.inv(x)),
        ("inverse", lambda: flow.log_prob(x)),
    ):
        with pytest.raises(FloatingPointError, match=f"{name} {direction}$"):
            run()


@pytest.mark.parametrize("value", [math.inf, math.nan])
def test_what_came_as_no_number_is_no_layers_fault(value):
    transform = Composed([LULinear(3), DiagonalScaling((3,))])
    x = torch.tensor([[0.0, value, 1.0]])
    for call in (transform, transform.inv, transform.call_and_log_det, transform.inverse_and_log_det):
        with pytest.raises(FloatingPointError, match="^a flow expects finite numbers, got NaN or infinity"):
            call(x)


def test_a_layer_that_gives_no_number_only_once_is_an_error_too():
    answers = iter([math.nan])
    network = lambda shown: torch.full((3, 2), next(answers, 0.0))  # noqa: E731
    transform = Composed([AdditiveCoupling(torch.tensor([True, False, False]), network)])
    with pytest.raises(FloatingPointError, match="a layer gave a value that is not finite"):
        transform(torch.zeros(3, 3))


@pytest.mark.parametrize("log_scale", [200.0, -200.0])
def test_a_layer_alone_is_checked_where_torch_calls_it(log_scale):
    scaling = DiagonalScaling((2,))
    torch.nn.init.constant_(scaling.log_scale, log_scale)
    flow = dist.TransformedDistribution(dist.Normal(torch.zeros(2), 1.0).to_event(1), [scaling])
    words = "DiagonalScaling gives a value that is not finite in its"
    with pytest.raises(FloatingPointError, match=words):
        flow.sample() if log_scale > 0 else flow.log_prob(torch.ones(2))
    with pytest.raises(FloatingPointError, match=words):
        scaling._call(torch.ones(2)) if log_scale > 0 else scaling._inverse(torch.ones(2))
    ours = FlowDistribution(flow.base_dist, [LULinear(2), scaling])
    with pytest.raises(
        FloatingPointError, match=words if log_scale > 0 else rf"layer 1 \({words[:15]}\) gives"
    ):
        ours.sample() if log_scale > 0 else ours.log_prob(torch.ones(2))


def test_a_layer_of_a_scale_is_named_with_it():
    transform = MultiScale([Squeeze().inv, Composed([DiagonalScaling((2, 4, 4))])], (1, 8, 8))
    torch.nn.init.constant_(transform.scales[1].parts[0].log_scale, math.inf)
    with pytest.raises(FloatingPointError, match=r"^scale 1: layer 0 \(DiagonalScaling\) gives a value"):
        transform.call_and_log_det(torch.ones(3, 64))


def test_modules_in_plain_transforms_are_found():
    linear = LULinear(3)
    hidden = [
        ComposeTransform([linear]),
        ComposeTransform([linear]).inv,
        IndependentTransform(Logit(0.0, 1.0), 1),
        TanhTransform(),
    ]
    found = [len(list(Composed([part]).parameters())) for part in hidden]
    assert found == [3, 3, 0, 0]
    assert len(list(Composed([Spline(3).inv]).parameters())) == len(list(Spline(3).parameters())) > 0
    assert len(Composed([hidden[2]]).modules_of_parts) == 1


@pytest.mark.parametrize(
    ("transform", "shape"),
    [
        (DiagonalScaling((3,)), (5, 1)),
        (DiagonalScaling((2, 3)), (3,)),
        (LULinear(3), (5, 1)),
        (LULinear(3).inv, (5, 1)),
    ],
)
def test_items_of_another_shape_are_refused_and_not_broadcast(transform, shape):
    with pytest.raises(ValueError, match=re.escape(f"got {shape}")):
        transform.call_and_log_det(torch.ones(shape))


def test_a_batch_of_nothing_keeps_its_shape():
    assert Squeeze()(torch.zeros(0, 1, 4, 6)).shape == (0, 4, 2, 3)
    assert Squeeze().inv(torch.zeros(0, 4, 2, 3)).shape == (0, 1, 4, 6)


def test_squares_are_read_row_by_row():
    x = torch.randn(2, 3, 4, 6)
    assert torch.equal(Squeeze()(x), pixel_unshuffle(x, 2))


def test_large_numbers_whose_sum_is_not_finite_pass():
    x = torch.full((4, 3), 1e38)
    assert x.sum().isinf()
    assert torch.equal(Composed([DiagonalScaling((3,))])(x), x)


def test_nothing_is_composed_of_nothing():
    with pytest.raises(ValueError, match="at least one transform, got none"):
        Composed([])


def test_every_module_of_a_composition_is_a_part_of_it():
    transform = Composed(pyros())
    assert {id(param) for param in transform.parameters()} == {
        id(param) for part in transform.parts if isinstance(part, nn.Module) for param in part.parameters()
    }
    assert len(list(transform.parameters())) == 1 + 4


def test_the_inverse_of_one_of_ours_keeps_its_parameters_in_a_composition():
    scaling = DiagonalScaling((3,))
    whole = Composed([scaling.inv, AffineCoupling(torch.tensor([True, False, True]), nn.Linear(2, 2))])
    assert [id(param) for param in whole.parameters()][0] == id(scaling.log_scale)
    assert scaling.inv.inv is scaling
    calls = []
    original = scaling.inverse_and_log_det
    scaling.inverse_and_log_det = lambda y: calls.append(1) or original(y)
    whole.call_and_log_det(torch.randn(4, 3))
    assert len(calls) == 1, "value and log-determinant in one call"


def test_an_inverse_that_does_not_converge_names_the_layer_and_the_items():
    layers = [MaskedConvolution((1, 2, 2), 4), MaskedConvolution((1, 2, 2), 4, tolerance=1e-12)]
    y = torch.randn(3, 1, 2, 2)
    with pytest.raises(ConvergenceError, match=r"^layer 1 \(MaskedConvolution\): the inverse of") as caught:
        Composed(layers).inverse_and_log_det(100 * y)
    assert caught.value.items
    assert str(caught.value).endswith(f"items {', '.join(map(str, caught.value.items))}")
