"""How draws compare with real items: closed forms, sets made by hand, and laws that are the same."""

import math

import pytest
import torch

import inference
from inference import (
    classifier_two_sample_test,
    frechet_distance,
    frechet_error,
    modes_covered,
    precision_recall,
)


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def with_moments(mean, covariance, seed=0, num=200):
    """Items whose mean and covariance are exactly these."""
    x = normal(num, len(mean), seed=seed)
    x = x - x.mean(0)
    root = torch.linalg.cholesky(x.T.cov())
    return torch.linalg.solve_triangular(root, x.T, upper=False).T @ covariance_root(covariance).T + mean


def covariance_root(covariance):
    values, vectors = torch.linalg.eigh(covariance)
    return vectors * values.clamp(min=0).sqrt()


# Fréchet distance


def test_frechet_distance_is_that_of_the_gaussians():
    mean_x, mean_y = torch.tensor([1.0, 2.0, 3.0]).double(), torch.tensor([0.0, 4.0, 3.0]).double()
    a, b = normal(3, 3, seed=1), normal(3, 3, seed=2)
    of_x, of_y = a @ a.T, b @ b.T
    product = torch.linalg.eigvals(of_x @ of_y).real.clamp(min=0)
    expected = 5.0 + of_x.trace() + of_y.trace() - 2 * product.sqrt().sum()
    x, y = with_moments(mean_x, of_x, seed=3), with_moments(mean_y, of_y, seed=4, num=77)
    assert frechet_distance(x, y) == pytest.approx(expected.item(), rel=1e-9)
    assert frechet_distance(y, x) == pytest.approx(frechet_distance(x, y), rel=1e-12)
    assert frechet_distance(x.float().reshape(200, 3, 1), y.float().reshape(77, 3, 1)) == pytest.approx(
        expected.item(), rel=1e-5
    )


def test_frechet_distance_where_covariances_commute():
    x = with_moments(torch.zeros(2).double(), torch.diag(torch.tensor([4.0, 1.0])).double())
    y = with_moments(torch.zeros(2).double(), torch.diag(torch.tensor([1.0, 9.0])).double(), seed=1)
    assert frechet_distance(x, y) == pytest.approx((2 - 1) ** 2 + (1 - 3) ** 2)


def test_frechet_distance_without_full_rank():
    x = normal(5, 40)
    assert frechet_distance(x, x) == pytest.approx(0.0, abs=1e-12)
    assert frechet_distance(x, x + 1) == pytest.approx(40.0)
    assert frechet_distance(torch.zeros(3, 2), torch.ones(3, 2)) == pytest.approx(2.0)


def test_frechet_distance_is_biased_as_it_says():
    n, m, d = 400, 200, 8
    found = [frechet_distance(normal(n, d, seed=s), normal(m, d, seed=1000 + s)) for s in range(100)]
    assert sum(found) / 100 == pytest.approx((1 / n + 1 / m) * d * (d + 5) / 4, rel=0.1)


def test_frechet_error_is_the_scatter_from_set_to_set():
    shift = torch.tensor([2.0, 0.0]).double()
    pairs = [(normal(300, 2, seed=s), normal(300, 2, seed=500 + s) + shift) for s in range(200)]
    scatter = torch.tensor([frechet_distance(x, y) for x, y in pairs]).std().item()
    errors = [frechet_error(*pair) for pair in pairs[:10]]
    assert sum(errors) / 10 == pytest.approx(scatter, rel=0.15)
    x, y = pairs[0]
    assert frechet_error(x[:6], y[:4]) > 0, "fewer items than groups"
    few = frechet_error(x, y, groups=10), frechet_error(y, x, groups=10)
    assert few[0] == pytest.approx(few[1]) and few[0] != pytest.approx(frechet_error(x, y))


# Two-sample test


def test_two_samples_of_one_law_are_not_told_apart():
    """p-values are uniform, as a permutation test's are at any number of items."""
    p_values, accuracies = [], []
    for seed in range(40):
        x, y = normal(25, 2, seed=seed), normal(25, 2, seed=100 + seed)
        test = classifier_two_sample_test(x, y, seed=seed, permutations=99)
        p_values.append(test.p_value)
        accuracies.append(test.accuracy)
    p_values = torch.tensor(p_values).sort().values
    distance = (p_values - torch.arange(1, 41) / 40).abs().max().item()
    assert distance < 1.63 / 40**0.5 + 1 / 40, "Kolmogorov-Smirnov, at 1 % on both sides"
    assert abs(sum(accuracies) / 40 - 0.5) < 0.05


def test_what_no_mean_tells_is_told():
    """The same means and variances, and another correlation."""
    x, y = normal(150, 2), normal(150, 2, seed=1)
    y[:, 1] = 0.95 * y[:, 0] + math.sqrt(1 - 0.95**2) * y[:, 1]
    test = classifier_two_sample_test(x, y, seed=0)
    assert test.accuracy > 0.65 and test.p_value == 1 / 1001
    assert test.standard_error == pytest.approx((test.accuracy * (1 - test.accuracy) / 300) ** 0.5)
    assert classifier_two_sample_test(x, y, seed=0) == test
    assert classifier_two_sample_test(x, x + 100).accuracy == 1.0


def test_the_larger_set_is_no_hint():
    """With three times as many of one set, answering always that one is right half of the time alone."""
    few, many = normal(60, 2), normal(180, 2, seed=1)
    for x, y in ((few, many), (many, few)):
        test = classifier_two_sample_test(x, y, permutations=99)
        assert abs(test.accuracy - 0.5) < 4 * (0.25 / 120) ** 0.5
        assert test.standard_error == pytest.approx((test.accuracy * (1 - test.accuracy) / 120) ** 0.5)
    assert classifier_two_sample_test(torch.zeros(10, 2), torch.zeros(10, 2)).accuracy == 0.5


# Precision and recall


def test_precision_and_recall_of_sets_made_by_hand():
    real = torch.tensor([[0.0], [1.0], [2.0], [3.0], [10.0]])
    drawn = torch.tensor([[0.4], [0.6], [30.0], [31.0]])
    # Balls of k = 1: the real 0 to 3 reach 1 far, and 10 as far as 3; of draws 0.2, 0.2, 1 and 1.
    assert precision_recall(real, drawn, k=1) == (0.5, 0.0)
    assert precision_recall(real, torch.tensor([[0.4], [0.6], [17.0], [18.0]]), k=1) == (0.75, 0.0)
    assert precision_recall(real, torch.tensor([[0.9], [1.1], [2.5], [2.7]]), k=1) == (1.0, 1 / 5)
    assert precision_recall(real, torch.tensor([[0.9], [1.1], [2.5], [2.7]]), k=2) == (1.0, 4 / 5)
    assert precision_recall(real, real.clone(), k=3) == (1.0, 1.0)


def test_precision_and_recall_tell_which_is_missing():
    real = torch.cat([normal(100, 2), normal(100, 2, seed=1) + 20])
    half, noisy = normal(200, 2, seed=2), torch.cat([normal(150, 2, seed=3) - 50, real[:100] + 1e-3])
    precision, recall = precision_recall(real, half)
    assert precision > 0.85 and 0.4 < recall < 0.52, "one of two clusters"
    precision, _ = precision_recall(real, noisy)
    assert precision == pytest.approx(0.4, abs=0.01), "100 of 250"


def test_many_items_are_compared_in_parts(monkeypatch):
    real, drawn = normal(50, 3), 1.5 * normal(40, 3, seed=1)
    modes = normal(4, 3, seed=2)
    whole = precision_recall(real, drawn), modes_covered(drawn, modes, 0.5).counts.tolist()
    monkeypatch.setattr("inference.sample_quality.AT_A_TIME", 7)
    assert (precision_recall(real, drawn), modes_covered(drawn, modes, 0.5).counts.tolist()) == whole


# Modes


def test_modes_are_covered_by_draws_within_three_standard_deviations():
    modes = torch.tensor([[0.0, 0.0], [10.0, 0.0], [0.0, 10.0]])
    draws = torch.tensor([[0.29, 0.0], [0.31, 0.0], [0.0, 0.2], [10.0, 0.1], [5.0, 5.0]])
    found = modes_covered(draws, modes, 0.1)
    assert found.counts.tolist() == [2, 1, 0] and found.counts.dtype == torch.int64
    assert found.covered == 2 and found.share_of_good_draws == pytest.approx(3 / 5)
    assert modes_covered(draws, modes, 0.1, least_share=0.21).covered == 1
    assert modes_covered(draws, modes, 0.1, least_share=0.2).covered == 2
    assert modes_covered(draws, modes, 0.1, radius=4.0).counts.tolist() == [3, 1, 0]


# What goes wrong

PAIRED = {
    "frechet": frechet_distance,
    "error": frechet_error,
    "test": classifier_two_sample_test,
    "precision": precision_recall,
    "modes": lambda x, y: modes_covered(x, y, 1.0),
}


@pytest.mark.parametrize("name", PAIRED)
@pytest.mark.parametrize(
    ("x", "y", "said"),
    [
        (torch.zeros(9, 2), torch.zeros(9, 3), r"items of one shape, got \(2,\) and \(3,\)"),
        (torch.zeros(9), torch.zeros(9, 3), r"shape \(items, entries\), got \(9,\)"),
        ([[1.0]], torch.zeros(9, 3), "must be a tensor .* got list"),
        (torch.zeros(0, 2), torch.zeros(9, 2), r"at least \d items, got 0"),
        (torch.zeros(9, 2), torch.full((9, 2), math.nan), "finite numbers, got 18 NaN or infinite"),
        (torch.tensor(9 * [[1.0, math.inf]]), torch.zeros(9, 2), "finite numbers, got 9 NaN or infinite"),
    ],
)
def test_sets_that_cannot_be_compared_are_refused(name, x, y, said):
    with pytest.raises(ValueError, match=said):
        PAIRED[name](x, y)


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda x: frechet_distance(x[:1], x), "at least 2 items, got 1"),
        (lambda x: frechet_error(x[:3], x), "at least 4 items, got 3"),
        (lambda x: frechet_error(x, x, groups=1), "groups must be at least 2, got 1"),
        (lambda x: classifier_two_sample_test(x[:4], x), "at least 5 items, got 4"),
        (lambda x: classifier_two_sample_test(x, x, folds=1), "folds must be at least 2, got 1"),
        (lambda x: classifier_two_sample_test(x, x, permutations=0), "permutations must be .* got 0"),
        (lambda x: precision_recall(x, x[:3]), "drawn must have at least 4 items, got 3"),
        (lambda x: precision_recall(x, x, k=0), "k must be .* got 0"),
        (lambda x: modes_covered(x, x, 0.0), "above 0 and finite, got 0.0"),
        (lambda x: modes_covered(x, x, 1.0, radius=math.inf), "above 0 and finite"),
        (lambda x: modes_covered(x, x, 1.0, least_share=1.5), "least_share must lie in 0 to 1, got 1.5"),
    ],
)
def test_numbers_that_make_no_sense_are_refused(call, said):
    with pytest.raises(ValueError, match=said):
        call(normal(9, 2))


def test_nothing_global_is_drawn_from():
    state = torch.get_rng_state()
    inference.classifier_two_sample_test(normal(20, 2), normal(20, 2), permutations=9)
    assert torch.equal(torch.get_rng_state(), state)
