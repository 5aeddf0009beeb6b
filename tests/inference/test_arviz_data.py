"""`inference.to_arviz`: groups by closed forms, names from plates, files that read back the same."""

import math
import warnings

import arviz
import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import Predictive

import inference
import zoo
from inference.batched_program import BatchedProgram

X = torch.tensor([[0.5, 1.5, -1.0], [0.2, 0.0, 2.5]])
FLAGS = torch.tensor([True, False, True, True])


def model(x, flags):
    """Two observed sites, plates that cross, one that two sites share, an event, a factor."""
    mean = pyro.sample("mean", dist.Normal(1.0, 2.0))
    with pyro.plate("person", 3):
        shift = pyro.sample("shift", dist.Normal(0.0, 0.5))
    share = pyro.sample("share", dist.Dirichlet(torch.ones(2)))
    with pyro.plate("time", 2, dim=-2), pyro.plate("people", 3, dim=-1):
        pyro.sample("x", dist.Normal(mean + shift, 0.7), obs=x)
    with pyro.plate("coin", 4):
        pyro.sample("flags", dist.Bernoulli(share[..., 0]), obs=flags.float())
    pyro.factor("soft", -0.1 * mean**2)
    pyro.deterministic("twice", 2 * mean)


def draws_of(dims=None, stats=None, seed=3, **samples):
    first = next(iter(samples.values()))
    return inference.Draws(
        samples=samples,
        stats=stats or {},
        last={"x": torch.zeros(len(first))},
        warmup=7,
        thin=2,
        seed=seed,
        dims=dims or {},
    )


def posterior(chains=3, length=5):
    """Made up, of `model`'s latent sites."""
    generator = torch.Generator().manual_seed(0)
    share = torch.rand(chains, length, 1, generator=generator)
    return draws_of(
        mean=torch.randn(chains, length, generator=generator),
        shift=torch.randn(chains, length, 3, generator=generator),
        share=torch.cat([share, 1 - share], -1),
    )


def groups(data):
    """The names of its groups, on both lines of ArviZ."""
    return set(data.groups()) if callable(data.groups) else {name.strip("/") for name in data.groups} - {""}


def to_arviz(*args, **settings):
    """Without a word of warning from anywhere."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return inference.to_arviz(*args, **settings)


# Draws and statistics


def test_draws_keep_their_types_and_statistics_go_by_the_names_of_the_schema():
    generator = torch.Generator().manual_seed(0)
    energy, hamiltonian = torch.rand(2, 3, generator=generator), torch.rand(2, 3, generator=generator)
    stats = {
        "energy": energy,
        "hamiltonian": hamiltonian,
        "acceptance": energy / 2,
        "acceptance_2": energy / 3,
        "divergent": energy > 0.5,
        "step_size": energy / 4,
        "level": energy,
    }
    samples = {"a": energy > 0.5, "b": torch.arange(6).reshape(2, 3), "c": energy.double()}
    data = to_arviz(draws_of(stats=stats, **samples))
    for name, value in samples.items():
        assert data["posterior"][name].dtype == value.numpy().dtype
        assert np.array_equal(data["posterior"][name].values, value.numpy())
    expected = {
        "energy": hamiltonian,
        "lp": -energy,
        "acceptance_rate": energy / 2,
        "acceptance_rate_2": energy / 3,
        "diverging": energy > 0.5,
        "step_size": energy / 4,
        "level": energy,
    }
    assert set(data["sample_stats"].data_vars) == set(expected)
    for name, value in expected.items():
        assert np.array_equal(data["sample_stats"][name].values, value.numpy()), name
    assert data["sample_stats"]["lp"].attrs == data["sample_stats"]["energy"].attrs == {"units": "nats"}


def test_without_a_hamiltonian_the_energy_is_minus_the_log_density():
    energy = torch.rand(2, 3)
    data = to_arviz(draws_of(stats={"energy": energy}, x=energy))
    assert np.array_equal(data["sample_stats"]["energy"].values, energy.numpy())
    assert np.array_equal(data["sample_stats"]["lp"].values, -energy.numpy())
    assert groups(to_arviz(draws_of(x=energy))) == {"posterior"}


def test_what_a_machine_draws_is_taken_over():
    kernel = inference.BlockGibbs(zoo.DBM((2, 3), (4, 2), num_classes=3))
    draws = inference.run_chains(kernel, 5, num_chains=3, progress=False)
    data = to_arviz(draws, dims={"v": ("row", "column")})
    assert data["posterior"]["v"].dims == ("chain", "draw", "row", "column")
    assert data["posterior"]["h_1"].shape == (3, 5, 4)
    assert {"warmup": 5, "thin": 1, "seed": 0, "interrupted": 0}.items() <= data["posterior"].attrs.items()
    assert len(arviz.summary(data, var_names=["h_1"])) == 4


def test_half_precision_becomes_single_and_no_draws_are_no_error():
    data = to_arviz(draws_of(x=torch.ones(2, 3).bfloat16(), y=torch.ones(2, 3).half()))
    assert data["posterior"]["x"].dtype == data["posterior"]["y"].dtype == np.float32
    empty = to_arviz(posterior(2, 0), model, X, FLAGS, posterior_predictive=True)
    assert empty["posterior"]["shift"].shape == (2, 0, 3)
    assert groups(empty) == {"posterior", "observed_data"}


# What the program tells


def test_log_likelihood_is_that_of_the_formula():
    draws = posterior()
    data = to_arviz(draws, model, X, FLAGS)
    assert groups(data) == {"posterior", "observed_data", "log_likelihood"}
    mean = (draws.samples["mean"].unsqueeze(-1) + draws.samples["shift"]).unsqueeze(-2).double()
    x = -0.5 * ((X - mean) / 0.7) ** 2 - math.log(0.7 * math.sqrt(2 * math.pi))
    share = draws.samples["share"][..., :1].double()
    flags = torch.where(FLAGS, share, 1 - share).log()
    found = data["log_likelihood"]
    assert set(found.data_vars) == {"x", "flags"}
    assert found["x"].dims == ("chain", "draw", "time", "people") and found["x"].shape == (3, 5, 2, 3)
    assert found["flags"].dims == ("chain", "draw", "coin") and found["flags"].attrs["units"] == "nats"
    assert np.allclose(found["x"].values, x.numpy(), atol=1e-5)
    assert np.allclose(found["flags"].values, flags.numpy(), atol=1e-5)
    assert np.array_equal(data["observed_data"]["x"].values, X.numpy())
    assert data["observed_data"]["x"].dims == ("time", "people")
    assert "log_likelihood" not in groups(to_arviz(draws, model, X, FLAGS, log_likelihood=False))


def test_the_model_here_broadcasts():
    assert BatchedProgram(model, (X, FLAGS)).refusal is None


def test_memory_bounds_how_many_draws_are_run_at_once(monkeypatch):
    whole = to_arviz(posterior(), model, X, FLAGS)["log_likelihood"]
    sizes = []
    real = BatchedProgram.scores

    def scores(self, values, num):
        sizes.append(num)
        return real(self, values, num)

    monkeypatch.setattr(BatchedProgram, "scores", scores)
    monkeypatch.setattr("inference.arviz_data._NUMBERS_AT_ONCE", 4 * 18)
    parts = to_arviz(posterior(), model, X, FLAGS)["log_likelihood"]
    assert sizes[-4:] == [4, 4, 4, 3]
    assert np.allclose(parts["x"].values, whole["x"].values, atol=1e-6)


def sequential(x):
    """A program that takes no dimension more on the left: it branches on a value."""
    mean = pyro.sample("mean", dist.Normal(0.0, 1.0))
    for place in range(2):
        scale = 1.0 if mean.item() > 0 else 2.0
        pyro.sample(f"x_{place}", dist.Normal(mean, scale), obs=x[place])


def test_a_program_that_does_not_broadcast_is_run_draw_by_draw():
    assert BatchedProgram(sequential, (X[0],)).refusal is not None
    mean = torch.randn(2, 500, generator=torch.Generator().manual_seed(0))
    data = to_arviz(draws_of(mean=mean), sequential, X[0], posterior_predictive=True, prior=20)
    scale = torch.where(mean > 0, 1.0, 2.0)
    exact = dist.Normal(mean, scale).log_prob(X[0, 1])
    assert np.allclose(data["log_likelihood"]["x_1"].values, exact.numpy(), atol=1e-5)
    noise = (data["posterior_predictive"]["x_0"].values - mean.numpy()) / scale.numpy()
    assert abs(noise.mean()) < 4 / 1000**0.5 and abs(noise.std() - 1) < 4 / 2000**0.5
    assert data["prior"]["mean"].shape == data["prior_predictive"]["x_1"].shape == (1, 20)


def test_one_number_may_be_observed_of_all_items():
    def same(x):
        mean = pyro.sample("mean", dist.Normal(0.0, 1.0))
        with pyro.plate("data", 3):
            pyro.sample("x", dist.Normal(mean, 1.0), obs=x)

    data = to_arviz(draws_of(mean=torch.zeros(1, 4)), same, torch.tensor(2.0), posterior_predictive=True)
    assert np.allclose(data["log_likelihood"]["x"].values, -2 - 0.5 * math.log(2 * math.pi))
    assert data["log_likelihood"]["x"].shape == data["posterior_predictive"]["x"].shape == (1, 4, 3)
    assert data["observed_data"]["x"].values.tolist() == [2.0] * 3


def test_predictions_of_prior_and_posterior_have_the_moments_of_the_model():
    num = 4000
    mean, shift = torch.full((4, num // 4), -2.0), torch.tensor([0.0, 1.0, 3.0])
    draws = draws_of(
        mean=mean, shift=shift.expand(4, num // 4, 3), share=torch.tensor([0.2, 0.8]).expand(4, num // 4, 2)
    )
    data = to_arviz(draws, model, X, FLAGS, prior=num, posterior_predictive=True)
    predicted = data["posterior_predictive"]["x"]
    assert predicted.dims == ("chain", "draw", "time", "people")
    exact = (shift - 2).expand(2, 3).numpy()
    assert np.abs(predicted.values.mean((0, 1)) - exact).max() < 4.5 * 0.7 / num**0.5
    assert np.abs(predicted.values.std((0, 1)) / 0.7 - 1).max() < 4.5 / (2 * num) ** 0.5
    flags = data["posterior_predictive"]["flags"].values
    assert set(np.unique(flags)) == {0.0, 1.0} and abs(flags.mean() - 0.2) < 4.5 * 0.4 / (4 * num) ** 0.5
    prior = data["prior"]
    assert set(prior.data_vars) == {"mean", "shift", "share"} and prior["shift"].dims[2:] == ("person",)
    assert prior["mean"].shape == (1, num)
    assert abs(prior["mean"].values.mean() - 1) < 4.5 * 2 / num**0.5
    assert abs(prior["mean"].values.std() / 2 - 1) < 4.5 / (2 * num) ** 0.5
    # Data follow their own prior draw, not another.
    rest = data["prior_predictive"]["x"].values - prior["mean"].values[..., None, None]
    rest = (rest - prior["shift"].values[..., None, :]) / 0.7
    assert abs(rest.mean()) < 4.5 / (6 * num) ** 0.5 and abs(rest.std() - 1) < 4.5 / (12 * num) ** 0.5


def test_predictions_are_those_of_pyros_own_predictive():
    def other(x):
        rate = pyro.sample("rate", dist.Gamma(2.0, 1.0))
        with pyro.plate("data", 2):
            pyro.sample("x", dist.Poisson(rate), obs=x)

    rate = torch.tensor([[0.5, 3.0]]).repeat(1, 250)
    data = to_arviz(draws_of(rate=rate), other, torch.tensor([1.0, 2.0]), posterior_predictive=True)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        theirs = Predictive(pyro.poutine.uncondition(other), {"rate": rate[0]})(torch.tensor([1.0, 2.0]))["x"]
    found = data["posterior_predictive"]["x"].values[0]
    for part in (slice(0, None, 2), slice(1, None, 2)):
        error = theirs[part].std() * (2 / 500) ** 0.5
        assert abs(found[part].mean() - theirs[part].mean().item()) < 4.5 * error


def test_what_was_summed_out_is_drawn_anew_to_predict():
    def mixture(x):
        loc = pyro.sample("loc", dist.Normal(0.0, 1.0))
        with pyro.plate("data", 2):
            z = pyro.sample("z", dist.Bernoulli(0.25), infer={"enumerate": "parallel"})
            pyro.sample("x", dist.Normal(loc + 10 * z, 0.1), obs=x)

    draws = draws_of(loc=torch.zeros(2, 1000))
    data = to_arviz(draws, mixture, torch.zeros(2), log_likelihood=False, posterior_predictive=True)
    upper = data["posterior_predictive"]["x"].values > 5
    assert abs(upper.mean() - 0.25) < 4.5 * (0.25 * 0.75 / 4000) ** 0.5
    with pytest.raises(ValueError, match="for the log-likelihood of each draw, got none of z"):
        inference.to_arviz(draws, mixture, torch.zeros(2))


def test_parameters_modes_generators_and_pyros_store_stay_as_they_were():
    net = torch.nn.Sequential(torch.nn.Linear(1, 1), torch.nn.Dropout(0.5))

    def regression(x):
        pyro.module("net", net)
        scale = pyro.param("scale", torch.tensor(2.0))
        b = pyro.sample("b", dist.Normal(0.0, 1.0))
        with pyro.plate("data", 3):
            pyro.sample("x", dist.Normal(b + net(torch.ones(3, 1)).squeeze(-1), scale), obs=x)

    pyro.clear_param_store()
    before = torch.get_rng_state(), list(pyro.get_param_store().keys())
    draws = draws_of(b=torch.zeros(2, 3))
    first = to_arviz(draws, regression, X[0], prior=4, posterior_predictive=True, seed=5)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert list(pyro.get_param_store().keys()) == before[1]
    assert all(parameter.requires_grad for parameter in net.parameters()) and net.training
    again = to_arviz(draws, regression, X[0], posterior_predictive=True, seed=5)
    other = to_arviz(draws, regression, X[0], posterior_predictive=True, seed=6)
    name = "posterior_predictive"
    assert first[name].equals(again[name]) and not first[name].equals(other[name])


def test_an_object_with_a_model_and_an_objective_are_programs_too():
    class Coin:
        def model(self, x):
            p = pyro.sample("p", dist.Beta(1.0, 1.0))
            with pyro.plate("data", len(x)):
                pyro.sample("x", dist.Bernoulli(p), obs=x)

        def guide(self, x):
            pyro.sample("p", dist.Beta(2.0, 2.0))

    draws = draws_of(p=torch.full((1, 4), 0.25))
    for program in (Coin(), inference.ELBO(Coin())):
        found = to_arviz(draws, program, torch.ones(3))["log_likelihood"]["x"]
        assert np.allclose(found.values, math.log(0.25)) and found.dims[2:] == ("data",)


def test_arviz_own_loo_takes_it():
    draws = draws_of(mean=0.01 * torch.randn(2, 200, generator=torch.Generator().manual_seed(0)))

    def known(x):
        mean = pyro.sample("mean", dist.Normal(0.0, 1.0))
        with pyro.plate("data", 3):
            pyro.sample("x", dist.Normal(mean, 1.0), obs=x)

    found = arviz.loo(to_arviz(draws, known, X[0]))
    exact = dist.Normal(0.0, 1.0).log_prob(X[0]).sum().item()
    elpd = found["elpd_loo"] if arviz.__version__ < "1" else found.elpd
    assert elpd == pytest.approx(exact, abs=0.01)


# Names


def test_dimensions_are_named_after_plates():
    data = to_arviz(posterior(), model, X, FLAGS, prior=2)
    dims = {name: value.dims[2:] for name, value in data["posterior"].items()}
    assert dims == {"mean": (), "shift": ("person",), "share": ("share_dim_0",)}
    assert data["prior"]["shift"].dims == ("chain", "draw", "person")
    # Known from the run, where there is no program.
    known = to_arviz(draws_of({"shift": ["person"]}, shift=torch.zeros(2, 3, 4)))
    assert known["posterior"]["shift"].dims[2:] == ("person",)
    assert known["posterior"]["person"].values.tolist() == [0, 1, 2, 3]


def test_the_users_names_and_labels_come_first():
    data = to_arviz(
        posterior(),
        model,
        X,
        FLAGS,
        dims={"shift": ["people"], "share": ["side"]},
        coords={"people": ["Ann", "Bo", "Cy"], "side": torch.tensor([10, 20])},
    )
    assert data["posterior"]["shift"].dims[2:] == ("people",)
    for group in ("posterior", "log_likelihood", "observed_data"):
        assert data[group]["people"].values.tolist() == ["Ann", "Bo", "Cy"]
    assert data["posterior"]["side"].values.tolist() == [10, 20]
    assert float(data["posterior"]["shift"].sel(people="Bo")[1, 2]) == posterior().samples["shift"][1, 2, 1]


def test_names_that_are_taken_give_way():
    known = {
        "a": ["plate"],
        "b": ["plate"],
        "c": ["plate", "plate"],
        "d": ["draw"],
        "e": ["a"],
        "f": ["g", "h"],
    }
    shapes = {"a": (2,), "b": (3,), "c": (2, 2), "d": (2,), "e": (2,), "f": (2,)}
    data = to_arviz(draws_of(known, **{name: torch.zeros(1, 4, *shape) for name, shape in shapes.items()}))
    assert {name: value.dims[2:] for name, value in data["posterior"].items()} == {
        "a": ("plate",),
        "b": ("b_dim_0",),  # of another size
        "c": ("plate", "c_dim_1"),  # twice in one
        "d": ("d_dim_0",),  # ArviZ's own
        "e": ("e_dim_0",),  # a site's
        "f": ("f_dim_0",),  # not as many
    }


def test_a_slash_becomes_a_dot():
    data = to_arviz(draws_of({"net/a": ["net/plate"]}, **{"net/a": torch.zeros(1, 4, 2)}))
    assert data["posterior"]["net.a"].dims[2:] == ("net.plate",)
    with pytest.raises(ValueError, match="names that differ when / is read as a dot, got a.b and another"):
        inference.to_arviz(draws_of(**{"a/b": torch.zeros(1, 4), "a.b": torch.zeros(1, 4)}))


# Files


@pytest.mark.parametrize(
    ("seed", "read"),
    [
        (3, 3),
        (-1, -1),
        ((2**62, 1, 5), [2**62, 1, 5]),
        (2**63 + 7, str(2**63 + 7)),
        ((2**64 - 1, -1), [str(2**64 - 1), "-1"]),
    ],
)
def test_a_seed_of_any_size_is_in_the_file(tmp_path, seed, read):
    data = to_arviz(draws_of(seed=seed, x=torch.zeros(2, 4)))
    data.to_netcdf(str(tmp_path / "draws.nc"))
    found = arviz.from_netcdf(tmp_path / "draws.nc")["posterior"].attrs
    assert np.array_equal(found["seed"], read) and (found["warmup"], found["thin"]) == (7, 2)


def test_a_file_reads_back_the_same(tmp_path):
    draws = posterior()
    stats = {"energy": draws.samples["mean"].double(), "divergent": draws.samples["mean"] > 0}
    more = {"flag": draws.samples["mean"] > 0, "count": torch.arange(15).reshape(3, 5)}
    draws = draws_of(stats=stats, **draws.samples, **more)
    data = to_arviz(draws, model, X, FLAGS, prior=3, posterior_predictive=True)
    inference.save_netcdf(data, tmp_path / "draws.nc")
    back = arviz.from_netcdf(tmp_path / "draws.nc")
    names = {"posterior", "sample_stats", "observed_data", "log_likelihood"}
    names |= {"prior", "prior_predictive", "posterior_predictive"}
    assert groups(back) == groups(data) == names
    for group in names:
        assert back[group].equals(data[group])
        for name, value in data[group].items():
            assert back[group][name].dtype == value.dtype
            assert back[group][name].attrs == value.attrs
        attributes = {name: value for name, value in back[group].attrs.items() if name != "sample_dims"}
        assert attributes.items() <= data[group].attrs.items()
    assert [path.name for path in tmp_path.iterdir()] == ["draws.nc"]


def test_a_file_that_cannot_be_written_leaves_the_old_one(tmp_path, monkeypatch):
    path = tmp_path / "draws.nc"
    inference.save_netcdf(to_arviz(draws_of(x=torch.zeros(2, 4))), path)
    before = path.read_bytes()
    data = to_arviz(draws_of(x=torch.ones(2, 4)))

    class Full:
        def to_netcdf(self, path, **settings):
            data.to_netcdf(path, **settings)
            raise OSError("no space left on device")

    with pytest.raises(OSError, match="no space"):
        inference.save_netcdf(Full(), path)
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]
    inference.save_netcdf(data, path)
    assert float(arviz.from_netcdf(path)["posterior"]["x"].sum()) == 8


# What is refused


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"dims": {"z": []}}, "dims of some of mean, shift, share, x, flags, got z"),
        ({"dims": {"x": ["a"]}}, "a name for each of 2 dimensions of x, got 1"),
        ({"dims": {"shift": "a"}}, "a name for each of 1 dimensions of shift, got 'a'"),
        ({"dims": {"x": ["a", "a"]}}, "dims of x to have another name for each dimension, got 'a'"),
        ({"dims": {"shift": ["draw"]}}, "a name that no site has, nor chain or draw, got 'draw'"),
        ({"dims": {"shift": ["mean"]}}, "a name that no site has, nor chain or draw, got 'mean'"),
        ({"dims": {"shift": ["a"], "share": ["a"]}}, "a dimension of 3, as elsewhere, and not 2, got 'a'"),
        ({"coords": {"a": [1]}}, "coords of some of .*person.*, got a"),
        ({"coords": {"person": [1, 2]}}, "expected 3 coords of person, got 2"),
        ({"prior": -1}, "prior to be a number of draws, 0 for none, got -1"),
        ({"prior": True}, "prior to be a number of draws, 0 for none, got True"),
    ],
)
def test_names_and_numbers_that_do_not_fit_are_refused(settings, said):
    with pytest.raises(ValueError, match=said):
        inference.to_arviz(posterior(), model, X, FLAGS, **settings)


@pytest.mark.parametrize(
    ("args", "settings", "said"),
    [
        ((None, X), {}, "expected a program, for arguments to be of use, got none"),
        ((), {"prior": 3}, "expected a program, for prior to be of use, got none"),
        ((), {"posterior_predictive": True}, "for posterior_predictive to be of use, got none"),
        ((3,), {}, "a Pyro program and its guide, got int"),
    ],
)
def test_what_takes_a_program_is_refused_without(args, settings, said):
    with pytest.raises(ValueError, match=said):
        inference.to_arviz(posterior(), *args, **settings)


def test_draws_of_another_program_are_refused():
    ours = posterior().samples
    with pytest.raises(ValueError, match="latent sites, mean, shift, share, got those of w: of another"):
        inference.to_arviz(draws_of(w=torch.zeros(2, 3)), model, X, FLAGS)
    wrong = ours | {"shift": torch.zeros(3, 5, 4)}
    with pytest.raises(ValueError, match=r"draws of shift of shape \(3,\), got \(4,\): of another program"):
        inference.to_arviz(draws_of(**wrong), model, X, FLAGS)
    part = draws_of(mean=ours["mean"], shift=ours["shift"])
    with pytest.raises(ValueError, match="got none of share: keep it among .* or set log_likelihood=False"):
        inference.to_arviz(part, model, X, FLAGS)
    with pytest.raises(ValueError, match="to predict by, got none of share"):
        inference.to_arviz(part, model, X, FLAGS, log_likelihood=False, posterior_predictive=True)


def test_what_cannot_be_drawn_is_refused():
    def improper(x):
        mean = pyro.sample("mean", dist.ImproperUniform(dist.constraints.real, (), ()))
        pyro.sample("x", dist.Normal(mean, 1.0), obs=x)

    def loose(x):
        mean = pyro.sample("mean", dist.Normal(0.0, 1.0))
        pyro.sample("x", dist.Normal(mean.unsqueeze(-1), 1.0), obs=x)

    def nothing():
        pyro.sample("mean", dist.Normal(0.0, 1.0))

    draws = draws_of(mean=torch.zeros(2, 3))
    with pytest.raises(ValueError, match="sites can be drawn, got one that cannot .*: set prior=0"):
        inference.to_arviz(draws, improper, torch.tensor(1.0), prior=3)
    data = to_arviz(draws, improper, torch.tensor(1.0), posterior_predictive=True)
    assert data["posterior_predictive"]["x"].shape == (2, 3)
    assert to_arviz(draws, loose, X[0])["log_likelihood"]["x"].shape == (2, 3, 3)
    with pytest.raises(
        ValueError, match=r"shape it is observed in, \(3,\), got \(1,\): draw it inside a plate"
    ):
        inference.to_arviz(draws, loose, X[0], posterior_predictive=True)
    with pytest.raises(ValueError, match="a program that observes something, to predict, got none"):
        inference.to_arviz(draws, nothing, posterior_predictive=True)


@pytest.mark.parametrize("name", ["chain", "draw"])
def test_a_site_by_the_name_of_a_dimension_is_refused(name):
    x = torch.randn(2, 5)
    draws = inference.Draws({name: x}, {}, {name: x[:, -1]}, warmup=0, thin=1, seed=0)
    with pytest.raises(ValueError, match=f"no site by the name of a dimension of ArviZ's, got {name}"):
        inference.to_arviz(draws)
