"""The recursion over fronts: that they hold every place once, and the backward pass written by hand."""

import pytest
import torch
from torch.autograd import gradcheck

from zoo.autoregressive.lstm_recursion import diagonals, lstm_recursion, rows

SHAPES = [(1, 1), (1, 4), (4, 1), (2, 3), (3, 2)]


def gates_and_weights(directions, hidden, places, taps):
    torch.manual_seed(0)
    a = torch.randn(directions, 4 * hidden, places, 2, dtype=torch.float64)
    return a, torch.randn(directions, 4 * hidden, taps * hidden, dtype=torch.float64)


@pytest.mark.parametrize("fronts_of", [rows, diagonals])
@pytest.mark.parametrize(("height", "width"), SHAPES)
def test_fronts_hold_every_place_once(fronts_of, height, width):
    places = torch.arange(height * width)
    fronts = fronts_of(height, width)
    assert torch.cat([places[front.places] for front in fronts]).sort().values.equal(places)
    for time, front in enumerate(fronts):
        row, column = places[front.places] // width, places[front.places] % width
        axis, order = (column, row) if fronts_of is rows else (row, row + column)
        assert axis.tolist() == list(range(front.first, front.end))
        assert (order == time).all()


@pytest.mark.parametrize(("height", "width"), SHAPES)
@pytest.mark.parametrize(
    ("fronts_of", "offsets"), [(rows, (-1, 0, 1)), (rows, (-2, -1, 0, 1, 2)), (diagonals, (0, -1))]
)
def test_the_gradient_is_that_of_finite_differences(fronts_of, offsets, height, width):
    a, K = gates_and_weights(2, 1, height * width, len(offsets))
    inputs = a.requires_grad_(), K.requires_grad_()
    assert gradcheck(lambda a, K: lstm_recursion(a, K, fronts_of(height, width), offsets), inputs)


def test_inputs_stay_as_they_are_and_the_gradient_can_be_asked_for_twice():
    a, K = gates_and_weights(1, 2, 6, 2)
    before = a.clone()
    h = lstm_recursion(a.requires_grad_(), K.requires_grad_(), diagonals(2, 3), (0, -1))
    first, again = (torch.autograd.grad(h.sum(), (a, K), retain_graph=True) for _ in range(2))
    assert torch.equal(a, before)
    assert all(torch.equal(*each) for each in zip(first, again, strict=True))


def test_mixed_precision_ends_at_the_recursion():
    a, K = (each.float() for each in gates_and_weights(1, 2, 6, 3))
    expected = lstm_recursion(a.bfloat16().float(), K, rows(2, 3), (-1, 0, 1))
    with torch.autocast("cpu", torch.bfloat16):
        h = lstm_recursion(a.bfloat16().requires_grad_(), K.requires_grad_(), rows(2, 3), (-1, 0, 1))
    assert torch.equal(h, expected)
    h.sum().backward()
    assert K.grad.dtype == torch.float32
