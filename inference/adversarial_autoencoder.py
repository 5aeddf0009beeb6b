"""The adversarial autoencoder: codes matched to the prior by a discriminator that tells them apart."""

import math
from collections.abc import Callable
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus
from typing_extensions import override

from inference.adversarial import GUESS, SETTLED, WON
from inference.aggregate_posterior import AggregatePosterior
from inference.discriminator import Discriminator
from inference.program import Batch, Structure, check_counts, forked_rng, restored_modes

Loss = Literal["non-saturating", "minimax"]


class AdversarialAutoencoder(AggregatePosterior):
    """Reconstruction, and the aggregate posterior matched to the prior against a discriminator of codes.

    With D a logit, z' from the prior, z from the guide, the discriminator lowers its cross-entropy, in nats,

        -E_p(z') log σ(D(z')) - E_q(z) log(1 - σ(D(z))),    q(z) = 1/n Σ_i q(z | x_i),

    and the autoencoder, model and guide, lowers E_q(z | x)[-log p(x | z)] + λ G, in nats per item, with

    ``"non-saturating"``: G = -E_q(z) log σ(D(z)), whose gradient does not vanish where D is sure.

    ``"minimax"``: G = E_q(z) log(1 - σ(D(z))); at the best D this lowers 2 λ JS(q(z), p(z)).

    `inference.fit` moves both in turn. Its history has the autoencoder's loss as ``train``, the
    discriminator's under its name, ``accuracy`` (the share of codes told apart), and as ``valid`` the
    reconstruction plus λ times the Jensen-Shannon divergence as the discriminator sees it. None of them is a
    bound of the likelihood. Nothing keeps q(z | x) wide, so that a likelihood by importance sampling with
    such a guide is a bound, and may be a loose one.

    Args:
        model: An object with ``.model`` and ``.guide``, or a Pyro program.
        guide: The guide, deterministic or not, where ``model`` is a program.
        site: Name of the latent site that is the code.
        weight: λ.
        discriminator: A module from codes ``(batch, d)`` to one number each; None is a `Discriminator`, made
            in `prepare` in the codes' type.
        loss: One of the above.
        gradient_penalty: γ of γ/2 E ‖∇D(z')‖² at the prior's codes, which the discriminator pays; 0 has none.

    Raises:
        ValueError: If an argument is none of the above; at the first batch, if the code is no latent site
            with a value for each item, or a latent site cannot be drawn with a gradient.

    References:
        | Adversarial Autoencoders (Makhzani, Shlens, Jaitly, Goodfellow & Frey, 2016), section 2
        | https://arxiv.org/abs/1511.05644
        | Generative Adversarial Nets (Goodfellow et al., 2014), theorem 1
        | Which Training Methods for GANs do actually Converge? (Mescheder, Geiger & Nowozin, 2018),
          equation 9: the penalty

    Example:
        >>> import inference, zoo
        >>> data = zoo.load("digits")
        >>> aae = AdversarialAutoencoder(zoo.VAE(data.event_shape, latent_dim=2))
        >>> result = inference.fit(aae, data.train, epochs=2, progress=False)
        >>> list(result.history[1])
        ['epoch', 'train', 'discriminator', 'accuracy', 'lr']
    """

    players = ("discriminator", "autoencoder")

    def __init__(
        self,
        model: Any,
        guide: Callable[..., Any] | None = None,
        *,
        site: str = "z",
        weight: float = 1.0,
        discriminator: nn.Module | None = None,
        loss: Loss = "non-saturating",
        gradient_penalty: float = 0.0,
    ) -> None:
        super().__init__(model, guide, site=site, weight=weight)
        if loss not in get_args(Loss):
            raise ValueError(f"loss must be one of {', '.join(get_args(Loss))}, got {loss!r}")
        if not 0 <= gradient_penalty < math.inf:
            raise ValueError(f"gradient_penalty must be a number of at least 0, got {gradient_penalty}")
        if discriminator is not None and not isinstance(discriminator, nn.Module):
            raise ValueError(f"discriminator must be a module, got {type(discriminator).__name__}")
        self.loss = loss
        self.gradient_penalty = gradient_penalty
        self.discriminator = discriminator
        self._told: list[Tensor] = []

    @override
    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, loss={self.loss}, gradient_penalty={self.gradient_penalty:g}"

    @override
    def prepare(self, batch: Batch) -> Structure:
        structure = super().prepare(batch)
        with forked_rng(), torch.no_grad():
            codes = self.encoded_codes(batch)
        if self.discriminator is None:
            self.discriminator = Discriminator(codes.shape[1:]).to(codes)
        with torch.no_grad():
            self._score(codes)
        return structure

    @override
    def parameters_of(self, player: str) -> list[nn.Parameter]:
        if player == "autoencoder":
            return list(self.program.parameters())
        if player != "discriminator":
            raise ValueError(f"player must be one of {', '.join(self.players)}, got {player!r}")
        return [] if self.discriminator is None else list(self.discriminator.parameters())

    @override
    def forward(self, batch: Batch, player: str | None = None) -> Tensor:
        """The loss of a player, or what validation shows."""
        if self.program.structure is None:
            self.prepare(batch)
        if player == "discriminator":
            return self._discriminator_loss(batch)
        codes = self.codes(batch)
        score = self._score(codes.encoded)
        if player is None:
            value = softplus(-self._score(codes.prior)).mean() + softplus(score).mean()
            return codes.reconstruction + self.weight * (math.log(2) - value / 2)
        if player != "autoencoder":
            raise ValueError(f"player must be None or one of {', '.join(self.players)}, got {player!r}")
        matched = -softplus(score) if self.loss == "minimax" else softplus(-score)
        return codes.reconstruction + self.weight * matched.mean()

    @torch.no_grad()
    def divergence(self, batch: Batch, *, draws_per_item: int = 1, seed: int = 0) -> float:
        """Estimates how far the codes of items are from the prior, by the discriminator as it is.

            log 2 + ½ (E log σ(D(z')) + E log(1 - σ(D(z)))) ≤ JS(q(z), p(z)),    in nats,

        with equality at D = log p(z) / q(z).

        Args:
            batch: Items, as `fit` takes them.
            draws_per_item: Draws for each, at least 1.
            seed: Of the draws; torch's generators are left as they were.

        Raises:
            ValueError: If the items do not suit the program, or ``draws_per_item`` is below 1.
        """
        check_counts(draws_per_item=draws_per_item)
        self.check(batch)
        if self.program.structure is None:
            self.prepare(batch)
        with forked_rng(), restored_modes(self):
            torch.manual_seed(seed)
            self.eval()
            values = [
                softplus(-self._score(self.prior_codes(batch)).double()).mean()
                + softplus(self._score(self.encoded_codes(batch)).double()).mean()
                for _ in range(draws_per_item)
            ]
        return math.log(2) - torch.stack(values).mean().item() / 2

    @override
    def monitor(self) -> dict[str, float]:
        told, self._told = self._told, []
        return {"accuracy": torch.stack(told).mean().item()} if told else {}

    @override
    def notes(self, row: dict[str, float]) -> list[str]:
        found, loss = [], row["discriminator"]
        accuracy, epoch = row.get("accuracy", 0.0), f"in epoch {row['epoch']}"
        if self.steps.item() >= SETTLED and accuracy > WON[0]:
            found.append(
                f"the discriminator has won: {epoch} it tells {accuracy:.1%} of the codes from the prior's, "
                f"at a loss of {loss:.2g} nats, so that draws are decoded from where no item is; more weight "
                "or gradient_penalty, or a lower lr of the discriminator, may help"
            )
        if loss > 2 * GUESS:
            found.append(
                f"the discriminator has diverged: {epoch} its loss is {loss:.3g} nats, where a guess costs "
                f"{GUESS:.3f}; a lower lr, or more gradient_penalty, may help"
            )
        return found

    def _discriminator_loss(self, batch: Batch) -> Tensor:
        learns = torch.is_grad_enabled()
        with torch.no_grad():
            encoded, prior = self.encoded_codes(batch), self.prior_codes(batch)
        penalized = bool(self.gradient_penalty) and learns
        real, fake = self._score(prior.requires_grad_(penalized)), self._score(encoded)
        value = softplus(-real).mean() + softplus(fake).mean()
        if learns and self.training:
            self._told.append((torch.cat([real, -fake]).detach().sign().mean() + 1) / 2)
        if not penalized:
            return value
        (slope,) = torch.autograd.grad(real.sum(), prior, create_graph=True)
        return value + self.gradient_penalty / 2 * slope.square().sum(1).mean()

    def _score(self, codes: Tensor) -> Tensor:
        assert self.discriminator is not None
        score = self.discriminator(codes)
        if score.numel() != len(codes):
            raise ValueError(
                f"discriminator must give one number for each of {len(codes)} codes, got {tuple(score.shape)}"
            )
        return score.reshape(len(codes))
