"""A seed for each chain of a batch, so that a chain draws what it would draw alone."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode


class SeededByChain(TorchDispatchMode):
    """Draws the part of each chain, along the first dimension, from a generator of the chain's own.

    Whatever torch draws inside, in place or not, is drawn chain by chain: right for any kernel, and slower
    the more chains there are. The generators of torch move; put it inside `torch.random.fork_rng`.

    Args:
        seeds: One for each chain.

    Raises:
        ValueError: If something is drawn whose first dimension is not that of the chains.

    Example:
        >>> def drawn(seeds):
        ...     with torch.random.fork_rng(), SeededByChain(seeds):
        ...         return torch.rand(len(seeds), 2)
        >>> bool((drawn([7, 8, 9])[1] == drawn([8])[0]).all())
        True
    """

    def __init__(self, seeds: Sequence[int]) -> None:
        super().__init__()
        self.states: list[dict[torch.device, Tensor]] = [{} for _ in seeds]
        self.seeds = list(seeds)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if torch.Tag.nondeterministic_seeded not in func.tags:
            return func(*args, **kwargs)
        parts = [self._of_chain(func, chain, args, kwargs) for chain in range(len(self.seeds))]
        in_place = func._schema.is_mutable
        return args[0] if in_place else torch.cat(parts)

    def _of_chain(self, func: Any, chain: int, args: Any, kwargs: Any) -> Tensor:
        """What one chain draws; with its own generator's state, which goes on from there."""
        num, found = len(self.seeds), []

        def part(value: Any) -> Any:
            sizes = isinstance(value, list | tuple) and value and all(isinstance(each, int) for each in value)
            if isinstance(value, Tensor) and value.dim() and value.shape[0] % num == 0:
                found.append(value)
                each = value.shape[0] // num
                return value[chain * each : (chain + 1) * each]
            if sizes and value[0] % num == 0:
                found.append(value)
                return [value[0] // num, *value[1:]]
            return value

        ours = [part(value) for value in args]
        if not found:
            raise ValueError(
                f"expected what is drawn to have {num} chains as its first dimension, to draw each with a "
                f"seed of its own; {func} does not: give one seed for all"
            )
        device = next((value.device for value in args if isinstance(value, Tensor)), kwargs.get("device"))
        generator = _generator(torch.device(device or "cpu"))
        state = self.states[chain].get(generator.device)
        if state is None:
            generator.manual_seed(self.seeds[chain])
        else:
            generator.set_state(state)
        drawn = func(*ours, **kwargs)
        self.states[chain][generator.device] = generator.get_state()
        return drawn


def _generator(device: torch.device) -> torch.Generator:
    """That which torch draws from on a device."""
    if device.type == "cuda":
        index = torch.cuda.current_device() if device.index is None else device.index
        return torch.cuda.default_generators[index]
    return torch.default_generator
