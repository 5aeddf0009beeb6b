"""Annealed importance sampling: against closed forms on a path written here, and enumerated machines."""

import math

import pytest
import torch

import inference
import zoo
from inference.annealing import LogZEstimate
from tests.undirected.machines import built, every_value, random_machine

MEAN, SCALE = 3.0, 0.5
LOG_Z = math.log(SCALE) + 0.5 * math.log(2 * math.pi)


class ToGaussian:
    """From N(0, 1) to exp(-(x - mean)² / 2σ²), left without its normaliser; a step is an exact draw."""

    def __init__(self, mean=MEAN):
        self.mean = torch.as_tensor(mean, dtype=torch.float64)

    @property
    def log_z_start(self):
        return torch.full_like(self.mean, 0.5 * math.log(2 * math.pi))

    def start(self, num):
        return torch.randn(num, *self.mean.shape, dtype=torch.float64)

    def at(self, state):
        return state

    def log_ratio(self, x, before, after):
        return (after - before) * (0.5 * x.square() - 0.5 * ((x - self.mean) / SCALE).square())

    def step(self, x, beta):
        precision = (1 - beta) + beta / SCALE**2
        return (beta * self.mean / SCALE**2) / precision + torch.randn_like(x) / math.sqrt(precision)


class ByMetropolis(ToGaussian):
    """The same path, with a step that proposes a neighbour."""

    def step(self, x, beta):
        proposal = x + 0.8 * torch.randn_like(x)
        log_density = self.log_ratio(proposal, 0.0, beta) - self.log_ratio(x, 0.0, beta)
        log_density += 0.5 * (x.square() - proposal.square())
        return torch.where(torch.rand_like(x).log() < log_density, proposal, x)


def mean_weight(log_weights, log_truth):
    """Mean of the weights over the truth, and how many standard errors it lies from 1."""
    w = (log_weights - log_truth).exp()
    error = w.std().item() / math.sqrt(len(w))
    return w.mean().item(), (w.mean().item() - 1) / error


@pytest.mark.parametrize("path", [ToGaussian(1.0), ByMetropolis(1.0)], ids=["exact", "metropolis"])
@pytest.mark.parametrize("betas", [2, 5, torch.tensor([0.0, 0.01, 0.03, 0.2, 0.25, 0.9, 1.0])])
def test_weights_are_unbiased_on_any_path_and_ladder(path, betas):
    estimate = inference.ais(path, chains=100_000, betas=betas)
    truth = LOG_Z - path.log_z_start
    assert estimate.log_weights.shape == (100_000,) and estimate.log_weights.dtype == torch.float64
    assert abs(mean_weight(estimate.log_weights, truth)[1]) < 4
    assert estimate.log_z.item() == pytest.approx(LOG_Z, abs=0.05)


@pytest.mark.parametrize("path", [ToGaussian(1.0), ByMetropolis(1.0)], ids=["exact", "metropolis"])
def test_weights_back_from_exact_draws_are_unbiased(path):
    exact = 1.0 + SCALE * torch.randn(100_000, dtype=torch.float64)
    estimate = inference.reverse_ais(path, exact, betas=torch.linspace(0, 1, 31) ** 2)
    assert abs(mean_weight(estimate.log_weights, path.log_z_start - LOG_Z)[1]) < 4
    assert estimate.log_z.item() == pytest.approx(LOG_Z, abs=0.05)


@pytest.mark.parametrize("path", [ToGaussian(), ByMetropolis()], ids=["exact", "metropolis"])
def test_many_steps_come_close_from_both_sides(path):
    forward = inference.ais(path, chains=200, betas=1000)
    reverse = inference.reverse_ais(path, MEAN + SCALE * torch.randn(200).double(), betas=1000)
    for estimate in (forward, reverse):
        assert estimate.relative_error < 0.05
        assert abs(estimate.log_z.item() - LOG_Z) < 4 * estimate.relative_error
    assert (forward.betas, forward.reverse) == (1000, False)
    assert (reverse.betas, reverse.reverse) == (1000, True)
    assert forward.final.mean().item() == pytest.approx(MEAN, abs=0.2)
    assert reverse.final.mean().item() == pytest.approx(0.0, abs=0.3)


def test_items_have_estimates_of_their_own():
    path = ToGaussian([0.0, 1.0, 2.0])
    estimate = inference.ais(path, chains=500, betas=300)
    assert estimate.log_weights.shape == (500, 3)
    assert estimate.log_z.shape == estimate.relative_error.shape == estimate.interval()[0].shape == (3,)
    assert torch.allclose(estimate.log_z, torch.full((3,), LOG_Z).double(), atol=0.1)
    low, high = estimate.interval(0.9999)
    assert (low < LOG_Z).all() and (LOG_Z < high).all()
    assert str(estimate) == "log Z of 3 densities by AIS, 500 chains, 300 steps"


# Machines of the zoo, whose log Z is known by enumeration


@pytest.mark.parametrize("seed", [0, 1, 2, 4, 11])
@pytest.mark.parametrize("betas", [1, 2, 5])
def test_weights_of_a_machine_are_unbiased_at_any_number_of_steps(seed, betas):
    machine = random_machine(seed)
    log_z = machine.log_partition()
    forward = inference.ais(machine, chains=100_000, betas=betas, seed=seed)
    assert abs(mean_weight(forward.log_weights, log_z - forward.log_z_start)[1]) < 4
    exact = machine.exact_sample(100_000, seed=seed)
    reverse = inference.reverse_ais(machine, exact, betas=betas, seed=seed)
    assert abs(mean_weight(reverse.log_weights, reverse.log_z_start - log_z)[1]) < 4


def test_weighting_after_the_move_would_be_seen():
    """The mistake that is easiest to make: each factor of the state that the transition gave."""
    machine = built("dbm")
    path, log_z = machine.annealing(), machine.log_partition()
    ladder = torch.linspace(0, 1, 6).tolist()
    place, log_weights = path.start(100_000), torch.zeros(100_000, dtype=torch.float64)
    for before, after in zip(ladder, ladder[1:], strict=False):
        place = path.step(place, after)
        log_weights += path.log_ratio(place, before, after)
    mean, errors = mean_weight(log_weights, log_z - path.log_z_start)
    assert mean > 1.1 and errors > 20
    ours = inference.ais(machine, chains=100_000, betas=5)
    assert abs(mean_weight(ours.log_weights, log_z - path.log_z_start)[1]) < 4


def test_forward_is_low_and_reverse_high_on_average():
    machine = built("dbm")
    log_z = machine.log_partition()
    forward = [inference.ais(machine, chains=3, betas=2, seed=seed).log_z for seed in range(300)]
    exact = [machine.exact_sample(3, seed=seed) for seed in range(300)]
    reverse = [
        inference.reverse_ais(machine, each, betas=2, seed=seed).log_z for seed, each in enumerate(exact)
    ]
    below, above = torch.stack(forward) - log_z, torch.stack(reverse) - log_z
    assert below.mean() < -3 * below.std() / math.sqrt(300)
    assert above.mean() > 3 * above.std() / math.sqrt(300)


@pytest.mark.parametrize("name", ["dbm", "labelled dbm", "gaussian dbm"])
def test_posteriors_of_items_give_their_evidence(name):
    machine = built(name)
    x = machine.exact_sample(6, seed=0)["v"]
    estimate = inference.ais(machine.annealing(x=x), chains=2000, betas=20)
    assert estimate.log_z.shape == (6,)
    evidence = machine.log_marginal(x) + machine.log_partition()
    assert ((estimate.log_z - evidence).abs() < 4 * estimate.relative_error + 1e-9).all()
    state = machine.annealing(x=x).complete(estimate.final)
    assert torch.allclose(state["v"], x.expand(2000, *x.shape))
    h = machine.exact_posterior_means(x)["h_1"]
    assert torch.allclose(state["h_1"].mean(0), h, atol=5 * 0.5 / math.sqrt(2000))


def test_posterior_of_an_rbm_costs_no_error():
    machine = built("rbm")
    x = every_value(machine, ("v",))["v"]
    estimate = inference.ais(machine.annealing(x=x), chains=2, betas=1)
    assert torch.allclose(estimate.log_z, machine.log_marginal(x) + machine.log_partition())
    assert estimate.relative_error.max() < 1e-9
    low, high = estimate.interval()
    assert torch.allclose(low, high)


# What an estimate says of itself


def of_weights(*weights, reverse=False):
    log_weights = torch.tensor(weights, dtype=torch.float64).log()
    mean = log_weights.logsumexp(0) - math.log(len(weights))
    zero = torch.zeros((), dtype=torch.float64)
    return LogZEstimate(-mean if reverse else mean, log_weights, zero, 10, reverse, None)


def test_error_is_that_of_the_mean_weight():
    estimate = of_weights(1.0, 2.0, 3.0, 6.0)
    assert estimate.relative_error.item() == pytest.approx(math.sqrt(14 / 3 / 4) / 3)
    assert estimate.effective_sample_size.item() == pytest.approx(12**2 / 50)
    assert of_weights(2.0, 2.0).relative_error == 0
    assert of_weights(2.0, 2.0).interval() == (math.log(2), math.log(2))
    one = of_weights(2.0)
    assert one.relative_error.isnan() and one.interval()[0].isnan() and one.log_z == math.log(2)


def test_interval_is_the_formula_and_not_symmetric():
    """The ends m - s x solve g(x) = ±1.96, where g removes the skewness of the weights."""
    weights = torch.tensor([1.0, 2.0, 2.0, 3.0, 2.5, 5.0], dtype=torch.float64)
    estimate = of_weights(*weights.tolist())
    m, s = weights.mean(), weights.std() / math.sqrt(6)
    a = ((weights - m) ** 3).mean() / weights.std(correction=0) ** 3 / math.sqrt(6)
    low, high = estimate.interval()
    for end, t in (low, 1.959964), (high, -1.959964):
        x = (m - end.exp()) / s
        assert (x + a * x**2 / 3 + a**2 * x**3 / 27 + a / 6).item() == pytest.approx(t, abs=1e-6)
    assert low < estimate.log_z < high
    assert (high - estimate.log_z) > 1.1 * (estimate.log_z - low)
    inner = estimate.interval(0.5)
    assert low < inner[0] and inner[1] < high
    backwards = of_weights(*weights.tolist(), reverse=True)
    assert backwards.interval() == (-high, -low)


def test_interval_of_even_weights_is_the_normal_one():
    weights = torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)
    low, high = of_weights(*weights.tolist()).interval(0.8)
    reach = 1.2815516 / math.sqrt(3)
    assert torch.stack([low, high]).exp().tolist() == pytest.approx([2 - reach, 2 + reach], rel=1e-6)


def test_interval_is_open_where_one_weight_is_all():
    low, high = of_weights(1e-9, 1e-9, 1e-9, 1.0).interval()
    assert low == -math.inf and high.isfinite()


@pytest.mark.parametrize(("spread", "least"), [(0.3, 0.94), (1.0, 0.92)])
def test_interval_covers_the_truth_for_skewed_weights(spread, least):
    """Of log-normal weights, 100 chains and 4,000 repetitions; m ± 1.96 s covers 89 % of them at spread 1."""
    log_weights = spread * torch.randn(100, 4000, dtype=torch.float64)
    mean = log_weights.logsumexp(0) - math.log(100)
    estimate = LogZEstimate(mean, log_weights, torch.zeros(4000).double(), 10, False, None)
    low, high = estimate.interval()
    truth = spread**2 / 2
    assert ((low <= truth) & (truth <= high)).double().mean() > least
    assert (low > truth).double().mean() > 0.01
    assert (high < truth).double().mean() < 0.06


def test_seed_decides_the_chains_and_leaves_the_generator():
    state = torch.get_rng_state()
    first, again, other = (inference.ais(ToGaussian(), chains=5, betas=3, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(first.log_weights, again.log_weights)
    assert not torch.equal(first.log_weights, other.log_weights)
    place = torch.full((5,), MEAN, dtype=torch.float64)
    first, again, other = (
        inference.reverse_ais(ToGaussian(), place, betas=3, seed=seed) for seed in (1, 1, 2)
    )
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(first.log_weights, again.log_weights)
    assert not torch.equal(first.log_weights, other.log_weights)


def test_it_says_what_it_is():
    shown = str(of_weights(*[1.0, 1.1] * 500, reverse=True))
    assert shown == (
        "log Z = -0.049 nats by reverse AIS, 95 % within -0.052 … -0.046 (1,000 chains, 10 steps, "
        "worth 998 of equal weight)"
    )


def test_it_says_where_it_can_tell_little():
    assert str(of_weights(1.0)) == "log Z = 0.000 nats by AIS, no interval from one chain (1 chain, 10 steps)"
    warning = "; too few chains carry the weight: take more steps)"
    assert str(of_weights(*[1e-9] * 9, 1.0)).endswith(
        "(10 chains, 10 steps, worth 1 of equal weight" + warning
    )
    assert str(of_weights(*[1.0] * 6)).endswith("worth 6 of equal weight)")
    one = inference.ais(ToGaussian(torch.ones(1)), chains=2, betas=1)
    assert str(one) == "log Z of 1 density by AIS, 2 chains, 1 step"


def test_float32_machine_is_weighted_in_float64():
    estimate = inference.ais(zoo.RBM((4,), 3), chains=4, betas=3)
    assert estimate.log_z.dtype == estimate.log_weights.dtype == estimate.log_z_start.dtype == torch.float64


# What is refused


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"chains": 0}, "chains must be at least 1, got 0"),
        ({"betas": 0}, "betas must be at least 1, got 0"),
        ({"betas": torch.tensor([0.0, 0.5])}, r"betas must rise from 0 to 1, got \[0.0, 0.5\] … of 2"),
        ({"betas": torch.tensor([0.1, 1.0])}, "betas must rise from 0 to 1"),
        ({"betas": torch.tensor([0.0, 0.6, 0.6, 1.0])}, "betas must rise from 0 to 1"),
        ({"betas": torch.tensor([0.0, math.nan, 1.0])}, "betas must rise from 0 to 1"),
        ({"betas": torch.tensor([0.0])}, "betas must rise from 0 to 1"),
        ({"betas": torch.tensor([[0.0, 1.0]])}, "betas must rise from 0 to 1"),
        ({"chains": 2.5}, "chains must be an integer of at least 1, got 2.5"),
        ({"chains": "9"}, "chains must be an integer of at least 1, got '9'"),
        ({"chains": True}, "chains must be at least 1, got True"),
        ({"betas": True}, "betas must be at least 1, got True"),
        ({"betas": None}, "betas must rise from 0 to 1, or be their number, got None"),
        ({"betas": "a"}, "betas must rise from 0 to 1, or be their number, got 'a'"),
        ({"betas": 10.0}, r"betas must rise from 0 to 1, got \[10.0\]"),
    ],
)
def test_arguments_are_checked(settings, message):
    with pytest.raises(ValueError, match=message):
        inference.ais(ToGaussian(), **settings)
    if "betas" in settings:
        with pytest.raises(ValueError, match=message):
            inference.reverse_ais(ToGaussian(), torch.zeros(3).double(), **settings)


def test_what_gives_no_path_is_refused():
    with pytest.raises(
        ValueError, match="expects a path, or a model whose method annealing.. gives one, got int"
    ):
        inference.ais(3)
    with pytest.raises(ValueError, match="got Independent"):
        inference.reverse_ais(zoo.Independent((3,)), None)


@pytest.mark.parametrize("level", [0.0, 1.0, 95])
def test_level_of_the_interval_is_checked(level):
    with pytest.raises(ValueError, match=f"level must lie between 0 and 1, got {level}"):
        of_weights(1.0, 2.0).interval(level)


def test_parameters_that_are_no_numbers_are_told():
    machine = zoo.RBM((4,), 3)
    with torch.no_grad():
        machine.b[0].fill_(math.nan)
    with pytest.raises(FloatingPointError, match="4 of 4 weights are not finite: are the parameters"):
        inference.ais(machine, chains=4, betas=2)
