"""The Jacobian of a masked convolution: triangular along the scan, the diagonal as the formula says."""

import pytest
import torch
from torch.nn.functional import elu, softplus

from zoo.flows import ConvergenceError, MaskedConvolution

SHAPE = (2, 2, 3)


def wild(shape=SHAPE, hidden=3, *, reverse=False, spread=3.0) -> MaskedConvolution:
    layer = MaskedConvolution(shape, hidden, reverse=reverse).double()
    with torch.no_grad():
        for param in layer.parameters():
            param.copy_(spread * torch.randn_like(param))
    return layer


def in_scan_order(matrix: torch.Tensor, shape: tuple[int, int, int]) -> torch.Tensor:
    """Rows and columns in the order of the scan: rows of pixels, pixels, channels."""
    place = torch.arange(matrix.shape[0]).view(shape).permute(1, 2, 0).flatten()
    return matrix[place][:, place]


def jacobian(layer: MaskedConvolution, x: torch.Tensor) -> torch.Tensor:
    matrix = torch.autograd.functional.jacobian(lambda x: layer(x), x)
    return in_scan_order(matrix.reshape(x.numel(), x.numel()), tuple(x.shape))


@pytest.mark.parametrize("reverse", [False, True], ids=["forwards", "backwards"])
@pytest.mark.parametrize("shape", [(1, 3, 3), SHAPE, (3, 2, 2)], ids=str)
def test_the_jacobian_is_triangular_with_the_diagonal_that_is_given(shape, reverse):
    for _ in range(3):
        layer, x = wild(shape, reverse=reverse), 3 * torch.randn(shape, dtype=torch.float64)
        matrix = jacobian(layer, x)
        ahead = matrix.tril(-1) if reverse else matrix.triu(1)
        assert (ahead == 0).all()
        _, diagonal = layer.value_and_diagonal(x[None])
        assert (diagonal > 0).all() and (matrix.diag() > 0).all()
        own = in_scan_order(diagonal.flatten().diag(), shape).diag()
        assert torch.allclose(matrix.diag(), own, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("reverse", [False, True], ids=["forwards", "backwards"])
def test_an_entry_sees_all_before_it_that_is_near(reverse):
    """Three layers reach three rows up, and a pixel further ahead in the row with each."""
    layer, x = wild((2, 3, 2), reverse=reverse, spread=0.5), torch.randn(2, 3, 2, dtype=torch.float64)
    matrix = jacobian(layer, x)
    behind = matrix.triu(1) if reverse else matrix.tril(-1)
    assert (behind != 0).sum() == 12 * 11 / 2


def test_the_value_is_the_formula():
    """On a single pixel only channels are left: plain matrices, block-triangular."""
    channels, hidden = 3, 4
    layer = wild((channels, 1, 1), hidden, spread=1.0)
    x = torch.randn(5, channels, dtype=torch.float64)

    def matrix(part, num_in, num_out):
        W = part.weight[:, :, 1, 1].view(channels, num_out, channels, num_in).clone()
        for c in range(channels):
            W[c, :, c] = softplus(part.diagonal[c]) / num_in
            W[c, :, c + 1 :] = 0
        return W.reshape(channels * num_out, channels * num_in)

    def activation(u):
        even = torch.arange(u.shape[1]) % 2 == 0
        return torch.where(even, elu(u), -elu(-u))

    h = activation(x @ matrix(layer.first, 1, hidden).T + layer.first.bias.flatten())
    h = activation(h @ matrix(layer.second, hidden, hidden).T + layer.second.bias.flatten())
    expected = (
        layer.log_t.exp().flatten() * x + h @ matrix(layer.third, hidden, 1).T + layer.third.bias.flatten()
    )
    assert torch.allclose(layer(x.view(5, channels, 1, 1)).flatten(1), expected, rtol=0, atol=1e-12)


def test_one_direction_is_the_other_on_the_turned_image():
    layer = wild(spread=0.5)
    turned = MaskedConvolution(SHAPE, 3, reverse=True).double()
    turned.load_state_dict(layer.state_dict())
    x = torch.randn(4, *SHAPE, dtype=torch.float64)
    value, log_det = turned.call_and_log_det(x.flip(1, 2, 3))
    expected, other = layer.call_and_log_det(x)
    assert torch.allclose(value.flip(1, 2, 3), expected) and torch.allclose(log_det, other)


def test_a_tolerance_is_the_inverses():
    layer = wild(spread=0.5)
    y = layer(torch.randn(3, *SHAPE, dtype=torch.float64)).detach()
    layer.tolerance = 0.1
    rough = layer.invert(y).residual
    assert (rough <= 0.1).all() and rough.max() > 1e-6
    assert layer.invert(y, tolerance=1e-9).residual.max() <= 1e-9
    with pytest.raises(ConvergenceError, match="3 of 3 items"):
        layer.invert(y + 5, tolerance=1e-9, max_iterations=1)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"event_shape": (2, 2)}, r"got \(2, 2\)"),
        ({"event_shape": (0, 2, 2)}, r"got \(0, 2, 2\)"),
        ({"event_shape": SHAPE, "hidden": 1}, "2 hidden units, got .* and 1"),
        ({"event_shape": SHAPE, "tolerance": 0.0}, r"tolerance must be above 0, got 0\.0"),
    ],
)
def test_wrong_arguments_are_refused(arguments, words):
    with pytest.raises(ValueError, match=words):
        MaskedConvolution(**arguments)
