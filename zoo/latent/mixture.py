"""What the mixtures share: a hidden label chooses one of K components, and the component draws the item.

    p(z) = Cat(π),    p(x) = Σ_k π_k p(x | z = k),    p(z = k | x) = π_k p(x | z = k) / p(x).

References:
    | Maximum likelihood from incomplete data via the EM algorithm (Dempster, Laird & Rubin, 1977), 4.3
"""

import math
from collections.abc import Sequence

import pyro.distributions as dist
import torch
from pyro.distributions import constraints
from torch import Tensor, nn

from zoo.latent.tractable import Theta, TractableModel, set_parameter

EMPTY = 1e-3
"""Expected number of items below which a component is empty."""


class Mixture(TractableModel):
    """Weights, responsibilities and empty components; a subclass says what a component is.

    Args:
        event_shape: Shape of one item.
        num_components: K, at least 1.
        pseudo_count: Strength of the prior in `m_step`: as if every component had, besides its items, so many
            more, of the kind that the subclass says.

    Raises:
        ValueError: If ``num_components`` is below 1 or ``pseudo_count`` below 0.
    """

    def __init__(self, event_shape: tuple[int, ...], num_components: int, pseudo_count: float) -> None:
        super().__init__(event_shape)
        if not isinstance(num_components, int) or num_components < 1:
            raise ValueError(f"num_components must be an integer of at least 1, got {num_components!r}")
        if not isinstance(pseudo_count, int | float) or not 0 <= pseudo_count < math.inf:
            raise ValueError(f"pseudo_count must be at least 0, got {pseudo_count!r}")
        self.num_components = num_components
        self.pseudo_count = pseudo_count
        self.weight_logits = nn.Parameter(torch.zeros(num_components))

    # What a subclass writes besides

    def component(self, theta: Theta) -> dist.Distribution:
        """p(x | z = k) for every k: the last batch dimension is the components."""
        raise NotImplementedError

    def component_log_prob(self, x: Tensor) -> Tensor:
        """The log of p(x | z = k) of vectors ``(batch, n)`` by the model's own parameters, ``(batch, K)``."""
        raise NotImplementedError

    def moments(self, x: Tensor, responsibilities: Tensor) -> dict[str, Tensor]:
        """What `m_step` needs besides ``count``, from vectors ``(batch, n)`` and ``(batch, K)``."""
        raise NotImplementedError

    def reseed(self, empty: Sequence[int], items: Tensor) -> None:
        """Moves empty components to items ``(len(empty), *event_shape)``, one each, with a fair weight."""
        with torch.no_grad():
            self.weight_logits[list(empty)] = -math.log(self.num_components)
            self.weight_logits -= self.weight_logits.logsumexp(0)

    # What the base makes of it

    def prior(self, theta: Theta | None = None) -> dist.Distribution:
        """p(z) = Cat(π)."""
        if theta is None:
            return dist.Categorical(logits=self.weight_logits)
        return dist.Categorical(probs=theta["weights"])

    def marginal(self, theta: Theta | None = None) -> dist.Distribution:
        """p(x) = Σ_k π_k p(x | z = k)."""
        theta = self.theta() if theta is None else theta
        return _Mixture(self.prior(theta), self.component(theta))

    def posterior(self, x: Tensor, theta: Theta | None = None) -> dist.Distribution:
        """p(z | x): the responsibilities of the components."""
        if theta is None:
            return dist.Categorical(logits=self._joint(x))
        x = x.unsqueeze(-1 - len(self.event_shape))
        return dist.Categorical(logits=theta["weights"].log() + self.component(theta).log_prob(x))

    def log_prob(self, x: Tensor) -> Tensor:
        """Log-density (log-probability) of each item in nats, ``(batch,)``."""
        return self._joint(x).logsumexp(-1)

    @torch.no_grad()
    def features(self, x: Tensor) -> Tensor:
        """Responsibilities, ``(batch, K)``."""
        return self._joint(x).softmax(-1)

    @torch.no_grad()
    def e_step(self, x: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        """As `TractableModel.e_step`: ``count``, the expected items of each component, and its moments."""
        joint = self._joint(x)
        largest = joint.amax(-1, keepdim=True)
        shares = (joint - largest).exp_()
        total = shares.sum(-1, keepdim=True)
        log_prob, responsibilities = (largest + total.log()).squeeze(-1), shares.div_(total)
        count = responsibilities.sum(0, dtype=torch.float64)
        return {"count": count, **self.moments(self.flat(x), responsibilities)}, log_prob

    def empty_components(self, statistics: dict[str, Tensor]) -> list[int]:
        """The components that hardly an item belongs to."""
        return (statistics["count"] < EMPTY).nonzero().flatten().tolist()

    def _set_weights(self, count: Tensor) -> None:
        set_parameter(self.weight_logits, (count.clamp(min=1e-12) / count.sum()).log())

    def _joint(self, x: Tensor) -> Tensor:
        """The log of π_k p(x | z = k), ``(..., K)``."""
        vectors = self.flat(x)
        found = self.component_log_prob(vectors.reshape(-1, vectors.shape[-1]))
        return found.view(*vectors.shape[:-1], -1) + self.weight_logits.log_softmax(-1)


class _Mixture(dist.MixtureSameFamily):
    """A mixture that says whose entries it has, so that Pyro's kernels know."""

    @property
    def support(self) -> constraints.Constraint:
        return self.component_distribution.support


def spread_out(x: Tensor, num: int, generator: torch.Generator) -> Tensor:
    """Items far from each other: each drawn in proportion to its squared distance from those before.

    Args:
        x: Vectors, ``(items, n)``.
        num: How many; where there are fewer different ones, some are taken more than once.
        generator: Of the draws.

    References:
        | k-means++: the advantages of careful seeding (Arthur & Vassilvitskii, 2007), section 2.2
    """
    chosen = [int(torch.randint(len(x), (), generator=generator))]
    distance = torch.full((len(x),), torch.inf, dtype=x.dtype, device=x.device)
    while len(chosen) < num:
        distance = torch.minimum(distance, (x - x[chosen[-1]]).square().sum(-1))
        shares = (distance if distance.sum() > 0 else torch.ones_like(distance)).cpu()
        chosen.append(int(torch.multinomial(shares, 1, generator=generator)))
    return x[chosen]


def squared_distances(x: Tensor, y: Tensor, weights: Tensor | None = None) -> Tensor:
    """Σ_j w_kj (x_ij - y_kj)², ``(items, K)``: by matrix products, in float64 against their rounding.

    Args:
        x: Vectors, ``(items, n)``.
        y: Vectors, ``(K, n)``.
        weights: w, ``(K, n)``; None is 1.
    """
    dtype, x, y = x.dtype, x.double(), y.double()
    if weights is None:
        squares, slopes = x.square().sum(-1, keepdim=True) + y.square().sum(-1), y
    else:
        slopes = weights.double() * y
        squares = torch.addmm((slopes * y).sum(-1), x.square(), weights.double().T)
    return torch.addmm(squares, x, slopes.T, alpha=-2).clamp(min=0).to(dtype)
