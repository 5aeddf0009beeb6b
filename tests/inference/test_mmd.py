"""Maximum mean discrepancy: against sums by hand, closed forms, and the spread of many replications."""

import math

import pytest
import torch
from torch.func import vmap

import inference
from inference import RBF, InverseMultiquadratic, maximum_mean_discrepancy, mmd2
from inference.mmd import median_distance, squared_distances

KERNELS = (RBF(1.3), InverseMultiquadratic(0.8), InverseMultiquadratic([0.5, 2.0]))


def refused(function) -> str:
    with pytest.raises(ValueError) as raised:
        function()
    assert "\n" not in str(raised.value)
    return str(raised.value)


def randn(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("kernel", KERNELS, ids=str)
def test_estimate_is_the_sum_over_distinct_items(kernel):
    x, y = randn(4, 2), 0.5 + randn(3, 2, seed=1)

    def k(a, b):
        square = sum((s - t) ** 2 for s, t in zip(a.tolist(), b.tolist(), strict=True))
        scales = kernel.scale if isinstance(kernel.scale, list) else [kernel.scale]
        if isinstance(kernel, RBF):
            return sum(math.exp(-square / (2 * s * s)) for s in scales) / len(scales)
        return sum(s * s / (s * s + square) for s in scales) / len(scales)

    def within(values):
        pairs = [(a, b) for i, a in enumerate(values) for j, b in enumerate(values) if i != j]
        return sum(k(a, b) for a, b in pairs) / len(pairs)

    across = sum(k(a, b) for a in x for b in y) / 12
    expected = within(x) + within(y) - 2 * across
    assert mmd2(x, y, kernel).item() == pytest.approx(expected, abs=1e-14)
    assert mmd2(y, x, kernel).item() == pytest.approx(expected, abs=1e-14)
    assert mmd2(x.view(4, 1, 2), y.view(3, 1, 2), kernel).item() == pytest.approx(expected, abs=1e-14)
    assert maximum_mean_discrepancy(*[torch.cat([v, v]) for v in (x, y)], kernel).value == pytest.approx(
        mmd2(torch.cat([x, x]), torch.cat([y, y]), kernel).item(), abs=1e-14
    )


@pytest.mark.parametrize("kernel", KERNELS, ids=str)
def test_it_is_unbiased_where_both_are_of_one_law(kernel):
    """The mean of 10,000 estimates lies within 4 standard errors of 0; a biased one is some hundred off."""
    generator = torch.Generator().manual_seed(0)
    x, y = (torch.empty(10_000, num, 3).exponential_(generator=generator) for num in (6, 9))
    values = vmap(lambda x, y: mmd2(x, y, kernel))(x, y).double()
    assert abs(values.mean()) < 4 * values.std() / 100
    assert (values < 0).double().mean() > 0.4


def test_the_median_of_both_sets_keeps_it_unbiased():
    generator = torch.Generator().manual_seed(0)
    x, y = (torch.empty(1000, num, 2).exponential_(generator=generator) for num in (6, 9))
    values = torch.stack([mmd2(a, b, RBF()) for a, b in zip(x, y, strict=True)])
    assert abs(values.mean()) < 4 * values.std() / 1000**0.5


def test_its_mean_is_the_closed_form_of_two_gaussians():
    generator, s, shift = torch.Generator().manual_seed(0), 0.7, 1.5
    x, y = (torch.randn(10_000, num, 1, generator=generator) for num in (5, 7))
    values = vmap(lambda x, y: mmd2(x, y, RBF(s)))(x, y + shift).double()
    kernel_mean = s / math.sqrt(s * s + 2)  # of two draws from one of them
    expected = 2 * kernel_mean * (1 - math.exp(-(shift**2) / (2 * (s * s + 2))))
    assert abs(values.mean() - expected) < 4 * values.std() / 100
    assert values.std() / 100 < 0.02 * expected


@pytest.mark.parametrize(
    ("n", "m", "shift", "width", "between"),
    [(15, 15, 1.0, 1.0, (0.9, 1.15)), (12, 30, 0.0, 2.0, (0.9, 1.15)), (14, 25, 0.0, 1.0, (1.0, 2.0))],
)
def test_its_error_is_the_spread_of_many(n, m, shift, width, between):
    """Mean variance over variance of the estimates; where both are of one law it is too large, as said."""
    estimates = [
        maximum_mean_discrepancy(
            randn(n, 2, seed=2 * seed), shift + width * randn(m, 2, seed=2 * seed + 1), RBF(1.5)
        )
        for seed in range(500)
    ]
    spread = torch.tensor([estimate.value for estimate in estimates]).var()
    said = torch.tensor([estimate.standard_error**2 for estimate in estimates]).mean()
    assert between[0] < (said / spread).item() < between[1]


def test_p_values_are_uniform_where_both_are_of_one_law():
    values = [
        maximum_mean_discrepancy(
            randn(8, 2, seed=2 * s), randn(12, 2, seed=2 * s + 1), permutations=19
        ).p_value
        for s in range(300)
    ]
    # 0.1 and 0.5 of them; three standard errors each
    assert 0.048 < sum(p <= 0.1001 for p in values) / 300 < 0.152
    assert 0.413 < sum(p <= 0.5001 for p in values) / 300 < 0.587
    assert min(values) >= 0.05


def test_p_value_is_the_share_of_permutations_that_are_as_far_apart():
    x, y = randn(5, 2), 0.6 + randn(6, 2, seed=1)
    estimate = maximum_mean_discrepancy(x, y, RBF(1.0), permutations=50, seed=3)
    generator, both = torch.Generator().manual_seed(3), torch.cat([x, y])
    count = 1
    for _ in range(50):
        order = torch.randperm(11, generator=generator)
        count += mmd2(both[order[:5]], both[order[5:]], RBF(1.0)).item() >= estimate.value - 1e-12
    assert estimate.p_value == pytest.approx(count / 51) and 1 < count < 51
    assert maximum_mean_discrepancy(x, y + 9, permutations=50).p_value == pytest.approx(1 / 51)
    assert maximum_mean_discrepancy(x, x.clone(), permutations=50).p_value > 0.5


def test_permutations_are_reproducible_and_leave_generators_alone():
    x, y = randn(6, 2), randn(7, 2, seed=1)
    state = torch.get_rng_state()
    first, again, other = (maximum_mean_discrepancy(x, y, permutations=99, seed=seed) for seed in (1, 1, 2))
    assert first == again and first.p_value != other.p_value
    assert torch.equal(torch.get_rng_state(), state)
    assert maximum_mean_discrepancy(x, y).p_value is None


def test_rows_at_a_time_give_the_same(monkeypatch):
    x, y = randn(9, 2), 0.3 + randn(11, 2, seed=1)
    whole = maximum_mean_discrepancy(x, y, permutations=20)
    monkeypatch.setattr("inference.mmd.ROWS", 20 * 3)
    parts = maximum_mean_discrepancy(x, y, permutations=20)
    assert parts.value == pytest.approx(whole.value, abs=1e-14) and parts.p_value == whole.p_value
    assert parts.standard_error == pytest.approx(whole.standard_error, abs=1e-14)


@pytest.mark.parametrize("kernel", KERNELS, ids=str)
def test_gradient_is_that_of_differences(kernel):
    x, y = randn(4, 2).requires_grad_(), randn(3, 2, seed=1).requires_grad_()
    assert torch.autograd.gradcheck(lambda x, y: mmd2(x, y, kernel), (x, y))
    x = torch.zeros(3, 2, requires_grad=True)  # where items coincide, it is finite
    (grad,) = torch.autograd.grad(mmd2(x, torch.ones(3, 2), kernel), x)
    assert grad.isfinite().all() and grad.abs().sum() > 0


@pytest.mark.parametrize("family", [RBF, InverseMultiquadratic])
def test_kernels(family):
    x, y = randn(5, 3), randn(4, 3, seed=1)
    k = family(0.9)(x, y)
    assert k.shape == (5, 4) and ((k > 0) & (k < 1)).all()
    own = family(0.9)(x, x)
    assert torch.allclose(own.diagonal(), torch.ones(5, dtype=torch.float64))
    assert torch.allclose(own, own.T) and torch.linalg.eigvalsh(own).min() > 0
    mean = (family(0.5)(x, y) + family(2.0)(x, y)) / 2
    assert torch.allclose(family((0.5, 2.0))(x, y), mean)
    # Any function is a kernel too.
    assert mmd2(x, y, lambda a, b: family(0.9)(a, b)) == mmd2(x, y, family(0.9))


@pytest.mark.parametrize("family", [RBF, InverseMultiquadratic])
def test_without_a_scale_it_is_the_median_distance(family):
    x, y = randn(6, 2), 2 + randn(7, 2, seed=1)
    both = torch.cat([x, y])
    median = torch.pdist(both).median().item()
    assert median_distance(x, y) == pytest.approx(median)
    assert family().settled(x, y) == family(median_distance(x, y)) and family(0.3).settled(x, y) == family(
        0.3
    )
    assert mmd2(x, y, family()) == mmd2(x, y, family(median_distance(x, y)))
    assert maximum_mean_discrepancy(x, y, family()).value == pytest.approx(mmd2(x, y, family()).item())
    assert torch.equal(family()(x, y), family(median_distance(x, y))(x, y))


def test_a_median_of_nothing_is_replaced():
    x = torch.zeros(5, 2)
    assert median_distance(x, x) == 1.0
    y = x.clone()
    y[0] = torch.tensor([3.0, 4.0])
    assert median_distance(x, y) == pytest.approx(1.0)  # the mean: 9 of 45 pairs are 5 apart
    assert mmd2(x, x, RBF()) == 0


def test_many_items_have_the_median_of_some():
    x = randn(5000, 1)
    assert median_distance(x, x + 1) == pytest.approx(median_distance(x[::5], x[::5] + 1))


def test_float32_is_summed_in_float64():
    x, y = 1e4 + randn(50, 2).float(), 1e4 + randn(60, 2, seed=1).float()
    value = mmd2(x, y, RBF(1.0))
    assert value.dtype == torch.float32
    assert value.item() == pytest.approx(mmd2(x.double(), y.double(), RBF(1.0)).item(), rel=1e-6)
    assert torch.allclose(squared_distances(x, y), torch.cdist(x.double(), y.double()) ** 2, atol=1e-9)


def test_what_cannot_be_compared_is_refused():
    x = randn(6, 2)
    assert "(2,) and (3,)" in refused(lambda: mmd2(x, randn(6, 3), RBF(1.0)))
    assert "at least 2" in refused(lambda: mmd2(x[:1], x, RBF(1.0)))
    assert "at least 4" in refused(lambda: maximum_mean_discrepancy(x[:3], x))
    assert "torch.int64" in refused(lambda: mmd2(x.long(), x, RBF(1.0)))
    assert "list" in refused(lambda: mmd2([1.0], x, RBF(1.0)))
    assert "finite" in refused(lambda: maximum_mean_discrepancy(x, x / 0))
    assert "permutations" in refused(lambda: maximum_mean_discrepancy(x, x, permutations=-1))
    for scale in (0.0, -1.0, math.inf, math.nan, [], [1.0, 0.0]):
        assert "scale" in refused(lambda scale=scale: inference.RBF(scale))


def test_it_reads_as_a_line():
    assert str(inference.MMDEstimate(0.01234567, 0.0021, 0.01)) == "MMD² 0.01235 ± 0.0021 (p = 0.01)"
    assert str(inference.MMDEstimate(0.01234567, 0.0021)) == "MMD² 0.01235 ± 0.0021"
