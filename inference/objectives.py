"""What `inference.fit` minimises: modules whose ``forward(batch)`` is a loss in nats per item."""

import inspect
import math
from collections.abc import Callable, Iterable
from typing import Any, Literal, get_args

import pyro
import torch
from pyro import poutine
from pyro.distributions.util import scale_and_mask
from pyro.infer import Trace_ELBO, TraceEnum_ELBO
from torch import Tensor, nn
from torch.distributions import kl_divergence
from torch.nn.functional import cross_entropy
from typing_extensions import override

from inference.importance import (
    NOT_REPARAMETERIZED,
    Cut,
    check_structure,
    draw_particles,
    is_point_mass,
    log_weights,
)
from inference.program import (
    Batch,
    Program,
    Structure,
    arguments,
    can_be_reparameterized,
    check_counts,
    forked_rng,
    is_enumerated,
    log_prob,
    owner_of,
)
from inference.surrogates import (
    BY_SCORE,
    Gradient,
    doubly_reparameterized_bound,
    mean_of_the_others,
    refuse_gradient,
    score_function_bound,
)

BASELINE_DECAY = 0.9
"""What the mean of past steps keeps of itself at each, once there have been ten."""


class Objective(nn.Module):
    """An objective over a model and its guide; a subclass writes ``forward``.

    Where its ``players`` move in turn, each with a loss of its own, as generator and discriminator do, it
    also writes `parameters_of`, and ``forward(batch, player)`` gives the loss that one of them lowers;
    ``forward(batch)`` is then what validation shows, a figure that compares from epoch to epoch. `fit` gives
    each an optimiser, and holds the parameters of the others while one moves.

    Args:
        model: An object with ``.model`` and ``.guide``, or a Pyro program.
        guide: The guide, where ``model`` is a program.

    Raises:
        ValueError: If the model's density is unnormalised: without log Z, which has a gradient too, it would
            be pushed anywhere.

    Attributes:
        program: The pair of programs and their parameters.
        takes_labels: Whether the programs have an argument ``y``; `fit` then gives them the labels.
        bias: Why the mean of its gradient is not that of what it says to be a bound of; None where it is.
        alternates: Whether a step moves some of the parameters, and another step the others.
        players: Who moves in turn, in the order of their moves, the model's own last; empty where all
            parameters move together.
        steps: How many turns there have been: a buffer, so that a resumed training goes on the same way; only
            where there are players.
    """

    bias: str | None = None
    alternates = False
    players: tuple[str, ...] = ()
    steps: Tensor

    def __init__(self, model: Any, guide: Callable[..., Any] | None = None) -> None:
        super().__init__()
        if self.players:
            self.register_buffer("steps", torch.zeros((), dtype=torch.long))
            self.compilable = False  # a graph would hold the player that it was traced for
        self.program = Program(model, guide)
        for source in (model, *self.program.owners):
            if getattr(source, "density", None) == "unnormalized":
                raise ValueError(
                    f"{type(self).__name__} expects a normalised density, and that of "
                    f"{type(source).__name__} is unnormalised: train it with PersistentContrastiveDivergence"
                )
        # A model that may be built without labels has the argument, and then no use for it.
        without = getattr(self.program.source[0], "num_classes", "unknown") is None
        self.takes_labels = "y" in _signature(self.program.model).parameters and not without

    def prepare(self, batch: Batch) -> Structure:
        """Runs the programs once before training, to learn their parameters and refuse what cannot work."""
        return self.program.prepare(batch)

    def check(self, batch: Batch) -> None:
        """Checks data once at the door: by the model's own rule where it has one, else for NaN alone.

        Raises:
            ValueError: If the data do not suit the model.
        """
        try:
            _signature(self.program.model).bind(*arguments(batch))
        except TypeError as error:
            raise ValueError(
                f"the model does not take {len(arguments(batch))} tensors as its data: {error}"
            ) from None
        check_items(self.program.source[0], *arguments(batch))

    def check_training(self, batch: Batch) -> None:
        """Checks what only items to learn from must be, where the model has such a rule.

        Raises:
            ValueError: If the data do not suit the model.
        """
        if hasattr(self.program.source[0], "check_training"):
            self.program.source[0].check_training(*arguments(batch))

    def parameters_of(self, player: str) -> list[nn.Parameter]:
        """What one of the players moves; known after `prepare`."""
        raise NotImplementedError

    def turn(self) -> tuple[str, ...]:
        """Counts a training step, and says which players move at it, in order: all, unless overridden."""
        self.steps += 1
        return self.players

    def monitor(self) -> dict[str, float]:
        """Figures of the epoch that has just ended, beside its losses, by their column in the history."""
        return {}

    def notes(self, row: dict[str, float]) -> list[str]:
        """What goes wrong, in words, given an epoch's row of the history.

        Each names the fault, then a colon, then the figures: `fit` says the same fault once.
        """
        return []

    def forward(self, batch: Batch) -> Tensor:
        """The loss of a batch, in nats per item."""
        raise NotImplementedError


class MaximumLikelihood(Objective):
    """Mean negative log-likelihood: -1/n Σ log p(x_i), in nats per item.

    A model that says ``density = "exact"`` is asked for its ``log_prob``, which spares the handlers; any
    other is run as a program, and must have no latent sites.

    Example:
        >>> import pyro, pyro.distributions as dist
        >>> def coin(x):
        ...     p = pyro.param("p", torch.tensor(0.5), constraint=dist.constraints.unit_interval)
        ...     with pyro.plate("data", len(x)):
        ...         pyro.sample("x", dist.Bernoulli(p), obs=x)
        >>> round(MaximumLikelihood(coin)(torch.ones(4)).item(), 4)
        0.6931
    """

    @property
    def is_exact(self) -> bool:
        """Whether the model gives its density itself, what is latent in it integrated out."""
        return getattr(self.program.source[0], "density", None) == "exact"

    @override
    def prepare(self, batch: Batch) -> Structure:
        structure = super().prepare(batch)
        if not self.is_exact:
            _refuse_latent(structure.latent)
        return structure

    @override
    def forward(self, batch: Batch) -> Tensor:
        args = arguments(batch)
        if self.is_exact:
            return -self.program.source[0].log_prob(*args).mean()
        structure = self.program.structure or self.prepare(batch)
        with self.program.scope():
            sites = self.program.run(self.program.model, args)
        _refuse_latent([name for name, site in sites.items() if not site["is_observed"]])
        return -_total([log_prob(site).sum() for site in sites.values()]) / (
            structure.population or len(args[0])
        )


def _refuse_latent(names: Iterable[str]) -> None:
    if names:
        raise ValueError(
            f"maximum likelihood expects a model without latent sites, got {', '.join(names)}; "
            "use ELBO or ImportanceWeighted"
        )


class _ParticleObjective(Objective):
    """An objective that draws several particles from the guide for each item."""

    def __init__(self, model: Any, guide: Callable[..., Any] | None, *, num_particles: int) -> None:
        super().__init__(model, guide)
        check_counts(num_particles=num_particles)
        self.num_particles = num_particles

    @override
    def extra_repr(self) -> str:
        return f"num_particles={self.num_particles}"


class ELBO(_ParticleObjective):
    """Negative evidence lower bound: E_q[log q(z | x) - log p(x, z)], in nats per item.

    Reparameterised, with the KL divergence between guide and prior analytic where Pyro knows it and the guide
    draws its sites in the model's order. Latent sites that the guide, or the model alone, marks with
    ``infer={"enumerate": "parallel"}`` are summed out exactly; where a latent site has no reparameterisation,
    its gradient is the score-function one.

    Where the programs have global latent sites, let their data plate know how many items there are in all,
    ``pyro.plate("data", num, subsample=x)``: the bound is then scaled to all of them, and divided by ``num``.

    ``gradient`` asks for one estimator of the gradient; the value is the bound under each. The three by the
    score take f = log p(x, z) - log q(z | x) of each item, and draw every latent site without gradient.

    ``"reparameterized"``: through the draws z(ε, φ), for every site.

    ``"score-function"``: f ∇log q(z | x) + ∇f. Unbiased for any program, and of huge variance.

    ``"baseline"``: f less its mean over past steps, a buffer that training updates after its use.

    ``"leave-one-out"``: f less its mean over the item's other particles.

    ``"enumerated"``: exact, every latent site summed out.

    With ``warm_up`` = N, training step t, from 0, weighs log q(z | x) - log p(z) by min(1, t / N). It starts
    with the reconstruction alone, so that all sites of a hierarchy are in use before the upper ones can fall
    back on their priors. In evaluation, as `fit` validates, the weight is 1, and the figure a bound.

    Args:
        model: An object with ``.model`` and ``.guide``, or a Pyro program.
        guide: The guide, where ``model`` is a program.
        num_particles: Draws from the guide for each item and step; with more than one, the programs must
            carry an extra dimension on the left.
        gradient: One of the above; None takes for each site what it has, as said at first.
        warm_up: Training steps until the latent terms count in full; 0 is from the first on. Counted in a
            buffer. It takes draws with a gradient for every site.

    Raises:
        ValueError: If ``num_particles`` is below 1, or 2 for ``"leave-one-out"``, or ``gradient`` is none of
            them, or ``warm_up`` is negative or comes with one of the last four; at the first batch, if these
            programs cannot take it.

    References:
        | Auto-Encoding Variational Bayes (Kingma & Welling, 2014), equations 3 and 7
        | Black Box Variational Inference (Ranganath, Gerrish & Blei, 2014), equation 2
        | Variational Inference for Monte Carlo Objectives (Mnih & Rezende, 2016), section 2.4: leave-one-out
        | Ladder Variational Autoencoders (Sønderby, Raiko, Maaløe, Sønderby & Winther, 2016): warm-up

    Example:
        >>> import pyro.distributions as dist
        >>> def model(x):
        ...     with pyro.plate("data", len(x)):
        ...         z = pyro.sample("z", dist.Bernoulli(0.5))
        ...         pyro.sample("x", dist.Normal(z, 1.0), obs=x)
        >>> def guide(x):
        ...     logit = pyro.param("logit", torch.tensor(0.3))
        ...     with pyro.plate("data", len(x)):
        ...         pyro.sample("z", dist.Bernoulli(logits=logit + x))
        >>> x = torch.tensor([-1.0, 2.0])
        >>> loss = ELBO(model, guide, num_particles=4, gradient="leave-one-out")(x)
        >>> round(ELBO(model, guide, gradient="enumerated")(x).item(), 2)
        1.96
    """

    baseline: Tensor
    baseline_steps: Tensor
    warm_up_steps: Tensor

    def __init__(
        self,
        model: Any,
        guide: Callable[..., Any] | None = None,
        *,
        num_particles: int = 1,
        gradient: Gradient | None = None,
        warm_up: int = 0,
    ) -> None:
        super().__init__(model, guide, num_particles=num_particles)
        _check_choice("gradient", gradient, get_args(Gradient))
        if not isinstance(warm_up, int) or isinstance(warm_up, bool) or warm_up < 0:
            raise ValueError(f"warm_up must be a number of steps, at least 0, got {warm_up!r}")
        if warm_up and gradient not in (None, "reparameterized"):
            raise ValueError(
                f'warm_up expects gradient=None or "reparameterized", got {warm_up} steps and "{gradient}"'
            )
        if gradient == "leave-one-out" and num_particles < 2:
            raise ValueError(
                f'num_particles must be at least 2 for gradient="leave-one-out", got {num_particles}'
            )
        self.gradient = gradient
        if gradient == "baseline":
            self.register_buffer("baseline", torch.zeros(()))
            self.register_buffer("baseline_steps", torch.zeros((), dtype=torch.long))
            self.compilable = False  # a graph would hold the buffer as it was when traced
        self.warm_up = warm_up
        if warm_up:
            self.register_buffer("warm_up_steps", torch.zeros((), dtype=torch.long))

    @property
    def latent_weight(self) -> Tensor | float:
        """What the latent terms count by at the next step: below 1 in training alone, during the warm-up."""
        if not (self.warm_up and self.training and torch.is_grad_enabled()):
            return 1.0
        return (self.warm_up_steps / self.warm_up).clamp(max=1.0)

    @override
    def extra_repr(self) -> str:
        chosen = "" if self.gradient is None else f", gradient={self.gradient}"
        warm = f", warm_up={self.warm_up}" if self.warm_up else ""
        return f"{super().extra_repr()}{chosen}{warm}"

    @override
    def prepare(self, batch: Batch) -> Structure:
        structure = super().prepare(batch)
        if structure.unguided:
            raise ValueError(
                f"the guide lacks latent sites of the model: {', '.join(structure.unguided)}; "
                "draw them there, or enumerate them in the model"
            )
        if self.gradient is not None or self.warm_up:
            with forked_rng(), torch.no_grad(), self.program.scope():
                drawn = self.program.run(self.program.guide, arguments(batch))
            if self.gradient is not None:
                refuse_gradient(self.gradient, structure, drawn)
            if self.warm_up:
                _refuse_warm_up(structure, drawn)
        return structure

    @override
    def forward(self, batch: Batch) -> Tensor:
        structure = self.program.structure or self.prepare(batch)
        args = arguments(batch)
        if self.gradient in BY_SCORE:
            return self._by_score(args)
        num = structure.population or len(args[0])
        with self.program.scope():
            model, guide = self.program.model, self.program.guide
            num_particles = self.num_particles
            if self.gradient == "enumerated":  # and every particle would be the same
                guide, num_particles = poutine.infer_config(guide, _enumerate), 1
            summed_guide = guide
            if num_particles > 1:
                particles = pyro.plate("_particles", num_particles, dim=-1 - structure.plate_nesting)
                model, guide = particles(model), particles(guide)
            # Which sites there are may differ between batches, for instance where labels are missing.
            drawn = self.program.run(guide, args)
            if self.gradient is not None:
                refuse_gradient(self.gradient, structure, drawn)
            enumerated = bool(structure.summed_out) or any(map(is_enumerated, drawn.values()))
            if can_be_reparameterized(drawn) and not enumerated:
                sites = self.program.run(model, args, drawn=drawn)
                loss = _reparameterized(sites, drawn, self.latent_weight) / (num_particles * num)
                if self.warm_up and self.training and torch.is_grad_enabled():
                    self.warm_up_steps += 1
                return loss
            if self.warm_up:
                _refuse_warm_up(structure, drawn)
            elbo = (TraceEnum_ELBO if enumerated else Trace_ELBO)(
                num_particles=num_particles,
                vectorize_particles=num_particles > 1,
                max_plate_nesting=structure.plate_nesting,
            )
            loss = elbo.differentiable_loss if torch.is_grad_enabled() else elbo.loss
            return torch.as_tensor(loss(self.program.model, summed_guide, *args)) / num

    def _by_score(self, args: tuple[Tensor, ...]) -> Tensor:
        particles = draw_particles(self.program, args, self.num_particles, cut=Cut())
        f = (particles.log_p - particles.log_q).detach()
        if self.gradient == "leave-one-out":
            return -score_function_bound(particles, mean_of_the_others(f))
        if self.gradient == "score-function":
            return -score_function_bound(particles)
        loss = -score_function_bound(particles, self.baseline.clone())
        if self.training:  # after its use: what the draw itself has a part in would bias its gradient
            self.baseline_steps += 1
            rate = max(1 - BASELINE_DECAY, 1 / self.baseline_steps.item())
            self.baseline.lerp_(f.mean().to(self.baseline), rate)
        return loss


def _enumerate(site: Any) -> dict[str, Any]:
    return {} if site["is_observed"] else {"enumerate": "parallel"}


def _refuse_warm_up(structure: Structure, drawn: dict[str, Any]) -> None:
    counted = [name for name, site in drawn.items() if is_enumerated(site)] + list(structure.summed_out)
    latent = {name: site["fn"] for name, site in drawn.items() if not site["is_observed"]}
    fixed = [name for name, fn in latent.items() if not getattr(fn, "has_rsample", False)]
    for names, what in ((counted, "is summed out"), (fixed, "cannot be reparameterised")):
        if names:
            raise ValueError(
                f"warm_up expects latent sites that are drawn with a gradient, got {names[0]}, which {what}; "
                "leave it at 0"
            )


def _check_choice(name: str, value: Any, choices: tuple[str, ...]) -> None:
    if value is not None and value not in choices:
        raise ValueError(f"{name} must be None or one of {', '.join(choices)}, got {value!r}")


def _reparameterized(
    sites: dict[str, Any], guide_sites: dict[str, Any], latent_weight: Tensor | float = 1.0
) -> Tensor:
    """What Pyro's TraceMeanField_ELBO computes, at half its cost, summed over particles and items.

    Pyro's also scores every latent site under model and guide where the divergence is analytic, and reads the
    loss back as a number, which a traced graph cannot do; and it has no weight for the terms of latent sites.
    """
    shared = [name for name in sites if name in guide_sites]
    # log p(z_1 | z_2) may be averaged over q(z_1) alone only where z_2 was not drawn from z_1.
    same_order = shared == [name for name in guide_sites if name in sites]

    def weighted(term: Tensor) -> Tensor:
        return latent_weight * term if isinstance(latent_weight, Tensor) else term

    terms = [weighted(log_prob(site).sum()) for name, site in guide_sites.items() if name not in sites]
    for name, site in sites.items():
        posterior = guide_sites.get(name)
        divergence = _analytic_divergence(posterior["fn"], site["fn"]) if posterior and same_order else None
        if divergence is not None:
            terms.append(weighted(scale_and_mask(divergence, posterior["scale"], posterior["mask"]).sum()))
        elif posterior:
            terms.append(weighted(-log_prob(site).sum()))
            terms.append(weighted(log_prob(posterior).sum()))
        else:
            terms.append(-log_prob(site).sum())
    return _total(terms)


def _analytic_divergence(q: Any, p: Any) -> Tensor | None:
    if is_point_mass(q):  # Pyro's formula leaves out the density that an AutoGuide puts on its points
        return None
    try:
        return kl_divergence(q, p)
    except NotImplementedError:
        return None


def _total(terms: list[Tensor]) -> Tensor:
    return sum(terms[1:], terms[0]) if terms else torch.zeros(())


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
                "a supervised ELBO expects programs with an argument y and a classifier, got "
                f"{type(model).__name__}"
            )
        self.classifier = [classifier]  # in a list: a method is no module, and its module may be the model
        self.classifier_owner = owner_of(classifier)
        self.weight = weight

    @override
    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, weight={self.weight}"

    @override
    def forward(self, batch: Batch) -> Tensor:
        x, *labels = arguments(batch)
        loss = super().forward(batch)
        if not labels:
            return loss
        return loss + self.weight * mean_over_known(self.classifier[0](x), labels[0])


class CrossEntropy(nn.Module):
    """Mean negative log-probability of the labels under a classifier, -1/n Σ log q(y_i | x_i): nats per item.

    Args:
        classifier: A module, or a method of one, that gives the logits of a batch of items, shape
            ``(batch, classes)``.

    Example:
        >>> loss = CrossEntropy(nn.Linear(3, 2))
        >>> loss((torch.zeros(4, 3), torch.tensor([0, 1, 1, 0]))).shape
        torch.Size([])
    """

    takes_labels = True

    def __init__(self, classifier: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.classifier = [classifier]
        self.classifier_owner = owner_of(classifier)

    def check(self, batch: Batch) -> None:
        """Checks that there are labels.

        Raises:
            ValueError: If there are none, or the items hold NaN.
        """
        args = arguments(batch)
        if len(args) != 2:
            raise ValueError(f"a cross-entropy expects items and their labels, got {len(args)} tensors")
        check_items(None, *args)

    def forward(self, batch: Batch) -> Tensor:
        """The loss of a batch ``(x, y)``; labels of -1 are passed over, and none but those is a loss of 0."""
        x, y = arguments(batch)
        return mean_over_known(self.classifier[0](x), y)


def mean_over_known(logits: Tensor, y: Tensor) -> Tensor:
    """Cross-entropy of the labels that are not -1; 0 where all are."""
    return cross_entropy(logits, y, ignore_index=-1, reduction="sum") / (y >= 0).sum().clamp(min=1)


class ImportanceWeighted(_ParticleObjective):
    """Negative importance-weighted bound: -E[log 1/K Σ_k p(x, z_k) / q(z_k | x)], in nats per item.

    K = 1 is the ELBO; the bound tightens with K and tends to log p(x). The weights are kept for each item, so
    every site must lie inside one full plate over the batch.

    ``"reparameterized"``: the bound's own gradient, which learns less and less of the guide as K grows.

    ``"doubly-reparameterized"``: the same mean. The guide's part, with w~_k = w_k / Σ_j w_j, becomes
    Σ_k w~_k² ∂log w_k/∂z_k dz_k/dφ, without the score of z, whose signal to noise falls with K. It holds
    for sites that depend on each other, and for parameters that guide and model share.

    Args:
        model: An object with ``.model`` and ``.guide``, or a Pyro program.
        guide: The guide, where ``model`` is a program.
        num_particles: K, at least 1.
        gradient: One of the above; None is the first.

    Raises:
        ValueError: If ``num_particles`` is below 1 or ``gradient`` none of them, or, at the first batch, if a
            site lies outside the data plate or a latent one cannot be reparameterised.

    References:
        | Importance Weighted Autoencoders (Burda, Grosse & Salakhutdinov, 2016), equation 8
        | https://arxiv.org/abs/1509.00519
        | Doubly Reparameterized Gradient Estimators for Monte Carlo Objectives (Tucker, Lawson, Gu &
          Maddison, 2019), section 4.1
    """

    def __init__(
        self,
        model: Any,
        guide: Callable[..., Any] | None = None,
        *,
        num_particles: int = 50,
        gradient: Literal["reparameterized", "doubly-reparameterized"] | None = None,
    ) -> None:
        super().__init__(model, guide, num_particles=num_particles)
        _check_choice("gradient", gradient, ("reparameterized", "doubly-reparameterized"))
        self.gradient = gradient

    @override
    def extra_repr(self) -> str:
        chosen = "" if self.gradient is None else f", gradient={self.gradient}"
        return f"{super().extra_repr()}{chosen}"

    @override
    def prepare(self, batch: Batch) -> Structure:
        structure = super().prepare(batch)
        check_structure(structure)
        if not structure.reparameterized:
            raise ValueError(f"{NOT_REPARAMETERIZED}; one of {', '.join(structure.latent)} cannot")
        return structure

    @override
    def forward(self, batch: Batch) -> Tensor:
        if self.program.structure is None:
            self.prepare(batch)
        args = arguments(batch)
        if self.gradient == "doubly-reparameterized":
            cut = Cut()
            particles = draw_particles(self.program, args, self.num_particles, cut=cut, reparameterized=True)
            return -doubly_reparameterized_bound(particles, cut)
        weights = log_weights(self.program, *args, num_particles=self.num_particles, reparameterized=True)
        return math.log(self.num_particles) - weights.logsumexp(dim=0).mean()


def check_items(model: Any, *args: Tensor) -> None:
    """Checks items by the model's own ``check`` where it has one, else for NaN alone.

    Raises:
        ValueError: If they do not pass.
    """
    if hasattr(model, "check"):
        model.check(*args)
        return
    for values in args:
        if isinstance(values, Tensor) and (values.dim() == 0 or len(values) == 0):
            raise ValueError(f"expected at least one item, got a tensor of shape {tuple(values.shape)}")
        if not isinstance(values, Tensor):
            raise ValueError(f"expected a tensor of items, got {type(values).__name__}")
        if values.is_floating_point() and values.isnan().any():
            raise ValueError(f"expected numbers, got NaN in {int(values.isnan().sum())} of the entries")


def _signature(function: Callable[..., Any]) -> inspect.Signature:
    return inspect.signature(function.forward if isinstance(function, nn.Module) else function)
