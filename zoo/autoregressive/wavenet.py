"""WaveNet: dilated causal convolutions over a sound, whose reach doubles from layer to layer.

    h^0_t = E φ(x_{t-1}),
    z^l_t = tanh(Σ_j W_j h^l_{t-jd}) ⊙ σ(Σ_j V_j h^l_{t-jd}),    d = 1, 2, 4, … along the layers l of a stack,
    h^{l+1}_t = h^l_t + R z^l_t,
    p(x_t | x_<t) = softmax(A₂ relu(A₁ relu(Σ_l S_l z^l_t))),

with biases in all but E and R; j runs from 0 to the size of the kernel less one. What lies before the first
sample is zero in every layer.

References:
    | WaveNet: A generative model for raw audio (van den Oord et al., 2016), sections 2.1 to 2.4
    | https://arxiv.org/abs/1609.03499
    | Fast WaveNet generation algorithm (Le Paine et al., 2016) for a queue in each layer
    | https://arxiv.org/abs/1611.09482
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, pad

from zoo.autoregressive.autoregressive import Autoregressive
from zoo.autoregressive.ring_buffers import RingBuffers
from zoo.model import evaluation_mode

CHUNK = 8192
"""Samples that are scored at once, of a long sequence or of several items."""

Queue = tuple[Tensor, ...]
"""What a layer has seen, oldest first: as many columns ``(..., residual_channels)`` as its kernel spans."""


class State(NamedTuple):
    """What is known before a step: a queue for each layer, and the logits that came of them."""

    queues: tuple[Queue, ...]
    logits: Tensor


class WaveNet(Autoregressive):
    """A sequence of levels, each conditioned on as many before it as the layers reach.

    A level enters as two numbers φ, the level itself on a scale of -1 to 1 and the amplitude that µ-law
    gives it, and not as one of K: neighbouring levels sound alike, which some seconds of sound do not suffice
    to teach. The first sample has none before it, and φ = 0.

    Args:
        event_shape: ``(T,)``, samples of an item. A sequence of any length can be scored and continued
            besides.
        num_levels: K, at least 3; the entries are integers 0 … K - 1, int64.
        residual_channels: Numbers in h and z, at least 1.
        skip_channels: Numbers that all layers speak to the logits through, at least 1.
        layers: How many there are in a stack, at least 1, with dilations 1, 2, 4, ….
        stacks: How many stacks, at least 1; each begins anew with a dilation of 1.
        kernel_size: Taps of a convolution, at least 2.
        dropout: Share of the z of each layer that is zero in training, 0 to below 1.

    Attributes:
        dilations: Of every layer.
        receptive_field: How many samples before its own a conditional looks at.

    Raises:
        ValueError: If an argument is none of the above.

    Example:
        >>> wavenet = WaveNet((20,), num_levels=8, residual_channels=4, skip_channels=5, layers=3, stacks=2)
        >>> wavenet.receptive_field
        15
        >>> wavenet.sample(3).shape
        torch.Size([3, 20])
        >>> wavenet.log_prob_of(torch.arange(8).repeat(50)).shape
        torch.Size([400])
        >>> wavenet.generate(2, 30, prefix=torch.tensor([0, 1, 2]), seed=0).shape
        torch.Size([2, 30])
    """

    recipes = {
        "speech": {
            "model": {"residual_channels": 32, "skip_channels": 64, "layers": 9, "stacks": 2},
            "objective": "maximum-likelihood",
            "fit": {"epochs": 30, "batch_size": 2, "lr": 4e-3, "schedule": "cosine"},
        },
    }

    def __init__(
        self,
        event_shape: tuple[int, ...],
        num_levels: int = 256,
        residual_channels: int = 32,
        skip_channels: int = 64,
        *,
        layers: int = 9,
        stacks: int = 2,
        kernel_size: int = 2,
        dropout: float = 0.0,
    ) -> None:
        super().__init__(event_shape, None, num_levels)
        if len(self.event_shape) != 1:
            raise ValueError(f"event_shape must be (samples,), got {tuple(self.event_shape)}")
        sizes = {
            **{"num_levels": (num_levels, 3), "residual_channels": (residual_channels, 1)},
            **{"skip_channels": (skip_channels, 1), "layers": (layers, 1), "stacks": (stacks, 1)},
            "kernel_size": (kernel_size, 2),
        }
        for name, (value, least) in sizes.items():
            if value < least:
                raise ValueError(f"{name} must be at least {least}, got {value}")
        if not 0 <= dropout < 1:
            raise ValueError(f"dropout must lie between 0 and 1, below it, got {dropout}")
        C, self.kernel_size = residual_channels, kernel_size
        self.dilations = tuple(2**layer for _ in range(stacks) for layer in range(layers))
        self.receptive_field = 1 + (kernel_size - 1) * sum(self.dilations)
        self.front = nn.Linear(2, C, bias=False)
        self.gates = nn.ModuleList(nn.Conv1d(C, 2 * C, kernel_size, dilation=d) for d in self.dilations)
        # What the last layer would hand on reaches nobody.
        self.residuals = nn.ModuleList(nn.Conv1d(C, C, 1, bias=False) for _ in self.dilations[1:])
        self.skip = nn.Linear(C * len(self.dilations), skip_channels)  # S_1 … S_L side by side
        self.head = nn.Sequential(
            nn.ReLU(),
            nn.Linear(skip_channels, skip_channels),
            nn.ReLU(),
            nn.Linear(skip_channels, num_levels),
        )
        self.dropout = nn.Dropout(dropout)

    def inputs(self, x: Tensor) -> Tensor:
        """h^0 of the step after levels ``(...)``: shape ``(..., residual_channels)``."""
        mu = self.num_levels - 1
        level = 2 / mu * x.to(self.front.weight.dtype) - 1
        amplitude = level.sign() * (level.abs() * math.log1p(mu)).expm1() / mu
        return self.front(torch.stack([level, 4 * amplitude], dim=-1))  # speech is seldom louder than 1 / 4

    def params(self, x: Tensor) -> Tensor:
        """Logits of all samples by convolutions, shape ``(..., T, K)``."""
        h = self.inputs(x[..., :-1].reshape(x.shape[:-1].numel(), x.shape[-1] - 1)).transpose(1, 2)
        h, told = pad(h, (1, 0)), []
        for layer, (gate, dilation) in enumerate(zip(self.gates, self.dilations, strict=True)):
            filtered, opened = gate(pad(h, ((self.kernel_size - 1) * dilation, 0))).chunk(2, dim=1)
            z = self.dropout(filtered.tanh() * opened.sigmoid())
            told.append(z)
            if layer < len(self.residuals):
                h = h + self.residuals[layer](z)
        logits = self.head(self.skip(torch.cat(told, dim=1).transpose(1, 2)))
        # Mixed precision gives them in another type than the weights.
        return logits.reshape(*x.shape, self.num_levels).to(self.skip.weight.dtype)

    def initial_state(self) -> State:
        """Queues of zeros, and the logits of the first sample."""
        nothing = self.front.weight.new_zeros(len(self.front.weight))
        spans = ((self.kernel_size - 1) * dilation for dilation in self.dilations)
        return self._column(nothing, tuple((nothing,) * span for span in spans))

    def params_at(self, step: int, state: State) -> Tensor:
        """The logits that the state has already."""
        return state.logits

    def advance(self, step: int, state: State, value: Tensor) -> State:
        """One more column of every layer: each queue takes in its newest and gives up its oldest."""
        if step == self.num_variables - 1:
            return state
        return self._column(self.inputs(value), state.queues)

    def _column(self, h: Tensor, queues: tuple[Queue, ...]) -> State:
        """What the layers make of h^0 and what they have seen."""
        told, after = [], []
        for layer, (gate, dilation, queue) in enumerate(zip(self.gates, self.dilations, queues, strict=True)):
            # Of the queue's (k - 1) d columns every d-th is under a tap; this one under the last.
            a = gate.bias + h @ gate.weight[:, :, -1].mT
            for tap, seen in enumerate(queue[::dilation]):
                a = a + seen @ gate.weight[:, :, tap].mT
            filtered, opened = a.chunk(2, dim=-1)
            told.append(self.dropout(filtered.tanh() * opened.sigmoid()))
            after.append((*queue[1:], h))
            if layer < len(self.residuals):
                h = h + told[-1] @ self.residuals[layer].weight[:, :, 0].mT
        # Where values are enumerated, what a layer has seen may have fewer dimensions than another's.
        return State(tuple(after), self.head(self.skip(torch.cat(torch.broadcast_tensors(*told), dim=-1))))

    def log_prob(self, x: Tensor) -> Tensor:
        """What the base gives, so many items at a time that their feature maps stay small."""
        items, parts = x.reshape(x.shape[:-1].numel(), x.shape[-1]), []
        for part in items.split(max(1, CHUNK // x.shape[-1])):
            logits = self.params(part).flatten(0, 1)
            parts.append(-cross_entropy(logits, part.flatten(), reduction="none").view(part.shape).sum(-1))
        return torch.cat(parts).view(x.shape[:-1])

    @torch.no_grad()
    def log_prob_of(self, sequence: Tensor) -> Tensor:
        """Log-probability of each sample of one sequence, in nats, given all before it; without gradient.

        Args:
            sequence: The levels, int64, shape ``(samples,)``, of any length.

        Raises:
            ValueError: If it is no such tensor, or an entry is not in 0 … K - 1.
        """
        self._check_sequence("a sequence", sequence)
        reach, parts = self.receptive_field, []
        with evaluation_mode(self):
            for start in range(0, len(sequence), CHUNK):
                # The first column of a part has nothing before it; those that look at it are not kept.
                before = min(reach, start)
                part = sequence[start - before : start + CHUNK]
                logits = self.params(part)[before:]
                parts.append(-cross_entropy(logits, part[before:], reduction="none"))
        return torch.cat(parts)

    @torch.no_grad()
    def generate(
        self, num: int, length: int, *, prefix: Tensor | None = None, seed: int | None = None
    ) -> Tensor:
        """Goes on after a prefix, one column of every layer for each sample.

        Args:
            num: How many sequences, at least 1.
            length: Samples of each, at least 1, without the prefix.
            prefix: What they all go on from, levels, int64, shape ``(any length,)``; None is the beginning.
            seed: Makes the draw reproducible, and leaves torch's generators alone; None draws from them.

        Returns:
            The levels after the prefix, int64, shape ``(num, length)``.

        Raises:
            ValueError: If an argument is none of the above.
        """
        if num < 1 or length < 1:
            raise ValueError(f"num and length must be at least 1, got {num} and {length}")
        if prefix is None:
            prefix = torch.empty(0, dtype=torch.int64)
        self._check_sequence("a prefix", prefix, least=0)
        with torch.random.fork_rng(enabled=seed is not None):
            if seed is not None:
                torch.manual_seed(seed)
            return RingBuffers(self, num, prefix.to(self.skip.weight.device)).draw(length)

    def _check_sequence(self, what: str, x: Tensor, *, least: int = 1) -> None:
        """Checks levels at the door."""
        if not isinstance(x, Tensor) or x.dim() != 1 or x.dtype != torch.int64 or len(x) < least:
            came = f"{x.dtype} of {tuple(x.shape)}" if isinstance(x, Tensor) else type(x).__name__
            raise ValueError(f"expected {what} of torch.int64 and shape (samples,), got {came}")
        if len(x) and not 0 <= x.min() <= x.max() < self.num_levels:
            raise ValueError(
                f"expected {what} in 0 ... {self.num_levels - 1}, got {int(x.min())} ... {int(x.max())}"
            )
