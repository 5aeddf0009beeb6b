"""Mixture of Gaussians.

    p(x) = Σ_k π_k N(x | μ_k, Σ_k),    Σ_k full, tied (the same for all), diagonal, or spherical (σ_k² I).

References:
    | Pattern Recognition and Machine Learning (Bishop, 2006), sections 9.2 and 9.3
    | Bayesian regularization for normal mixture estimation (Fraley & Raftery, 2007), section 2 for the prior
"""

import math
from collections.abc import Callable, Sequence
from typing import Literal, get_args

import pyro
import pyro.distributions as dist
import torch
from pyro.distributions import constraints
from torch import Tensor, nn

from zoo.latent.mixture import EMPTY, Mixture, spread_out, squared_distances
from zoo.latent.tractable import Theta, set_parameter
from zoo.model import refuse_constant_entries

Covariance = Literal["full", "tied", "diagonal", "spherical"]


class GaussianMixture(Mixture):
    """Mixture of Gaussians, for real items.

    With ``pseudo_count`` m, `m_step` is the MAP estimate under m pseudo-items for each component, of mean 0
    and standard deviation ``prior_scale`` in every direction (a conjugate normal-Wishart prior): no
    covariance can then be singular.

    Args:
        event_shape: Shape of one item, for instance ``(11,)``.
        num_components: K, at least 1.
        covariance: ``"full"``, ``"diagonal"`` or ``"spherical"`` for each component its own, or ``"tied"``:
            a full one that all share.
        pseudo_count: m, at least 0.
        prior_scale: Of the pseudo-items, above 0: 1 suits standardised data.

    Raises:
        ValueError: If an argument is none of the above.

    Example:
        >>> mixture = GaussianMixture((2,), num_components=3)
        >>> mixture.sample(5).shape, mixture.features(mixture.sample(5)).shape
        (torch.Size([5, 2]), torch.Size([5, 3]))
    """

    support = constraints.real

    # Of what was tried, the settings that the validation part of the first fold favours.
    recipes = {
        "red-wine": {
            "model": {"num_components": 40, "pseudo_count": 2.0},
            "objective": "em",
            "fit": {"epochs": 300, "restarts": 3},
        },
        "white-wine": {
            "model": {"num_components": 40, "pseudo_count": 0.5},
            "objective": "em",
            "fit": {"epochs": 200, "restarts": 2, "tolerance": 1e-5},
        },
    }

    def __init__(
        self,
        event_shape: tuple[int, ...],
        num_components: int = 10,
        *,
        covariance: Covariance = "full",
        pseudo_count: float = 0.0,
        prior_scale: float = 1.0,
    ) -> None:
        super().__init__(event_shape, num_components, pseudo_count)
        if covariance not in get_args(Covariance):
            raise ValueError(
                f"covariance must be one of {', '.join(get_args(Covariance))}, got {covariance!r}"
            )
        if not 0 < prior_scale < math.inf:
            raise ValueError(f"prior_scale must be above 0, got {prior_scale}")
        self.covariance = covariance
        self.prior_scale = prior_scale
        n = self.event_shape.numel()
        own = () if covariance == "tied" else (num_components,)
        self.loc = nn.Parameter(torch.randn(num_components, n))
        # An upper triangular U with U Uᵀ = Σ⁻¹: scoring then multiplies, and solves nothing.
        self.log_diagonal = nn.Parameter(torch.zeros(*own, *(() if covariance == "spherical" else (n,))))
        self.upper = nn.Parameter(torch.zeros(*own, n * (n - 1) // 2)) if self.is_correlated else None
        self.register_buffer("above", torch.triu_indices(n, n, 1), persistent=False)

    @property
    def is_correlated(self) -> bool:
        """Whether the entries of a component's items are correlated."""
        return self.covariance in ("full", "tied")

    def precision_factor(self) -> Tensor:
        """U of the precisions U Uᵀ: ``(K, n, n)``, ``(n, n)`` where tied; else its diagonal alone."""
        diagonal = self.log_diagonal.exp()
        if self.upper is None:
            return diagonal
        factor = diagonal.diag_embed()
        factor[..., self.above[0], self.above[1]] = self.upper
        return factor

    def theta(self) -> Theta:
        """``weights`` (K,), ``loc`` (K, n), ``scale``: standard deviations, and ``correlation_tril``.

        The last is the Cholesky factor of the correlations. Shapes are ``(K, n)`` and ``(K, n, n)``, without
        K where tied; where spherical ``scale`` is ``(K,)``, and where it is diagonal or spherical there is
        no ``correlation_tril``.
        """
        factor = self.precision_factor()
        theta = {"weights": self.weight_logits.softmax(-1), "loc": self.loc}
        if self.upper is None:
            return {**theta, "scale": 1 / factor}
        identity = torch.eye(factor.shape[-1], dtype=factor.dtype, device=factor.device)
        # Σ = U⁻ᵀ U⁻¹, and U⁻ᵀ is lower triangular.
        tril = torch.linalg.solve_triangular(factor, identity, upper=True).mT
        scale = tril.square().sum(-1).sqrt()
        return {**theta, "scale": scale, "correlation_tril": tril / scale.unsqueeze(-1)}

    def assign(self, **theta: Tensor) -> None:
        """Takes over ``weights``, ``loc``, ``scale`` and ``correlation_tril`` as `theta` gives them."""
        scale = theta["scale"]
        set_parameter(self.weight_logits, theta["weights"].log())
        set_parameter(self.loc, theta["loc"])
        if self.upper is None:
            set_parameter(self.log_diagonal, -scale.log())
        else:
            correlated = theta.get("correlation_tril", torch.ones_like(scale).unsqueeze(-1))
            self._set_factor(scale.unsqueeze(-1) * correlated)

    def parameter_prior(self) -> Theta:
        """π ~ Dir(1), μ ~ N(0, 9 s²), σ ~ LogNormal(log s, 1), correlations ~ LKJ(1), s the prior scale."""
        K, n, s = self.num_components, self.event_shape.numel(), self.prior_scale
        one, loc = torch.ones_like(self.weight_logits), torch.zeros_like(self.loc)
        log_scale = torch.full_like(self.log_diagonal, math.log(s))
        theta = {
            "weights": pyro.sample("weights", dist.Dirichlet(one)),
            "loc": pyro.sample("loc", dist.Normal(loc, 3 * s).to_event(2)),
            "scale": pyro.sample("scale", dist.LogNormal(log_scale, 1.0).to_event(log_scale.dim())),
        }
        if self.upper is not None and n == 1:
            theta["correlation_tril"] = torch.ones_like(theta["scale"]).unsqueeze(-1)
        elif self.upper is not None:
            own = () if self.covariance == "tied" else (K,)
            correlations = dist.LKJCholesky(n, one[0]).expand(own).to_event(len(own))
            theta["correlation_tril"] = pyro.sample("correlation_tril", correlations)
        return theta

    def component(self, theta: Theta) -> dist.Distribution:
        """N(μ_k, Σ_k)."""
        return self._gaussian(theta["loc"], theta, own=lambda value: value)

    def likelihood(self, z: Tensor, theta: Theta | None = None) -> dist.Distribution:
        """N(μ_z, Σ_z)."""
        theta = self.theta() if theta is None else theta
        return self._gaussian(theta["loc"][z], theta, own=lambda value: value[z])

    def _gaussian(self, loc: Tensor, theta: Theta, own: Callable[[Tensor], Tensor]) -> dist.Distribution:
        scale = theta["scale"]
        if not self.is_correlated:
            scale = own(scale)
            scale = scale.unsqueeze(-1) if self.covariance == "spherical" else scale
            return self.shaped(dist.Normal(loc, scale).to_event(1))
        tril = scale.unsqueeze(-1) * theta["correlation_tril"]
        tril = tril.unsqueeze(-3) if self.covariance == "tied" else own(tril)
        return self.shaped(dist.MultivariateNormal(loc, scale_tril=tril))

    def component_log_prob(self, x: Tensor) -> Tensor:
        """-½ |(x - μ_k) U_k|² + log |U_k| - ½ n log 2π."""
        U, n, loc = self.precision_factor(), x.shape[-1], self.loc
        if self.is_correlated:  # far from zero, a product would round what the difference needs
            centre = loc.mean(0).detach()
            x, loc = x - centre, loc - centre
        if self.covariance == "full":
            # The items stand last inside, so that the sum over the few entries runs along them.
            items, start = x.T.expand(self.num_components, -1, -1), (loc.unsqueeze(-2) @ U).mT
            distance = torch.baddbmm(start, U.mT, items, beta=-1).square().sum(1).T
        elif self.covariance == "tied":
            distance = squared_distances(x @ U, loc @ U)
        elif self.covariance == "diagonal":
            distance = squared_distances(x, loc, U.square())
        else:
            distance = squared_distances(x, loc) * U.square()
        log_det = self.log_diagonal
        log_det = n * log_det if self.covariance == "spherical" else log_det.sum(-1)
        return -0.5 * distance + (log_det - 0.5 * n * math.log(2 * math.pi))

    def moments(self, x: Tensor, responsibilities: Tensor) -> dict[str, Tensor]:
        """Sums of x, and of what the covariance needs of x xᵀ."""
        x, r = x.double(), responsibilities.double().T
        if self.covariance == "full":
            second = (x.T * r.unsqueeze(1)) @ x
        elif self.covariance == "tied":  # every item belongs to some component, but for rounding
            second = (x.T * r.sum(0)) @ x
        else:
            second = r @ x.square()
        return {"first": r @ x, "second": second}

    def m_step(self, statistics: dict[str, Tensor]) -> None:
        """Weights, means and covariances of the expected items and the pseudo-items.

        Raises:
            ValueError: If a covariance is singular; the message names its component.
        """
        m, n, count = self.pseudo_count, self.event_shape.numel(), statistics["count"]
        total, pseudo = count + m, m * self.prior_scale**2
        empty = total < EMPTY
        some_are_empty = bool(empty.any())
        if some_are_empty:
            total = total.masked_fill(empty, 1.0)
        loc = statistics["first"] / total.unsqueeze(-1)
        if some_are_empty:  # they stay, with the mean covariance, until they are reseeded
            loc = torch.where(empty.unsqueeze(-1), self.loc.double(), loc)
        if self.is_correlated:
            pseudo = pseudo * torch.eye(n, dtype=loc.dtype, device=loc.device)
            if self.covariance == "tied":
                mass = (count + m).masked_fill(empty, 0.0)
                second = statistics["second"] + self.num_components * pseudo
                covariance = second / mass.sum() - (mass / mass.sum() * loc.T) @ loc
            else:
                covariance = (statistics["second"] + pseudo) / total[:, None, None] - _outer(loc)
                if some_are_empty:
                    covariance[empty] = covariance[~empty].mean(0)
            self._set_factor(self._cholesky(covariance, loc, total))
        else:
            variance = (statistics["second"] + pseudo) / total.unsqueeze(-1) - loc.square()
            if self.covariance == "spherical":
                variance = variance.mean(-1, keepdim=True)
            if some_are_empty:
                variance[empty] = variance[~empty].mean(0)
            self._refuse_singular((variance <= self._tiny(variance, loc)).any(-1), total)
            set_parameter(self.log_diagonal, -0.5 * variance.log().view(self.log_diagonal.shape))
        set_parameter(self.loc, loc)
        self._set_weights(count)

    def log_prior(self) -> Tensor:
        """Log-likelihood of the pseudo-items, in expectation over them."""
        if not self.pseudo_count:
            return super().log_prior()
        loc, U = self.loc.double(), self.precision_factor().double()
        n, s2 = loc.shape[-1], self.prior_scale**2
        if self.is_correlated:
            distance = s2 * U.square().sum((-2, -1)) + (loc.unsqueeze(-2) @ U).square().sum((-2, -1))
            log_det = self.log_diagonal.double().sum(-1)
        else:
            U = U.unsqueeze(-1).expand_as(loc) if self.covariance == "spherical" else U
            distance, log_det = ((s2 + loc.square()) * U.square()).sum(-1), U.log().sum(-1)
        each = log_det - 0.5 * distance - 0.5 * n * math.log(2 * math.pi)
        return self.pseudo_count * each.sum()

    def initialize(self, x: Tensor, generator: torch.Generator) -> None:
        """Means at items far from each other (k-means++), equal weights, the variance of what is near."""
        vectors = self.flat(x).double()
        centres = spread_out(vectors, self.num_components, generator)
        near = squared_distances(vectors, centres).amin(1).mean() / vectors.shape[-1]
        total = vectors.var(0, correction=0).mean()
        scale = torch.sqrt(near.clamp(min=0.01 * total) if total > 0 else near + 1.0)
        with torch.no_grad():
            self.weight_logits.zero_()
            set_parameter(self.loc, centres)
            self.log_diagonal.fill_(-scale.log().item())
            if self.upper is not None:
                self.upper.zero_()

    def reseed(self, empty: Sequence[int], items: Tensor) -> None:
        """Moves empty components to items, with the mean covariance."""
        with torch.no_grad():
            self.loc[list(empty)] = self.flat(items)
        super().reseed(empty, items)

    def check_training(self, x: Tensor) -> None:
        """Checks that every entry varies: a density may grow without bound where one does not.

        Raises:
            ValueError: If one is the same in all items, and there are no pseudo-items.
        """
        if not self.pseudo_count:
            refuse_constant_entries(type(self).__name__, x)

    def _cholesky(self, covariance: Tensor, loc: Tensor, total: Tensor) -> Tensor:
        tril, failed = torch.linalg.cholesky_ex(covariance)
        left = tril.diagonal(dim1=-2, dim2=-1).square()  # the variance of an entry given those before it
        tiny = self._tiny(covariance.diagonal(dim1=-2, dim2=-1), loc)
        tiny = tiny if self.covariance == "full" else tiny.amax(0)
        self._refuse_singular((failed > 0) | (left <= tiny).any(-1), total)
        return tril

    def _tiny(self, variance: Tensor, loc: Tensor) -> Tensor:
        """A variance that is nothing but rounding: of the sums it comes from, and of the items themselves."""
        of_sums = 10 * loc.shape[-1] * torch.finfo(loc.dtype).eps * (variance + loc.square())
        return of_sums + (torch.finfo(self.loc.dtype).eps * loc).square()

    def _refuse_singular(self, singular: Tensor, total: Tensor) -> None:
        if not singular.any():
            return
        if self.covariance == "tied":
            which = "the covariance that all components share is singular"
        else:
            k = int(singular.nonzero()[0, 0])
            more = int(singular.sum()) - 1
            which = (
                f"the covariance of component {k}{f' and {more} more' if more else ''} is singular: about "
                f"{total[k].item():.3g} items belong to it"
            )
        raise ValueError(
            f"{which}; expected items that span all {self.event_shape.numel()} directions: give "
            "GaussianMixture a pseudo_count above 0, fewer components, or another covariance"
        )

    def _set_factor(self, tril: Tensor) -> None:
        """Takes over covariances by their Cholesky factors L: U = L⁻ᵀ."""
        identity = torch.eye(tril.shape[-1], dtype=tril.dtype, device=tril.device)
        factor = torch.linalg.solve_triangular(tril, identity, upper=False).mT
        set_parameter(self.log_diagonal, factor.diagonal(dim1=-2, dim2=-1).log())
        set_parameter(self.upper, factor[..., self.above[0], self.above[1]])


def _outer(vectors: Tensor) -> Tensor:
    """Outer products v vᵀ of each of ``(K, n)``."""
    return vectors.unsqueeze(-1) * vectors.unsqueeze(-2)
