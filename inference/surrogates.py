"""Values whose gradient is an estimator of its own, for objectives that draws alone do not differentiate."""

import math
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from inference.importance import Cut, Particles, check_structure
from inference.program import Structure

Gradient = Literal["reparameterized", "score-function", "baseline", "leave-one-out", "enumerated"]
"""The gradients of the `inference.ELBO`."""

BY_SCORE = ("score-function", "baseline", "leave-one-out")
"""Those by the log-derivative of the guide."""


def refuse_gradient(gradient: Gradient, structure: Structure, drawn: dict[str, Any]) -> None:
    """Refuses a gradient that programs cannot take, with the list of those that they can.

    Args:
        gradient: The one that is asked for.
        structure: What a run of the programs showed.
        drawn: The sites of the guide.

    Raises:
        ValueError: If they cannot take it.
    """
    latent = {name: site["fn"] for name, site in drawn.items() if not site["is_observed"]}
    fixed = [name for name, fn in latent.items() if not fn.has_rsample] + list(structure.summed_out)
    uncounted = [name for name, fn in latent.items() if not fn.has_enumerate_support]
    reasons: dict[str, str] = {}
    if fixed:
        reasons["reparameterized"] = f"expects sites that can be reparameterised, and {fixed[0]} cannot"
    if uncounted:
        reasons["enumerated"] = f"expects sites that can be enumerated, and {uncounted[0]} cannot"
    try:
        check_structure(structure)
    except ValueError as error:
        reasons |= dict.fromkeys(BY_SCORE, f"needs a figure for each item, and {error}")
    if gradient in reasons:
        possible = [f'"{name}"' for name in get_args(Gradient) if name not in reasons]
        raise ValueError(
            f'gradient="{gradient}" {reasons[gradient]}; these programs can take '
            f"{', '.join(possible) or 'none of them, but gradient=None'}"
        )


def with_gradient(value: Tensor, surrogate: Tensor) -> Tensor:
    """The value of one, the gradient of the other."""
    return value.detach() + (surrogate - surrogate.detach())


def score_function_bound(particles: Particles, baseline: Tensor | float = 0.0) -> Tensor:
    """The evidence lower bound, a mean over items and particles, with its score-function gradient.

    For each item and particle, with f = log p(x, z) - log q(z | x) and z held,

        ∇ = (f - baseline) ∇ log q(z | x) + ∇ f.

    An item's score meets its own f alone: that of the others has no part in its mean, only in its variance.

    Args:
        particles: Drawn through a `Cut`.
        baseline: What f is held against, independent of the draw: a number, or ``(num_particles, batch)``.
    """
    f = particles.log_p - particles.log_q
    return with_gradient(f, (f - baseline).detach() * particles.score + f).mean()


def mean_of_the_others(values: Tensor) -> Tensor:
    """For each of the particles, the first dimension, the mean over all the others."""
    return (values.sum(0) - values) / (len(values) - 1)


def log_mean_weight(particles: Particles) -> Tensor:
    """The importance-weighted bound of each item, shape ``(batch,)``, in nats."""
    weights = particles.log_p - particles.log_q
    return weights.logsumexp(0) - math.log(len(weights))


def doubly_reparameterized_bound(particles: Particles, cut: Cut) -> Tensor:
    """The importance-weighted bound, a mean over the items, with its doubly reparameterised gradient.

    With w~_k = w_k / Σ_j w_j held,

        ∇ = Σ_k w~_k ∂(log w_k + log q)/∂λ + w~_k² ∂log w_k/∂z_k dz_k/dλ.

    The first term holds z, and what remains of λ there is the model's. The second replaces both the path
    through z and the score, which hold for any λ: parameters that guide and model share come out right.

    Args:
        particles: Drawn through ``cut``.
        cut: Its leaves are the z_k at which the weights were computed.
    """
    log_w = particles.log_p - particles.log_q
    bound = log_mean_weight(particles).mean()
    if not log_w.requires_grad:
        return bound
    shares = log_w.detach().softmax(0)
    surrogate = (shares * (log_w + particles.score)).sum(0).mean()
    pairs = [(value, leaf) for value, leaf in cut.pairs.values() if leaf.requires_grad]
    if pairs:
        weighted = (shares.square() * log_w).sum(0).mean()
        adjoints = _vector_jacobian(weighted, None, [leaf for _, leaf in pairs])
        # A later site was drawn by the leaves of those before: back through them, from the last to the first.
        for place in reversed(range(len(pairs))):
            value, adjoint = pairs[place][0], adjoints[place]
            earlier = [leaf for _, leaf in pairs[:place]]
            if earlier:
                through = _vector_jacobian(value, adjoint, earlier)
                adjoints[:place] = [a + b for a, b in zip(adjoints, through, strict=False)]
            surrogate = surrogate + (adjoint * value).sum()
    return with_gradient(bound, surrogate)


def _vector_jacobian(output: Tensor, adjoint: Tensor | None, inputs: list[Tensor]) -> list[Tensor]:
    if not output.requires_grad:
        return [torch.zeros_like(leaf) for leaf in inputs]
    grads = torch.autograd.grad(output, inputs, adjoint, retain_graph=True, allow_unused=True)
    return [torch.zeros_like(x) if g is None else g for x, g in zip(inputs, grads, strict=True)]
