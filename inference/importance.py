"""Importance weights of a model against its guide, for each item of a batch."""

from collections.abc import Callable
from typing import Any

import pyro
import torch
from torch import Tensor

from inference.program import Program, Structure, can_be_reparameterized, log_prob

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
    if num_particles < 1:
        raise ValueError(f"num_particles must be at least 1, got {num_particles}")
    program = Program.of(model, guide)
    structure = program.structure or program.prepare(args)
    check_structure(structure)
    particles = pyro.plate("_particles", num_particles, dim=-1 - structure.plate_nesting)
    with program.scope():
        drawn = program.run(particles(program.guide), args)
        if reparameterized and not can_be_reparameterized(drawn):
            raise ValueError(NOT_REPARAMETERIZED)
        sites = program.run(particles(program.model), args, drawn=drawn)
    total: Tensor | float = 0.0
    for part, sign in ((sites, 1), (drawn, -1)):
        for site in part.values():
            total = total + sign * _per_item(log_prob(site), structure.data_dim, structure.plate_nesting)
    return torch.as_tensor(total).expand(num_particles, len(args[0]))


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


def _per_item(log_prob: Tensor, data_dim: int, plate_nesting: int) -> Tensor:
    """Sums a site's log-probability over every plate but those of the particles and the data."""
    log_prob = log_prob.reshape((1,) * (plate_nesting + 1 - log_prob.dim()) + log_prob.shape)
    others = [dim for dim in range(-plate_nesting, 0) if dim != data_dim]
    return log_prob.sum(others) if others else log_prob
