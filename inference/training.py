"""The one training loop, on Lightning Fabric: every objective of every model goes through `fit`."""

import hashlib
import math
import os
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from inference.checkpoint import check_settings, load_checkpoint, save_checkpoint
from inference.graph import compile_step
from inference.program import Batch, arguments, check_counts, forked_rng, restored_modes
from inference.progress import Progress
from inference.progress import progress as show_progress

CHECKED_AT_A_TIME = 10_000
"""Items of a dynamic split that are drawn at once to be checked."""

BETAS = (0.9, 0.999)
"""Adam's own."""

ALL = ""
"""The player of an objective whose parameters move together."""

SCHEDULES = ("constant", "cosine")
"""How the learning rate runs: as it is, or along half a cosine from ``lr`` down to a hundredth of it."""


@dataclass
class FitResult:
    """What `fit` returns.

    Attributes:
        history: One row for each epoch: ``epoch`` (from 1), ``train`` and ``valid`` loss in nats per item
            (``valid`` only where there was validation), ``lr`` at the end of the epoch. Where players move in
            turn, ``train`` and ``lr`` are the last one's, and a column of its own holds the loss of each
            other: NaN where it did not move. Then come what the objective monitors.
        best_epoch: The epoch whose weights the objective holds now: lowest ``valid``, else the last; 0 is
            none.
        seconds: Time spent training, earlier runs of a resumed training included.
        stopped_early: Whether ``patience`` ended it.
        interrupted: Whether Ctrl-C ended it.
        rank: Which of the processes this is, 0 where there is one.
        notes: What went wrong while training, in words, as the objective says it.
    """

    history: list[dict[str, float]] = field(default_factory=list)
    best_epoch: int = 0
    seconds: float = 0.0
    stopped_early: bool = False
    interrupted: bool = False
    rank: int = 0
    notes: list[str] = field(default_factory=list)


def fit(
    objective: nn.Module,
    train: Any,
    *,
    valid: Any = None,
    epochs: int,
    batch_size: int = 100,
    lr: float | dict[str, float] = 1e-3,
    schedule: str = "constant",
    betas: tuple[float, float] = BETAS,
    optimizer: Callable[..., torch.optim.Optimizer] | None = None,
    momentum: float | None = None,
    weight_decay: float = 0.0,
    clip_norm: float | None = None,
    patience: int | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
    checkpoint_seconds: float = 30.0,
    compile: bool = False,
    devices: int = 1,
    num_nodes: int = 1,
    accelerator: str = "auto",
    strategy: Any = "auto",
    precision: Any = "32-true",
    logger: Any = None,
    seed: int = 0,
    progress: bool = True,
) -> FitResult:
    """Trains an objective in place, and leaves it with the best weights.

    Every epoch draws its order and its noise from ``seed`` and its own number, so that a training that was
    interrupted and resumed ends in the same bits as one that was not. torch's generators and Pyro's parameter
    store are left as they were.

    Args:
        objective: A module whose ``forward(batch)`` is the loss in nats per item (mean over the batch).
        train: A split of `zoo.load`, a tensor ``(num, *event_shape)``, or a tuple of tensors that go
            together.
        valid: The same, for early stopping and the choice of the best weights.
        epochs: How many times through ``train``, at least 1.
        batch_size: Items for each step, over all devices together. Where it takes in all items, they keep
            their order, so that a guide may have parameters for each (an AutoGuide over sites in the data
            plate).
        lr: Learning rate; where players move in turn, one for all, or a dict of them by player.
        schedule: ``"constant"`` or ``"cosine"``.
        betas: How much Adam keeps, from step to step, of the mean gradient and of the mean square, each 0 to
            below 1.
        optimizer: ``optimizer(parameters, lr=lr)``; None is Adam, fused where the device has it. Each player
            gets one.
        momentum: Takes plain gradient descent instead, with this momentum, 0 to below 1; it suits learning by
            contrast, whose chains must follow.
        weight_decay: Share of the weights that a step takes away, times the learning rate: apart from the
            gradient (AdamW's), or with a momentum through it. Parameters of one dimension, as biases are,
            are left alone.
        clip_norm: Largest norm of the gradient, of each player's; None does not clip.
        patience: Stop after so many epochs without a lower ``valid``; None runs through.
        checkpoint: A file to save to and to resume from where it exists already.
        checkpoint_seconds: Least time between two savings; the last epoch is always saved.
        compile: Trace the step into one graph and compile it: worth it from some minutes of training on.
        devices: Processes on this machine; more than 1 trains data-parallel, with identical weights on all.
        num_nodes: Machines.
        accelerator: Fabric's: ``"auto"``, ``"cpu"``, ``"cuda"``, …
        strategy: Fabric's; ``"auto"`` is DDP where there are several devices.
        precision: Fabric's, for instance ``"bf16-mixed"``; ``"32-true"`` leaves the parameters' type alone.
        logger: A Fabric logger, or several, for the history.
        seed: Seed of order and noise.
        progress: Whether to show a bar.

    Returns:
        The history and how the training ended. After Ctrl-C too.

    Raises:
        ValueError: If an argument is out of its range, the data do not suit the model, or the checkpoint
            belongs to other settings.
        FloatingPointError: If the loss is no longer finite; the objective then holds the best weights before.
        OSError: If the checkpoint cannot be written; the one before it is still there.

    Example:
        >>> import zoo, inference
        >>> data = zoo.load("digits")
        >>> vae = zoo.VAE(data.event_shape, latent_dim=2)
        >>> elbo = inference.ELBO(vae)
        >>> result = inference.fit(elbo, data.train, valid=data.valid, epochs=2, progress=False)
        >>> len(result.history)
        2
    """
    if not isinstance(objective, nn.Module) or type(objective).forward is nn.Module.forward:
        raise ValueError(
            f"fit expects an objective, for instance inference.ELBO(model), got {type(objective).__name__}"
        )
    items, valid_items = _Items(objective, train), None if valid is None else _Items(objective, valid)
    if hasattr(objective, "check_training") and not items.dynamic:
        objective.check_training(items.batch(slice(None)))
    check_counts(epochs=epochs, batch_size=batch_size, devices=devices, num_nodes=num_nodes)
    players = tuple(getattr(objective, "players", ()))
    _check_rates(lr, players)
    betas = _checked_betas(betas, alone=momentum is None and optimizer is None)
    if schedule not in SCHEDULES:
        raise ValueError(f"schedule must be one of {', '.join(SCHEDULES)}, got {schedule!r}")
    if not 0 <= weight_decay < math.inf or (weight_decay and optimizer is not None):
        came = weight_decay if optimizer is None else f"{weight_decay} with an optimizer of its own"
        raise ValueError(f"weight_decay must be at least 0, and left to Adam, got {came}")
    if momentum is not None and (optimizer is not None or not 0 <= momentum < 1):
        came = momentum if optimizer is None else f"{momentum} with an optimizer of its own"
        raise ValueError(f"momentum must lie between 0 and 1, below it, got {came}")
    if clip_norm is not None and not clip_norm > 0:
        raise ValueError(f"clip_norm must be above 0, got {clip_norm}")
    if patience is not None and (patience < 1 or valid is None):
        raise ValueError(
            f"patience expects at least 1 and a valid set, got {patience} and {type(valid).__name__}"
        )

    several = devices * num_nodes > 1 or "LOCAL_RANK" in os.environ
    if compile and several:
        raise ValueError("compile=True runs on one device; leave it out, or train on devices=1")
    if compile and players:
        raise ValueError(f"compile=True expects parameters that move together, got {' and '.join(players)}")
    # At each move, the other players' parameters have no part in the loss.
    parallel = "ddp_find_unused_parameters_true" if players else "ddp"
    fabric = Fabric(
        accelerator=accelerator,
        devices=devices,
        num_nodes=num_nodes,
        strategy=parallel if several and strategy == "auto" else strategy,
        precision=precision,
        loggers=logger,
    )
    fabric.launch()
    if min(batch_size, len(items)) < fabric.world_size:
        raise ValueError(
            f"batch_size and the items must be at least 1 for each of {fabric.world_size} devices, got "
            f"{batch_size} and {len(items)}"
        )
    if checkpoint is not None and fabric.global_rank == 0 and not Path(checkpoint).parent.is_dir():
        raise ValueError(f"checkpoint must lie in a folder that exists, got {checkpoint}")

    settings = {
        "items": len(items),
        "data": items.digest(),
        "valid_items": 0 if valid_items is None else len(valid_items),
        "epochs": epochs,
        "batch_size": batch_size,
        "lr": lr,
        "schedule": schedule,
        "momentum": momentum,
        "weight_decay": weight_decay,
        "clip_norm": clip_norm,
        "patience": patience,
        "precision": str(precision),
        "devices": fabric.world_size,
        "compile": compile,
        "seed": seed,
    }
    quiet = _quiet_about_held() if players else nullcontext()
    with restored_modes(objective), forked_rng(fabric.device), quiet:
        run = _Run(
            fabric,
            objective,
            items,
            valid_items,
            settings,
            checkpoint,
            checkpoint_seconds,
            optimizer,
            betas,
            progress,
        )
        return run()


def _check_rates(lr: Any, players: tuple[str, ...]) -> None:
    """Refuses a learning rate that is none, and rates of players that there are not."""
    if isinstance(lr, dict) and (not players or lr.keys() != set(players)):
        wanted = f"a number, or one for each of {', '.join(players)}" if players else "a number"
        raise ValueError(f"lr must be {wanted}, got {lr}")
    for rate in lr.values() if isinstance(lr, dict) else (lr,):
        if rate <= 0 or not math.isfinite(rate):
            raise ValueError(f"lr must be above 0, got {lr}")


def _checked_betas(betas: Any, *, alone: bool) -> tuple[float, float]:
    """Adam's averages as two numbers, which nothing but Adam has a use for."""
    if len(betas) != 2 or not all(0 <= beta < 1 for beta in betas):
        raise ValueError(f"betas must be two numbers between 0 and 1, below it, got {betas}")
    first, second = map(float, betas)
    if (first, second) != BETAS and not alone:
        raise ValueError(
            f"betas are Adam's, got {betas} with a momentum or an optimizer of its own; leave them out"
        )
    return first, second


class _Items:
    """Training or validation data, whatever they came as."""

    def __init__(self, objective: nn.Module, data: Any) -> None:
        self.split = None if isinstance(data, Tensor | tuple | list) else data
        self.dynamic = bool(getattr(data, "dynamic", False))
        self.single = isinstance(data, Tensor)
        self.tensors = arguments(data)
        if self.split is not None:
            labels = getattr(data, "y", None) if getattr(objective, "takes_labels", False) else None
            # A dynamic split makes its fixed items when asked for them: training never does, to save memory.
            head = () if self.dynamic else (getattr(data, "x", data),)
            self.tensors = head if labels is None else (*head, labels)
            self.single = labels is None
        if getattr(objective, "in_streams", False) and self.single:
            self.tensors = (*self.tensors, self._starts())
            self.single = False
        sizes = {len(values) if isinstance(values, Tensor) and values.dim() else 0 for values in self.tensors}
        sizes |= {len(data)} if self.dynamic else set()
        if len(sizes) != 1 or 0 in sizes:
            came = ", ".join(
                str(tuple(v.shape)) if isinstance(v, Tensor) else type(v).__name__ for v in self.tensors
            )
            raise ValueError(
                f"expected a tensor of items, or tensors of as many items each, got {came or 'none'}"
            )
        self.num = sizes.pop()
        if hasattr(objective, "check"):
            all_of_them = torch.arange(self.num).split(CHECKED_AT_A_TIME) if self.dynamic else [slice(None)]
            for index in all_of_them:
                objective.check(self.batch(index, _generator("check")))

    def _starts(self) -> Tensor:
        """Which windows are the first of their sequence: one of a bare tensor, all of a plain split."""
        if self.split is None:
            return torch.arange(len(self.tensors[0])) == 0
        starts = getattr(self.split, "starts", None)
        return torch.ones(len(self.tensors[0]), dtype=torch.bool) if starts is None else starts

    def __len__(self) -> int:
        return self.num

    def batch(self, index: Tensor | slice, generator: torch.Generator | None = None) -> Batch:
        """The items at ``index``; a dynamic split draws them afresh where there is a generator."""
        values = [values[index] for values in self.tensors]
        if self.dynamic:
            assert self.split is not None
            values.insert(0, self.split.x[index] if generator is None else self.split.batch(index, generator))
        return values[0] if self.single else tuple(values)

    def digest(self) -> str:
        """A fingerprint of the first items, so that no training is resumed on other data of the same size."""
        digest = hashlib.blake2b(digest_size=8)
        for values in arguments(self.batch(torch.arange(min(self.num, 100)), _generator("digest"))):
            digest.update(values.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
        return digest.hexdigest()


class _Run:
    """One call of `fit`."""

    def __init__(
        self,
        fabric: Fabric,
        objective: nn.Module,
        items: _Items,
        valid: _Items | None,
        settings: dict[str, Any],
        checkpoint: str | os.PathLike[str] | None,
        checkpoint_seconds: float,
        optimizer: Callable[..., torch.optim.Optimizer] | None,
        betas: tuple[float, float],
        progress: bool,
    ) -> None:
        self.fabric, self.objective, self.items, self.valid = fabric, objective, items, valid
        self.in_streams = getattr(objective, "in_streams", False)
        self.checkpoint = None if checkpoint is None else Path(checkpoint)
        self.checkpoint_seconds = checkpoint_seconds
        self.seed, self.epochs = settings["seed"], settings["epochs"]
        self.progress = progress and fabric.global_rank == 0
        self.result = FitResult(rank=fabric.global_rank)
        self.best: dict[str, Tensor] = {}
        self.saved_epoch = 0

        if hasattr(objective, "prepare"):
            torch.manual_seed(_derive_seed(self.seed, "prepare"))
            first = torch.arange(min(len(items), settings["batch_size"]))
            objective.prepare(items.batch(first, _generator("prepare")))
        self.settings = settings
        self.params = self.parameters_by_player()
        owned = {player: {id(param) for param in params} for player, params in self.params.items()}
        self.of_others = {
            player: [p for params in self.params.values() for p in params if id(p) not in owned[player]]
            for player in self.params
        }
        made = {
            player: self.make_optimizer(player, params, optimizer, betas)
            for player, params in self.params.items()
        }
        described = {player: f"{type(each).__name__}({each.defaults})" for player, each in made.items()}
        self.settings = {
            **settings,
            "objective": f"{type(objective).__name__}({objective.extra_repr()})",
            "optimizer": described.get(ALL, described),
            "shapes": {name: list(value.shape) for name, value in objective.state_dict().items()},
        }
        self.module, *optimizers = fabric.setup(objective, *made.values())
        self.optimizers = dict(zip(made, optimizers, strict=True))
        self.compiled: Callable[[Batch], Tensor] | None = None
        self.stepped = False
        self.told: set[str] = set()

    def parameters_by_player(self) -> dict[str, list[nn.Parameter]]:
        """What each player moves, in the order of their moves; all of it where they move together."""
        trained = [param for param in self.objective.parameters() if param.requires_grad]
        if not trained:
            raise ValueError("the objective has no parameters to train; does its program belong to a module?")
        players = tuple(getattr(self.objective, "players", ()))
        if not players:
            return {ALL: trained}
        theirs = {
            player: [param for param in self.objective.parameters_of(player) if param.requires_grad]
            for player in players
        }
        for player, params in theirs.items():
            if not params:
                raise ValueError(f"the {player} has no parameters to train; does it belong to a module?")
        moved = {id(param) for params in theirs.values() for param in params}
        idle = [
            name
            for name, param in self.objective.named_parameters()
            if param.requires_grad and id(param) not in moved
        ]
        if idle and self.fabric.global_rank == 0:
            warnings.warn(
                f"no player moves {len(idle)} of the parameters, {idle[0]} among them: they stay as they are",
                stacklevel=2,
            )
        return theirs

    def make_optimizer(
        self,
        player: str,
        params: list[nn.Parameter],
        optimizer: Callable[..., torch.optim.Optimizer] | None,
        betas: tuple[float, float],
    ) -> torch.optim.Optimizer:
        settings, lr = self.settings, self.rate_of(player)
        if optimizer is not None:
            return optimizer(params, lr=lr)
        biases, weights = ([p for p in params if (p.dim() > 1) == matrix] for matrix in (False, True))
        groups = [{"params": biases, "weight_decay": 0.0}, {"params": weights}]
        common = {
            "lr": lr,
            "weight_decay": settings["weight_decay"],
            "fused": params[0].device.type in ("cpu", "cuda") or None,
        }
        if settings["momentum"] is None:
            return torch.optim.AdamW(groups, betas=betas, **common)
        return torch.optim.SGD(groups, momentum=settings["momentum"], **common)

    def __call__(self) -> FitResult:
        self.keep_best(epoch=0)
        self.resume()
        started, before = time.monotonic(), self.result.seconds
        saved = started
        history = self.result.history
        try:
            with show_progress("training", self.epochs, done=len(history), enabled=self.progress) as bar:
                for epoch in range(len(history) + 1, self.epochs + 1):
                    if self.out_of_patience():
                        self.result.stopped_early = True
                        break
                    row = self.train_epoch(epoch)
                    lowest = history[self.result.best_epoch - 1] if self.result.best_epoch else {}
                    if "valid" not in row or row["valid"] < lowest.get("valid", math.inf):
                        self.keep_best(epoch)
                    history.append(row)
                    self.result.seconds = before + time.monotonic() - started
                    self.fabric.log_dict({name: row[name] for name in row if name != "epoch"}, step=epoch)
                    self.take_note(row, bar)
                    bar.advance(self.described(row))
                    if time.monotonic() - saved >= self.checkpoint_seconds:
                        self.save()
                        saved = time.monotonic()
            self.save()
        except KeyboardInterrupt:
            self.result.interrupted = True
            if not history:
                return self.result  # part of a first epoch has taught more than nothing
        except (ArithmeticError, OSError):
            self.restore_best()
            raise
        self.restore_best()
        return self.result

    def train_epoch(self, epoch: int) -> dict[str, float]:
        torch.manual_seed(_derive_seed(self.seed, epoch, self.fabric.global_rank))
        noise = _generator(self.seed, epoch, "items", self.fabric.global_rank)
        self.module.train()
        self.begin_pass()
        losses: dict[str, list[Tensor]] = {player: [] for player in self.optimizers}
        sizes: dict[str, list[int]] = {player: [] for player in self.optimizers}
        chunks = list(self.batches(self.order(epoch)))
        for step, index in enumerate(chunks):
            done = epoch - 1 + step / len(chunks)
            for player, loss in self.step(self.items.batch(index, noise), done).items():
                losses[player].append(loss.detach())
                sizes[player].append(len(index))
            if step % 100 == 99:
                for player, each in losses.items():
                    if each:
                        self.finite(torch.stack(each[-100:]).sum(), epoch, step, player)
        means = {
            player: self.mean_loss(player, losses[player], sizes[player], epoch, len(chunks) - 1)
            for player in losses
        }
        *others, last = means
        row = {"epoch": epoch, "train": means[last], **{player: means[player] for player in others}}
        if last != ALL:
            row |= self.monitored(epoch)
        if self.valid is not None:
            row["valid"] = self.validate()
            if math.isnan(row["valid"]):
                raise self.failure(math.nan, epoch, len(chunks) - 1)
        # The last step may have spoilt weights that no training loss has been computed with.
        for player, params in self.params.items():
            if not all(param.isfinite().all() for param in params):
                raise self.failure(math.nan, epoch, len(chunks) - 1, player)
        if not all(param.isfinite().all() for param in self.objective.parameters()):
            raise self.failure(math.nan, epoch, len(chunks) - 1)
        return {**row, "lr": self.learning_rate(last, done)}

    def mean_loss(self, player: str, losses: list[Tensor], sizes: list[int], epoch: int, step: int) -> float:
        """The mean over an epoch's items; NaN of a player that did not move."""
        if not losses:
            return math.nan
        weights = torch.tensor(sizes, dtype=torch.float64)
        mean = (torch.stack(losses).cpu().double() * weights).sum() / weights.sum()
        return self.finite(mean, epoch, step, player)

    @torch.no_grad()
    def monitored(self, epoch: int) -> dict[str, float]:
        """What the objective monitors, the mean over the ranks."""
        torch.manual_seed(_derive_seed(self.seed, epoch, "monitor", self.fabric.global_rank))
        self.module.eval()
        figures = self.objective.monitor()
        values = torch.tensor(list(figures.values()), dtype=torch.float64, device=self.fabric.device)
        means = torch.as_tensor(self.fabric.all_reduce(values, reduce_op="mean"))
        return dict(zip(figures, means.tolist(), strict=True))

    def take_note(self, row: dict[str, float], bar: Progress) -> None:
        """Says what goes wrong, each fault once, and keeps it."""
        if ALL in self.optimizers:
            return
        for note in self.objective.notes(row):
            fault = note.partition(":")[0]
            if fault not in self.told:
                self.told.add(fault)
                self.result.notes.append(note)
                bar.say(note)

    def described(self, row: dict[str, float]) -> str:
        """An epoch in a few words, for the bar."""
        if ALL in self.optimizers:
            return " ".join(f"{name} {row[name]:.2f}" for name in ("train", "valid") if name in row)
        return " ".join(f"{name} {value:.3g}" for name, value in row.items() if name not in ("epoch", "lr"))

    def step(self, batch: Batch, epochs_done: float) -> dict[str, Tensor]:
        """One step with a batch: the losses of those who moved, by player."""
        batch = self.fabric.to_device(batch)
        for player, optimizer in self.optimizers.items():
            for group in optimizer.param_groups:
                group["lr"] = self.learning_rate(player, epochs_done)
        if ALL in self.optimizers:
            return {ALL: self.move_all(batch)}
        return {player: self.move(player, batch) for player in self.objective.turn()}

    def move(self, player: str, batch: Batch) -> Tensor:
        optimizer = self.optimizers[player]
        with _held(self.of_others[player]):
            optimizer.zero_grad()
            loss = self.module(batch, player=player)
            self.fabric.backward(loss)
        self.clip(optimizer)
        optimizer.step()
        return loss

    def move_all(self, batch: Batch) -> Tensor:
        optimizer = self.optimizers[ALL]
        compiled = self.compiled_step(batch)
        if compiled is not None:
            loss = compiled(batch)
        else:
            optimizer.zero_grad()
            loss = self.module(batch)
            self.fabric.backward(loss)
            # One that alternates leaves some to the next step.
            if not self.stepped and not getattr(self.objective, "alternates", False):
                self.warn_of_idle_parameters()
        self.stepped = True
        self.clip(optimizer)
        optimizer.step()
        return loss

    def clip(self, optimizer: Any) -> None:
        if self.settings["clip_norm"] is not None:
            self.fabric.clip_gradients(
                self.module, optimizer, max_norm=self.settings["clip_norm"], error_if_nonfinite=False
            )

    def warn_of_idle_parameters(self) -> None:
        owners = getattr(getattr(self.objective, "program", None), "owners", ())
        # A model whose program draws its parameters has some of its own that have no part in it.
        without_part = {
            id(param)
            for owner in owners
            if len(owners) > 1 and all(param.grad is None for param in owner.parameters())
            for param in owner.parameters()
        }
        idle = [
            name
            for name, param in self.objective.named_parameters()
            if param.requires_grad and param.grad is None and id(param) not in without_part
        ]
        if idle and self.fabric.global_rank == 0:
            warnings.warn(
                f"no gradient of this objective reaches {len(idle)} of the parameters, {idle[0]} among them: "
                "they stay as they are",
                stacklevel=2,
            )

    def compiled_step(self, batch: Batch) -> Callable[[Batch], Tensor] | None:
        """The compiled step for batches of full size; the smaller one at the end of an epoch runs eagerly."""
        if not self.settings["compile"]:
            return None
        if len(arguments(batch)[0]) < min(self.settings["batch_size"], len(self.items)):
            return None
        if self.compiled is None:
            with self.fabric.autocast():
                self.compiled = compile_step(self.objective, batch)
        return self.compiled

    def order(self, epoch: int) -> Tensor:
        """All items as one batch keep their order, so that a guide may have parameters for each of them.

        An objective that carries a state from batch to batch says itself what order its streams have.
        """
        if self.in_streams:
            return self.objective.order(len(self.items), self.settings["batch_size"])
        if self.settings["batch_size"] >= len(self.items):
            return torch.arange(len(self.items))
        return torch.randperm(len(self.items), generator=_generator(self.seed, epoch, "order"))

    def batches(self, order: Tensor) -> Iterator[Tensor]:
        """This rank's part of every batch; all ranks have parts of the same size."""
        world, rank = self.fabric.world_size, self.fabric.global_rank
        for index in order.split(self.settings["batch_size"]):
            share = len(index) // world
            # What is left of streams at their end would come to the wrong rank, whose rows these are not.
            whole = world == 1 or not self.in_streams or len(index) == self.settings["batch_size"]
            if share and whole:
                yield index[rank * share : (rank + 1) * share]

    def begin_pass(self) -> None:
        """An objective that carries a state from batch to batch begins anew."""
        if self.in_streams:
            self.objective.forget()

    @torch.no_grad()
    def validate(self) -> float:
        """Mean loss on the validation items, with the same noise every time and on every rank."""
        assert self.valid is not None
        torch.manual_seed(_derive_seed(self.seed, "valid"))
        self.module.eval()
        self.begin_pass()
        total = torch.zeros((), dtype=torch.float64)
        order = torch.arange(len(self.valid))
        if self.in_streams:
            order = self.objective.order(len(self.valid), self.settings["batch_size"])
        parts = order.split(self.settings["batch_size"])
        if ALL not in self.optimizers:  # what compares items with draws has no use for a last one by itself
            parts = order.tensor_split(len(parts))
        for index in parts:
            batch = self.fabric.to_device(self.valid.batch(index))
            total += self.module(batch).cpu() * len(index)
        return total.item() / len(self.valid)

    def rate_of(self, player: str) -> float:
        lr = self.settings["lr"]
        return lr[player] if isinstance(lr, dict) else lr

    def learning_rate(self, player: str, epochs_done: float) -> float:
        lr = self.rate_of(player)
        if self.settings["schedule"] == "constant":
            return lr
        return lr * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * epochs_done / self.epochs)))

    def finite(self, loss: Tensor, epoch: int, step: int, player: str = ALL) -> float:
        """The mean of a loss over the ranks, so that all of them give up together where it is not finite."""
        value = torch.as_tensor(self.fabric.all_reduce(loss.to(self.fabric.device), reduce_op="mean")).item()
        if not math.isfinite(value):
            raise self.failure(value, epoch, step, player)
        return value

    def failure(self, value: float, epoch: int, step: int, player: str = ALL) -> FloatingPointError:
        whose = f" of the {player}" if player else ""
        return FloatingPointError(
            f"the loss{whose} became {value} in epoch {epoch}, by step {step + 1}; a lower lr or clip_norm"
            f" may help. Kept: the weights of epoch {self.result.best_epoch}"
        )

    def keep_best(self, epoch: int) -> None:
        self.best = {name: value.detach().clone() for name, value in self.objective.state_dict().items()}
        self.result.best_epoch = epoch

    def restore_best(self) -> None:
        self.objective.load_state_dict(self.best)

    def out_of_patience(self) -> bool:
        patience = self.settings["patience"]
        return patience is not None and len(self.result.history) - self.result.best_epoch >= patience

    def save(self) -> None:
        """Writes the state at the end of the last epoch."""
        if self.checkpoint is None or self.fabric.global_rank != 0:
            return
        if self.saved_epoch == len(self.result.history):
            return
        states = {player: optimizer.state_dict() for player, optimizer in self.optimizers.items()}
        save_checkpoint(
            self.checkpoint,
            {
                "settings": self.settings,
                "history": self.result.history,
                "best_epoch": self.result.best_epoch,
                "seconds": self.result.seconds,
                "objective": self.objective.state_dict(),
                "best": self.best,
                "optimizer": states.get(ALL, states),
                "notes": self.result.notes,
            },
        )
        self.saved_epoch = len(self.result.history)

    def resume(self) -> None:
        if self.checkpoint is None or not self.checkpoint.exists():
            return
        state = load_checkpoint(self.checkpoint)
        check_settings(self.checkpoint, state, self.settings)
        self.objective.load_state_dict(state["objective"])
        for player, optimizer in self.optimizers.items():
            optimizer.load_state_dict(state["optimizer"] if player == ALL else state["optimizer"][player])
        self.best = state["best"]
        self.result.history = state["history"]
        self.result.best_epoch = state["best_epoch"]
        self.result.seconds = state["seconds"]
        self.result.notes = state.get("notes", [])  # trainings from before there were any have none
        self.told = {note.partition(":")[0] for note in self.result.notes}
        self.saved_epoch = len(self.result.history)


@contextmanager
def _quiet_about_held() -> Iterator[None]:
    """Pyro warns of a module's parameters that ask for no gradient; a player's are held on purpose."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*because requires_grad=False")
        yield


@contextmanager
def _held(params: list[nn.Parameter]) -> Iterator[None]:
    """Parameters that ask for no gradient meanwhile."""
    try:
        for param in params:
            param.requires_grad_(False)
        yield
    finally:
        for param in params:
            param.requires_grad_(True)


def _derive_seed(*parts: Any) -> int:
    """A seed for torch from a seed and what it is for, the same on every machine."""
    digest = hashlib.blake2b("/".join(map(str, parts)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def _generator(*parts: Any) -> torch.Generator:
    return torch.Generator().manual_seed(_derive_seed(*parts))
