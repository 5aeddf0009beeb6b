"""What `inference.fit` minimises: each objective is a module whose ``forward(batch)`` is a loss in nats per item."""

import inspect
import math
from collections.abc import Callable
from typing import Any

import pyro
import torch
from pyro import poutine
from pyro.distributions.util import scale_and_mask
from pyro.infer import Trace_ELBO, TraceEnum_ELBO
from pyro.poutine.util import site_is_subsample
from torch import Tensor, nn
from torch.distributions import kl_divergence
from torch.nn.functional import cross_entropy

from inference.importance import log_weights
from inference.program import Batch, Program, arguments


class Objective(nn.Module):
    """An objective over a model and its guide; a subclass writes ``forward``.

    Args:
        model: An object with ``.model`` and ``.guide``, or a Pyro program.
        guide: The guide, where ``model`` is a program.

    Attributes:
        program: The pair of programs and their parameters.
        takes_labels: Whether the programs have an argument ``y``; `fit` then gives them the labels.
    """

    def __init__(self, model: Any, guide: Callable[..., Any] | None = None) -> None:
        super().__init__()
        self.program = Program(model, guide)
        self.takes_labels = "y" in inspect.signature(self.program.model).parameters

    def prepare(self, batch: Batch) -> None:
        """Runs the programs once, before training, to learn their parameters and to refuse what cannot work."""
        self.program.prepare(batch)

    def check(self, batch: Batch) -> None:
        """Checks data once at the door: by the model's own rule where it has one, else for NaN alone.

        Raises:
            ValueError: If the data do not suit the model.
        """
        check_items(self.program.source[0], *arguments(batch))

    def forward(self, batch: Batch) -> Tensor:
        """The loss of a batch, in nats per item."""
        raise NotImplementedError


class MaximumLikelihood(Objective):
    """Mean negative log-likelihood, for a model without latent sites: -1/n Σ log p(x_i), in nats per item.

    Example:
        >>> import pyro, pyro.distributions as dist
        >>> def coin(x):
        ...     p = pyro.param("p", torch.tensor(0.5), constraint=dist.constraints.unit_interval)
        ...     with pyro.plate("data", len(x)):
        ...         pyro.sample("x", dist.Bernoulli(p), obs=x)
        >>> round(MaximumLikelihood(coin)(torch.ones(4)).item(), 4)
        0.6931
    """

    def prepare(self, batch: Batch) -> None:
        structure = self.program.prepare(batch)
        if structure.latent:
            raise ValueError(
                f"maximum likelihood expects a model without latent sites, got {', '.join(structure.latent)}; "
                "use ELBO or ImportanceWeighted"
            )

    def forward(self, batch: Batch) -> Tensor:
        self.prepare(batch)
        args = arguments(batch)
        with self.program.scope():
            return Trace_ELBO().differentiable_loss(self.program.model, self.program.guide, *args) / len(args[0])


class ELBO(Objective):
    """Negative evidence lower bound: E_q[log q(z | x) - log p(x, z)], in nats per item.

    Reparameterised, with the KL divergence between guide and prior analytic where Pyro knows it. Latent sites
    that the guide marks with ``infer={"enumerate": "parallel"}`` are summed out exactly; where a latent site has
    no reparameterisation, its gradient is the score-function one.

    Args:
        model: An object with ``.model`` and ``.guide``, or a Pyro program.
        guide: The guide, where ``model`` is a program.
        num_particles: Draws from the guide for each item and step; with more than one, the programs must carry
            an extra dimension on the left.

    Raises:
        ValueError: If ``num_particles`` is below 1.

    References:
        | Auto-Encoding Variational Bayes (Kingma & Welling, 2014), equations 3 and 7
    """

    def __init__(
        self, model: Any, guide: Callable[..., Any] | None = None, *, num_particles: int = 1
    ) -> None:
        super().__init__(model, guide)
        if num_particles < 1:
            raise ValueError(f"num_particles must be at least 1, got {num_particles}")
        self.num_particles = num_particles

    def forward(self, batch: Batch) -> Tensor:
        structure = self.program.prepare(batch)
        args = arguments(batch)
        with self.program.scope():
            if structure.reparameterized and not structure.enumerated:
                return self._reparameterized(*args) / len(args[0])
            estimator = TraceEnum_ELBO if structure.enumerated else Trace_ELBO
            elbo = estimator(
                num_particles=self.num_particles,
                vectorize_particles=self.num_particles > 1,
                max_plate_nesting=structure.plate_nesting,
            )
            return elbo.differentiable_loss(self.program.model, self.program.guide, *args) / len(args[0])

    def _reparameterized(self, *args: Tensor) -> Tensor:
        """What Pyro's TraceMeanField_ELBO computes, summed over the batch, at half its cost.

        Pyro's also scores every latent site under model and guide where the divergence is analytic, and reads
        the loss back as a number, which a traced graph cannot do.
        """
        model, guide = self.program.model, self.program.guide
        if self.num_particles > 1:
            assert self.program.structure is not None
            dim = -1 - self.program.structure.plate_nesting
            particles = pyro.plate("_particles", self.num_particles, dim=dim)
            model, guide = particles(model), particles(guide)
        guide_trace = poutine.trace(guide).get_trace(*args)
        model_trace = poutine.trace(poutine.replay(model, guide_trace)).get_trace(*args)
        loss: Tensor | float = 0.0
        for name, site in model_trace.nodes.items():
            if site["type"] != "sample" or site_is_subsample(site):
                continue
            if site["is_observed"]:
                loss = loss - _log_prob_sum(site)
                continue
            posterior = guide_trace.nodes[name]
            try:
                divergence = kl_divergence(posterior["fn"], site["fn"])
            except NotImplementedError:
                loss = loss + _log_prob_sum(posterior) - _log_prob_sum(site)
            else:
                loss = loss + scale_and_mask(divergence, posterior["scale"], posterior["mask"]).sum()
        for name, site in guide_trace.nodes.items():
            if site["type"] == "sample" and name not in model_trace.nodes:
                loss = loss + _log_prob_sum(site)
        return torch.as_tensor(loss) / self.num_particles


class SupervisedELBO(ELBO):
    """`ELBO` plus a cross-entropy term for the guide's classifier, on the items whose label is known.

    loss = -ELBO(x, y) + weight · mean over labelled items of -log q(y | x),    in nats per item.

    Args:
        model: An object with ``.model(x, y)`` and ``.guide(x, y)``, or such a Pyro program.
        guide: The guide, where ``model`` is a program.
        classifier: Logits of q(y | x) for a batch of items, shape ``(batch, classes)``; by default the method
            ``classify`` of ``model``.
        weight: Factor of the cross-entropy.
        num_particles: As `ELBO`.

    Raises:
        ValueError: If there is no classifier.

    References:
        | Semi-Supervised Learning with Deep Generative Models (Kingma et al., 2014), equation 9
    """

    def __init__(
        self,
        model: Any,
        guide: Callable[..., Any] | None = None,
        *,
        classifier: Callable[[Tensor], Tensor] | None = None,
        weight: float = 1.0,
        num_particles: int = 1,
    ) -> None:
        super().__init__(model, guide, num_particles=num_particles)
        classifier = classifier or getattr(model, "classify", None)
        if classifier is None or not self.takes_labels:
            raise ValueError(
                f"a supervised ELBO expects programs with an argument y and a classifier, got {type(model).__name__}"
            )
        self.classifier = [classifier]
        if isinstance(classifier, nn.Module):
            self.classifier_module = classifier
        self.weight = weight

    def forward(self, batch: Batch) -> Tensor:
        x, *labels = arguments(batch)
        loss = super().forward(batch)
        if not labels:
            return loss
        y = labels[0]
        known = (y >= 0).sum().clamp(min=1)
        logits = self.classifier[0](x)
        return loss + self.weight * cross_entropy(logits, y, ignore_index=-1, reduction="sum") / known


class CrossEntropy(nn.Module):
    """Mean negative log-probability of the labels under a classifier alone: -1/n Σ log q(y_i | x_i), in nats per item.

    Args:
        classifier: A module that gives the logits of a batch of items, shape ``(batch, classes)``.

    Example:
        >>> loss = CrossEntropy(nn.Linear(3, 2))
        >>> loss((torch.zeros(4, 3), torch.tensor([0, 1, 1, 0]))).shape
        torch.Size([])
    """

    takes_labels = True

    def __init__(self, classifier: nn.Module) -> None:
        super().__init__()
        self.classifier = classifier

    def forward(self, batch: Batch) -> Tensor:
        """The loss of a batch ``(x, y)``; labels of -1 are passed over."""
        x, y = arguments(batch)
        return cross_entropy(self.classifier(x), y, ignore_index=-1)


class ImportanceWeighted(Objective):
    """Negative importance-weighted bound: -E[log 1/K Σ_k p(x, z_k) / q(z_k | x)], in nats per item.

    K = 1 is the ELBO; the bound tightens with K and tends to log p(x). The weights are kept for each item, so
    every site must lie inside one full plate over the batch.

    Args:
        model: An object with ``.model`` and ``.guide``, or a Pyro program.
        guide: The guide, where ``model`` is a program.
        num_particles: K, at least 1.

    Raises:
        ValueError: If ``num_particles`` is below 1, or, at the first batch, if a site lies outside the data plate
            or a latent one cannot be reparameterised.

    References:
        | Importance Weighted Autoencoders (Burda, Grosse & Salakhutdinov, 2016), equation 8
        | https://arxiv.org/abs/1509.00519
    """

    def __init__(self, model: Any, guide: Callable[..., Any] | None = None, *, num_particles: int = 50) -> None:
        super().__init__(model, guide)
        if num_particles < 1:
            raise ValueError(f"num_particles must be at least 1, got {num_particles}")
        self.num_particles = num_particles

    def prepare(self, batch: Batch) -> None:
        structure = self.program.prepare(batch)
        if not structure.reparameterized:
            raise ValueError(
                "the importance-weighted objective expects latent sites that can be reparameterised; "
                f"one of {', '.join(structure.latent)} cannot"
            )

    def forward(self, batch: Batch) -> Tensor:
        self.prepare(batch)
        weights = log_weights(self.program, *arguments(batch), num_particles=self.num_particles)
        return math.log(self.num_particles) - weights.logsumexp(dim=0).mean()


def _log_prob_sum(site: dict[str, Any]) -> Tensor:
    return scale_and_mask(site["fn"].log_prob(site["value"]), site["scale"], site["mask"]).sum()


def check_items(model: Any, *args: Tensor) -> None:
    """Checks items by the model's own ``check`` where it has one, else for NaN alone.

    Raises:
        ValueError: If they do not pass.
    """
    if hasattr(model, "check"):
        model.check(*args)
        return
    for values in args:
        if not isinstance(values, Tensor):
            raise ValueError(f"expected a tensor of items, got {type(values).__name__}")
        if values.is_floating_point() and values.isnan().any():
            raise ValueError(f"expected numbers, got NaN in {int(values.isnan().sum())} of the entries")
