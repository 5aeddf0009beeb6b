"""What only the PixelRNN promises: its equations, what a pixel sees, and the halves that are not in step."""

from functools import cache

import pytest
import torch
from torch.utils._pytree import tree_leaves, tree_map

import inference
import zoo
from zoo.autoregressive.lstm_layers import DiagonalBiLSTM

LAYERS = ("row-lstm", "diagonal-bilstm")


def network(event_shape, layer, **arguments) -> zoo.PixelRNN:
    """In float64, with weights that are all moved from where they start, and rectifiers that are reached."""
    torch.manual_seed(0)
    rnn = zoo.PixelRNN(event_shape, layer=layer, **{"hidden": 4, **arguments}).double()
    with torch.no_grad():
        for param in rnn.parameters():
            param += 0.3 * torch.randn_like(param)
        rnn.layers[-1].out_of.bias += 1.0
        rnn.head[0].bias += 1.0
    return rnn


def images(rnn, num) -> torch.Tensor:
    return torch.randint(rnn.num_levels, (num, *rnn.event_shape)).to(
        torch.float64 if rnn.num_levels == 2 else torch.int64
    )


# The equations, as they stand in the paper


def first_convolution(rnn, x):
    """The pixels around (r, c) that come before it, weighted; x is ``(height, width)``."""
    weight, half = rnn.first.weight, rnn.first.width // 2

    def features(r, c):
        total = rnn.first.bias
        for i in range(-half, 1):
            for j in range(-half, half + 1):
                inside = 0 <= r + i < rnn.height and 0 <= c + j < rnn.width
                if inside and (i, j) < (0, 0):
                    total = total + weight[:, 0, i + half, j + half] * (2 * x[r + i, c + j] - 1)
        return total

    return features


def lstm(gates, cell):
    o, f, i, g = gates.chunk(4)
    cell = torch.sigmoid(f) * cell + torch.sigmoid(i) * torch.tanh(g)
    return torch.sigmoid(o) * torch.tanh(cell), cell


def logits(rnn, features):
    first, second = rnn.head
    hidden = first.weight[..., 0, 0] @ features.relu() + first.bias
    return second.weight[..., 0, 0] @ hidden.relu() + second.bias


def row_lstm(layer, below, width):
    """Features above a layer at (r, c), from those below it."""
    half, nothing = layer.into.width // 2, torch.zeros(layer.out_of.weight.shape[1], dtype=torch.float64)

    @cache
    def state(r, c):
        if r < 0 or not 0 <= c < width:
            return nothing, nothing
        gates = layer.into.bias
        for j in range(-half, 1):
            if c + j >= 0:
                gates = gates + layer.into.weight[:, :, 0, j + half] @ below(r, c + j)
        above = torch.cat([state(r - 1, c + j)[0] for j in range(-half, half + 1)])
        return lstm(gates + layer.between[0].weight @ above, state(r - 1, c)[1])

    return lambda r, c: below(r, c) + layer.out_of.weight[..., 0, 0] @ state(r, c)[0] + layer.out_of.bias


def diagonal_bilstm(layer, below, width):
    """The same; each half looks a step back along its row, and up."""
    nothing = torch.zeros(layer.out_of.weight.shape[1], dtype=torch.float64)
    into, bias = layer.into.weight[..., 0, 0].chunk(2), layer.into.bias.chunk(2)

    @cache
    def state(r, c, half):
        if r < 0 or not 0 <= c <= width:  # one column beyond the image
            return nothing, nothing
        beside = state(r, c + (1 if half else -1), half)
        above = state(r - 1, c, half)
        gates = into[half] @ below(r, c) + bias[half]
        gates = gates + layer.between[half].weight @ torch.cat([beside[0], above[0]])
        return lstm(gates, beside[1])

    def features(r, c):
        h = state(r, c, 0)[0] + state(r - 1, c, 1)[0]
        return below(r, c) + layer.out_of.weight[..., 0, 0] @ h + layer.out_of.bias

    return features


@pytest.mark.parametrize(
    ("layer", "plain", "kernel_size"),
    [("row-lstm", row_lstm, 3), ("row-lstm", row_lstm, 5), ("diagonal-bilstm", diagonal_bilstm, 3)],
)
def test_the_conditionals_are_the_recurrence_of_the_docstring(layer, plain, kernel_size):
    rnn = network((3, 4), layer, layers=2, kernel_size=kernel_size, first_kernel_size=5)
    (x,) = images(rnn, 1)
    with torch.no_grad():
        features = cache(first_convolution(rnn, x))
        for of_network in rnn.layers:
            features = cache(plain(of_network, features, rnn.width))
        expected = torch.stack([torch.cat([logits(rnn, features(r, c)) for c in range(4)]) for r in range(3)])
        assert torch.allclose(rnn.conditionals(x).logits, expected, rtol=0, atol=1e-12)


# What a pixel sees


def seen(rnn) -> torch.Tensor:
    """Whether the logits of an entry, in rows, change with the value of another, in columns; in order."""
    x = images(rnn, 6)
    n, change = rnn.num_variables, []
    with torch.no_grad():
        before = rnn.conditionals(x).logits.view(6, n)
        for entry in range(n):
            other = x.clone()
            other.view(6, n)[:, entry] = 1 - other.view(6, n)[:, entry]
            change.append((rnn.conditionals(other).logits.view(6, n) - before).abs().amax(0))
    scan = torch.tensor(rnn.order)
    return (torch.stack(change, 1) > 1e-13)[scan][:, scan]


def gradient(rnn) -> torch.Tensor:
    """Whether it has a gradient by the other's value."""
    x, n, found = images(rnn, 6).requires_grad_(), rnn.num_variables, []
    for each in rnn.conditionals(x).logits.view(6, n).sum(0):
        (grad,) = torch.autograd.grad(each, x, retain_graph=True, allow_unused=True)
        found.append(torch.zeros(n) if grad is None else grad.view(6, n).abs().amax(0))
    scan = torch.tensor(rnn.order)
    return (torch.stack(found) != 0)[scan][:, scan]


@pytest.mark.parametrize("measure", [seen, gradient])
@pytest.mark.parametrize("event_shape", [(4, 5), (3, 3, 4)])
@pytest.mark.parametrize("layers", [1, 2])
def test_a_diagonal_bilstm_sees_all_that_comes_before_and_nothing_else(measure, event_shape, layers):
    rnn = network(event_shape, "diagonal-bilstm", layers=layers, first_kernel_size=3)
    n = rnn.num_variables
    assert torch.equal(measure(rnn), torch.ones(n, n).tril(-1).bool())


@pytest.mark.parametrize("measure", [seen, gradient])
@pytest.mark.parametrize("event_shape", [(4, 5), (3, 3, 4)])
def test_a_row_lstm_sees_a_triangle_above_and_nothing_else(measure, event_shape):
    rnn = network(event_shape, "row-lstm", first_kernel_size=3)
    found = measure(rnn)
    assert not found.triu().any()
    pixel = torch.arange(rnn.num_variables) // rnn.colours
    row, column = pixel // rnn.width, pixel % rnn.width
    up = row.unsqueeze(1) - row
    across = column - column.unsqueeze(1)
    assert not found[across > up].any()
    assert found[(up > 0) & (across <= up) & (across >= -up)].all()
    beside = (up == 0) & (across == 0)
    assert torch.equal(found[beside], torch.ones_like(found).tril(-1)[beside]), "colours in order"


def test_a_right_half_that_is_not_a_row_down_sees_the_future(monkeypatch):
    monkeypatch.setattr(DiagonalBiLSTM, "a_row_down", staticmethod(lambda h: h))
    found = seen(network((4, 5), "diagonal-bilstm"))
    assert found.triu(1).any()


# From pixel to pixel


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize(
    ("event_shape", "arguments"),
    [
        ((5, 6), {"layers": 2, "kernel_size": 5, "num_classes": 3}),
        ((3, 4, 3), {"hidden": 7, "num_levels": 3, "first_kernel_size": 5}),
        ((3, 1), {"layers": 2, "kernel_size": 5}),
        ((1, 4), {"layers": 2}),
    ],
)
def test_from_a_state_and_from_the_whole_image_it_is_the_same(layer, event_shape, arguments):
    rnn = network(event_shape, layer, **arguments)
    x = images(rnn, 3)
    labels = (torch.tensor([0, 2, 1]),) if rnn.num_classes else ()
    with torch.no_grad():
        together = rnn.conditionals(x, *labels).logits.reshape(3, rnn.num_variables, -1)
        state = rnn.initial_state(*labels)
        for step, variable in enumerate(rnn.order):
            alone = rnn.conditional(step, state).logits.reshape(-1, together.shape[-1])
            assert torch.allclose(alone.expand(3, -1), together[:, variable], rtol=0, atol=1e-12)
            state = rnn.advance(step, state, x.flatten(1)[:, variable])


@pytest.mark.parametrize("layer", LAYERS)
def test_a_label_starts_without_effect_and_moves_the_gates(layer):
    torch.manual_seed(0)
    rnn = zoo.PixelRNN((4, 4), layer=layer, hidden=3, num_classes=2)
    x, y = (torch.rand(5, 4, 4) < 0.5).float(), torch.arange(5) % 2
    assert torch.equal(rnn.log_prob(x, y), rnn.log_prob(x, 1 - y))
    rnn.log_prob(x, y).sum().backward()
    assert (rnn.layers[0].of_label.weight.grad != 0).all()
    with torch.no_grad():
        rnn.layers[0].of_label.weight.normal_()
    assert not torch.isclose(rnn.log_prob(x, y), rnn.log_prob(x, 1 - y)).any()


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("event_shape", [(3, 3), (3, 2, 2)])
def test_particles_that_are_resampled_take_their_states_along(layer, event_shape):
    """Every tensor of a state is one row for each particle, or was there before the first pixel."""
    rnn = network(event_shape, layer, layers=2)
    x, chosen = images(rnn, 5), torch.tensor([3, 0, 0, 4, 3])
    entries = x.flatten(1)
    state = start = rnn.initial_state()
    first = {id(leaf) for leaf in tree_leaves(start)}

    def resampled(leaf):
        if not isinstance(leaf, torch.Tensor) or id(leaf) in first:
            return leaf
        assert len(leaf) == 5 and leaf.dim() > 1 or leaf.shape == (5,)
        return leaf[chosen]

    with torch.no_grad():
        expected = rnn.conditionals(x[chosen]).logits.flatten(1)
        for step, variable in enumerate(rnn.order):
            alone = rnn.conditional(step, tree_map(resampled, state)).logits
            assert torch.allclose(alone.expand(5), expected[:, variable], rtol=0, atol=1e-12)
            state = rnn.advance(step, state, entries[:, variable])


@pytest.mark.parametrize("layer", LAYERS)
def test_hidden_pixels_are_filled_in(layer):
    rnn = network((3, 3), layer)
    x = images(rnn, 2)
    observed = torch.tensor([False, True, True]).unsqueeze(1).expand(3, 3)
    completion = inference.complete(rnn, x, observed, num=5, particles=20, progress=False)
    assert completion.method == "smc" and completion.draws.shape == (5, 2, 3, 3)
    assert torch.equal(completion.draws[..., 1:, :], x[:, 1:].expand(5, 2, 2, 3))


@pytest.mark.parametrize("layer", LAYERS)
def test_states_are_dropped_in_training_alone(layer):
    rnn = network((4, 4), layer, dropout=0.5)
    x = images(rnn, 3)
    assert not torch.equal(rnn.log_prob(x), rnn.log_prob(x))
    rnn.eval()
    assert torch.equal(rnn.log_prob(x), rnn.log_prob(x))
