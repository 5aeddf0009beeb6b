"""Supervised variational autoencoder: a label chooses what is drawn, a code how it is drawn.

    p(y) = Cat(1/C),    p(z) = N(z | 0, I),    p(x | y, z) = ∏_i p(x_i | g(y, z)_i),
    q(y | x) = Cat(π(x)),    q(z | x, y) = N(z | μ(x, y), diag σ²(x, y)).

Labels may be missing for some items or for all; the ELBO then sums y out exactly, by parallel enumeration.
The ELBO of a labelled item does not involve q(y | x): a cross-entropy term trains it
(`inference.SupervisedELBO`).

References:
    | Semi-Supervised Learning with Deep Generative Models (Kingma et al., 2014), model M2, equations 6 to 9
    | https://arxiv.org/abs/1406.5298
"""

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor
from torch.nn.functional import one_hot

from zoo.latent.autoencoder import Autoencoder, Likelihood
from zoo.latent.networks import Activation, Decoder, Encoder, Network
from zoo.model import MISSING, check_labels

_CERTAIN = 1e4  # a logit so large that exp(-_CERTAIN) is 0 in every float type


class SupervisedVAE(Autoencoder):
    """VAE with a label: generation by label, classification, and learning from partly labelled data.

    Args:
        event_shape: Shape of one item, for instance ``(28, 28)``.
        num_classes: Number of labels, at least 2.
        latent_dim: Length of the code z, at least 1.
        hidden: Widths of the hidden layers (channels for ``"conv"``); the decoder mirrors them.
        likelihood: ``"bernoulli"`` or ``"gaussian"``.
        network: ``"mlp"`` or ``"conv"``, for the encoders of y and z and for the decoder.
        activation: ``"relu"``, ``"silu"`` or ``"tanh"``.
        dropout: Share of the hidden units of q(y | x) that are dropped while training.

    Raises:
        ValueError: If an argument is none of the above.

    Example:
        >>> vae = SupervisedVAE((8, 8), num_classes=10)
        >>> sevens = vae.sample(3, y=7)
        >>> vae.classify(sevens).shape
        torch.Size([3, 10])
    """

    recipes = {
        "digits": {
            "model": {"latent_dim": 10, "hidden": (64, 128), "network": "conv", "dropout": 0.4},
            "objective": "supervised-elbo",
            "fit": {"epochs": 80, "batch_size": 50, "lr": 1e-3, "schedule": "cosine"},
        },
    }

    def __init__(
        self,
        event_shape: tuple[int, ...],
        num_classes: int = 10,
        latent_dim: int = 10,
        *,
        hidden: tuple[int, ...] = (200,),
        likelihood: Likelihood = "bernoulli",
        network: Network = "mlp",
        activation: Activation = "relu",
        dropout: float = 0.0,
    ) -> None:
        super().__init__(event_shape, latent_dim, likelihood)
        if num_classes < 2:
            raise ValueError(f"num_classes must be at least 2, got {num_classes}")
        self.num_classes = num_classes
        shape = {"network": network, "hidden": tuple(hidden), "activation": activation}
        self.classify = Encoder(event_shape, num_classes, dropout=dropout, **shape)
        self.encoder = Encoder(event_shape, 2 * latent_dim, condition_dim=num_classes, **shape)
        self.decoder = Decoder(
            latent_dim, event_shape, num_params=self.num_params, condition_dim=num_classes, **shape
        )

    def label_prior(self) -> dist.Distribution:
        """p(y)."""
        return dist.Categorical(logits=self.prior_loc.new_zeros(self.num_classes))

    def encode(self, x: Tensor, y: Tensor) -> dist.Distribution:
        """q(z | x, y), for items ``(..., *event_shape)`` and labels ``(...)``."""
        return self.posterior(self.encoder(x, self._one_hot(y)))

    def decode(self, z: Tensor, y: Tensor) -> dist.Distribution:
        """p(x | y, z), for codes ``(..., latent_dim)`` and labels ``(...)``."""
        return self.likelihood(self.decoder(z, self._one_hot(y)))

    def model(self, x: Tensor | None = None, y: Tensor | None = None, *, num: int = 1) -> Tensor:
        """p(y) p(z) p(x | y, z).

        Args:
            x: Items to observe, ``(batch, *event_shape)``; None draws new ones.
            y: Labels to observe, ``(batch,)``, -1 where missing; None where all are missing.
            num: How many to draw where both are None.
        """
        pyro.module(self.name, self)
        given = x if x is not None else y
        with pyro.plate("data", num if given is None else len(given)):
            if y is not None and (y == MISSING).any():
                known = y != MISSING
                prior = self.label_prior()
                y = pyro.sample("y", dist.Categorical(logits=self._certain(y, prior.logits)))
                pyro.factor("known_labels", known * prior.logits[0])
            else:
                y = pyro.sample("y", self.label_prior(), obs=y)
            z = pyro.sample("z", self.prior())
            return pyro.sample("x", self.decode(z, y), obs=x)

    def guide(self, x: Tensor, y: Tensor | None = None) -> None:
        """q(y | x) q(z | x, y); the site y is there where a label is missing, certain where one is known."""
        pyro.module(self.name, self)
        with pyro.plate("data", len(x)):
            if y is None or (y == MISSING).any():
                logits = self.classify(x)
                if y is not None:
                    logits = self._certain(y, logits)
                y = pyro.sample("y", dist.Categorical(logits=logits), infer={"enumerate": "parallel"})
            pyro.sample("z", self.encode(x, y))

    def _sample(self, num: int, y: Tensor | int | None = None) -> Tensor:
        if y is None:
            y = self.label_prior().sample((num,))
        y = torch.as_tensor(y, device=self.prior_loc.device)
        y = y.expand(num) if y.dim() == 0 else y
        check_labels(y, num, self.num_classes)
        return self.decode(self.prior().sample((num,)), y).sample()

    @torch.no_grad()
    def features(self, x: Tensor) -> Tensor:
        """q(y | x) and the mean of q(z | x, y) at the likeliest y, ``(batch, num_classes + latent_dim)``."""
        logits = self.classify(x)
        return torch.cat([logits.softmax(-1), self.encode(x, logits.argmax(-1)).mean], dim=-1)

    @torch.no_grad()
    def reconstruct(self, x: Tensor) -> Tensor:
        """Mean of p(x | y, z) at the likeliest label and the mean of its code."""
        y = self.classify(x).argmax(-1)
        return self.decode(self.encode(x, y).mean, y).mean

    def check(self, x: Tensor, y: Tensor | None = None) -> None:
        """As `GenerativeModel.check`; and labels must be ``(batch,)`` integers, -1 (missing) to C - 1."""
        super().check(x)
        if y is not None:
            check_labels(y, len(x), self.num_classes, lowest=MISSING)

    def _certain(self, y: Tensor, logits: Tensor) -> Tensor:
        """The logits where a label is missing, and where it is known, logits that leave no other."""
        known = (y != MISSING).unsqueeze(-1)
        return torch.where(known, _CERTAIN * self._one_hot(y.clamp(min=0)), logits)

    def _one_hot(self, y: Tensor) -> Tensor:
        return one_hot(y, self.num_classes).to(self.prior_loc.dtype)
