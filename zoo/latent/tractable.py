"""What the models share whose posterior over the code is known in closed form.

    p(x | θ) = ∫ p(z) p(x | z, θ) dz    and    p(z | x, θ) = p(z) p(x | z, θ) / p(x | θ)

are both formulas, so that the density is exact, the guide is the posterior itself, the ELBO is log p(x), and
expectation-maximisation takes steps in closed form.
"""

from typing import Any

import pyro
import pyro.distributions as dist
import torch
from pyro.distributions.transforms import ReshapeTransform
from torch import Tensor

from zoo.model import GenerativeModel

Theta = dict[str, Tensor]
"""The parameters θ by the names of their sites, in the space where people read them."""


class TractableModel(GenerativeModel):
    """A code z, a likelihood p(x | z, θ), and both of the formulas above.

    A subclass writes the methods of the first part; the base makes of them the programs, the density, draws,
    and a program in which θ is unknown too. Where ``theta`` is left out, the parameters of the model are
    meant; given, its tensors may have more dimensions on the left.

    Args:
        event_shape: Shape of one item.

    Raises:
        ValueError: If it is empty or has a side below 1.
    """

    density = "exact"

    # What a subclass writes

    def theta(self) -> Theta:
        """The parameters as they are now, differentiable."""
        raise NotImplementedError

    def assign(self, **theta: Tensor) -> None:
        """Takes over parameters, for instance those that a method found, or a draw of their posterior."""
        raise NotImplementedError

    def parameter_prior(self) -> Theta:
        """The Pyro program p(θ): draws a site for each parameter; meant for standardised data."""
        raise NotImplementedError

    def prior(self, theta: Theta | None = None) -> dist.Distribution:
        """p(z)."""
        raise NotImplementedError

    def likelihood(self, z: Tensor, theta: Theta | None = None) -> dist.Distribution:
        """p(x | z, θ)."""
        raise NotImplementedError

    def marginal(self, theta: Theta | None = None) -> dist.Distribution:
        """p(x | θ), the code integrated out."""
        raise NotImplementedError

    def posterior(self, x: Tensor, theta: Theta | None = None) -> dist.Distribution:
        """p(z | x, θ), for items of shape ``(..., *event_shape)``."""
        raise NotImplementedError

    def e_step(self, x: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        """Expected sufficient statistics of x and z under the posterior, and log p(x) of each item.

        Args:
            x: Items, ``(batch, *event_shape)``.

        Returns:
            Sums over the items, float64, so that those of several batches add up; and nats, ``(batch,)``.
        """
        raise NotImplementedError

    def m_step(self, statistics: dict[str, Tensor]) -> None:
        """Sets the parameters to those that maximise the expected log p(x, z | θ)."""
        raise NotImplementedError

    def initialize(self, x: Tensor, generator: torch.Generator) -> None:
        """Sets the parameters to a start that suits the items ``x``, drawn with the generator."""
        raise NotImplementedError

    # What the base makes of it

    def model(self, x: Tensor | None = None, *, num: int = 1) -> Tensor:
        """p(z) p(x | z), for the items of ``x``, or for ``num`` new ones where ``x`` is None."""
        pyro.module(self.name, self)
        theta = self.theta()
        with pyro.plate("data", num if x is None else len(x)):
            z = pyro.sample("z", self.prior(theta))
            return pyro.sample("x", self.likelihood(z, theta), obs=x)

    def guide(self, x: Tensor) -> None:
        """The posterior p(z | x) itself; a discrete code is marked to be summed out."""
        pyro.module(self.name, self)
        with pyro.plate("data", len(x)):
            posterior = self.posterior(x)
            enumerated = {"enumerate": "parallel"} if posterior.has_enumerate_support else {}
            pyro.sample("z", posterior, infer=enumerated)

    def bayesian_model(self, x: Tensor | None = None, *, num: int = 1) -> Tensor:
        """p(θ) ∏ p(x_i | θ): the parameters are sites outside the plate, the codes are integrated out.

        MAP estimates (`pyro.infer.autoguide.AutoDelta`), variational guides and NUTS take this program as it
        is. The model's own parameters have no part in it.
        """
        marginal = self.marginal(self.parameter_prior())
        with pyro.plate("data", num if x is None else len(x)):
            return pyro.sample("x", marginal, obs=x)

    def log_prob(self, x: Tensor) -> Tensor:
        """Log-density (log-probability) of each item in nats, ``(batch,)``."""
        return self.marginal().log_prob(x)

    def log_prior(self) -> Tensor:
        """What `m_step` adds to the log-likelihood of all items, in nats; 0 where it adds nothing."""
        return torch.zeros(())

    def _sample(self, num: int) -> Tensor:
        theta = self.theta()
        return self.likelihood(self.prior(theta).sample((num,)), theta).sample()

    def shaped(self, vectors: dist.Distribution) -> dist.Distribution:
        """A distribution over vectors of n numbers as one over items."""
        if len(self.event_shape) == 1:
            return vectors
        return dist.TransformedDistribution(
            vectors, [ReshapeTransform((self.event_shape.numel(),), self.event_shape)]
        )

    def flat(self, x: Tensor) -> Tensor:
        """Items ``(..., *event_shape)`` as vectors ``(..., n)``."""
        return x.flatten(-len(self.event_shape))


def set_parameter(parameter: Tensor, value: Any) -> None:
    """Overwrites a parameter in place, in its own type.

    Raises:
        ValueError: If the value is of another shape.
    """
    value = torch.as_tensor(value)
    if value.shape != parameter.shape:
        raise ValueError(f"expected a parameter of shape {tuple(parameter.shape)}, got {tuple(value.shape)}")
    with torch.no_grad():
        parameter.copy_(value)
