"""Expectation-maximisation, for models whose posterior over the latent variables is a formula.

    E-step: q(z) = p(z | x, θ),    M-step: θ ← argmax_θ E_q[log p(x, z | θ)] (+ log p(θ)).

Neither step lowers log p(x | θ) (+ log p(θ)). That is checked after every step.

References:
    | Maximum likelihood from incomplete data via the EM algorithm (Dempster, Laird & Rubin, 1977)
    | A view of the EM algorithm that justifies incremental, sparse and other variants (Neal & Hinton, 1998)
"""

import hashlib
import math
import os
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from inference.checkpoint import check_settings, load_checkpoint, save_checkpoint
from inference.objectives import check_items
from inference.program import check_counts, forked_rng, restored_modes
from inference.progress import progress as show_progress
from inference.training import FitResult

Statistics = dict[str, Tensor]

ROUNDING = 1000
"""How many times the rounding of one log-likelihood the mean of many may fall."""

SMALL = 1_000_000
"""Entries of the items below which the threads of a step would wait for each other more than they work."""

RESEEDS = 100
"""How often empty components are moved before they are left as they are."""


@runtime_checkable
class HasEM(Protocol):
    """A model that gives both steps; it is an `nn.Module`, and θ are its parameters.

    It may have, besides: ``initialize(x, generator)``, which sets a start; ``log_prior()``, what the M-step
    maximises besides the log-likelihood, in nats for all items; and, where components may become empty,
    ``empty_components(statistics)``, a list of them, and ``reseed(components, items)``, which moves them to
    items, one each.
    """

    def e_step(self, x: Tensor) -> tuple[Statistics, Tensor]:
        """Expected sufficient statistics, sums over the items, and log p(x) of each item in nats."""

    def m_step(self, statistics: Statistics) -> None:
        """Sets θ to what maximises the expected complete log-likelihood (and the prior)."""


@dataclass
class EMResult(FitResult):
    """What `fit_em` returns: as `FitResult`, and how EM ended.

    Attributes:
        converged: Whether the last step of the best start gained less than the tolerance.
        start: The number of the best start, from 0.
        starts: The final loss of each start, in nats per item: what the best was chosen by.
        notes: What was done besides, in words: for instance which components were reseeded.
    """

    converged: bool = False
    start: int = 0
    starts: list[float] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def fit_em(
    model: Any,
    train: Any,
    *,
    valid: Any = None,
    epochs: int = 1000,
    tolerance: float = 1e-6,
    restarts: int = 1,
    initialize: bool = True,
    patience: int | None = None,
    chunk: int = 10_000,
    checkpoint: str | os.PathLike[str] | None = None,
    checkpoint_seconds: float = 30.0,
    seed: int = 0,
    progress: bool = True,
) -> EMResult:
    """Fits a model in place by EM, from one start or several, and leaves it with the best parameters.

    An epoch is one M-step. Of each start the epoch of lowest validation loss is kept, or the last where
    there is no ``valid``; of the starts that whose kept epoch has the lowest loss on ``valid``, or else on
    ``train``, the prior included. A split that binarises afresh at each use is taken as it is fixed in ``x``:
    EM needs the same items in every step.

    Args:
        model: A module with ``e_step`` and ``m_step``, see `HasEM`.
        train: A split of `zoo.load`, or a tensor ``(num, *event_shape)``.
        valid: The same, to choose by.
        epochs: M-steps of each start, at most.
        tolerance: Stop where a step gains fewer nats per item.
        restarts: How many starts, each by the model's ``initialize``.
        initialize: False starts once, from the parameters as they are.
        patience: Stop after so many epochs without a lower ``valid``.
        chunk: Items of an E-step that are worked on at a time.
        checkpoint: A file to save to and to resume from where it exists already; a resumed run ends in the
            same bits.
        checkpoint_seconds: Least time between two savings.
        seed: Seed of the starts and of what is drawn; torch's generators are left as they were.
        progress: Whether to show a bar.

    Returns:
        The history, a row for each epoch of the best start: ``epoch``, ``train`` and ``valid`` loss,
        -log p(x) in nats per item, at the parameters after it. After Ctrl-C too.

    Raises:
        ValueError: If an argument is out of its range, the model gives no such steps, the data do not suit
            it, or a step has no solution, for instance by a singular covariance.
        ArithmeticError: If a step lowers what it should raise, by more than rounding: the E- and the M-step
            then do not belong together.
        OSError: If the checkpoint cannot be written.

    Example:
        >>> import zoo
        >>> data = zoo.load("red-wine")
        >>> mixture = zoo.GaussianMixture(data.event_shape, num_components=3)
        >>> result = fit_em(mixture, data.train, epochs=20, progress=False)
        >>> losses = [row["train"] for row in result.history]
        >>> losses == sorted(losses, reverse=True)
        True
    """
    if not isinstance(model, nn.Module) or not isinstance(model, HasEM):
        raise ValueError(
            f"EM expects a module with e_step and m_step, got {type(model).__name__}: train it by "
            "inference.fit, for instance on inference.ELBO"
        )
    x = _items(train, model)
    held_out = None if valid is None else _items(valid, model)
    check_counts(epochs=epochs, restarts=restarts, chunk=chunk)
    if not isinstance(tolerance, int | float) or not 0 <= tolerance < math.inf:
        raise ValueError(f"tolerance must be at least 0, got {tolerance}")
    if patience is not None and (patience < 1 or valid is None):
        raise ValueError(
            f"patience expects at least 1 and a valid set, got {patience} and {type(valid).__name__}"
        )
    if restarts > 1 and not (initialize and hasattr(model, "initialize")):
        raise ValueError(
            f"{restarts} restarts expect a model with a method initialize that is to be used, got "
            f"{type(model).__name__} and initialize={initialize}"
        )
    if hasattr(model, "check_training"):
        model.check_training(x)
    settings = {
        "items": len(x),
        "data": _digest(x),
        "valid": None if held_out is None else _digest(held_out),
        "model": _plain_attributes(model),
        "start": None if initialize else _digest(*model.state_dict().values()),
        "epochs": epochs,
        "tolerance": tolerance,
        "restarts": restarts,
        "initialize": initialize,
        "patience": patience,
        "chunk": chunk,
        "seed": seed,
        "shapes": {name: list(value.shape) for name, value in model.state_dict().items()},
    }
    with restored_modes(model), forked_rng(x.device), _threads_for(x), torch.no_grad():
        model.eval()
        run = _Run(model, x, held_out, settings, checkpoint, checkpoint_seconds, progress)
        return run()


class _Run:
    """One call of `fit_em`."""

    def __init__(
        self,
        model: Any,
        x: Tensor,
        valid: Tensor | None,
        settings: dict[str, Any],
        checkpoint: str | os.PathLike[str] | None,
        checkpoint_seconds: float,
        progress: bool,
    ) -> None:
        self.model, self.x, self.valid, self.settings = model, x, valid, settings
        self.checkpoint = None if checkpoint is None else Path(checkpoint)
        if self.checkpoint is not None and not self.checkpoint.parent.is_dir():
            raise ValueError(f"checkpoint must lie in a folder that exists, got {checkpoint}")
        self.checkpoint_seconds, self.progress = checkpoint_seconds, progress
        # Of the best start that is over; of the one under way; and of its best epoch.
        self.best, self.result = EMResult(), EMResult()
        self.best_theta: dict[str, Tensor] = {}
        self.theta: dict[str, Tensor] = {}
        self.current: dict[str, Tensor] = {}  # after the last whole epoch
        self.some_are_empty = False
        self.loss = math.inf
        self.seconds = 0.0
        self.starts: list[float] = []
        self.notes: list[str] = []

    def __call__(self) -> EMResult:
        self.resume()
        before, started = self.seconds, time.monotonic()
        saved = started
        restarts, epochs = self.settings["restarts"], self.settings["epochs"]
        done = epochs * len(self.starts) + len(self.result.history)
        interrupted = False
        try:
            with show_progress("EM", epochs * restarts, done=done, enabled=self.progress) as bar:
                while len(self.starts) < restarts:
                    for _ in self.steps():
                        self.seconds = before + time.monotonic() - started
                        row = self.result.history[-1]
                        bar.advance(f"{row['train']:.4f} nats, start {len(self.starts)}")
                        if time.monotonic() - saved >= self.checkpoint_seconds:
                            self.save()
                            saved = time.monotonic()
                    self.end_of_start()
            self.save()
        except KeyboardInterrupt:
            interrupted = True
            if self.result.history:
                self.model.load_state_dict(self.current)
            if self.result.history or self.starts:
                self.save()
            if self.result.history:
                self.end_of_start()
        if self.best_theta:
            self.model.load_state_dict(self.best_theta)
        self.best.seconds, self.best.interrupted = self.seconds, interrupted
        self.best.starts, self.best.notes = self.starts, self.notes
        if self.notes:
            more = f" (and {len(self.notes) - 1} more times, see notes)" if len(self.notes) > 1 else ""
            warnings.warn(f"EM: {self.notes[0]}{more}", stacklevel=3)
        return self.best

    def steps(self) -> Iterator[None]:
        """The epochs of one start; yields after each."""
        number, result = len(self.starts), self.result
        if not result.history:
            if self.settings["initialize"] and hasattr(self.model, "initialize"):
                self.model.initialize(self.x, _generator(self.settings["seed"], number))
            self.current = self.copy_of_theta()
            self.keep(0, math.inf)
        statistics, log_prob = self.e_step()
        objective = log_prob + self.log_prior()
        for epoch in range(len(result.history) + 1, self.settings["epochs"] + 1):
            if result.converged or result.stopped_early:
                return
            reseeded = self.m_step(statistics, number, epoch)
            before, (statistics, log_prob) = objective, self.e_step()
            log_prior = self.log_prior()
            objective = log_prob + log_prior
            gain = (objective - before) / len(self.x)
            if not math.isfinite(objective):
                raise ArithmeticError(f"the log-likelihood became {objective} in epoch {epoch} of EM")
            if not self.some_are_empty and -gain > self.slack(abs(log_prob) + abs(log_prior)):
                raise ArithmeticError(
                    f"epoch {epoch} of EM lowered the log-likelihood by {-gain:.3g} nats per item: expected "
                    "it to rise or stay; is the M-step the maximum of what the E-step expects?"
                )
            row, loss = {"epoch": epoch, "train": -log_prob / len(self.x)}, -objective / len(self.x)
            if self.valid is not None:
                row["valid"] = loss = -self.e_step(self.valid)[1] / len(self.valid)
            self.current = self.copy_of_theta()
            result.history.append(row)
            if self.valid is None or loss < self.loss:
                self.keep(epoch, loss)
            patience = self.settings["patience"]
            result.converged = not reseeded and gain < self.settings["tolerance"]
            result.stopped_early = patience is not None and epoch - result.best_epoch >= patience
            yield

    def m_step(self, statistics: Statistics, number: int, epoch: int) -> bool:
        """Moves θ; returns whether empty components were moved as well."""
        empty = self.model.empty_components(statistics) if hasattr(self.model, "empty_components") else []
        self.some_are_empty = bool(empty)  # these are in no maximum, and the likelihood may fall
        self.model.m_step(statistics)
        if not empty or len(self.notes) >= RESEEDS or epoch == self.settings["epochs"]:
            return False
        index = torch.randint(
            len(self.x), (len(empty),), generator=_generator(self.settings["seed"], number, epoch)
        )
        self.model.reseed(empty, self.x[index.to(self.x.device)])
        which = f"component{'s' if len(empty) > 1 else ''} {', '.join(map(str, empty))}"
        self.notes.append(f"{which}, empty in epoch {epoch} of start {number}, reseeded at random items")
        return True

    def e_step(self, x: Tensor | None = None) -> tuple[Statistics, float]:
        """Statistics and log-likelihood of all items, chunk by chunk."""
        statistics: Statistics = {}
        total = 0.0
        for part in (self.x if x is None else x).split(self.settings["chunk"]):
            found, log_prob = self.model.e_step(part)
            total += log_prob.sum(dtype=torch.float64).item()
            statistics = {name: value + statistics.get(name, 0.0) for name, value in found.items()}
        return statistics, total

    def log_prior(self) -> float:
        return float(self.model.log_prior()) if hasattr(self.model, "log_prior") else 0.0

    def slack(self, size: float) -> float:
        """What rounding may take, in nats per item, from the sum of terms of such a size."""
        eps = max((torch.finfo(p.dtype).eps for p in self.model.parameters()), default=0.0)
        return ROUNDING * eps * (1 + size / len(self.x))

    def copy_of_theta(self) -> dict[str, Tensor]:
        return {name: value.clone() for name, value in self.model.state_dict().items()}

    def keep(self, epoch: int, loss: float) -> None:
        self.theta, self.result.best_epoch, self.loss = self.current, epoch, loss

    def end_of_start(self) -> None:
        """Keeps the better of this start and those before, and gets ready for the next."""
        if not self.starts or self.loss < min(self.starts):
            self.best, self.best_theta = self.result, self.theta
            self.best.start = len(self.starts)
        self.starts.append(self.loss)
        self.result, self.theta = EMResult(), {}

    def save(self) -> None:
        if self.checkpoint is None:
            return
        save_checkpoint(
            self.checkpoint,
            {
                "settings": self.settings,
                "best": asdict(self.best),
                "result": asdict(self.result),
                "best_theta": self.best_theta,
                "theta": self.theta,
                "loss": self.loss,
                "model": self.model.state_dict(),
                "seconds": self.seconds,
                "starts": self.starts,
                "notes": self.notes,
            },
        )

    def resume(self) -> None:
        if self.checkpoint is None or not self.checkpoint.exists():
            return
        state = load_checkpoint(self.checkpoint)
        check_settings(self.checkpoint, state, self.settings)
        self.best, self.result = EMResult(**state["best"]), EMResult(**state["result"])
        self.best_theta, self.theta, self.loss = state["best_theta"], state["theta"], state["loss"]
        self.seconds, self.starts, self.notes = state["seconds"], state["starts"], state["notes"]
        self.model.load_state_dict(state["model"])
        self.current = state["model"]


def _items(data: Any, model: Any) -> Tensor:
    """The items of a split, or a tensor of them, checked at the door."""
    x = getattr(data, "x", data)
    check_items(model, x)
    return x


@contextmanager
def _threads_for(x: Tensor) -> Iterator[None]:
    """A single thread of torch's where the items are few."""
    before = torch.get_num_threads()
    torch.set_num_threads(before if x.numel() > SMALL else 1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _digest(*tensors: Tensor) -> str:
    """A fingerprint, so that no run is resumed on other data of the same size, or from another start."""
    digest = hashlib.blake2b(digest_size=8)
    for values in tensors:
        digest.update(values.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()


def _plain_attributes(model: nn.Module) -> dict[str, Any]:
    """What a model was built with, as far as it keeps it in plain numbers and words."""
    return {
        name: value
        for name, value in sorted(vars(model).items())
        if isinstance(value, bool | int | float | str)
        and not name.startswith("_")
        and name not in ("name", "training")
    }


def _generator(*parts: int) -> torch.Generator:
    digest = hashlib.blake2b("/".join(map(str, ("em", *parts))).encode(), digest_size=8).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "big") >> 1)
