"""Importance weights of a model against its guide, for each item of a batch."""

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import pyro
import torch
from pyro.distributions import Delta
from pyro.distributions.util import scale_and_mask
from pyro.poutine.messenger import Messenger
from pyro.poutine.util import site_is_subsample
from torch import Tensor

from inference.program import Program, Structure, can_be_reparameterized, check_counts

NOT_REPARAMETERIZED = "the importance-weighted objective expects latent sites that can all be reparameterised"


def log_weights(
    model: Any,
    *args: Tensor,
    guide: Callable[..., Any] | None = None,
    num_particles: int,
    reparameterized: bool = False,
) -> Tensor:
    """Draws particles from the guide and weighs them: log w_k = log p(x, z_k) - log q(z_k | x).

    The programs are run once, with the particles as an extra plate on the left of their own.

    Args:
        model: An object with ``.model`` and ``.guide``, a Pyro program, or an objective over them.
        *args: The batch: ``x`` of shape ``(batch, *event_shape)``, and what else the programs take.
        guide: The guide, where ``model`` is a program.
        num_particles: K, at least 1.
        reparameterized: Whether to refuse a guide whose draws carry no gradient.

    Returns:
        Tensor of shape ``(num_particles, batch)``, in nats; the gradient passes through reparameterised
        sites.

    Raises:
        ValueError: If a site lies outside the plate over the batch, or a latent one is missing in the guide:
            weights for each item do not exist then.

    Example:
        >>> import pyro.distributions as dist
        >>> def model(x):
        ...     with pyro.plate("data", len(x)):
        ...         z = pyro.sample("z", dist.Normal(0., 1.))
        ...         pyro.sample("x", dist.Normal(z, 1.), obs=x)
        >>> def posterior(x):
        ...     with pyro.plate("data", len(x)):
        ...         pyro.sample("z", dist.Normal(x / 2, 0.5**0.5))
        >>> x = torch.tensor([-1., 0., 2.])
        >>> weights = log_weights(model, x, guide=posterior, num_particles=5)
        >>> torch.allclose(weights, dist.Normal(0., 2**0.5).log_prob(x).expand(5, 3))
        True
    """
    check_counts(num_particles=num_particles)
    program = Program.of(model, guide)
    drawn = draw_particles(program, args, num_particles, reparameterized=reparameterized)
    return drawn.log_p - drawn.log_q


@dataclass(frozen=True)
class Particles:
    """Draws from the guide for each item; tensors of shape ``(num_particles, batch)``, in nats.

    Attributes:
        log_p: log p(x, z_k).
        log_q: log q(z_k | x).
        score: Of that, what the drawn sites have, without scale and mask: E[∇ score] = 0.
    """

    log_p: Tensor
    log_q: Tensor
    score: Tensor


class Cut(Messenger):
    """Cuts every value, at the draw, from the parameters that it was drawn by.

    What is drawn later sees the leaf that takes its place. A point mass has no score to be learnt by: its
    value, a function of parameters and of what was drawn before, stays one.

    Attributes:
        pairs: The values as they were drawn, and the leaves, by the names of the sites and in their order.
    """

    def __init__(self) -> None:
        super().__init__()
        self.pairs: dict[str, tuple[Tensor, Tensor]] = {}

    def _pyro_post_sample(self, msg: Any) -> None:
        if msg["is_observed"] or site_is_subsample(msg) or is_point_mass(msg["fn"]):
            return
        value = msg["value"]
        # A new tensor, not one drawn without gradient: a transform that remembers its last call would give
        # the score of a value that moves along with the parameters.
        leaf = value.detach().requires_grad_(value.requires_grad)
        self.pairs[msg["name"]] = value, leaf
        msg["value"] = leaf


def draw_particles(
    program: Program,
    args: tuple[Tensor, ...],
    num_particles: int,
    *,
    cut: Cut | None = None,
    reparameterized: bool = False,
) -> Particles:
    """Draws particles from the guide and scores them, each program run once.

    Args:
        program: The pair of programs.
        args: What they are called with.
        num_particles: K.
        cut: Cuts the values from their parameters and keeps them; without it, the gradient passes.
        reparameterized: Whether to refuse a guide whose draws carry no gradient.

    Raises:
        ValueError: If a site lies outside the plate over the batch, or a latent one is missing in the guide.
    """
    structure = program.structure or program.prepare(args)
    check_structure(structure)
    particles = pyro.plate("_particles", num_particles, dim=-1 - structure.plate_nesting)
    with program.scope():
        with cut or nullcontext():  # outside of what records the sites, so that it records the leaves
            drawn = program.run(particles(program.guide), args)
        if reparameterized and not can_be_reparameterized(drawn):
            raise ValueError(NOT_REPARAMETERIZED)
        sites = program.run(particles(program.model), args, drawn=drawn)
    totals = {"log_p": torch.zeros(()), "log_q": torch.zeros(()), "score": torch.zeros(())}
    for name, part in (("log_p", sites), ("log_q", drawn)):
        for site in part.values():
            value = unscaled_log_prob(site)
            scaled = scale_and_mask(value, site["scale"], site["mask"])
            totals[name] = totals[name] + _per_item(scaled, structure)
            if name == "log_q" and is_drawn(site):
                totals["score"] = totals["score"] + _per_item(value, structure)
    shape = num_particles, len(args[0])
    return Particles(**{name: total.expand(shape) for name, total in totals.items()})


def is_point_mass(distribution: Any) -> bool:
    """Whether it is a `Delta` beneath what independence and masks put around it."""
    while hasattr(distribution, "base_dist"):
        distribution = distribution.base_dist
    return isinstance(distribution, Delta)


def is_drawn(site: dict[str, Any]) -> bool:
    """Whether chance had a part in a site's value: neither an observation nor a point mass."""
    return not site["is_observed"] and not is_point_mass(site["fn"])


def unscaled_log_prob(site: dict[str, Any]) -> Tensor:
    """Log-probability of a site's value over its plates, without scale and mask."""
    return site["fn"].log_prob(site["value"], *site["args"], **site["kwargs"])


def check_structure(structure: Structure) -> None:
    """Refuses programs without a weight for each item.

    Raises:
        ValueError: If a site lies outside the plate over the batch, or the guide lacks a latent one.
    """
    if structure.loose or structure.data_dim is None:
        raise ValueError(
            "weights for each item expect every site inside one full pyro.plate over the batch; outside it: "
            f"{', '.join(structure.loose) or 'all of them'}"
        )
    if structure.unguided or structure.summed_out:
        raise ValueError(
            "weights for each item expect every latent site of the model in its guide; missing there: "
            f"{', '.join((*structure.unguided, *structure.summed_out))}"
        )


def _per_item(log_prob: Tensor, structure: Structure) -> Tensor:
    """Sums a site's log-probability over every plate but those of the particles and the data."""
    nesting = structure.plate_nesting
    log_prob = log_prob.reshape((1,) * (nesting + 1 - log_prob.dim()) + log_prob.shape)
    others = [dim for dim in range(-nesting, 0) if dim != structure.data_dim]
    return log_prob.sum(others) if others else log_prob
