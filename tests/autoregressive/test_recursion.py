"""The recursion in blocks against two plain versions of itself and against differences, both ways."""

import pytest
import torch
from torch import Tensor

from zoo.autoregressive import recursion
from zoo.autoregressive.recursion import hidden_recursion

BATCH, NUM, HIDDEN = 3, 5, 4


def activated(a: Tensor, activation: str) -> Tensor:
    return a.sigmoid() if activation == "sigmoid" else a.relu()


def loop(x, W, c, V, b, rho, activation):
    """The formula, a variable at a time."""
    a, outputs = c.expand(len(x), -1), []
    for i in range(len(V)):
        if i > 0:
            a = a + x[:, i - 1] @ W[i - 1]
        h = activated(a if rho is None else rho[i] * a, activation)
        outputs.append(h @ V[i].T + b[i])
    return torch.stack(outputs, dim=1)


def cumulative(x, W, c, V, b, rho, activation):
    """The formula, all variables at once."""
    moves = torch.einsum("bik,ikd->bid", x, W).cumsum(1)
    a = c + torch.cat([torch.zeros_like(moves[:, :1]), moves], dim=1) if len(W) else c.expand(len(x), 1, -1)
    h = activated(a if rho is None else rho[:, None] * a, activation)
    return torch.einsum("bid,iod->bio", h, V) + b


def arguments(num_inputs, num_outputs, rescaled, *, num=NUM, batch=BATCH) -> list[Tensor | None]:
    shapes = [
        (batch, num - 1, num_inputs),
        (num - 1, num_inputs, HIDDEN),
        (HIDDEN,),
        (num, num_outputs, HIDDEN),
        (num, num_outputs),
        (num,),
    ]
    given = [torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in shapes]
    return given if rescaled else [*given[:-1], None]


@pytest.fixture(params=[1, 2, 3, NUM, 100])
def block(request, monkeypatch):
    """How many variables a block takes."""
    monkeypatch.setattr(recursion, "BLOCK_BYTES", request.param * 2 * BATCH * HIDDEN * 8)
    return request.param


every_form = pytest.mark.parametrize(
    ("num_inputs", "num_outputs", "activation", "rescaled"),
    [
        pytest.param(k, o, f, rho, id=f"{k}-{o}-{f}-{'rescaled' if rho else 'plain'}")
        for k in (1, 3)
        for o in (1, 4)
        for f in ("sigmoid", "relu")
        for rho in (False, True)
    ],
)


def test_blocks_are_of_the_length_that_the_tests_ask_for(block):
    x, _, _, V, *_ = arguments(1, 1, False)
    buffer = recursion._block_buffer(x.transpose(0, 1), V)
    assert buffer.shape == (min(block, NUM), BATCH, HIDDEN)
    blocks = list(recursion._blocks(NUM, buffer))
    assert [i for part in blocks for i in part] == list(range(NUM))
    assert {len(part) for part in blocks[:-1]} <= {min(block, NUM)}


def test_a_block_is_at_least_one_variable(monkeypatch):
    monkeypatch.setattr(recursion, "BLOCK_BYTES", 0)
    given = arguments(1, 2, True)
    assert torch.allclose(hidden_recursion(*given), loop(*given, "sigmoid"), rtol=0, atol=1e-12)


@every_form
def test_outputs_and_gradients_are_those_of_the_plain_loop_and_of_cumulative_sums(
    block, num_inputs, num_outputs, activation, rescaled
):
    given = arguments(num_inputs, num_outputs, rescaled)
    inputs = [value for value in given if value is not None]
    ours = hidden_recursion(*given, activation)
    weight = torch.randn_like(ours)
    grads = torch.autograd.grad((weight * ours).sum(), inputs)
    for plain in (loop, cumulative):
        expected = plain(*given, activation)
        assert expected.shape == (BATCH, NUM, num_outputs)
        assert torch.allclose(ours, expected, rtol=0, atol=1e-12)
        for grad, theirs in zip(grads, torch.autograd.grad((weight * expected).sum(), inputs), strict=True):
            assert torch.allclose(grad, theirs, rtol=0, atol=1e-12)


@every_form
def test_gradients_are_those_of_differences(monkeypatch, num_inputs, num_outputs, activation, rescaled):
    monkeypatch.setattr(recursion, "BLOCK_BYTES", 2 * 2 * 2 * HIDDEN * 8)
    given = arguments(num_inputs, num_outputs, rescaled, batch=2)
    assert torch.autograd.gradcheck(
        lambda *inputs: hidden_recursion(*inputs, *([] if rescaled else [None]), activation),
        [value for value in given if value is not None],
    )


@pytest.mark.parametrize("left_out", range(6))
def test_an_argument_without_a_gradient_changes_no_other(left_out):
    given = arguments(3, 4, True)
    expected = torch.autograd.grad(hidden_recursion(*given).square().sum(), given)
    given[left_out] = given[left_out].detach()
    rest = [i for i in range(6) if i != left_out]
    grads = torch.autograd.grad(hidden_recursion(*given).square().sum(), [given[i] for i in rest])
    for i, grad in zip(rest, grads, strict=True):
        assert torch.equal(grad, expected[i])


def test_arguments_stay_as_they_are(block):
    given = arguments(1, 1, True)
    before = [value.detach().clone() for value in given]
    outputs = hidden_recursion(*given, "relu")
    outputs.sum().backward()
    first = [value.grad.clone() for value in given]
    hidden_recursion(*given, "relu").sum().backward()
    assert all(torch.equal(value, old) for value, old in zip(given, before, strict=True))
    assert all(torch.allclose(value.grad, 2 * old) for value, old in zip(given, first, strict=True))


def test_layout_of_the_inputs_does_not_matter():
    x, *rest = arguments(3, 4, True)
    turned = x.detach().transpose(0, 2).contiguous().transpose(0, 2)
    assert not turned.is_contiguous()
    assert torch.equal(hidden_recursion(turned, *rest), hidden_recursion(x, *rest))


def test_a_single_variable_has_no_inputs():
    given = arguments(3, 2, True, num=1)
    ours, expected = hidden_recursion(*given), cumulative(*given, "sigmoid")
    assert torch.allclose(ours, expected, rtol=0, atol=1e-12)
    inputs = [value for value in given if value.numel()]
    grads = (torch.autograd.grad(output.square().sum(), inputs) for output in (ours, expected))
    for grad, theirs in zip(*grads, strict=True):
        assert torch.allclose(grad, theirs, rtol=0, atol=1e-12)


def test_float32_is_kept():
    given = [value.detach().float() for value in arguments(1, 1, True)]
    outputs = hidden_recursion(*given)
    assert outputs.dtype == torch.float32
    assert torch.allclose(outputs, loop(*given, "sigmoid"), atol=1e-5)


@every_form
def test_second_derivatives_are_those_of_differences(num_inputs, num_outputs, activation, rescaled):
    given = arguments(num_inputs, num_outputs, rescaled, num=3, batch=2)
    assert torch.autograd.gradgradcheck(
        lambda *inputs: hidden_recursion(*inputs, *([] if rescaled else [None]), activation),
        [value for value in given if value is not None],
    )


def test_a_gradient_to_be_differentiated_is_the_same_gradient():
    given = arguments(3, 4, True)
    outputs = hidden_recursion(*given).square().sum()
    plain = torch.autograd.grad(outputs, given, retain_graph=True)
    again = torch.autograd.grad(outputs, given, create_graph=True)
    assert all(torch.allclose(one, other, atol=1e-12) for one, other in zip(plain, again, strict=True))
