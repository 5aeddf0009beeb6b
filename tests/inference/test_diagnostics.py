"""`inference.to_arviz` and `inference.diagnose`: series whose quality is known."""

import warnings

import arviz
import pytest
import torch

import inference
import zoo


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


# ArviZ


def test_draws_become_arviz_data_of_their_own_types():
    kernel = inference.BlockGibbs(zoo.DBM((2, 3), (4, 2), num_classes=3))
    draws = inference.run_chains(kernel, 5, num_chains=3, progress=False)
    data = inference.to_arviz(draws, dims={"v": ("row", "column")})
    assert data.posterior["v"].dims == ("chain", "draw", "row", "column")
    assert data.posterior["h_1"].shape == (3, 5, 4)
    for name, value in draws.samples.items():
        assert torch.equal(torch.from_numpy(data.posterior[name].values), value)
    assert data.posterior["y"].dtype == "int64"
    assert torch.equal(torch.from_numpy(data.sample_stats["energy"].values), draws.stats["energy"])
    assert {"warmup": 5, "thin": 1, "seed": 0}.items() <= data.posterior.attrs.items()
    assert len(arviz.summary(data, var_names=["h_1"])) == 4
    flags = inference.to_arviz(draws_of(x=torch.ones(2, 3) > 0))
    assert flags.posterior["x"].dtype == "bool" and "sample_stats" not in flags.groups()


def test_arviz_from_1_on_takes_a_dict_of_groups(monkeypatch):
    taken = []

    def from_dict(data, *, dims=None):
        taken.append((data, dims))
        return {"posterior": torch.nn.Module()}  # stands for a DataTree: something with attributes

    monkeypatch.setattr(torch.nn.Module, "attrs", {}, raising=False)
    monkeypatch.setattr(arviz, "__version__", "1.3.0")
    monkeypatch.setattr(arviz, "from_dict", from_dict)
    inference.to_arviz(draws_of(series(2, 5), x=series(2, 5)))
    ((data, dims),) = taken
    assert data.keys() == {"posterior", "sample_stats"} and dims == {}
    assert data["posterior"]["x"].shape == data["sample_stats"]["energy"].shape == (2, 5)


@pytest.mark.parametrize(
    ("dims", "said"),
    [({"z": []}, "dims of some of x, got z"), ({"x": ["a", "b"]}, "each of 1 dimensions of x, got 2")],
)
def test_names_that_do_not_fit_are_refused(dims, said):
    with pytest.raises(ValueError, match=said):
        inference.to_arviz(draws_of(x=series(2, 5, 3)), dims=dims)


# Figures


def test_independent_draws_are_found_to_be_so_by_arviz_own_figures():
    x = series(4, 2000)
    diagnosis = diagnose(draws_of(series(4, 2000, seed=1), x=x))
    assert diagnosis.problems == diagnosis.notes == ()
    assert [each.name for each in diagnosis.rows] == ["energy", "x"]
    found, array = row(diagnosis, "x"), x.numpy()
    assert found.ess_bulk == float(arviz.ess(array, method="bulk"))
    assert found.ess_tail == float(arviz.ess(array, method="tail"))
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
    assert row(diagnosis, "x").r_hat != row(diagnosis, "x").r_hat
    assert row(diagnosis, "x").ess_bulk > 1500
    assert str(diagnosis).splitlines()[2].split()[-1] == "-"


@pytest.mark.parametrize("length", [0, 1, 3])
def test_too_few_draws(length):
    diagnosis = diagnose(
        draws_of(series()[:, :length], x=series()[:, :length], v=series(4, 2000, 2)[:, :length])
    )
    assert f"expected 4 of each chain or more, got {length}" in said(diagnosis)
    assert len(diagnosis.problems) == 1
    assert diagnosis.autocorrelation is None and "energy" in str(diagnosis)
    assert [each.name for each in diagnosis.rows] == ["energy", "x", "mean(v)"]


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
