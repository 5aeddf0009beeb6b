"""Couplings against the formulas, entry by entry, and what they refuse."""

import pytest
import torch
from torch import nn

from zoo.flows import AdditiveCoupling, AffineCoupling, Composed, DiagonalScaling, ResidualNetwork

L, ELL = 5, 2
SHOWN = torch.arange(L) < ELL


class Network(nn.Module):
    """Some g, or h and g, that is no line."""

    def __init__(self, num_outputs: int) -> None:
        super().__init__()
        self.W = nn.Parameter(torch.randn(num_outputs, ELL, dtype=torch.float64))

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        return (z @ self.W.T).sin()


def test_additive_coupling_after_a_scaling_is_the_formula_and_so_is_its_inverse():
    """X_1:l = s_1:l ⊙ Z_1:l and X_l+1:L = Z_l+1:L + g(Z_1:l), read with g of what the scaling has left."""
    g = Network(L - ELL)
    scaling = DiagonalScaling((L,)).double()
    with torch.no_grad():
        scaling.log_scale[:ELL] = torch.randn(ELL)
    s = scaling.log_scale.exp()[:ELL]
    transform = Composed([AdditiveCoupling(SHOWN, g), scaling])
    Z = torch.randn(7, L, dtype=torch.float64)
    X, log_det = transform.call_and_log_det(Z)
    assert torch.allclose(X[:, :ELL], s * Z[:, :ELL], rtol=0, atol=1e-14)
    assert torch.allclose(X[:, ELL:], Z[:, ELL:] + g(Z[:, :ELL]), rtol=0, atol=1e-14)
    assert torch.allclose(log_det, s.log().sum().expand(7), rtol=0, atol=1e-14)

    X = torch.randn(7, L, dtype=torch.float64)
    Z, log_det = transform.inverse_and_log_det(X)
    assert torch.allclose(Z[:, :ELL], X[:, :ELL] / s, rtol=0, atol=1e-14)
    assert torch.allclose(Z[:, ELL:], X[:, ELL:] - g(X[:, :ELL] * (1 / s)), rtol=0, atol=1e-14)
    assert torch.allclose(log_det, -s.log().sum().expand(7), rtol=0, atol=1e-14)


def test_affine_coupling_is_the_formula():
    """X_l+1:L = Z_l+1:L ⊙ exp(-h(Z_1:l)) + g(Z_1:l), with h held between the limits."""
    network = Network(2 * (L - ELL))
    limit = 0.8
    transform = AffineCoupling(SHOWN, network, limit=limit)
    Z = torch.randn(7, L, dtype=torch.float64)
    h, g = network(Z[:, :ELL])[:, : L - ELL], network(Z[:, :ELL])[:, L - ELL :]
    h = limit * (h / limit).tanh()
    X, log_det = transform.call_and_log_det(Z)
    assert torch.equal(X[:, :ELL], Z[:, :ELL])
    assert torch.allclose(X[:, ELL:], Z[:, ELL:] * (-h).exp() + g, rtol=0, atol=1e-14)
    assert torch.allclose(log_det, -h.sum(1), rtol=0, atol=1e-14)
    Z, log_det = transform.inverse_and_log_det(X)
    assert torch.allclose(Z[:, ELL:], (X[:, ELL:] - g) * h.exp(), rtol=0, atol=1e-14)
    assert torch.allclose(log_det, h.sum(1), rtol=0, atol=1e-14)


@pytest.mark.parametrize("limit", [0.5, 3.0])
def test_no_scale_goes_beyond_the_limit(limit):
    class Wild(nn.Module):
        def forward(self, z):
            return 1e3 * torch.cat([z[:, :1], -z[:, :1], z[:, :1], z, z[:, :1]], dim=1)

    transform = AffineCoupling(SHOWN, Wild(), limit=limit)
    _, log_det = transform.call_and_log_det(torch.randn(50, L, dtype=torch.float64))
    assert log_det.abs().max() == pytest.approx(limit)


@pytest.mark.parametrize("kind", [AdditiveCoupling, AffineCoupling])
@pytest.mark.parametrize(
    "mask",
    [torch.tensor([True, False, True]), (torch.arange(12) % 2 == 0).view(3, 2, 2)],
    ids=["splits", "blanks"],
)
def test_the_network_is_given_what_is_shown_and_nothing_else(kind, mask):
    splits, seen = mask.dim() == 1, []

    def network(shown):
        seen.append(shown)
        num = kind.num_params * (int((~mask).sum()) if splits else 3)
        return shown.sum((-3, -2, -1), keepdim=True).expand(*shown.shape[:-3], num, 2, 2)

    transform, x = kind(mask, network, event_dim=3), torch.randn(4, 3, 2, 2)
    y = transform(x)
    transform.inv(y)
    expected = x[:, mask] if splits else torch.where(mask, x, 0.0)
    assert all(torch.equal(shown, expected) for shown in seen) and len(seen) == 2
    assert torch.equal(y[:, mask], x[:, mask])
    assert (y[:, ~mask] != x[:, ~mask]).all()


@pytest.mark.parametrize("num", [1, 2, 4, 5, 8], ids=lambda num: f"{num} numbers")
def test_a_network_that_answers_with_too_few_or_too_many_numbers_is_refused(num):
    """One number for all entries would do for the value, and give a wrong determinant."""
    transform = AffineCoupling(SHOWN, nn.Linear(ELL, num))
    for step in (transform, transform.inv):
        with pytest.raises(ValueError, match=rf"with 6 numbers .* got \(3, {num}\)"):
            step(torch.randn(3, L))


def test_a_network_that_leaves_out_the_batch_is_refused():
    transform = AffineCoupling(SHOWN, lambda shown: torch.ones(6))
    with pytest.raises(ValueError, match=r"got \(6,\)"):
        transform(torch.randn(3, L))


@pytest.mark.parametrize(
    ("mask", "event_dim", "words"),
    [
        (torch.ones(3, dtype=torch.bool), 1, "show some entries and hide others, got 3 of 3"),
        (torch.zeros(3, dtype=torch.bool), 1, "show some entries and hide others, got 0 of 3"),
        (torch.ones(3), 1, r"mask must be bool, .* got torch\.float32"),
        (torch.eye(2) > 0, 3, "1 or 3 dimensions, got .* of 2"),
    ],
)
def test_a_mask_that_does_not_suit_is_refused(mask, event_dim, words):
    with pytest.raises(ValueError, match=words):
        AdditiveCoupling(mask, nn.Identity(), event_dim=event_dim)


@pytest.mark.parametrize("limit", [0.0, -1.0, float("nan")])
def test_a_limit_that_is_not_above_nothing_is_refused(limit):
    with pytest.raises(ValueError, match=f"limit must be above 0 and finite, got {limit}"):
        AffineCoupling(SHOWN, nn.Identity(), limit=limit)


@pytest.mark.parametrize("shape", [(4,), (3, 4), (2, 2, 6), ()], ids=str)
def test_items_of_another_shape_are_refused(shape):
    with pytest.raises(ValueError, match=r"a mask of shape \(5,\) .* got a tensor of shape"):
        AdditiveCoupling(SHOWN, nn.Linear(2, 3))(torch.zeros(shape))


def test_a_caller_may_change_its_mask():
    mask = (torch.arange(4) % 2 == 0).view(1, 2, 2)
    transform, x = AdditiveCoupling(mask, torch.cos, event_dim=3), torch.randn(3, 1, 2, 2)
    y = transform(x)
    mask[:] = True
    assert torch.equal(transform(x), y)


def test_a_coupling_with_a_residual_network_starts_as_the_identity():
    for kind in (AdditiveCoupling, AffineCoupling):
        network = ResidualNetwork(2, 3, kind.num_params)
        transform = kind(torch.tensor([True, False, True]), network, event_dim=3)
        x = torch.randn(4, 3, 2, 2)
        assert torch.equal(transform(x), x)
