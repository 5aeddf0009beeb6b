"""The annealing path of a machine against the enumerated p_β."""

import pytest
import torch

import inference
from tests.undirected.machines import (
    ALL,
    BINARY,
    built,
    energy_by_formula,
    every_value,
    groups,
    is_distributed_as,
    log_sum,
    tally,
)
from zoo import DBM, RBM
from zoo.undirected import Annealing

BETAS = (0.0, 0.35, 1.0)
X = torch.tensor([[0.3, -1.1], [1.5, 0.2], [-0.4, 0.6]], dtype=torch.float64)


def log_path(machine, start, state, beta):
    """log p*_β of joint values: (1 - β) a·s - β E."""
    base = sum(
        machine.statistic(name, state[name]) @ a.double()
        for name, a in zip(machine.names, start, strict=True)
    )
    return (1 - beta) * base - beta * energy_by_formula(machine, state)


def start_fields(machine):
    return [units.field(getattr(machine, f"mean_{layer}")) for layer, units in enumerate(machine.units)]


@pytest.mark.parametrize("name", BINARY)
def test_ratios_are_those_of_the_enumerated_path(name):
    machine = built(name)
    path = machine.annealing()
    kept = tuple(machine.names[layer] for layer in path.kept)
    every = every_value(machine)
    group = groups(every, kept)
    logs = [log_path(machine, start_fields(machine), every, beta) for beta in BETAS]
    assert torch.allclose(path.log_z_start, logs[0].logsumexp(0))
    assert path.log_z_start.dtype == torch.float64
    place = path.at({name: every[name] for name in kept})
    for before, after in (0, 1), (1, 2), (0, 2), (2, 0):
        expected = log_sum(logs[after], group) - log_sum(logs[before], group)
        ratio = path.log_ratio(place, BETAS[before], BETAS[after])
        assert ratio.dtype == torch.float64 and torch.allclose(ratio, expected)


@pytest.mark.parametrize("name", BINARY)
def test_start_is_exact_and_a_step_leaves_the_path_as_it_is(name):
    machine = built(name)
    path = machine.annealing()
    kept = tuple(machine.names[layer] for layer in path.kept)
    every = every_value(machine)
    values = every_value(machine, kept)
    group = groups(every, kept)
    first = torch.stack([(group == each).nonzero()[0, 0] for each in range(int(group.max()) + 1)])
    for beta in BETAS:
        p = log_sum(log_path(machine, start_fields(machine), every, beta), group)[first].softmax(0)
        order = {name: every[name][first] for name in kept}
        if beta == 0:
            place = path.start(50_000)
        else:
            index = torch.multinomial(p, 50_000, replacement=True)
            place = path.at({name: value[index] for name, value in order.items()})
        moved = path.step(place, beta)
        for now in (place, moved):
            drawn = {
                machine.names[layer]: machine.units[layer].value(value)
                for layer, value in zip(path.kept, now.values, strict=True)
            }
            assert is_distributed_as(tally(drawn, order), p)
        assert not torch.equal(torch.cat(place.values, -1), torch.cat(moved.values, -1))
    assert len(values[kept[0]]) == len(first)


def test_step_goes_everywhere():
    """From one h the next follows Σ_v p_β(v | h) p_β(h' | v)."""
    machine, beta = built("rbm"), 0.6
    path = machine.annealing()
    assert path.kept == [1]
    every = every_value(machine)
    log_p = log_path(machine, start_fields(machine), every, beta)
    v_given_h = (log_p - log_sum(log_p, groups(every, ("h_1",)))).exp().view(16, 8)
    h_given_v = (log_p - log_sum(log_p, groups(every, ("v",)))).exp().view(16, 8)
    h = every_value(machine, ("h_1",))["h_1"]
    moved = path.step(path.at({"h_1": h[5].expand(50_000, 3)}), beta)
    assert is_distributed_as(tally({"h_1": moved.values[0]}, {"h_1": h}), v_given_h[:, 5] @ h_given_v)


@pytest.mark.parametrize("name", ALL)
def test_complete_draws_all_layers(name):
    machine = built(name, scale=0.5)
    path = machine.annealing()
    exact = machine.exact_sample(50_000, seed=0)
    state = path.complete(path.at(exact))
    moments = machine.exact_moments().means
    for layer, each in enumerate(machine.names):
        assert state[each].shape == exact[each].shape and state[each].dtype == exact[each].dtype
        s = machine.statistic(each, state[each])
        assert ((s.mean(0) - moments[each]).abs() < 5 * s.std(0) / 50_000**0.5).all()
        same = torch.equal(state[each], exact[each]) or torch.allclose(
            s, machine.statistic(each, exact[each])
        )
        assert same == (layer in path.kept)


@pytest.mark.parametrize("name", ALL)
def test_path_to_the_posterior_ends_at_the_evidence(name):
    """p*_1 summed over the layers that are kept is p*(v), for each item its own."""
    machine = built(name)
    x = X if hasattr(machine.units[0], "log_scale") else every_value(machine, ("v",))["v"][:3]
    labels = [None] if machine.num_classes is None else [None, torch.tensor([1, 0, 1])]
    for y in labels:
        path = machine.annealing(x=x, y=y)
        assert path.log_z_start.shape == (3,)
        kept = tuple(machine.names[layer] for layer in path.kept)
        values = every_value(machine, kept)
        count = len(values[kept[0]])
        place = path.at(
            {each: value.unsqueeze(1).expand(count, 3, *value.shape[1:]) for each, value in values.items()}
        )
        start = sum(
            (value * path.start_fields[layer]).sum(-1)
            for layer, value in zip(path.kept, place.values, strict=True)
        )
        out = sum(machine.units[layer].log_normalizer(path.start_fields[layer]) for layer in path.out)
        log_p = start + out + path.log_ratio(place, 0.0, 1.0)
        assert torch.allclose(start.logsumexp(0) + out, path.log_z_start)
        evidence = machine.log_marginal(x, y) + machine.log_partition()
        assert torch.allclose(log_p.logsumexp(0), evidence)
        state = path.complete(path.step(path.start(7), 0.5))
        assert torch.equal(state["v"], x.expand(7, *x.shape)) or torch.allclose(
            state["v"], x.expand(7, *x.shape)
        )
        assert state["h_1"].shape[:2] == (7, 3)
        if y is not None:
            assert torch.equal(state["y"], y.expand(7, 3))


def test_path_with_labels_held_ends_at_the_sum_over_all_else():
    machine = built("labelled dbm")
    path = machine.annealing(y=torch.tensor([0, 2]))
    every = every_value(machine)
    expected = [(-machine.energy(every))[every["y"] == label].logsumexp(0) for label in (0, 2)]
    kept = tuple(machine.names[layer] for layer in path.kept)
    values = every_value(machine, kept)
    count = len(values[kept[0]])
    place = path.at({each: value.unsqueeze(1).expand(count, 2, -1) for each, value in values.items()})
    start = sum(
        (value * path.start_fields[layer]).sum(-1)
        for layer, value in zip(path.kept, place.values, strict=True)
    )
    out = sum(machine.units[layer].log_normalizer(path.start_fields[layer]) for layer in path.out)
    log_p = start + out + path.log_ratio(place, 0.0, 1.0)
    assert torch.allclose(log_p.logsumexp(0), torch.stack(expected))


def test_neighbours_that_are_both_held_act_on_each_other():
    machine = built("dbm")
    v, h = every_value(machine, ("v",))["v"][9:10], torch.tensor([[1.0, 0.0, 1.0]], dtype=torch.float64)
    path = Annealing(machine, start_fields(machine), {0: v.flatten(1), 1: h})
    place = path.at({"h_2": every_value(machine, ("h_2",))["h_2"].unsqueeze(1)})
    base = place.values[0] @ path.start_fields[2]
    log_p = base + path.log_ratio(place, 0.0, 1.0)
    assert torch.allclose(log_p.logsumexp(0), -machine.free_energy({"v": v, "h_1": h}))


def test_side_with_fewer_units_is_kept():
    assert RBM((8,), 3).annealing().kept == [1]
    assert RBM((3,), 8).annealing().kept == [0]
    assert DBM((8,), (3, 8)).annealing().kept == [1]
    assert DBM((4,), (9, 3), num_classes=2).annealing().kept == [0, 2]
    assert DBM((8,), (3, 2)).annealing(x=torch.ones(2, 8)).kept == [2]
    assert RBM((8,), 3).annealing(x=torch.ones(2, 8)).kept == [1]


def test_base_sets_the_start_of_the_visible_units():
    machine = RBM((2,), 1)
    base = torch.tensor([[1.0, 0.0], [0.0, 0.0]])
    path = machine.annealing(base=base)
    assert torch.allclose(path.start_fields[0], torch.tensor([0.0, -6.9068]), atol=1e-3)
    assert torch.allclose(path.start_fields[1], machine.annealing().start_fields[1])
    machine.start(base)
    assert torch.allclose(machine.annealing().start_fields[0], machine.mean_0.logit())


def test_posterior_of_an_rbm_is_where_its_path_starts():
    machine = built("rbm")
    path = machine.annealing(x=every_value(machine, ("v",))["v"])
    place = path.start(4)
    ratio = path.log_ratio(place, 0.0, 1.0)
    assert torch.allclose(ratio, ratio[0].expand_as(ratio))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: {}, "expected values of h_1, as the last state of chains has them, got none"),
        (lambda state: {"v": state["v"]}, "of chains has them, got v"),
        (lambda state: None, "got NoneType"),
        (lambda state: state | {"h_1": 7 * state["h_1"]}, "h_1 to be values that its units have"),
        (lambda state: state | {"v": state["v"][:, :3]}, r"v of shape \(chains, 4\), got \(6, 3\)"),
        (lambda state: state | {"h_2": state["h_2"].double()}, "h_2 in torch.float32, got torch.float64"),
        (lambda state: state | {"v": state["v"][:5]}, r"many chains of every layer, got \[\(5,\), \(6,\)\]"),
    ],
)
def test_a_place_is_made_of_a_whole_state_alone(change, message):
    machine = DBM((4,), (3, 2))
    state = machine.initial_state(6) | {"h_1": torch.ones(6, 3)}
    inference.reverse_ais(machine, state, betas=2)
    with pytest.raises(ValueError, match=message):
        inference.reverse_ais(machine, change(state), betas=2)
