"""Mixture of products of coins, which is what a hidden class makes of binary items.

    p(x) = Σ_k π_k ∏_i p_ki^{x_i} (1 - p_ki)^{1 - x_i}.

References:
    | Pattern Recognition and Machine Learning (Bishop, 2006), section 9.3.3
"""

from collections.abc import Sequence

import pyro
import pyro.distributions as dist
import torch
from pyro.distributions import constraints
from torch import Tensor, nn

from zoo.latent.mixture import EMPTY, Mixture, spread_out
from zoo.latent.tractable import Theta, set_parameter
from zoo.model import checked_shape


class BernoulliMixture(Mixture):
    """Mixture of products of coins, for binary items.

    With ``pseudo_count`` m, `m_step` is the MAP estimate under m pseudo-items for each component, half of
    them 1 in every entry: p_ki ~ Beta(1 + m/2, 1 + m/2). Without, what no item of a component shows has next
    to no probability there, and a test item that shows it may have none at all.

    Args:
        event_shape: Shape of one item, for instance ``(28, 28)``.
        num_components: K, at least 1.
        pseudo_count: m, at least 0.

    Raises:
        ValueError: If an argument is none of the above.

    Example:
        >>> mixture = BernoulliMixture((8, 8), num_components=10)
        >>> mixture.sample(3).shape
        torch.Size([3, 8, 8])
        >>> mixture.posterior(mixture.sample(5)).probs.shape
        torch.Size([5, 10])
    """

    support = constraints.boolean

    recipes = {
        "digits": {
            "model": {"num_components": 60, "pseudo_count": 0.3},
            "objective": "em",
            "fit": {"epochs": 200, "restarts": 20},
        },
        "mnist": {
            "model": {"num_components": 500, "pseudo_count": 0.3},
            "objective": "em",
            "fit": {"epochs": 100},
        },
    }

    def __init__(
        self, event_shape: tuple[int, ...], num_components: int = 10, *, pseudo_count: float = 0.0
    ) -> None:
        shape = checked_shape(event_shape)
        super().__init__(event_shape, num_components, pseudo_count)
        self.logits = nn.Parameter(0.1 * torch.randn(num_components, *shape))

    def theta(self) -> Theta:
        """``weights`` (K,) and ``probs`` (K, *event_shape)."""
        return {"weights": self.weight_logits.softmax(-1), "probs": self.logits.sigmoid()}

    def assign(self, **theta: Tensor) -> None:
        """Takes over ``weights`` and ``probs`` as `theta` gives them."""
        set_parameter(self.weight_logits, theta["weights"].log())
        eps = torch.finfo(self.logits.dtype).eps
        set_parameter(self.logits, theta["probs"].clamp(eps, 1 - eps).logit())

    def parameter_prior(self) -> Theta:
        """π ~ Dir(1), p_ki ~ Beta(1 + m/2, 1 + m/2)."""
        each = torch.full_like(self.logits, 1 + self.pseudo_count / 2)
        return {
            "weights": pyro.sample("weights", dist.Dirichlet(torch.ones_like(self.weight_logits))),
            "probs": pyro.sample("probs", dist.Beta(each, each).to_event(each.dim())),
        }

    def component(self, theta: Theta) -> dist.Distribution:
        """∏_i Bern(x_i | p_ki)."""
        return dist.Bernoulli(probs=theta["probs"]).to_event(len(self.event_shape))

    def likelihood(self, z: Tensor, theta: Theta | None = None) -> dist.Distribution:
        """∏_i Bern(x_i | p_zi)."""
        coins = dist.Bernoulli(logits=self.logits[z]) if theta is None else dist.Bernoulli(theta["probs"][z])
        return coins.to_event(len(self.event_shape))

    def component_log_prob(self, x: Tensor) -> Tensor:
        """Σ_i x_i logit p_ki + log(1 - p_ki)."""
        logits = self.logits.flatten(1)
        return x @ logits.T + nn.functional.logsigmoid(-logits).sum(-1)

    def moments(self, x: Tensor, responsibilities: Tensor) -> dict[str, Tensor]:
        """How many of the items of each component are 1 in each entry."""
        return {"ones": (responsibilities.T @ x).double()}

    def m_step(self, statistics: dict[str, Tensor]) -> None:
        """Weights, and the share of ones among the expected items and the pseudo-items."""
        m, count = self.pseudo_count, statistics["count"]
        total = (count + m).unsqueeze(-1).clamp(min=EMPTY)
        eps = torch.finfo(self.logits.dtype).eps
        probs = ((statistics["ones"] + m / 2) / total).clamp(eps, 1 - eps)
        set_parameter(self.logits, probs.logit().view_as(self.logits))
        self._set_weights(count)

    def log_prior(self) -> Tensor:
        """Log-probability of the pseudo-items."""
        logits = self.logits.double()
        heads_and_tails = nn.functional.logsigmoid(logits) + nn.functional.logsigmoid(-logits)
        return self.pseudo_count / 2 * heads_and_tails.sum()

    def initialize(self, x: Tensor, generator: torch.Generator) -> None:
        """Components halfway between the mean and items far from each other (k-means++); equal weights."""
        vectors = self.flat(x).double()
        self._place(slice(None), spread_out(vectors, self.num_components, generator), vectors.mean(0))
        with torch.no_grad():
            self.weight_logits.zero_()

    def reseed(self, empty: Sequence[int], items: Tensor) -> None:
        """Moves empty components halfway to items."""
        theta = self.theta()
        mean = torch.einsum("k,kn->n", theta["weights"].double(), theta["probs"].flatten(1).double())
        self._place(list(empty), self.flat(items).double(), mean)
        super().reseed(empty, items)

    @torch.no_grad()
    def _place(self, which: slice | list[int], items: Tensor, mean: Tensor) -> None:
        probs = (0.5 * (items + mean)).clamp(0.01, 0.99)
        self.logits[which] = probs.logit().view(-1, *self.event_shape).to(self.logits)
