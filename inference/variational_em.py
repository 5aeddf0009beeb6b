"""Variational EM by gradient: steps of the guide and steps of the model, in turn."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from typing_extensions import override

from inference.objectives import ELBO
from inference.program import Batch, Structure, arguments, check_counts, forked_rng, log_prob
from inference.surrogates import with_gradient


class VariationalEM(ELBO):
    """Variational EM: gradient steps of one bound, by turns in the guide and in the model.

        E: φ ← φ + η ∇_φ ELBO(θ, φ), ``e_steps`` times;    M: θ ← θ + η ∇_θ ELBO(θ, φ), ``m_steps`` times.

    The gradient is that of `ELBO` without a choice. θ is whatever log p(x, z) reaches with z held, φ whatever
    the guide reaches; what both reach moves in both. The count of training steps is a buffer. In evaluation
    mode the loss is the plain negative ELBO, in nats per item, and nothing is counted.

    A step gives no gradient at all to the parameters that it leaves alone, so that an optimiser passes them
    over. On several devices, `inference.fit` therefore needs ``strategy="ddp_find_unused_parameters_true"``.

    Args:
        model: An object with ``.model`` and ``.guide``, or a Pyro program.
        guide: The guide, where ``model`` is a program.
        num_particles: As `ELBO`.
        e_steps: Steps of the guide in a row, at least 1.
        m_steps: Steps of the model in a row, at least 1.

    Raises:
        ValueError: If a count is below 1, or, at the first batch, if model or guide has no parameters.

    References:
        | A View of the EM Algorithm that Justifies Incremental, Sparse, and other Variants (Neal & Hinton,
          1998), equation 7 for the bound that both steps raise
        | Deep Learning (Goodfellow, Bengio & Courville, 2016), section 19.2

    Example:
        >>> import inference, zoo
        >>> data = zoo.load("digits")
        >>> em = VariationalEM(zoo.VAE(data.event_shape, latent_dim=2), e_steps=2)
        >>> result = inference.fit(em, data.train, epochs=1, progress=False)
        >>> em.steps.item()
        13
    """

    alternates = True
    compilable = False  # a graph would hold the phase in which it was traced
    steps: Tensor

    def __init__(
        self,
        model: Any,
        guide: Callable[..., Any] | None = None,
        *,
        num_particles: int = 1,
        e_steps: int = 1,
        m_steps: int = 1,
    ) -> None:
        super().__init__(model, guide, num_particles=num_particles)
        check_counts(e_steps=e_steps, m_steps=m_steps)
        self.e_steps, self.m_steps = e_steps, m_steps
        self.model_parameters: list[nn.Parameter] = []
        self.guide_parameters: list[nn.Parameter] = []
        self.register_buffer("steps", torch.zeros((), dtype=torch.long))

    @override
    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, e_steps={self.e_steps}, m_steps={self.m_steps}"

    @override
    def prepare(self, batch: Batch) -> Structure:
        structure = super().prepare(batch)
        args = arguments(batch)
        with forked_rng(), torch.enable_grad(), self.program.scope():
            drawn = self.program.run(self.program.guide, args)
            held = {name: site | {"value": site["value"].detach()} for name, site in drawn.items()}
            sites = self.program.run(self.program.model, args, drawn=held)
            self.model_parameters = self._reached([log_prob(site) for site in sites.values()])
            values = [site["value"] for site in drawn.values() if not site["is_observed"]]
            self.guide_parameters = self._reached([*values, *map(log_prob, drawn.values())])
        for name, params in (("model", self.model_parameters), ("guide", self.guide_parameters)):
            if not params:
                raise ValueError(
                    f"variational EM expects parameters in model and guide, got none in the {name}"
                )
        return structure

    def _reached(self, outputs: list[Tensor]) -> list[nn.Parameter]:
        params = [param for param in self.parameters() if param.requires_grad]
        total = sum(output.sum() for output in outputs if output.requires_grad)
        if not isinstance(total, Tensor):
            return []
        grads = torch.autograd.grad(total, params, allow_unused=True)
        return [param for param, grad in zip(params, grads, strict=True) if grad is not None]

    @override
    def forward(self, batch: Batch) -> Tensor:
        if not self.guide_parameters:
            self.prepare(batch)
        loss = super().forward(batch)
        if not self.training or not torch.is_grad_enabled():
            return loss
        place = self.steps.item() % (self.e_steps + self.m_steps)
        params = self.guide_parameters if place < self.e_steps else self.model_parameters
        self.steps += 1
        grads = torch.autograd.grad(loss, params, allow_unused=True)
        moved = [(grad * param).sum() for grad, param in zip(grads, params, strict=True) if grad is not None]
        return with_gradient(loss, torch.stack(moved).sum())
