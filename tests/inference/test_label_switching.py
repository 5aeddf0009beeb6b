"""`relabel`: draws that were shuffled come back in one order, and what has no order stays."""

import pytest
import torch

import inference

K = 3
LOC = torch.tensor([[-3.0, 0.0], [0.0, 2.0], [3.0, -1.0]])


def ordered(num_chains=2, num_draws=100, seed=0):
    """Draws about three components, by their sites, in one order."""
    generator = torch.Generator().manual_seed(seed)

    def noise(*shape):
        return torch.randn(num_chains, num_draws, *shape, generator=generator)

    return {
        "weights": (torch.tensor([0.2, 0.3, 0.5]) + 0.01 * noise(K)).double(),
        "loc": LOC + 0.1 * noise(K, 2),
        "tril": torch.eye(2) * torch.tensor([1.0, 2.0, 3.0])[:, None, None] + 0.1 * noise(K, 2, 2),
        "alpha": noise(),
    }


SITES = ("weights", "loc", "tril")


def shuffled(samples, permutations):
    """By ``(chain, draw, K)`` permutations."""
    moved = {
        name: torch.stack(
            [
                torch.stack([value[order] for value, order in zip(chain, orders, strict=True)])
                for chain, orders in zip(samples[name], permutations, strict=True)
            ]
        )
        for name in SITES
    }
    return as_draws({**samples, **moved})


def as_draws(samples, energy=None):
    chains, draws = next(iter(samples.values())).shape[:2]
    stats = {
        "energy": torch.arange(chains * draws).reshape(chains, draws).double() if energy is None else energy
    }
    last = {name: value[:, -1:].sum(1) for name, value in samples.items()}
    return inference.Draws(samples, stats, last, warmup=7, thin=2, seed=5, interrupted=True)


def random_orders(num_chains=2, num_draws=100, num_components=K):
    orders = [torch.randperm(num_components) for _ in range(num_chains * num_draws)]
    return torch.stack(orders).reshape(num_chains, num_draws, num_components)


def test_shuffled_components_come_back_in_the_order_of_the_densest_draw():
    samples, orders = ordered(), random_orders()
    energy = torch.zeros(2, 100)
    energy[1, 37] = -1.0
    given = shuffled(samples, orders)
    given.stats["energy"][:] = energy
    found = inference.relabel(given, SITES)
    for name in SITES:
        assert torch.equal(found.samples[name], samples[name][:, :, orders[1, 37]]), "to the bit"
        assert found.samples[name].dtype == samples[name].dtype


def test_what_has_no_order_stays():
    given = shuffled(ordered(), random_orders())
    before = {name: value.clone() for name, value in given.samples.items()}
    found = inference.relabel(given, SITES)
    assert torch.equal(found.samples["alpha"], before["alpha"]) and list(found.samples) == list(before)
    assert torch.equal(found.stats["energy"], given.stats["energy"])
    assert all(torch.equal(found.last[name], given.last[name]) for name in given.last)
    assert (found.warmup, found.thin, found.seed, found.interrupted) == (7, 2, 5, True)
    assert all(torch.equal(given.samples[name], before[name]) for name in before), "what was given, too"


def test_sites_move_together_and_the_others_not_at_all():
    samples, orders = ordered(), random_orders()
    given = shuffled(samples, orders)
    found = inference.relabel(given, ["loc"])
    assert torch.equal(found.samples["loc"], samples["loc"][:, :, orders[0, 0]])
    assert torch.equal(found.samples["weights"], given.samples["weights"])


def test_r_hat_means_something_only_afterwards():
    samples = ordered(num_draws=200)
    orders = torch.arange(K).repeat(2, 200, 1)
    orders[1] = torch.tensor([2, 0, 1])  # each chain in a mode of its own
    given = shuffled(samples, orders)

    def r_hats(draws):
        rows = inference.diagnose(draws, sites=["loc"], worst=6).rows
        return [row.r_hat for row in rows if row.name.startswith("loc[")]

    assert len(r_hats(given)) == 6 and min(r_hats(given)) > 1.5
    assert max(r_hats(inference.relabel(given, SITES))) < 1.03


def test_a_reference_of_ones_own_names_the_components():
    samples, orders = ordered(), random_orders()
    given = shuffled(samples, orders)
    wanted = torch.tensor([1, 2, 0])
    found = inference.relabel(given, ["loc"], reference={"loc": LOC[wanted] + 0.3})
    assert torch.equal(found.samples["loc"], samples["loc"][:, :, wanted])


def test_neither_the_unit_of_a_site_nor_how_many_entries_it_has_gives_it_weight():
    orders = random_orders(2, 100)
    a, b = (torch.tensor([-1.0, 0.0, 1.0]) + noise * torch.randn(2, 100, K) for noise in (0.3, 0.7))
    a, b = a.gather(-1, orders), b.gather(-1, orders)
    found = inference.relabel(as_draws({"a": a, "b": b}), ["a", "b"]).samples["a"]
    assert not torch.equal(found, inference.relabel(as_draws({"a": a}), ["a"]).samples["a"])
    for other in (1000 * b, 1e-3 * b, b.unsqueeze(-1).expand(2, 100, K, 40)):
        assert torch.equal(inference.relabel(as_draws({"a": a, "b": other}), ["a", "b"]).samples["a"], found)


def test_rounds_mend_what_a_bad_pivot_spoils():
    """The components of the pivot differ as much in what is noise; the mean of the draws does not."""
    a = torch.tensor([-1.0, 1.0]) + 0.05 * torch.randn(1, 300, 2)
    b = torch.randn(1, 300, 2)
    a[0, 0], b[0, 0] = torch.tensor([-0.5, 0.5]), torch.tensor([-0.5, 0.5])
    orders = random_orders(1, 300, 2)
    orders[0, 0] = torch.arange(2)
    draws = as_draws({"a": a.gather(-1, orders), "b": b.gather(-1, orders)})
    assert torch.equal(inference.relabel(draws, ["a", "b"]).samples["a"], a)


def test_one_component_one_draw_and_none():
    one = as_draws({"a": torch.randn(2, 5, 1)})
    assert torch.equal(inference.relabel(one, ["a"]).samples["a"], one.samples["a"])
    single = as_draws({"a": torch.randn(1, 1, 4, 2), "same": torch.ones(1, 1, 4)})
    assert torch.equal(inference.relabel(single, ["a", "same"]).samples["a"], single.samples["a"])
    none = as_draws({"a": torch.randn(2, 0, 3)})
    assert inference.relabel(none, ["a"]).samples["a"].shape == (2, 0, 3)


def test_without_energy_the_first_draw_gives_the_order():
    samples, orders = ordered(), random_orders()
    given = shuffled(samples, orders)
    given.stats.clear()
    found = inference.relabel(given, SITES)
    assert torch.equal(found.samples["loc"], samples["loc"][:, :, orders[0, 0]])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            {"sites": ["loc", "scale"]},
            "sites to be a list of some of weights, loc, tril, alpha, got loc, scale",
        ),
        ({"sites": "loc"}, "sites to be a list of some of .*, got loc"),
        ({"sites": []}, "sites to be a list of some of .*, got none"),
        ({"sites": ["loc", "alpha"]}, "as many components each, at least 1, got 3 of loc, 0 of alpha"),
        ({"sites": ["loc", "more"]}, "as many components each, at least 1, got 3 of loc, 4 of more"),
        ({"reference": {"weights": torch.ones(3)}}, r"a reference for loc of shape \(3, 2\), got none"),
        ({"reference": {"loc": torch.ones(2)}}, r"a reference for loc of shape \(3, 2\), got \(2,\)"),
    ],
)
def test_what_cannot_be_relabelled_is_refused_in_one_line(change, said):
    samples = ordered()
    if "more" in change.get("sites", []):
        samples["more"] = torch.zeros(2, 100, 4)
    with pytest.raises(ValueError, match=said) as caught:
        inference.relabel(as_draws(samples), **{"sites": ["loc"], **change})
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 250


def test_draws_that_are_no_numbers_are_refused():
    loc = torch.tensor([[[0.0, 1.0], [float("nan"), 1.0]]])
    draws = inference.Draws({"loc": loc}, {}, {"loc": loc[:, -1]}, 0, 1, 0)
    with pytest.raises(ValueError, match="expected finite draws, got 1 of loc that are not"):
        inference.relabel(draws, ["loc"])
