"""Variational autoencoder with several stochastic layers.

Each layer of the code is drawn by a network from the layer above it, the top one from a standard Gaussian:

    p(x, z) = p(x | z_1) p(z_1 | z_2) … p(z_{L-1} | z_L) N(z_L | 0, I),    all p(z_l | z_{l+1}) Gaussian.

Two guides. ``"bottom-up"`` draws each layer from the one below it,

    q(z | x) = q(z_1 | x) q(z_2 | z_1) … q(z_L | z_{L-1}).

``"ladder"`` goes up without drawing, which gives a Gaussian N(μ̂_l, σ̂_l²) in x for each layer, and then down:
the top layer is drawn from its own, each other one from the product of its own and p(z_l | z_{l+1}), in which
precisions add up, and locations are weighted by them:

    σ_l⁻² = σ̂_l⁻² + σ_p⁻²,    μ_l = σ_l² (σ̂_l⁻² μ̂_l + σ_p⁻² μ_p).

Upper layers collapse onto their prior where the lower ones learn faster: the ``warm_up`` of `inference.ELBO`
lets them all be used before their divergences count. `HierarchicalVAE.divergences` shows what came of it.

References:
    | Ladder Variational Autoencoders (Sønderby, Raiko, Maaløe, Sønderby & Winther, 2016), equations 18 and 19
    | https://arxiv.org/abs/1602.02282
    | Importance Weighted Autoencoders (Burda, Grosse & Salakhutdinov, 2016), section 5: the bottom-up guide
"""

from collections.abc import Callable
from typing import Literal

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor, nn
from torch.distributions import kl_divergence
from torch.nn.functional import softplus

from zoo.latent.autoencoder import MIN_SCALE, Autoencoder, Likelihood
from zoo.latent.networks import Activation, Decoder, Encoder


class HierarchicalVAE(Autoencoder):
    """Layers of Gaussian codes, each drawn from the one above, and a guide that goes up or up and down.

    Args:
        event_shape: Shape of one item, for instance ``(28, 28)``.
        latent_dims: Lengths of the codes z_1, …, z_L, from the bottom to the top, each at least 1.
        posterior: The guide, ``"ladder"`` or ``"bottom-up"``.
        hidden: Widths of the hidden layers of the network up to each code, ``((200, 200), (100, 100))`` from
            the bottom to the top; the network down from it mirrors them. ``(200,)`` is the same for all.
        likelihood: ``"bernoulli"`` for entries 0 or 1, ``"gaussian"`` for real ones (the decoder gives each
            entry its location and its standard deviation).
        activation: ``"relu"``, ``"silu"`` or ``"tanh"``.

    Raises:
        ValueError: If an argument is none of the above.

    Example:
        >>> vae = HierarchicalVAE((8, 8), latent_dims=(20, 5), hidden=((100, 100), (50,)))
        >>> x = vae.sample(3)
        >>> vae.features(x).shape
        torch.Size([3, 25])
        >>> vae.divergences(x).shape
        torch.Size([3, 2])
    """

    recipes = {
        "digits": {
            "model": {"latent_dims": (12, 6), "hidden": ((500,), (200,))},
            "objective": "elbo",
            "objective_arguments": {"warm_up": 2600},  # 100 epochs
            "fit": {"epochs": 200, "batch_size": 50, "lr": 1e-3, "schedule": "cosine"},
        },
        # The layers of the IWAE paper's network of two, and its widths.
        "mnist": {
            "model": {
                "latent_dims": (100, 50),
                "hidden": ((200, 200), (100, 100)),
                "activation": "tanh",
            },
            "objective": "elbo",
            "objective_arguments": {"warm_up": 45_000},  # 90 epochs
            "fit": {"epochs": 900, "batch_size": 100, "lr": 1e-3, "schedule": "cosine"},
            "particles": 5000,
        },
    }

    def __init__(
        self,
        event_shape: tuple[int, ...],
        latent_dims: tuple[int, ...] = (20, 10),
        *,
        posterior: Literal["ladder", "bottom-up"] = "ladder",
        hidden: tuple[int, ...] | tuple[tuple[int, ...], ...] = (200,),
        likelihood: Likelihood = "bernoulli",
        activation: Activation = "relu",
    ) -> None:
        dims = tuple(latent_dims)
        if not dims or min(dims) < 1:
            raise ValueError(f"latent_dims must hold one or more lengths of at least 1, got {dims}")
        if posterior not in ("ladder", "bottom-up"):
            raise ValueError(f"posterior must be one of ladder, bottom-up, got {posterior!r}")
        widths = tuple(hidden)
        if all(isinstance(width, int) for width in widths):
            widths = (widths,) * len(dims)
        if len(widths) != len(dims):
            raise ValueError(f"hidden must hold the widths of each of {len(dims)} layers, got {widths}")
        super().__init__(event_shape, dims[-1], likelihood)
        self.latent_dims = dims
        self.is_ladder = posterior == "ladder"
        self.encoders, self.decoders = nn.ModuleList(), nn.ModuleList()
        for layer, (dim, width) in enumerate(zip(dims, widths, strict=True)):
            shape = {"hidden": tuple(width), "activation": activation}
            below = event_shape if layer == 0 else (dims[layer - 1],)
            seen = (widths[layer - 1][-1],) if layer and self.is_ladder else below
            num_params = self.num_params if layer == 0 else 2
            self.encoders.append(Encoder(seen, 2 * dim, **shape))
            self.decoders.append(Decoder(dim, below, num_params=num_params, **shape))

    def conditional(self, layer: int, z: Tensor) -> dist.Distribution:
        """p(z_l | z_{l+1}) of a layer l from 1 to L - 1, for codes z of the layer above it."""
        loc, scale = self.decoders[layer](z)
        return dist.Normal(loc, softplus(scale) + MIN_SCALE).to_event(1)

    def emission(self, z: Tensor) -> dist.Distribution:
        """p(x | z_1), for codes of shape ``(..., latent_dims[0])``."""
        return self.likelihood(self.decoders[0](z))

    def model(self, x: Tensor | None = None, *, num: int = 1) -> Tensor:
        """p(z_L) … p(z_1 | z_2) p(x | z_1), for the items of ``x``, or ``num`` new ones where x is None."""
        pyro.module(self.name, self)
        with pyro.plate("data", num if x is None else len(x)):
            z = pyro.sample(f"z_{len(self.latent_dims)}", self.prior())
            for layer in self._downwards():
                z = pyro.sample(f"z_{layer}", self.conditional(layer, z))
            return pyro.sample("x", self.emission(z), obs=x)

    def guide(self, x: Tensor) -> None:
        """q(z | x), in the order of ``posterior``."""
        pyro.module(self.name, self)
        with pyro.plate("data", len(x)):
            self._draw(x, lambda layer, q: pyro.sample(f"z_{layer}", q))

    def _draw(self, x: Tensor, draw: Callable[[int, dist.Distribution], Tensor]) -> None:
        """Goes through the guide: gives ``draw`` each layer and its q, and goes on from what comes back."""
        if not self.is_ladder:
            for layer, encoder in enumerate(self.encoders, start=1):
                x = draw(layer, self.posterior(encoder(x)))
            return
        upward = []
        for encoder in self.encoders:
            x, features = encoder.with_hidden(x)
            upward.append(self.posterior(features))
        z = draw(len(upward), upward[-1])
        for layer in self._downwards():
            z = draw(layer, _product(upward[layer - 1], self.conditional(layer, z)))

    def _downwards(self) -> range:
        """The layers below the top."""
        return range(len(self.latent_dims) - 1, 0, -1)

    def _means(self, x: Tensor) -> list[dist.Distribution]:
        """The q of each layer, from the bottom to the top, where those before it are at their means."""
        found: dict[int, dist.Distribution] = {}

        def mean(layer: int, q: dist.Distribution) -> Tensor:
            found[layer] = q
            return q.mean

        self._draw(x, mean)
        return [found[layer] for layer in sorted(found)]

    def encode(self, x: Tensor) -> dist.Distribution:
        """The q of the top layer z_L; in the bottom-up guide, given the means of the layers below."""
        return self._means(x)[-1]

    def decode(self, z: Tensor) -> dist.Distribution:
        """p(x | z_1) for codes z_L of the top layer, ``(..., latent_dims[-1])``: what the top layer says.

        Each layer between is at its mean under the one above it.
        """
        for layer in self._downwards():
            z = self.conditional(layer, z).mean
        return self.emission(z)

    @torch.no_grad()
    def divergences(self, x: Tensor, *, num_draws: int = 1) -> Tensor:
        """The divergence of each layer from its prior, in nats: what it tells of an item.

        E_q[log q(z_l | ·) - log p(z_l | z_{l+1})], whose sum over the layers is that of q(z | x) from p(z).
        Over z_l itself it is exact, but in the bottom-up guide's layers below the top, which the one above is
        drawn from; over the others it is a mean of draws.

        Args:
            x: Items, shape ``(batch, *event_shape)``.
            num_draws: Draws from the guide for each item, at least 1.

        Returns:
            Tensor of shape ``(batch, L)``, from the bottom to the top.

        Raises:
            ValueError: If ``num_draws`` is below 1.
        """
        if num_draws < 1:
            raise ValueError(f"num_draws must be at least 1, got {num_draws}")
        drawn: dict[int, tuple[dist.Distribution, Tensor]] = {}

        def sample(layer: int, q: dist.Distribution) -> Tensor:
            drawn[layer] = q, q.sample(() if drawn else (num_draws,))
            return drawn[layer][1]

        self._draw(x, sample)
        top = len(self.latent_dims)
        priors = [self.conditional(layer, drawn[layer + 1][1]) for layer in range(1, top)] + [self.prior()]
        columns = []
        for layer, p in enumerate(priors, start=1):
            q, z = drawn[layer]
            exact = self.is_ladder or layer == top
            column = kl_divergence(q, p) if exact else q.log_prob(z) - p.log_prob(z)
            columns.append(column.expand(num_draws, len(x)).mean(0))
        return torch.stack(columns, dim=-1)

    def _sample(self, num: int) -> Tensor:
        z = self.prior().sample((num,))
        for layer in self._downwards():
            z = self.conditional(layer, z).sample()
        return self.emission(z).sample()

    @torch.no_grad()
    def features(self, x: Tensor) -> Tensor:
        """Means of all the codes, from the bottom to the top, shape ``(batch, sum of latent_dims)``.

        That of each layer is under q given the means of those before it.
        """
        return torch.cat([q.mean for q in self._means(x)], dim=-1)

    @torch.no_grad()
    def reconstruct(self, x: Tensor) -> Tensor:
        """Mean of p(x | z_1) at the mean of z_1 that `features` holds."""
        return self.emission(self._means(x)[0].mean).mean


def _product(one: dist.Distribution, other: dist.Distribution) -> dist.Distribution:
    """The Gaussian whose density is the product of two, but for a factor."""
    a, b = one.base_dist, other.base_dist
    length = torch.hypot(a.scale, b.scale)  # of precisions, the inverse of a small scale may have no number
    loc = torch.lerp(b.loc, a.loc, (b.scale / length).square())
    return dist.Normal(loc, a.scale * b.scale / length).to_event(1)
