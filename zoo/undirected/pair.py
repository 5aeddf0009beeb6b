"""Two neighbouring layers of a deep Boltzmann machine as a machine of their own, for greedy pretraining.

Trained alone, a layer gets no field from the other side that it will have later. The doubled weights stand
for it: as if the lower layer were there m times, and the upper one m' times, with tied weights,

    p(h | z) = σ(c + m z·W),    p(z | h) = σ(b + m' W h),    F(z) = m [e(z) - b·s(z)] - m' A(c + m z·W),

with m = 2 but where the upper layer is the last, m' = 2 but where the lower one is the visible.

References:
    | Deep Boltzmann Machines (Salakhutdinov & Hinton, 2009), section 3.1
"""

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

if TYPE_CHECKING:
    from collections.abc import Callable

    from zoo.undirected.boltzmann import Block, BoltzmannMachine, State


class Pair(nn.Module):
    """Layers k and k + 1 of a machine; items reach them through the layers below, as means.

    What learning by contrast asks of a model is there, so that a machine is pretrained in place, from the
    visible layer on, pair by pair. The weights are those of the machine.

    Args:
        machine: A machine of Bernoulli hidden layers that is not centred.
        layer: k, the number of the lower layer.

    Raises:
        ValueError: If the machine is centred, or has no hidden layer k + 1.

    Example:
        >>> import inference, zoo
        >>> data = zoo.load("digits")
        >>> dbm = zoo.DBM(data.event_shape, hidden=(20, 10))
        >>> for layer in range(2):
        ...     cd = inference.ContrastiveDivergence(dbm.pair(layer))
        ...     result = inference.fit(cd, data.train.x, epochs=1, lr=1e-2, progress=False)
    """

    def __init__(self, machine: "BoltzmannMachine", layer: int) -> None:
        super().__init__()
        pairs = len(machine.hidden_names)
        if machine.centred:
            raise ValueError(
                "a centred machine is trained as a whole; pretraining expects one without offsets"
            )
        if not 0 <= layer < pairs:
            raise ValueError(f"layer must lie in 0..{pairs - 1}, got {layer}")
        self.machine = [machine]  # in a list: of its parameters these alone are trained
        self.W, self.b, self.c = machine.W[layer], machine.b[layer], machine.b[layer + 1]
        self.lower, self.upper = machine.units[layer], machine.units[layer + 1]
        self.layer = layer
        self.names = machine.names[layer], machine.names[layer + 1]
        self.copies_below = 1.0 if layer + 1 == pairs else 2.0
        self.copies_above = 1.0 if layer == 0 else 2.0

    def blocks(self) -> "tuple[Block, ...]":
        """The upper layer, and the lower one."""
        from zoo.undirected.boltzmann import Block

        below, above = self.names
        return (
            Block((above,), lambda state: {above: self.upper.sample(self._upwards(state[below]))}),
            Block((below,), lambda state: {below: self._downwards(state[above])}),
        )

    def initial_state(self, num: int) -> "State":
        """Values of both layers to start ``num`` chains from, as the machine's."""
        state = self.machine[0].initial_state(num)
        return {name: state[name] for name in self.names}

    @torch.no_grad()
    def posterior(self, x: Tensor) -> "State":
        """The lower layer: the items themselves, or the means of a pass upwards."""
        value = x
        for layer in range(self.layer):
            pair = Pair(self.machine[0], layer)
            value = pair.upper.mean(pair._upwards(value))
        return {self.names[0]: value}

    def free_energy(self, state: "State") -> Tensor:
        """F of the lower layer, in nats, shape ``(num,)``."""
        value = state[self.names[0]]
        statistic = self.lower.statistic(value)
        own = self.lower.base_energy(statistic) - statistic @ self.b
        return self.copies_below * own - self.copies_above * self.upper.log_normalizer(self._upwards(value))

    def start(self, x: Tensor) -> None:
        """As `BoltzmannMachine.start`."""
        self.machine[0].start(x)

    def track(self, state: "State") -> None:
        """As `BoltzmannMachine.track`, of the lower layer: a machine that is trained is not started anew."""
        self.machine[0].track(state)

    def check(self, x: Tensor, y: Tensor | None = None) -> None:
        """As `BoltzmannMachine.check`; a pair takes no labels."""
        if y is not None:
            raise ValueError("a pair of layers is trained without labels, got some")
        self.machine[0].check(x)

    def _apply(self, fn: "Callable[..., Tensor]", recurse: bool = True) -> "Pair":
        """Moves the whole machine: its other layers and its running means belong to what a pair does."""
        self.machine[0]._apply(fn, recurse)
        return self

    def _upwards(self, value: Tensor) -> Tensor:
        return linear(self.copies_below * self.lower.statistic(value), self.W.T, self.c)

    def _downwards(self, value: Tensor) -> Tensor:
        field = linear(self.copies_above * value, self.W, self.b)
        return self.lower.value(self.lower.sample(field))
