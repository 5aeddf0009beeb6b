"""The components of a mixture have no names: one order for all draws, so that summaries mean something."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from inference.chains import Draws

MOST_ROUNDS = 20
"""Of matching all draws to the mean of those matched before."""


@torch.no_grad()
def relabel(draws: Draws, sites: Sequence[str], *, reference: Mapping[str, Tensor] | None = None) -> Draws:
    """Permutes the components of each draw to be those of a reference, as nearly as they can.

    A posterior that does not tell components apart has a mode for each of their K! orders. Chains that sit in
    different ones disagree, and one that goes from one to another has the same mean for each component: R-hat
    and means of components are then of no use. Each draw θ is given the order that is nearest to a reference,

    argmin over permutations τ of Σ_k ‖θ_τ(k) - θ⁰_k‖²,

    each entry of a component in units of its standard deviation over all draws and components, and a site's
    entries together weighing as much as another's. Then the mean of the draws in their new order is the
    reference, until nothing changes, 20 times at most. Whatever does not depend on the order stays the same.

    Args:
        draws: For instance of `nuts`.
        sites: Those that have the components as their first dimension, ``(chain, draw, K, *shape)``, as
            ``("weights", "loc", "scale")``.
        reference: Values ``(K, *shape)`` of each site to begin with, for instance those of a fit by EM, whose
            order the components then have; left out, the draw of lowest energy, which is that of highest
            density, or the first draw where there is no energy.

    Returns:
        The draws with those sites in order; other sites, the statistics and ``last`` are as they were.

    Raises:
        ValueError: If a site is unknown, has no components or not as many as another, or the reference is
            not of the sites' shapes.

    References:
        | Bayesian Modelling and Inference on Mixtures of Distributions (Marin, Mengersen & Robert, 2005),
          section 5.3: the pivot
        | Dealing with Label Switching in Mixture Models (Stephens, 2000), for the rounds

    Example:
        >>> loc = torch.tensor([[[-1., 1.], [-1.1, 1.2]], [[0.9, -0.8], [1.1, -1.]]])
        >>> draws = Draws({"loc": loc}, {}, {"loc": loc[:, -1]}, warmup=0, thin=1, seed=0)
        >>> relabel(draws, ["loc"]).samples["loc"][..., 0]
        tensor([[-1.0000, -1.1000],
                [-0.8000, -1.0000]])
    """
    if isinstance(sites, str) or not sites or any(name not in draws.samples for name in sites):
        came = sites if isinstance(sites, str) else ", ".join(map(str, sites)) or "none"
        raise ValueError(f"expected sites to be a list of some of {', '.join(draws.samples)}, got {came}")
    values = {name: draws.samples[name] for name in dict.fromkeys(sites)}
    numbers = {name: value.shape[2] if value.dim() > 2 else 0 for name, value in values.items()}
    if 0 in numbers.values() or len(set(numbers.values())) != 1:
        came = ", ".join(f"{number} of {name}" for name, number in numbers.items())
        raise ValueError(f"expected sites of as many components each, at least 1, got {came}")
    if reference is not None:
        _check_reference(reference, values)
    if draws.num_draws == 0:
        return draws
    for name, value in values.items():
        if not value.isfinite().all():
            raise ValueError(
                f"expected finite draws, got {int((~value.isfinite()).sum())} of {name} that are not"
            )

    # Components (num, K, entries) in units in which every site weighs the same.
    parts, pivot_parts = [], []
    for name, value in values.items():
        part = value.double().flatten(0, 1).reshape(value.shape[:2].numel(), numbers[name], -1)
        unit = part.flatten(0, 1).std(0, correction=0)
        unit = torch.where(unit > 0, unit, 1) * part.shape[-1] ** 0.5
        parts.append(part / unit)
        if reference is not None:
            pivot_parts.append(torch.as_tensor(reference[name]).to(part).reshape(numbers[name], -1) / unit)
    components = torch.cat(parts, -1)
    if reference is not None:
        target = torch.cat(pivot_parts, -1)
    elif "energy" in draws.stats:
        target = components[draws.stats["energy"].flatten().nan_to_num(nan=torch.inf).argmin()]
    else:
        target = components[0]
    order: Tensor | None = None
    for _ in range(MOST_ROUNDS):
        nearest = _nearest(components, target)
        if order is not None and torch.equal(nearest, order):
            break
        order = nearest
        target = _ordered(components, order).mean(0)
    assert order is not None
    moved = {
        name: _ordered(value.flatten(0, 1), order.to(value.device)).reshape(value.shape)
        for name, value in values.items()
    }
    return replace(draws, samples={**draws.samples, **moved})


def _nearest(components: Tensor, target: Tensor) -> Tensor:
    """Which component of each draw goes to each place, ``(num, K)``."""
    # ‖a - b‖² without ‖a‖² + ‖b‖², which is the same for every order.
    costs = -2 * torch.einsum("dke,le->dlk", components, target)
    costs = costs.cpu().numpy()
    return torch.tensor([linear_sum_assignment(cost)[1].tolist() for cost in costs])


def _ordered(values: Tensor, order: Tensor) -> Tensor:
    """The components of each draw ``(num, K, *shape)`` in its order ``(num, K)``."""
    return values[torch.arange(len(values), device=values.device).unsqueeze(-1), order]


def _check_reference(reference: Mapping[str, Tensor], values: Mapping[str, Tensor]) -> None:
    for name, value in values.items():
        came = tuple(reference[name].shape) if name in reference else "none"
        if came != tuple(value.shape[2:]):
            raise ValueError(f"expected a reference for {name} of shape {tuple(value.shape[2:])}, got {came}")
