"""The fixed-point iteration against closed forms, what it does item by item, and gradients through it."""

import pytest
import torch
from torch import Tensor, nn

from zoo.flows import ConvergenceError, MaskedConvolution
from zoo.flows.fixed_point import implicit, invert


def cube(x: Tensor) -> tuple[Tensor, Tensor]:
    return x + x**3, 1 + 3 * x**2


def flat(x: Tensor) -> tuple[Tensor, Tensor]:
    """Newton's steps, undamped, swing between ±13.5 for ever where they begin at 3."""
    return 0.1 * x + x.atan(), 0.1 + 1 / (1 + x**2)


def float64(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)[:, None]


class Chain(nn.Module):
    """x_i + x_i³ + W x_before + b: triangular, and solved in closed form by no one."""

    def __init__(self, num: int) -> None:
        super().__init__()
        self.W = nn.Parameter(torch.randn(num, num, dtype=torch.float64))
        self.b = nn.Parameter(torch.randn(num, dtype=torch.float64))
        self.calls: list[int] = []

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        self.calls.append(len(x))
        return x + x**3 + x @ self.W.tril(-1).T + self.b, 1 + 3 * x**2


def test_it_finds_the_inverse_where_its_form_is_known():
    x = torch.randn(20, 3, 2, dtype=torch.float64)
    found = invert(cube, cube(x)[0])
    assert torch.allclose(found.x, x, rtol=0, atol=1e-12)


def test_items_that_are_found_are_not_worked_on_further():
    chain = Chain(4)
    x = torch.randn(3, 4, dtype=torch.float64)
    y = chain(x)[0].detach()
    start = torch.stack([x[0], x[1] + 1e-3, x[2] + 30.0])
    chain.calls.clear()
    found = invert(chain, y, start=start)
    assert torch.allclose(found.x, x, rtol=0, atol=1e-10)
    first, second, third = found.iterations.tolist()
    assert 0 == first < second < third
    assert chain.calls == [3] + [2] * second + [1] * (third - second)


def test_an_item_is_found_as_if_it_were_alone():
    chain = Chain(4)
    y = 3 * torch.randn(5, 4, dtype=torch.float64)
    together = invert(chain, y)
    for item, x, iterations in zip(y, together.x, together.iterations, strict=True):
        alone = invert(chain, item[None])
        assert alone.iterations.item() == iterations
        assert torch.allclose(alone.x[0], x, rtol=0, atol=1e-13)


def test_the_report_agrees_with_itself_and_with_the_function():
    chain = Chain(4)
    y = 3 * torch.randn(6, 4, dtype=torch.float64)
    found = invert(chain, y)
    assert found.history.shape == (found.iterations.max() + 1, 6)
    assert torch.equal(found.history[-1], found.residual)
    assert torch.equal(found.history[0], (chain(y)[0] - y).abs().amax(1))
    assert torch.allclose(found.residual, (chain(found.x)[0] - y).abs().amax(1), rtol=0, atol=1e-15)
    unit = 8 * torch.finfo(torch.float64).eps
    allowed = unit * torch.maximum(y.abs().amax(1), found.x.abs().amax(1)).clamp(min=1)
    for item, iterations in enumerate(found.iterations.tolist()):
        history = found.history[:, item]
        assert (history[:iterations] > unit).all()
        assert (history[iterations:] <= allowed[item]).all()


def test_few_more_iterations_than_there_are_entries():
    """Undamped, an affine map is solved an entry at each step; damping that went on would take dozens."""
    chain = Chain(6)
    y = torch.randn(3, 6, dtype=torch.float64)
    found = invert(lambda x: (chain(x)[0] - x**3, torch.ones_like(x)), y, tolerance=1e-12)
    assert found.iterations.max() <= 12


def test_damping_comes_where_steps_swing():
    x = float64(3.0)
    for _ in range(100):
        value, slope = flat(x)
        x = x - value / slope
    assert x.abs() > 13
    found = invert(flat, float64(0.0), start=float64(3.0))
    assert found.x.abs() < 1e-12 and found.iterations < 15


def test_damping_of_one_entry_does_not_slow_another():
    """Each takes the way that it takes alone."""
    starts, ways = torch.tensor([[3.0, 10.0]], dtype=torch.float64), []

    def watched(x: Tensor) -> tuple[Tensor, Tensor]:
        ways[-1].append(x[0])
        return flat(x)

    for start in (starts, starts[:, :1], starts[:, 1:]):
        ways.append([])
        invert(watched, torch.zeros_like(start), start=start)
    together, *alone = map(torch.stack, ways)
    for entry, way in enumerate(alone):
        num = len(way) - 1  # the last steps are not taken by an entry that is found
        assert num > 4 and torch.equal(together[:num, entry], way[:num, 0])
    assert not torch.equal(alone[0][3], alone[1][3])


@pytest.mark.parametrize("tolerance", [1e-2, 1e-6, 1e-12])
def test_the_tolerance_says_how_far_to_go(tolerance):
    y = float64(0.5, 2.0, 9.0)
    found = invert(cube, y, tolerance=tolerance)
    assert (found.residual <= tolerance).all()
    assert (found.history[:-1].amax(1) > tolerance).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_numbers_are_found_as_finely_as_they_are_written(dtype):
    """Neighbours of 1e6 lie further apart than 64 units in the last place of 1."""
    y = torch.tensor([[0.1], [1.0], [1e3], [1e6]], dtype=dtype)
    found = invert(cube, y)
    assert (found.residual <= 8 * torch.finfo(dtype).eps * y[:, 0].clamp(min=1)).all()
    assert found.x.dtype == dtype
    tiny = invert(lambda x: (3 * x + 0.1 * x.sin(), 3 + 0.1 * x.cos()), y)
    assert torch.allclose(3 * tiny.x + 0.1 * tiny.x.sin(), y, rtol=8 * torch.finfo(dtype).eps)


def test_items_that_are_not_found_are_named_and_nothing_else_is_left():
    y = float64(0.0, 9.0, 0.1, 50.0)
    before = y.clone()
    with pytest.raises(
        ConvergenceError, match=r"2 of 4 items did not converge in 4 .* items 1, 3$"
    ) as caught:
        invert(cube, y, max_iterations=4)
    assert caught.value.items == [1, 3]
    assert isinstance(caught.value, ArithmeticError) and "\n" not in str(caught.value)
    assert torch.equal(y, before)


def test_only_ten_items_are_written_out():
    with pytest.raises(ConvergenceError, match=r"items 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, \.\.\.$") as caught:
        invert(cube, torch.full((12, 1), 50.0), max_iterations=1)
    assert caught.value.items == list(range(12))


@pytest.mark.parametrize("wrong", [float("nan"), float("inf")])
def test_an_item_that_is_no_number_is_named_and_given_up_at_once(wrong):
    calls = []

    def counted(x):
        calls.append(len(x))
        return cube(x)

    with pytest.raises(ConvergenceError, match="1 of 3 items .* items 1$") as caught:
        invert(counted, float64(0.5, wrong, 2.0))
    assert caught.value.items == [1]
    assert len(calls) < 20 and calls[1:] == sorted(calls[1:], reverse=True) and calls[1] == 2


@pytest.mark.parametrize(
    "wrong", [{"max_iterations": 0}, {"tolerance": 0.0}, {"tolerance": -1.0}, {"tolerance": float("nan")}]
)
def test_wrong_arguments_are_refused(wrong):
    with pytest.raises(ValueError, match=f"got .*{next(iter(wrong.values()))}"):
        invert(cube, float64(1.0), **wrong)


# Gradients


def inverse(chain: Chain, y: Tensor) -> Tensor:
    return implicit(chain, y, invert(chain, y.detach()).x)


def test_gradients_are_those_of_differences():
    chain, y = Chain(3), torch.randn(2, 3, dtype=torch.float64, requires_grad=True)

    def through(y: Tensor, W: Tensor, b: Tensor) -> Tensor:
        values = {"W": W, "b": b}

        def function(x: Tensor) -> tuple[Tensor, Tensor]:
            return torch.func.functional_call(chain, values, (x,))

        return implicit(function, y, invert(function, y.detach()).x)

    assert torch.autograd.gradcheck(through, (y, chain.W, chain.b))


def test_gradients_are_those_of_the_closed_form():
    """x³ + s x = y for the one real root, by Cardano's formula, which autograd can follow."""
    s = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
    y = float64(-2.0, 0.3, 1.5, 8.0).requires_grad_()

    def function(x: Tensor) -> tuple[Tensor, Tensor]:
        return s * x + x**3, s + 3 * x**2

    ours = implicit(function, y, invert(function, y.detach()).x)
    root = (y.square() / 4 + s**3 / 27).sqrt()
    u, v = y / 2 + root, root - y / 2  # both above 0
    theirs = u ** (1 / 3) - v ** (1 / 3)
    assert torch.allclose(ours, theirs, rtol=0, atol=1e-12)
    weight = torch.randn_like(y)
    for one, other in zip(
        torch.autograd.grad((weight * ours).sum(), (y, s)),
        torch.autograd.grad((weight * theirs).sum(), (y, s)),
        strict=True,
    ):
        assert torch.allclose(one, other, rtol=0, atol=1e-11)


def test_the_gradient_by_every_parameter_is_that_of_the_map():
    """With the inverse g of f, ∂g/∂θ = -(∂f/∂x)⁻¹ ∂f/∂θ, the Jacobian written out."""
    layer = MaskedConvolution((2, 2, 2), 3).double()
    with torch.no_grad():
        for param in layer.parameters():
            param += 0.3 * torch.randn_like(param)
    y = torch.randn(1, 2, 2, 2, dtype=torch.float64, requires_grad=True)
    x, log_det = layer.inverse_and_log_det(y)
    weight = torch.randn_like(x)
    params = list(layer.parameters())
    ours = torch.autograd.grad((weight * x).sum(), [y, *params], retain_graph=True)

    point = x.detach()
    jacobian = torch.autograd.functional.jacobian(lambda x: layer(x[None])[0], point[0]).reshape(8, 8)
    adjoint = torch.linalg.solve(jacobian.T, weight.flatten())
    assert torch.allclose(ours[0].flatten(), adjoint, rtol=0, atol=1e-10)
    theirs = torch.autograd.grad(-(adjoint.view(1, 2, 2, 2) * layer(point)).sum(), params)
    for one, other in zip(ours[1:], theirs, strict=True):
        assert torch.allclose(one, other, rtol=0, atol=1e-10)

    for param, grad in zip(params, torch.autograd.grad(log_det.sum(), params), strict=True):
        step = torch.zeros_like(param)
        step.view(-1)[param.numel() // 2] = 1e-5
        values = []
        for sign in (1, -1):
            with torch.no_grad():
                param += sign * step
                values.append(layer.inverse_and_log_det(y)[1].sum())
                param -= sign * step
        assert grad.view(-1)[param.numel() // 2] == pytest.approx(
            ((values[0] - values[1]) / 2e-5).item(), abs=1e-7
        )


def depth(tensor: Tensor) -> int:
    """Nodes of the graph behind a tensor."""
    seen, waiting = set(), [tensor.grad_fn]
    while waiting:
        node = waiting.pop()
        if node is not None and node not in seen:
            seen.add(node)
            waiting += [parent for parent, _ in node.next_functions]
    return len(seen)


def test_the_graph_does_not_grow_with_the_iterations():
    chain = Chain(4)
    easy = chain(torch.randn(2, 4, dtype=torch.float64))[0].detach()
    hard = 1e6 * easy
    sizes, calls = [], []
    iterations = [invert(chain, y).iterations.max().item() for y in (easy, hard)]
    assert iterations[1] > 1.5 * iterations[0]
    for y in (easy, hard):
        x = inverse(chain, y.requires_grad_())
        sizes.append(depth(x))
        chain.calls.clear()
        x.sum().backward()
        calls.append(len(chain.calls))
    assert sizes[0] == sizes[1] < 30
    assert calls == [0, 0], "the graph of one evaluation serves"


def test_a_gradient_that_is_not_found_is_reported():
    y = torch.zeros(1, 2, dtype=torch.float64, requires_grad=True)
    mix = torch.tensor([[1.0, 2.0], [2.0, 1.0]], dtype=torch.float64)  # not triangular
    x = implicit(lambda x: (x @ mix, torch.ones_like(x)), y, torch.zeros(1, 2, dtype=torch.float64))
    with pytest.raises(ConvergenceError, match="the gradient through an inverse did not converge"):
        x.sum().backward()


def test_there_is_no_second_derivative():
    chain, y = Chain(2), torch.randn(1, 2, dtype=torch.float64, requires_grad=True)
    with pytest.raises(RuntimeError, match="there is no second derivative through an inverse"):
        torch.autograd.grad(inverse(chain, y).square().sum() + y.pow(3).sum(), y, create_graph=True)


@pytest.mark.parametrize("small", [1e-3, 1e-8, 1e-30])
def test_small_gradients_are_as_precise_as_large_ones(small):
    chain = Chain(5)
    y = chain(torch.randn(2, 5, dtype=torch.float64))[0].detach().requires_grad_()
    x = inverse(chain, y)
    (whole,) = torch.autograd.grad(x.sum(), y, retain_graph=True)
    for sizes in ([small, small], [small, 1.0]):  # all items, or one beside another
        sizes = torch.tensor(sizes, dtype=torch.float64)[:, None]
        (part,) = torch.autograd.grad((sizes * x).sum(), y, retain_graph=True)
        assert torch.allclose(part / sizes, whole, rtol=1e-10, atol=0)


def test_the_gradient_is_that_of_the_parameters_the_inverse_was_found_with():
    chain = Chain(3)
    y = chain(torch.randn(2, 3, dtype=torch.float64))[0].detach().requires_grad_()
    other = {"W": chain.W.detach() + 1, "b": chain.b.detach() + 1}
    held = torch.func.functional_call(
        Found(chain), {f"chain.{name}": value for name, value in other.items()}, y
    )
    held.square().sum().backward()
    ours, y.grad = y.grad, None
    for name, value in other.items():
        getattr(chain, name).data = value
    inverse(chain, y).square().sum().backward()
    assert torch.equal(ours, y.grad)


class Found(nn.Module):
    """The inverse of a chain, as a module."""

    def __init__(self, chain: Chain) -> None:
        super().__init__()
        self.chain = chain

    def forward(self, y: Tensor) -> Tensor:
        return inverse(self.chain, y)


def test_an_entry_that_only_jitters_does_not_keep_others_from_settling():
    """As rounding does: what depends on it a thousandfold would never come to rest."""

    def noisy(x: Tensor) -> tuple[Tensor, Tensor]:
        first, second = x.unbind(1)
        first_value = first + 5e-7 * torch.randn(len(x), dtype=x.dtype)
        return torch.stack([first_value, second + 1000 * first], 1), torch.ones_like(x)

    y = torch.randn(20, 2, dtype=torch.float64)
    found = invert(noisy, y, tolerance=1e-5, max_iterations=100)
    assert found.residual.max() <= 1e-5 and found.iterations.max() < 50
