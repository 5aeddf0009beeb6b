"""Boltzmann machines against their joint distribution, enumerated or integrated."""

import re
from itertools import combinations

import pyro
import pytest
import torch
from pyro import poutine

from tests.undirected.machines import (
    ALL,
    BINARY,
    REAL,
    built,
    energy_by_formula,
    every_value,
    groups,
    is_distributed_as,
    log_sum,
    tally,
)
from zoo import DBM, RBM
from zoo.undirected import BoltzmannMachine

X = torch.tensor([[0.3, -1.1], [1.5, 0.2], [-0.4, 0.6]], dtype=torch.float64)


def items(machine):
    return X if hasattr(machine.units[0], "log_scale") else every_value(machine, ("v",))["v"]


def anything(machine):
    """Joint values: all of them, or a few real items with all that is hidden."""
    if not hasattr(machine.units[0], "log_scale"):
        return every_value(machine)
    hidden = every_value(machine, machine.names[1:])
    count = len(hidden["h_1"])
    return {"v": X.repeat_interleave(count, 0)} | {
        name: value.repeat(len(X), *[1] * (value.dim() - 1)) for name, value in hidden.items()
    }


# Energy


@pytest.mark.parametrize("name", ALL)
def test_energy_is_the_formula(name):
    machine = built(name)
    state = anything(machine)
    assert torch.allclose(machine.energy(state), energy_by_formula(machine, state))


@pytest.mark.parametrize("name", ALL)
def test_free_energy_sums_out_every_combination_of_layers(name):
    machine = built(name)
    state = anything(machine)
    energy = energy_by_formula(machine, state)
    tried = 0
    for size in range(1, len(machine.names) + 1):
        for present in combinations(machine.names, size):
            places = [machine.names.index(each) for each in present]
            absent = set(range(len(machine.names))) - set(places)
            if any(layer + 1 in absent for layer in absent) or (name in REAL and "v" not in present):
                continue
            tried += 1
            free_energy = machine.free_energy({each: state[each] for each in present})
            assert torch.allclose(-free_energy, log_sum(-energy, groups(state, present))), present
    assert tried >= 2


def test_real_items_are_integrated_out():
    machine = built("gaussian rbm")
    grid = torch.linspace(-40, 40, 801, dtype=torch.float64)
    v = torch.cartesian_prod(grid, grid)
    for h in every_value(machine, ("h_1",))["h_1"]:
        energy = machine.energy({"v": v, "h_1": h.expand(len(v), -1)})
        integral = (-energy).exp().sum() * (grid[1] - grid[0]) ** 2
        assert torch.allclose(machine.free_energy({"h_1": h}), -integral.log())


def test_probabilities_stand_for_labels():
    machine = built("labelled rbm")
    state = every_value(machine, ("v", "y"))
    one_hot = torch.nn.functional.one_hot(state["y"], 3).double()
    assert torch.equal(machine.free_energy(state), machine.free_energy(state | {"y": one_hot}))


@pytest.mark.parametrize("name", ["dbm", "labelled dbm", "labelled gaussian rbm"])
def test_dimensions_to_the_left_are_broadcast(name):
    machine = built(name)
    state = anything(machine)
    v, h = state["v"][[0, 3, -1]], state["h_1"][[0, -1]]
    above = {each: value[[0, -1]] for each, value in state.items() if each not in ("v", "h_1")}
    broadcast = {"v": v.unsqueeze(1), "h_1": h} | above
    energy = machine.energy(broadcast)
    assert energy.shape == (3, 2)
    for i in range(3):
        assert torch.allclose(energy[i], machine.energy({"v": v[i].expand(2, *v[i].shape), "h_1": h} | above))
    conditional = machine.conditional("h_1", broadcast)
    assert conditional.batch_shape == (3, 2)
    alone = machine.conditional("h_1", {"v": v[2]} | {each: value[1] for each, value in above.items()})
    assert torch.allclose(conditional.mean[2, 1], alone.mean)


def test_what_has_no_closed_form_is_refused():
    machine = built("dbm")
    v = items(machine)
    with pytest.raises(ValueError, match="no closed form: expected h_1 or h_2 in the state, got v"):
        machine.free_energy({"v": v})
    with pytest.raises(ValueError, match="expected v or h_1 in the state, got nothing"):
        machine.free_energy({})
    with pytest.raises(ValueError, match="energy is that of all layers, got none for h_1, h_2"):
        machine.energy({"v": v})


@pytest.mark.parametrize("name", ALL)
def test_trace_scores_minus_the_energy(name):
    machine = built(name)
    state = anything(machine)
    count = len(state["v"])
    program = poutine.condition(machine.model, data=state)
    trace = poutine.trace(program).get_trace(num=count)
    energy = energy_by_formula(machine, state)
    assert trace.log_prob_sum().item() == pytest.approx(-energy.sum().item())
    trace.compute_log_prob()
    assert torch.allclose(
        sum(site["log_prob"] for site in trace.nodes.values() if site["type"] == "sample"), -energy
    )


def test_model_observes_items_and_labels():
    machine = built("labelled rbm")
    state = every_value(machine)
    program = poutine.condition(machine.model, data={"h_1": state["h_1"]})
    trace = poutine.trace(program).get_trace(state["v"], state["y"])
    assert trace.log_prob_sum().item() == pytest.approx(-machine.energy(state).sum().item())
    assert trace.nodes["v"]["is_observed"] and trace.nodes["y"]["is_observed"]
    assert machine.model(num=7).shape == (7, 3)


# Conditionals and blocks


@pytest.mark.parametrize("name", ALL)
def test_conditionals_are_those_of_the_joint(name):
    machine = built(name)
    state = anything(machine)
    energy = energy_by_formula(machine, state)
    for each in machine.names if name in BINARY else machine.names[1:]:
        others = tuple(other for other in machine.names if other != each)
        expected = -energy - log_sum(-energy, groups(state, others))
        given = {other: state[other] for other in others}
        assert torch.allclose(machine.conditional(each, given).log_prob(state[each]), expected)


@pytest.mark.parametrize("name", REAL)
def test_conditional_of_real_items_is_the_energy_without_its_normaliser(name):
    machine = built(name)
    state = anything(machine)
    log_prob = machine.conditional("v", state).log_prob(state["v"])
    hidden = {each: value for each, value in state.items() if each != "v"}
    assert torch.allclose(log_prob, machine.free_energy(hidden) - energy_by_formula(machine, state))


@pytest.mark.parametrize("name", BINARY)
def test_blocks_draw_from_the_conditional_and_leave_the_joint_unchanged(name):
    machine = built(name)
    every = every_value(machine)
    energy = energy_by_formula(machine, every)
    num = 50_000
    blocks = machine.blocks()
    assert sorted(site for block in blocks for site in block.sites) == sorted(machine.names)
    for block in blocks:
        one = {each: value[len(value) // 3].expand(num, *value.shape[1:]) for each, value in every.items()}
        drawn = block.draw(one)
        assert tuple(drawn) == block.sites
        kept = tuple(each for each in machine.names if each not in block.sites)
        group = groups(every, kept)
        conditional = (-energy - log_sum(-energy, group)).exp()
        conditional[group != group[len(group) // 3]] = 0.0
        assert is_distributed_as(tally(one | drawn, every), conditional)

        exact = machine.exact_sample(num)
        moved = exact | block.draw(exact)
        assert any(not torch.equal(moved[site], exact[site]) for site in block.sites)
        assert is_distributed_as(tally(moved, every), (-energy).softmax(0))


@pytest.mark.parametrize("name", REAL)
def test_block_of_real_items_draws_from_the_conditional(name):
    machine = built(name)
    state = {each: value[:1].expand(50_000, *value.shape[1:]) for each, value in anything(machine).items()}
    block = next(block for block in machine.blocks() if "v" in block.sites)
    v = block.draw(state)["v"]
    conditional = machine.conditional("v", {each: value[:1] for each, value in state.items()})
    error = conditional.stddev[0] / len(v) ** 0.5
    assert ((v.mean(0) - conditional.mean[0]).abs() < 4 * error).all()
    assert torch.allclose(v.std(0), conditional.stddev[0], rtol=0.02)


def test_chains_start_as_the_units_were_seen():
    machine = built("labelled dbm")
    state = machine.initial_state(50_000)
    assert state["v"].shape == (50_000, 3) and state["y"].shape == (50_000,)
    for layer, name in enumerate(machine.names):
        mean = machine.statistic(name, state[name]).mean(0)
        assert torch.allclose(mean, getattr(machine, f"mean_{layer}"), atol=0.01)


# Offsets


@pytest.mark.parametrize("name", ["centred rbm", "deep dbm", "labelled gaussian rbm"])
def test_uncentred_machine_has_the_same_energies(name):
    machine = built(name)
    state = anything(machine)
    biases, constant = machine.uncentred()
    energy = machine.energy(state)
    machine.centred = False
    with torch.no_grad():
        for b, bias in zip(machine.b, biases, strict=True):
            b.copy_(bias)
    assert torch.allclose(machine.energy(state) - constant, energy)
    assert machine.uncentred()[1] == 0
    assert all(torch.equal(*pair) for pair in zip(machine.uncentred()[0], machine.b, strict=True))


@pytest.mark.parametrize("name", ALL)
def test_running_means_follow_the_data_and_leave_the_distribution(name):
    machine = built(name)
    state, x = anything(machine), items(machine)
    before = (-machine.energy(state)).log_softmax(0)
    biases = [b.detach().clone() for b in machine.b]
    means = [getattr(machine, f"mean_{layer}").clone() for layer in range(len(machine.names))]
    posterior = machine.posterior(x)
    machine.track(posterior, rate=0.3)
    for layer, each in enumerate(machine.names):
        if each in posterior:
            seen = machine.statistic(each, posterior[each]).mean(0)
        elif machine.centred:
            seen = machine.mean_field(x, tolerance=1e-12)[each].mean(0)
        else:
            seen = means[layer]
        moved = getattr(machine, f"mean_{layer}")
        assert torch.allclose(moved, 0.7 * means[layer] + 0.3 * seen, atol=1e-4), each
    assert torch.allclose((-machine.energy(state)).log_softmax(0), before, atol=1e-12)
    same = all(torch.equal(*pair) for pair in zip(biases, machine.b, strict=True))
    assert same == (not machine.centred)
    assert machine.batches_seen == 1


def test_start_gives_the_biases_of_the_items_once():
    machine = RBM((2,), 3)
    x = torch.tensor([[1.0, 1.0], [1.0, 0.0], [1.0, 0.0]])
    machine.start(x)
    share = torch.tensor([3.5 / 4, 1.5 / 4])
    assert torch.allclose(machine.b[0], share.logit()) and torch.allclose(machine.mean_0, share)
    machine.track({"v": x})
    machine.start(1 - x)
    assert torch.allclose(machine.b[0], share.logit())


def test_start_of_real_items_is_their_mean():
    machine = RBM((2,), 3, visible="gaussian")
    with torch.no_grad():
        machine.units[0].log_scale.fill_(0.5)
    machine.start(X.float())
    mean = machine.units[0].value(machine.b[0])
    assert torch.allclose(mean, X.float().mean(0))


# Inference given items


@pytest.mark.parametrize("name", ALL)
def test_mean_field_is_a_fixed_point(name):
    machine = built(name)
    x = items(machine)
    means = machine.mean_field(x, tolerance=1e-13, iterations=2000)
    state = {"v": x} | means
    for each in machine.names[1:]:
        conditional = machine.conditional(each, state)
        mean = conditional.probs if each == "y" else conditional.mean
        assert torch.allclose(means[each], mean, atol=1e-10), each


@pytest.mark.parametrize("name", ALL)
def test_bound_is_below_the_evidence_and_exact_in_an_rbm(name):
    machine = built(name)
    x = items(machine)
    log_z = machine.log_partition()
    labels = [None] if machine.num_classes is None else [None, *range(machine.num_classes)]
    for label in labels:
        y = None if label is None else torch.full((len(x),), label)
        gap = machine.log_marginal(x, y) - (machine.variational_bound(x, y) - log_z)
        assert (gap > -1e-9).all()
        assert gap.max() < 1.0
        assert machine.bound_is_exact == name.endswith("rbm")
        assert (gap.max() < 1e-9) == machine.bound_is_exact


@pytest.mark.parametrize("name", ["labelled rbm", "labelled dbm", "deep dbm", "labelled gaussian rbm"])
def test_missing_labels_are_summed_out(name):
    machine = built(name)
    x = items(machine)[:3]
    y = torch.tensor([1, -1, 0])
    bound, by_label = machine.variational_bound(x, y), machine.bound_by_label(x)
    expected = torch.stack([by_label[0, 1], by_label[1].logsumexp(0), by_label[2, 0]])
    assert torch.allclose(bound, expected)
    assert torch.allclose(machine.variational_bound(x), by_label.logsumexp(1))
    means = machine.mean_field(x, y)["y"]
    assert torch.equal(means[[0, 2]].argmax(1), y[[0, 2]]) and torch.equal(
        means[[0, 2]].amax(1), torch.ones(2).double()
    )
    assert torch.allclose(means[1], machine.mean_field(x[1:2])["y"][0], atol=1e-3)
    assert means[1].max() < 1


@pytest.mark.parametrize("name", ["labelled rbm", "labelled dbm", "deep dbm"])
def test_given_labels_are_in_the_posterior_state(name):
    """So that the free energy of the state is that of items with these labels."""
    machine = built(name)
    x = items(machine)
    y = torch.arange(len(x)) % machine.num_classes
    state = machine.posterior(x, y)
    assert torch.equal(state["y"].argmax(1), y) and torch.equal(state["v"], x)


@pytest.mark.parametrize("name", ["labelled rbm", "labelled gaussian rbm"])
def test_classes_of_an_rbm_are_exact(name):
    machine = built(name)
    x = items(machine)
    joint = torch.stack(
        [machine.log_marginal(x, torch.full((len(x),), label)) for label in range(machine.num_classes)], 1
    )
    assert torch.allclose(machine.classify(x), joint.log_softmax(1))


@pytest.mark.parametrize("name", ["rbm", "labelled dbm"])
def test_guide_is_the_mean_field(name):
    machine = built(name, scale=0.5)
    x = items(machine)
    trace = poutine.trace(machine.guide).get_trace(x)
    means = machine.mean_field(x)
    sites = {each: site["fn"] for each, site in trace.nodes.items() if each in means}
    assert set(sites) == set(means)
    for each, q in sites.items():
        assert torch.allclose(q.probs if each == "y" else q.mean, means[each])
    if machine.num_classes:
        assert "y" not in poutine.trace(machine.guide).get_trace(x, torch.zeros(len(x), dtype=torch.int64))


def test_features_and_reconstruction_are_means():
    machine = built("labelled dbm")
    x = items(machine)
    means = machine.mean_field(x)
    assert torch.equal(machine.features(x), torch.cat([means["h_1"], means["h_2"]], 1))
    assert torch.allclose(machine.reconstruct(x), (means["h_1"] @ machine.W[0].T + machine.b[0]).sigmoid())


# Draws


@pytest.mark.parametrize("name", BINARY)
def test_draws_follow_the_marginal(name):
    machine = built(name)
    x = items(machine)
    drawn = machine.sample(20_000, sweeps=60, seed=0)
    assert drawn.dtype == torch.float64
    assert is_distributed_as(tally({"v": drawn}, {"v": x}), machine.log_marginal(x).exp())


def test_draws_of_real_items_have_the_moments():
    machine = built("gaussian rbm", scale=0.5)
    v = machine.sample(20_000, sweeps=60, seed=0)
    s = machine.statistic("v", v)
    assert torch.allclose(
        s.mean(0), machine.exact_moments().means["v"], atol=4 * s.std().item() / 20_000**0.5
    )


def test_draws_given_labels_follow_theirs():
    machine = built("labelled rbm")
    x = items(machine)
    y = torch.full((len(x),), 2)
    p = machine.log_marginal(x, y).softmax(0)
    assert is_distributed_as(tally({"v": machine.sample(20_000, y=2, sweeps=60, seed=0)}, {"v": x}), p)
    several = machine.sample(20_000, y=torch.arange(20_000) % 2 * 2, sweeps=60, seed=1)
    assert is_distributed_as(tally({"v": several[1::2]}, {"v": x}), p)


def test_seed_reproduces_the_draw_and_leaves_the_generator():
    machine = built("dbm")
    state = torch.get_rng_state()
    first = machine.sample(50, seed=3, sweeps=5)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(first, machine.sample(50, seed=3, sweeps=5))
    assert not torch.equal(first, machine.sample(50, seed=4, sweeps=5))


# What is refused


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"hidden": ()}, r"hidden must be numbers of units of at least 1, got \(\)"),
        ({"hidden": (3, 0)}, r"at least 1, got \(3, 0\)"),
        ({"visible": "poisson"}, "visible must be one of bernoulli, gaussian, got 'poisson'"),
        *(
            (
                {"hidden": hidden},
                f"hidden must be numbers of units of at least 1, got {re.escape(repr(hidden))}$",
            )
            for hidden in ("3", None, 5, 2.5, (2.5,), (3, True), ("3",), ([5],))
        ),
        ({"num_classes": 1}, "num_classes must be at least 2, or None, got 1"),
        ({"num_classes": 2.5}, "num_classes must be an integer of at least 2, or None, got 2.5"),
        ({"num_classes": "3"}, "num_classes must be an integer of at least 2, or None, got '3'"),
        ({"num_classes": True}, "num_classes must be at least 2, or None, got True"),
        ({"event_shape": (0,)}, r"sides of at least 1, got \(0,\)"),
    ],
)
def test_settings_are_checked(settings, message):
    with pytest.raises(ValueError, match=message):
        BoltzmannMachine(**{"event_shape": (4,), "hidden": (3,)} | settings)


@pytest.mark.parametrize("hidden", ["3", None, [5], (5,), 2.5, True, 0])
def test_an_rbm_has_one_number_of_hidden_units(hidden):
    message = f"hidden must be a number of units of at least 1, got {re.escape(repr(hidden))}$"
    with pytest.raises(ValueError, match=message):
        RBM((4,), hidden)


def test_layers_that_are_not_there_are_named():
    machine = DBM((4,), hidden=(3, 2))
    v, h = torch.zeros(5, 4), torch.zeros(5, 2)
    with pytest.raises(ValueError, match="^DBM has the layers v, h_1, h_2, got 'h_9'$"):
        machine.conditional("h_9", {"v": v, "h_2": h})
    with pytest.raises(
        ValueError, match="^the conditional of h_1 expects values of v and h_2, got none for h_2$"
    ):
        machine.conditional("h_1", {"v": v})
    with pytest.raises(ValueError, match="expects values of h_2, got none for h_2"):
        DBM((4,), hidden=(3, 2, 2)).conditional("h_3", {})
    with pytest.raises(ValueError, match="^DBM has the layers v, h_1, h_2, got 'h'$"):
        machine.free_energy({"v": v, "h_2": h, "h": h})


def test_labels_are_checked():
    plain, labelled = DBM((4,), (3, 2)), RBM((4,), 3, num_classes=3)
    x, y = torch.ones(2, 4), torch.tensor([0, -1])
    labelled.check(x, y)
    with pytest.raises(ValueError, match="DBM has no label unit; build it with num_classes"):
        plain.check(x, y)
    with pytest.raises(ValueError, match=r"labels must lie in -1..2, got -1..3"):
        labelled.check(x, torch.tensor([3, -1]))
    with pytest.raises(ValueError, match="has no label unit; build it with num_classes"):
        plain.classify(x)
    with pytest.raises(ValueError, match="has no label unit; build it with num_classes"):
        plain.sample(2, y=1)
    with pytest.raises(ValueError, match=r"labels must lie in 0..2, got 3..3"):
        labelled.sample(2, y=3)
    with pytest.raises(ValueError, match="sweeps must be at least 1, got 0"):
        plain.sample(2, sweeps=0)
    with pytest.raises(ValueError, match="sweeps must be an integer of at least 1, got 2.5"):
        plain.sample(2, sweeps=2.5)
    with pytest.raises(ValueError, match="sweeps must be at least 1, got True"):
        plain.sample(2, sweeps=True)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", ALL)
def test_everything_is_in_the_type_of_the_parameters(name, dtype):
    machine = built(name).to(dtype)
    x = items(machine).to(dtype)
    machine.check(x)
    state = machine.initial_state(len(x))
    state |= machine.blocks()[0].draw(state) | {"v": x}
    values = [
        *machine.mean_field(x).values(),
        machine.energy(state),
        machine.variational_bound(x),
        machine.reconstruct(x),
    ]
    values += [value for each, value in state.items() if each != "y"]
    assert {value.dtype for value in values} == {dtype}


def test_parameters_are_registered_with_pyro():
    pyro.clear_param_store()
    poutine.trace(RBM((4,), 3).model).get_trace(torch.ones(2, 4))
    assert len(pyro.get_param_store()) == 3
