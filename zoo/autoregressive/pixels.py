"""What the models of images share: the scan over pixels and their colours, labels, and kinds of output.

    p(x | y) = ∏_r ∏_c ∏_k p(x_{r,c,k} | all rows above, all pixels to the left, colours before k, y),

row by row, pixel by pixel, and within a pixel colour by colour, for instance R → G → B.

References:
    | Pixel recurrent neural networks (van den Oord, Kalchbrenner & Kavukcuoglu, 2016), section 2
    | https://arxiv.org/abs/1601.06759
"""

import math
from typing import Any, Literal, NamedTuple, get_args

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor

from zoo.autoregressive.autoregressive import Autoregressive
from zoo.autoregressive.discretized_logistic import DiscretizedLogisticMixture
from zoo.model import check_labels, checked_shape, evaluation_mode

Output = Literal["softmax", "logistic"]
"""How levels are distributed: a weight for each, or a `DiscretizedLogisticMixture`."""


CLASSIFIED_AT_A_TIME = 100
"""Images whose labels are found at once: each has a pass for every label."""


class PixelState(NamedTuple):
    """What `Pixels` knows along the scan.

    Attributes:
        cache: What the network keeps of the pixels that are known; its own business.
        pixel: The colours of the present pixel that are known, in order.
        outputs: Of the network for the present pixel: shape ``(..., colours, num_params)``.
        features: What it found on the way there, for `Pixels.keep`.
    """

    cache: Any
    pixel: tuple[Tensor, ...]
    outputs: Tensor
    features: Any


class Pixels(Autoregressive):
    """A network over images, whose output at a pixel depends on the pixels before it.

    A subclass writes `outputs` for whole images, and for drawing `begin`, `look` and `keep`, by which it goes
    from pixel to pixel and computes only what is new there.

    Args:
        event_shape: ``(height, width)``, or ``(colours, height, width)``.
        num_levels: 2 for pixels 0. or 1.; more for levels 0 … num_levels - 1, int64.
        output: Of more than two levels, ``"softmax"`` or ``"logistic"``.
        components: Of a mixture of logistics, at least 1.
        num_classes: Labels y that an image can be asked for by, all equally likely; None is no labels.

    Raises:
        ValueError: If the items are no images, or an argument is none of the above.
    """

    def __init__(
        self,
        event_shape: tuple[int, ...],
        *,
        num_levels: int = 2,
        output: Output = "softmax",
        components: int = 10,
        num_classes: int | None = None,
    ) -> None:
        event_shape = checked_shape(event_shape)
        if len(event_shape) not in (2, 3):
            raise ValueError(
                f"expected event_shape (height, width) or (colours, height, width), got {tuple(event_shape)}"
            )
        if output not in get_args(Output):
            raise ValueError(f"output must be one of {', '.join(get_args(Output))}, got {output!r}")
        if output == "logistic" and num_levels == 2:
            raise ValueError("output 'logistic' expects more than two levels, got num_levels=2")
        if components < 1:
            raise ValueError(f"components must be at least 1, got {components}")
        if num_classes is not None and num_classes < 2:
            raise ValueError(f"num_classes must be at least 2, or None, got {num_classes}")
        colours, height, width = (1, *event_shape)[-3:]
        natural = torch.arange(math.prod(event_shape)).view(colours, height, width)
        super().__init__(event_shape, natural.permute(1, 2, 0).flatten().tolist(), num_levels)
        self.colours, self.height, self.width = colours, height, width
        self.num_classes = num_classes
        self.register_buffer("no_pixel", torch.zeros(colours), persistent=False)
        self.output, self.components = output, components
        self.num_params = 1
        if num_levels > 2:
            self.num_params = num_levels if output == "softmax" else 3 * components

    def check_network(
        self, hidden: int, layers: int, first_kernel_size: int, kernel_size: int, dropout: float
    ) -> None:
        """Checks the sizes that a network over images has.

        Raises:
            ValueError: If one is out of its range.
        """
        for name, size, least in (
            ("kernel_size", kernel_size, 1),
            ("first_kernel_size", first_kernel_size, 3),
        ):
            if size < least or size % 2 == 0:
                raise ValueError(f"{name} must be odd and at least {least}, got {size}")
        if hidden < self.colours or layers < 1:
            raise ValueError(
                f"hidden must be at least {self.colours}, the number of colours, and layers at least 1, "
                f"got {hidden} and {layers}"
            )
        if not 0 <= dropout < 1:
            raise ValueError(f"dropout must lie between 0 and 1, below it, got {dropout}")

    # What a subclass writes

    def outputs(self, maps: Tensor, y: Tensor | None = None) -> Tensor:
        """Parameters of all entries of images ``(batch, colours, height, width)``, given labels ``(batch,)``.

        Returns:
            Tensor of shape ``(batch, colours · num_params, height, width)``.
        """
        raise NotImplementedError

    def begin(self, y: Tensor | None = None) -> Any:
        """The cache before any pixel is known, for labels of any shape."""
        raise NotImplementedError

    def look(self, row: int, column: int, cache: Any, pixel: Tensor) -> tuple[Tensor, Any]:
        """The outputs at a pixel, ``(..., colours · num_params)``, and the features on the way there.

        ``pixel`` holds its colours, ``(..., colours)``, as `maps` has them; those not known yet are 0 and
        have no influence on the outputs of colours up to the first of them.
        """
        raise NotImplementedError

    def keep(self, row: int, column: int, cache: Any, pixel: Tensor, features: Any) -> Any:
        """The cache once all colours of a pixel are known; leaves ``cache`` as it is."""
        raise NotImplementedError

    # What is made of it

    def entry(self, params: Tensor) -> dist.Distribution:
        """The distribution of single entries from their parameters."""
        if self.num_levels > 2 and self.output == "logistic":
            return DiscretizedLogisticMixture(params, self.num_levels)
        return super().entry(params)

    def maps(self, x: Tensor) -> Tensor:
        """What the network sees of entries: the lowest level as -1, the highest as 1, and 0 is no pixel."""
        return x.to(self.no_pixel.dtype) * (2 / (self.num_levels - 1)) - 1

    def params(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """Parameters of all entries by one pass of the network."""
        batch_shape = x.shape[:-1]
        images = self.maps(x).reshape(-1, self.height, self.width, self.colours).movedim(-1, 1)
        if y is not None:
            y = y.expand(batch_shape).reshape(-1)
        outputs = self.outputs(images, y).to(images.dtype)  # mixed precision's is less
        outputs = outputs.unflatten(1, (self.colours, self.num_params))
        params = outputs.permute(0, 3, 4, 1, 2).reshape(*batch_shape, self.num_variables, self.num_params)
        return params.squeeze(-1) if self.num_params == 1 else params

    def initial_state(self, y: Tensor | None = None) -> PixelState:
        """The state before the first colour of the first pixel."""
        self._check_label_is_there(y)
        return self._look(0, self.begin(y), ())

    def params_at(self, step: int, state: PixelState) -> Tensor:
        """Of the present colour, from what the network put out for its pixel."""
        params = state.outputs[..., step % self.colours, :]
        return params.squeeze(-1) if self.num_params == 1 else params

    def advance(self, step: int, state: PixelState, value: Tensor) -> PixelState:
        """Looks again, with one colour more; or goes on to the next pixel."""
        known = (*state.pixel, self.maps(value))
        place = step // self.colours
        if len(known) < self.colours:
            return self._look(place, state.cache, known)
        if place + 1 == self.height * self.width:
            return state
        row, column = divmod(place, self.width)
        pixel = torch.stack(torch.broadcast_tensors(*known), -1)
        return self._look(place + 1, self.keep(row, column, state.cache, pixel, state.features), ())

    def _look(self, place: int, cache: Any, known: tuple[Tensor, ...]) -> PixelState:
        row, column = divmod(place, self.width)
        if known:
            pixel = torch.stack(torch.broadcast_tensors(*known), -1)
            pixel = torch.cat([pixel, pixel.new_zeros(*pixel.shape[:-1], self.colours - len(known))], -1)
        else:
            pixel = self.no_pixel
        outputs, features = self.look(row, column, cache, pixel)
        return PixelState(cache, known, outputs.unflatten(-1, (self.colours, self.num_params)), features)

    def influence(self, x: Tensor, row: int, column: int, y: Tensor | None = None) -> Tensor:
        """How much the outputs at a pixel depend on each pixel: the root mean square of their derivative.

        Args:
            x: Images to take the derivative at, shape ``(batch, *event_shape)``.
            row: Of the pixel.
            column: Of the pixel.
            y: Their labels, shape ``(batch,)``, of a model with labels.

        Returns:
            Tensor of shape ``(height, width)``, exactly 0 outside the receptive field.
        """
        self._check_label_is_there(y)
        with torch.enable_grad(), evaluation_mode(self):
            maps = self.maps(x).reshape(-1, self.colours, self.height, self.width).requires_grad_()
            outputs = self.outputs(maps, y)[:, :, row, column].sum(0)
            grads = [torch.autograd.grad(output, maps, retain_graph=True)[0] for output in outputs]
        return torch.stack(grads).square().sum((0, 2)).mean(0).sqrt()

    # Labels

    def label_prior(self) -> dist.Distribution:
        """p(y) = 1/C."""
        return dist.Categorical(logits=self.no_pixel.new_zeros(self.num_classes))

    def model(self, x: Tensor | None = None, y: Tensor | None = None, *, num: int = 1) -> Tensor:
        """p(y) ∏_i p(x_i | x_<i, y): draws entry by entry, sites ``x_i`` in scan order, or observes ``x``.

        Args:
            x: Items to observe, ``(batch, *event_shape)``; None draws new ones.
            y: Labels to observe, ``(batch,)``, of a model with labels; None draws them, or, where ``x`` is
                given, sums them out: then there is no site ``y``.
            num: How many to draw where both are None.
        """
        pyro.module(self.name, self)
        if y is not None:
            self._check_may_have_labels()
        given = x if x is not None else y
        num = num if given is None else len(given)
        with pyro.plate("data", num):
            if self.num_classes is None:
                return self.draw_in_turn(num) if x is None else self.observe(x)
            if x is not None and y is None:
                return pyro.sample("x", self._over_labels(x), obs=x)
            y = pyro.sample("y", self.label_prior(), obs=y)
            return self.draw_in_turn(num, y) if x is None else self.observe(x, y)

    def guide(self, x: Tensor, y: Tensor | None = None) -> None:
        """Empty: nothing is latent."""

    def conditionals(self, x: Tensor, y: Tensor | None = None) -> dist.Distribution:
        """p(x_i | x_<i, y) of every entry of items ``(..., *event_shape)``, in one pass; batched like x."""
        self._check_label_is_there(y)
        return super().conditionals(x) if y is None else super().conditionals(x, y)

    def log_prob(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """Log p(x), or log p(x, y) where labels are given, of each item in nats.

        A model with labels takes a pass for each of them where none are given.
        """
        if y is not None:
            self._check_may_have_labels()
            return super().log_prob(x, y) - math.log(self.num_classes)
        return super().log_prob(x) if self.num_classes is None else self._log_joint(x).logsumexp(-1)

    @torch.no_grad()
    def classify(self, x: Tensor) -> Tensor:
        """Log p(y | x) by Bayes' rule, in evaluation mode: shape ``(batch, num_classes)``."""
        self._check_may_have_labels()
        with evaluation_mode(self):
            parts = [self._log_joint(part) for part in x.split(CLASSIFIED_AT_A_TIME)]
        return torch.cat(parts).log_softmax(-1)

    def given(self, y: int) -> "GivenLabel":
        """The model of one class, p(x | y), with all that a model without labels has.

        Raises:
            ValueError: If there is no such label.
        """
        self._check_may_have_labels()
        y = int(y)
        check_labels(torch.tensor([y]), 1, self.num_classes)
        return GivenLabel(self, y)

    def check(self, x: Tensor, y: Tensor | None = None) -> None:
        """As `GenerativeModel.check`; and labels must be ``(batch,)`` integers, 0 to C - 1."""
        if isinstance(x, Tensor) and x.dim() in (3, 4) and x.shape[-2:] == self.event_shape[-2:]:
            colours = x.shape[1] if x.dim() == 4 else 1
            if colours != self.colours:
                sides = ", ".join(map(str, self.event_shape))
                of = f"{self.colours} colour{'' if self.colours == 1 else 's'}"
                raise ValueError(
                    f"{type(self).__name__} of {of} expects items (batch, {sides}), "
                    f"got {tuple(x.shape)}: build it with event_shape={tuple(x.shape[1:])}"
                )
        super().check(x)
        if y is not None:
            self._check_may_have_labels()
            check_labels(y, len(x), self.num_classes)

    def _sample(self, num: int, y: Tensor | int | None = None) -> Tensor:
        if y is not None:
            self._check_may_have_labels()
        if self.num_classes is None:
            return super()._sample(num)
        if y is None:
            with pyro.validation_enabled(False):
                return super()._sample(num, self.label_prior().expand((num,))())
        y = torch.as_tensor(y, device=self.no_pixel.device)
        y = y.expand(num) if y.dim() == 0 else y
        check_labels(y, num, self.num_classes)
        return super()._sample(num, y)

    def _log_joint(self, x: Tensor) -> Tensor:
        """Log p(x, y) for every label, shape ``(..., num_classes)``."""
        labels = torch.arange(self.num_classes, device=x.device)
        return torch.stack([self.log_prob(x, y) for y in labels], -1)

    def _over_labels(self, x: Tensor) -> dist.Distribution:
        """The mixture of p(x | y) over the labels, each over what comes before in ``x``."""
        dims = len(self.event_shape)
        batch_shape = x.shape[: x.dim() - dims]
        each = x.unsqueeze(-1 - dims).expand(*batch_shape, self.num_classes, *self.event_shape)
        given = self.conditionals(each, torch.arange(self.num_classes, device=x.device)).to_event(dims)
        return dist.MixtureSameFamily(self.label_prior().expand(batch_shape), given)

    def _check_may_have_labels(self) -> None:
        if self.num_classes is None:
            raise ValueError(f"{type(self).__name__} has no labels; build it with num_classes")

    def _check_label_is_there(self, y: Tensor | None) -> None:
        if y is not None:
            self._check_may_have_labels()
        if self.num_classes is not None and y is None:
            raise ValueError(
                f"the conditionals of {type(self).__name__} with {self.num_classes} labels need one: give y, "
                "or take model.given(label)"
            )


class GivenLabel(Autoregressive):
    """p(x | y) of one label, as a model without labels; it shares the parameters.

    Args:
        labelled: The model of all labels.
        label: Which one.
    """

    def __init__(self, labelled: Pixels, label: int) -> None:
        super().__init__(labelled.event_shape, labelled.order, labelled.num_levels)
        self.labelled = labelled
        self.register_buffer("label", torch.tensor(label, device=labelled.scan.device), persistent=False)

    def params(self, x: Tensor) -> Tensor:
        """As the labelled model."""
        return self.labelled.params(x, self.label)

    def initial_state(self) -> PixelState:
        """As the labelled model."""
        return self.labelled.initial_state(self.label)

    def params_at(self, step: int, state: PixelState) -> Tensor:
        """As the labelled model."""
        return self.labelled.params_at(step, state)

    def advance(self, step: int, state: PixelState, value: Tensor) -> PixelState:
        """As the labelled model."""
        return self.labelled.advance(step, state, value)

    def entry(self, params: Tensor) -> dist.Distribution:
        """As the labelled model."""
        return self.labelled.entry(params)
