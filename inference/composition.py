"""Several kernels as one: each in turn, or one of them by chance."""

import math
from collections.abc import Callable, Mapping, Sequence
from random import Random
from typing import Any

import torch
from torch import Tensor, nn
from typing_extensions import override

from inference.density import State
from inference.kernels import Kernel


class Cycle(Kernel):
    """Applies kernels one after the other, T = T_1 T_2 … T_n: where each leaves p as it is, so do all.

    It is how discrete and continuous sites move in one program: `inference.Gibbs` draws the ones, `HMC` or
    `MALA` moves the others, each given what the rest is at that moment. Every kernel sees the values of the
    sites as it expects them: unconstrained where it moves them so, and in their own space where it does not.

    The statistics of a draw are those of the kernels; where two tell of the same, the name of the second
    ends in ``_2``.

    Args:
        kernels: In the order of a sweep; of one program, or of functions of the same sites.

    Raises:
        ValueError: If there is none, or something else than a kernel of inference's.

    References:
        | Markov Chains for Exploring Posterior Distributions (Tierney, 1994), section 2.4

    Example:
        >>> import inference, pyro, pyro.distributions as dist
        >>> def model():
        ...     z = pyro.sample("z", dist.Bernoulli(0.3))
        ...     pyro.sample("x", dist.Normal(2 * z, 1.))
        >>> cycle = Cycle([inference.Gibbs(model, sites=["z"]), inference.MALA(model, sites=["x"])])
        >>> draws = inference.run_chains(cycle, 200, num_chains=100, progress=False)
        >>> abs(draws.samples["x"].mean().item() - 0.6) < 0.1
        True
    """

    def __init__(self, kernels: Sequence[Kernel]) -> None:
        if not isinstance(kernels, Sequence) or not kernels:
            raise ValueError(f"expected a list of kernels, got {kernels!r:.60}")
        for each in kernels:
            if not isinstance(each, Kernel):
                raise ValueError(f"expected kernels that move many chains at once, got {type(each).__name__}")
        self.kernels = tuple(kernels)
        modules = {id(kernel.module): kernel.module for kernel in kernels if kernel.module is not None}
        one = len(modules) == 1  # an objective's program, say, which knows the values it was trained to
        self.module = next(iter(modules.values())) if one else nn.ModuleList(modules.values()) or None
        # Pyro's MCMC asks for a program, to know the transforms of chains that run in other processes.
        self.model = next((each.model for each in kernels if getattr(each, "model", None) is not None), None)
        # Those of a program are known when it has run; MCMC then asks for them.
        unknown = any(kernel.transforms is None for kernel in kernels)
        self.transforms = None if unknown else self._all_transforms()
        self._steps = self._warmup = 0

    @override
    def setup(self, warmup_steps: int, *args: Any, **kwargs: Any) -> None:
        self._steps, self._warmup = 0, warmup_steps
        for kernel in self.kernels:
            kernel.apart = self.apart
            takes_them = getattr(kernel, "model", None) is not None
            kernel.setup(warmup_steps, *(args if takes_them else ()), **(kwargs if takes_them else {}))
        self.transforms = self._all_transforms()
        self.dims = {name: names for kernel in self.kernels for name, names in kernel.dims.items()}

    def _all_transforms(self) -> dict[str, Any]:
        return {name: each for kernel in self.kernels for name, each in (kernel.transforms or {}).items()}

    @override
    def start(self, num: int) -> State:
        found = None
        for kernel in self.kernels:
            try:
                return self.unconstrain(kernel.constrain(kernel.start(num)))
            except ValueError as error:
                found = found or error
        raise found

    @override
    def prepare(self, state: State) -> State:
        state = super().prepare(state)
        for kernel in self.kernels:
            state = self._through(state, kernel, kernel.prepare)
        self.held = frozenset(state).intersection(*(kernel.held for kernel in self.kernels))
        return state

    @override
    def sample(self, params: State) -> State:
        state = params
        for kernel in self.kernels:
            state = self._moved(state, kernel)
        self._count()
        return state

    def _moved(self, state: State, kernel: Kernel) -> State:
        return self._through(state, kernel, kernel.sample)

    def _count(self) -> None:
        """Ends warm-up in time: a kernel that did not move each time has not counted so far."""
        self._steps += 1
        if self._steps == self._warmup:
            self.end_warmup()

    @override
    def end_warmup(self) -> None:
        for kernel in self.kernels:
            kernel.end_warmup()

    def _foreign(self, kernel: Kernel) -> dict[str, Any]:
        """The transforms of sites that a kernel has in their own space, and others do not."""
        own = kernel.transforms or {}
        return {name: each for name, each in self.transforms.items() if name not in own}

    def _as_seen(self, state: State, kernel: Kernel) -> State:
        """The state as one of the kernels has it."""
        foreign = self._foreign(kernel)
        return {name: foreign[name].inv(value) if name in foreign else value for name, value in state.items()}

    def _through(self, state: State, kernel: Kernel, function: Callable[[State], State]) -> State:
        """The state after a function of a kernel's; a site that it has left keeps all its bits."""
        foreign, seen = self._foreign(kernel), self._as_seen(state, kernel)
        after = dict(state)
        for name, value in function(seen).items():
            if name not in foreign:
                after[name] = value
            elif name not in seen or not torch.equal(value, seen[name]):
                after[name] = foreign[name](value)
        return after

    @property
    @override
    def adapted(self) -> dict[str, Any]:
        found = {str(place): kernel.adapted for place, kernel in enumerate(self.kernels)}
        return {place: each for place, each in found.items() if each}

    @override
    def can_adopt(self, adapted: Mapping[str, Any], state: State) -> bool:
        parts = [adapted.get(str(place), {}) for place in range(len(self.kernels))]
        known = {str(place) for place, each in enumerate(parts) if each} == set(adapted)
        return known and all(
            kernel.can_adopt(each if isinstance(each, Mapping) else {}, state)
            for kernel, each in zip(self.kernels, parts, strict=True)
        )

    @override
    def adopt(self, adapted: Mapping[str, Any]) -> None:
        for place, each in adapted.items():
            self.kernels[int(place)].adopt(each)

    @override
    def stats(self, state: State) -> dict[str, Tensor]:
        found: dict[str, Tensor] = {}
        for kernel in self.kernels:
            for name, value in kernel.stats(self._as_seen(state, kernel)).items():
                if name == "energy" and name in found:
                    continue  # of the same state
                number = sum(each == name or each.startswith(f"{name}_") for each in found) + 1
                found[name if number == 1 else f"{name}_{number}"] = value
        return found

    @override
    def logging(self) -> dict[str, Any]:
        return {name: value for kernel in reversed(self.kernels) for name, value in kernel.logging().items()}

    @override
    def cleanup(self) -> None:
        super().cleanup()
        for kernel in self.kernels:
            kernel.cleanup()


class Mixture(Cycle):
    """Applies one kernel at a time, drawn by weight, T = Σ w_i T_i: where each leaves p as it is, so do all.

    One draw decides for all chains, so that a transition costs that of one kernel.

    Args:
        kernels: As those of a `Cycle`.
        weights: Their probabilities, or numbers in proportion to them; left out, all the same.

    Raises:
        ValueError: As `Cycle`; or if there are not as many weights, all positive.

    References:
        | Markov Chains for Exploring Posterior Distributions (Tierney, 1994), section 2.4

    Example:
        >>> import inference
        >>> normal = lambda state: -0.5 * state["x"] ** 2
        >>> small = inference.RandomWalkMetropolis(log_density=normal, step_size=0.5)
        >>> large = inference.RandomWalkMetropolis(log_density=normal, step_size=5.0)
        >>> mixture, start = Mixture([small, large], weights=[3, 1]), {"x": torch.zeros(500)}
        >>> draws = inference.run_chains(mixture, 200, initial=start, progress=False)
        >>> abs(draws.samples["x"].var().item() - 1) < 0.05
        True
    """

    def __init__(self, kernels: Sequence[Kernel], weights: Sequence[float] | None = None) -> None:
        super().__init__(kernels)
        weights = [1.0] * len(self.kernels) if weights is None else list(weights)
        if len(weights) != len(self.kernels) or not all(0 < each < math.inf for each in weights):
            raise ValueError(
                f"expected a positive weight for each of {len(self.kernels)} kernels, got {weights}"
            )
        self.weights = weights
        self._choice = Random()

    @override
    def setup(self, warmup_steps: int, *args: Any, **kwargs: Any) -> None:
        super().setup(warmup_steps, *args, **kwargs)
        self._choice = Random(int(torch.randint(1 << 62, ())))  # one for all chains, whatever their seeds

    @override
    def sample(self, params: State) -> State:
        (place,) = self._choice.choices(range(len(self.kernels)), self.weights)
        state = self._moved(params, self.kernels[place])
        self._count()
        return state
