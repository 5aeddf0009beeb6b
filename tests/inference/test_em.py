"""EM on models written here: what it checks, keeps, resumes and refuses."""

import math
import signal

import pytest
import torch
from torch import nn

import inference
import zoo
from zoo.data import BinarizedSplit

NOISE = torch.randn(120, generator=torch.Generator().manual_seed(0)).double()
X = NOISE + 4.0 * (torch.arange(120) // 40)


class Clouds(nn.Module):
    """A mixture of unit normals with equal weights: the least that EM can fit, and no model of the zoo."""

    def __init__(self, num=3):
        super().__init__()
        self.loc = nn.Parameter(torch.linspace(-1, 1, num).double())

    def e_step(self, x):
        joint = torch.distributions.Normal(self.loc, 1.0, validate_args=False).log_prob(
            x[:, None]
        ) - math.log(len(self.loc))
        r = joint.softmax(-1)
        return {"count": r.sum(0), "first": r.T @ x}, joint.logsumexp(-1)

    def m_step(self, statistics):
        with torch.no_grad():
            self.loc.copy_(statistics["first"] / statistics["count"])

    def initialize(self, x, generator):
        with torch.no_grad():
            self.loc.copy_(x[torch.randint(len(x), (len(self.loc),), generator=generator)])


class WithPrior(Clouds):
    """The same with locations that should be near 0."""

    def m_step(self, statistics):
        with torch.no_grad():
            self.loc.copy_(statistics["first"] / (statistics["count"] + 5.0))

    def log_prior(self):
        return -2.5 * self.loc.square().sum()


class Overshooting(Clouds):
    """Its M-step goes three times as far as it should."""

    def m_step(self, statistics):
        before = self.loc.detach().clone()
        super().m_step(statistics)
        with torch.no_grad():
            self.loc += 2.0 * (self.loc - before)


def fit(model, **other):
    settings = {"epochs": 200, "tolerance": 1e-10, "progress": False, **other}
    return inference.fit_em(model, X, **settings)


def losses(result, name="train"):
    return [row[name] for row in result.history]


def log_likelihood(model, x=X):
    return model.e_step(x)[1].mean().item()


def test_likelihood_never_falls_and_converges():
    model = Clouds()
    result = fit(model)
    assert result.converged and not result.interrupted and not result.stopped_early
    assert losses(result) == sorted(losses(result), reverse=True)
    assert losses(result)[-1] == pytest.approx(-log_likelihood(model), abs=1e-9)
    assert [row["epoch"] for row in result.history] == list(range(1, len(result.history) + 1))
    assert model.loc.detach().sort().values.tolist() == pytest.approx([0, 4, 8], abs=0.5)


def test_it_ends_where_the_gradient_is_zero():
    model = Clouds()
    fit(model, tolerance=0.0)
    joint = torch.distributions.Normal(model.loc, 1.0).log_prob(X[:, None])
    assert torch.autograd.grad(joint.logsumexp(-1).mean(), model.loc)[0].abs().max() < 1e-6


def test_with_a_prior_the_posterior_never_falls():
    model = WithPrior()
    result = fit(model, tolerance=0.0)
    joint = torch.distributions.Normal(model.loc, 1.0).log_prob(X[:, None]).logsumexp(-1).sum()
    assert torch.autograd.grad(joint + model.log_prior(), model.loc)[0].abs().max() < 1e-6
    assert result.starts[0] == pytest.approx(-log_likelihood(model) - model.log_prior().item() / len(X))


def test_a_step_that_lowers_the_likelihood_is_an_error():
    with pytest.raises(ArithmeticError, match="of EM lowered the log-likelihood by .* nats per item"):
        fit(Overshooting())


def test_a_prior_that_the_m_step_knows_nothing_of_is_an_error():
    class Strange(Clouds):
        def log_prior(self):
            return -50.0 * self.loc.square().sum()

    with pytest.raises(ArithmeticError, match="lowered the log-likelihood"):
        fit(Strange())


def test_a_likelihood_that_is_no_number_is_an_error():
    class Lost(Clouds):
        def m_step(self, statistics):
            with torch.no_grad():
                self.loc.fill_(math.nan)

    with pytest.raises(ArithmeticError, match="became nan in epoch 1"):
        fit(Lost())


def test_the_best_of_several_starts_is_kept():
    apart = NOISE + 40.0 * (torch.arange(120) // 40)  # two components that start in one cloud stay there
    model = Clouds()
    result = inference.fit_em(model, apart, restarts=8, seed=3, progress=False)
    assert len(result.starts) == 8 and max(result.starts) > min(result.starts) + 1
    assert result.start == result.starts.index(min(result.starts))
    assert -log_likelihood(model, apart) == pytest.approx(min(result.starts), abs=1e-9)
    assert losses(result)[-1] == pytest.approx(min(result.starts), abs=1e-9)


def test_the_epoch_and_the_start_that_validation_favours_are_kept():
    valid = torch.tensor([0.3, 3.0, 8.5, 30.0]).double()
    model = Clouds()
    result = inference.fit_em(
        model, X, valid=valid, epochs=50, tolerance=0.0, restarts=5, seed=1, progress=False
    )
    lowest = min(losses(result, "valid"))
    assert losses(result, "valid").index(lowest) == result.best_epoch - 1
    assert min(result.starts) == lowest
    assert -log_likelihood(model, valid) == pytest.approx(lowest, abs=1e-9)


def test_patience_stops():
    between = torch.tensor([2.0, 1.8, 2.2]).double()  # where the components only pass by
    result = inference.fit_em(
        Clouds(), X, valid=between, epochs=500, tolerance=0.0, patience=2, initialize=False, progress=False
    )
    assert result.stopped_early and len(result.history) == result.best_epoch + 2


def test_without_initialize_it_goes_on_from_the_parameters():
    model, other = Clouds(), Clouds()
    whole = fit(model, epochs=6, initialize=False, tolerance=0.0)
    first = fit(other, epochs=4, initialize=False, tolerance=0.0)
    second = fit(other, epochs=2, initialize=False, tolerance=0.0)
    assert losses(whole) == losses(first) + losses(second)
    assert torch.equal(model.loc, other.loc)


def test_same_seed_same_bits_and_generators_are_left_alone():
    before = torch.get_rng_state()
    one, two, three = Clouds(), Clouds(), Clouds()
    for model, seed in ((one, 5), (two, 5), (three, 6)):
        fit(model, seed=seed, epochs=2)
    assert torch.equal(one.loc, two.loc) and not torch.equal(one.loc, three.loc)
    assert torch.equal(torch.get_rng_state(), before)


def test_few_items_take_one_thread_and_the_threads_come_back(monkeypatch):
    class Watching(Clouds):
        def e_step(self, x):
            self.threads = torch.get_num_threads()
            return super().e_step(x)

    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        few, many = Watching(), Watching()
        fit(few, epochs=1)
        monkeypatch.setattr("inference.em.SMALL", 10)
        fit(many, epochs=1)
        assert (few.threads, many.threads, torch.get_num_threads()) == (1, 2, 2)
    finally:
        torch.set_num_threads(before)


def test_chunks_change_rounding_only():
    one, two = Clouds(), Clouds()
    fit(one, epochs=5), fit(two, epochs=5, chunk=7)
    assert torch.allclose(one.loc, two.loc, atol=1e-12)


class Interrupted(Clouds):
    """Ctrl-C after so many steps."""

    _left = 10**9

    def m_step(self, statistics):
        if self._left == 0:
            signal.raise_signal(signal.SIGINT)
        self._left -= 1
        super().m_step(statistics)


@pytest.mark.parametrize("after", [1, 7, 25, 60])
def test_an_interrupted_run_resumes_to_the_same_bits(after, tmp_path):
    settings = {"restarts": 4, "epochs": 40, "tolerance": 1e-5, "seed": 2}
    whole = Clouds()
    expected = fit(whole, **settings)
    model = Interrupted()
    model._left = after
    saving = {"checkpoint": tmp_path / "em.pt", "checkpoint_seconds": 0.0}
    result = fit(model, **settings, **saving)
    assert result.interrupted == (model._left == 0)
    if result.history:
        assert -log_likelihood(model) == pytest.approx(losses(result)[result.best_epoch - 1], abs=1e-9)
    resumed = Clouds()
    again = fit(resumed, **settings, **saving)
    assert torch.equal(resumed.loc, whole.loc)
    assert again.history == expected.history and again.starts == expected.starts
    assert again.start == expected.start and again.converged == expected.converged
    third = Clouds()
    assert fit(third, **settings, **saving).history == expected.history  # it is over, and stays so
    assert torch.equal(third.loc, whole.loc)


@pytest.mark.parametrize("name", ["epochs", "seed", "restarts", "tolerance"])
def test_a_checkpoint_of_other_settings_is_refused(name, tmp_path):
    saving = {"checkpoint": tmp_path / "em.pt"}
    fit(Clouds(), epochs=3, **saving)
    other = {"epochs": 3, name: {"epochs": 4, "seed": 1, "restarts": 2, "tolerance": 0.5}[name]}
    with pytest.raises(ValueError, match=f"belongs to a training with another {name}"):
        fit(Clouds(), **other, **saving)


def test_a_checkpoint_of_other_data_is_refused(tmp_path):
    saving = {"checkpoint": tmp_path / "em.pt", "epochs": 3, "progress": False}
    inference.fit_em(Clouds(), X, **saving)
    with pytest.raises(ValueError, match="another data"):
        inference.fit_em(Clouds(), X + 1, **saving)


def test_a_checkpoint_of_other_late_items_validation_start_or_model_is_refused(tmp_path):
    valid, late = X[:9] + 0.5, X.clone()
    late[-1] += 1.0
    saving = {"checkpoint": tmp_path / "em.pt", "epochs": 3, "progress": False}
    inference.fit_em(Clouds(), X, valid=valid, **saving)
    with pytest.raises(ValueError, match="another data"):
        inference.fit_em(Clouds(), late, valid=valid, **saving)
    with pytest.raises(ValueError, match="another valid"):
        inference.fit_em(Clouds(), X, valid=valid + 1, **saving)
    strict = {"checkpoint": tmp_path / "strict.pt", "epochs": 3, "progress": False}
    x = torch.randint(2, (20, 4), generator=torch.Generator().manual_seed(0)).double()
    inference.fit_em(zoo.BernoulliMixture((4,), 2, pseudo_count=0.5).double(), x, **strict)
    with pytest.raises(ValueError, match="another model.*50"):
        inference.fit_em(zoo.BernoulliMixture((4,), 2, pseudo_count=50.0).double(), x, **strict)
    start = {"checkpoint": tmp_path / "start.pt", "epochs": 3, "progress": False, "initialize": False}
    inference.fit_em(Clouds(), X, **start)
    moved = Clouds()
    moved.loc.data += 0.1
    with pytest.raises(ValueError, match="another start"):
        inference.fit_em(moved, X, **start)


def test_ctrl_c_saves_the_last_whole_epoch_however_long_ago_the_last_saving_was(tmp_path):
    model = Interrupted()
    model._left = 7
    saving = {"checkpoint": tmp_path / "em.pt", "checkpoint_seconds": 1e9}
    settings = {"restarts": 4, "epochs": 40, "tolerance": 1e-5, "seed": 2}
    assert fit(model, **settings, **saving).interrupted and (tmp_path / "em.pt").exists()
    whole, resumed = Clouds(), Clouds()
    assert fit(resumed, **settings, **saving).history == fit(whole, **settings).history
    assert torch.equal(resumed.loc, whole.loc)


def test_a_damaged_checkpoint_is_refused(tmp_path):
    path = tmp_path / "em.pt"
    path.write_bytes(b"nothing")
    with pytest.raises(ValueError, match="is no checkpoint"):
        fit(Clouds(), checkpoint=path)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"epochs": 0}, "epochs must be an integer of at least 1, got 0"),
        ({"restarts": 0}, "restarts must be an integer of at least 1, got 0"),
        ({"chunk": 1.5}, "chunk must be an integer of at least 1, got 1.5"),
        ({"tolerance": -1.0}, "tolerance must be at least 0, got -1.0"),
        ({"tolerance": math.nan}, "tolerance must be at least 0, got nan"),
        ({"patience": 3}, "patience expects at least 1 and a valid set"),
        ({"restarts": 2, "initialize": False}, "2 restarts expect a model with a method initialize"),
        ({"checkpoint": "no/such/folder/em.pt"}, "checkpoint must lie in a folder that exists"),
    ],
)
def test_wrong_settings_are_refused(wrong, message):
    with pytest.raises(ValueError, match=message) as caught:
        fit(Clouds(), **wrong)
    assert "\n" not in str(caught.value)


def test_a_model_without_the_steps_is_refused_with_what_it_can_do():
    x = torch.randint(2, (4, 8, 8)).float()
    with pytest.raises(ValueError, match="EM expects a module with e_step and m_step, got VAE: train it by"):
        inference.fit_em(zoo.VAE((8, 8)), x, progress=False)


def test_items_are_checked_at_the_door():
    mixture = zoo.GaussianMixture((2,), 2)
    for wrong, message in (
        (torch.zeros(5, 3), "expects items of shape"),
        (torch.full((5, 2), math.nan), "got NaN"),
        (torch.zeros(5, 2).double(), "expects entries of torch.float32"),
    ):
        with pytest.raises(ValueError, match=message):
            inference.fit_em(mixture, wrong, progress=False)
        with pytest.raises(ValueError, match=message):
            inference.fit_em(mixture, torch.randn(5, 2), valid=wrong, progress=False)


def test_a_split_that_binarises_afresh_is_taken_as_it_is_fixed():
    grey = torch.randint(256, (50, 2, 3)).to(torch.uint8)
    split = BinarizedSplit(grey, seed=0, dynamic=True)
    one, two = (zoo.BernoulliMixture((2, 3), 2, pseudo_count=1.0) for _ in range(2))
    for model, items in ((one, split), (two, split.x)):
        inference.fit_em(model, items, epochs=5, progress=False)
    assert torch.equal(one.logits, two.logits)
