"""What matches the codes of all items together to the prior, instead of those of each: WAE and AAE."""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import torch
from pyro.poutine.messenger import Messenger
from torch import Tensor
from typing_extensions import override

from inference.objectives import Objective
from inference.program import (
    Batch,
    Structure,
    arguments,
    can_be_reparameterized,
    forked_rng,
    is_enumerated,
    log_prob,
)


@dataclass(frozen=True)
class Codes:
    """One pass over a batch.

    Attributes:
        reconstruction: What the items cost given their codes, in nats per item.
        encoded: A code of each item from the guide, ``(batch, d)``, with gradient.
        prior: As many from the model's own prior, ``(batch, d)``.
    """

    reconstruction: Tensor
    encoded: Tensor
    prior: Tensor


class AggregatePosterior(Objective):
    """An objective that compares q(z) = 1/n Σ_i q(z | x_i) with the prior p(z); a subclass says by what.

    The guide may be deterministic, a ``Delta`` around a network's output: the density of its code is not
    asked for. The cost of an item is -log p(x | z). Where the model has latent sites u beside the code, their
    cost is added: log q(u | x, z) - log p(u | z), as in an `inference.ELBO`.

    Args:
        model: An object with ``.model`` and ``.guide``, or a Pyro program.
        guide: The guide, where ``model`` is a program.
        site: Name of the latent site that is the code.
        weight: λ, what the discrepancy between q(z) and p(z) counts by.

    Raises:
        ValueError: If ``weight`` is not above 0; at the first batch, if the code is no latent site with a
            value for each item, or a latent site cannot be drawn with a gradient.
    """

    def __init__(
        self, model: Any, guide: Callable[..., Any] | None = None, *, site: str = "z", weight: float
    ) -> None:
        super().__init__(model, guide)
        if not 0 < weight < float("inf"):
            raise ValueError(f"weight must be a number above 0, got {weight}")
        self.site, self.weight = site, weight

    @override
    def extra_repr(self) -> str:
        return f"site={self.site}, weight={self.weight:g}"

    @override
    def prepare(self, batch: Batch) -> Structure:
        structure = super().prepare(batch)
        who = type(self).__name__
        if self.site not in structure.latent:
            known = ", ".join(structure.latent) or "none"
            raise ValueError(f"{who} expects site to be a latent site of the model, {known}, got {self.site}")
        if structure.unguided:
            raise ValueError(
                f"{who} expects a guide over every latent site, got none over {', '.join(structure.unguided)}"
            )
        if structure.data_dim is None or self.site in structure.loose:
            raise ValueError(
                f"{who} expects {self.site} inside the plate over the batch: a code for each item"
            )
        with forked_rng(), torch.no_grad(), self.program.scope():
            drawn = self.program.run(self.program.guide, arguments(batch))
        if (
            structure.summed_out
            or any(map(is_enumerated, drawn.values()))
            or not can_be_reparameterized(drawn)
        ):
            raise ValueError(
                f"{who} expects latent sites that are drawn with a gradient, got one that is summed out or "
                "cannot be reparameterised; use ELBO"
            )
        return structure

    def codes(self, batch: Batch) -> Codes:
        """Runs guide and model, and draws as many codes from the prior."""
        structure = self.program.structure or self.prepare(batch)
        args = arguments(batch)
        with self.program.scope():
            drawn = self.program.run(self.program.guide, args)
            sites = self.program.run(self.program.model, args, drawn=drawn)
            costs = [-log_prob(site).sum() for name, site in sites.items() if name != self.site]
            costs += [
                log_prob(site).sum()
                for name, site in drawn.items()
                if name != self.site and not site["is_observed"]
            ]
            cost = torch.stack(costs).sum() / (structure.population or len(args[0]))
            return Codes(cost, _rows(drawn[self.site], structure), self.prior_codes(batch))

    def encoded_codes(self, batch: Batch) -> Tensor:
        """A code of each item from the guide alone, ``(batch, d)``."""
        structure = self.program.structure or self.prepare(batch)
        with self.program.scope():
            return _rows(self.program.run(self.program.guide, arguments(batch))[self.site], structure)

    def prior_codes(self, batch: Batch) -> Tensor:
        """As many codes as there are items from the model's own prior, ``(batch, d)``."""
        structure = self.program.structure or self.prepare(batch)
        until = _Until(self.site)
        with self.program.scope(), suppress(_Enough), until:
            self.program.run(self.program.model, arguments(batch))
        return _rows(until.drawn, structure)


class _Enough(Exception):
    """Nothing more is wanted of a program."""


class _Until(Messenger):
    """Ends a program once a site is drawn: a prior code needs no decoder."""

    def __init__(self, site: str) -> None:
        super().__init__()
        self.site = site
        self.drawn: dict[str, Any] = {}

    def _pyro_post_sample(self, msg: Any) -> None:
        if msg["name"] == self.site:
            self.drawn = msg.copy()
            raise _Enough


def _rows(site: dict[str, Any], structure: Structure) -> Tensor:
    """A row for each item, whatever dimensions the site has beside that of the plate."""
    assert structure.data_dim is not None
    value = site["value"]
    items = value.movedim(value.dim() - site["fn"].event_dim + structure.data_dim, 0)
    return items.reshape(len(items), -1)
