"""Learning by contrast: what the data make likely against what the model's own chains do.

For an unnormalised p(v, h) = exp(-E(v, h)) / Z the gradient of the log-likelihood is a difference,

    ∂ log p(v) = -E_{p(h | v)}[∂E(v, h)] + E_{p(v, h)}[∂E(v, h)].

The first mean is that of the posterior, exact or by mean field; the second needs draws from the model, and
the methods here differ in where these come from. Layers that can be summed out analytically are, in both.
"""

import math
from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn
from typing_extensions import override

from inference.annealing import ais, reverse_ais
from inference.objectives import check_items, mean_over_known
from inference.program import Batch, arguments, check_counts

State = dict[str, Tensor]


@runtime_checkable
class Undirected(Protocol):
    """What learning by contrast asks of a model (the zoo's machines have it all).

    A state maps names of sites to their values, whose first dimension is the items or chains.
    """

    def blocks(self) -> Sequence[Any]:
        """Block conditionals in the order of a sweep: each has ``sites``, and ``draw(state)``."""

    def initial_state(self, num: int) -> State:
        """Values of all sites to start ``num`` chains from."""

    def posterior(self, x: Tensor) -> State:
        """The observed site at ``x``, and values or means of the hidden ones that `free_energy` needs."""

    def free_energy(self, state: State) -> Tensor:
        """Minus the log of the unnormalised probability, ``(num,)``; what the state lacks is summed out.

        A model may have ``contrast(positive, negative)`` as well, for speed: the mean of the first minus that
        of the second, and new values of what was summed out given the second.
        """


class _Contrast(nn.Module):
    """The difference of mean free energies under the data and under chains; a subclass runs these."""

    compilable = False
    """The chains go on outside the graph of a step."""

    def __init__(
        self, model: Any, *, sweeps: int = 1, label_weight: float = 0.0, validation_betas: int = 200
    ) -> None:
        super().__init__()
        if not isinstance(model, Undirected):
            raise ValueError(
                f"{type(self).__name__} expects a model with blocks, initial_state, posterior and "
                f"free_energy, got {type(model).__name__}"
            )
        check_counts(sweeps=sweeps, validation_betas=validation_betas)
        self.module = model if isinstance(model, nn.Module) else None
        self.source = [model]
        self.takes_labels = getattr(model, "num_classes", None) is not None
        if not 0 <= label_weight < math.inf:
            raise ValueError(f"label_weight must be a number of at least 0, got {label_weight}")
        if label_weight and not self.takes_labels:
            raise ValueError(
                f"label_weight expects a model with a label unit, and {type(model).__name__} has none; "
                "build it with num_classes"
            )
        self.sweeps = sweeps
        self.label_weight = label_weight
        self.validation_betas = validation_betas
        self._log_z: tuple[tuple[float, ...], float] | None = None

    @override
    def extra_repr(self) -> str:
        return f"sweeps={self.sweeps}, label_weight={self.label_weight}"

    def check(self, batch: Batch) -> None:
        """Checks data once at the door, by the model's own rule where it has one.

        Raises:
            ValueError: If the data do not suit the model.
        """
        args = arguments(batch)
        check_items(self.source[0], *args)
        if self.label_weight and len(args) < 2:
            raise ValueError("label_weight expects items with labels, got items alone")

    def check_training(self, batch: Batch) -> None:
        """Checks what only items to learn from must be, where the model has such a rule.

        Raises:
            ValueError: If the data do not suit the model.
        """
        if hasattr(self.source[0], "check_training"):
            self.source[0].check_training(*arguments(batch))

    def prepare(self, batch: Batch) -> None:
        """Lets a model that can start from its data do so."""
        if hasattr(self.source[0], "start"):
            self.source[0].start(arguments(batch)[0])

    def chains(self, positive: State) -> State:
        """States of the chains after so many sweeps; ``positive`` is that of the data."""
        raise NotImplementedError

    def keep(self, state: State) -> None:
        """Takes the chains' states after a step of the training."""

    @override
    def forward(self, batch: Batch) -> Tensor:
        """While training, mean free energy of the data minus that of the chains, in nats per item.

        Its gradient is that of learning; its value, near 0 in equilibrium, is no likelihood. In evaluation
        mode, where the model can be annealed, minus its bound on the log-likelihood, with log Z by short
        runs of AIS: that is what validation shows.
        """
        model, args = self.source[0], arguments(batch)
        if not self.training and hasattr(model, "annealing") and hasattr(model, "variational_bound"):
            # Half precision is for training: it would round the figures to a tenth of a nat.
            with torch.autocast(args[0].device.type, enabled=False):
                return self.log_z() - model.variational_bound(*args).mean()
        with torch.no_grad():
            positive = model.posterior(*args)
            if self.training and hasattr(model, "track"):
                model.track(positive)
            state = self.chains(positive)
        negative = {name: state[name] for name in positive}
        if hasattr(model, "contrast"):
            contrast, drawn = model.contrast(positive, negative)
            state = state | drawn
        else:
            contrast = model.free_energy(positive).mean() - model.free_energy(negative).mean()
        if self.training:
            self.keep(state)
        if self.label_weight and len(args) > 1:
            logits = model.classify(args[0])
            return contrast + self.label_weight * mean_over_known(logits, args[1])
        return contrast

    def log_z(self) -> float:
        """A quick estimate of log Z, made once for as long as parameters and chains stay as they are."""
        # By their values: a fused optimiser leaves the version of a parameter as it was.
        values = [value.double() for value in self.state_dict().values()]
        key = tuple(figure.item() for value in values for figure in (value.sum(), value.norm()))
        if self._log_z is None or self._log_z[0] != key:
            self._log_z = key, self._estimate_log_z()
        return self._log_z[1]

    def _estimate_log_z(self) -> float:
        return ais(self.source[0], betas=self.validation_betas).log_z.item()


class ContrastiveDivergence(_Contrast):
    """CD-k: chains that start from the data at every step, and run for k sweeps.

    Cheap and of low variance; biased, since k sweeps from the data are not draws from the model. What the
    model makes likely far from the data goes unpunished.

    Args:
        model: What is trained (see `Undirected`).
        sweeps: k, at least 1.
        label_weight: Factor of -log p(y | v) that is added for the items whose label is known, by the model's
            ``classify``; 0 leaves it out.
        validation_betas: Steps of AIS for the log Z that validation shows.

    Raises:
        ValueError: If the model is none, or an argument is below its least.

    References:
        | Training Products of Experts by Minimizing Contrastive Divergence (Hinton, 2002)

    Example:
        >>> import inference, zoo
        >>> data = zoo.load("digits")
        >>> cd = ContrastiveDivergence(zoo.RBM(data.event_shape, hidden=20))
        >>> result = inference.fit(cd, data.train, epochs=1, lr=1e-2, progress=False)
    """

    @override
    def chains(self, positive: State) -> State:
        state = positive
        for block in self.source[0].blocks() * self.sweeps:
            state = state | block.draw(state)
        return state


class PersistentContrastiveDivergence(_Contrast):
    """Stochastic maximum likelihood: chains that go on from step to step, k sweeps for each.

    While the parameters change slowly the chains stay close to the model's distribution. With a mean-field
    posterior, as a deep Boltzmann machine has, it is the variational stochastic maximum likelihood of the
    lectures. The chains are buffers, ``chain_v`` for the site ``v``, so that checkpoints hold them.

    Args:
        model: What is trained (see `Undirected`).
        sweeps: k, at least 1.
        num_chains: How many chains.
        label_weight: As `ContrastiveDivergence`.
        validation_betas: As `ContrastiveDivergence`.

    Raises:
        ValueError: If the model is none, or an argument is below its least.

    References:
        | Training Restricted Boltzmann Machines using Approximations to the Likelihood Gradient
        | (Tieleman, 2008)
        | Deep Boltzmann Machines (Salakhutdinov & Hinton, 2009), section 2
        | Deep Learning (Goodfellow, Bengio & Courville, 2016), algorithm 20.1
    """

    def __init__(
        self,
        model: Any,
        *,
        sweeps: int = 1,
        num_chains: int = 100,
        label_weight: float = 0.0,
        validation_betas: int = 200,
    ) -> None:
        super().__init__(model, sweeps=sweeps, label_weight=label_weight, validation_betas=validation_betas)
        check_counts(num_chains=num_chains)
        self.num_chains = num_chains
        with torch.no_grad():
            for name, value in model.initial_state(num_chains).items():
                self.register_buffer(f"chain_{name}", value.clone())

    @override
    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, num_chains={self.num_chains}"

    @override
    def prepare(self, batch: Batch) -> None:
        super().prepare(batch)
        for name, value in self.source[0].initial_state(self.num_chains).items():
            setattr(self, f"chain_{name}", value.clone())  # in the type and place that the model has by now

    @override
    def chains(self, positive: State) -> State:
        model, state = self.source[0], self.state()
        # What is summed out comes last, and the last time `contrast` draws it, by fields that it has anyway.
        kept_first = sorted(model.blocks(), key=lambda block: positive.keys().isdisjoint(block.sites))
        order = kept_first * self.sweeps
        if hasattr(model, "contrast") and positive.keys().isdisjoint(kept_first[-1].sites):
            order.pop()
        for block in order:
            state = state | block.draw(state)
        return state

    @override
    def _estimate_log_z(self) -> float:
        # Forward, a machine that the chains of AIS do not reach looks better than it is; from the chains of
        # the training, worse. What shall choose the best weights must not flatter any.
        estimate = reverse_ais(self.source[0], self.state(), betas=self.validation_betas)
        return max(super()._estimate_log_z(), estimate.log_z.item())

    def state(self) -> State:
        """Where the chains are: values by the names of the sites."""
        return {
            name.removeprefix("chain_"): value
            for name, value in self.named_buffers(recurse=False)
            if name.startswith("chain_")
        }

    @override
    @torch.no_grad()
    def keep(self, state: State) -> None:
        for name, value in state.items():
            getattr(self, f"chain_{name}").copy_(value)
