"""Simulation-based calibration and Geweke's test: what is right passes, and what is wrong is found."""

from functools import partial

import pyro
import pyro.distributions as dist
import pytest
import torch

import inference
import zoo

X = torch.zeros(5)


def normal(x):
    mean = pyro.sample("mean", dist.Normal(0.0, 1.0))
    with pyro.plate("data", len(x)):
        pyro.sample("x", dist.Normal(mean, 2.0), obs=x)


def rates(x, k):
    """Two sites that are constrained, and data of which one has a support that depends on θ."""
    rate = pyro.sample("rate", dist.Gamma(2.0, 1.0))
    p = pyro.sample("p", dist.Beta(2.0, 3.0))
    with pyro.plate("data", len(x)):
        pyro.sample("x", dist.Exponential(rate), obs=x)
    with pyro.plate("trials", len(k)):
        pyro.sample("k", dist.Bernoulli(p), obs=k)


def mixture(x):
    z = pyro.sample("z", dist.Bernoulli(0.4))
    loc = pyro.sample("loc", dist.Normal(2 * z, 1.0))
    with pyro.plate("data", len(x)):
        c = pyro.sample("c", dist.Categorical(torch.tensor([0.3, 0.7])))
        pyro.sample("x", dist.Normal(loc + 3 * c, 1.0), obs=x)


RATES = (torch.ones(4), torch.zeros(5))


def discrete_and_continuous(program, sites):
    gibbs = inference.Gibbs(program, sites=["z", "c"])
    return inference.Cycle([gibbs, inference.RandomWalkMetropolis(program, sites=["loc"])])


def exact(shift=0.0, scale=1.0, num=19, only_prior=False):
    """The posterior of `normal` in closed form, or one that is wrong."""

    def method(program, seed):
        x = pyro.poutine.trace(program).get_trace().nodes["x"]["value"]
        precision = 1 + len(x) / 4
        loc, deviation = x.sum() / 4 / precision, precision**-0.5
        if only_prior:
            loc, deviation = 0 * loc, 1.0
        draws = loc + deviation * (shift + scale * torch.randn(1, num))
        return inference.Draws({"mean": draws}, {}, {"mean": draws[:, -1]}, warmup=0, thin=1, seed=seed)

    return method


def calibrate(program, *args, **settings):
    short = {"num_draws": 19, "warmup": 100, "thin": 5} if "kernel" in settings else {}
    return inference.simulation_based_calibration(program, *args, **{**short, "progress": False, **settings})


def joint(program, kernel, *args, **settings):
    return inference.joint_distribution_test(
        program,
        kernel,
        *args,
        **{"steps": 20, "warmup": 50, "num_chains": 500, "progress": False, **settings},
    )


# What is right passes

RIGHT = {
    "random walk": (normal, (X,), inference.RandomWalkMetropolis),
    "mala": (rates, RATES, inference.MALA),
    "hmc": (normal, (X,), partial(inference.HMC, num_steps=3)),
    "cycle": (mixture, (torch.zeros(2),), discrete_and_continuous),
}


@pytest.mark.parametrize("name", RIGHT)
def test_a_kernel_that_is_right_passes(name):
    program, args, kernel = RIGHT[name]
    found = calibrate(program, *args, kernel=kernel, replications=100, num_draws=9, thin=10)
    assert found.problems == () and found.p_value > 0.01, found
    tested = joint(program, kernel, *args)
    assert tested.problems == () and tested.p_value > 0.01, tested
    means = [e.item() for n, e in zip(tested.names, tested.expected, strict=True) if n.startswith("mean(")]
    assert max(map(abs, means)) < 0.1, "ranks are about zero, those of discrete sites too"


def test_a_method_that_is_right_passes():
    found = calibrate(normal, X, method=exact())
    assert found.problems == () and found.p_value > 0.01, found
    assert found.ranks["mean"].shape == (200,) and found.num_draws == 19 and found.num_bins == 20
    assert set(found.ranks) == {"mean", "log p(data | θ)"}
    assert found.p_value == min(1.0, 2 * min(each.item() for each in found.p_values.values()))


def test_nuts_is_a_method():
    def method(program, seed):
        return inference.nuts(program, num_draws=4, num_chains=1, warmup=4, seed=seed, progress=False)

    found = calibrate(normal, X, method=method, replications=20, thin=2)
    assert found.num_draws == 2 and found.replications == 20 and found.num_bins == 2
    assert found.ranks["mean"].max() <= 2 and len(found.ranks["mean"].unique()) > 1


def test_ranks_are_uniform_as_often_as_they_should_be():
    from inference.calibration import _p_values

    generator = torch.Generator().manual_seed(0)
    for num_draws, bins in ((19, 20), (99, 20), (10, 4)):  # bins of 2 or 3 ranks in the last
        ranks = torch.randint(num_draws + 1, (200, 40, 50), generator=generator)
        p_values = _p_values(ranks, num_draws, bins)
        assert p_values.shape == (40, 50)
        assert abs((p_values < 0.1).double().mean() - 0.1) < 0.025 and abs(p_values.mean() - 0.5) < 0.03
    counts = torch.tensor([12, 8, 8, 12])  # by hand: 4 · 2² / 10 = 1.6, three degrees of freedom
    p_value = _p_values(torch.arange(4).repeat_interleave(counts), 3, 4)
    assert abs(p_value.item() - 0.6594) < 1e-4


# What is wrong is flagged


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"scale": 0.5}, "ranks of mean are not uniform .*: the draws are too narrow"),
        ({"scale": 2.0}, "ranks of mean are not uniform .*: the draws are too wide"),
        ({"shift": 1.0}, "ranks of mean are not uniform .*: the draws are too high"),
        ({"shift": -1.0}, "ranks of mean are not uniform .*: the draws are too low"),
        ({"only_prior": True}, "ranks of log p\\(data | θ\\) are not uniform"),
    ],
)
def test_a_wrong_posterior_is_flagged(wrong, said):
    found = calibrate(normal, X, method=exact(**wrong))
    assert found.p_value < 1e-4, found
    import re

    assert any(re.search(said, problem) for problem in found.problems), found.problems
    assert all("\n" not in problem for problem in found.problems)


class Drifting(inference.RandomWalkMetropolis):
    """Proposes with a drift, and corrects by a Hastings ratio that knows of none."""

    def propose(self, here, x):
        return super().propose(here, x + 0.3)


def without_jacobian(self, state):
    return self.log_prob(self.constrain(state))


def test_a_kernel_that_accepts_always_is_flagged():
    kernel = partial(inference.Langevin, step_size=0.6)
    assert calibrate(normal, X, kernel=kernel).p_value < 1e-4
    tested = joint(normal, kernel, X)
    assert tested.p_value < 1e-4 and tested.worst == "spread(mean)"
    assert tested.found[1 + len(X)] != tested.expected[1 + len(X)]
    assert "spread(mean) is 0.1" in tested.problems[0]


def test_a_wrong_hastings_ratio_is_flagged():
    kernel = partial(Drifting, step_size=0.8, adapt_step_size=False, adapt_scale=False)
    found, tested = calibrate(rates, *RATES, kernel=kernel), joint(rates, kernel, *RATES)
    assert found.p_value < 1e-4 and tested.p_value < 1e-4
    assert "are not uniform" in found.problems[0] and "does not leave the posterior" in tested.problems[0]


def test_a_forgotten_jacobian_is_flagged(monkeypatch):
    from inference.density import LogDensity

    monkeypatch.setattr(LogDensity, "__call__", without_jacobian)
    kernel = inference.RandomWalkMetropolis
    few = torch.ones(1), torch.zeros(1)
    assert calibrate(rates, *few, kernel=kernel, thin=8).p_value < 1e-4
    assert joint(rates, kernel, *few).p_value < 1e-4


class Still(inference.Kernel):
    def sample(self, params):
        return dict(params)


def test_a_kernel_that_does_not_move_is_flagged():
    found = calibrate(normal, X, kernel=lambda program, sites: Still(), warmup=0, thin=1)
    assert found.p_value < 1e-4 and found.effective["mean"] == 1
    tested = joint(normal, lambda program, sites: Still(), X, warmup=0)
    assert tested.p_value > 0.01 and "mean did not move in any chain" in tested.problems[0]


def test_correlated_draws_are_told_of():
    found = calibrate(
        normal,
        X,
        kernel=partial(
            inference.RandomWalkMetropolis, step_size=0.3, adapt_step_size=False, adapt_scale=False
        ),
        thin=1,
        num_draws=49,
    )
    assert any("few effective draws of mean" in problem for problem in found.problems)
    assert found.effective["mean"] < 49 / 3


# Ranks


def given(*samples):
    """A method that gives the same draws each time."""
    values = torch.tensor(samples)[None]
    return lambda program, seed: inference.Draws({"mean": values}, {}, {"mean": values[:, -1]}, 0, 1, seed)


def test_a_rank_counts_the_draws_below_the_truth():
    seen = []

    def method(program, seed):
        trace = pyro.poutine.trace(program).get_trace()
        seen.append((trace.nodes["x"]["value"], trace.nodes["x"]["is_observed"], seed, torch.initial_seed()))
        return given(-10.0, 10.0, -1e9, 1e9, 1e9)(program, seed)

    found = calibrate(normal, X, method=method, replications=20)
    assert found.ranks["mean"].tolist() == [2] * 20
    x = torch.stack([each[0] for each in seen])
    assert x.shape == (20, 5) and all(each[1] for each in seen)
    assert 3 < x.var() < 8, "data are drawn: of variance 1 + 4, and not what was given"
    assert len({each[2] for each in seen}) == 20 and all(each[2] == each[3] for each in seen)


def test_ties_are_broken_at_random():
    def coin(x):
        z = pyro.sample("z", dist.Bernoulli(0.5))
        pyro.sample("x", dist.Normal(z, 1e3), obs=x)

    def method(program, seed):
        z = torch.bernoulli(torch.full((1, 9), 0.5))
        return inference.Draws({"z": z}, {}, {"z": z[:, -1]}, 0, 1, seed)

    found = calibrate(coin, torch.zeros(()), method=method, replications=300)
    assert found.p_values["z"] > 0.01 and len(found.ranks["z"].unique()) == 10


def test_every_entry_has_a_rank():
    def program(x):
        with pyro.plate("rows", 2):
            z = pyro.sample("z", dist.Normal(torch.zeros(3), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z.sum(-1), 1.0), obs=x)

    found = calibrate(program, torch.zeros(2), kernel=inference.MALA, replications=40)
    assert found.ranks["z"].shape == (40, 2, 3) and found.p_values["z"].shape == (2, 3)
    assert found.effective["z"].shape == (2, 3)
    assert sorted(name for name, _ in found.entries())[1:] == [
        f"z[{i}, {j}]" for i in (0, 1) for j in (0, 1, 2)
    ]


def test_the_support_of_data_may_depend_on_theta():
    def program(x):
        scale = pyro.sample("scale", dist.Pareto(1.0, 3.0))
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Uniform(0.0, scale), obs=x)

    # Conjugate: of n data, a Pareto of 3 + n about the largest of them and 1.
    def method(program, seed):
        x = pyro.poutine.trace(program).get_trace().nodes["x"]["value"]
        scale = dist.Pareto(x.max().clamp(min=1.0), 3.0 + len(x)).sample((1, 19))
        return inference.Draws({"scale": scale}, {}, {"scale": scale[:, -1]}, 0, 1, seed)

    found = calibrate(program, torch.ones(3), method=method, replications=100)
    assert found.p_values["scale"] > 0.01
    assert joint(program, inference.RandomWalkMetropolis, torch.ones(3)).p_value > 0.01


def test_a_program_that_does_not_broadcast_takes_a_method():
    def program(x):
        mean = pyro.sample("mean", dist.Normal(0.0, 1.0))
        for i in range(len(x)):
            pyro.sample(f"x_{i}", dist.Normal(float(mean), 2.0), obs=x[i])

    def method(program, seed):
        nodes = pyro.poutine.trace(program).get_trace().nodes
        x = torch.stack([nodes[f"x_{i}"]["value"] for i in range(5)])
        draws = x.sum() / 9 + (4 / 9) ** 0.5 * torch.randn(1, 9)
        return inference.Draws({"mean": draws}, {}, {"mean": draws[:, -1]}, 0, 1, seed)

    assert calibrate(program, X, method=method, replications=30).p_value > 0.01
    for test in (
        partial(calibrate, program, X, kernel=inference.MALA),
        partial(joint, program, inference.MALA, X),
    ):
        with pytest.raises(ValueError, match="expected a program that broadcasts"):
            test()


def test_sites_that_are_summed_out_have_no_ranks():
    found = calibrate(mixture, torch.zeros(3), method=lambda program, seed: _of_loc(seed), replications=20)
    assert set(found.ranks) == {"loc"}, "nor has the likelihood, which needs them"


def _of_loc(seed):
    loc = torch.randn(1, 5)
    return inference.Draws({"loc": loc}, {}, {"loc": loc[:, -1]}, 0, 1, seed)


def test_a_model_of_the_zoo_and_its_guide():
    model = zoo.PPCA((3,), 1)
    data = torch.zeros(2, 3)

    def method(program, seed):
        assert not model.training
        x = pyro.poutine.trace(program).get_trace().nodes["x"]["value"]
        return inference.posterior_draws(model.guide, 9, x, seed=seed)

    found = calibrate(model, data, method=method, replications=40)
    assert found.ranks["z"].shape == (40, 2, 1) and found.p_value > 0.01
    found = calibrate(model, data, kernel=inference.MALA, replications=40)
    assert found.ranks["z"].shape == (40, 2, 1) and found.p_value > 0.01
    assert model.training


# How a kernel is run


class Recorder(inference.Kernel):
    """Draws `normal`'s posterior in closed form, and keeps what it is asked."""

    adapted = {"learnt": 3}

    def __init__(self, stop_at=None):
        self.calls, self.stop_at = [], stop_at

    def setup(self, warmup_steps, *args, **kwargs):
        self.calls.append(("setup", warmup_steps, self.apart))

    def prepare(self, state):
        self.calls.append("prepare")
        self.first = state
        return super().prepare(state)

    def adopt(self, adapted):
        self.calls.append(("adopt", adapted))

    def sample(self, params):
        self.calls.append("sample")
        if self.calls.count("sample") == self.stop_at:
            raise KeyboardInterrupt
        x = params["x"]
        return {"mean": x.sum(1) / 9 + (4 / 9) ** 0.5 * torch.randn(len(x)), "x": x}

    def end_warmup(self):
        self.calls.append("end_warmup")

    def cleanup(self):
        self.calls.append("cleanup")


def test_each_chain_adapts_to_the_data_that_it_is_given():
    kernel = Recorder()
    found = calibrate(normal, X, kernel=lambda program, sites: kernel, num_draws=9, warmup=4, thin=2)
    assert found.problems == () and found.ranks["mean"].shape == (200,) and found.num_draws == 9
    expected = [("setup", 4, True), "prepare", *["sample"] * 4, "end_warmup", *["sample"] * 18, "cleanup"]
    assert kernel.calls == expected
    assert kernel.first["x"].shape == (200, 5) and kernel.first["mean"].abs().max() <= 2
    x = kernel.first["x"]
    assert not torch.equal(x[0], x[1]) and 3 < x.var() < 8


def test_ctrl_c_keeps_the_draws_of_a_kernel():
    found = calibrate(normal, X, kernel=lambda program, sites: Recorder(4 + 2 * 5 + 1), warmup=4, thin=2)
    assert found.num_draws == 5 and found.replications == 200
    with pytest.raises(KeyboardInterrupt):
        calibrate(normal, X, kernel=lambda program, sites: Recorder(5), warmup=4, thin=2)


def test_chains_of_the_joint_start_anew_after_warm_up_and_draw_data_in_each_step(monkeypatch):
    from inference.batched_program import BatchedProgram

    drawn, real = [], BatchedProgram.draw

    def draw(self, num, given=None):
        drawn.append(given)
        return real(self, num, given)

    monkeypatch.setattr(BatchedProgram, "draw", draw)
    kernel = Recorder()
    tested = joint(normal, lambda program, sites: kernel, X, warmup=3, steps=4)
    assert tested.problems == ()
    run = [*["sample"] * 4, "cleanup", ("setup", 0, False), "prepare", ("adopt", {"learnt": 3})]
    assert [each for each in kernel.calls if each != "end_warmup"] == [
        ("setup", 3, False),
        "prepare",
        *run,
        *["sample"] * 4,
        "cleanup",
    ]
    given = [each for each in drawn if each is not None]
    assert len(given) == 4 and all(set(each) == {"mean"} for each in given)


# What is left alone


def test_the_same_seed_gives_the_same_bits_and_leaves_everything_as_it_was():
    pyro.param("mine", torch.ones(2))
    before, store = torch.get_rng_state(), pyro.get_param_store().get_state()["params"].keys()
    fast = {"kernel": inference.MALA, "replications": 40, "warmup": 20, "thin": 2}
    first, again, other = (calibrate(normal, X, seed=seed, **fast) for seed in (1, 1, 2))
    assert torch.equal(first.ranks["mean"], again.ranks["mean"]) and str(first) == str(again)
    assert not torch.equal(first.ranks["mean"], other.ranks["mean"])
    first, again, other = (calibrate(normal, X, seed=s, method=exact(), replications=20) for s in (1, 1, 2))
    assert torch.equal(first.ranks["mean"], again.ranks["mean"])
    assert not torch.equal(first.ranks["mean"], other.ranks["mean"])
    first, again, other = (joint(normal, inference.MALA, X, seed=seed, num_chains=100) for seed in (1, 1, 2))
    assert torch.equal(first.z_scores, again.z_scores) and str(first) == str(again)
    assert not torch.equal(first.z_scores, other.z_scores)
    assert torch.equal(torch.get_rng_state(), before)
    assert pyro.get_param_store().get_state()["params"].keys() == store == {"mine"}


def test_what_a_method_fits_does_not_stay():
    def method(program, seed):
        assert "of_the_guide" not in pyro.get_param_store(), "nor until the next replication"
        pyro.param("of_the_guide", torch.tensor(float(seed)))
        assert torch.is_grad_enabled()
        return exact()(program, seed)

    calibrate(normal, X, method=method, replications=20)
    assert len(pyro.get_param_store()) == 0


def test_ctrl_c_keeps_what_was_done():
    calls = []

    def method(program, seed):
        calls.append(seed)
        if len(calls) == 26:
            raise KeyboardInterrupt
        return exact()(program, seed)

    found = calibrate(normal, X, method=method)
    assert found.replications == 25 and found.problems == ("interrupted after 25 of 200 replications",)
    calls = [0] * 25
    with pytest.raises(KeyboardInterrupt):
        calibrate(normal, X, method=method)


# What is shown


def test_tables_and_pictures(tmp_path):
    good = calibrate(normal, X, method=exact(), replications=40)
    assert str(good).splitlines()[0] == "40 replications, ranks among 19 draws, 4 bins"
    assert "nothing wrong was found" in str(good) and "log p(data | θ)" in str(good)
    bad = calibrate(normal, X, method=exact(scale=0.1), replications=40)
    assert str(bad).splitlines()[-1].startswith("! ")
    bad.plot(tmp_path / "ranks.png")
    assert (tmp_path / "ranks.png").read_bytes().startswith(b"\x89PNG")
    figure = bad.draw()
    assert [axes.get_title() for axes in figure.axes] == [name for name, _ in bad.entries() for _ in range(2)]


def test_the_band_holds_the_whole_curve_of_uniform_ranks():
    import numpy as np

    from inference.calibration import _band

    uniform = np.arange(1, 100) / 100
    low, high = _band(200, uniform, seed=0)
    ranks = np.random.default_rng(1).integers(100, size=(2000, 200))
    below = (ranks[:, :, None] < np.arange(1, 100)).mean(1) - uniform
    inside = ((below >= low - 1e-12) & (below <= high + 1e-12)).all(1).mean()
    assert 0.98 < inside <= 1.0 and (high - low).max() < 0.3


def test_worst_entries_come_first_and_the_rest_is_counted():
    def program(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    tested = joint(program, inference.MALA, torch.zeros(12), num_chains=100, steps=2)
    assert "… and 50 figures more, which differ less" in str(tested)
    found = calibrate(program, torch.zeros(12), kernel=inference.MALA, replications=20, warmup=5)
    assert "… and 3 entries more" in str(found) and len(found.draw().axes) == 12
    p_values = [found.p_values["z"][int(name[2:-1])] for name, _ in found.entries() if name[0] == "z"]
    assert p_values == sorted(p_values)


# What is refused


def shapeless(x):
    mean = pyro.sample("mean", dist.Normal(0.0, 1.0))
    pyro.sample("x", dist.Normal(mean, 1.0), obs=x)


def factored(x):
    mean = pyro.sample("mean", dist.Normal(0.0, 1.0))
    pyro.factor("energy", -((mean - x) ** 2).sum())


def improper(x):
    mean = pyro.sample("mean", dist.ImproperUniform(dist.constraints.real, (), ()))
    with pyro.plate("data", len(x)):
        pyro.sample("x", dist.Normal(mean, 1.0), obs=x)


def of_other_shape(program, seed):
    return inference.Draws({"mean": torch.zeros(1, 3, 2)}, {}, {"mean": torch.zeros(1, 2)}, 0, 1, seed)


def changing(program, seed):
    return given(*torch.zeros(1 + seed % 7).tolist())(program, seed)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"method": None}, "expected a method or a kernel, got neither"),
        ({"kernel": inference.MALA}, "expected a method or a kernel, got both"),
        ({"method": 3}, "expected method to be a function of a program, got int"),
        ({"num_draws": 5}, "expected num_draws and warmup of a kernel alone"),
        ({"replications": 0}, "replications must be an integer of at least 1, got 0"),
        ({"replications": 19}, "expected at least 20 replications, got 19"),
        ({"thin": 0}, "thin must be an integer of at least 1, got 0"),
        ({"sites": ["x"]}, "expected sites to be a list of some of mean, got x"),
        ({"sites": "mean"}, "expected sites to be a list of some of mean, got mean"),
        ({"method": lambda program, seed: 3}, "expected method to give Draws, got int"),
        ({"method": of_other_shape}, r"expected draws of mean of shape \(\), got \(2,\)"),
        ({"method": changing}, "expected 1 chains of . draws of mean in each replication, got"),
        ({"method": lambda program, seed: _of_loc(seed)}, "expected draws of mean, got those of loc"),
        ({"thin": 50}, "expected draws in each replication, got none"),
        ({"program": 3}, "a Pyro program and its guide, got int"),
        ({"program": shapeless}, r"x to be drawn in the shape that it is observed in, \(5,\), got \(\)"),
        ({"program": factored}, "a program that draws what it scores, got the factor energy"),
        ({"program": improper}, "expected a program that draws all its sites"),
        (
            {"program": lambda x: pyro.sample("x", dist.Normal(x, 1.0).to_event(1), obs=x)},
            "latent sites, got none",
        ),
    ],
)
def test_what_cannot_be_calibrated_is_refused_in_one_line(change, said):
    settings = {"program": normal, "method": exact(), "replications": 20, **change}
    with pytest.raises(ValueError, match=said) as caught:
        calibrate(settings.pop("program"), X, **{"thin": None, "num_draws": None, "warmup": None, **settings})
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 250


def moving_all(program, sites):
    return inference.RandomWalkMetropolis(program)


class Everywhere(inference.Kernel):
    def sample(self, params):
        return {name: value + 1 for name, value in params.items()}


class Nowhere(Still):
    held = frozenset({"mean"})


@pytest.mark.parametrize(
    ("kernel", "said"),
    [
        (3, "expected kernel to be a function of a program, got int"),
        (inference.MALA(normal), "expected kernel to be a function of a program, got MALA"),
        (lambda program, sites: 3, "expected kernel to give one that moves many chains at once, got int"),
        (moving_all, "expected RandomWalkMetropolis to move mean alone, got no sites"),
        (
            lambda program, sites: Everywhere(),
            "a kernel that leaves the data as they are, got one that moves x",
        ),
        (lambda program, sites: Nowhere(), "expected a kernel that moves mean, got one that holds mean"),
    ],
)
def test_what_is_no_kernel_of_theta_is_refused_in_one_line(kernel, said):
    for test in (
        partial(calibrate, normal, X, kernel=kernel, replications=20),
        partial(joint, normal, kernel, X),
    ):
        with pytest.raises(ValueError, match=said) as caught:
            test(warmup=0)
        assert "\n" not in str(caught.value) and len(str(caught.value)) < 250


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"num_chains": 99}, "expected num_chains to be at least 100, got 99"),
        ({"num_chains": 1.5}, "num_chains must be an integer of at least 1, got 1.5"),
        ({"steps": 1}, "expected steps to be at least 2, got 1"),
        ({"warmup": -1}, "expected warmup to be an integer of at least 0, got -1"),
    ],
)
def test_numbers_out_of_range_are_refused_in_one_line(change, said):
    with pytest.raises(ValueError, match=said):
        joint(normal, inference.MALA, X, **change)
