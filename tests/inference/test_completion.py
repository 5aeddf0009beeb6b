"""`inference.complete`: against the conditional by enumeration, for every mask of tiny models."""

import itertools
import math

import arviz
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine

import inference
import zoo
from zoo.data.dataset import Split

GIVEN = torch.tensor([1.0, 0.0, 1.0, 1.0, 0.0])
"""What is observed, where a mask says so."""

PAIR, TWO = torch.tensor([[1.0, 1.0]]), torch.tensor([False, True])
LATE_4 = torch.tensor([False, True, False, True])


def random(model, spread=1.5):
    """The model with parameters from all over."""
    with torch.no_grad():
        for param in model.parameters():
            param.copy_(spread * torch.randn(param.shape, generator=torch.Generator().manual_seed(5)))
    return model


def bits(num=1):
    """A user's program: each bit depends on all before it; the sites are not in the order of the entries."""
    with pyro.plate("items", num):
        total, values = torch.tensor(-0.5), {}
        for variable in (2, 0, 3, 1):
            values[variable] = pyro.sample(f"x_{variable}", dist.Bernoulli(logits=total))
            total = 2.0 - 1.5 * total + (3.0 - variable) * (values[variable] - 1.0)
        return torch.stack([values[variable] for variable in range(4)], dim=-1)


def bits_log_prob(x):
    total, log_prob = torch.tensor(-0.5), 0.0
    for variable in (2, 0, 3, 1):
        log_prob = log_prob + dist.Bernoulli(logits=total).log_prob(x[:, variable])
        total = 2.0 - 1.5 * total + (3.0 - variable) * (x[:, variable] - 1.0)
    return log_prob


MODELS = {
    "full joint": lambda: random(zoo.FullJoint((4,))),
    "full joint, in another order": lambda: random(zoo.FullJoint((2, 2), order=(2, 0, 3, 1))),
    "fvsbn": lambda: random(zoo.FVSBN((5,))),
    "nade, in another order": lambda: random(zoo.NADE((4,), hidden=3, order=(3, 1, 0, 2)), 3.0),
    "markov chain": lambda: random(zoo.MarkovChain((5,))),
    "markov chain of levels": lambda: random(zoo.MarkovChain((4,), num_levels=3)),
    "a user's program": lambda: bits,
}
models = pytest.mark.parametrize("name", MODELS)


class Truth:
    """Every configuration of a tiny model and its probability, by enumeration."""

    def __init__(self, model):
        self.shape = tuple(getattr(model, "event_shape", (4,)))
        num_levels = getattr(model, "num_levels", 2)
        n = math.prod(self.shape)
        levels = torch.arange(num_levels) if num_levels > 2 else torch.tensor([0.0, 1.0])
        self.every = torch.cartesian_prod(*[levels] * n)
        self.place = num_levels ** torch.arange(n).flip(0)
        log_prob = bits_log_prob if model is bits else model.log_prob
        with torch.no_grad():
            self.probs = log_prob(self.every.view(-1, *self.shape)).double().exp()
        given = (2 * GIVEN).long() if num_levels > 2 else GIVEN
        self.x = given[:n].view(self.shape)
        # A mask for each item: all 2^n of them.
        self.masks = torch.tensor(list(itertools.product([False, True], repeat=n))).view(-1, *self.shape)
        self.items = self.x.expand(self.masks.shape)

    def conditionals(self, observed):
        """p(x | x_observed) of every configuration, and p(x_observed)."""
        same = (self.every == self.x.flatten()) | ~observed.flatten()
        joint = self.probs * same.all(-1)
        return joint / joint.sum(), joint.sum()

    def distances(self, draws):
        """Total variation distance of the draws (num, masks, *event_shape) of each mask."""
        cells = (draws.flatten(2).long() * self.place).sum(-1)
        found = torch.stack([cell.bincount(minlength=len(self.every)) for cell in cells.T]) / len(draws)
        exact = torch.stack([self.conditionals(mask)[0] for mask in self.masks])
        return 0.5 * (found - exact).abs().sum(-1), exact


def mean_distance(exact, worth):
    """No less than the mean of the distance, for each mask: ½ Σ √(p (1 - p) / worth)."""
    return 0.5 * (exact * (1 - exact)).sqrt().sum(-1) / worth.sqrt()


def assert_close(distances, exact, worth):
    """Within what ``worth`` independent draws of each mask exceed with probability 1e-6, by McDiarmid.

    One of them moves the distance of its mask by 1 / worth at most, so that the mean over the masks, where
    every error of a kind adds up, is held more tightly than each.
    """
    mean, slack = mean_distance(exact, worth), (math.log(1e6) / (2 * worth)).sqrt()
    assert (distances < mean + slack).all()
    assert distances.mean() < mean.mean() + slack.square().mean().sqrt() / math.sqrt(len(worth))


def prefixes(truth, model):
    """Which masks have all that is observed first in the scan."""
    order = [2, 0, 3, 1] if model is bits else list(model.order)
    seen = truth.masks.flatten(1)[:, order]
    return (seen.int().diff(dim=-1) <= 0).all(-1)


@models
def test_draws_follow_the_conditional_for_every_mask(name):
    model = MODELS[name]()
    truth = Truth(model)
    result = inference.complete(
        model, truth.items, truth.masks, num=5000, particles=5000, chunk=200_000, progress=False
    )
    assert (result.method, result.exact) == ("smc", False)
    assert result.draws.shape == (5000, *truth.items.shape) and result.draws.dtype == truth.items.dtype
    distances, exact = truth.distances(result.draws)
    assert_close(distances, exact, result.effective_sample_size)
    assert ((result.effective_sample_size >= 1) & (result.effective_sample_size <= 5000)).all()

    evidence = torch.stack([truth.conditionals(mask)[1] for mask in truth.masks]).log()
    error = (result.log_evidence - evidence).abs()
    assert (error <= 5 * result.log_evidence_error + 1e-5).all()
    assert (result.log_evidence_error[~prefixes(truth, model)] > 1e-4).any()


@models
def test_ancestral_draws_follow_the_conditional_where_they_are_exact(name):
    model = MODELS[name]()
    truth = Truth(model)
    truth.masks = truth.masks[prefixes(truth, model)]
    assert len(truth.masks) == math.prod(truth.shape) + 1
    result = inference.complete(model, truth.items[: len(truth.masks)], truth.masks, num=5000, progress=False)
    assert (result.method, result.exact) == ("ancestral", True)
    assert (result.effective_sample_size == 5000).all()
    distances, exact = truth.distances(result.draws)
    assert_close(distances, exact, result.effective_sample_size)
    evidence = torch.stack([truth.conditionals(mask)[1] for mask in truth.masks]).log()
    assert torch.allclose(result.log_evidence, evidence, atol=1e-5)
    assert (result.log_evidence_error == 0).all()


@models
def test_gibbs_reaches_the_conditional_from_a_single_particle(name):
    model = MODELS[name]()
    truth = Truth(model)
    result = inference.complete(
        model,
        truth.items,
        truth.masks,
        num=400,
        method="gibbs",
        particles=1,
        sweeps=24,
        chunk=100_000,
        progress=False,
    )
    assert (result.method, result.exact) == ("gibbs", False)
    distances, exact = truth.distances(result.draws)
    worth = result.effective_sample_size
    uncertain = exact.amax(-1) < 0.99
    assert (worth[uncertain] > 200).all() and (worth[(~truth.masks).flatten(1).sum(-1) == 0] == 1).all()
    assert_close(distances[uncertain], exact[uncertain], worth[uncertain])


def test_left_to_right_misses_what_is_observed_later():
    model = MODELS["markov chain"]()
    truth = Truth(model)
    result = inference.complete(
        model, truth.items, truth.masks, num=5000, method="left-to-right", chunk=200_000, progress=False
    )
    assert (result.method, result.exact) == ("left-to-right", False)
    assert result.effective_sample_size.isnan().all() and result.log_evidence.isnan().all()
    distances, exact = truth.distances(result.draws)
    first, worth = prefixes(truth, model), torch.full_like(result.log_evidence, 5000)
    assert_close(distances[first], exact[first], worth[first])  # there it is ancestral
    assert (distances > 5 * mean_distance(exact, worth)).sum() > 10
    with pytest.raises(AssertionError):
        assert_close(distances, exact, worth)


# What the draws are said to be worth


def test_effective_sample_size_is_what_the_spread_of_repetitions_shows():
    # A fair coin that nothing bears on, then ten pairs of a cause, missing, and its effect, observed. After
    # ten resamplings few of the first coins are left, though the last weights are even.
    pairs, repetitions, num = 10, 400, 20
    model = zoo.FVSBN((1 + 2 * pairs,))
    observed = torch.zeros(1 + 2 * pairs, dtype=torch.bool)
    for cause in range(1, 2 * pairs, 2):
        with torch.no_grad():
            model.bias[cause], model.bias[cause + 1], model.weight[cause, cause + 1] = -1.0, -2.0, 4.0
        observed[cause + 1] = True
    x = torch.ones(repetitions, 1 + 2 * pairs)
    result = inference.complete(model, x, observed, num=num, particles=60, chunk=100_000, progress=False)
    shown = 0.25 / (result.draws[..., 0].double().mean(0) - 0.5).square().mean()
    claimed = 1 / (1 / result.effective_sample_size).mean()
    assert 2 < shown < 8
    assert 0.75 * shown < claimed < 1.2 * shown
    agreement = [(result.draws == result.draws.roll(by, 0))[..., 0].float().mean() for by in (1, num // 2)]
    assert abs(agreement[0] - agreement[1]) < 0.05, "relatives do not stand together"


def test_the_comb_takes_each_particle_by_its_weight_and_none_without():
    from inference.completion import _systematic

    weights = torch.tensor([0.0, 0.15, 0.7, 0.0, 0.15, 0.0], dtype=torch.float64)
    index = _systematic(weights.log().expand(4000, 6), 5)
    counts = torch.nn.functional.one_hot(index, 6).sum(1)
    assert ((counts - 5 * weights).abs() < 1).all(), "as even as whole numbers can be"
    assert ((counts.double().mean(0) - 5 * weights).abs() < 4.5 * 0.5 / math.sqrt(4000)).all()
    assert (counts[:, weights == 0] == 0).all()


def test_log_evidence_is_that_of_an_unbiased_estimate_and_its_error_covers():
    model = random(zoo.FVSBN((5,)))
    truth = Truth(model)
    observed = torch.tensor([False, False, True, False, True])
    exact = truth.conditionals(observed)[1].log()
    result = inference.complete(
        model, truth.x.expand(4000, 5), observed, num=1, particles=50, chunk=50_000, progress=False
    )
    missing = (truth.conditionals(observed)[0] @ truth.every.double())[~observed]
    error = result.draws[0][:, ~observed].double().mean(0) - missing
    assert (error.abs() < 4.5 * (missing * (1 - missing) / 4000).sqrt() + 0.01).all(), (
        "one draw from each item"
    )
    ratio = (result.log_evidence - exact).exp()
    assert abs(ratio.mean() - 1) < 4 * ratio.std() / math.sqrt(4000)
    known = result.log_evidence_error.isfinite()
    assert known.double().mean() > 0.95
    assert 0.5 * ratio.std() < result.log_evidence_error[known].median() < 2 * ratio.std()


def test_gibbs_says_what_arviz_says_and_else_what_its_start_is_worth(monkeypatch):
    model = random(zoo.FVSBN((5,)))
    observed = torch.tensor([False, False, True, False, True])
    seen = []

    def ess(chains):
        seen.append(chains)
        return answers.pop(0)

    monkeypatch.setattr(arviz, "ess", ess)
    settings = {"num": 6, "method": "gibbs", "particles": 10, "progress": False}
    start = inference.complete(model, GIVEN[None], observed, **{**settings, "method": "smc"})
    start = start.effective_sample_size
    for answer, expected in ((3.5, 3.5), (99.0, 6.0), (0.2, 1.0), (math.nan, start.item())):
        answers = [answer]
        result = inference.complete(model, GIVEN[None], observed, sweeps=20, **settings)
        assert result.effective_sample_size.tolist() == [expected]
    chains = seen[-1]
    assert chains.shape == (6, 10)
    last = model.log_prob(result.draws[:, 0]).double()
    assert torch.allclose(torch.tensor(chains[:, -1]), last, atol=1e-5)
    few = inference.complete(model, GIVEN[None], observed, sweeps=7, **settings)
    assert torch.equal(few.effective_sample_size, start)
    whole = inference.complete(model, GIVEN[None], torch.ones(5, dtype=torch.bool), sweeps=20, **settings)
    assert whole.effective_sample_size.item() == pytest.approx(6 / (1 + 5 / 10)), "nothing moves"


# Undirected models


def enumerated(machine):
    """Every configuration of v, and its probability, by the sum over all else."""
    shape = tuple(machine.event_shape)
    every = torch.cartesian_prod(*[torch.tensor([0.0, 1.0])] * math.prod(shape)).view(-1, *shape)
    hidden = torch.cartesian_prod(*[torch.tensor([0.0, 1.0])] * 2)
    with torch.no_grad():  # the even layers; the odd ones are summed out by the free energy
        parts = [
            -machine.free_energy(
                {"v": every, "h_2": h.expand(len(every), 2)} if "h_2" in machine.names else {"v": every}
            )
            for h in hidden
        ]
    return every, torch.stack(parts).double().logsumexp(0).softmax(0)


UNDIRECTED = {
    "rbm": lambda: random(zoo.RBM((2, 2), hidden=3)),
    "dbm": lambda: random(zoo.DBM((2, 2), (3, 2)), 0.8),
    "dbm with a label": lambda: random(zoo.DBM((4,), (3, 2), num_classes=3), 0.8),
}


@pytest.mark.parametrize("name", UNDIRECTED)
def test_undirected_models_draw_from_the_conditional_for_every_mask(name):
    machine = UNDIRECTED[name]()
    every, probs = enumerated(machine)
    shape, num, x = every.shape[1:], 5000, GIVEN[:4].view(every.shape[1:])
    masks = torch.cartesian_prod(*[torch.tensor([False, True])] * 4).view(-1, *shape)
    items = torch.where(masks, x, math.nan)  # what is missing is not looked at
    result = inference.complete(machine, items, masks, num=num, sweeps=40, chunk=40_000, progress=False)
    assert (result.method, result.exact) == ("gibbs", False)
    assert result.draws.shape == (num, 16, *shape) and result.draws.dtype == torch.float32
    assert torch.equal(result.draws[:, masks], x.expand(masks.shape)[masks].expand(num, -1))
    assert result.log_evidence.isnan().all() and result.log_evidence_error.isnan().all()
    assert result.log_evidence.dtype == result.effective_sample_size.dtype == torch.float64
    exact = torch.stack([probs * ((every == x) | ~mask).flatten(1).all(-1) for mask in masks])
    exact = exact / exact.sum(-1, keepdim=True)
    cells = (result.draws.flatten(2).long() * torch.tensor([8, 4, 2, 1])).sum(-1)
    found = torch.stack([cell.bincount(minlength=16) for cell in cells.T]) / num
    # Chains of independent starts are independent draws, however slowly each moves.
    worth = torch.full((16,), num, dtype=torch.float64)
    assert_close(0.5 * (found - exact).abs().sum(-1), exact, worth)
    assert ((result.effective_sample_size > num / 4) & (result.effective_sample_size <= num)).all()


def test_clamped_chains_are_worth_what_arviz_says_of_their_energy(monkeypatch):
    machine = UNDIRECTED["dbm"]()
    seen, answers = [], [3.5, 99.0, math.nan]
    monkeypatch.setattr(arviz, "ess", lambda chains: seen.append(chains) or answers.pop(0))
    x, observed = machine.sample(3, sweeps=5), torch.tensor([[True, False], [False, True]])
    settings = {"num": 6, "progress": False}
    result = inference.complete(machine, x, observed, sweeps=20, method="gibbs", **settings)
    assert result.effective_sample_size[:2].tolist() == [3.5, 6.0]
    assert result.effective_sample_size[2].isnan()
    assert [chains.shape for chains in seen] == [(6, 10)] * 3
    energies = torch.tensor(seen[0])
    assert (energies.unique().diff() > 1e-4).all() and len(energies.unique()) > 10
    few = inference.complete(machine, x, observed, sweeps=7, **settings)
    assert few.effective_sample_size.isnan().all(), "too few to tell"


def test_undirected_seed_gives_the_same_bits_and_leaves_everything_as_it_was():
    machine = UNDIRECTED["dbm with a label"]()
    machine.train()
    x, observed = machine.sample(5, sweeps=5, seed=0), torch.tensor([True, False, True, False])
    settings = {"num": 3, "sweeps": 9, "progress": False}
    state = torch.get_rng_state()
    first, again, other = (
        inference.complete(machine, items, observed, seed=seed, **settings)
        for items, seed in ((x, 1), (Split(x), 1), (x, 2))
    )
    assert torch.equal(torch.get_rng_state(), state) and machine.training
    assert torch.equal(first.draws, again.draws) and not torch.equal(first.draws, other.draws)
    assert not first.draws.requires_grad
    assert str(first).startswith("3 completions of 5 items by gibbs: worth ")
    masks = torch.rand(5, 4, generator=torch.Generator().manual_seed(0)) < 0.5
    for chunk in (1, 7, 4000):
        result = inference.complete(machine, x, masks, chunk=chunk, **settings)
        assert torch.equal(result.draws[:, masks], x[masks].expand(3, -1))
        assert result.effective_sample_size.shape == result.log_evidence.shape == (5,)
    wide = UNDIRECTED["dbm with a label"]().double()
    assert inference.complete(wide, x.double(), observed, **settings).draws.dtype == torch.float64


class Pairs:
    """A user's blocks, without energy or parameters: x_1 is about x_0, and h about both."""

    largest = 0

    def blocks(self):
        from types import SimpleNamespace

        def visible(state):
            self.largest = max(self.largest, len(state["v"]))
            return {"v": state["h"].unsqueeze(-1) + 0.1 * torch.randn_like(state["v"])}

        def hidden(state):
            return {"h": state["v"].mean(-1) + 0.1 * torch.randn_like(state["h"])}

        return [SimpleNamespace(sites=("h",), draw=hidden), SimpleNamespace(sites=("v",), draw=visible)]

    def initial_state(self, num):
        return {"v": torch.randn(num, 2), "h": torch.zeros(num)}


def test_a_users_own_blocks_are_enough():
    model, x = Pairs(), torch.tensor([[3.0, math.nan], [-1.0, math.nan]] * 5)
    seen = torch.tensor([True, False])
    result = inference.complete(model, x, seen, num=400, sweeps=50, chunk=900, progress=False)
    assert model.largest == 800, "no more at a time than asked for"
    # h = (x_0 + x_1) / 2 + ε and x_1 = h + ε: x_1 - x_0 is an autoregression by ½ of variance 0.02 / (1 - ¼).
    error = (result.draws[..., 1] - x[:, 0]).double()
    assert abs(error.mean()) < 4 * (0.02 / 0.75 / 4000) ** 0.5
    assert error.var().item() == pytest.approx(0.02 / 0.75, rel=0.1)
    assert result.effective_sample_size.isnan().all(), "there is no energy to tell by"


class Elsewhere(Pairs):
    def initial_state(self, num):
        return {"x": torch.ones(num, 4)}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"method": "ancestral"}, "method to be auto or gibbs for RBM, got 'ancestral'"),
        ({"method": "smc"}, "method to be auto or gibbs for RBM, got 'smc'"),
        ({"method": "left-to-right"}, "method to be auto or gibbs for RBM, got 'left-to-right'"),
        ({"method": "mcmc"}, "one of auto, ancestral, smc, gibbs, left-to-right, got 'mcmc'"),
        ({"sweeps": 0}, "sweeps to be an integer of at least 1, got 0"),
        ({"x": torch.ones(2, 4)[:, :3], "observed": LATE_4[:3]}, r"items of shape \(4,\), got \(3,\)"),
        ({"x": torch.ones(2, 4).double()}, "entries of torch.float32, got torch.float64"),
        ({"model": Pairs(), "x": PAIR.double(), "observed": TWO}, "^expected entries of .* got .*float64"),
        ({"x": torch.ones(2, 4) / 2}, "RBM expects entries in .*, got 0.5"),
        ({"x": torch.full((2, 4), math.nan)}, "finite numbers where observed, got NaN or infinity in 4 "),
        ({"model": zoo.DBM((2, 2), (2, 2))}, r"items of shape \(2, 2\), got \(4,\)"),
        ({"model": Elsewhere()}, "a site v for the items, got x"),
    ],
)  # fmt: skip
def test_what_an_undirected_model_cannot_complete_is_refused_in_one_line(change, said):
    arguments = {
        "model": zoo.RBM((4,), hidden=2),
        "x": torch.ones(2, 4),
        "observed": LATE_4,
        "progress": False,
    }
    with pytest.raises(ValueError, match=said) as caught:
        inference.complete(**{**arguments, **change})
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 250


# Real entries

WEIGHT, NOISE = 0.9, 0.6


def walk(num=1):
    """A user's Gaussian chain of four steps."""
    with pyro.plate("items", num):
        value, values = torch.tensor(0.0), []
        for step in range(4):
            value = pyro.sample(f"x_{step}", dist.Normal(WEIGHT * value + 0.5, NOISE))
            values.append(value)
        return torch.stack(values, dim=-1)


def conditional_of_walk(x, observed):
    """Mean and covariance of the missing steps, in closed form."""
    steps = torch.linalg.inv(torch.eye(4).double() - WEIGHT * torch.diag(torch.ones(3).double(), -1))
    mean, covariance = steps @ torch.full((4,), 0.5).double(), NOISE**2 * steps @ steps.T
    cross = covariance[~observed][:, observed] @ torch.linalg.inv(covariance[observed][:, observed])
    return (
        mean[~observed] + cross @ (x[observed].double() - mean[observed]),
        covariance[~observed][:, ~observed] - cross @ covariance[observed][:, ~observed],
    )


@pytest.mark.parametrize("method", ["smc", "gibbs"])
@pytest.mark.parametrize("shown", [(3,), (1, 3), (0, 2)])
def test_real_entries_have_the_mean_and_covariance_of_the_closed_form(method, shown):
    x = torch.tensor([[1.5, -0.5, 2.0, 2.5]])
    observed = torch.zeros(4, dtype=torch.bool).index_fill_(0, torch.tensor(shown), True)
    settings = {"particles": 20_000} if method == "smc" else {"particles": 1, "sweeps": 60}
    result = inference.complete(walk, x, observed, num=4000, method=method, progress=False, **settings)
    worth = result.effective_sample_size.item()
    assert worth > 1000
    draws = result.draws[:, 0, ~observed].double()
    mean, covariance = conditional_of_walk(x[0], observed)
    assert ((draws.mean(0) - mean).abs() < 4.5 * (covariance.diag() / worth).sqrt()).all()
    variances = torch.outer(covariance.diag(), covariance.diag())
    error = ((variances + covariance.square()) / worth).sqrt()
    assert ((draws.T.cov().view_as(covariance) - covariance).abs() < 4.5 * error).all()
    assert torch.equal(result.draws[:, 0, observed], x[:, observed].expand(4000, -1))


def stick(num=1):
    """A stick, broken twice: the bounds of the second break are the first."""
    with pyro.plate("items", num):
        first = pyro.sample("x_0", dist.Uniform(0.0, 1.0))
        return torch.stack([first, pyro.sample("x_1", dist.Uniform(0.0 * first, first))], -1)


def test_bounds_that_depend_on_what_is_missing_are_left_to_the_weights():
    x, observed = torch.tensor([[9.0, 0.4]] * 5), torch.tensor([False, True])
    result = inference.complete(stick, x, observed, num=2000, progress=False, particles=10_000)
    first = result.draws[..., 0]
    assert first.min() >= 0.4
    assert first.mean().item() == pytest.approx(0.6 / math.log(2.5), abs=0.01)  # p(x_0 | 0.4) ∝ 1 / x_0


def test_a_mixture_density_is_completed():
    model = zoo.RNADE((3,), hidden=4, components=2)
    x = model.sample(2, seed=0)
    result = inference.complete(model, x, torch.tensor([False, True, True]), num=3, progress=False)
    assert result.method == "smc" and torch.equal(result.draws[..., 1:], x[:, 1:].expand(3, 2, 2))


def test_independent_variables_have_no_state_to_resample():
    model = random(zoo.Independent((6,)))
    observed = torch.tensor([False, True] * 3)
    x = model.sample(3, seed=0)
    result = inference.complete(model, x, observed, num=8, particles=50, progress=False)
    assert torch.allclose(
        result.log_evidence, model.conditionals(x).log_prob(x)[:, observed].double().sum(-1), atol=1e-5
    )


# States


class Copies:
    """No Pyro program: x_2 and x_3 follow x_1, which is all that its state remembers."""

    order = (0, 1, 2, 3)

    def __init__(self, table=None, extra=lambda value: None):
        self.table, self.extra = table, extra

    def initial_state(self):
        return {"table": self.table, "last": None, "extra": None, "steps": (0, "none")}

    def conditional(self, step, state):
        assert state["table"] is self.table
        return dist.Bernoulli(0.02 + 0.96 * state["last"][0] if step > 1 else torch.tensor(0.2))

    def advance(self, step, state, value):
        last = state["last"] if step > 1 else [value]
        return {**state, "last": last, "extra": self.extra(value), "steps": (step + 1, "some")}

    def log_prob(self, x):
        last = dist.Bernoulli(0.02 + 0.96 * x[:, 1:2]).log_prob(x[:, 2:]).sum(-1)
        return last + dist.Bernoulli(torch.tensor(0.2)).log_prob(x[:, :2]).sum(-1)


def test_state_goes_with_its_particle_whatever_holds_it():
    shown = torch.tensor([False, False, True, False])
    for method in ("smc", "gibbs"):
        # The table has as many rows as there are particles, and is none of theirs.
        model = Copies(table=torch.arange(400.0))
        result = inference.complete(
            model, torch.ones(1, 4), shown, num=400, method=method, particles=400, sweeps=8, progress=False
        )
        cause, effect = result.draws[:, 0, 1], result.draws[:, 0, 3]
        # p(x_1 = 1 | x_2 = 1) = 0.925, and x_3 is like it in 0.98.
        assert cause.mean() > 0.85 and (cause == effect).float().mean() > 0.93


@pytest.mark.parametrize(
    ("extra", "came"), [(lambda value: value[:7], r"\(7,\)"), (lambda value: slice(len(value)), "slice")]
)
def test_state_that_cannot_go_with_its_particle_is_refused(extra, came):
    with pytest.raises(ValueError, match=f"values' dimension of 40 in front, got {came}"):
        shown = torch.tensor([False, False, True, False])
        inference.complete(Copies(extra=extra), torch.ones(1, 4), shown, particles=40, progress=False)


# What is left alone


@pytest.mark.parametrize("method", ["ancestral", "smc", "gibbs", "left-to-right"])
def test_seed_gives_the_same_bits_and_leaves_everything_as_it_was(method):
    model = random(zoo.NADE((2, 3), hidden=4))
    model.train()
    x = model.sample(3, seed=0)
    observed = torch.arange(6).view(2, 3) < 4 if method == "ancestral" else torch.arange(6).view(2, 3) % 2 > 0
    hidden = torch.where(observed, x, math.nan)
    settings = {"num": 4, "method": method, "particles": 7, "sweeps": 3, "chunk": 10, "progress": False}
    pyro.param("someone", torch.tensor(1.0))
    state = torch.get_rng_state()
    first, again, other = (
        inference.complete(model, items, observed, seed=seed, **settings)
        for items, seed in ((x, 1), (Split(hidden), 1), (x, 2))
    )
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(first.draws, again.draws), "missing entries are not looked at"
    assert not torch.equal(first.draws, other.draws)
    assert torch.equal(first.draws[..., observed], x[:, observed].expand(4, 3, -1))
    assert set(pyro.get_param_store().keys()) == {"someone"}
    assert model.training
    assert not any(part.requires_grad for part in vars(first).values() if isinstance(part, torch.Tensor))
    assert str(first).startswith(f"4 completions of 3 items by {method}: ")


def test_each_item_has_its_own_mask_and_chunks_change_nothing_else():
    model = random(zoo.FVSBN((5,)))
    x = model.sample(9, seed=3)
    observed = torch.rand(9, 5, generator=torch.Generator().manual_seed(0)) < 0.5
    for chunk in (1, 20, 4000):
        result = inference.complete(model, x, observed, num=3, particles=10, chunk=chunk, progress=False)
        assert torch.equal(result.draws[:, observed], x[observed].expand(3, -1))
        assert result.effective_sample_size.shape == result.log_evidence.shape == (9,)


@pytest.mark.parametrize(
    ("method", "chunk", "most"), [("smc", 20, 20), ("smc", 3, 10), ("gibbs", 30, 30), ("left-to-right", 6, 6)]
)
def test_no_more_is_worked_on_at_a_time_than_asked_for(method, chunk, most):
    sizes = []
    model = Copies(extra=lambda value: sizes.append(len(value)))
    model.log_prob = lambda x: sizes.append(len(x)) or torch.zeros(len(x))
    shown = torch.tensor([False, False, True, False])
    settings = {"particles": 10, "sweeps": 2, "chunk": chunk, "progress": False}
    result = inference.complete(model, torch.ones(9, 4), shown, num=3, method=method, **settings)
    assert max(sizes) == most
    assert result.draws.shape == (3, 9, 4)


def tilted(x=None, *, num=1):
    """A program with a parameter of its own, of a random start."""
    logits = pyro.param("logits", lambda: torch.randn(3))
    with pyro.plate("items", num if x is None else len(x)):
        given = [None] * 3 if x is None else x.unbind(-1)
        return [pyro.sample(f"x_{i}", dist.Bernoulli(logits=logits[i]), obs=given[i]) for i in range(3)]


def evidence_of(model):
    x, observed = torch.tensor([[1.0, 0.0, 1.0]]), torch.tensor([True, False, True])
    return inference.complete(model, x, observed, num=1, particles=1, progress=False).log_evidence.item()


def test_parameters_of_a_program_come_from_its_objective_or_the_store_and_the_store_stays():
    assert evidence_of(tilted) == evidence_of(tilted) and len(pyro.get_param_store()) == 0
    in_store, fitted = torch.tensor([3.0, 0.0, -2.0]), torch.tensor([-1.0, 0.0, 0.5])
    pyro.param("logits", in_store)
    objective = inference.MaximumLikelihood(tilted)
    objective.prepare(torch.ones(2, 3))
    with torch.no_grad():
        next(objective.parameters()).copy_(fitted)
    for model, logits in ((tilted, in_store), (objective, fitted)):
        exact = dist.Bernoulli(logits=logits[[0, 2]]).log_prob(torch.ones(2)).sum().item()
        assert evidence_of(model) == pytest.approx(exact, abs=1e-6)
    assert torch.equal(pyro.param("logits"), in_store)


class Tilted(torch.nn.Module):
    """The same as a module, under `pyro.module`, with a mode."""

    def __init__(self):
        super().__init__()
        self.logits = torch.nn.Parameter(torch.tensor([-1.0, 0.0, 0.5]))

    def model(self, x=None, *, num=1):
        assert not self.training
        registered = pyro.module(
            "tilted", self
        )  # a copy with what the store holds under that name, if anything
        return poutine.substitute(tilted, {"logits": registered.logits})(x, num=num)


def test_a_module_keeps_its_parameters_and_its_mode():
    module = Tilted()
    pyro.param("tilted$$$logits", torch.zeros(3))
    for model in (module, module.model):
        assert evidence_of(model) == pytest.approx(-1.313262 - 0.474077, abs=1e-5)
    assert module.training and torch.equal(pyro.param("tilted$$$logits"), torch.zeros(3))


# What is refused


def with_latent(num=1):
    with pyro.plate("items", num):
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        for i in range(2):
            pyro.sample(f"x_{i}", dist.Normal(z, 1.0))


def in_blocks(num=1):
    with pyro.plate("items", num):
        for i in range(2):
            pyro.sample(f"x_{i}", dist.Normal(torch.zeros(3), 1.0).to_event(1))


def impossible(num=1):
    with pyro.plate("items", num):
        first = pyro.sample("x_0", dist.Uniform(0.0, 0.5))
        pyro.sample("x_1", dist.Uniform(first, first + 0.1))


def forking(num=1):
    with pyro.plate("items", num):
        first = pyro.sample("x_0", dist.Bernoulli(torch.tensor(1.0)))
        if first.all():
            pyro.sample("x_1", dist.Bernoulli(first))


LATE = torch.tensor([False, True, True, True, True])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"num": 0}, "num to be an integer of at least 1, got 0"),
        ({"particles": 0}, "particles to be an integer of at least 1, got 0"),
        ({"sweeps": 0}, "sweeps to be an integer of at least 1, got 0"),
        ({"chunk": 0}, "chunk to be an integer of at least 1, got 0"),
        ({"method": "mcmc"}, "one of auto, ancestral, smc, gibbs, left-to-right, got 'mcmc'"),
        ({"method": "ancestral"}, "got x_1 of item 0 observed after one; smc and gibbs"),
        ({"observed": LATE.float()}, "a tensor of bool, got torch.float32"),
        ({"observed": [True] * 5}, "a tensor of bool, got list"),
        ({"observed": LATE[:4]}, r"shape \(5,\) or \(2, 5\), got \(4,\)"),
        ({"observed": LATE.expand(3, 5)}, r"shape \(5,\) or \(2, 5\), got \(3, 5\)"),
        ({"x": [1.0]}, "a tensor of items, got list"),
        ({"x": GIVEN}, r"shape \(batch, \*event_shape\), got \(5,\)"),
        ({"x": torch.zeros(0, 5)}, r"got \(0, 5\)"),
        ({"x": torch.zeros(2, 4), "observed": LATE[:4]}, r"items of shape \(5,\), got \(4,\)"),
        ({"x": torch.zeros(2, 5, 1), "observed": LATE[:, None]}, r"items of shape \(5,\), got \(5, 1\)"),
        ({"x": torch.full((2, 5), math.nan)}, "finite numbers where observed, got NaN or infinity in 8 "),
        ({"x": torch.full((2, 5), math.inf)}, "got NaN or infinity in 8 "),
        ({"x": torch.tensor([[0.0] * 5, [0.0, 0.0, 0.5, 3.0, 0.0]]), "chunk": 1},
         r"x_2 in Boolean\(\), got 0.5 in item 1"),
        ({"x": torch.ones(2, 5).double()}, "entries of torch.float32, got torch.float64"),
        ({"x": torch.ones(2, 5, dtype=torch.int64)}, "entries of torch.float32, got torch.int64"),
        ({"model": zoo.VAE((5,), latent_dim=2)}, "a site x_i for each of the 5 entries .* got z, x"),
        ({"model": walk}, "each of the 5 entries .* got x_0, x_1, x_2, x_3$"),
        ({"model": lambda num: None}, "got none"),
        ({"model": lambda x: None}, "called with num alone"),
        ({"model": 3}, "Pyro program"),
        ({"model": with_latent, "x": PAIR, "observed": TWO}, "no other, .* got z, x_0, x_1"),
        ({"model": in_blocks, "x": PAIR, "observed": TWO}, "a number for each of 1 items, got shape"),
        ({"model": impossible, "x": PAIR, "observed": TWO}, "got probability 0 at x_1 from all 1,000"),
        ({"model": forking, "x": 0 * PAIR, "observed": TWO.flip(0)}, "reaches x_1 whatever"),
    ],
)  # fmt: skip
def test_what_cannot_be_completed_is_refused_in_one_line(change, said):
    arguments = {"model": zoo.FVSBN((5,)), "x": torch.ones(2, 5), "observed": LATE, "progress": False}
    with pytest.raises(ValueError, match=said) as caught:
        inference.complete(**{**arguments, **change})
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 250
