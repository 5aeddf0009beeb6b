"""The log-density that chains run on: of a Pyro program, or a function; over unconstrained numbers."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from pyro.distributions.constraints import Constraint
from torch import Tensor
from torch.distributions import Transform, biject_to
from typing_extensions import override

from inference.batched_program import BatchedProgram, by_first, is_identity

State = dict[str, Tensor]
"""Values by the names of the sites, each ``(chains, *shape)``."""

CHEAP_ENTRIES = 20_000
"""Of sites, up to which the time of a run is that of its operations' overhead."""

TRIES = 100
"""How often a start of positive density is looked for."""


class LogDensity:
    """log p of many chains at once.

    A state's continuous sites are unconstrained: with x = t⁻¹(u) the value of a site in its own space,

        log p(u) = log p(x) + log |det ∂x/∂u|,

    in nats, float64, ``(chains,)``. Discrete sites have no transform and are as they are.

    Args:
        transforms: From a site's own space to unconstrained numbers, by name.
    """

    def __init__(self, transforms: Mapping[str, Transform]) -> None:
        self.transforms = dict(transforms)
        self._moved = {name: each for name, each in transforms.items() if not is_identity(each)}

    def log_prob(self, values: State) -> Tensor:
        """Log p(x) of values in the sites' own spaces, ``(chains,)``."""
        raise NotImplementedError

    def constrain(self, state: State) -> State:
        """A state's values in the sites' own spaces."""
        return state | {name: t.inv(state[name]) for name, t in self._moved.items() if name in state}

    def __call__(self, state: State) -> Tensor:
        """The log-density of a state, ``(chains,)``; -∞ where it needs a factor of a matrix that has none."""
        try:
            return self._total(state)
        except torch.linalg.LinAlgError:
            halves = [value.tensor_split(2) for value in state.values()]
        # One chain must not end the others.
        if len(next(iter(state.values()))) == 1:
            return sum(by_first(0.0 * value) for value in state.values()) - torch.inf
        return torch.cat([self(dict(zip(state, half, strict=True))) for half in zip(*halves, strict=True)])

    def _total(self, state: State) -> Tensor:
        values = self.constrain(state)
        total = self.log_prob(values)
        for name, transform in self._moved.items():
            jacobian = transform.inv.log_abs_det_jacobian(state[name], values[name])
            total = total + by_first(jacobian)
        return total

    def is_cheap(self, num: int, state: State) -> bool:
        """Whether so many states at once take little longer than one."""
        entries = sum(value[0].numel() for value in state.values())
        return num * entries <= CHEAP_ENTRIES

    def gradient(self, layout: "Layout", x: Tensor, state: State) -> tuple[Tensor, Tensor]:
        """The log-density where some of a state's sites have the entries x, and its gradient by these."""
        with torch.enable_grad():
            leaf = x.detach().requires_grad_()
            total = self(state | layout.sites(leaf))
            if not total.requires_grad:
                raise ValueError(
                    f"expected a log-density that depends on {', '.join(layout.names)} by torch's "
                    "operations, got one without a gradient"
                )
            (slope,) = torch.autograd.grad(total.sum(), leaf)
        return total.detach(), slope


class Layout:
    """Some sites of a state as one vector for each chain, x of shape ``(chains, n)``, and back.

    Args:
        state: Values of all sites.
        names: Of those that are in the vector.
    """

    def __init__(self, state: State, names: Sequence[str]) -> None:
        self.names = tuple(names)
        self.kinds = [(state[name].shape[1:], state[name].dtype) for name in self.names]
        self.sizes = [shape.numel() for shape, _ in self.kinds]

    def flat(self, state: State) -> Tensor:
        """The entries of the sites, in the type that holds them all."""
        rows = [state[name].reshape(len(state[name]), -1) for name in self.names]
        return rows[0] if len(rows) == 1 else torch.cat(rows, 1)

    def sites(self, x: Tensor) -> State:
        """The sites of such a vector, each in its own type."""
        parts = (x,) if len(self.sizes) == 1 else x.split(self.sizes, 1)
        return {
            name: part.reshape(len(x), *shape).to(dtype)
            for name, (shape, dtype), part in zip(self.names, self.kinds, parts, strict=True)
        }


class ProgramDensity(LogDensity):
    """The log joint density of a Pyro program's latent sites and its data.

    Args:
        model: The program.
        args: What it is called with.
        kwargs: The same, by name.

    Raises:
        ValueError: If nothing is latent, or as `BatchedProgram`.
    """

    def __init__(self, model: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        self.program = BatchedProgram(model, args, kwargs)
        if not self.program.latent:
            raise ValueError("expected a program with latent sites, got none")
        super().__init__(self.program.transforms)

    @override
    def is_cheap(self, num: int, state: State) -> bool:
        entries = sum(site.value.numel() for site in self.program.sites.values())
        return num * entries <= CHEAP_ENTRIES and self.program.refusal is None

    @override
    def log_prob(self, values: State) -> Tensor:
        return self.program.log_prob(values, len(next(iter(values.values()))))

    def start(self, num: int, needs_gradient: bool = True) -> State:
        """States of finite density, and gradient if it is needed.

        Continuous sites are uniform in (-2, 2) in unconstrained space, discrete ones drawn by the program.

        Raises:
            ValueError: If there is none in a hundred tries.
        """
        starts = [self.program.start() for _ in range(num)]
        values = {name: torch.cat([each[name] for each in starts]) for name in self.program.latent}
        state = values | {name: t(values[name]) for name, t in self._moved.items()}
        for _ in range(TRIES):
            wrong = ~self._is_finite(state, needs_gradient)
            if not wrong.any():
                return state
            for row in wrong.nonzero().flatten().tolist():
                for name, value in self.program.start().items():
                    transform = self._moved.get(name)
                    state[name][row] = transform(value[0]) if transform else value[0]
        raise ValueError(
            f"no start of positive density was found in {TRIES} tries: {self.explain(state)}; do the data "
            "lie in the support?"
        )

    def _is_finite(self, state: State, needs_gradient: bool) -> Tensor:
        if not (needs_gradient and self.transforms):
            return self(state).isfinite()
        layout = Layout(state, tuple(self.transforms))
        total, slope = self.gradient(layout, layout.flat(state), state)
        return total.isfinite() & slope.isfinite().all(1)

    def explain(self, state: State) -> str:
        """Which site has no finite log-probability, in words."""
        values = self.constrain(state)
        lost = self.program.without_density(values, len(next(iter(values.values()))))
        return lost or "its gradient is not finite"


class FunctionDensity(LogDensity):
    """The log-density that a function gives, up to a constant.

    Args:
        function: From a dict of values, each ``(chains, *shape)``, to the log-density of each chain in nats,
            ``(chains,)``.
        support: The supports of the sites that are not all real numbers, by name.
    """

    def __init__(self, function: Callable[[State], Tensor], support: Mapping[str, Constraint] | None) -> None:
        super().__init__({name: biject_to(each).inv for name, each in (support or {}).items()})
        self.function = function

    @override
    def log_prob(self, values: State) -> Tensor:
        total, num = self.function(values), len(next(iter(values.values())))
        if not isinstance(total, Tensor) or total.shape != (num,):
            came = tuple(total.shape) if isinstance(total, Tensor) else type(total).__name__
            raise ValueError(f"expected the log-density of {num} chains, of shape ({num},), got {came}")
        return total.double()

    def explain(self, state: State) -> str:
        """What is not finite, in words."""
        total = self(state)
        wrong = total[~total.isfinite()]
        return f"its log-density is {wrong[0].item()}" if len(wrong) else "its gradient is not finite"
