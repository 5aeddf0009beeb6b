"""Probabilistic principal component analysis: a linear Gaussian model of few directions.

    p(z) = N(0, I_d),    p(x | z) = N(V z + μ, σ² I),    p(x) = N(μ, V Vᵀ + σ² I),
    p(z | x) = N(M⁻¹ Vᵀ (x - μ), σ² M⁻¹),    M = Vᵀ V + σ² I.

References:
    | Probabilistic principal component analysis (Tipping & Bishop, 1999), equations 3 to 8, section 3.2 and
      appendix B for EM
"""

import math

import pyro
import pyro.distributions as dist
import torch
from pyro.distributions import constraints
from torch import Tensor, nn

from zoo.latent.tractable import Theta, TractableModel, set_parameter
from zoo.model import refuse_constant_entries


class PPCA(TractableModel):
    """Principal components as a generative model.

    Args:
        event_shape: Shape of one item, for instance ``(11,)``.
        latent_dim: d, at least 1 and below the number of entries.

    Raises:
        ValueError: If ``latent_dim`` is out of that range.

    Example:
        >>> ppca = PPCA((11,), latent_dim=2)
        >>> ppca.sample(3).shape, ppca.features(ppca.sample(3)).shape
        (torch.Size([3, 11]), torch.Size([3, 2]))
    """

    support = constraints.real

    recipes = {
        "red-wine": {"model": {"latent_dim": 10}, "objective": "em", "fit": {"epochs": 1000}},
        "white-wine": {"model": {"latent_dim": 10}, "objective": "em", "fit": {"epochs": 1000}},
    }

    def __init__(self, event_shape: tuple[int, ...], latent_dim: int = 2) -> None:
        super().__init__(event_shape)
        n = self.event_shape.numel()
        if not isinstance(latent_dim, int) or not 1 <= latent_dim < n:
            raise ValueError(
                f"latent_dim must be at least 1 and below the {n} entries of an item, got {latent_dim!r}"
            )
        self.latent_dim = latent_dim
        self.loc = nn.Parameter(torch.zeros(n))
        self.V = nn.Parameter(torch.randn(n, latent_dim) / n**0.5)
        self.log_scale = nn.Parameter(torch.zeros(()))

    def theta(self) -> Theta:
        """``loc`` μ (n,), ``V`` (n, d) and ``scale`` σ, a number."""
        return {"loc": self.loc, "V": self.V, "scale": self.log_scale.exp()}

    def assign(self, **theta: Tensor) -> None:
        """Takes over ``loc``, ``V`` and ``scale``."""
        set_parameter(self.loc, theta["loc"])
        set_parameter(self.V, theta["V"])
        set_parameter(self.log_scale, theta["scale"].log())

    def parameter_prior(self) -> Theta:
        """μ_i ~ N(0, 9), V_ij ~ N(0, 1), σ ~ LogNormal(0, 1)."""
        zero = torch.zeros_like(self.log_scale)
        return {
            "loc": pyro.sample("loc", dist.Normal(torch.zeros_like(self.loc), 3.0).to_event(1)),
            "V": pyro.sample("V", dist.Normal(torch.zeros_like(self.V), 1.0).to_event(2)),
            "scale": pyro.sample("scale", dist.LogNormal(zero, 1.0)),
        }

    def prior(self, theta: Theta | None = None) -> dist.Distribution:
        """p(z) = N(0, I)."""
        zero = torch.zeros_like(self.V[0])
        return dist.Normal(zero, torch.ones_like(zero)).to_event(1)

    def likelihood(self, z: Tensor, theta: Theta | None = None) -> dist.Distribution:
        """p(x | z) = N(V z + μ, σ² I)."""
        theta = self.theta() if theta is None else theta
        loc = (theta["V"] @ z.unsqueeze(-1)).squeeze(-1) + theta["loc"]
        return self.shaped(dist.Normal(loc, theta["scale"].unsqueeze(-1)).to_event(1))

    def marginal(self, theta: Theta | None = None) -> dist.Distribution:
        """p(x) = N(μ, V Vᵀ + σ² I)."""
        theta = self.theta() if theta is None else theta
        noise = theta["scale"].square().unsqueeze(-1).expand(theta["loc"].shape)
        return self.shaped(dist.LowRankMultivariateNormal(theta["loc"], theta["V"], noise))

    def posterior(self, x: Tensor, theta: Theta | None = None) -> dist.Distribution:
        """p(z | x) = N(M⁻¹ Vᵀ (x - μ), σ² M⁻¹)."""
        theta = self.theta() if theta is None else theta
        mean, factor = self._mean_and_factor(self.flat(x), theta)
        return dist.MultivariateNormal(
            mean, precision_matrix=factor @ factor.mT / theta["scale"].square()[..., None, None]
        )

    def log_prob(self, x: Tensor) -> Tensor:
        """-½ (|x - μ - V m|² / σ² + |m|² + log |M| + (n - d) log σ² + n log 2π), m the mean of p(z | x)."""
        return self._log_prob(self.flat(x), self.theta())

    def _log_prob(self, x: Tensor, theta: Theta) -> Tensor:
        mean, factor = self._mean_and_factor(x, theta)
        left = (x - theta["loc"] - mean @ theta["V"].mT).square().sum(-1)  # no difference of large numbers
        n, d = theta["V"].shape
        log_det = 2 * factor.diagonal().log().sum() + 2 * (n - d) * theta["scale"].log()
        distance = left / theta["scale"].square() + mean.square().sum(-1)
        return -0.5 * (distance + log_det + n * math.log(2 * math.pi))

    def _mean_and_factor(self, x: Tensor, theta: Theta) -> tuple[Tensor, Tensor]:
        """Mean of p(z | x), and the Cholesky factor of M."""
        V = theta["V"]
        M = V.mT @ V + theta["scale"].square()[..., None, None] * torch.eye(self.latent_dim).to(V)
        factor = torch.linalg.cholesky(M)
        projected = V.mT @ (x - theta["loc"]).unsqueeze(-1)
        return torch.cholesky_solve(projected, factor).squeeze(-1), factor

    @torch.no_grad()
    def features(self, x: Tensor) -> Tensor:
        """Mean of p(z | x), ``(batch, d)``."""
        return self.posterior(x).mean

    @torch.no_grad()
    def e_step(self, x: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        """As `TractableModel.e_step`; the codes are extended by a 1, whose column of V is μ."""
        vectors, theta = self.flat(x).double(), {name: value.double() for name, value in self.theta().items()}
        mean, factor = self._mean_and_factor(vectors, theta)
        codes = torch.cat([mean, torch.ones_like(mean[:, :1])], dim=-1)
        second = codes.T @ codes
        covariance = theta["scale"].square() * torch.cholesky_inverse(factor)
        second[:-1, :-1] += len(x) * covariance
        statistics = {
            "count": torch.tensor(float(len(x)), dtype=torch.float64, device=x.device),
            "codes": second,
            "cross": vectors.T @ codes,
            "square": vectors.square().sum(),
        }
        return statistics, self._log_prob(vectors, theta)

    def m_step(self, statistics: dict[str, Tensor]) -> None:
        """Linear regression of the items on their codes; σ² is what it leaves, of each entry.

        Raises:
            ValueError: If it leaves nothing.
        """
        cross, codes, count = statistics["cross"], statistics["codes"], statistics["count"]
        extended = torch.linalg.solve(codes, cross.T).T
        entries = count * len(extended)
        left = (statistics["square"] - (extended * cross).sum()) / entries
        total = statistics["square"] / entries - (cross[:, -1] / count).square().mean()
        self._set(extended[:, :-1], extended[:, -1], left, total)

    def initialize(self, x: Tensor, generator: torch.Generator) -> None:
        """The mean of the items, random directions, and half of the variance for the noise."""
        vectors = self.flat(x).double()
        variance = vectors.var(0, correction=0).mean()
        V = torch.randn(self.V.shape, dtype=torch.float64, generator=generator).to(vectors)
        V = V * (variance / (2 * self.latent_dim)).sqrt()
        self._set(V, vectors.mean(0), variance / 2, variance)

    def closed_form(self, x: Tensor) -> None:
        """Sets the parameters to those of maximum likelihood, by the eigenvectors of the covariance.

        V = U_d (Λ_d - σ² I)^½, σ² the mean of the eigenvalues that are left out.

        Raises:
            ValueError: If those are all 0.

        References:
            | Tipping & Bishop (1999), equations 7 and 8, with R = I
        """
        vectors = self.flat(x).double()
        values, directions = torch.linalg.eigh(vectors.T.cov(correction=0))
        variance = values[: -self.latent_dim].mean()
        kept = values[-self.latent_dim :].flip(0)
        V = directions[:, -self.latent_dim :].flip(1) * (kept - variance).clamp(min=0).sqrt()
        self._set(V, vectors.mean(0), variance, values.mean())

    def check_training(self, x: Tensor) -> None:
        """Checks that every entry varies.

        Raises:
            ValueError: If one is the same in all items.
        """
        refuse_constant_entries("PPCA", x)

    def _set(self, V: Tensor, loc: Tensor, variance: Tensor, total: Tensor) -> None:
        if not variance > 100 * torch.finfo(self.V.dtype).eps * total:
            raise ValueError(
                f"expected items of more than {self.latent_dim} directions, got {variance.item():.3g} of a "
                f"variance of {total.item():.3g} outside them: a smaller latent_dim leaves more"
            )
        set_parameter(self.V, V)
        set_parameter(self.loc, loc)
        set_parameter(self.log_scale, 0.5 * variance.log())
