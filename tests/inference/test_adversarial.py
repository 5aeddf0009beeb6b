"""Adversarial training: its losses, what it asks of a program, what it reports, and what it learns."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import nn
from torch.nn.functional import softplus

import inference
import zoo
from inference import Adversarial, Discriminator
from inference.adversarial import share_of_distinct
from inference.mmd import RBF, mmd2


class Shifted(nn.Module):
    """x = shift + scale z, as a user may write it: with an argument x, which is not observed."""

    def __init__(self, shift: float = 0.0, scale: float = 1.0) -> None:
        super().__init__()
        self.shift = nn.Parameter(torch.tensor([shift, 0.0]))
        self.scale = scale

    def model(self, x):
        pyro.module("shifted", self)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(2).to(x), 1.0).to_event(1))
            return pyro.deterministic("x", self.shift + self.scale * z, event_dim=1)


class Height(nn.Module):
    """D(x) = a·x + c."""

    def __init__(self, a: tuple[float, float] = (3.0, 4.0), c: float = 0.0) -> None:
        super().__init__()
        self.a, self.c = nn.Parameter(torch.tensor(a)), nn.Parameter(torch.tensor(c))

    def forward(self, x):
        return x @ self.a + self.c


def items(num: int = 40, seed: int = 1) -> torch.Tensor:
    return torch.randn(num, 2, generator=torch.Generator().manual_seed(seed)) + torch.tensor([1.0, 0.0])


def with_height(**settings) -> Adversarial:
    torch.manual_seed(0)
    objective = Adversarial(Shifted(), discriminator=Height((0.6, 0.8), 0.1), **settings)
    objective.prepare(items())
    return objective


def drawn_next(objective, x):
    """What the program draws next."""
    with torch.random.fork_rng():
        return objective.draw((x,)).detach()


# Losses


def test_the_losses_of_cross_entropy_are_those_of_the_formula():
    x = items()
    for loss, generators in (("minimax", lambda s: -softplus(s)), ("non-saturating", lambda s: softplus(-s))):
        objective = with_height(loss=loss)
        D = objective.discriminator
        g = drawn_next(objective, x)
        expected = -D(x).sigmoid().log().mean() - (1 - D(g).sigmoid()).log().mean()
        assert torch.allclose(objective(x, "discriminator"), expected, atol=1e-6)
        g = drawn_next(objective, x)
        assert torch.allclose(objective(x, "generator"), generators(D(g)).mean(), atol=1e-6)


def test_the_losses_of_a_critic_are_heights():
    x = items()
    objective = with_height(loss="wasserstein", gradient_penalty=1.0)
    D = objective.discriminator
    with torch.no_grad():
        g = drawn_next(objective, x)
        assert torch.allclose(objective(x, "discriminator"), D(g).mean() - D(x).mean(), atol=1e-6)
        g = drawn_next(objective, x)
        assert torch.allclose(objective(x, "generator"), -D(g).mean(), atol=1e-6)


@pytest.mark.parametrize(
    ("penalty", "expected"), [("r1", 0.5 / 2 * 25.0), ("lipschitz", 0.5 * 16.0), (None, 0.5 / 2 * 25.0)]
)
def test_the_penalty_is_on_the_slope(penalty, expected):
    torch.manual_seed(0)
    objective = Adversarial(Shifted(), discriminator=Height(), gradient_penalty=0.5, penalty=penalty)
    x = items()
    plain = Adversarial(objective.program.source[0], discriminator=objective.discriminator)
    torch.manual_seed(1)
    without = plain(x, "discriminator")
    torch.manual_seed(1)
    loss = objective(x, "discriminator")
    assert (loss - without).item() == pytest.approx(expected, rel=1e-5)
    with torch.no_grad():
        torch.manual_seed(1)
        assert torch.allclose(objective(x, "discriminator"), without)
    # Of the whole loss, the penalty included, a is told how to move.
    loss.backward()
    lifted = 5.0 * 1e-3
    with torch.no_grad():
        objective.discriminator.a.mul_(1 + 1e-3)
    torch.manual_seed(1)
    change = (objective(x, "discriminator") - loss).item()
    assert change == pytest.approx(
        (objective.discriminator.a.grad @ torch.tensor([0.6, 0.8])).item() * lifted, rel=0.02
    )


def test_a_critic_may_be_flat():
    """To ask for a slope of 1 everywhere would keep it from turning over."""
    objective = Adversarial(Shifted(), discriminator=Height(), loss="wasserstein", gradient_penalty=10.0)
    x = items()
    for slope, expected in ((0.5, 0.0), (3.0, 10.0 * 4.0)):
        with torch.no_grad():
            objective.discriminator.a.copy_(slope * torch.tensor([0.6, 0.8]))
        torch.manual_seed(1)
        loss = objective(x, "discriminator")
        with torch.no_grad():
            torch.manual_seed(1)
            assert (loss - objective(x, "discriminator")).item() == pytest.approx(expected, abs=1e-4)


def test_a_critic_is_penalised_on_the_way_between_by_default():
    assert Adversarial(Shifted(), loss="wasserstein", gradient_penalty=10.0).penalty == "lipschitz"


def test_the_slope_is_taken_on_the_way_from_an_item_to_a_draw():
    class Where(Height):
        seen: list[torch.Tensor] = []

        def forward(self, x):
            self.seen.append(x.detach())
            return super().forward(x)

    objective = Adversarial(
        Shifted(scale=0.0), discriminator=Where(), gradient_penalty=1.0, penalty="lipschitz"
    )
    x = items() + 5
    objective.prepare(x)
    Where.seen.clear()
    objective(x, "discriminator")
    real, fake, between = Where.seen
    share = (between - fake) / (real - fake)
    assert (share[:, 0] > 0).all() and (share[:, 0] < 1).all() and share[:, 0].std() > 0.2
    assert torch.allclose(share[:, 0], share[:, 1], atol=1e-5)


@pytest.mark.parametrize("loss", ["minimax", "non-saturating", "wasserstein"])
def test_each_player_moves_against_the_other(loss):
    """The generator goes up the discriminator's slope; the discriminator tilts towards the items."""
    objective = with_height(loss=loss, gradient_penalty=1e-6)
    objective(items(), "generator").backward()
    slope = objective.discriminator.a.detach()
    direction = -objective.program.source[0].shift.grad
    assert torch.cosine_similarity(direction, slope, dim=0) > 0.9999
    objective.zero_grad()
    objective(items() + torch.tensor([3.0, 0.0]), "discriminator").backward()
    assert objective.discriminator.a.grad[0] < 0 and objective.program.source[0].shift.grad is None


def test_validation_shows_an_unbiased_discrepancy_under_one_kernel():
    objective = with_height()
    x = items(9, seed=4)
    g = drawn_next(objective, x)
    shown = objective(x)
    assert torch.allclose(shown, mmd2(g, x, RBF(objective.scale.item()))) and not shown.requires_grad
    assert 1.0 < objective.scale.item() < 2.5  # the median of √(2 χ²_2)


# The program


def test_whatever_the_program_observes_is_drawn():
    class Observing(Shifted):
        def model(self, x):
            with pyro.plate("data", len(x)):
                z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
                return pyro.sample("x", dist.Normal(self.shift + z, 0.1).to_event(1), obs=x)

    program = Observing(3.0)
    objective = Adversarial(program)
    x = items(2000)
    objective.prepare(x)
    drawn = objective.draw((x,))
    assert not torch.equal(drawn, x) and (drawn.mean(0) - torch.tensor([3.0, 0.0])).abs().max() < 0.1
    drawn.sum().backward()
    assert torch.allclose(program.shift.grad, torch.tensor([2000.0, 2000.0]))


def test_a_program_of_a_number_and_one_of_functions_and_another_site():
    def by_number(num):
        with pyro.plate("data", num):
            loc = pyro.param("loc", torch.ones(2))
            return pyro.sample("image", dist.Normal(loc, 1.0).to_event(1))

    objective = Adversarial(by_number, site="image")
    x = items()
    result = inference.fit(objective, x, epochs=1, progress=False)
    assert len(result.history) == 1 and len(objective.parameters_of("generator")) == 1
    assert not torch.equal(objective.program.parameter_values()["loc"], torch.ones(2))
    assert len(pyro.get_param_store()) == 0
    assert objective.draw((x[:7],)).shape == (7, 2)


def test_labels_that_the_program_takes_are_given():
    seen = []

    def model(x, y):
        seen.append(y.clone())
        loc = pyro.param("loc", torch.zeros(3, 2))
        with pyro.plate("data", len(x)):
            return pyro.sample("x", dist.Normal(loc[y], 1.0).to_event(1), obs=x)

    objective = Adversarial(model)
    assert objective.takes_labels
    y = torch.arange(40) % 3
    result = inference.fit(objective, (items(), y), valid=(items(9), y[:9]), epochs=1, progress=False)
    assert "distinct" in result.history[0] and all(set(labels.tolist()) == {0, 1, 2} for labels in seen)


def test_a_discrete_site_will_do_where_nothing_learns_it():
    def mixture(learns):
        def model(x):
            weights = pyro.param("weights", torch.zeros(2)) if learns else torch.zeros(2)
            loc = pyro.param("loc", torch.ones(2))
            with pyro.plate("data", len(x)):
                k = pyro.sample("k", dist.Categorical(logits=weights))
                return pyro.sample("x", dist.Normal(loc * k[:, None], 1.0).to_event(1), obs=x)

        return model

    assert Adversarial(mixture(False))(items(), "generator").requires_grad
    with pytest.raises(
        ValueError, match="the site 'x' to be drawn with a gradient, got one that stops at 'k'"
    ):
        Adversarial(mixture(True)).prepare(items())


def test_what_has_no_gradient_is_refused():
    def draws(distribution, after=lambda value: value):
        def model(x):
            logits = pyro.param("logits", torch.ones(2))
            with pyro.plate("data", len(x)):
                value = pyro.sample("raw", distribution(logits).to_event(1))
                pyro.deterministic("x", after(value), event_dim=1)

        return model

    x = items()
    Adversarial(draws(lambda logits: dist.Normal(logits, 1.0))).prepare(x)
    with pytest.raises(
        ValueError, match="a gradient, got one that stops at 'raw': make it deterministic, or"
    ):
        Adversarial(draws(lambda logits: dist.Bernoulli(logits=logits))).prepare(x)
    with pytest.raises(ValueError, match="a gradient, got one that stops at 'x': make it deterministic, or"):
        Adversarial(draws(lambda logits: dist.Normal(logits, 1.0), lambda v: (v > 0).float())).prepare(x)
    with pytest.raises(ValueError, match="a gradient, got one that stops at 'x'"):
        Adversarial(zoo.VAE((2,), latent_dim=2, hidden=(4,))).prepare((x > 0).float())


def test_a_site_that_is_missing_or_of_another_shape_is_refused():
    with pytest.raises(ValueError, match="a site 'image' that is drawn as the items are, got z, x"):
        Adversarial(Shifted(), site="image").prepare(items())
    with pytest.raises(ValueError, match=r"'z' must be of the items' shape \(40, 3\), got \(40, 2\)"):
        Adversarial(Shifted(), site="z").prepare(torch.zeros(40, 3))
    with pytest.raises(ValueError, match="items that a gradient can run through, got torch.int64"):
        Adversarial(Shifted()).check(torch.zeros(4, 2, dtype=torch.int64))
    with pytest.raises(ValueError, match="batches of at least 2 items, got 1"):
        Adversarial(Shifted()).prepare(items(1))
    with pytest.raises(ValueError, match="NaN"):
        Adversarial(Shifted()).check(torch.full((4, 2), math.nan))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"loss": "hinge"}, "loss must be one of non-saturating, minimax, wasserstein, got 'hinge'"),
        ({"penalty": "r2"}, "penalty must be None or one of r1, lipschitz, got 'r2'"),
        ({"gradient_penalty": -1.0}, "gradient_penalty must be a number of at least 0, got -1.0"),
        ({"discriminator": "mlp"}, "discriminator must be a module, or widths of at least 1, got 'mlp'"),
        ({"discriminator": (8, 0)}, "discriminator must be a module, or widths of at least 1, got"),
        ({"discriminator_steps": 0}, "discriminator_steps must be an integer of at least 1, got 0"),
        ({"loss": "wasserstein"}, "expects a critic whose slope is bounded, got none"),
        ({"loss": "wasserstein", "discriminator": Height()}, "expects a critic whose slope is bounded"),
    ],
)
def test_arguments_that_are_none_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        Adversarial(Shifted(), **settings)


def test_players_that_are_none_are_refused():
    objective = with_height()
    for call in (lambda: objective(items(), "critic"), lambda: objective.parameters_of("critic")):
        with pytest.raises(ValueError, match="one of discriminator, generator, got 'critic'"):
            call()


def test_a_discriminator_that_gives_more_than_a_number_is_refused():
    with pytest.raises(ValueError, match=r"one number for each of 40 items, got \(40, 2\)"):
        Adversarial(Shifted(), discriminator=nn.Linear(2, 2)).prepare(items())
    column = Adversarial(Shifted(), discriminator=nn.Linear(2, 1))
    assert column(items(), "generator").shape == ()


# The discriminator


def test_the_discriminator_is_made_as_the_items_are():
    objective = Adversarial(Shifted().double(), discriminator=(5, 3))
    assert objective.parameters_of("discriminator") == []
    inference.fit(objective, items().double(), epochs=1, seed=3, progress=False)
    shapes = [tuple(param.shape) for param in objective.parameters_of("discriminator")]
    assert shapes == [(5, 2), (5,), (3, 5), (3,), (1, 3), (1,)]
    assert all(param.dtype == torch.float64 for param in objective.parameters())
    twin = Adversarial(Shifted().double(), discriminator=(5, 3))
    inference.fit(twin, items().double(), epochs=1, seed=3, progress=False)
    for name, value in twin.state_dict().items():
        assert torch.equal(value, objective.state_dict()[name]), name


def test_a_discriminator_with_a_spectral_norm_rises_no_faster_than_items_move():
    torch.manual_seed(0)
    steep, bounded = Discriminator((2, 3), (50, 50)), Discriminator((2, 3), (50, 50), spectral=True)
    steep.load_state_dict({name: 9 * value for name, value in steep.state_dict().items()})
    bounded.eval()
    x, y = torch.randn(2, 200, 2, 3)
    rise = {D: ((D(x) - D(y)).abs() / (x - y).flatten(1).norm(dim=1)).max().item() for D in (steep, bounded)}
    assert rise[bounded] < 1.05 < rise[steep]
    Adversarial(Shifted(), loss="wasserstein", discriminator=bounded)
    with pytest.raises(ValueError, match="width must be an integer of at least 1, got 0"):
        Discriminator((2,), (0,))


# What it reports


def test_distinct_items_are_counted_at_a_resolution():
    line = torch.arange(10.0)[:, None]
    assert share_of_distinct(line, line, radius=0.5) == 1.0
    assert share_of_distinct(line.clamp(max=4), line, radius=0.5) == 0.5
    assert share_of_distinct(line, line.clamp(max=4), radius=0.5) == 1.0
    assert share_of_distinct(line.clamp(max=4), line, radius=1.0) == pytest.approx(3 / 5)  # 0, 2, 4
    assert share_of_distinct(torch.zeros(10, 1, 1), line[:, None], radius=0.5) == 0.1


def test_an_epoch_reports_its_own_accuracy_and_penalty():
    objective = Adversarial(
        Shifted(scale=0.0), discriminator=Height((1.0, 0.0), -0.5), gradient_penalty=2.0
    ).train()
    x = torch.tensor([[1.0, 0.0], [1.0, 0.0], [1.0, 0.0], [0.0, 0.0]])
    objective.prepare(x)
    objective(x, "discriminator")  # three items in four are told, and all draws, at 0
    figures = objective.monitor()
    assert figures["accuracy"] == pytest.approx(7 / 8) and figures["penalty"] == pytest.approx(1.0)
    assert figures["distinct"] == 0.5  # one place of two
    assert objective.monitor() == {}
    objective.eval()
    objective(x, "discriminator")
    assert objective.monitor() == {}


def notes_of(objective, monkeypatch, *, data=None, **settings):
    monkeypatch.setattr("inference.adversarial.SETTLED", 4)
    data = items() if data is None else data
    settings = {"epochs": 3, "batch_size": 10, "progress": False, **settings}
    result = inference.fit(objective, data, **settings)
    return result.notes, result.history


def test_a_generator_that_draws_one_item_is_called_collapsed(monkeypatch):
    notes, history = notes_of(Adversarial(Shifted(scale=1e-3)), monkeypatch)
    assert [note.partition(":")[0] for note in notes] == ["the generator has collapsed"]
    assert f"in epoch 1 it has {history[0]['distinct']:.1%} of the distinct draws" in notes[0]
    assert history[0]["distinct"] < 0.1
    assert notes_of(Adversarial(Shifted()), monkeypatch)[0] == []


def test_a_discriminator_that_tells_everything_apart_is_called_the_winner(monkeypatch):
    far = items() + 8
    rates = {"discriminator": 1e-2, "generator": 1e-6}
    notes, history = notes_of(Adversarial(Shifted()), monkeypatch, data=far, lr=rates, epochs=6)
    assert [note.partition(":")[0] for note in notes] == ["the discriminator has won"]
    assert "% of items and draws apart, at a loss of" in notes[0] and history[-1]["accuracy"] > 0.99
    monkeypatch.setattr("inference.adversarial.SETTLED", 10**6)
    objective = Adversarial(Shifted())
    assert inference.fit(objective, far, epochs=6, batch_size=10, lr=rates, progress=False).notes == []


def test_a_discriminator_that_is_worse_than_a_guess_is_called_diverged(monkeypatch):
    notes, history = notes_of(
        Adversarial(Shifted()), monkeypatch, lr={"discriminator": 30.0, "generator": 1e-3}, epochs=1
    )
    assert notes and notes[0].startswith("the discriminator has diverged: in epoch 1 its loss is")
    assert history[0]["discriminator"] > 2.8 and f"{history[0]['discriminator']:.3g} nats" in notes[0]
    bent = Adversarial(Shifted(), gradient_penalty=1000.0)  # a large penalty alone is none
    notes, history = notes_of(bent, monkeypatch, epochs=1)
    assert notes == [] and history[0]["discriminator"] > 2.8


def test_a_critic_that_rises_without_end_is_called_diverged(monkeypatch):
    critic = {"loss": "wasserstein", "gradient_penalty": 1e-9}
    rates = {"discriminator": 10.0, "generator": 1e-3}
    notes, _ = notes_of(Adversarial(Shifted(), **critic), monkeypatch, lr=rates)
    assert notes and notes[0].startswith("the discriminator has diverged: in epoch 1 it puts items and draws")
    held = Adversarial(Shifted(), loss="wasserstein", gradient_penalty=10.0)
    notes, history = notes_of(held, monkeypatch)
    assert notes == [] and "accuracy" not in history[0]


# What it estimates


class Ratio(nn.Module):
    """log N(x | 0, 1) - log N(x | 1, 2²), the best discriminator."""

    def __init__(self) -> None:
        super().__init__()
        self.off = nn.Parameter(torch.tensor(0.0))

    def forward(self, x):
        return (dist.Normal(0.0, 1.0).log_prob(x) - dist.Normal(1.0, 2.0).log_prob(x)).squeeze(-1) + self.off


def wide(x):
    with pyro.plate("data", len(x)):
        return pyro.sample("x", dist.Normal(torch.ones(1), 2.0).to_event(1), obs=x)


def jensen_shannon() -> float:
    """JS(N(0, 1), N(1, 2²)) in nats, by quadrature."""
    x = torch.linspace(-30, 30, 200_001, dtype=torch.float64)
    p, q = (dist.Normal(loc, scale).log_prob(x) for loc, scale in ((0.0, 1.0), (1.0, 2.0)))
    middle = torch.logaddexp(p, q) - math.log(2)
    return 0.5 * torch.trapezoid(p.exp() * (p - middle) + q.exp() * (q - middle), x).item()


def test_the_divergence_is_that_of_jensen_and_shannon_at_the_best_discriminator():
    x = torch.randn(20_000, 1, generator=torch.Generator().manual_seed(0))
    objective = Adversarial(wide, discriminator=Ratio())
    before = torch.get_rng_state()
    best = objective.divergence(x, draws_per_item=2, seed=1)
    assert torch.equal(torch.get_rng_state(), before)
    assert best == pytest.approx(jensen_shannon(), rel=0.02)
    assert best == objective.divergence(x, draws_per_item=2, seed=1) != objective.divergence(x, seed=2)
    with torch.no_grad():
        objective.discriminator.off += 1.0
    assert objective.divergence(x, seed=1) < best - 0.01
    with pytest.raises(ValueError, match="draws_per_item must be an integer of at least 1, got 0"):
        objective.divergence(x, draws_per_item=0)


def test_a_critic_gives_how_far_apart_it_puts_them():
    critic = Adversarial(
        Shifted(-2.0), loss="wasserstein", gradient_penalty=1.0, discriminator=Height((1.0, 0.0))
    )
    assert critic.divergence(items(4000)) == pytest.approx(3.0, abs=0.1)


def test_a_program_without_parameters_is_measured_by_a_discriminator_that_learns_alone():
    x = torch.randn(2000, 1, generator=torch.Generator().manual_seed(0))
    objective = Adversarial(wide, discriminator=(16,))
    result = inference.fit(objective, x, valid=x[:500], epochs=6, lr=2e-2, progress=False)
    assert objective.players == ("discriminator",)
    assert [*result.history[0]] == ["epoch", "train", "accuracy", "valid", "lr"]
    loss, valid = (result.history[-1][name] for name in ("train", "valid"))
    assert loss == pytest.approx(2 * math.log(2) - 2 * jensen_shannon(), abs=0.05)
    assert valid == pytest.approx(loss, abs=0.1)
    assert objective.divergence(x) == pytest.approx(jensen_shannon(), abs=0.03)


# What it learns


@pytest.mark.parametrize("loss", ["minimax", "non-saturating", "wasserstein"])
def test_the_generator_goes_where_the_items_are(loss):
    program = Shifted(-1.0)
    objective = Adversarial(program, loss=loss, gradient_penalty=1.0, discriminator=(16,))
    x = items(500)
    result = inference.fit(
        objective, x, valid=x, epochs=25, batch_size=100, lr=3e-2, betas=(0.5, 0.9), progress=False
    )
    assert (program.shift - x.mean(0)).norm() < 0.3
    assert result.history[result.best_epoch - 1]["valid"] < 0.2 * result.history[0]["valid"]


def test_the_discriminator_may_have_more_steps():
    objective = Adversarial(Shifted(), discriminator_steps=3)
    turns = [objective.turn() for _ in range(6)]
    assert turns == [("discriminator",), ("discriminator",), ("discriminator", "generator")] * 2


def test_interrupted_and_resumed_it_ends_in_the_same_bits(tmp_path):
    class Stop:
        def log_metrics(self, metrics, step):
            if step == 2:
                raise KeyboardInterrupt

    def objective():
        torch.manual_seed(5)
        gan = zoo.GAN((2,), latent_dim=2, hidden=(6,), output="real")
        return Adversarial(gan, discriminator=(6,), gradient_penalty=0.1, discriminator_steps=2)

    def train(one, **settings):
        return inference.fit(
            one,
            items(),
            valid=items(9),
            epochs=4,
            batch_size=12,
            checkpoint_seconds=0.0,
            progress=False,
            **settings,
        )

    whole, part, fresh = objective(), objective(), objective()
    expected = train(whole)
    assert train(part, checkpoint=tmp_path / "c.pt", logger=Stop()).interrupted
    resumed = train(fresh, checkpoint=tmp_path / "c.pt")
    assert resumed.history == expected.history
    for name, value in whole.state_dict().items():
        assert torch.equal(value, fresh.state_dict()[name]), name


def test_a_validation_whose_last_batch_would_be_one_item():
    result = inference.fit(
        Adversarial(Shifted()), items(), valid=items(11), epochs=1, batch_size=10, progress=False
    )
    assert math.isfinite(result.history[0]["valid"])
