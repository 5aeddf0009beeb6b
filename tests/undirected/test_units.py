"""Units against the sum or integral over their values."""

import math

import pytest
import torch

from tests.undirected.machines import is_distributed_as
from zoo.undirected.units import BernoulliUnits, CategoricalUnit, GaussianUnits, Units

FIELD = torch.tensor([0.7, -1.2, 2.0], dtype=torch.float64)
GRID = torch.linspace(-12, 12, 4001, dtype=torch.float64)


def gaussian() -> GaussianUnits:
    units = GaussianUnits((1,)).double()
    with torch.no_grad():
        units.log_scale.fill_(0.4)
    return units


@pytest.mark.parametrize("units", [BernoulliUnits((3,)), CategoricalUnit(3)])
def test_finite_units_are_the_sum_over_their_configurations(units):
    every = units.configurations(FIELD)
    assert len(every) == units.count == len(every.unique(dim=0))
    assert every.dtype == torch.float64
    log_weights = every @ FIELD - units.base_energy(every)
    p = log_weights.softmax(0)
    assert torch.allclose(units.log_normalizer(FIELD), log_weights.logsumexp(0))
    assert torch.allclose(units.mean(FIELD), p @ every)
    assert torch.allclose(units.entropy(units.mean(FIELD)), -(p * p.log()).sum())
    assert torch.allclose(units.distribution(FIELD).log_prob(units.value(every)), p.log())
    assert torch.allclose(units.statistic(units.value(every)).double(), every)
    drawn = units.sample(FIELD.expand(100_000, 3))
    counts = (drawn.unsqueeze(1) == every).all(-1).sum(0).double()
    assert drawn.dtype == torch.float64 and counts.sum() == 100_000
    assert is_distributed_as(counts, p)


def test_real_units_are_the_integral():
    units = gaussian()
    field = torch.tensor([0.8], dtype=torch.float64)
    value = GRID.unsqueeze(1)
    s = units.statistic(value)
    assert torch.allclose(s, value / math.exp(0.4))
    density = (s @ field - units.base_energy(s)).exp()
    assert units.log_normalizer(field).item() == pytest.approx(torch.trapezoid(density, GRID).log().item())
    density = density / torch.trapezoid(density, GRID)
    assert units.mean(field).item() == pytest.approx(torch.trapezoid(density * s[:, 0], GRID).item())
    assert torch.allclose(units.distribution(field).log_prob(value).exp(), density)
    assert torch.allclose(units.value(s), value)
    drawn = units.sample(field.expand(100_000, 1))
    assert drawn.mean().item() == pytest.approx(0.8, abs=4 / math.sqrt(100_000))
    assert drawn.var().item() == pytest.approx(1.0, abs=4 * math.sqrt(2 / 100_000))


@pytest.mark.parametrize("units", [BernoulliUnits((3,)), CategoricalUnit(3), gaussian()])
def test_field_of_a_mean_gives_that_mean(units):
    mean = units.mean(FIELD[: units.num])
    assert torch.allclose(units.mean(units.field(mean)), mean)


@pytest.mark.parametrize("units", [BernoulliUnits((2,)), CategoricalUnit(2)])
def test_a_certain_mean_has_no_entropy_and_a_finite_field(units):
    certain = torch.tensor([0.0, 1.0])
    assert units.entropy(certain) == 0
    assert units.field(certain).isfinite().all()
    assert torch.allclose(units.mean(units.field(certain)), certain, atol=2e-3)


@pytest.mark.parametrize("units", [BernoulliUnits((2, 3)), GaussianUnits((2, 3))])
def test_values_keep_the_shape_of_an_item(units):
    value = torch.randn(5, 4, 2, 3)
    s = units.statistic(value)
    assert s.shape == (5, 4, 6) and units.value(s).shape == value.shape
    assert units.distribution(s).event_shape == (2, 3)
    assert units.flat(s).batch_shape == ()


def test_real_units_cannot_be_enumerated():
    with pytest.raises(
        ValueError, match="GaussianUnits cannot be enumerated: expected units of finitely many"
    ):
        GaussianUnits((2,)).configurations(FIELD)
    assert Units((2,), 2).count == math.inf


def test_half_precision_draws_rare_ones_as_often_as_they_are():
    field = torch.full((500_000,), -7.0, dtype=torch.bfloat16)
    rare = BernoulliUnits((500_000,)).sample(field).mean().item()
    assert rare == pytest.approx(torch.tensor(-7.0).sigmoid().item(), rel=0.2)
