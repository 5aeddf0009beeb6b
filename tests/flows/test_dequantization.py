"""Between levels and numbers: cells that are half open, uniform noise, and a bound that holds."""

import math

import pytest
import torch
from scipy.stats import chisquare

import inference
from zoo.flows import NICE, LinearFlow, Logit
from zoo.flows.dequantization import Dequantized, Quantized

LEVELS = torch.tensor([0, 1, 2, 127, 128, 254, 255])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_a_number_never_leaves_the_cell_of_its_level(dtype, monkeypatch):
    """Not even where the noise is as near to one as can be, and a sum is rounded up."""
    like = torch.zeros((), dtype=dtype)
    one = torch.ones((), dtype=dtype)
    for noise in (torch.zeros_like(one), torch.nextafter(one, like), None):
        with monkeypatch.context() as patch:
            if noise is not None:
                patch.setattr(torch, "rand", lambda shape, noise=noise, **kwargs: noise.expand(shape))
            v = Dequantized(LEVELS.expand(500, 7), like).rsample()
        assert v.dtype == dtype
        assert (v > 0).all() and (v >= LEVELS).all() and (v < LEVELS + 1).all()
        assert torch.equal(v.floor().long(), LEVELS.expand(500, 7))


def test_noise_is_uniform():
    v = Dequantized(LEVELS, torch.zeros(())).rsample((20_000,))
    assert v.shape == (20_000, 7)
    noise = (v - LEVELS).double()
    for column in noise.T:
        assert chisquare(torch.histc(column, 50, 0, 1).numpy()).pvalue > 1e-3
    first, second = (noise[:, :2].T * 8).long()
    assert chisquare(torch.bincount(8 * first + second, minlength=64).numpy()).pvalue > 1e-3


def test_its_density_is_one_in_the_cell_and_nothing_outside():
    noise = Dequantized(LEVELS, torch.zeros(()))
    assert torch.equal(noise.log_prob(noise.rsample((100,))), torch.zeros(100, 7))
    assert torch.equal(noise.log_prob(LEVELS.float()), torch.zeros(7))
    assert (noise.log_prob(LEVELS + 1.0) == -math.inf).all()
    larger = noise.expand((3, 7))
    assert type(larger) is Dequantized and larger.rsample().shape == (3, 7)
    assert torch.equal(larger.rsample().floor().long(), LEVELS.expand(3, 7))


def test_noise_of_levels_has_a_finite_logit():
    """A number of exactly 0 would have none, and comes once in 2²⁴ draws of float32."""
    torch.manual_seed(0)
    v = Dequantized(torch.zeros(1, dtype=torch.int64), torch.zeros(())).rsample((1000,))
    assert Logit(0.0, 256.0)(v).isfinite().all()


def test_the_probability_of_a_level_is_one_or_nothing():
    v = torch.tensor([-3.0, -0.001, 0.0, 0.5, 1.0, 1.999, 2.0, 2.5, 3.0, 7.0])
    quantized = Quantized(v, 3)
    expected = torch.tensor([0, 0, 0, 0, 1, 1, 2, 2, 2, 2])
    assert torch.equal(quantized.sample(), expected)
    assert torch.equal(quantized.sample((4,)), expected.expand(4, 10))
    p = torch.stack([quantized.log_prob(torch.full((10,), level)) for level in range(3)]).exp()
    assert torch.equal(p.argmax(0), expected) and torch.equal(p.sum(0), torch.ones(10))
    assert quantized.support.check(expected).all() and not quantized.support.check(torch.tensor(3))
    wide = quantized.expand((2, 10))
    assert torch.equal(wide.log_prob(expected), torch.zeros(2, 10))


def test_the_largest_level_is_never_rounded_out_of_its_cell():
    """255 + u is 256 in float32 for u above 1 - 2⁻¹⁸: such a number has density zero under its own noise."""
    torch.manual_seed(0)
    x = torch.full((300_000, 2), 255)
    noise = Dequantized(x, torch.zeros(()))
    v = noise.rsample()
    assert v.max() < 256 and (noise.log_prob(v) == 0).all()
    assert (Quantized(v, 256).log_prob(x) == 0).all() and (Quantized(v, 256).sample() == x).all()


def numbers(flow, x: torch.Tensor, points: int) -> torch.Tensor:
    """log p(v) on the midpoints of a grid over the cell of each item, ``(grid, items)``."""
    middle = (torch.arange(points, dtype=torch.float64) + 0.5) / points
    grid = torch.cartesian_prod(*[middle] * x.shape[1]).view(-1, 1, x.shape[1])
    return flow.flow().log_prob((x + grid).detach())


@pytest.mark.parametrize("dims", [1, 2])
@pytest.mark.parametrize("offset", [None, 0.01])
def test_log_prob_is_a_lower_bound_on_the_probability_of_levels(dims, offset):
    flow = LinearFlow((dims,), num_levels=5, offset=offset)
    if dims == 2:
        flow = NICE((2,), layers=2, hidden=(4,), coupling="affine", num_levels=5, offset=offset)
    with torch.no_grad():
        for param in flow.parameters():
            param += 0.3 * torch.randn_like(param)
    flow = flow.double()
    x = torch.cartesian_prod(*[torch.arange(5)] * dims).view(-1, dims)
    with torch.no_grad():
        on_grid = numbers(flow, x, 400 if dims == 1 else 60)
        exact = on_grid.logsumexp(0) - math.log(len(on_grid))
        bound = on_grid.mean(0)
        drawn = flow.log_prob(x.repeat(2000, 1)).view(2000, -1)
    assert (bound < exact).all()
    error = drawn.std(0) / math.sqrt(2000)
    assert (drawn.mean(0) < exact + 4.5 * error).all()
    assert ((drawn.mean(0) - bound).abs() < 4.5 * error + 0.01).all()
    estimate = inference.log_likelihood(flow, x, particles=2000, progress=False)
    assert estimate.kind == "lower bound"
    assert torch.allclose(estimate.per_item, exact, atol=0.15)
    assert exact.exp().sum() <= 1 + 1e-3


def test_levels_come_back_from_their_latents():
    x = torch.randint(256, (50, 2, 3))
    x[0], x[1] = 0, 255
    for offset in (None, 0.05, 1e-6):
        flow = NICE((2, 3), layers=2, hidden=(4,), num_levels=256, offset=offset)
        with torch.no_grad():
            for param in flow.parameters():
                param += 0.2 * torch.randn_like(param)
        decoded = flow.decode(flow.encode(x))
        assert decoded.dtype == torch.int64 and torch.equal(decoded, x)


def test_levels_drawn_evenly_start_standard():
    flow = LinearFlow((1,), num_levels=256)
    z = flow.encode(torch.arange(256)[:, None]).detach()
    assert z.mean().abs() < 1e-5 and z.std(correction=0).item() == pytest.approx(1, abs=1e-4)
