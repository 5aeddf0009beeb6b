"""`inference.BlockGibbs`: against enumeration, of machines and of conditionals written here."""

import itertools
import math

import pyro
import pyro.distributions as dist
import pytest
import scipy.stats
import torch
from pyro.infer import MCMC

import inference
import zoo
from inference.gibbs import HasBlocks
from zoo.undirected.boltzmann import Block


def random(machine, spread=0.8):
    """The machine with parameters, and means, from all over."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for param in machine.parameters():
            param.copy_(spread * torch.randn(param.shape, generator=generator))
        for layer in range(len(machine.names)):
            mean = getattr(machine, f"mean_{layer}")
            mean.copy_(torch.rand(mean.shape, generator=generator))
    return machine


MACHINES = {
    "rbm": lambda: random(zoo.RBM((2, 2), hidden=3)),
    "dbm with a label": lambda: random(zoo.DBM((2, 2), (2, 2), num_classes=3)),
    "dbm of three hidden layers": lambda: random(zoo.DBM((3,), (2, 3, 2))),
    "centred dbm": lambda: random(zoo.DBM((2, 2), (3, 2), centred=True)),
}
machines = pytest.mark.parametrize("name", MACHINES)


class Truth:
    """Every configuration of a machine, and its probability given what is clamped, by enumeration."""

    def __init__(self, machine, clamped=None):
        self.shapes = {
            name: tuple(value.shape[1:]) for name, value in machine.initial_state(1).items() if name != "y"
        }
        self.sizes = [2] * sum(math.prod(shape) for shape in self.shapes.values())
        self.sizes += [machine.num_classes] if "y" in machine.names else []
        self.cells = torch.tensor(list(itertools.product(*map(range, self.sizes))))
        state, first = {}, 0
        for name, shape in self.shapes.items():
            columns = self.cells[:, first : first + math.prod(shape)]
            state[name] = columns.float().view(-1, *shape)
            first += math.prod(shape)
        if "y" in machine.names:
            state["y"] = self.cells[:, -1]
        same = torch.ones(len(self.cells), dtype=torch.bool)
        for name, given in (clamped or {}).items():
            value, mask = given if isinstance(given, tuple) else (given, torch.tensor(True))
            same &= ((state[name] == value) | ~mask).reshape(len(same), -1).all(-1)
        with torch.no_grad():
            log_prob = -machine.energy(state).double()
        self.state = state
        self.probs = log_prob.masked_fill(~same, -math.inf).softmax(0)

    def digits(self, state):
        """The columns of ``cells`` for a state."""
        columns = [state[name].flatten(1).long() for name in self.shapes]
        columns += [state["y"].unsqueeze(-1)] if "y" in state else []
        return torch.cat(columns, -1)

    def draw(self, num):
        """Independent draws by the table."""
        index = self.probs.multinomial(num, replacement=True)
        return {name: value[index] for name, value in self.state.items()}

    def p_value(self, state):
        """Of the joint, by Pearson's chi-squared; cells that expect fewer than 5 are one."""
        place = torch.tensor([math.prod(self.sizes[i + 1 :]) for i in range(len(self.sizes))])
        cells = (self.digits(state) * place).sum(-1)
        counts = cells.bincount(minlength=len(self.probs)).double()
        assert counts[self.probs == 0].sum() == 0
        expected = len(cells) * self.probs
        many = expected >= 5
        assert many.sum() > 3
        seen = [*counts[many].tolist(), counts[~many].sum().item()]
        hoped = [*expected[many].tolist(), expected[~many].sum().item()]
        if hoped[-1] < 5:
            seen[-2:], hoped[-2:] = [sum(seen[-2:])], [sum(hoped[-2:])]
        return scipy.stats.chisquare(seen, hoped, sum_check=False).pvalue

    def largest_error(self, state):
        """Of the marginals and pair moments of all units, a label as one for each class: in its errors."""

        def moments(digits):
            columns = [digits[:, i] == level for i, size in enumerate(self.sizes) for level in range(1, size)]
            units = torch.stack(columns, -1).double()
            pairs = (units.unsqueeze(-1) * units.unsqueeze(-2)).flatten(1)
            return pairs  # the marginals are its diagonal

        exact, found = self.probs @ moments(self.cells), moments(self.digits(state))
        error = (exact * (1 - exact) / len(found)).sqrt()
        possible = error > 0
        assert torch.allclose(found.mean(0)[~possible], exact[~possible], atol=1e-9)
        return ((found.mean(0) - exact).abs() / error)[possible].max().item()


def run(kernel, num_chains=20_000, warmup=60, **settings):
    """The states of independent chains after so many sweeps."""
    return inference.run_chains(
        kernel, 1, num_chains=num_chains, warmup=warmup, progress=False, **settings
    ).last


# Machines, by enumeration


@machines
def test_chains_reach_the_joint_with_all_its_moments(name):
    machine = MACHINES[name]()
    truth = Truth(machine)
    last = run(inference.BlockGibbs(machine))
    assert truth.largest_error(last) < 4
    assert truth.p_value(last) > 1e-4


@machines
def test_one_sweep_leaves_the_joint_as_it_is(name):
    machine = MACHINES[name]()
    truth = Truth(machine)
    state = truth.draw(50_000)
    assert truth.p_value(inference.BlockGibbs(machine).sample(state)) > 1e-4


X = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
SEEN = torch.tensor([[True, False], [True, True]])
CLAMPS = {
    "v": {"v": X},
    "part of v": {"v": (X, SEEN)},
    "a label": {"y": torch.tensor(2)},
    "a label as a number": {"y": 1},
    "v and a label": {"v": X, "y": 0},
    "part of v and of h_1": {"v": (X, SEEN), "h_1": (torch.ones(2), torch.tensor([False, True]))},
    "h_2": {"h_2": torch.tensor([1.0, 0.0])},
}


@pytest.mark.parametrize("clamps", CLAMPS)
def test_what_is_clamped_stays_and_the_rest_follows_the_posterior(clamps):
    machine, clamped = MACHINES["dbm with a label"](), CLAMPS[clamps]
    truth = Truth(machine, clamped)
    last = run(inference.BlockGibbs(machine, clamped=clamped))
    assert truth.p_value(last) > 1e-4
    assert truth.largest_error(last) < 4


def test_each_chain_may_hold_its_own_values():
    machine = MACHINES["centred dbm"]()
    every = torch.tensor(list(itertools.product([0.0, 1.0], repeat=4))).view(-1, 2, 2)
    x, masks = every.repeat_interleave(2000, 0), (every.flip(0) > 0).repeat_interleave(2000, 0)
    last = run(inference.BlockGibbs(machine, clamped={"v": (x, masks)}), num_chains=len(x))
    assert torch.equal(last["v"][masks], x[masks])
    for item in range(0, 16, 5):
        truth = Truth(machine, {"v": (every[item], masks[item * 2000])})
        own = {name: value[item * 2000 : (item + 1) * 2000] for name, value in last.items()}
        assert truth.p_value(own) > 1e-4


def test_a_block_that_is_all_clamped_is_not_drawn():
    drawn = []

    def block(*names):
        return Block(names, lambda state: drawn.extend(names) or {name: state[name] + 1 for name in names})

    kernel = inference.BlockGibbs([block("a", "b"), block("c")], clamped={"c": 0.5, "a": 1.5})
    state = kernel.prepare({name: torch.zeros(3) for name in "abc"})
    moved = kernel.sample(state)
    assert drawn == ["a", "b"]
    assert [moved[name][0].item() for name in "abc"] == [1.5, 1.0, 0.5]


def test_missing_entries_of_a_clamped_value_are_not_looked_at():
    machine = MACHINES["rbm"]()
    shown, hidden = X, torch.where(SEEN, X, math.nan)
    first, second = (
        run(inference.BlockGibbs(machine, clamped={"v": (x, SEEN)}), num_chains=50, warmup=5)
        for x in (shown, hidden)
    )
    assert torch.equal(first["v"], second["v"]) and torch.equal(first["h_1"], second["h_1"])


def test_energy_is_recorded_of_the_very_draw():
    machine = MACHINES["dbm with a label"]()
    draws = inference.run_chains(inference.BlockGibbs(machine), 6, num_chains=5, progress=False)
    energy = machine.energy({name: value.flatten(0, 1) for name, value in draws.samples.items()})
    assert torch.equal(draws.stats["energy"], energy.detach().view(5, 6))
    assert not draws.stats["energy"].requires_grad
    own = inference.BlockGibbs(machine, energy=lambda state: state["v"].sum((1, 2)))
    draws = inference.run_chains(own, 6, num_chains=5, progress=False)
    assert torch.equal(draws.stats["energy"], draws.samples["v"].sum((2, 3)))


# A user's own conditionals

RHO = 0.8
GAUSSIAN = {
    "x": lambda s: dist.Normal(1.0 + RHO * (s["y"] + 2.0), math.sqrt(1 - RHO**2)),
    "y": lambda s: dist.Normal(-2.0 + RHO * (s["x"] - 1.0), math.sqrt(1 - RHO**2)),
}


def zeros(*names, chains=3):
    return {name: torch.zeros(chains) for name in names}


def test_two_gaussian_conditionals_give_their_joint():
    num = 20_000
    last = run(inference.BlockGibbs(GAUSSIAN), num, initial=zeros("x", "y", chains=num))
    pair = torch.stack([last["x"], last["y"]]).double()
    assert ((pair.mean(1) - torch.tensor([1.0, -2.0])).abs() < 4 / math.sqrt(num)).all()
    exact = torch.tensor([[1.0, RHO], [RHO, 1.0]]).double()
    error = torch.tensor([[2.0, 1 + RHO**2], [1 + RHO**2, 2.0]]).sqrt() / math.sqrt(num)
    assert ((pair.cov() - exact).abs() < 4 * error).all()


MEANS, SCALES = torch.tensor([-2.0, 0.0, 2.5]), torch.tensor([0.8, 1.5, 1.0])
SHARES = torch.tensor([0.2, 0.5, 0.3])


def which(s):
    joint = dist.Normal(MEANS, SCALES).log_prob(s["x"].unsqueeze(-1)) + SHARES.log()
    return dist.Categorical(logits=joint)


MIXTURE = [{"k": which}, {"x": lambda s: dist.Normal(MEANS[s["k"]], SCALES[s["k"]]).sample()}]


def mixture_start(num):
    return {"k": torch.zeros(num, dtype=torch.int64), "x": torch.zeros(num)}


def test_an_integer_and_a_real_site_give_their_mixture():
    num = 20_000
    last = run(inference.BlockGibbs(MIXTURE), num, initial=mixture_start(num))
    assert last["k"].dtype == torch.int64
    counts = last["k"].bincount(minlength=3)
    assert scipy.stats.chisquare(counts, num * SHARES.double()).pvalue > 1e-4
    for k in range(3):
        x = last["x"][last["k"] == k]
        assert scipy.stats.kstest(x, scipy.stats.norm(MEANS[k].item(), SCALES[k].item()).cdf).pvalue > 1e-4


def test_some_chains_may_hold_a_number_and_others_not():
    num = 4000
    held = torch.arange(num) < 1000
    kernel = inference.BlockGibbs(MIXTURE, clamped={"k": (torch.full((num,), 2), held)})
    last = run(kernel, num, initial=mixture_start(num))
    assert (last["k"][held] == 2).all()
    assert scipy.stats.kstest(last["x"][held], scipy.stats.norm(2.5, 1.0).cdf).pvalue > 1e-4
    counts = last["k"][~held].bincount(minlength=3)
    assert scipy.stats.chisquare(counts, 3000 * SHARES.double()).pvalue > 1e-4


def test_sites_of_one_dict_are_drawn_given_the_same_state_and_those_of_several_in_turn():
    swap = {"a": lambda s: s["b"], "b": lambda s: s["a"]}
    state = {"a": torch.zeros(3), "b": torch.ones(3)}
    together = inference.BlockGibbs([swap]).sample(state)
    assert (together["a"][0], together["b"][0]) == (1, 0)
    for in_turn in (swap, [{"a": swap["a"]}, {"b": swap["b"]}]):
        moved = inference.BlockGibbs(in_turn).sample(state)
        assert (moved["a"][0], moved["b"][0]) == (1, 1)
    assert (state["a"] == 0).all(), "what was given stays"


# Under Pyro's MCMC


def test_pyros_mcmc_draws_from_the_joint():
    machine = MACHINES["dbm with a label"]()
    truth = Truth(machine)
    chains = MCMC(
        inference.BlockGibbs(machine),
        num_samples=2,
        warmup_steps=60,
        initial_params=machine.initial_state(20_000),
        disable_progbar=True,
    )
    chains.run()
    samples = chains.get_samples()
    assert samples["v"].shape == (2, 20_000, 2, 2)
    last = {name: value[-1].to(machine.initial_state(1)[name].dtype) for name, value in samples.items()}
    assert truth.p_value(last) > 1e-4


def test_pyros_mcmc_and_run_chains_draw_the_same_bits():
    start = mixture_start(50)
    seen = []
    chains = MCMC(
        inference.BlockGibbs(MIXTURE),
        num_samples=4,
        warmup_steps=3,
        initial_params=start,
        disable_progbar=True,
        hook_fn=lambda kernel, params, stage, i: seen.append(params["k"].dtype),
    )
    torch.manual_seed(7)
    chains.run()
    ours = inference.run_chains(
        inference.BlockGibbs(MIXTURE), 4, warmup=3, initial=start, seed=7, progress=False
    )
    for name, value in chains.get_samples().items():
        assert torch.equal(value.movedim(0, 1), ours.samples[name])
    assert chains.get_samples()["k"].dtype == torch.int64, "though Pyro takes all sites through one tensor"
    assert ours.samples["k"].dtype == torch.int64 and set(seen) == {torch.int64}


def test_sequential_chains_of_pyro_start_where_they_are_told_and_leave_nothing_behind(monkeypatch):
    monkeypatch.setattr("pyro.infer.mcmc.api.mp.cpu_count", lambda: 1)
    cleaned = []

    class Watched(inference.BlockGibbs):
        def cleanup(self):
            cleaned.append(self._initial is not None)
            super().cleanup()

    kernel = Watched(
        {"x": lambda s: s["x"] + 1.0}, clamped={"x": (5.0 + torch.zeros(2), torch.tensor([True, False]))}
    )
    start = {"x": torch.tensor([[0.0, 10.0], [0.0, 20.0], [0.0, 30.0]]).unsqueeze(1)}
    with pytest.warns(UserWarning, match="sequentially"):
        chains = MCMC(kernel, 4, warmup_steps=1, num_chains=3, initial_params=start, disable_progbar=True)
    chains.run()
    samples = chains.get_samples(group_by_chain=True)["x"]
    assert samples.shape == (3, 4, 1, 2)
    assert samples[:, 0, 0, 1].tolist() == [12.0, 22.0, 32.0]
    assert samples[:, 3, 0, 1].tolist() == [15.0, 25.0, 35.0]
    assert (samples[..., 0] == 5).all()
    assert cleaned == [True, False] * 3
    assert set(chains.diagnostics()) == {"x"}
    assert set(chains.diagnostics()["x"]) == {"n_eff", "r_hat"}
    with pytest.raises(ValueError, match="knows no state to start from"):
        kernel.initial_params  # noqa: B018


def test_pyros_mcmc_starts_from_the_model_where_it_is_told_nothing():
    machine = MACHINES["rbm"]()
    chains = MCMC(inference.BlockGibbs(machine), num_samples=3, warmup_steps=0, disable_progbar=True)
    chains.run()
    assert chains.get_samples()["h_1"].shape == (3, 1, 3)
    assert not chains.get_samples()["h_1"].requires_grad
    with pytest.raises(ValueError, match="without arguments, got 1"):
        chains.run(torch.ones(2))


# What is refused


def fails(said, call):
    with pytest.raises(ValueError, match=said) as caught:
        call()
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 250


@pytest.mark.parametrize(
    ("model", "clamped", "said"),
    [
        ([], None, "conditionals by the names of sites, got none"),
        ({}, None, "got none"),
        (3, None, "got int"),
        ("xy", None, "got str"),
        ([3], None, "a block to have sites and draw, got 3"),
        ([{}], None, "a block to have sites and draw"),
        ({"x": 3}, None, "functions of the state for x"),
        (GAUSSIAN, {"z": 1.0}, "clamped sites to be some of x, y, got z"),
        (GAUSSIAN, {"x": (1.0, True)}, "x to be clamped at a value, or at a pair"),
        (GAUSSIAN, {"x": (1.0, torch.ones(3))}, "x to be clamped at a value, or at a pair"),
        (GAUSSIAN, {"x": (1.0,)}, "x to be clamped at a value, or at a pair"),
    ],
)
def test_what_is_no_kernel_is_refused(model, clamped, said):
    fails(said, lambda: inference.BlockGibbs(model, clamped=clamped))


GIVEN = {
    "a value of another shape": ({"v": torch.ones(4)}, r"of v of shape \(2, 2\) or \(7, 2, 2\), got \(4,\)"),
    "values of other chains": ({"v": torch.ones(5, 2, 2)}, r"or \(7, 2, 2\), got \(5, 2, 2\)"),
    "a mask of another shape": ({"v": (X, SEEN[0])}, r"clamped mask of v of shape .* got \(2,\)"),
    "another type": ({"v": X.double()}, "clamped value of v in torch.float32, got torch.float64"),
    "a label of another type": ({"y": torch.tensor(1.0)}, "value of y in torch.int64, got torch.float32"),
    "half a pixel": ({"v": X / 2}, r"clamped value of v in Boolean\(\), got 0.5"),
    "a class too many": ({"y": 3}, r"clamped value of y in .*upper_bound=2.*, got 3"),
    "NaN": ({"v": X * math.nan}, "got nan"),
    "NaN where it is observed": ({"v": (X * math.nan, SEEN)}, "got nan"),
}  # fmt: skip


@pytest.mark.parametrize("what", GIVEN)
def test_clamped_values_that_do_not_fit_are_refused(what):
    clamped, said = GIVEN[what]
    kernel = inference.BlockGibbs(MACHINES["dbm with a label"](), clamped=clamped)
    fails(said, lambda: inference.run_chains(kernel, 2, num_chains=7, progress=False))


@pytest.mark.parametrize(
    ("blocks", "initial", "said"),
    [
        (GAUSSIAN, None, "BlockGibbs knows no state to start from"),
        (GAUSSIAN, zeros("x"), "all sites of the block y, got none for y"),
        (GAUSSIAN, {}, "a dict of tensors by the names of sites, got an empty one"),
        (GAUSSIAN, [torch.zeros(3)], "a dict of tensors by the names of sites, got list"),
        (GAUSSIAN, {"x": torch.zeros(3), "y": torch.tensor(1.0)}, r"y to be a tensor .* chains, got \(\)"),
        (GAUSSIAN, {"x": torch.zeros(3), "y": 1.0}, "y to be a tensor .* chains, got float"),
        (GAUSSIAN, zeros("x", "y", chains=0), r"x to be a tensor .* chains, got \(0,\)"),
        (GAUSSIAN, {"x": torch.zeros(3), "y": torch.zeros(4)}, r"as many chains .* got x \(3,\), y \(4,\)"),
        ({"x": lambda s: dist.Normal(0.0, 1.0)}, zeros("x"),
         r"a draw of x as in the state, \(3,\) of torch.float32, got \(\) of torch.float32"),
        ({"x": lambda s: s["x"].double()}, zeros("x"), "got .* of torch.float64"),
        ({"x": lambda s: 1.0}, zeros("x"), "got float"),
        ([Block(("x", "y"), lambda s: {"x": s["x"]})], zeros("x", "y"), "a draw of y .* got NoneType"),
    ],
)  # fmt: skip
def test_states_and_draws_that_do_not_fit_are_refused(blocks, initial, said):
    fails(
        said, lambda: inference.run_chains(inference.BlockGibbs(blocks), 2, initial=initial, progress=False)
    )


def test_entries_that_hang_together_are_not_held_in_part():
    start, mask = {"x": torch.zeros(3, 2)}, torch.tensor([True, False])
    together = {"x": lambda s: dist.MultivariateNormal(0 * s["x"], torch.eye(2))}
    apart = {"x": lambda s: dist.Normal(0 * s["x"], 1.0).to_event(1)}
    for blocks in (together, apart):
        kernel = inference.BlockGibbs(blocks, clamped={"x": (torch.ones(2), mask)})
        if blocks is apart:
            assert (run(kernel, None, 3, initial=start)["x"][:, 0] == 1).all()
        else:
            fails("x to have independent entries", lambda kernel=kernel: run(kernel, None, 3, initial=start))
    whole = inference.BlockGibbs(together, clamped={"x": torch.ones(2)})
    assert (run(whole, None, 3, initial=start)["x"] == 1).all()


def test_bounds_that_move_with_the_chains_do_not_bar_a_clamped_value():
    ordered = {
        "high": lambda s: dist.Uniform(s["low"], 0 * s["low"] + 9.0),
        "low": lambda s: dist.Uniform(0 * s["high"], s["high"]),
    }
    kernel = inference.BlockGibbs(ordered, clamped={"low": 5.0})
    last = run(kernel, None, 3, initial={"high": torch.ones(8), "low": torch.zeros(8)})
    assert (last["high"] >= 5).all() and (last["low"] == 5).all()


def test_validation_is_on_for_the_first_sweep_and_costs_nothing_after():
    with pyro.validation_enabled(True):
        with pytest.raises(ValueError, match="scale"):
            run(inference.BlockGibbs({"x": lambda s: dist.Normal(s["x"], -1.0)}), None, 3, initial=zeros("x"))
        seen = []

        def conditional(s):
            seen.append(torch.distributions.Distribution._validate_args)
            return dist.Normal(s["x"], 1.0)

        run(inference.BlockGibbs({"x": conditional}), None, 3, initial=zeros("x"))
    assert seen == [True, False, False, False]


def test_the_zoos_machines_and_nothing_else_have_blocks():
    assert isinstance(zoo.RBM((4,), hidden=2), HasBlocks)
    assert not isinstance(zoo.FVSBN((4,)), HasBlocks)


@pytest.mark.parametrize("value", [2.7, True, "1", None])
def test_a_clamped_label_is_no_number_that_would_be_rounded(value):
    kernel = inference.BlockGibbs(zoo.RBM((4,), hidden=3, num_classes=4), clamped={"y": value})
    with pytest.raises(ValueError, match="expected the clamped value of y"):
        kernel.prepare(kernel.start(2))


def test_clamped_is_a_dict():
    with pytest.raises(ValueError, match="expected clamped to be a dict by the names of sites, got int"):
        inference.BlockGibbs(zoo.RBM((4,), hidden=3), clamped=5)
