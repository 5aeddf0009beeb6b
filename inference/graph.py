"""A training step as one compiled graph: the Pyro handlers run once, while it is traced."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.fx.experimental.proxy_tensor import make_fx

from inference.program import Batch, arguments


def compile_step(objective: nn.Module, batch: Batch) -> Callable[[Batch], Tensor]:
    """Compiles loss and gradients of an objective, for batches of the shapes of this one.

    The objective, backward pass included, is traced into a graph of torch operations and handed to
    ``torch.compile``. What a Pyro program does in Python costs nothing afterwards, and is fixed: branches that
    depend on the values of the batch are refused.

    Args:
        objective: A module whose ``forward(batch)`` is a scalar loss.
        batch: An example; its values do not matter.

    Returns:
        A function that gives the loss of a batch and sets ``.grad`` of every parameter.

    Raises:
        ValueError: If the objective branches on values, or cannot be traced.
    """
    params = {name: param for name, param in objective.named_parameters() if param.requires_grad}

    def loss_and_grads(values: list[Tensor], args: tuple[Tensor, ...]) -> list[Tensor]:
        named = dict(zip(params, values, strict=True))
        loss = torch.func.functional_call(objective, named, (args if isinstance(batch, tuple) else args[0],))
        grads = torch.autograd.grad(loss, values, allow_unused=True)
        return [loss.detach(), *(torch.zeros_like(v) if g is None else g for v, g in zip(values, grads, strict=True))]

    if hasattr(objective, "prepare"):
        objective.prepare(batch)
    example = [param.detach().requires_grad_() for param in params.values()]
    try:
        with torch.random.fork_rng():
            graph = make_fx(loss_and_grads)(example, arguments(batch))
    except Exception as error:
        raise ValueError(
            "compile=True expects an objective whose operations do not depend on the values of the batch; "
            f"tracing it ended in {type(error).__name__}: {str(error).strip().splitlines()[0]}"
        ) from error
    compiled = torch.compile(graph, dynamic=False)

    def step(batch: Batch) -> Tensor:
        with torch.no_grad():
            loss, *grads = compiled(list(params.values()), arguments(batch))
        for param, grad in zip(params.values(), grads, strict=True):
            param.grad = grad
        return loss

    return step
