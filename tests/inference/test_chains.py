"""`inference.run_chains`: what comes back, how much of it, and what is left alone."""

import itertools

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import HMC as PyroHMC
from pyro.infer import MCMC
from pyro.infer.mcmc import RandomWalkKernel

import inference
import zoo
from inference.chains import chain_seeds
from inference.diagnostics import worst_figures


class Counter(inference.Kernel):
    """Counts up, from where it starts: what is kept shows which transition it was."""

    def __init__(self, stop_at=None):
        self.calls, self.stop_at = [], stop_at

    def start(self, num):
        self.calls.append(("start", num))
        return {"n": torch.arange(num) * 1000, "even": torch.ones(num, 2, dtype=torch.bool)}

    def setup(self, warmup_steps, *args, **kwargs):
        self.calls.append(("setup", warmup_steps))

    def sample(self, params):
        self.calls.append("sample")
        if self.calls.count("sample") == self.stop_at:
            raise KeyboardInterrupt
        return {"n": params["n"] + 1, "even": ~params["even"]}

    def stats(self, state):
        self.calls.append("stats")
        return {"half": state["n"] / 2}

    def end_warmup(self):
        self.calls.append("end_warmup")

    def cleanup(self):
        self.calls.append("cleanup")


def run(kernel, num_draws, *args, **settings):
    return inference.run_chains(kernel, num_draws, *args, **{"progress": False, **settings})


def test_draws_are_those_after_warm_up_one_in_so_many_transitions():
    kernel = Counter()
    draws = run(kernel, 3, num_chains=2, warmup=5, thin=4)
    assert draws.samples["n"].tolist() == [[9, 13, 17], [1009, 1013, 1017]]
    assert draws.samples["even"].shape == (2, 3, 2)
    assert draws.stats["half"].tolist() == [[4.5, 6.5, 8.5], [504.5, 506.5, 508.5]]
    assert draws.last["n"].tolist() == [17, 1017] and set(draws.last) == {"n", "even"}
    assert (draws.num_chains, draws.num_draws, draws.warmup, draws.thin) == (2, 3, 5, 4)
    assert not draws.interrupted
    assert kernel.calls[:3] == [("setup", 5), ("start", 2), "sample"]
    assert kernel.calls.index("end_warmup") == 2 + 5 and kernel.calls[-1] == "cleanup"
    assert [kernel.calls.count(each) for each in ("sample", "stats", "end_warmup", "cleanup")] == [
        17,
        3,
        1,
        1,
    ]
    assert str(draws) == "2 chains of 3 draws, one in 4 transitions after 5: n (), even (2,)"


def test_defaults_are_sixteen_chains_and_as_much_warm_up_as_draws():
    kernel = Counter()
    draws = run(kernel, 3, thin=2)
    assert draws.samples["n"].shape == (16, 3) and draws.warmup == 6
    assert draws.samples["n"][0].tolist() == [8, 10, 12]


def test_every_site_keeps_its_type():
    draws = run(Counter(), 2, num_chains=3)
    assert (draws.samples["n"].dtype, draws.samples["even"].dtype) == (torch.int64, torch.bool)
    large = run(Counter(), 1, initial={"n": torch.tensor([2**25]), "even": torch.ones(1, 2) > 0}, warmup=0)
    assert large.samples["n"].item() == 2**25 + 1
    machine = zoo.DBM((2, 2), (2, 2), num_classes=3).double()
    draws = run(inference.BlockGibbs(machine), 2, num_chains=3)
    types = {name: value.dtype for name, value in draws.samples.items()}
    assert types == dict.fromkeys(["v", "h_1", "h_2"], torch.float64) | {"y": torch.int64}
    assert draws.stats["energy"].dtype == torch.float64


def test_chains_go_on_from_where_they_stopped():
    first = run(Counter(), 2, num_chains=3, warmup=0)
    second = run(Counter(), 2, initial=first.last, warmup=0, thin=3)
    assert second.samples["n"][:, 0].tolist() == [5, 1005, 2005]
    assert first.last["n"].tolist() == [2, 1002, 2002], "what was given stays"


def test_only_the_sites_that_are_asked_for_are_kept():
    machine = zoo.DBM((2, 2), (3, 2))
    assert set(run(inference.BlockGibbs(machine), 2, sites=["h_2"]).samples) == {"h_2"}
    x = torch.ones(2, 2)
    clamped = inference.BlockGibbs(machine, clamped={"v": x})
    assert set(run(clamped, 2).samples) == {"h_1", "h_2"}, "what is held need not be told"
    asked = run(clamped, 2, num_chains=3, sites=["v", "h_1", "v"])
    assert set(asked.samples) == {"v", "h_1"} and torch.equal(asked.samples["v"], x.expand(3, 2, 2, 2))
    assert set(asked.last) == {"v", "h_1", "h_2"}
    mask = torch.tensor([[True, False], [False, False]])
    assert "v" in run(inference.BlockGibbs(machine, clamped={"v": (x, mask)}), 2).samples
    everything = {"v": x, "h_1": torch.ones(3), "h_2": torch.ones(2)}
    assert set(run(inference.BlockGibbs(machine, clamped=everything), 2).samples) == {"v", "h_1", "h_2"}


# Seeds, and what is left alone


def test_seed_gives_the_same_bits_and_leaves_everything_as_it_was():
    machine = zoo.DBM((2, 2), (3, 2))
    machine.train()
    modes = []
    kernel = inference.BlockGibbs(
        machine, energy=lambda state: modes.append(machine.training) or state["v"].sum((1, 2))
    )
    before = torch.get_rng_state()
    with pyro.validation_enabled(True):
        first, again, other = (run(kernel, 6, num_chains=5, seed=seed) for seed in (1, 1, 2))
        assert torch.distributions.Distribution._validate_args
    assert torch.equal(torch.get_rng_state(), before)
    for name in first.samples:
        assert torch.equal(first.samples[name], again.samples[name])
        assert torch.equal(first.last[name], again.last[name])
    assert not torch.equal(first.samples["v"], other.samples["v"])
    assert machine.training and not any(modes)
    assert len(pyro.get_param_store()) == 0
    thinned = run(kernel, 2, num_chains=5, seed=1, warmup=6, thin=3)
    assert torch.equal(thinned.samples["v"], first.samples["v"][:, 2::3])
    alone = run(kernel, 2, num_chains=5, seed=1, warmup=6, thin=3, sites=["h_1"])
    assert torch.equal(thinned.samples["h_1"], alone.samples["h_1"]), "whatever else is kept"


def test_what_is_given_is_not_changed():
    start = {"x": torch.zeros(4), "y": torch.zeros(4)}
    step = inference.BlockGibbs(
        {"x": lambda s: dist.Normal(s["y"], 1.0), "y": lambda s: dist.Normal(s["x"], 1.0)}
    )
    draws = run(step, 3, initial=start)
    assert (start["x"] == 0).all() and (start["y"] == 0).all()
    draws.samples["x"].zero_()
    assert (draws.last["x"] != 0).all()


# Ctrl-C


@pytest.mark.parametrize(("stop_at", "kept"), [(1, 0), (5, 0), (7, 0), (8, 1), (11, 2)])
def test_ctrl_c_keeps_what_was_drawn(stop_at, kept):
    kernel = Counter(stop_at)
    draws = run(kernel, 3, num_chains=2, warmup=5, thin=2)
    assert draws.interrupted and draws.num_draws == kept
    assert draws.samples["n"].tolist() == [[7, 9][:kept], [1007, 1009][:kept]]
    assert draws.last["n"].tolist() == [stop_at - 1, 1000 + stop_at - 1], "to go on from"
    assert set(draws.stats) == ({"half"} if kept else set())
    assert kernel.calls[-1] == "cleanup" and "interrupted" in str(draws)
    assert draws.num_chains == 2


def test_an_error_leaves_everything_as_it_was_too():
    machine = zoo.RBM((4,), hidden=2)
    kernel = inference.BlockGibbs(machine, energy=lambda state: state["v"])
    before = torch.get_rng_state()
    with pyro.validation_enabled(True):
        with pytest.raises(ValueError, match=r"expected energy of shape \(16,\), got \(16, 4\)"):
            run(kernel, 2)
        assert torch.distributions.Distribution._validate_args
    assert torch.equal(torch.get_rng_state(), before)
    assert machine.training


def test_every_draw_has_the_same_statistics():
    class Late(Counter):
        def stats(self, state):
            return {"half": state["n"] / 2} if self.calls.count("sample") > 4 else {}

    with pytest.raises(ValueError, match="expected no statistics of every draw, got half"):
        run(Late(), 3, num_chains=2, warmup=3)


def test_progress_counts_the_transitions(monkeypatch):
    shown = []

    def progress(description, total, *, enabled):
        shown.append((description, total, enabled))
        return inference.chains.show_progress.__wrapped__(description, total, enabled=False)

    import inference.chains

    real = inference.chains.show_progress
    progress.__wrapped__ = real
    monkeypatch.setattr(inference.chains, "show_progress", progress)
    inference.run_chains(Counter(), 3, num_chains=2, warmup=5, thin=2)
    run(Counter(), 3, num_chains=2)
    assert shown == [("drawing", 11, True), ("drawing", 6, False)]


# What is refused

START = {"n": torch.zeros(3, dtype=torch.int64), "even": torch.ones(3, 2) > 0}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"kernel": zoo.RBM((4,))}, "a kernel of inference's or of Pyro's, got RBM"),
        ({"num_draws": 0}, "num_draws to be an integer of at least 1, got 0"),
        ({"num_draws": 1.5}, "num_draws to be an integer of at least 1, got 1.5"),
        ({"num_draws": None}, "num_draws to be an integer of at least 1, got None"),
        ({"num_chains": 0}, "num_chains to be an integer of at least 1, got 0"),
        ({"warmup": -1}, "warmup to be an integer of at least 0, got -1"),
        ({"thin": 0}, "thin to be an integer of at least 1, got 0"),
        ({"thin": None}, "thin to be an integer of at least 1, got None"),
        ({"initial": START, "num_chains": 4}, "initial values of 4 chains, got 3"),
        ({"initial": 3.0}, "a dict of tensors by the names of sites, got float"),
        ({"sites": ["n", "odd"]}, "sites to be a list of some of n, even, got n, odd"),
        ({"sites": "n"}, "sites to be a list of some of n, even, got n"),
        ({"sites": []}, "sites to be a list of some of n, even, got none"),
        ({"seed": "one"}, "seed to be an integer, or one for each chain, got 'one'"),
        ({"seed": []}, "a seed for each chain, got none"),
        ({"seed": [0.5, 0.7]}, r"seed to be an integer, or one for each chain, got \[0\.5, 0\.7\]"),
        ({"seed": 2**70}, "a seed of 64 bits, got 1180591620717411303424"),
        ({"seed": [1, 2], "num_chains": 3}, "seeds of 3 chains, got 2"),
        ({"seed": [1, 2], "initial": START}, "seeds of 3 chains, got 2"),
        ({"target_r_hat": 1.0}, "target_r_hat to be a number above 1, got 1.0"),
        ({"target_ess": -5}, "target_ess to be a number above 0, got -5"),
        (
            {"target_r_hat": 1.01, "num_chains": 1},
            "several chains, so that they can be compared by target_r_hat",
        ),
    ],
)
def test_what_cannot_be_run_is_refused_in_one_line(change, said):
    arguments = {"kernel": Counter(), "num_draws": 2, "progress": False}
    with pytest.raises(ValueError, match=said) as caught:
        inference.run_chains(**{**arguments, **change})
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 250


# A seed for each chain

NORMAL = {"x": torch.linspace(-1, 1, 12).reshape(4, 3)}


def quartic(state):
    return -0.25 * (state["x"] ** 4).sum(1)


@pytest.mark.parametrize(
    "kernel",
    [
        inference.RandomWalkMetropolis(log_density=quartic),
        inference.MALA(log_density=quartic, dense=True),
        inference.HMC(log_density=quartic, num_steps=2),
        inference.BlockGibbs({"x": lambda s: dist.Gamma(1 + s["x"].abs(), 1.0).to_event(1)}),
    ],
    ids=lambda kernel: type(kernel).__name__,
)
def test_a_chain_with_a_seed_of_its_own_draws_what_it_draws_alone(kernel):
    seeds = [5, 9, 5, 2]
    together = run(kernel, 30, initial=NORMAL, seed=seeds, warmup=50)
    assert together.num_chains == 4 and together.seed == (5, 9, 5, 2)
    for chain in (1, 3):
        start = {"x": NORMAL["x"][chain : chain + 1]}
        alone = run(kernel, 30, initial=start, seed=[seeds[chain]], warmup=50)
        assert torch.equal(alone.samples["x"][0], together.samples["x"][chain])
        for name, value in alone.stats.items():
            assert torch.equal(value[0], together.stats[name][chain])


def test_seeds_may_be_numbers_of_any_library_and_a_mixture_chooses_for_all():
    parts = [inference.RandomWalkMetropolis(log_density=quartic), inference.MALA(log_density=quartic)]
    mixture = inference.Mixture(parts)
    for seeds in ([1, 2], [1, 2, 3]):
        start = {"x": NORMAL["x"][: len(seeds)]}
        drawn = run(mixture, 6, initial=start, seed=[torch.tensor(each) for each in seeds])
        assert drawn.seed == tuple(seeds)
    one = run(parts[0], 3, initial=NORMAL, seed=torch.tensor(5))
    assert one.seed == 5 and torch.equal(
        one.samples["x"], run(parts[0], 3, initial=NORMAL, seed=5).samples["x"]
    )


def test_starts_are_drawn_by_the_seed_of_the_chain():
    def program():
        pyro.sample("x", dist.Normal(torch.zeros(2), 1.0).to_event(1))
        pyro.sample("k", dist.Categorical(torch.ones(5)))

    kernel = inference.Cycle([inference.MALA(program, sites=["x"]), inference.Gibbs(program, sites=["k"])])
    before = torch.get_rng_state()
    draws = run(kernel, 4, seed=[1, 7, 1])
    other = run(kernel, 4, seed=[7, 3])
    assert torch.equal(torch.get_rng_state(), before)
    for name in ("x", "k"):
        value = draws.samples[name]
        assert torch.equal(value[0], value[2]) and torch.equal(value[1], other.samples[name][0])
    assert not torch.equal(draws.samples["x"][0], draws.samples["x"][1])


def test_what_has_no_dimension_of_chains_cannot_be_drawn_by_chain():
    class Shared(inference.Kernel):
        def sample(self, params):
            return {"x": params["x"] + torch.randn(5)}

    with pytest.raises(ValueError, match="expected what is drawn to have 2 chains as its first dimension"):
        run(Shared(), 2, initial={"x": torch.zeros(2, 5)}, seed=[1, 2])


# Stopping when there is enough


def test_a_run_stops_as_soon_as_the_targets_are_reached():
    kernel = inference.BlockGibbs({"x": lambda s: 0.8 * s["x"] + 0.6 * torch.randn_like(s["x"])})
    start = {"x": torch.randn(8, generator=torch.Generator().manual_seed(0))}
    draws = run(kernel, 20_000, initial=start, warmup=0, target_ess=400)
    size = worst_figures(draws.samples)[1]
    assert draws.reached and 400 <= size < 800 and 100 < draws.num_draws < 1500
    assert "enough" in str(draws) and "not enough" not in str(draws)
    assert torch.equal(draws.last["x"], draws.samples["x"][:, -1])
    whole = run(kernel, draws.num_draws, initial=start, warmup=0)
    assert torch.equal(whole.samples["x"], draws.samples["x"]) and whole.reached is None
    apart = {"x": torch.linspace(-9, 9, 8)}
    mixed = run(kernel, 20_000, initial=apart, warmup=0, target_r_hat=1.01)
    assert mixed.reached and worst_figures(mixed.samples)[0] <= 1.01 and mixed.num_draws > 100
    stopped = run(Counter(stop_at=8), 50, num_chains=2, warmup=0, target_ess=10)
    assert stopped.interrupted and stopped.reached is False
    short = run(kernel, 50, initial=apart, warmup=0, target_r_hat=1.01, target_ess=10)
    assert short.reached is False and short.num_draws == 50 and "not enough" in str(short)


def test_entries_that_never_move_do_not_hold_a_run_up():
    kernel = inference.BlockGibbs(
        {"x": lambda s: torch.stack([torch.randn(len(s["x"])), torch.ones(len(s["x"]))], 1)}
    )
    draws = run(kernel, 2000, initial={"x": torch.zeros(4, 2)}, warmup=0, target_r_hat=1.05, target_ess=200)
    assert draws.reached and draws.num_draws < 2000


# Pyro's own kernels


def coin(x):
    p = pyro.sample("p", dist.Beta(2.0, 2.0))
    with pyro.plate("data", len(x)):
        pyro.sample("x", dist.Bernoulli(p), obs=x)


FLIPS = torch.tensor([1.0, 1.0, 0.0, 1.0])


def test_pyros_hmc_runs_as_it_would_under_its_own_mcmc():
    kernel = PyroHMC(coin, num_steps=2)
    draws = run(kernel, 12, FLIPS, num_chains=2, warmup=10, seed=[3, 4])
    assert set(draws.stats) == {"energy", "acceptance", "divergent", "step_size"}
    for chain, seed in enumerate((3, 4)):
        mcmc = MCMC(PyroHMC(coin, num_steps=2), num_samples=12, warmup_steps=10, disable_progbar=True)
        torch.manual_seed(seed)
        mcmc.run(FLIPS)
        assert torch.equal(mcmc.get_samples()["p"], draws.samples["p"][chain])
    again = run(kernel, 12, FLIPS, num_chains=2, warmup=10, seed=[3, 4])
    assert torch.equal(again.samples["p"], draws.samples["p"]), "a kernel is left as it was"
    assert draws.dims == {"p": []} and run(kernel, 1, FLIPS, warmup=0).num_chains == 4


def test_pyros_kernels_start_where_they_are_told_thin_and_stop():
    start = {"p": torch.tensor([0.1, 0.9])}
    still = PyroHMC(coin, num_steps=1, step_size=1e-6, adapt_step_size=False)
    draws = run(still, 3, FLIPS, initial=start, warmup=0)
    assert torch.allclose(draws.samples["p"][:, 0], start["p"], atol=1e-4)
    thinned = run(PyroHMC(coin, num_steps=2), 4, FLIPS, num_chains=2, warmup=5, thin=3)
    whole = run(PyroHMC(coin, num_steps=2), 12, FLIPS, num_chains=2, warmup=5)
    assert torch.equal(thinned.samples["p"], whole.samples["p"][:, 2::3])
    enough = run(PyroHMC(coin, num_steps=2), 500, FLIPS, num_chains=2, warmup=20, target_ess=20)
    assert enough.reached and enough.num_draws == 100


def test_every_chain_of_pyros_random_walk_adapts_anew():
    draws = run(RandomWalkKernel(coin), 10, FLIPS, num_chains=3, warmup=60)
    steps = draws.stats["step_size"][:, -1]
    assert len(steps.unique()) == 3 and (steps > 0.1).all()
    single = run(RandomWalkKernel(coin), 10, FLIPS, warmup=60, seed=[chain_seeds(0, 3)[2]])
    assert torch.equal(single.samples["p"][0], draws.samples["p"][2]), "whatever ran before it"
    with pytest.raises(
        ValueError, match="no initial values with Pyro's RandomWalkKernel.*RandomWalkMetropolis"
    ):
        run(RandomWalkKernel(coin), 2, FLIPS, initial={"p": torch.tensor([0.5])})


def test_ours_honours_its_start_and_adapts_anew_in_every_chain_of_pyros():
    """Both of what goes wrong with Pyro's random walk."""
    kernel = inference.RandomWalkMetropolis(coin, step_size=1e-5)
    steps = []

    class Watched(inference.RandomWalkMetropolis):
        def cleanup(self):
            if self.adaptation is not None:
                steps.append(self.adaptation.step_size.item())
            super().cleanup()

    mcmc = MCMC(
        kernel, num_samples=1, warmup_steps=0, disable_progbar=True, initial_params={"p": torch.tensor([3.0])}
    )
    mcmc.run(FLIPS)
    assert mcmc.get_samples()["p"].item() == pytest.approx(torch.sigmoid(torch.tensor(3.0)).item(), abs=1e-3)
    draws = run(kernel, 1, FLIPS, initial={"p": torch.tensor([0.95])}, warmup=0)
    assert draws.samples["p"].item() == pytest.approx(0.95, abs=1e-3)
    for _ in range(2):
        MCMC(Watched(coin, step_size=1e-3), num_samples=5, warmup_steps=60, disable_progbar=True).run(FLIPS)
    assert len(steps) == 2 and min(steps) > 0.05


def test_a_kernel_of_ones_own_needs_no_more_than_sample():
    class Walk(inference.Kernel):
        def sample(self, params):
            return {"x": params["x"] + torch.randn_like(params["x"])}

    draws = run(Walk(), 200, initial={"x": torch.zeros(300)}, warmup=0)
    assert draws.stats == {}
    steps = draws.samples["x"].diff(dim=1)
    assert abs(steps.var().item() - 1) < 0.02
    spread = [draws.samples["x"][:, i].var().item() / (i + 1) for i in (0, 99, 199)]
    assert all(0.7 < each < 1.4 for each in itertools.chain(spread))
