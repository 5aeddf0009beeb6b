"""`inference.diagnose`, and what early stopping asks: series whose quality is known."""

import dataclasses
import math
import warnings

import arviz
import pyro
import pyro.distributions as dist
import pytest
import torch

import inference
import zoo
from inference.diagnostics import worst_figures, worst_series


@pytest.fixture(autouse=True)
def asked_for_what_it_can_tell(monkeypatch):
    """ArviZ complains, in a log of its own, of one chain for R-hat, and of fewer than four draws."""
    for real, chains in ((arviz.rhat, 2), (arviz.ess, 1), (arviz.mcse, 1)):

        def checked(values, *args, real=real, chains=chains, **settings):
            assert values.shape[0] >= chains and values.shape[1] >= 4
            return real(values, *args, **settings)

        monkeypatch.setattr(arviz, real.__name__, checked)


def series(chains=4, draws=2000, *shape, phi=0.0, seed=0):
    """Stationary chains x' = φ x + √(1 - φ²) ε."""
    noise = torch.randn(chains, draws, *shape, generator=torch.Generator().manual_seed(seed)).double()
    values = [noise[:, 0]]
    for step in range(1, draws):
        values.append(phi * values[-1] + (1 - phi**2) ** 0.5 * noise[:, step])
    return torch.stack(values, 1)


def draws_of(energy=None, interrupted=False, **samples):
    first = next(iter(samples.values()))
    return inference.Draws(
        samples=samples,
        stats={} if energy is None else {"energy": energy},
        last={"x": torch.zeros(len(first))},
        warmup=7,
        thin=2,
        seed=3,
        interrupted=interrupted,
    )


def row(diagnosis, name):
    return next(row for row in diagnosis.rows if row.name == name)


def diagnose(draws, **settings):
    """Without a word of warning from anywhere."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return inference.diagnose(draws, **settings)


# Figures


def test_independent_draws_are_found_to_be_so_by_arviz_own_figures():
    x = series(4, 2000)
    diagnosis = diagnose(draws_of(series(4, 2000, seed=1), x=x))
    assert diagnosis.problems == diagnosis.notes == ()
    assert [each.name for each in diagnosis.rows] == ["energy", "x"]
    found, array = row(diagnosis, "x"), x.numpy()
    assert found.ess_bulk == float(arviz.ess(array, method="bulk"))
    assert found.ess_tail == float(arviz.ess(array, method="tail", prob=(0.05, 0.95)))
    assert found.r_hat == float(arviz.rhat(array)) < 1.01
    assert found.mcse == float(arviz.mcse(array, method="mean")) == pytest.approx(8000**-0.5, rel=0.1)
    assert (found.mean, found.standard_deviation) == pytest.approx((x.mean().item(), 1.0), abs=0.03)
    assert diagnosis.integrated_time == pytest.approx(1, abs=0.15)
    assert diagnosis.autocorrelation.shape == (101,) and diagnosis.autocorrelation[0] == 1
    assert diagnosis.autocorrelation[1:].abs().max() < 4.5 / 8000**0.5


def test_time_and_correlation_of_a_slow_energy_are_those_of_the_closed_form():
    phi = 0.8
    diagnosis = diagnose(draws_of(series(40, 2000, phi=phi), x=series(40, 2000)))
    assert diagnosis.integrated_time == pytest.approx((1 + phi) / (1 - phi), rel=0.1)
    exact = phi ** torch.arange(11).double()
    assert (diagnosis.autocorrelation[:11] - exact).abs().max() < 0.03
    assert row(diagnosis, "energy").ess_bulk == pytest.approx(80_000 / 9, rel=0.1)
    assert diagnosis.problems == ()


# What is wrong, in words


def said(diagnosis):
    return " | ".join(diagnosis.problems)


def test_chains_that_disagree():
    x = series()
    x[0] += 3
    diagnosis = diagnose(draws_of(series(seed=1), x=x))
    assert row(diagnosis, "x").r_hat > 1.01 >= row(diagnosis, "energy").r_hat
    assert "R-hat of x is " in said(diagnosis) and "energy" not in said(diagnosis)


def test_few_effective_draws_and_short_chains():
    slow = series(4, 300, phi=0.98)
    diagnosis = diagnose(draws_of(slow, x=series(4, 300)))
    assert "few effective draws of energy: " in said(diagnosis)
    assert "short chains: 300 draws are fewer than 10 integrated times of the energy" in said(diagnosis)
    few = diagnose(draws_of(x=series(4, 60)))
    assert "few effective draws of x" in said(few)
    assert diagnose(draws_of(x=series(4, 60)), least_ess=50).problems == ()


def test_one_chain():
    diagnosis = diagnose(draws_of(series(1, 2000), x=series(1, 2000)))
    assert diagnosis.problems[0].startswith("one chain: ") and len(diagnosis.problems) == 1
    assert "run several, num_chains=4 or more" in said(diagnosis)
    assert row(diagnosis, "x").r_hat != row(diagnosis, "x").r_hat
    assert row(diagnosis, "x").ess_bulk > 1500
    assert str(diagnosis).splitlines()[2].split()[-1] == "-"


@pytest.mark.parametrize("length", [0, 1, 3])
def test_too_few_draws(length):
    diagnosis = diagnose(
        draws_of(series()[:, :length], x=series()[:, :length], v=series(4, 2000, 2)[:, :length])
    )
    assert f"expected 4 of each chain or more, got {length}" in said(diagnosis)
    assert "draw more, num_draws=1000, say" in said(diagnosis)
    assert len(diagnosis.problems) == 1
    assert diagnosis.autocorrelation is None and "energy" in str(diagnosis)
    assert [each.name for each in diagnosis.rows] == ["energy", "x", "mean(v)"]


def test_one_draw_of_one_chain_is_told_both():
    one = torch.ones(1, 1)
    diagnosis = diagnose(draws_of(one, x=one, v=torch.ones(1, 1, 3)))
    assert [problem.split(":")[0] for problem in diagnosis.problems[:2]] == ["one chain", "too few draws"]
    assert all(row.r_hat != row.r_hat for row in diagnosis.rows)


def test_statistics_of_a_kernel_and_of_each_in_a_cycle_are_no_series():
    x = series(4, 500)
    stats = {
        "energy": series(4, 500, seed=1),
        "hamiltonian": series(4, 500, seed=2),
        "hamiltonian_2": series(4, 500, seed=3),
        "acceptance": torch.full((4, 500), 0.75),
        "acceptance_2": torch.tensor([0.1, 0.2, 0.3, 0.4]).unsqueeze(1).expand(4, 500),
        "step_size": torch.full((4, 500), 0.5),
        "divergent": torch.zeros(4, 500, dtype=torch.bool),
        "divergent_2": torch.arange(500).expand(4, 500) < 3,
    }
    diagnosis = diagnose(dataclasses.replace(draws_of(x=x), stats=stats))
    assert [row.name for row in diagnosis.rows] == ["energy", "hamiltonian", "hamiltonian_2", "x"]
    assert diagnosis.notes == ("acceptance 0.75", "acceptance 2 0.1 to 0.4 by chain", "step size 0.5")
    assert len(diagnosis.problems) == 1
    assert diagnosis.problems[0].startswith("12 of 2,000 transitions (divergent_2) diverged: ")
    assert "target_accept_prob" in diagnosis.problems[0]


def test_a_cycle_of_kernels_that_adapt_is_judged():
    kernels = [inference.HMC(model_of_two, num_steps=4), inference.MALA(model_of_two)]
    draws = inference.run_chains(inference.Cycle(kernels), 20, num_chains=4, progress=False)
    assert {"acceptance", "acceptance_2", "step_size_2", "divergent_2", "hamiltonian"} <= set(draws.stats)
    names = [row.name for row in diagnose(draws).rows]
    assert names == ["energy", "hamiltonian", "x"]


def model_of_two():
    pyro.sample("x", dist.Normal(0.0, 1.0))


def test_constant_series_and_chains_that_do_not_move():
    still = torch.zeros(4, 100)
    diagnosis = diagnose(draws_of(still + 2.5, x=still + torch.arange(4.0).unsqueeze(1)))
    assert "energy is constant: 2.5 in all draws" in said(diagnosis)
    assert "x is constant within each chain, and the chains differ" in said(diagnosis)
    assert diagnosis.integrated_time != diagnosis.integrated_time and diagnosis.autocorrelation is None


def test_numbers_that_are_not_finite():
    energy = series(4, 100)
    energy[0, 5], energy[1, 3] = float("nan"), float("inf")
    diagnosis = diagnose(draws_of(energy, x=series(4, 100)), least_ess=50)
    assert diagnosis.problems == ("energy is not finite in 2 of 400 draws",)
    v = series(4, 100, 6)
    v[2, 7, 4] = float("nan")
    diagnosis = diagnose(draws_of(v=v), worst=1)
    assert diagnosis.rows[-1].name == "v[4]" and "v[4] is not finite in 1 of 400 draws" in said(diagnosis)


def test_constant_entries_are_noted_and_the_worst_are_found():
    v = (torch.rand(4, 1000, 3, 4, generator=torch.Generator().manual_seed(0)) < 0.5).float()
    v[..., 0, 0] = 0.0
    v[..., 2, 3] = 1.0
    v[:2, :, 1, 2] = 0.0  # half of the chains never show it
    v[:, :, 2, 0] = torch.arange(4.0).unsqueeze(1) > 1  # every chain is stuck
    v[:, :, 0, 1] = torch.tensor([0.0, 1.0]).repeat(500)  # folded at its median, nothing is left of it
    diagnosis = diagnose(draws_of(v=v), worst=2)
    assert [each.name for each in diagnosis.rows] == ["mean(v)", "v[2, 0]", "v[1, 2]"]
    assert diagnosis.notes == ("2 of 12 entries of v are the same in all draws",)
    assert "v[2, 0] is constant within each chain" in said(diagnosis)
    assert "R-hat of v[1, 2] is " in said(diagnosis)
    assert len(diagnose(draws_of(v=v), worst=99).rows) == 1 + 10
    assert diagnose(draws_of(v=v[..., :0])).rows == ()
    assert len(diagnose(draws_of(v=v), worst=0).rows) == 1
    assert diagnose(draws_of(v=v[..., :1, :1])).notes == ("1 of 1 entries of v are the same in all draws",)


def test_memory_bounds_how_many_entries_are_looked_through_at_once(monkeypatch):
    v = series(4, 50, 30)
    whole = diagnose(draws_of(v=v))
    monkeypatch.setattr("inference.diagnostics._BYTES_AT_ONCE", 8 * 4 * 50 * 7)
    assert diagnose(draws_of(v=v)).rows == whole.rows


@pytest.mark.parametrize("dtype", [torch.bool, torch.int64, torch.float32])
def test_sites_of_any_type(dtype):
    x = (torch.rand(4, 1000, generator=torch.Generator().manual_seed(0)) < 0.3).to(dtype)
    diagnosis = diagnose(draws_of(x=x, v=x.unsqueeze(-1).repeat(1, 1, 2)))
    assert row(diagnosis, "x").mean == row(diagnosis, "mean(v)").mean == pytest.approx(0.3, abs=0.03)
    assert diagnosis.problems == ()


def test_it_reads_as_a_table():
    diagnosis = diagnose(draws_of(series(), interrupted=True, x=series() + 3, v=series(4, 2000, 5)))
    lines = str(diagnosis).splitlines()
    assert lines[0] == "4 chains of 2,000 draws"
    assert lines[1].split("  ")[-1].strip() == "R-hat" and len({len(line) for line in lines[1:5]}) == 1
    assert lines[2].startswith("energy ") and lines[3].startswith("x ")
    assert lines[-3].startswith("integrated time of the energy: ")
    assert lines[-2:] == ["nothing wrong was found", "  the run was interrupted"]
    assert "! too few draws" in str(diagnose(draws_of(x=series()[:, :2])))


def test_a_machine_that_mixes_is_found_to_mix():
    kernel = inference.BlockGibbs(zoo.RBM((4, 4), hidden=3))
    draws = inference.run_chains(kernel, 100, num_chains=50, progress=False)
    diagnosis = diagnose(draws)
    assert diagnosis.problems == ()
    names = [each.name for each in diagnosis.rows]
    assert names[:2] == ["energy", "mean(v)"] and len(names) == 1 + 4 + 4
    assert [each.name for each in diagnose(draws, sites=["h_1"], worst=0).rows] == ["energy", "mean(h_1)"]


@pytest.mark.parametrize(
    ("change", "wrong"),
    [
        ({"sites": ["x", "z"]}, "a list of some of x, got z"),
        ({"sites": "x"}, "a list of some of x, got x"),
        ({"worst": -1}, "worst to be at least 0, got -1"),
    ],
)
def test_what_is_not_there_is_refused(change, wrong):
    with pytest.raises(ValueError, match=wrong):
        inference.diagnose(draws_of(x=series(2, 5)), **change)


# What early stopping asks, and pictures


def worst(**samples):
    """Without a word of warning from anywhere."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return worst_figures(samples)


def test_the_worst_figures_are_arviz_own_of_the_worst_entries():
    v = series(4, 300, 6)
    v[..., 2] = series(4, 300, phi=0.9, seed=1)  # slow
    v[0, :, 4] += 1  # apart from the others
    x = series(4, 300, seed=2)
    entries = [*v.unbind(-1), x]
    r_hats = [float(arviz.rhat(each.numpy())) for each in entries]
    sizes = [float(arviz.ess(each.numpy(), method="bulk")) for each in entries]
    assert worst(v=v, x=x) == (max(r_hats), min(sizes))
    assert worst(x=x) == (r_hats[-1], sizes[-1])


def test_constant_entries_tell_nothing():
    v = series(4, 100, 2)
    with_constant = torch.cat([v, torch.ones(4, 100, 3)], -1)
    assert worst(v=with_constant) == worst(v=v)
    assert all(math.isnan(figure) for figure in worst(v=torch.ones(4, 100, 3)))
    assert all(math.isnan(figure) for figure in worst(v=torch.ones(4, 100, 0)))
    assert worst(v=v, w=torch.ones(4, 100)) == worst(v=v)


def test_stuck_chains_and_what_is_not_finite_are_never_enough():
    stuck = torch.arange(4.0).unsqueeze(1).expand(4, 100)
    r_hat, size = worst(x=series(4, 100), y=stuck)
    assert r_hat > 100 and size < 10
    one = series(4, 100)
    one[2] = 0.1
    assert worst(x=one)[0] > 1.2
    for wild in (math.nan, math.inf):
        x = series(4, 100, 5)
        x[0, 3, 4] = wild
        assert worst(x=x) == (math.inf, 0.0)


@pytest.mark.parametrize("length", [0, 1, 2, 3])
def test_few_draws_are_never_enough(length):
    assert worst(x=series(4, 9)[:, :length], v=series(4, 9, 2)[:, :length]) == (math.inf, 0.0)


def test_one_chain_tells_of_sizes_alone():
    x = series(1, 400)
    r_hat, size = worst(x=x)
    assert math.isnan(r_hat) and size == float(arviz.ess(x.numpy(), method="bulk"))


def test_memory_does_not_grow_with_the_square_of_a_chains_length():
    r_hat, size = worst(x=series(2, 100).repeat(1, 1000))
    assert r_hat < 1.1 and size > 100


def test_long_memory_that_r_hat_does_not_show_is_found_among_many_entries():
    v = series(4, 400, 50)
    v[..., 37] += 20 * torch.sin(torch.arange(400) * 2 * torch.pi / 100)  # both halves have the same mean
    r_hats = [float(arviz.rhat(each.numpy())) for each in v.unbind(-1)]
    sizes = [float(arviz.ess(each.numpy(), method="bulk")) for each in v.unbind(-1)]
    assert r_hats[37] < 1.0 and sizes[37] == min(sizes) < 200
    r_hat, size = worst(v=v)
    # Among R-hats that are all chance, the plain ones are in another order than the rank-normalised.
    assert r_hat == pytest.approx(max(r_hats), abs=0.003) and size == sizes[37]
    _, (found, second) = worst_series({"v": v}, 2)
    assert second.name == "v[37]" and torch.equal(found, v[..., 37])


def test_chains_of_another_spread_are_found_among_many_entries():
    v = series(4, 400, 50)
    v[:2, :, 11] *= 0.2
    exact = float(arviz.rhat(v[..., 11].numpy()))
    assert exact > 1.1 and float(arviz.rhat(v[..., 11].numpy(), method="z_scale")) < 1.01
    assert worst(v=v)[0] == exact
    assert row(diagnose(draws_of(v=v), worst=1), "v[11]").r_hat == exact


def test_the_worst_come_in_turn_and_constant_ones_never():
    v = series(4, 400, 4)
    v[..., 1] = 3.0
    v[0, :, 2] += 2
    x = series(4, 400, phi=0.97, seed=5)
    found = worst_series({"v": v, "x": x}, 9)
    assert {row.name for _, row in found} == {"v[0]", "v[2]", "v[3]", "x"} and len(found) == 4
    assert {row.name for _, row in worst_series({"v": v, "x": x}, 2)} == {"v[2]", "x"}
    assert len(worst_series({"v": v, "x": x}, 1)) == 1
    assert worst_series({"v": torch.ones(4, 10)}, 5) == []


def test_heavy_tails_do_not_hide_chains_that_disagree():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(4, 2000, 5, generator=generator).double()
    x[..., 0] = torch.tan(torch.pi * (torch.rand(4, 2000, generator=generator).double() - 0.5))  # Cauchy
    x[2:, :, 0] += 1.5
    largest, least = inference.diagnostics.worst_figures({"x": x})
    assert largest > 1.03 and least < 200
