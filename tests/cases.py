"""The tiny instances that the conformance suite runs on: at least one for each model of the zoo.

A new model needs one `Case` here, with an item small enough to enumerate or integrate. Which tests apply
follows from the model's density and from the flags of its case.
"""

import math
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.distributions import constraints
from torch import Tensor, nn

import inference
from zoo import GenerativeModel
from zoo.autoregressive.autoregressive import Autoregressive
from zoo.autoregressive.masked_convolution import MaskedConv2d
from zoo.autoregressive.pixels import Pixels
from zoo.cli.recipe import OBJECTIVES
from zoo.flows import MLP, Flow, ResidualNetwork
from zoo.registry import model_class
from zoo.undirected import BoltzmannMachine

Batch = tuple[Tensor, ...]
"""What the programs of a model are called with: ``(x,)``, or ``(x, y)``."""

GRID = torch.linspace(-9, 9, 73)
"""Values that stand for the real line, where a real entry is integrated."""


class Coins(GenerativeModel):
    """Independent coins: the least that keeps the contract, with an exact density and nothing latent."""

    density = "exact"
    support = constraints.boolean
    recipes = {"digits": {"model": {}, "objective": "maximum-likelihood", "fit": {}}}

    def __init__(self, event_shape: tuple[int, ...]) -> None:
        super().__init__(event_shape)
        self.logits = nn.Parameter(torch.zeros(self.event_shape))

    def entries(self) -> dist.Distribution:
        return dist.Bernoulli(logits=self.logits).to_event(len(self.event_shape))

    def model(self, x: Tensor | None = None, *, num: int = 1) -> Tensor:
        pyro.module(self.name, self)
        with pyro.plate("data", num if x is None else len(x)):
            return pyro.sample("x", self.entries(), obs=x)

    def _sample(self, num: int) -> Tensor:
        return self.entries().sample((num,))

    def log_prob(self, x: Tensor) -> Tensor:
        return self.entries().log_prob(x)


def any_items(model: GenerativeModel, num: int) -> Tensor:
    """Items from all over the support, in the type of the model's parameters."""
    shape = (num, *model.event_shape)
    if isinstance(model.support, type(constraints.integer_interval(0, 1))):
        return torch.randint(model.support.lower_bound, model.support.upper_bound + 1, shape)
    dtype = next(model.parameters()).dtype
    if model.support is constraints.real:
        return torch.randn(shape, dtype=dtype)
    return torch.randint(2, shape).to(dtype)


def ended_items(model: GenerativeModel, num: int) -> Tensor:
    """Items from anywhere, with nothing but the symbol that ends them after its first."""
    x = any_items(model, num)
    return x.masked_fill((x == model.end).cumsum(-1) > 0, model.end)


def as_it_is(model: GenerativeModel) -> None:
    """Leaves the weights alone."""


def wide_posterior(model: GenerativeModel) -> None:
    """Gives an autoencoder's q(z | x) a scale of about 1.7 and a location near 0: weights stay bounded."""
    last = model.encoder.head[-1]
    last.weight *= 0.3
    last.bias *= 0.3
    last.bias[model.latent_dim :] += 1.5


def wide_posteriors(model: GenerativeModel) -> None:
    """The same for every layer of a hierarchy, whose p(z_l | z_{l+1}) becomes about as wide as a half."""
    for encoder, dim in zip(model.encoders, model.latent_dims, strict=True):
        last = encoder.head[-1]
        last.weight *= 0.3
        last.bias *= 0.3
        last.bias[dim:] += 1.5
    for decoder in model.decoders[1:]:
        last = decoder.layers[-1]
        last.weight *= 0.3
        last.bias *= 0.3


def bell_shaped(model: GenerativeModel) -> None:
    """Gives an RNADE's components a deviation of about a half: wide for the steps of `GRID`."""
    V = model.V.unflatten(1, (3, -1))  # logits, locations, log-scales
    b = model.b.view(V.shape[:3])
    V[:, 1:] *= 0.2
    b[:, 2] = 0.2 * b[:, 2] - (0.6 if model.mixture == "gaussian" else 1.2)


def narrow(model: GenerativeModel) -> None:
    """Makes what a flow draws a third as wide: to lie on `GRID`, or in the cells of levels.

    The prior is where a flow starts, so that its first linear layer says how wide it is.
    """
    for name, param in model.named_parameters():
        if name.endswith("log_diagonal"):  # of a matrix that items are multiplied with
            param += 1.1
        elif name.endswith("log_scale"):
            param -= 1.1


def lively(model: GenerativeModel) -> None:
    """Lifts the hidden units of a flow's networks, so that some item reaches each."""
    for network in model.modules():
        if isinstance(network, MLP | ResidualNetwork):
            *hidden, _ = (part for part in network.modules() if isinstance(part, nn.Linear | nn.Conv2d))
            for part in hidden:
                part.bias += 0.7


def audible(model: GenerativeModel) -> None:
    """Lifts what the layers of a WaveNet say: some item reaches each rectifier, and no draw is certain."""
    model.skip.bias += 1.0
    model.head[1].bias += 2.0
    model.head[3].weight *= 0.4


def heard(model: GenerativeModel) -> None:
    """Lifts the hidden units in the head of a PixelRNN: some item reaches each, and no draw is sure."""
    model.layers[-1].out_of.bias += 1.5
    for convolution in model.head:
        convolution.weight *= 0.3
    model.head[0].bias += 2.0
    if model.num_params == 1:
        y = () if model.num_classes is None else (torch.tensor(0),)
        model.head[1].bias -= model.params(model.in_scan_order(any_items(model, 50)), *y).mean()


def awake(model: GenerativeModel) -> None:
    """Has some image reach each unit of a PixelCNN; its outputs are then made about as wide as a half."""
    *hidden, last = (part for part in model.modules() if isinstance(part, MaskedConv2d))
    for part in hidden:
        if part.bias is not None:
            part.bias += 0.6
    for name, part in model.named_modules():
        if name.endswith("head.0") or re.search(r"\.into\.|\.out_of\.|\.masked\.[1-9]", name):
            part.weight.abs_().mul_(0.4)  # what comes in has gone through a ReLU
    labels = () if model.num_classes is None else (torch.tensor(0),)
    outputs = model.params(model.in_scan_order(any_items(model, 50)), *labels)
    last.weight *= 0.5 / outputs.std().clamp(min=1e-3)  # a single pixel has one output
    last.bias -= model.params(model.in_scan_order(any_items(model, 50)), *labels).mean()


def narrow_and_lively(model: GenerativeModel) -> None:
    """Both."""
    narrow(model)
    lively(model)


def gentle(model: GenerativeModel) -> None:
    """Gives a MintNet slopes of about one: what it draws is then wide for the steps of `GRID`."""
    for name, param in model.named_parameters():
        if name.endswith("log_t"):
            param -= 0.4


def experienced(model: GenerativeModel) -> None:
    """Gives a machine means that it might have seen, so that the offsets of a centred one differ."""
    for name, mean in model.named_buffers():
        if name.startswith("mean_"):
            mean.uniform_(0.2, 0.8)


@dataclass(frozen=True)
class Case:
    """One tiny instance of a model.

    Attributes:
        name: The model's name on the command line.
        variant: Which of its cases this is.
        arguments: What the instance is built with.
        wrong: Arguments that the constructor must refuse, each alone in place of its own.
        labels: ``"given"``, ``"some"`` or ``"none"`` of them where a model has labels, else ``""``.
        countable: Whether the items can be enumerated, or integrated on `GRID`.
        untouched: Prefixes of the parameters that the ELBO of such a batch does not involve.
        particles: How many a likelihood by importance sampling takes here.
        spread: How far the weights are moved from where they start, so that none is zero or like another.
        adjust: What is then done to some: for instance to make the guide wider than the posterior, because
            a narrow one's weights have no finite variance.
        items: Draws items that the model accepts, where `any_items` does not suit it.
        reach: How many variables before its own, along the scan, a conditional of a sequential model depends
            on; None is all of them.
        smooth: Whether that dependence shows as a gradient by the values, rather than a choice among tables.
        slack: How far a sum over `GRID` may be off one: more where the density has kinks.
        drawing: What `GenerativeModel.sample` is called with besides, where it would take long.
        single_shape: Shape of an item of one variable.
        view: What of an instance the suite runs on, if not on all of it.
    """

    name: str
    variant: str
    arguments: dict[str, Any]
    wrong: tuple[dict[str, Any], ...] = ()
    labels: str = ""
    countable: bool = True
    untouched: tuple[str, ...] = ()
    particles: int = 4000
    spread: float = 0.5
    adjust: Callable[[GenerativeModel], None] = as_it_is
    items: Callable[[GenerativeModel, int], Tensor] = any_items
    reach: int | None = None
    smooth: bool = True
    slack: float = 1e-5
    drawing: dict[str, Any] = field(default_factory=dict)
    single_shape: tuple[int, ...] = (1,)
    view: Callable[[GenerativeModel], GenerativeModel] | None = None

    def __str__(self) -> str:
        return f"{self.name}-{self.variant}"

    @property
    def cls(self) -> type[GenerativeModel]:
        return Coins if self.name == "coins" else model_class(self.name)

    @property
    def is_sequential(self) -> bool:
        """Whether the program has a site for each variable, unless it is given all of them as ``x``."""
        return issubclass(self.cls, Autoregressive)

    @property
    def has_label_argument(self) -> bool:
        """Whether its programs take labels, if only to refuse them."""
        may_have = self.is_machine or issubclass(self.cls, Pixels)
        return bool(self.labels) or (may_have and self.view is None)

    @property
    def is_flow(self) -> bool:
        """Whether it is a prior and a transform."""
        return issubclass(self.cls, Flow)

    @property
    def is_machine(self) -> bool:
        """Whether it is a Boltzmann machine, whose program scores and does not draw."""
        return issubclass(self.cls, BoltzmannMachine)

    def build(self, **other: Any) -> GenerativeModel:
        model = self.cls(**{**self.arguments, **other})
        with torch.no_grad():
            for param in model.parameters():
                param += self.spread * torch.randn_like(param)
            self.adjust(model)
        return model if self.view is None else self.view(model)

    def batch(self, model: GenerativeModel, num: int) -> Batch:
        """What the programs of this case are called with."""
        return self._labelled(model, self.items(model, num))

    def draw(self, model: GenerativeModel, num: int) -> Batch:
        """Draws from the model what `batch` draws from anywhere, labels included."""
        if self.labels != "given":
            return (self.sample(model, num),)
        y = torch.randint(model.num_classes, (num,))
        return self.sample(model, num, y=y), y

    def sample(self, model: GenerativeModel, num: int, **conditions: Any) -> Tensor:
        """Draws from the model."""
        return model.sample(num, **self.drawing, **conditions)

    def every_item(self, model: GenerativeModel) -> tuple[Batch, float]:
        """All that a batch of one can be, and the volume that each stands for."""
        levels = GRID
        if model.support is not constraints.real:
            levels = torch.arange(self.levels(model))
            levels = levels.float() if model.support is constraints.boolean else levels
        x = torch.cartesian_prod(*[levels] * model.event_shape.numel()).reshape(-1, *model.event_shape)
        volume = (GRID[1] - GRID[0]).item() ** model.event_shape.numel() if levels is GRID else 1.0
        if self.labels != "given":
            return self._labelled(model, x), volume
        y = torch.arange(model.num_classes).repeat_interleave(len(x))
        return (torch.cat([x] * model.num_classes), y), volume

    def levels(self, model: GenerativeModel) -> int:
        """How many values an entry is counted in."""
        if model.support is constraints.real:
            return len(GRID)
        return 2 if model.support is constraints.boolean else model.support.upper_bound + 1

    def cell(self, model: GenerativeModel, batch: Batch) -> Tensor:
        """Where each item of a batch stands in `every_item`."""
        entries = batch[0].flatten(1)
        if model.support is constraints.real:
            entries = ((entries - GRID[0]) / (GRID[1] - GRID[0])).round().clamp(0, len(GRID) - 1)
        place = batch[1] if self.labels == "given" else torch.zeros(len(entries), dtype=torch.int64)
        for entry in entries.long().unbind(1):
            place = self.levels(model) * place + entry
        return place

    def objective(self, model: GenerativeModel) -> inference.Objective:
        """What the first recipe that suits the model's density minimises, or else what suits it.

        A warm-up is over: its first step has no gradient of what lies between guide and prior alone.
        """
        plain = {"objective": "maximum-likelihood" if model.density == "exact" else "elbo"}
        suits = [
            recipe
            for recipe in model.recipes.values()
            if (recipe["objective"] == "maximum-likelihood") == (model.density == "exact")
        ]
        recipe = next(iter(suits), plain)
        cls = getattr(inference, OBJECTIVES[recipe["objective"]])
        objective = cls(model, **recipe.get("objective_arguments", {}))
        if getattr(objective, "warm_up", 0):
            objective.warm_up_steps.fill_(objective.warm_up)
        return objective

    def _labelled(self, model: GenerativeModel, x: Tensor) -> Batch:
        if self.labels in ("", "none"):
            return (x,)
        y = torch.arange(len(x)) % model.num_classes
        return x, torch.where(torch.arange(len(x)) % 3 == 0, -1, y) if self.labels == "some" else y


_AUTOENCODER = (
    {"latent_dim": 0},
    {"likelihood": "poisson"},
    {"network": "transformer"},
    {"network": "conv", "event_shape": (6,)},
    {"network": "conv", "event_shape": (1, 1, 2, 3)},
    {"activation": "gelu"},
    {"hidden": ()},
    {"hidden": (4, 0)},
)
_TINY = {"event_shape": (2, 3), "latent_dim": 2, "hidden": (5,), "activation": "tanh"}
_LABELLED = {**_TINY, "num_classes": 3}

_ORDERS = ({"order": (0, 1, 2)}, {"order": (0, 0, 1, 2, 3, 4)}, {"order": (1, 2, 3, 4, 5, 6)})
_LEVELS = (*_ORDERS, {"num_levels": 1})
_HIDDEN = (*_ORDERS, {"hidden": 0})
_SIX = {"event_shape": (2, 3)}
_SIX_SCRAMBLED = {"event_shape": (2, 3), "order": (4, 0, 5, 2, 1, 3)}
_CHARACTERS = {"event_shape": (4,), "num_levels": 3, "hidden": 5}
_FOUR_SCRAMBLED = {"event_shape": (2, 2), "order": (2, 0, 3, 1)}
_PIXELS = (
    {"event_shape": (6,)},
    {"event_shape": (1, 1, 2, 3)},
    {"num_levels": 1},
    {"output": "gaussian"},
    {"components": 0},
    {"num_classes": 1},
    {"hidden": 0},
    {"layers": 0},
    {"dropout": 1.0},
)

# A flow draws numbers beyond the outer cells, too, which its guide, uniform in the cell of each level, never
# gives: the bound lacks their mass. An offset of 1e-3 lets it draw them where a standard normal number is
# beyond 6.9; without a logit, levels must be many, and what it draws narrow.
_FLOW = ({"prior": "laplace"}, {"num_levels": 1})
_REAL = (*_FLOW, {"offset": 0.1})
_LOGIT = {"num_levels": 3, "offset": 1e-3}
_MACHINE = ({"visible": "poisson"}, {"num_classes": 1})
_QUICK: dict[str, Any] = {"drawing": {"sweeps": 10}}
_WAVENET = {"num_levels": 3, "residual_channels": 4, "skip_channels": 5}
_OFFSETS = (*_FLOW, {"offset": 0.5}, {"offset": -0.1}, {"num_levels": None})

CASES = (
    Case("coins", "exact", {"event_shape": (2, 3)}),
    Case("vae", "bernoulli", _TINY, wrong=_AUTOENCODER, adjust=wide_posterior),
    Case(
        "vae",
        "gaussian",
        {**_TINY, "event_shape": (2,), "likelihood": "gaussian"},
        particles=400,
        spread=0.3,
        adjust=wide_posterior,
    ),
    Case(
        "vae",
        "conv",
        {**_TINY, "network": "conv", "hidden": (3, 4), "activation": "silu"},
        adjust=wide_posterior,
    ),
    Case(
        "vae",
        "conv-colour",
        {**_TINY, "event_shape": (3, 6, 5), "network": "conv", "hidden": (3, 4), "likelihood": "gaussian"},
        countable=False,
        spread=0.1,
        adjust=wide_posterior,
    ),
    Case(
        "supervised-vae",
        "labelled",
        _LABELLED,
        wrong=(*_AUTOENCODER, {"num_classes": 1}),
        labels="given",
        untouched=("classify",),
        adjust=wide_posterior,
    ),
    Case(
        "supervised-vae", "partly-labelled", _LABELLED, labels="some", countable=False, adjust=wide_posterior
    ),
    Case("supervised-vae", "unlabelled", _LABELLED, labels="none", adjust=wide_posterior),
    Case(
        "supervised-vae",
        "gaussian-conv",
        {**_LABELLED, "event_shape": (1, 4, 5), "network": "conv", "hidden": (4,), "likelihood": "gaussian"},
        labels="some",
        countable=False,
        spread=0.1,
        adjust=wide_posterior,
    ),
    Case("aae", "bernoulli", _TINY, wrong=({"latent_dim": 0},), adjust=wide_posterior),
    Case("wae", "bernoulli", {**_TINY, "activation": "silu"}, wrong=({"hidden": ()},), adjust=wide_posterior),
    Case(
        "hierarchical-vae",
        "ladder",
        {
            **{"event_shape": (2, 3), "latent_dims": (3, 2, 1), "posterior": "ladder"},
            **{"hidden": ((5, 4), (4,), (3,)), "activation": "tanh"},
        },
        wrong=(
            {"latent_dims": ()},
            {"latent_dims": (2, 0, 1)},
            {"posterior": "top-down"},
            {"hidden": ()},
            {"hidden": (4, 0)},
            {"hidden": ((5,), (4,))},
            {"likelihood": "poisson"},
            {"activation": "gelu"},
        ),
        adjust=wide_posteriors,
    ),
    Case(
        "hierarchical-vae",
        "bottom-up",
        {
            **{"event_shape": (2,), "latent_dims": (2, 1), "posterior": "bottom-up", "hidden": (4,)},
            **{"likelihood": "gaussian", "activation": "tanh"},
        },
        particles=400,
        spread=0.3,
        adjust=wide_posteriors,
    ),
    Case(
        "gan",
        "binary",
        _TINY,
        wrong=(
            {"latent_dim": 0},
            {"output": "levels"},
            {"hidden": ()},
            {"hidden": (4, 0)},
            {"network": "transformer"},
            {"activation": "gelu"},
        ),
    ),
    Case(
        "gan",
        "conv-real",
        {"event_shape": (3, 4), "hidden": (3,), "network": "conv", "output": "real", "activation": "silu"},
    ),
    Case(
        "gaussian-mixture",
        "full",
        {"event_shape": (2,), "num_components": 3},
        wrong=(
            {"num_components": 0},
            {"covariance": "round"},
            {"pseudo_count": -1.0},
            {"pseudo_count": math.inf},
            {"prior_scale": 0.0},
        ),
    ),
    Case("gaussian-mixture", "tied", {"event_shape": (1, 2), "num_components": 3, "covariance": "tied"}),
    Case(
        "gaussian-mixture", "diagonal", {"event_shape": (2,), "num_components": 3, "covariance": "diagonal"}
    ),
    Case(
        "gaussian-mixture", "spherical", {"event_shape": (2,), "num_components": 3, "covariance": "spherical"}
    ),
    Case(
        "bernoulli-mixture",
        "image",
        {"event_shape": (2, 3), "num_components": 4},
        wrong=({"num_components": 0}, {"pseudo_count": -0.5}),
    ),
    Case("bernoulli-mixture", "vector", {"event_shape": (5,), "num_components": 2, "pseudo_count": 1.0}),
    Case(
        "ppca",
        "vector",
        {"event_shape": (2,), "latent_dim": 1},
        wrong=({"latent_dim": 0}, {"latent_dim": 2}),
        spread=0.3,
    ),
    Case("ppca", "image", {"event_shape": (2, 3), "latent_dim": 2}, countable=False),
    Case("independent", "binary", _SIX, wrong=_LEVELS, reach=0, smooth=False),
    Case("independent", "levels", {**_FOUR_SCRAMBLED, "num_levels": 3}, reach=0, smooth=False),
    Case("markov-chain", "binary", _SIX_SCRAMBLED, wrong=_LEVELS, reach=1, smooth=False),
    Case("markov-chain", "levels", {"event_shape": (4,), "num_levels": 3}, reach=1, smooth=False),
    Case(
        "markov-chain",
        "levels-scrambled",
        {**_FOUR_SCRAMBLED, "num_levels": 3},
        wrong=({"order": (0, 1, 2, 4)},),
        reach=1,
        smooth=False,
    ),
    Case(
        "full-joint",
        "natural",
        {"event_shape": (4,)},
        wrong=({"event_shape": (21,)}, {"event_shape": (3, 7)}, {"order": (0, 1, 3, 3)}),
        smooth=False,
    ),
    Case("full-joint", "scrambled", _SIX_SCRAMBLED, wrong=_ORDERS, smooth=False),
    Case(
        "char-rnn",
        "tanh",
        _CHARACTERS,
        wrong=(
            {"event_shape": (2, 2)},
            {"num_levels": 2},
            {"hidden": 0},
            {"layers": 0},
            {"cell": "relu"},
            {"dropout": 1.0},
            {"end": 3},
            {"end": -1},
        ),
        smooth=False,
    ),
    Case("char-rnn", "lstm", {**_CHARACTERS, "cell": "lstm", "layers": 2}, smooth=False),
    Case("char-rnn", "gru", {**_CHARACTERS, "cell": "gru"}, smooth=False),
    Case("char-rnn", "ended", {**_CHARACTERS, "cell": "lstm", "end": 1}, items=ended_items, smooth=False),
    Case("fvsbn", "natural", _SIX, wrong=_ORDERS),
    Case("fvsbn", "scrambled", _SIX_SCRAMBLED, wrong=_ORDERS),
    Case("nade", "natural", {**_SIX, "hidden": 4}, wrong=_HIDDEN),
    Case("nade", "scrambled", {**_SIX_SCRAMBLED, "hidden": 4}, wrong=_HIDDEN),
    Case(
        "categorical-nade",
        "ordered",
        {"event_shape": (4,), "num_levels": 3, "hidden": 4},
        wrong=({"num_levels": 2}, {"num_levels": 0}, {"hidden": 0}),
        smooth=False,
    ),
    Case(
        "categorical-nade",
        "unordered-scrambled",
        {**_FOUR_SCRAMBLED, "num_levels": 3, "hidden": 4, "ordered": False},
        wrong=({"order": (0, 1, 2)}, {"order": (0, 1, 2, 2)}),
        smooth=False,
    ),
    Case(
        "rnade",
        "gaussian",
        {"event_shape": (2,), "hidden": 6, "components": 2},
        wrong=({"components": 0}, {"mixture": "laplace"}, {"hidden": 0}, {"order": (0, 2)}),
        spread=0.3,
        adjust=bell_shaped,
    ),
    Case(
        "rnade",
        "logistic",
        {"event_shape": (2,), "hidden": 6, "components": 3, "mixture": "logistic"},
        spread=0.3,
        adjust=bell_shaped,
    ),
    Case(
        "rnade",
        "scrambled",
        {**_SIX_SCRAMBLED, "hidden": 6, "components": 2},
        wrong=_HIDDEN,
        countable=False,
        spread=0.3,
        adjust=bell_shaped,
    ),
    Case(
        "rnade",
        "logistic-scrambled",
        {"event_shape": (2,), "order": (1, 0), "hidden": 6, "components": 2, "mixture": "logistic"},
        spread=0.3,
        adjust=bell_shaped,
    ),
    Case(
        "pixel-cnn",
        "gated",
        {**_SIX, "hidden": 4, "layers": 2},
        wrong=(*_PIXELS, {"kernel_size": 2}, {"first_kernel_size": 1}),
        single_shape=(1, 1),
        spread=0.2,
        adjust=awake,
    ),
    Case(
        "pixel-cnn",
        "plain",
        {**_SIX, "hidden": 5, "layers": 1, "gated": False, "untied_bias": True},
        wrong=(*_PIXELS, {"dilations": ()}, {"dilations": (2, 0)}),
        spread=0.1,
        adjust=awake,
        single_shape=(1, 1),
    ),
    Case(
        "pixel-cnn",
        "colour-levels",
        {"event_shape": (3, 2, 1), "hidden": 7, "layers": 2, "num_levels": 3, "untied_bias": True},
        wrong=({"hidden": 2},),
        smooth=False,
        single_shape=(1, 1),
        spread=0.2,
        adjust=awake,
    ),
    Case(
        "pixel-cnn",
        "colour-logistic",
        {
            **{"event_shape": (2, 2, 1), "hidden": 5, "layers": 2, "gated": False},
            **{"num_levels": 3, "output": "logistic", "components": 2},
        },
        spread=0.1,
        adjust=awake,
        smooth=False,
        single_shape=(1, 1),
    ),
    Case(
        "pixel-cnn",
        "labelled",
        {"event_shape": (2, 2), "hidden": 4, "layers": 2, "num_classes": 3},
        labels="given",
        spread=0.2,
        adjust=awake,
    ),
    Case(
        "pixel-cnn",
        "unlabelled-plain",
        {"event_shape": (2, 2), "hidden": 3, "layers": 1, "num_classes": 3, "gated": False},
        labels="none",
        spread=0.2,
        adjust=awake,
    ),
    Case(
        "pixel-cnn",
        "dilated",
        {"event_shape": (3, 3), "hidden": 3, "layers": 3, "dilations": (2, 1), "first_kernel_size": 3},
        spread=0.2,
        adjust=awake,
        single_shape=(1, 1),
    ),
    Case(
        "pixel-cnn",
        "dilated-plain",
        {"event_shape": (3, 3), "hidden": 3, "layers": 2, "dilations": (2, 1), "gated": False},
        spread=0.1,
        adjust=awake,
        single_shape=(1, 1),
    ),
    Case(
        "pixel-cnn",
        "of-one-label",
        {**_SIX, "hidden": 4, "layers": 2, "num_classes": 3},
        single_shape=(1, 1),
        view=lambda model: model.given(1),
        spread=0.2,
        adjust=awake,
    ),
    Case(
        "pixel-rnn",
        "row-lstm",
        {**_SIX, "layer": "row-lstm", "hidden": 3, "layers": 2},
        wrong=(*_PIXELS, {"layer": "lstm"}, {"kernel_size": 2}, {"first_kernel_size": 1}),
        adjust=heard,
        single_shape=(1, 1),
    ),
    Case(
        "pixel-rnn",
        "diagonal-bilstm",
        {**_SIX, "layer": "diagonal-bilstm", "hidden": 3, "layers": 2, "first_kernel_size": 3},
        adjust=heard,
        single_shape=(1, 1),
    ),
    Case(
        "pixel-rnn",
        "colour-row-lstm",
        {"event_shape": (3, 2, 1), "layer": "row-lstm", "hidden": 4, "num_levels": 3},
        wrong=({"hidden": 2},),
        adjust=heard,
        smooth=False,
        single_shape=(1, 1),
    ),
    Case(
        "pixel-rnn",
        "colour-diagonal-bilstm",
        {"event_shape": (2, 2, 2), "layer": "diagonal-bilstm", "hidden": 5, "untied_bias": True},
        adjust=heard,
        single_shape=(1, 1),
    ),
    Case(
        "pixel-rnn",
        "labelled",
        {"event_shape": (2, 2), "layer": "row-lstm", "hidden": 3, "num_classes": 3},
        labels="given",
        adjust=heard,
    ),
    Case(
        "wavenet",
        "one-stack",
        {"event_shape": (5,), **_WAVENET, "layers": 3, "stacks": 1},
        wrong=(
            {"event_shape": (2, 3)},
            {"num_levels": 2},
            {"residual_channels": 0},
            {"skip_channels": 0},
            {"layers": 0},
            {"stacks": 0},
            {"kernel_size": 1},
            {"dropout": 1.0},
        ),
        adjust=audible,
        smooth=False,
    ),
    Case(
        "wavenet",
        "short-sighted",
        {"event_shape": (6,), **_WAVENET, "layers": 1, "stacks": 2},
        reach=3,
        adjust=audible,
        smooth=False,
    ),
    Case(
        "wavenet",
        "wide-kernel",
        {"event_shape": (6,), **_WAVENET, "layers": 2, "stacks": 1, "kernel_size": 3},
        adjust=audible,
        smooth=False,
    ),
    Case("linear-flow", "gaussian", {"event_shape": (2,)}, wrong=_REAL, spread=0.3),
    Case(
        "linear-flow",
        "logistic",
        {"event_shape": (2,), "prior": "logistic"},
        spread=0.3,
        adjust=narrow,
    ),
    Case(
        "linear-flow",
        "levels",
        {"event_shape": (2, 2), **_LOGIT},
        wrong=_OFFSETS,
        spread=0.3,
    ),
    Case(
        "linear-flow",
        "levels-scaled",
        {"event_shape": (2,), "num_levels": 8},
        wrong=_FLOW,
        spread=0.1,
        adjust=narrow,
    ),
    Case(
        "nice",
        "additive",
        {"event_shape": (2,), "layers": 2, "hidden": (5,)},
        wrong=(*_REAL, {"layers": 0}, {"coupling": "spline"}),
        spread=0.3,
        adjust=narrow_and_lively,
        slack=2e-3,
    ),
    Case(
        "nice",
        "affine",
        {"event_shape": (2, 3), "layers": 3, "hidden": (5,), "coupling": "affine", "prior": "gaussian"},
        countable=False,
        spread=0.3,
        adjust=lively,
    ),
    Case(
        "nice",
        "levels",
        {"event_shape": (2, 2), "layers": 2, "hidden": (5,), "prior": "gaussian", **_LOGIT},
        wrong=_OFFSETS,
        spread=0.3,
        adjust=lively,
    ),
    Case(
        "realnvp",
        "vector",
        {"event_shape": (2,), "layers": 2, "hidden": (5,)},
        wrong=(*_REAL, {"layers": 0}, {"hidden": ()}, {"hidden": (4, 0)}),
        spread=0.15,
        adjust=lively,
        slack=2e-3,
    ),
    Case(
        "realnvp",
        "image-levels",
        {
            **{"event_shape": (2, 4), "layers": 2, "hidden": (3,), "scales": 2},
            **{"num_levels": 2, "offset": 1e-6, "prior": "logistic"},  # numbers start even in their cells
        },
        wrong=(*_OFFSETS, {"scales": 0}, {"scales": 3}, {"hidden": (4, 5)}, {"event_shape": (1, 1, 2, 3)}),
        particles=600,
        spread=0.04,
        adjust=lively,
    ),
    Case(
        "realnvp",
        "image-colour",
        {"event_shape": (3, 4, 4), "layers": 3, "hidden": (3, 3), "scales": 2, "prior": "logistic"},
        countable=False,
        spread=0.1,
        adjust=lively,
    ),
    Case(
        "mintnet",
        "real",
        {"event_shape": (1, 2), "layers": 2, "hidden": 3},
        wrong=(
            *_REAL,
            {"layers": 0},
            {"hidden": 1},
            {"event_shape": (6,)},
            {"squeezes": -1},
            {"squeezes": 1},
        ),
        spread=0.2,
        adjust=gentle,
        slack=2e-3,
    ),
    Case(
        "mintnet",
        "levels",
        {"event_shape": (2, 2), "layers": 2, "hidden": 3, **_LOGIT},
        wrong=_OFFSETS,
        spread=0.3,
    ),
    Case(
        "mintnet",
        "colour",
        {"event_shape": (3, 4, 2), "layers": 3, "hidden": 2, "squeezes": 1, "prior": "logistic"},
        countable=False,
        spread=0.2,
    ),
    Case(
        "rbm", "bernoulli", {"event_shape": (2, 3), "hidden": 4}, wrong=({"hidden": 0}, *_MACHINE), **_QUICK
    ),
    Case("rbm", "centred", {"event_shape": (5,), "hidden": 3, "centred": True}, **_QUICK, adjust=experienced),
    Case("rbm", "gaussian", {"event_shape": (3,), "hidden": 4, "visible": "gaussian"}, **_QUICK),
    Case("rbm", "labelled", {"event_shape": (2, 3), "hidden": 4, "num_classes": 3}, labels="given", **_QUICK),
    Case(
        "dbm",
        "two-layers",
        {"event_shape": (2, 3), "hidden": (4, 3)},
        wrong=({"hidden": ()}, {"hidden": (4, 0)}, *_MACHINE),
        **_QUICK,
    ),
    Case(
        "dbm",
        "three-layers-centred",
        {"event_shape": (5,), "hidden": (4, 3, 2), "centred": True},
        **_QUICK,
        adjust=experienced,
    ),
    Case(
        "dbm",
        "labelled",
        {"event_shape": (2, 3), "hidden": (4, 3), "num_classes": 3},
        labels="given",
        **_QUICK,
    ),
    Case(
        "dbm",
        "unlabelled-gaussian",
        {
            **{"event_shape": (2, 2), "hidden": (3, 2), "num_classes": 3},
            **{"visible": "gaussian", "centred": True},
        },
        labels="none",
        **_QUICK,
        adjust=experienced,
    ),
)


def cases(chosen: Callable[[Case], bool] = lambda case: True) -> pytest.MarkDecorator:
    """Runs a test on every case that is chosen."""
    return pytest.mark.parametrize("case", [case for case in CASES if chosen(case)], ids=str)
