"""Generator of a generative adversarial network.

A standard Gaussian code, and a network that turns it into an item:

    z ~ N(0, I),    x = g(z).

x is a deterministic function of z, of fewer dimensions as a rule: no density, and nothing to maximise. What
it learns from is a second network that tells its draws from real items, which belongs to the training.

References:
    | Generative Adversarial Nets (Goodfellow et al., 2014), section 3
    | https://arxiv.org/abs/1406.2661
    | Estimating or Propagating Gradients Through Stochastic Neurons for Conditional Computation (Bengio,
      Léonard & Courville, 2013), section 4: the straight-through gradient
"""

from typing import Literal

import pyro
import pyro.distributions as dist
import torch
from pyro.distributions import constraints
from torch import Tensor

from zoo.latent.networks import Activation, Decoder, Network
from zoo.model import GenerativeModel


class GAN(GenerativeModel):
    """Gaussian code and a network from it to an item, without a likelihood.

    Args:
        event_shape: Shape of one item, for instance ``(28, 28)``.
        latent_dim: Length of the code z, at least 1.
        hidden: Widths of the hidden layers, the last the one next to the code (channels for ``"conv"``), as
            the encoder of a `VAE` has them.
        output: ``"binary"`` for entries 0 or 1: g's logits, cut at 0. The cut has no gradient, and that of σ
            takes its place. ``"real"`` for real entries, as g gives them.
        network: ``"mlp"`` or ``"conv"``.
        activation: Of the hidden layers: ``"relu"``, ``"silu"`` or ``"tanh"``.

    Raises:
        ValueError: If an argument is none of the above.

    Example:
        >>> gan = GAN((8, 8), latent_dim=10)
        >>> gan.sample(3).shape, gan.g(torch.zeros(2, 10)).shape
        (torch.Size([3, 8, 8]), torch.Size([2, 8, 8]))
    """

    density = "none"
    recipes = {
        "digits": {
            "model": {"latent_dim": 20, "hidden": (200, 200), "output": "binary"},
            "objective": "adversarial",
            "objective_arguments": {"gradient_penalty": 0.1},
            "fit": {"epochs": 300, "batch_size": 100, "lr": 1e-3, "betas": (0.5, 0.99), "schedule": "cosine"},
        },
    }

    def __init__(
        self,
        event_shape: tuple[int, ...],
        latent_dim: int = 20,
        hidden: tuple[int, ...] = (200, 200),
        *,
        output: Literal["binary", "real"] = "binary",
        network: Network = "mlp",
        activation: Activation = "relu",
    ) -> None:
        super().__init__(event_shape)
        if latent_dim < 1:
            raise ValueError(f"latent_dim must be at least 1, got {latent_dim}")
        if output not in ("binary", "real"):
            raise ValueError(f"output must be one of binary, real, got {output!r}")
        self.support = constraints.boolean if output == "binary" else constraints.real
        self.latent_dim = latent_dim
        self.is_binary = output == "binary"
        self.generator = Decoder(
            latent_dim, self.event_shape, num_params=1, network=network, hidden=hidden, activation=activation
        )
        self.register_buffer("prior_loc", torch.zeros(latent_dim), persistent=False)
        self.register_buffer("prior_scale", torch.ones(latent_dim), persistent=False)

    def prior(self) -> dist.Distribution:
        """p(z) = N(z | 0, I)."""
        return dist.Normal(self.prior_loc, self.prior_scale).to_event(1)

    def g(self, z: Tensor) -> Tensor:
        """From codes ``(..., latent_dim)`` to items ``(..., *event_shape)``, with gradient."""
        x = self.generator(z).squeeze(0)
        if not self.is_binary:
            return x
        soft = x.sigmoid()
        return (x > 0).to(x.dtype) + (soft - soft.detach())  # the second is 0, and has the gradient

    def model(self, x: Tensor | None = None, *, num: int = 1) -> Tensor:
        """Draws ``num`` items.

        Raises:
            ValueError: If it is given items: it has no likelihood of them.
        """
        if x is not None:
            raise ValueError(
                f"{type(self).__name__} has no likelihood, and cannot observe items: call it with num=…, and "
                "train it with inference.Adversarial"
            )
        pyro.module(self.name, self)
        with pyro.plate("data", num):
            z = pyro.sample("z", self.prior())
            return pyro.deterministic("x", self.g(z), event_dim=len(self.event_shape))

    def _sample(self, num: int) -> Tensor:
        return self.g(self.prior().sample((num,)))
