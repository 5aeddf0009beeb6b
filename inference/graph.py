"""A training step as one compiled graph: the Pyro handlers run once, while it is traced."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.fx.experimental.proxy_tensor import make_fx

from inference.program import Batch, arguments, forked_rng


def compile_step(objective: nn.Module, batch: Batch) -> Callable[[Batch], Tensor]:
    """Compiles loss and gradients of an objective, for batches of the shapes of this one.

    The objective, backward pass included, is traced into a graph of torch operations and handed to
    ``torch.compile``. What a Pyro program does in Python costs nothing afterwards, and is fixed: branches
    that depend on the values of the batch are refused, and so is a module that the graph would not reach.
    The buffers of the objective itself are inputs: what it counts in them, by operations of torch, goes on.

    Args:
        objective: A module whose ``forward(batch)`` is a scalar loss.
        batch: An example; its values do not matter.

    Returns:
        A function that gives the loss of a batch and sets ``.grad`` of every parameter.

    Raises:
        ValueError: If the objective branches on values, or cannot be traced.
    """
    if not getattr(objective, "compilable", True):
        raise ValueError(
            "compile=True expects an objective without chains or state of its own, got "
            f"{type(objective).__name__}"
        )
    params = {name: param for name, param in objective.named_parameters() if param.requires_grad}
    state = dict(objective.named_buffers(recurse=False))
    unused: set[str] = set()

    def loss_and_grads(values: list[Tensor], counted: list[Tensor], args: tuple[Tensor, ...]) -> list[Tensor]:
        named = dict(zip((*params, *state), (*values, *counted), strict=True))
        loss = torch.func.functional_call(objective, named, (args if isinstance(batch, tuple) else args[0],))
        grads = torch.autograd.grad(loss, values, allow_unused=True)
        unused.update(name for name, grad in zip(params, grads, strict=True) if grad is None)
        return [
            loss.detach(),
            *(torch.zeros_like(v) if g is None else g for v, g in zip(values, grads, strict=True)),
        ]

    if hasattr(objective, "prepare"):
        objective.prepare(batch)
    example = [param.detach().requires_grad_() for param in params.values()]
    before = [value.clone() for value in state.values()]
    with forked_rng():
        eager = torch.autograd.grad(objective(batch), list(params.values()), allow_unused=True)
        for value, as_it_was in zip(state.values(), before, strict=True):
            value.copy_(as_it_was)
        try:
            with _without_onednn():
                graph = make_fx(loss_and_grads)(example, before, arguments(batch))
        except Exception as error:
            reason = next(iter(str(error).strip().splitlines()), "")
            raise ValueError(
                "compile=True expects operations that do not depend on the values of the batch; "
                f"tracing it ended in {type(error).__name__}: {reason}"
            ) from error
    lost = [name for name, grad in zip(params, eager, strict=True) if grad is not None and name in unused]
    if lost:
        raise ValueError(
            "compile=True expects programs that are methods of their modules, or functions with pyro.param; "
            f"the graph does not reach {', '.join(lost)}"
        )
    compiled = torch.compile(graph, dynamic=False)

    def step(batch: Batch) -> Tensor:
        with torch.no_grad():
            loss, *grads = compiled(list(params.values()), list(state.values()), arguments(batch))
        for param, grad in zip(params.values(), grads, strict=True):
            param.grad = grad
        return loss

    return step


@contextmanager
def _without_onednn() -> Iterator[None]:
    """Its recurrent layers cannot be traced; without it, they are the operations of each step."""
    before = torch.backends.mkldnn.enabled
    torch.backends.mkldnn.enabled = False
    try:
        yield
    finally:
        torch.backends.mkldnn.enabled = before
