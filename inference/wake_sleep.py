"""Reweighted wake-sleep: learning without a gradient through the draws, discrete ones included."""

from collections.abc import Callable
from typing import Any

import torch
from pyro import poutine
from torch import Tensor
from typing_extensions import override

from inference.importance import Cut, check_structure, draw_particles, is_drawn, unscaled_log_prob
from inference.objectives import Objective
from inference.program import Batch, Structure, arguments, check_counts
from inference.surrogates import log_mean_weight, with_gradient


class ReweightedWakeSleep(Objective):
    """Reweighted wake-sleep: the model learns by the importance-weighted bound, the guide by its particles.

    With w~_k = w_k / Σ_j w_j, w_k = p(x, z_k) / q(z_k | x), z_k ~ q(z | x), each item's losses are

        wake, model:  -log 1/K Σ_k w_k,  its gradient -Σ_k w~_k ∇log p(x, z_k),
        wake, guide:  -Σ_k w~_k log q(z_k | x),  the w~_k held,
        sleep, guide: -log q(z' | x'),  (z', x') ~ p(x, z),

    the last two weighted by ``insomnia`` and 1 - ``insomnia``. No draw needs a gradient, so any latent site
    will do. The value is the first alone, in nats per item, which compares with `ImportanceWeighted`.

    Pyro's loss of this name weighs a batch as one item, by the product of the weights, and cannot be
    differentiated from outside: hence this one, with weights for each item.

    Args:
        model: An object with ``.model`` and ``.guide``, or a Pyro program.
        guide: The guide, where ``model`` is a program.
        num_particles: K, at least 1.
        insomnia: Share of the wake phase in the guide's learning, 0 to 1. Below 1, the model is also run with
            its observations drawn: each must be one of the program's arguments as it stands, and the model
            may read that argument for nothing else.

    Raises:
        ValueError: If an argument is out of its range, or, at the first batch, if a site lies outside the
            data plate, the guide lacks a latent one, or the sleep phase cannot draw the observations.

    References:
        | Reweighted Wake-Sleep (Bornschein & Bengio, 2015), section 3
        | Revisiting Reweighted Wake-Sleep for Models with Stochastic Control Flow (Le, Kosiorek, Siddharth,
          Teh & Wood, 2019), section 3

    Example:
        >>> import pyro, pyro.distributions as dist
        >>> def model(x):
        ...     with pyro.plate("data", len(x)):
        ...         z = pyro.sample("z", dist.Bernoulli(0.5))
        ...         pyro.sample("x", dist.Normal(z, 1.0), obs=x)
        >>> def guide(x):
        ...     logit = pyro.param("logit", torch.tensor(0.3))
        ...     with pyro.plate("data", len(x)):
        ...         pyro.sample("z", dist.Bernoulli(logits=logit + x))
        >>> ReweightedWakeSleep(model, guide, num_particles=5)(torch.tensor([-1.0, 2.0])).shape
        torch.Size([])
    """

    bias = "self-normalised weights: the guide's gradient is biased for a finite number of particles"

    def __init__(
        self,
        model: Any,
        guide: Callable[..., Any] | None = None,
        *,
        num_particles: int = 10,
        insomnia: float = 1.0,
    ) -> None:
        super().__init__(model, guide)
        check_counts(num_particles=num_particles)
        if not 0 <= insomnia <= 1:
            raise ValueError(f"insomnia must lie between 0 and 1, got {insomnia}")
        self.num_particles = num_particles
        self.insomnia = insomnia
        if insomnia == 0:
            self.bias = "the guide learns on what the model draws, not on the bound of the items"

    @override
    def extra_repr(self) -> str:
        return f"num_particles={self.num_particles}, insomnia={self.insomnia}"

    @override
    def prepare(self, batch: Batch) -> Structure:
        structure = super().prepare(batch)
        check_structure(structure)
        if self.insomnia < 1:
            self._dream(arguments(batch))
        return structure

    @override
    def forward(self, batch: Batch) -> Tensor:
        if self.program.structure is None:
            self.prepare(batch)
        args = arguments(batch)
        particles = draw_particles(self.program, args, self.num_particles, cut=Cut())
        loss = -log_mean_weight(particles).mean()
        if not torch.is_grad_enabled():
            return loss
        shares = (particles.log_p - particles.log_q).detach().softmax(0)
        learnt = -(shares * (particles.log_p + self.insomnia * particles.score)).sum(0).mean()
        if self.insomnia < 1:
            learnt = learnt + (1 - self.insomnia) * self._sleep(args)
        return with_gradient(loss, learnt)

    def _sleep(self, args: tuple[Tensor, ...]) -> Tensor:
        """The negative log-probability, under the guide, of what the model draws, a mean over the draws."""
        dreamt, sites = self._dream(args)
        with self.program.scope():
            guide_sites = self.program.run(self.program.guide, dreamt, drawn=sites)
        scores = [unscaled_log_prob(site).sum() for site in guide_sites.values() if is_drawn(site)]
        return -torch.stack(scores).sum() / len(args[0]) if scores else torch.zeros(())

    def _dream(self, args: tuple[Tensor, ...]) -> tuple[tuple[Tensor, ...], dict[str, Any]]:
        """Items that the model draws, as the programs take them, and all the sites of the draw.

        Raises:
            ValueError: If an observation is no argument, or the guide has sites that the model does not draw.
        """
        with torch.no_grad(), self.program.scope():
            drawn = self.program.run(self.program.guide, args)
            seen = self.program.run(self.program.model, args, drawn=drawn)
            names = {name for name, site in seen.items() if site["is_observed"]}
            places = {name: _place_of(seen[name]["value"], args) for name in names}
            if not names or None in places.values() or len(set(places.values())) < len(names):
                strange = [name for name, place in places.items() if place is None] or sorted(names)
                raise ValueError(
                    "insomnia below 1 expects a model that observes its arguments as they stand, each once; "
                    f"it observes otherwise: {', '.join(strange) or 'nothing'}"
                )
            auxiliary = [name for name, site in drawn.items() if is_drawn(site) and name not in seen]
            if auxiliary:
                raise ValueError(
                    f"insomnia below 1 expects every site of the guide in the model; not there: "
                    f"{', '.join(auxiliary)}"
                )
            sites = self.program.run(poutine.uncondition(self.program.model), args)
        values = list(args)
        for name, place in places.items():
            assert place is not None
            values[place] = sites[name]["value"].to(args[place].dtype)
        return tuple(values), sites


def _place_of(value: Any, args: tuple[Tensor, ...]) -> int | None:
    """Which of the arguments a value is."""
    for place, argument in enumerate(args):
        if value is argument:
            return place
    for place, argument in enumerate(args):
        if isinstance(value, Tensor) and value.shape == argument.shape and torch.equal(value, argument):
            return place
    return None
