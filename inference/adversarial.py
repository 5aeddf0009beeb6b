"""Adversarial training: a program without a likelihood learns from a discriminator of its draws."""

import inspect
import math
from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any, Literal, get_args

import torch
from pyro import poutine
from torch import Tensor, nn
from torch.nn.functional import softplus
from torch.nn.utils.parametrize import is_parametrized
from typing_extensions import override

from inference.discriminator import Discriminator
from inference.mmd import RBF, median_distance, mmd2, squared_distances
from inference.objectives import Objective, check_items
from inference.program import Batch, Structure, arguments, check_counts, forked_rng, log_prob, restored_modes

Loss = Literal["non-saturating", "minimax", "wasserstein"]
Penalty = Literal["r1", "lipschitz"]

DISTINCT_OF = 500
"""Items and draws, at most, that `share_of_distinct` is asked about at the end of an epoch."""

COLLAPSED = 0.25
"""Share of distinct draws below which a generator has collapsed."""

WON = (0.99, 0.05)
"""Share told apart above which, and nats below which, a discriminator has won."""

GUESS = 2 * math.log(2)
"""What a discriminator loses that says of all items and draws that they may as well be the other."""

SETTLED = 200
"""Steps before a generator counts as collapsed, or a discriminator as having won: at first each is so."""


class Adversarial(Objective):
    """A generator against a discriminator D, which learns to tell its draws g from the items x.

    With D a logit, the discriminator lowers its cross-entropy, in nats,

        -E log σ(D(x)) - E log(1 - σ(D(g))),    2 log 2 for a guess,

    ``"minimax"``: the generator raises the same, by E log(1 - σ(D(g))). At the best D the value is
    2 log 2 - 2 JS(p_data, p_model), so that it lowers the Jensen-Shannon divergence.

    ``"non-saturating"``: it lowers -E log σ(D(g)) instead, with the same fixed point, and a gradient that
    does not vanish where D is sure.

    ``"wasserstein"``: D is a height, in the units of the items, that may not rise faster than they move; the
    discriminator lowers E D(g) - E D(x), the generator -E D(g).

    The generator is any Pyro program whose site ``x`` is drawn with a gradient: a deterministic function of
    other sites, or reparameterised. A program with an argument ``num`` is run with that alone; any other with
    the batch, what it observes being drawn. Nothing else is asked of it: no guide, no density. Sites without
    a gradient will do as long as no parameter has a part in their distribution.

    `inference.fit` moves both in turn. Its history has the generator's loss as ``train``, the discriminator's
    under its name, ``accuracy`` (the share of items and draws told apart), ``penalty`` (its part in the
    discriminator's loss), ``distinct`` (see `share_of_distinct`), and as ``valid`` the unbiased MMD² between
    draws and items, under a Gaussian kernel as wide as the median distance of the first items. A program
    without parameters stays as it is: the discriminator learns alone, and `divergence` then says how far off
    it is.

    Args:
        model: An object with ``.model``, or a Pyro program.
        discriminator: A module from items ``(batch, *event_shape)`` to one number each; or the hidden widths
            of a `Discriminator`, which is made in `prepare` in the items' type.
        loss: One of the above.
        gradient_penalty: Factor of the penalty on ∇D, γ or λ; 0 has none.
        penalty: ``"r1"``, γ/2 E ‖∇D(x)‖² at the items, which lets D rest where both are alike; or
            ``"lipschitz"``, λ E max(0, ‖∇D(y)‖ - 1)², y on the way from an item to a draw, which lets D be
            flat: to ask for a slope of 1 everywhere would keep it from turning over where the draws have
            overtaken the items. None is the second for ``"wasserstein"``, else the first.
        discriminator_steps: Steps of the discriminator for one of the generator.
        site: Name of the site that is drawn as the items are.

    Raises:
        ValueError: If an argument is none of the above, a Wasserstein critic has neither a penalty nor a
            parametrisation such as spectral norm; at the first batch, if the site is missing, is not of the
            items' shape, or is drawn without a gradient.

    References:
        | Generative Adversarial Nets (Goodfellow et al., 2014), equation 1, theorem 1
        | https://arxiv.org/abs/1406.2661
        | Wasserstein Generative Adversarial Networks (Arjovsky, Chintala & Bottou, 2017), equation 2
        | Improved Training of Wasserstein GANs (Gulrajani et al., 2017), equation 3: where y lies
        | On the regularization of Wasserstein GANs (Petzka, Fischer & Lukovnikov, 2018): the second
          penalty
        | Which Training Methods for GANs do actually Converge? (Mescheder, Geiger & Nowozin, 2018),
          equation 9: the first
        | A Kernel Two-Sample Test (Gretton et al., 2012), lemma 6: MMD²

    Example:
        >>> import pyro, pyro.distributions as dist
        >>> centre = nn.Parameter(torch.zeros(2))
        >>> def model(x):
        ...     pyro.param("centre", centre)
        ...     with pyro.plate("data", len(x)):
        ...         z = pyro.sample("z", dist.Normal(0.0, 1.0).expand([2]).to_event(1))
        ...         return pyro.deterministic("x", centre + z, event_dim=1)
        >>> gan = Adversarial(model, gradient_penalty=0.1)
        >>> gan(torch.randn(10, 2), player="discriminator").shape
        torch.Size([])
    """

    players = ("discriminator", "generator")
    scale: Tensor

    def __init__(
        self,
        model: Any,
        *,
        discriminator: nn.Module | Sequence[int] = (128, 128),
        loss: Loss = "non-saturating",
        gradient_penalty: float = 0.0,
        penalty: Penalty | None = None,
        discriminator_steps: int = 1,
        site: str = "x",
    ) -> None:
        super().__init__(model)
        if loss not in get_args(Loss):
            raise ValueError(f"loss must be one of {', '.join(get_args(Loss))}, got {loss!r}")
        if penalty not in (None, *get_args(Penalty)):
            raise ValueError(
                f"penalty must be None or one of {', '.join(get_args(Penalty))}, got {penalty!r}"
            )
        if not 0 <= gradient_penalty < math.inf:
            raise ValueError(f"gradient_penalty must be a number of at least 0, got {gradient_penalty}")
        given = discriminator if isinstance(discriminator, nn.Module) else None
        if given is None and not (isinstance(discriminator, Sequence) and all(map(_is_count, discriminator))):
            raise ValueError(
                f"discriminator must be a module, or widths of at least 1, got {discriminator!r}"
            )
        check_counts(discriminator_steps=discriminator_steps)
        bounded = given is not None and any(map(is_parametrized, given.modules()))
        if loss == "wasserstein" and not gradient_penalty and not bounded:
            raise ValueError(
                'loss="wasserstein" expects a critic whose slope is bounded, got none: give it a '
                "gradient_penalty (10 in the paper), or a Discriminator(…, spectral=True)"
            )
        self.loss = loss
        self.gradient_penalty = gradient_penalty
        self.penalty = penalty or ("lipschitz" if loss == "wasserstein" else "r1")
        self.discriminator_steps = discriminator_steps
        self.site = site
        self.discriminator = given
        self.hidden = () if given is not None else tuple(discriminator)
        by_number = "num" in inspect.signature(self.program.model).parameters
        self.takes_labels = self.takes_labels and not by_number
        # In place of the program that observes: it draws, and needs no guide.
        self.program.model_fn = [_drawing(self.program.model, by_number)]
        self.program.guide_fn = [_nothing]
        self.register_buffer("scale", torch.zeros(()))
        self._forget()

    @override
    def extra_repr(self) -> str:
        penalty = f", penalty={self.penalty}" if self.gradient_penalty else ""
        return (
            f"loss={self.loss}, gradient_penalty={self.gradient_penalty}{penalty}, "
            f"discriminator_steps={self.discriminator_steps}, site={self.site}"
        )

    @override
    def check(self, batch: Batch) -> None:
        check_items(self.program.source[0], *arguments(batch))
        x = arguments(batch)[0]
        if not x.is_floating_point():
            raise ValueError(
                f"adversarial training expects items that a gradient can run through, got {x.dtype}; binary "
                "ones must be 0.0 or 1.0"
            )

    @override
    def prepare(self, batch: Batch) -> Structure:
        """Runs the program once, refuses what it cannot learn from, and makes a discriminator if need be.

        Raises:
            ValueError: As the class says.
        """
        args = arguments(batch)
        x = args[0]
        if len(x) < 2:
            raise ValueError(f"adversarial training expects batches of at least 2 items, got {len(x)}")
        structure = self.program.prepare(batch)
        with forked_rng(), torch.enable_grad(), self.program.scope():
            sites = self.program.run(self.program.model, args)
            _refuse(self.site, sites, x, learns=bool(self.parameters_of("generator")))
        if not self.parameters_of("generator"):
            self.players = ("discriminator",)
        self.scale.fill_(median_distance(x[::2].flatten(1), x[1::2].flatten(1)))
        if self.discriminator is None:
            self.discriminator = Discriminator(x.shape[1:], self.hidden).to(x)
        with forked_rng(), torch.no_grad():
            self._score(x)
        return structure

    @override
    def parameters_of(self, player: str) -> list[nn.Parameter]:
        if player == "generator":
            return [param for param in self.program.parameters() if param.requires_grad]
        if player != "discriminator":
            raise ValueError(f"player must be one of {', '.join(self.players)}, got {player!r}")
        return [] if self.discriminator is None else list(self.discriminator.parameters())

    @override
    def turn(self) -> tuple[str, ...]:
        players = super().turn()
        return players if self.steps.item() % self.discriminator_steps == 0 else players[:1]

    @override
    def forward(self, batch: Batch, player: str | None = None) -> Tensor:
        """The loss of a player, or MMD² between draws and the batch, which has no unit."""
        if self.program.structure is None:
            self.prepare(batch)
        args = arguments(batch)
        if player == "generator":
            score = self._score(self.draw(args))
            if self.loss == "minimax":
                return -softplus(score).mean()
            return -score.mean() if self.loss == "wasserstein" else softplus(-score).mean()
        if player == "discriminator" or (player is None and "generator" not in self.players):
            return self._discriminator_loss(args)
        if player is not None:
            raise ValueError(f"player must be None or one of {', '.join(self.players)}, got {player!r}")
        with torch.no_grad():
            return mmd2(self.draw(args), args[0], RBF(self.scale.item()))

    def draw(self, args: tuple[Tensor, ...]) -> Tensor:
        """As many items as a batch has, drawn by the program, with gradient."""
        with self.program.scope():
            return self.program.run(self.program.model, args)[self.site]["value"]

    @torch.no_grad()
    def divergence(self, batch: Batch, *, draws_per_item: int = 1, seed: int = 0) -> float:
        """Estimates how far the program's draws are from items, by the discriminator as it is.

            log 2 + ½ (E log σ(D(x)) + E log(1 - σ(D(g)))) ≤ JS(p_data, p_model),    in nats,

        with equality at D = log p_data / p_model; items that the discriminator has learnt from may seem
        farther than they are. A Wasserstein critic gives E D(x) - E D(g) instead, the Wasserstein distance if
        it is the best of all that rise nowhere faster than 1; in the units of the items.

        Args:
            batch: Items, as `fit` takes them.
            draws_per_item: Draws for each, at least 1.
            seed: Of the draws; torch's generators are left as they were.

        Raises:
            ValueError: If the items do not suit the program, or ``draws_per_item`` is below 1.
        """
        check_counts(draws_per_item=draws_per_item)
        self.check(batch)
        if self.program.structure is None:
            self.prepare(batch)
        args = arguments(batch)
        with forked_rng(args[0].device), restored_modes(self):
            torch.manual_seed(seed)
            self.eval()
            real = self._score(args[0])
            fake = torch.cat([self._score(self.draw(args)) for _ in range(draws_per_item)])
        value = self._told_apart(real.double(), fake.double()).item()
        return -value if self.loss == "wasserstein" else math.log(2) - value / 2

    @override
    def monitor(self) -> dict[str, float]:
        figures = {}
        for name, values in self._seen.items():
            if values:
                figures[name] = torch.stack(values).mean().item()
        if self._kept and "generator" in self.players:
            args = tuple(torch.cat(each)[:DISTINCT_OF] for each in zip(*self._kept, strict=True))
            figures["distinct"] = share_of_distinct(self.draw(args), args[0], radius=self._radius)
        self._forget()
        return figures

    @override
    def notes(self, row: dict[str, float]) -> list[str]:
        found = []
        loss = row.get("discriminator", row["train"]) - row.get("penalty", 0.0)
        epoch, settled = f"in epoch {row['epoch']}", self.steps.item() >= SETTLED
        accuracy, distinct = row.get("accuracy", 0.0), row.get("distinct", 1.0)
        if settled and accuracy > WON[0] and loss < WON[1] and "generator" in self.players:
            found.append(
                f"the discriminator has won: {epoch} it tells {accuracy:.1%} of items and draws apart, at a "
                f"loss of {loss:.2g} nats, and leaves the generator (at {row['train']:.3g}) little to learn "
                "from; more gradient_penalty, or a lower lr of the discriminator, may help"
            )
        if self.loss == "wasserstein":
            if abs(loss) > 100 * self.scale.item():
                found.append(
                    f"the discriminator has diverged: {epoch} it puts items and draws {abs(loss):.3g} apart, "
                    f"and items lie {self.scale.item():.3g} from each other; more gradient_penalty, or a "
                    "lower lr, may help"
                )
        elif loss > 2 * GUESS:
            found.append(
                f"the discriminator has diverged: {epoch} its loss is {loss:.3g} nats, where a guess costs "
                f"{GUESS:.3f}; a lower lr, or more gradient_penalty, may help"
            )
        if settled and distinct < COLLAPSED:
            found.append(
                f"the generator has collapsed: {epoch} it has {distinct:.1%} of the distinct draws that as "
                "many items have; more gradient_penalty, a larger batch_size, or another lr may help"
            )
        return found

    def _discriminator_loss(self, args: tuple[Tensor, ...]) -> Tensor:
        with torch.no_grad():
            drawn = self.draw(args)
        learns = torch.is_grad_enabled()
        penalized = bool(self.gradient_penalty) and learns
        x = args[0].detach().requires_grad_() if penalized else args[0]
        real, fake = self._score(x), self._score(drawn)
        value = self._told_apart(real, fake)
        penalty = self._penalty(x, real, drawn) if penalized else None
        if learns and self.training:
            self._keep(args, real.detach(), fake.detach(), penalty)
        return value if penalty is None else value + penalty

    def _told_apart(self, real: Tensor, fake: Tensor) -> Tensor:
        """The discriminator's loss without the penalty."""
        if self.loss == "wasserstein":
            return fake.mean() - real.mean()
        return softplus(-real).mean() + softplus(fake).mean()

    def _penalty(self, x: Tensor, real: Tensor, drawn: Tensor) -> Tensor:
        if self.penalty == "r1":
            (slope,) = torch.autograd.grad(real.sum(), x, create_graph=True)
            return self.gradient_penalty / 2 * slope.flatten(1).square().sum(1).mean()
        share = torch.rand(len(x), *[1] * (x.dim() - 1), dtype=x.dtype, device=x.device)
        between = (share * x.detach() + (1 - share) * drawn).requires_grad_()
        (slope,) = torch.autograd.grad(self._score(between).sum(), between, create_graph=True)
        return self.gradient_penalty * (slope.flatten(1).norm(dim=1) - 1).clamp(min=0).square().mean()

    def _score(self, x: Tensor) -> Tensor:
        assert self.discriminator is not None
        score = self.discriminator(x)
        if score.numel() != len(x):
            raise ValueError(
                f"discriminator must give one number for each of {len(x)} items, got {tuple(score.shape)}"
            )
        return score.reshape(len(x))

    @property
    def _radius(self) -> float:
        return self.scale.item() / 4

    def _forget(self) -> None:
        """Begins an epoch's figures anew."""
        self._seen: dict[str, list[Tensor]] = {"accuracy": [], "penalty": []}
        self._kept: list[tuple[Tensor, ...]] = []

    def _keep(self, args: tuple[Tensor, ...], real: Tensor, fake: Tensor, penalty: Tensor | None) -> None:
        """What the epoch's figures are made of."""
        if sum(len(kept[0]) for kept in self._kept) < DISTINCT_OF:
            self._kept.append(args)
        if penalty is not None:
            self._seen["penalty"].append(penalty.detach())
        if self.loss != "wasserstein":  # whose heights have no zero
            right = torch.cat([real, -fake]).sign()
            self._seen["accuracy"].append((right.mean() + 1) / 2)


@torch.no_grad()
def share_of_distinct(draws: Tensor, items: Tensor, *, radius: float) -> float:
    """How many distinct items there are among draws, as a share of those among real ones, at most 1.

    Of a set, those are counted which lie farther than ``radius`` from all that were counted before. A
    generator that has collapsed to one of eight modes has an eighth; real items have 1.

    Args:
        draws: Shape ``(num, *event_shape)``.
        items: Real ones, as many.
        radius: In the units of the items. `Adversarial` takes a quarter of their median distance, which for
            small binary images merges those that differ in a pixel or so.

    Example:
        >>> items = torch.arange(8.0)[:, None]
        >>> share_of_distinct(torch.zeros(8, 1), items, radius=0.5)
        0.125
    """
    return min(1.0, _count_distinct(draws, radius) / _count_distinct(items, radius))


def _count_distinct(items: Tensor, radius: float) -> int:
    flat = items.flatten(1)
    near = (squared_distances(flat, flat) <= radius**2).cpu()
    left = torch.ones(len(items), dtype=torch.bool)
    count = 0
    for item in range(len(items)):
        if left[item]:
            count += 1
            left &= ~near[item]
    return count


def _drawing(model: Callable[..., Any], by_number: bool) -> Callable[..., Any]:
    """The program that draws as many items as it is given; it belongs to whatever ``model`` belongs to."""
    free = poutine.uncondition(model)

    @wraps(model.forward if isinstance(model, nn.Module) else model)
    def draws(*args: Tensor) -> Any:
        return model(num=len(args[0])) if by_number else free(*args)

    return draws


def _is_count(width: Any) -> bool:
    return isinstance(width, int) and not isinstance(width, bool) and width >= 1


def _nothing(*args: Any) -> None:
    """The guide of a program that only draws."""


def _refuse(site: str, sites: dict[str, Any], x: Tensor, *, learns: bool) -> None:
    """Refuses a program whose draws its parameters cannot learn from.

    Raises:
        ValueError: If the site is missing, of another shape than the items ``x``, or without a gradient.
    """
    if site not in sites:
        raise ValueError(
            f"adversarial training expects a site {site!r} that is drawn as the items are, got "
            f"{', '.join(sites) or 'none'}"
        )
    value = sites[site]["value"]
    if value.shape != x.shape:
        raise ValueError(
            f"the site {site!r} must be of the items' shape {tuple(x.shape)}, got {tuple(value.shape)}"
        )
    blocked = [
        name
        for name, each in sites.items()
        if not each["is_observed"] and not getattr(each["fn"], "has_rsample", False) and _learns(each)
    ]
    if blocked or (learns and not value.requires_grad):
        raise ValueError(
            f"adversarial training expects the site {site!r} to be drawn with a gradient, got one that stops "
            f"at {blocked[0] if blocked else site!r}: make it deterministic, or reparameterised"
        )


def _learns(site: dict[str, Any]) -> bool:
    """Whether a parameter has a part in the distribution of a site."""
    return log_prob(site).requires_grad
