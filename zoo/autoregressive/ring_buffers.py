"""Drawing from a WaveNet sample by sample: its queues as ring buffers in place, and few small operations.

At this size an operation costs what it takes to call it. So what can be computed for all layers at once, is:
what every tap but the last sees has been known for d steps, and one batched product serves all layers; the
skips of all layers are one product, too. Four operations are left of each layer, since σ(b) =
½ (1 + tanh(½ b)) makes tanh(a) σ(b) = ½ (tanh(a) + tanh(a) tanh(½ b)): the halves go into the weights.
"""

from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from zoo.autoregressive.wavenet import WaveNet

NOISE = 2**20
"""Random numbers that are drawn at once."""


class RingBuffers:
    """What the layers of a WaveNet have seen of sequences that it draws; in place, and so for one draw.

    Args:
        wavenet: The model; its weights are taken as they are now.
        num: How many sequences.
        prefix: What they all begin with, int64, shape ``(any length,)``.
    """

    def __init__(self, wavenet: "WaveNet", num: int, prefix: Tensor) -> None:
        self.prefix = prefix[-wavenet.receptive_field :]
        taps, dilations = wavenet.kernel_size - 1, wavenet.dilations
        weights = torch.stack([gate.weight for gate in wavenet.gates])  # (L, 2C, C, k)
        L, C = len(dilations), weights.shape[2]
        halves = weights.new_tensor([1.0, 0.5]).repeat_interleave(C)
        weights = weights * halves[:, None, None]
        # (L, (k - 1) C, 2C): the taps of a layer stand side by side, the oldest first.
        self.past = weights[..., :-1].permute(0, 3, 2, 1).flatten(1, 2).contiguous()
        self.now = weights[..., -1].mT.contiguous().unbind(0)
        bias = torch.stack([gate.bias for gate in wavenet.gates]) * halves
        self.bias = bias.unsqueeze(1).expand(-1, num, -1).contiguous()
        self.residuals = [0.5 * layer.weight[:, :, 0].T.contiguous() for layer in wavenet.residuals]
        _, first, _, last = wavenet.head
        self.head = [
            (layer.bias, (factor * layer.weight).T.contiguous())
            for layer, factor in ((wavenet.skip, 0.5), (first, 1.0), (last, 1.0))
        ]
        self.table = wavenet.inputs(torch.arange(wavenet.num_levels, device=weights.device))

        # All layers' rings one after the other, each as long as its kernel spans. Where the taps of a step
        # find the columns of d, 2d, … steps before, and where its own go, repeats after the longest.
        spans = taps * torch.tensor(dilations, device=weights.device)
        starts = spans.cumsum(0) - spans
        steps = torch.arange(int(spans.max()), device=weights.device).unsqueeze(1)
        back = spans.unsqueeze(1) // taps * torch.arange(taps, 0, -1, device=weights.device)
        read = starts.unsqueeze(1) + (steps.unsqueeze(2) - back) % spans.unsqueeze(1)
        self.places = list(zip(read.flatten(1), starts + steps % spans, strict=True))
        self.rings = weights.new_zeros(int(spans.sum()), num, C)
        self.seen = weights.new_zeros(L * taps, num, C)
        self.step = 0

        self.columns = weights.new_zeros(L, num, C)  # h of every layer; h^0 of the first sample is zero
        self.activations = weights.new_empty(L, num, 2 * C)
        self.told = weights.new_empty(num, L * C)
        self.layers = list(
            zip(
                self.columns.unbind(0),
                self.activations.unbind(0),
                (a[:, :C] for a in self.activations.unbind(0)),
                (a[:, C:] for a in self.activations.unbind(0)),
                self.told.split(C, dim=1),
                self.now,
                strict=True,
            )
        )

    def draw(self, length: int) -> Tensor:
        """Goes on by so many samples: levels, int64, shape ``(num, length)``."""
        num, K = self.columns.shape[1], len(self.table)
        for value in self.prefix.unbind(0):
            self.compute_column()
            self.take(value.expand(num))
        drawn = self.prefix.new_empty(length, num)
        for rows in drawn.split(max(1, NOISE // (num * K))):
            # The largest of logits with Gumbel noise is a draw from their softmax.
            noise = self.table.new_empty(len(rows), num, K).exponential_().log_()
            for value, gumbel in zip(rows.unbind(0), noise.unbind(0), strict=True):
                self.compute_column()
                torch.argmax(self.logits().sub_(gumbel), dim=-1, out=value)
                self.take(value)
        return drawn.T.contiguous()

    def compute_column(self) -> None:
        """Computes h and z of every layer, from h^0 and the rings."""
        read, write = self.places[self.step % len(self.places)]
        torch.index_select(self.rings, 0, read, out=self.seen)
        L, num, C = self.columns.shape
        seen = self.seen if len(self.seen) == L else self.seen.view(L, -1, num, C).transpose(1, 2).flatten(2)
        torch.baddbmm(self.bias, seen, self.past, out=self.activations)
        after = None
        for layer, (h, a, filtered, opened, z, now) in enumerate(self.layers):
            if after is not None:
                torch.addmm(*after, out=h)
            a.addmm_(h, now).tanh_()
            torch.addcmul(filtered, filtered, opened, out=z)
            after = None if layer == L - 1 else (h, z, self.residuals[layer])
        self.rings.index_copy_(0, write, self.columns)
        self.step += 1

    def logits(self) -> Tensor:
        """Those of the next sample, from z of all layers."""
        (bias, skip), (first_bias, first), (last_bias, last) = self.head
        told = torch.addmm(bias, self.told, skip).relu_()
        return torch.addmm(last_bias, torch.addmm(first_bias, told, first).relu_(), last)

    def take(self, value: Tensor) -> None:
        """The levels of a sample are known: they are the next h^0."""
        torch.index_select(self.table, 0, value, out=self.columns[0])
