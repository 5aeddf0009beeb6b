"""What the flows share: a prior, an invertible transform, and the way from levels to real numbers.

    z ~ p(z),  x = f(z):    log p(x) = log p(f⁻¹(x)) + log |det ∂f⁻¹/∂x|.

Integer levels are the floors of such numbers: v = f(z), x = ⌊v⌋.
"""

import math
from typing import Literal

import pyro
import pyro.distributions as dist
import torch
from pyro.distributions import constraints
from pyro.distributions.transforms import AffineTransform, ReshapeTransform
from torch import Tensor
from torch.distributions.transforms import Transform
from torch.nn.functional import cosine_similarity, softplus

from zoo.flows.dequantization import Dequantized, Quantized
from zoo.flows.logit import Logit
from zoo.flows.transform import Composed, FlowDistribution, FlowTransform
from zoo.model import GenerativeModel, evaluation_mode, refuse_constant_entries

Prior = Literal["gaussian", "logistic"]


class Flow(GenerativeModel):
    """A prior and a transform; a subclass says which transform.

    Where entries are real, the density is exact, and the program has one site, ``x``. Where they are levels,
    the program draws numbers ``v`` by the flow and takes their floors for ``x``; the guide spreads ``v``
    evenly over the cells of ``x`` (uniform dequantisation), which bounds log p(x) from below.

    Args:
        event_shape: Shape of one item.
        transform: From z to numbers of all the real line, of a shape with as many entries as an item.
        num_levels: K, at least 2, for integer entries 0 … K - 1; None for real ones.
        offset: α of the `Logit` that lies between levels and the real line; None scales them only.
        prior: ``"gaussian"`` or ``"logistic"``, standard and independent.

    Attributes:
        density: ``"exact"`` for real entries, ``"bound"`` for levels.
        latent_shape: Shape of z.

    Raises:
        ValueError: If an argument is none of the above, or there is an offset without levels.
    """

    density = "bound"

    def __init__(
        self,
        event_shape: tuple[int, ...],
        transform: FlowTransform,
        *,
        num_levels: int | None = None,
        offset: float | None = None,
        prior: Prior = "gaussian",
    ) -> None:
        super().__init__(event_shape)
        if prior not in ("gaussian", "logistic"):
            raise ValueError(f"prior must be one of gaussian, logistic, got {prior!r}")
        if num_levels is None and offset is not None:
            raise ValueError(f"an offset of the logit expects num_levels, got None and {offset}")
        if num_levels is not None and (not isinstance(num_levels, int) or num_levels < 2):
            raise ValueError(f"num_levels must be an integer of at least 2, got {num_levels}")
        self.num_levels, self.offset, self.prior_family = num_levels, offset, prior
        if num_levels is None:
            self.density = "exact"
            self.support = constraints.real
        else:
            self.support = constraints.integer_interval(0, num_levels - 1)
        parts: list[Transform] = [transform]
        if transform.codomain.event_dim == 1 < len(event_shape):
            parts.append(ReshapeTransform((self.event_shape.numel(),), self.event_shape))
        elif transform.codomain.event_dim > len(event_shape):
            parts.append(ReshapeTransform((1, *event_shape), self.event_shape))
        if num_levels is not None and offset is None:  # levels drawn evenly have mean 0 and variance 1
            parts.append(AffineTransform(num_levels / 2, num_levels / math.sqrt(12)))
        elif num_levels is not None:
            parts.append(Logit(0.0, float(num_levels), offset=offset).inv)
        self.transform = Composed(parts)
        self.latent_shape = self.transform.inverse_shape(self.event_shape)
        self.register_buffer("prior_loc", torch.zeros(()), persistent=False)

    def prior(self) -> dist.Distribution:
        """p(z)."""
        family = dist.Normal if self.prior_family == "gaussian" else dist.Logistic
        one = torch.ones_like(self.prior_loc)
        return family(self.prior_loc, one).expand(self.latent_shape).to_event(len(self.latent_shape))

    def flow(self) -> FlowDistribution:
        """The density over numbers: of x itself, or of v where x are levels."""
        return FlowDistribution(self.prior(), [self.transform])

    def model(self, x: Tensor | None = None, *, num: int = 1) -> Tensor:
        """Draws ``num`` items, or observes ``x``; where entries are levels, ``v`` is a latent site."""
        pyro.module(self.name, self)
        with pyro.plate("data", num if x is None else len(x)):
            if self.num_levels is None:
                return pyro.sample("x", self.flow(), obs=x)
            v = pyro.sample("v", self.flow())
            levels = Quantized(v, self.num_levels).to_event(len(self.event_shape))
            return pyro.sample("x", levels, obs=x)

    def guide(self, x: Tensor) -> None:
        """Uniform noise in the cells of levels; nothing where entries are real."""
        pyro.module(self.name, self)
        if self.num_levels is None:
            return
        with pyro.plate("data", len(x)):
            pyro.sample("v", Dequantized(x, self.prior_loc).to_event(len(self.event_shape)))

    def _sample(self, num: int) -> Tensor:
        if self.prior_family == "gaussian":  # what the distribution does, at a tenth of its cost
            return self.decode(self.prior_loc.new_empty(num, *self.latent_shape).normal_())
        return self.decode(self.prior().sample((num,)))

    def log_prob(self, x: Tensor) -> Tensor:
        """Log-density of each item in nats, in one pass.

        Where entries are levels: a lower bound in expectation, log p(x + u) with noise u drawn at each call.
        """
        z, log_det = self.transform.inverse_and_log_det(self.dequantize(x))
        return self._prior_log_prob(z) + log_det

    def dequantize(self, x: Tensor) -> Tensor:
        """Numbers drawn evenly from the cells of levels; of real entries, these themselves."""
        return x if self.num_levels is None else Dequantized(x, self.prior_loc).rsample()

    def _prior_log_prob(self, z: Tensor) -> Tensor:
        """What `prior` gives for log p(z), at less cost."""
        z = z.flatten(-len(self.latent_shape))
        if self.prior_family == "gaussian":
            return -0.5 * (z.square().sum(-1) + z.shape[-1] * math.log(2 * math.pi))
        return -(z + 2 * softplus(-z)).sum(-1)

    def encode(self, x: Tensor) -> Tensor:
        """The z of items, shape ``(batch, *latent_shape)``; of levels, that of the middle of their cells."""
        return self.transform.inv(x if self.num_levels is None else x.to(self.prior_loc) + 0.5)

    def decode(self, z: Tensor) -> Tensor:
        """Items of z: f(z), or its levels."""
        x = self.transform(z)
        return x if self.num_levels is None else Quantized(x, self.num_levels).sample()

    def check_training(self, x: Tensor) -> None:
        """Checks that real entries vary: a density may grow without bound where one does not.

        Raises:
            ValueError: If one is the same in all items.
        """
        if self.num_levels is None:
            refuse_constant_entries(type(self).__name__, x)

    @torch.no_grad()
    def interpolate(self, start: Tensor, end: Tensor, steps: int = 11) -> Tensor:
        """Items on the way from some to others, through z.

        The way is an arc: on a straight line the norm of z falls below what the prior ever draws.

        Args:
            start: Shape ``(batch, *event_shape)``.
            end: As many.
            steps: How many items, both ends included, at least 2.

        Returns:
            Tensor of shape ``(batch, steps, *event_shape)``.

        Raises:
            ValueError: If ``steps`` is below 2, there are not as many of both, or they do not suit the model.
        """
        if steps < 2 or len(start) != len(end):
            raise ValueError(
                "interpolate expects at least 2 steps, and as many ends as starts, got "
                f"{steps}, {len(start)} and {len(end)}"
            )
        self.check(start)
        self.check(end)
        with evaluation_mode(self):
            return self._on_the_arc(self.encode(start), self.encode(end), steps)

    def _on_the_arc(self, start: Tensor, end: Tensor, steps: int) -> Tensor:
        a, b = start.flatten(1), end.flatten(1)
        angle = cosine_similarity(a, b).clamp(-1, 1).acos()[:, None, None]
        share = torch.linspace(0, 1, steps, dtype=a.dtype, device=a.device)[:, None]
        straight = angle.sin() < 1e-3
        safe = torch.where(straight, 1.0, angle)
        weight_a = torch.where(straight, 1 - share, ((1 - share) * safe).sin() / safe.sin())
        weight_b = torch.where(straight, share, (share * safe).sin() / safe.sin())
        z = weight_a * a[:, None] + weight_b * b[:, None]
        return self.decode(z.reshape(-1, *self.latent_shape)).unflatten(0, (len(a), steps))
