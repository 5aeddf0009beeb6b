"""`inference.fit` where players move in turn: each with its own optimiser, loss and parameters."""

import math
import warnings

import pytest
import torch
from torch import nn

import inference
from inference.objectives import Objective


class Chase(Objective):
    """Two points: the first moves towards the items, the second towards the first."""

    players = ("first", "second")

    def __init__(self, every: int = 1) -> None:
        super().__init__(lambda x: None)
        self.points = nn.ParameterDict({name: nn.Parameter(torch.zeros(2)) for name in self.players})
        self.every = every
        self.moved: list[tuple[str, list[str], int]] = []
        self.at_monitor: list[bool] = []

    def prepare(self, batch):
        pass

    def check(self, batch):
        pass

    def parameters_of(self, player):
        return [self.points[player]]

    def turn(self):
        players = super().turn()
        return players if self.steps % self.every == 0 else players[:1]

    def forward(self, batch, player=None):
        if player is None:
            return self.distance()
        asking = [name for name, param in self.points.items() if param.requires_grad]
        self.moved.append((player, asking, len(batch)))
        return (
            (batch - self.points["first"]).square().sum(-1).mean() if player == "first" else self.distance()
        )

    def distance(self):
        return (self.points["first"] - self.points["second"]).square().sum()

    def monitor(self):
        self.at_monitor.append(self.training or torch.is_grad_enabled())
        return {"apart": self.distance().item(), "noise": torch.rand(()).item()}

    def notes(self, row):
        far = [f"the second is far: {row['apart']:.3f} away"] if row["apart"] > 0 else []
        return far + (["it is late: so it is"] if row["epoch"] >= 2 else [])


def points(num: int = 20) -> torch.Tensor:
    return torch.randn(num, 2, generator=torch.Generator().manual_seed(1)) + 3


def fit(objective, **settings):
    defaults = {"epochs": 3, "batch_size": 8, "lr": 0.1, "progress": False}
    return inference.fit(objective, settings.pop("data", points()), **{**defaults, **settings})


def places(objective) -> torch.Tensor:
    return torch.cat([param.detach() for param in objective.points.values()])


def test_each_moves_its_own_parameters_alone_in_the_order_of_the_turn():
    chase = Chase()
    fit(chase, epochs=1)
    assert chase.moved == [(name, [name], num) for num in (8, 8, 4) for name in chase.players]
    assert all(param.requires_grad for param in chase.parameters())


def test_a_step_is_that_of_an_optimiser_for_each():
    """By hand: Adam for each, the second's gradient taken where the first has already moved."""
    chase = Chase()
    fit(chase, lr={"first": 0.1, "second": 0.02}, betas=(0.5, 0.9), batch_size=20, epochs=4)
    first, second = (nn.Parameter(torch.zeros(2)) for _ in range(2))
    ours = [
        torch.optim.Adam([param], lr=lr, betas=(0.5, 0.9)) for param, lr in ((first, 0.1), (second, 0.02))
    ]
    for _ in range(4):
        for optimizer, loss in (
            (ours[0], lambda: (points() - first).square().sum(-1).mean()),
            (ours[1], lambda: (first.detach() - second).square().sum()),
        ):
            optimizer.zero_grad()
            loss().backward()
            optimizer.step()
    assert torch.allclose(places(chase), torch.cat([first, second]).detach(), atol=1e-6)


def test_one_rate_is_for_all_and_the_last_ones_is_in_the_history():
    assert fit(Chase(), lr=0.1).history == fit(Chase(), lr={"first": 0.1, "second": 0.1}).history
    rates = {"first": 0.1, "second": 0.02}
    assert [row["lr"] for row in fit(Chase(), lr=rates).history] == [0.02] * 3
    falling = fit(Chase(), lr=rates, schedule="cosine").history
    assert falling[0]["lr"] == pytest.approx(0.02 * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * 2 / 9))))


def test_the_history_has_a_column_for_each_and_what_is_monitored():
    chase = Chase()
    result = fit(chase, valid=points(5), batch_size=20, epochs=2)
    assert [*result.history[0]] == ["epoch", "train", "first", "apart", "noise", "valid", "lr"]
    one = result.history[0]
    assert one["first"] == pytest.approx(points().square().sum(-1).mean().item())
    assert one["train"] == pytest.approx(2 * 0.1**2, rel=1e-4)  # both entries, after the first's first move
    assert one["valid"] == pytest.approx(one["apart"])
    assert result.history[0]["noise"] != result.history[1]["noise"]
    assert result.history == fit(Chase(), valid=points(5), batch_size=20, epochs=2).history
    assert chase.at_monitor == [False, False], "in evaluation mode, without gradient"


def test_who_moves_at_some_steps_only_has_the_mean_over_these():
    chase = Chase(every=2)
    result = fit(chase, epochs=2)  # three steps an epoch
    assert [name for name, _, _ in chase.moved] == [
        "first",
        *("first", "second", "first") * 2,
        "first",
        "second",
    ][:9]
    assert chase.steps.item() == 6
    rare = fit(Chase(every=5), epochs=2).history
    assert math.isnan(rare[0]["train"]) and math.isfinite(rare[1]["train"])
    assert result.history[0]["train"] > 0


@pytest.mark.parametrize("interrupted", [1, 2])
def test_resumed_it_ends_in_the_same_bits(tmp_path, interrupted):
    class Stop:
        def log_metrics(self, metrics, step):
            if step == interrupted:
                raise KeyboardInterrupt

    settings = {
        **{"valid": points(5), "epochs": 4, "schedule": "cosine", "lr": {"first": 0.1, "second": 0.3}},
        **{"checkpoint_seconds": 0.0, "checkpoint": tmp_path / "c.pt"},
    }
    whole = Chase(every=2)
    expected = fit(whole, **{**settings, "checkpoint": None})
    part = fit(Chase(every=2), logger=Stop(), **settings)
    assert part.interrupted and len(part.history) == interrupted
    chase = Chase(every=2)
    resumed = fit(chase, **settings)
    assert repr(resumed.history) == repr(expected.history)
    assert torch.equal(places(chase), places(whole)) and chase.steps == whole.steps
    assert resumed.notes == expected.notes and len(expected.notes) == 2


def test_a_checkpoint_of_other_rates_is_refused(tmp_path):
    path = tmp_path / "c.pt"
    fit(Chase(), checkpoint=path)
    for other in ({"lr": {"first": 0.1, "second": 0.2}}, {"betas": (0.5, 0.999)}):
        with pytest.raises(ValueError, match="belongs to a training with another"):
            fit(Chase(), checkpoint=path, **other)


def test_each_fault_is_noted_once_and_said_at_once(capsys):
    result = fit(Chase(), progress=True, epochs=3)
    said = capsys.readouterr().err.splitlines()
    assert result.notes == [
        f"the second is far: {result.history[0]['apart']:.3f} away",
        "it is late: so it is",
    ]
    assert [line for line in said if line in result.notes] == result.notes


def test_notes_stand_above_the_bar(monkeypatch):
    import io

    from inference.progress import progress

    class Terminal(io.StringIO):
        def isatty(self):
            return True

    monkeypatch.setattr("sys.stderr", Terminal())
    with progress("training", 2) as bar:
        bar.say("[it] is 50 % off")
        bar.advance("loss 1")
    import sys

    printed = sys.stderr.getvalue()
    assert "[it] is 50 % off" in printed and "training" in printed.split("[it] is 50 % off")[1]


def test_the_gradient_of_each_is_clipped_by_itself():
    class Norms(torch.optim.SGD):
        seen: list[float] = []

        def step(self, closure=None):
            (param,) = self.param_groups[0]["params"]
            self.seen.append(param.grad.norm().item())
            return super().step(closure)

    fit(Chase(), optimizer=Norms, clip_norm=0.05, lr=0.05, batch_size=20, epochs=2)
    assert len(Norms.seen) == 4
    assert all(norm <= 0.0501 for norm in Norms.seen) and max(Norms.seen) > 0.049


def test_the_optimiser_that_is_asked_for_is_made_for_each():
    rates = []

    def made(params, lr):
        rates.append((len(list(params)), lr))
        return torch.optim.SGD(params, lr=lr)

    fit(Chase(), optimizer=made, lr={"first": 0.1, "second": 0.2}, epochs=1)
    assert rates == [(1, 0.1), (1, 0.2)]


def test_a_loss_that_is_not_finite_says_whose():
    class Breaks(Chase):
        def forward(self, batch, player=None):
            loss = super().forward(batch, player)
            return loss * math.inf if player == "second" and self.steps > 4 else loss

    chase = Breaks()
    with pytest.raises(FloatingPointError, match=r"the loss of the second became (inf|nan) in epoch 2"):
        fit(chase)
    assert places(chase).isfinite().all() and (places(chase) != 0).all()


def test_weights_that_are_not_finite_say_whose():
    class Breaks(Chase):
        def monitor(self):
            with torch.no_grad():
                self.points["first"].fill_(math.nan)
            return {}

    with pytest.raises(FloatingPointError, match="the loss of the first became nan in epoch 1"):
        fit(Breaks())


def test_no_warning_of_parameters_that_wait_their_turn_but_of_those_that_never_come():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fit(Chase(), epochs=1)
    chase = Chase()
    chase.points["third"] = nn.Parameter(torch.zeros(2))
    with pytest.warns(UserWarning, match="no player moves 1 of the parameters, points.third"):
        fit(chase, epochs=1)


def test_a_module_of_pyro_that_is_held_is_no_reason_to_warn():
    import pyro

    class Registers(Chase):
        def forward(self, batch, player=None):
            pyro.module("points", self.points)
            return super().forward(batch, player)

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fit(Registers(), epochs=1)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"lr": {"first": 0.1}}, "lr must be a number, or one for each of first, second, got"),
        ({"lr": {"first": 0.1, "third": 0.1}}, "lr must be a number, or one for each of first, second, got"),
        ({"lr": {"first": 0.1, "second": 0.0}}, "lr must be above 0, got"),
        ({"compile": True}, "compile=True expects parameters that move together, got first and second"),
        ({"betas": (0.9, 1.0)}, "betas must be two numbers between 0 and 1, below it, got"),
        ({"betas": (0.9,)}, "betas must be two numbers between 0 and 1, below it, got"),
        ({"betas": (0.5, 0.9), "momentum": 0.9}, "betas are Adam's, got"),
        ({"betas": (0.5, 0.9), "optimizer": torch.optim.SGD}, "betas are Adam's, got"),
    ],
)
def test_settings_that_do_not_suit_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        fit(Chase(), **settings)


def test_rates_by_player_where_all_move_together_are_refused():
    net = nn.Sequential(nn.Linear(2, 1), nn.Flatten(0), nn.Softmax(0))
    with pytest.raises(ValueError, match="lr must be a number, got"):
        fit(net, lr={"first": 0.1})


def test_a_player_without_parameters_is_refused():
    chase = Chase()
    chase.points["second"].requires_grad_(False)
    with pytest.raises(ValueError, match="the second has no parameters to train"):
        fit(chase)


def test_what_moves_together_takes_the_same_averages():
    """Adam's own are named where nothing is said, so that a checkpoint of before still fits."""

    class Pull(nn.Module):
        def __init__(self):
            super().__init__()
            self.point = nn.Parameter(torch.zeros(2))

        def forward(self, batch):
            return (batch - self.point).square().sum(-1).mean()

    runs = {}
    for betas in (None, (0.9, 0.999), [0.9, 0.999], (0.5, 0.9)):
        pull = Pull()
        fit(pull, **({} if betas is None else {"betas": betas}))
        runs[str(betas)] = pull.point.detach()
    first, second, third, other = runs.values()
    assert torch.equal(first, second) and torch.equal(first, third) and not torch.equal(first, other)
