"""What the contract promises, for every model of the zoo: the same tests on every case of `cases.py`."""

import copy
import inspect
import math
import pickle

import pyro
import pyro.distributions as dist
import pytest
import safetensors.torch
import torch
from pyro import poutine
from pyro.distributions import constraints
from pyro.infer import SVI, Predictive, Trace_ELBO, TraceEnum_ELBO, config_enumerate
from pyro.infer.mcmc.util import initialize_model
from pyro.poutine.util import site_is_subsample
from scipy.stats import chi2
from torch import Tensor
from torch.utils._pytree import tree_leaves

import inference
from inference.graph import compile_step
from tests.cases import CASES, Batch, Case, cases
from zoo import RNADE, GenerativeModel
from zoo.autoregressive.pixels import Pixels
from zoo.registry import MODELS

# A guide that marks a site for enumeration may be run without, and a TraceEnum_ELBO where nothing is marked.
pytestmark = pytest.mark.filterwarnings("ignore:(?s).*TraceEnum_ELBO.*:UserWarning")

every_case = cases()
drawing = cases(lambda case: case.cls.density != "unnormalized")  # such a program scores and does not draw
scoring = cases(lambda case: case.cls.density in ("exact", "bound"))
weighing = cases(lambda case: case.cls.density != "none")  # the weights of a machine's guide need no log Z
implicit = cases(lambda case: case.cls.density == "none")  # such a program draws and does not score
machines = cases(lambda case: case.is_machine)
countable = cases(lambda case: case.cls.density in ("exact", "bound") and case.countable)
labelled = cases(lambda case: case.labels)
sequential = cases(lambda case: case.is_sequential and not case.labels)
flows = cases(lambda case: case.is_flow)
discrete = cases(lambda case: case.is_sequential and not case.labels and case.cls is not RNADE)


LATENT = ("z", "v")  # v are the numbers that a flow takes the floors of


def sites(program, *args, **kwargs) -> dict[str, dict]:
    """The sample sites of one run."""
    trace = poutine.trace(program).get_trace(*args, **kwargs)
    trace.compute_log_prob()
    return {
        name: site
        for name, site in trace.nodes.items()
        if site["type"] == "sample" and not site_is_subsample(site)
    }


def latent_sites(program, *args) -> dict[str, dict]:
    return {name: site for name, site in sites(program, *args).items() if not site["is_observed"]}


def values(found: dict[str, dict]) -> dict[str, Tensor]:
    return {name: site["value"] for name, site in found.items()}


def log_densities(program, latents: dict[str, Tensor], *args) -> dict[str, Tensor]:
    """Log-density of every site of one run with the latent ones held."""
    found = sites(poutine.condition(program, data=latents), *args)
    return {name: site["log_prob"] for name, site in found.items()}


def by_site(x: Tensor) -> dict[str, Tensor]:
    """The entries of items ``(batch, *event_shape)`` by the sites of a sequential program."""
    return {f"x_{variable}": value for variable, value in enumerate(x.flatten(1).unbind(1))}


def plates(site: dict) -> list[tuple[str, int, int]]:
    """The plates around a site, outermost first."""
    return [(frame.name, frame.size, frame.dim) for frame in site["cond_indep_stack"]]


def in_support(model: GenerativeModel, x: Tensor) -> bool:
    return bool(model.support.check(x).all()) and bool(x.isfinite().all())


def parameters(model: GenerativeModel) -> dict[str, Tensor]:
    return {name: param.detach().clone() for name, param in model.named_parameters()}


def weights(model: GenerativeModel, args: Batch, num_particles: int = 3) -> Tensor:
    """Seeded log-weights: a figure that depends on every part of both programs."""
    pyro.set_rng_seed(1)
    with torch.no_grad():
        return inference.log_weights(model, *args, num_particles=num_particles)


def probability(case: Case, model: GenerativeModel, args: Batch) -> tuple[Tensor, Tensor]:
    """p(x) of every item in float64, and its standard error."""
    with torch.no_grad():
        if model.density == "exact":
            exact = model.log_prob(*args).double().exp()
            return exact, torch.zeros_like(exact)
    drawn = weights(model, args, case.particles).double().exp()
    return drawn.mean(0), drawn.std(0) / math.sqrt(case.particles)


def test_every_model_has_a_case():
    assert set(MODELS) <= {case.name for case in CASES}


def test_cases_have_names_of_their_own():
    assert len({str(case) for case in CASES}) == len(CASES)


# The members


@every_case
def test_members(case):
    model = case.build()
    assert isinstance(model, GenerativeModel)
    assert model.event_shape == case.arguments["event_shape"]
    assert isinstance(model.event_shape, torch.Size)
    assert isinstance(model.support, constraints.Constraint)
    assert model.density in ("exact", "bound", "unnormalized", "none")
    assert all(isinstance(recipe, dict) for recipe in model.recipes.values())


@every_case
def test_signatures(case):
    model = case.build()
    ours = inspect.signature(model.model).parameters
    labels = ["y"] if case.has_label_argument else []
    assert list(ours) == ["x", *labels, "num"]
    assert ours["x"].default is None
    assert ours["num"].default == 1
    assert ours["num"].kind is inspect.Parameter.KEYWORD_ONLY
    assert list(inspect.signature(model.guide).parameters) == ["x", *labels]
    assert all(ours[name].default is None for name in labels)


@scoring
def test_model_observes_what_it_is_given(case):
    model = case.build()
    args = case.batch(model, 4)
    found = sites(model.model, *args)
    assert torch.equal(model.model(*args), args[0])
    assert found["x"]["is_observed"] and torch.equal(found["x"]["value"], args[0])
    if case.labels == "given":
        assert found["y"]["is_observed"] and torch.equal(found["y"]["value"], args[1])
    assert all(site["log_prob"].shape == (4,) for site in found.values())
    # The levels of numbers, which are drawn here, are what they are: P(x | v) is 1 or 0.
    certain = {"x"} if "v" in found else set()
    assert all(site["log_prob"].isfinite().all() for name, site in found.items() if name not in certain)
    assert all((found[name]["log_prob"].exp() % 1 == 0).all() for name in certain)


@drawing
def test_model_draws_where_nothing_is_given(case):
    model = case.build()
    x = model.model(num=5)
    assert x.shape == (5, *model.event_shape)
    assert in_support(model, x)
    assert model.model().shape == (1, *model.event_shape)
    given = {name for name, site in sites(model.model, num=5).items() if site["is_observed"]}
    assert given == ({"x"} if model.density == "none" else set())  # Pyro's mark of what is deterministic


@scoring
def test_site_names(case):
    model = case.build()
    names = set(sites(model.model, num=1))
    if case.is_sequential:
        variables = {f"x_{variable}" for variable in range(model.event_shape.numel())}
        assert names == variables | ({"y"} if case.labels else set())
        names = set(sites(model.model, *case.batch(model, 1)))
    latents = {name for name in names if name in LATENT or name.startswith("z_")}
    label = case.labels == "given" if case.is_sequential else bool(case.labels)  # or it is summed out
    assert names == latents | {"x"} | ({"y"} if label else set())


@implicit
def test_a_model_without_density_draws_its_items_from_its_code_alone(case):
    model = case.build()
    found = sites(model.model, num=5)
    assert list(found) == ["z", "x"]
    again = sites(poutine.condition(model.model, data={"z": found["z"]["value"]}), num=5)
    assert torch.equal(again["x"]["value"], found["x"]["value"])
    assert not torch.equal(model.model(num=5), found["x"]["value"])
    with pytest.raises(
        ValueError, match=f"{type(model).__name__} has no likelihood, and cannot observe items"
    ):
        model.model(case.batch(model, 5)[0])
    with pytest.raises(NotImplementedError, match="no exact log_prob"):
        model.log_prob(case.batch(model, 5)[0])
    with pytest.raises(ValueError, match="density"):
        inference.log_likelihood(model, case.batch(model, 5)[0])


@weighing
def test_every_site_is_inside_the_one_plate(case):
    model = case.build()
    args = case.batch(model, 4)
    for program in (model.model, model.guide):
        for name, site in sites(program, *args).items():
            assert plates(site) == [("data", 4, -1)], name


@drawing
def test_every_site_that_is_drawn_is_inside_the_one_plate(case):
    model = case.build()
    for name, site in sites(model.model, num=4).items():
        assert plates(site) == [("data", 4, -1)], name
        assert site["value"].shape[:1] == site["log_prob"].shape == (4,), name


@weighing
def test_guide_has_the_latent_sites_of_the_model(case):
    model = case.build()
    args = case.batch(model, 4)
    ours, guides = latent_sites(model.model, *args), sites(model.guide, *args)
    assert set(ours) == set(guides)
    for name, site in guides.items():
        assert not site["is_observed"]
        assert site["value"].shape == ours[name]["value"].shape
        assert site["fn"].event_shape == ours[name]["fn"].event_shape
        assert site["fn"].support.event_dim == ours[name]["fn"].support.event_dim


# Samples


@every_case
def test_sample_has_shape_type_support_and_no_gradient(case):
    model = case.build()
    x = case.sample(model, 7)
    assert x.shape == (7, *model.event_shape)
    assert x.dtype == case.batch(model, 1)[0].dtype
    assert in_support(model, x)
    assert not x.requires_grad
    model.check(x)


@every_case
def test_sample_is_reproducible(case):
    model = case.build()
    x = case.sample(model, 50, seed=3)
    assert torch.equal(x, case.sample(model, 50, seed=3))
    assert not torch.equal(x, case.sample(model, 50, seed=4))
    assert not torch.equal(case.sample(model, 50), case.sample(model, 50))
    torch.manual_seed(0)
    first = case.sample(model, 50)
    torch.manual_seed(0)
    assert torch.equal(first, case.sample(model, 50))


@every_case
def test_sample_leaves_generators_and_store_as_they_were(case):
    model = case.build()
    pyro.param("mine", torch.ones(2))
    before = torch.get_rng_state()
    case.sample(model, 7, seed=3)
    assert torch.equal(torch.get_rng_state(), before)
    assert list(pyro.get_param_store().keys()) == ["mine"]


@every_case
@pytest.mark.parametrize("num", [0, -1])
def test_sample_of_nothing_is_refused(case, num):
    with pytest.raises(ValueError, match=f"num must be at least 1, got {num}"):
        case.build().sample(num)


# The density


@scoring
def test_log_prob_is_there_where_the_density_is_exact(case):
    model = case.build()
    x = case.batch(model, 4)[0]
    if model.density == "exact":
        assert model.log_prob(x).shape == (4,)
        assert torch.allclose(model.log_prob(x), weights(model, (x,), 1)[0], atol=1e-5)
    elif case.is_flow:
        assert model.log_prob(x).shape == (4,)
        assert not torch.equal(model.log_prob(x), model.log_prob(x))
    else:
        with pytest.raises(NotImplementedError, match="inference.log_likelihood"):
            model.log_prob(x)


@cases(lambda case: case.is_flow and "num_levels" in case.arguments)
def test_log_prob_of_levels_is_a_bound_in_nats_which_noise_makes(case):
    """Over noise its mean is the ELBO, and the mean of its exponential the likelihood."""
    model = case.build()
    x = case.items(model, 3)
    with torch.no_grad():
        drawn = model.log_prob(x.repeat(2000, *[1] * (x.dim() - 1))).double()
    drawn = drawn.view(2000, 3)
    error = drawn.std(0) / math.sqrt(2000)
    weighted = weights(model, (x,), 2000).double()
    elbo, likelihood = weighted.mean(0), weighted.logsumexp(0) - math.log(2000)
    assert ((drawn.mean(0) - elbo).abs() < 4 * math.sqrt(2) * error).all()
    assert (error > 0).all() and (drawn.mean(0) < likelihood).all()
    torch.manual_seed(2)
    once = model.log_prob(x)
    torch.manual_seed(2)
    assert torch.equal(model.log_prob(x), once)


@countable
def test_sums_to_one(case):
    model = case.build()
    args, volume = case.every_item(model)
    p, error = probability(case, model, args)
    error = volume * error.square().sum().sqrt().item()
    assert error < 0.02
    assert p.sum().item() * volume == pytest.approx(1, abs=case.slack + 4 * error)


@countable
def test_samples_follow_the_density(case):
    model = case.build()
    args, volume = case.every_item(model)
    p, error = probability(case, model, args)
    num = 20_000
    count = torch.bincount(case.cell(model, case.draw(model, num)), minlength=len(p)).double()
    expected, variance = num * volume * p, num * volume * p + (num * volume * error).square()
    often = expected >= 10
    assert expected[often].sum() > 0.8 * num

    def pooled(cells: Tensor) -> Tensor:
        return torch.cat([cells[often], cells[~often].sum(0, keepdim=True)])

    statistic = ((pooled(count) - pooled(expected)).square() / pooled(variance).clamp(min=1)).sum().item()
    freedom = len(p) - 1 if often.all() else int(often.sum())
    assert chi2.sf(statistic, freedom) > 1e-3


# Pyro's handlers


@scoring
@pytest.mark.parametrize("estimator", [Trace_ELBO, TraceEnum_ELBO])
def test_svi_lowers_the_loss_and_moves_every_parameter(case, estimator):
    model = case.build()
    args = case.batch(model, 8)
    judge = estimator(num_particles=100, vectorize_particles=True, max_plate_nesting=1)

    def loss() -> float:
        pyro.set_rng_seed(1)
        return judge.loss(model.model, model.guide, *args)

    before, first = parameters(model), loss()
    svi = SVI(model.model, model.guide, pyro.optim.Adam({"lr": 0.05}), estimator())
    for _ in range(12):
        svi.step(*args)
    after = parameters(model)
    still = {name for name in before if torch.equal(before[name], after[name])}
    assert still == {name for name in before if name.startswith(case.untouched)}
    assert loss() < first


@scoring
def test_svi_takes_vectorised_particles(case):
    model = case.build()
    args = case.batch(model, 4)
    loss = Trace_ELBO(num_particles=7, vectorize_particles=True)
    before = parameters(model)
    assert math.isfinite(SVI(model.model, model.guide, pyro.optim.Adam({"lr": 0.01}), loss).step(*args))
    assert any(not torch.equal(before[name], param) for name, param in parameters(model).items())


@drawing
def test_predictive_draws_from_the_prior(case):
    model = case.build()
    drawn = Predictive(model.model, num_samples=4, parallel=True)(num=3)
    names = set(sites(model.model, num=3))
    assert set(drawn) == names
    returned = Predictive(model.model, num_samples=4, parallel=True, return_sites=[*names, "_RETURN"])(num=3)
    x = returned.pop("_RETURN")
    assert set(returned) == names
    assert x.shape == (4, 3, *model.event_shape)
    assert in_support(model, x)
    if case.is_sequential:
        assert all(value.shape == (4, 3) for value in drawn.values())
        assert torch.equal(
            x.flatten(2), torch.stack([returned[f"x_{i}"] for i in range(x[0, 0].numel())], -1)
        )
    else:
        assert drawn["x"].shape == x.shape
        assert in_support(model, drawn["x"])
        assert torch.equal(x, returned["x"])


@scoring
@pytest.mark.parametrize("parallel", [True, False])
def test_predictive_draws_from_the_guide(case, parallel):
    model = case.build()
    args = case.batch(model, 3)
    names = [*latent_sites(model.model, *args), "x"]
    predictive = Predictive(
        model.model, guide=model.guide, num_samples=30, return_sites=names, parallel=parallel
    )
    drawn = predictive(*args)
    assert set(drawn) == set(names)
    # What was observed comes back as it was; Predictive lays it out for every draw where it can.
    assert torch.equal(drawn.pop("x").expand(30, *args[0].shape), args[0].expand(30, *args[0].shape))
    for name, site in latent_sites(model.guide, *args).items():
        assert drawn[name].shape == (30, *site["value"].shape)
        # A discrete code may be the same twice, though hardly every time.
        assert (drawn[name] != drawn[name][:1]).any() or name[0] not in LATENT


@cases(
    # Where labels of a sequential model are summed out of the whole item, its program draws them first.
    lambda case: case.cls.density in ("exact", "bound") and not (case.is_sequential and case.labels == "none")
)
def test_condition_is_the_same_as_observing(case):
    model = case.build()
    args = case.batch(model, 4)
    if case.labels == "some":  # to be conditioned on, a label must be there
        args = args[:1]
    latents = values(latent_sites(model.guide, *args))
    given = dict(zip(("x", "y"), args, strict=False))
    if case.is_sequential:
        given = by_site(given.pop("x")) | given
    conditioned = sites(poutine.condition(model.model, data={**latents, **given}), num=4)
    if case.is_sequential:
        assert all(site["is_observed"] for site in conditioned.values())
        observed = sum(site["log_prob"] for site in sites(model.model, *args).values())
        assert torch.allclose(sum(site["log_prob"] for site in conditioned.values()), observed, atol=1e-5)
        return
    for name, log_prob in log_densities(model.model, latents, *args).items():
        assert conditioned[name]["is_observed"]
        assert torch.equal(conditioned[name]["log_prob"], log_prob), name


@weighing
def test_two_instances_never_share_parameters(case):
    one, other = case.build(), case.build()
    args = case.batch(one, 4)
    assert one.name != other.name
    for model in (one, other):
        model.model(*args)
        model.guide(*args)
    store = pyro.get_param_store()
    held = [id(store[name]) for name in store.keys()]  # noqa: SIM118 - not a dict
    assert sorted(held) == sorted(id(param) for model in (one, other) for param in model.parameters())
    before = parameters(other)
    SVI(one.model, one.guide, pyro.optim.Adam({"lr": 0.1}), Trace_ELBO()).step(*args)
    assert all(torch.equal(before[name], param) for name, param in parameters(other).items())


@weighing
@pytest.mark.parametrize("copied", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
def test_a_copy_has_a_name_and_parameters_of_its_own(case, copied):
    model = case.build()
    args = case.batch(model, 4)
    model.model(*args)
    twin = copied(model)
    assert twin.name != model.name
    assert torch.equal(weights(twin, args), weights(model, args))
    before = parameters(model)
    SVI(twin.model, twin.guide, pyro.optim.Adam({"lr": 0.1}), Trace_ELBO()).step(*args)
    assert any(not torch.equal(before[name], param) for name, param in parameters(twin).items())
    assert all(torch.equal(before[name], param) for name, param in parameters(model).items())


@every_case
def test_a_shallow_copy_has_a_name_of_its_own_and_the_same_parameters(case):
    model = case.build()
    twin = copy.copy(model)
    assert twin.name != model.name
    assert [id(param) for param in twin.parameters()] == [id(param) for param in model.parameters()]


# Gradients


@weighing
def test_the_objective_of_the_recipe_reaches_every_parameter(case):
    model = case.build()
    objective = case.objective(model)
    loss = objective(case.batch(model, 8))
    assert loss.shape == () and loss.isfinite()
    loss.backward()
    for name, param in model.named_parameters():
        assert param.grad is not None, name
        assert param.grad.isfinite().all(), name
        reached = param.grad != 0
        # A bias speaks for its unit; a weight may rightly meet nothing but zeros or padding.
        assert reached.all() if param.dim() == 1 else reached.any(), name
    players = getattr(objective, "players", ())
    moved = objective.parameters_of(players[-1]) if players else objective.parameters()
    assert {id(param) for param in moved} == {id(param) for param in model.parameters()}


@implicit
def test_a_generator_learns_from_a_discriminator_by_every_parameter(case):
    model = case.build()
    objective = case.objective(model)
    assert isinstance(objective, inference.Adversarial)
    args = case.batch(model, 8)
    objective.prepare(args[0])
    loss = objective(args[0], "generator")
    assert loss.shape == () and loss.isfinite()
    loss.backward()
    for name, param in model.named_parameters():
        assert param.grad is not None and param.grad.isfinite().all(), name
        assert (param.grad != 0).all() if param.dim() == 1 else (param.grad != 0).any(), name
    moved = objective.parameters_of("generator")
    assert {id(param) for param in moved} == {id(param) for param in model.parameters()}


# Round trips


@implicit
def test_saved_and_loaded_or_copied_it_draws_the_same_bits(case):
    model, other = case.build(), case.build()
    expected = case.sample(model, 20, seed=1)
    assert not torch.equal(case.sample(other, 20, seed=1), expected)
    other.load_state_dict(safetensors.torch.load(safetensors.torch.save(model.state_dict())))
    for twin in (other, copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert twin.name != model.name
        assert torch.equal(case.sample(twin, 20, seed=1), expected)


@implicit
def test_float64_is_kept_by_what_is_drawn(case):
    model = case.build().double()
    assert all(site["value"].dtype == torch.float64 for site in sites(model.model, num=4).values())
    x = case.sample(model, 4)
    assert x.dtype == torch.float64
    objective = case.objective(model)
    objective(x, "generator").backward()
    assert all(param.grad.dtype == torch.float64 for param in model.parameters())


@weighing
def test_saved_and_loaded_it_gives_the_same_bits(case):
    model, other = case.build(), case.build()
    args = case.batch(model, 4)
    expected = weights(model, args), case.sample(model, 4, seed=1)
    assert not torch.equal(weights(other, args), expected[0])
    other.load_state_dict(safetensors.torch.load(safetensors.torch.save(model.state_dict())))
    assert torch.equal(weights(other, args), expected[0])
    assert torch.equal(case.sample(other, 4, seed=1), expected[1])


@weighing
def test_float64_is_kept_throughout(case):
    model = case.build().double()
    args = case.batch(model, 4)
    model.check(*args)
    for program in (model.model, model.guide):
        for name, site in sites(program, *args).items():
            assert site["log_prob"].dtype == torch.float64, name
            assert site["value"].dtype in (torch.float64, torch.int64), name
    assert weights(model, args).dtype == torch.float64
    assert case.sample(model, 2).dtype == args[0].dtype
    objective = case.objective(model)
    objective(args).backward()
    assert all(param.grad.dtype == torch.float64 for param in model.parameters())


@weighing
def test_float64_is_as_fine_inside(case):
    """A change of 1e-10 in the parameters shows, which it would not had any step been taken in float32."""
    model = case.build().double()
    args = case.batch(model, 4)
    latents = values(latent_sites(model.guide, *args))
    before = log_densities(model.model, latents, *args), log_densities(model.guide, latents, *args)
    with torch.no_grad():
        for param in model.parameters():
            param += 1e-10 * torch.randn_like(param)
    for name, log_prob in log_densities(model.model, latents, *args).items():
        # What says nothing of the parameters: a prior, a level where its number is known, a flat site.
        fixed = (name == "x") == (case.is_flow and model.density == "bound")
        fixed = name != "energy" if case.is_machine else fixed
        assert fixed or not torch.equal(log_prob, before[0][name]), name
    for name, log_prob in log_densities(model.guide, latents, *args).items():
        change = (log_prob - before[1][name]).abs().max()
        assert change == 0 if case.is_flow else 0 < change < 1e-7, name


@weighing
def test_float32_agrees_with_float64(case):
    model = case.build()
    args = case.batch(model, 4)
    latents = values(latent_sites(model.guide, *args))
    twin = copy.deepcopy(model).double()

    def doubled(value: Tensor) -> Tensor:
        return value.double() if value.is_floating_point() else value

    for single, double in ((model.model, twin.model), (model.guide, twin.guide)):
        ours = log_densities(single, latents, *args)
        precise = {name: doubled(value) for name, value in latents.items()}
        for name, log_prob in log_densities(double, precise, *map(doubled, args)).items():
            assert torch.allclose(ours[name].double(), log_prob, rtol=1e-4, atol=1e-4), name


@every_case
def test_every_tensor_moves_with_the_module(case):
    for name, module in case.build().named_modules():
        left_behind = [key for key, value in vars(module).items() if isinstance(value, Tensor)]
        assert left_behind == [], f"{name} holds tensors that are neither parameter nor buffer"


@weighing
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
def test_another_device(case):
    model = case.build()
    args = case.batch(model, 4)
    latents = values(latent_sites(model.guide, *args))
    expected = log_densities(model.model, latents, *args)
    model.cuda()
    args = tuple(value.cuda() for value in args)
    model.check(*args)
    moved = {name: value.cuda() for name, value in latents.items()}
    for name, log_prob in log_densities(model.model, moved, *args).items():
        assert log_prob.is_cuda
        assert torch.allclose(log_prob.cpu(), expected[name], rtol=1e-3, atol=1e-3), name
    x = case.sample(model, 4, seed=1)
    assert x.is_cuda and torch.equal(x, case.sample(model, 4, seed=1))
    assert weights(model, args).is_cuda
    case.objective(model)(args).backward()
    assert all(param.grad.is_cuda for param in model.parameters())


# Broadcasting


@weighing
def test_particles_on_the_left_give_what_the_loop_gives(case):
    model = case.build()
    args = case.batch(model, 4)
    outer, inner = pyro.plate("outer", 2, dim=-3), pyro.plate("inner", 3, dim=-2)
    guide = sites(outer(inner(model.guide)), *args)
    assert all(site["log_prob"].shape == (2, 3, 4) for site in guide.values())
    latents = values(guide)
    program = outer(inner(model.model))
    together = sites(poutine.condition(program, data=latents), *args)
    for i in range(2):
        for j in range(3):
            alone = {name: value[i, j] for name, value in latents.items()}
            for name, log_prob in log_densities(model.guide, alone, *args).items():
                assert torch.allclose(guide[name]["log_prob"][i, j], log_prob, atol=1e-4), name
            for name, log_prob in log_densities(model.model, alone, *args).items():
                ours = together[name]["log_prob"].expand(2, 3, 4)[i, j]
                assert torch.allclose(ours, log_prob, atol=1e-4), name


@drawing
def test_particles_on_the_left_draw_afresh(case):
    model = case.build()
    x = pyro.plate("particles", 3, dim=-2)(model.model)(num=20)
    assert x.shape == (3, 20, *model.event_shape)
    assert not torch.equal(x[0], x[1])


# Flows


@flows
def test_a_flow_goes_to_its_latents_and_back(case):
    model = case.build().double()
    x = case.draw(model, 6)[0]
    z = model.encode(x)
    assert z.shape == (6, *model.latent_shape) and z.dtype == torch.float64
    assert torch.allclose(model.decode(z).double(), x.double(), rtol=0, atol=1e-9)


@flows
def test_log_prob_is_that_of_the_prior_and_the_transform(case):
    model = case.build().double()
    v = model.flow().sample((6,))
    plain = dist.TransformedDistribution(model.prior(), [model.transform])
    expected = plain.log_prob(v)
    assert torch.allclose(model.flow().log_prob(v), expected, rtol=0, atol=1e-8)
    if model.density == "exact":
        assert torch.allclose(model.log_prob(v), expected, rtol=0, atol=1e-8)
    z = model.prior().sample((6,))
    assert torch.allclose(model._prior_log_prob(z), model.prior().log_prob(z), rtol=0, atol=1e-12)


@flows
def test_the_way_between_items_begins_and_ends_at_them(case):
    model = case.build().double()
    start, end = case.draw(model, 3)[0], case.draw(model, 3)[0]
    way = model.interpolate(start, end, steps=4)
    assert way.shape == (3, 4, *model.event_shape) and way.dtype == start.dtype
    assert torch.allclose(way[:, 0].double(), start.double(), rtol=0, atol=1e-9)
    assert torch.allclose(way[:, -1].double(), end.double(), rtol=0, atol=1e-9)
    for steps in (1, 0):
        with pytest.raises(ValueError, match=f"at least 2 steps, and as many ends as starts, got {steps}, 3"):
            model.interpolate(start, end, steps=steps)


# Sequential models


def steps(model: GenerativeModel, x: Tensor):
    """Along the scan: step, variable, the state before it, and its conditional in items ``(..., n)``."""
    state = model.initial_state()
    for step, variable in enumerate(model.order):
        yield step, variable, state, model.conditional(step, state)
        state = model.advance(step, state, x[..., variable])


def every_second(model: GenerativeModel) -> list[str]:
    """Sites to condition on: the last of the scan among them, and the first not."""
    return [f"x_{variable}" for variable in model.order[::-2]]


@sequential
def test_sites_follow_the_scan(case):
    model = case.build()
    order = case.arguments.get("order") or range(model.event_shape.numel())
    if isinstance(model, Pixels):  # the colours of a pixel, one after the other
        order = torch.arange(len(order)).view(model.colours, -1).T.flatten().tolist()
    assert list(sites(model.model, num=2)) == [f"x_{variable}" for variable in order]
    assert list(sites(model.model, *case.batch(model, 2))) == ["x"]


@sequential
def test_one_site_each_and_one_pass_give_the_same_log_probability(case):
    model = case.build()
    trace = poutine.trace(model.model).get_trace(num=50)
    trace.compute_log_prob()
    x = trace.nodes["_RETURN"]["value"]
    one_by_one = [trace.nodes[f"x_{variable}"]["log_prob"] for variable in range(x[0].numel())]
    assert torch.equal(
        x.flatten(1), torch.stack([trace.nodes[f"x_{i}"]["value"] for i in range(x[0].numel())], 1)
    )
    assert torch.allclose(sum(one_by_one), model.log_prob(x), atol=1e-5)
    assert torch.allclose(sum(one_by_one), sites(model.model, x)["x"]["log_prob"], atol=1e-5)
    together = model.conditionals(x).log_prob(x).flatten(1)
    assert torch.allclose(torch.stack(one_by_one, dim=1), together, atol=1e-5)


@sequential
def test_every_conditional_is_the_same_from_a_state_and_from_the_whole_item(case):
    model = case.build()
    x = case.items(model, 20)
    conditionals = model.conditionals(x)
    assert conditionals.batch_shape == x.shape and conditionals.event_shape == ()
    other = case.items(model, 20)
    together = conditionals.log_prob(other).flatten(1)
    for _, variable, _, conditional in steps(model, x.flatten(1)):
        alone = conditional.log_prob(other.flatten(1)[:, variable])
        assert torch.allclose(alone.expand(20), together[:, variable], atol=1e-5), variable


@sequential
def test_both_paths_give_the_same_gradient(case):
    model = case.build().double()
    x = case.items(model, 10)
    params = list(model.parameters())
    weight = torch.rand(10, dtype=torch.float64)
    found = sites(poutine.condition(model.model, data=by_site(x)), num=10)
    one_by_one = sum(site["log_prob"] for site in found.values())
    expected = torch.autograd.grad((weight * one_by_one).sum(), params)
    for ours, theirs in zip(
        torch.autograd.grad((weight * model.log_prob(x)).sum(), params), expected, strict=True
    ):
        assert torch.allclose(ours, theirs, rtol=0, atol=1e-10)


@sequential
def test_sample_draws_what_the_program_draws(case):
    model = case.build()
    pyro.set_rng_seed(5)
    assert torch.equal(model.sample(30, seed=5), model.model(num=30))


@sequential
@pytest.mark.parametrize("part", ["every second", "the last", "all"])
def test_variables_that_are_conditioned_on_stay_and_the_rest_is_drawn(case, part):
    model = case.build()
    known = {
        "every second": every_second(model),
        "the last": [f"x_{model.order[-1]}"],
        "all": list(by_site(case.items(model, 1))),
    }[part]
    data = {name: value for name, value in by_site(case.items(model, 30)).items() if name in known}
    trace = poutine.trace(poutine.condition(model.model, data=data)).get_trace(num=30)
    trace.compute_log_prob()
    x = trace.nodes["_RETURN"]["value"]
    for name, value in by_site(x).items():
        site = trace.nodes[name]
        assert site["is_observed"] == (name in known), name
        assert torch.equal(value, site["value"]), name
        if name in known:
            assert torch.equal(value, data[name]), name
        else:
            assert len(value.unique()) > 1, name
    assert in_support(model, x)
    log_prob = sum(trace.nodes[name]["log_prob"] for name in by_site(x))
    assert torch.allclose(log_prob, model.log_prob(x), atol=1e-5)


@sequential
def test_predictive_completes_what_is_given(case):
    model = case.build()
    known = every_second(model)
    given = {name: value for name, value in by_site(case.items(model, 5)).items() if name in known}
    draws = {name: value.expand(4, 5) for name, value in given.items()}
    predictive = Predictive(model.model, posterior_samples=draws, return_sites=["_RETURN"], parallel=True)
    x = predictive(num=5)["_RETURN"]
    assert x.shape == (4, 5, *model.event_shape)
    for name, value in by_site(x.flatten(0, 1)).items():
        if name in known:
            assert torch.equal(value.view(4, 5), draws[name]), name
        else:
            assert len(value.unique()) > 1, name


@sequential
def test_a_conditional_depends_on_what_comes_before_it_and_on_nothing_else(case):
    """Whatever its reach lets it see does change it, so that this test can fail."""
    model = case.build().double()
    x = case.items(model, 40)
    expected, change = influences(case, model), torch.zeros(x[0].numel(), x[0].numel(), dtype=torch.float64)
    with torch.no_grad():
        before = model.conditionals(x).log_prob(x).flatten(1)
        for moved in range(x[0].numel()):
            other = x.clone()
            entry = other.flatten(1)[:, moved]  # a view
            if model.support is constraints.real:
                entry += 1
            else:
                entry.copy_((entry + 1) % case.levels(model))
            assert not torch.equal(other, x)
            change[:, moved] = (model.conditionals(other).log_prob(x).flatten(1) - before).abs().amax(0)
    assert (change[expected] > 1e-6).all()
    assert change[~expected].max() < 1e-12


@cases(lambda case: case.is_sequential and not case.labels and case.smooth)
def test_a_conditional_has_a_gradient_by_what_comes_before_it_and_by_nothing_else(case):
    model = case.build().double()
    x, other = case.items(model, 40), case.items(model, 40)
    x.requires_grad_()
    log_prob = model.conditionals(x).log_prob(other).flatten(1)  # at other values, which have no gradient
    change = torch.zeros(x[0].numel(), x[0].numel(), dtype=torch.float64)
    for variable, value in enumerate(log_prob.sum(0)):
        (grad,) = torch.autograd.grad(value, x, retain_graph=True, allow_unused=True)
        change[variable] = 0 if grad is None else grad.flatten(1).abs().amax(0)
    expected = influences(case, model)
    assert (change[expected] > 1e-6).all()
    assert (change[~expected] == 0).all()


def influences(case: Case, model: GenerativeModel) -> Tensor:
    """Whether the conditional of a variable, in rows, depends on another, in columns."""
    place = torch.tensor(model.order).argsort()
    before = place.unsqueeze(1) - place
    return (before > 0) & (before <= (len(place) if case.reach is None else case.reach))


@sequential
def test_advance_leaves_the_state_as_it_is(case):
    model = case.build()
    x, other = case.items(model, 3).flatten(1), case.items(model, 3).flatten(1)
    for step, variable, state, conditional in steps(model, x):
        before = copy.deepcopy(state.detach()) if isinstance(state, Tensor) else state
        model.advance(step, state, other[:, variable])
        again = model.conditional(step, state)
        assert torch.equal(conditional.log_prob(x[:, variable]), again.log_prob(x[:, variable]))
        assert torch.equal(state, before) if isinstance(state, Tensor) else state is before


@sequential
def test_every_tensor_of_a_state_is_of_the_values_or_of_the_first_state(case):
    """So that `inference.complete` can take some of the values of a batch, and what is known of them."""
    model = case.build()
    first, *later = (state for _, _, state, _ in steps(model, case.items(model, 7).flatten(1)))
    unchanged = {id(leaf) for leaf in tree_leaves(first)}
    for step, state in enumerate(later, start=1):
        for leaf in tree_leaves(state):
            assert id(leaf) in unchanged or (isinstance(leaf, Tensor) and leaf.shape[:1] == (7,)), step


@sequential
def test_sites_under_plates_on_the_left_give_what_one_pass_gives(case):
    model = case.build()
    known = every_second(model)
    data = {name: value for name, value in by_site(case.items(model, 20)).items() if name in known}
    outer, inner = pyro.plate("outer", 2, dim=-3), pyro.plate("inner", 3, dim=-2)
    program = outer(inner(poutine.condition(model.model, data=data)))
    trace = poutine.trace(program).get_trace(num=20)
    trace.compute_log_prob()
    x = trace.nodes["_RETURN"]["value"]
    assert x.shape == (2, 3, 20, *model.event_shape)
    total = 0
    for variable, value in enumerate(x.flatten(3).unbind(3)):
        site = trace.nodes[f"x_{variable}"]
        assert plates(site) == [("outer", 2, -3), ("inner", 3, -2), ("data", 20, -1)]
        assert torch.equal(site["value"].expand(2, 3, 20), value)
        assert torch.equal(value[0, 0], value[1, 2]) == (f"x_{variable}" in known)
        total = total + site["log_prob"]
    flat = model.log_prob(x.flatten(0, 2))
    assert torch.allclose(total.expand(2, 3, 20).flatten(), flat, atol=1e-5)
    assert torch.allclose(model.log_prob(x).flatten(), flat, atol=1e-5)


@sequential
def test_one_item_alone_is_scored_as_in_a_batch(case):
    model = case.build()
    x = case.items(model, 3)
    assert model.conditionals(x[0]).batch_shape == model.event_shape
    assert torch.allclose(torch.stack([model.log_prob(item) for item in x]), model.log_prob(x), atol=1e-5)


@sequential
def test_an_item_of_one_variable_works(case):
    arguments = {"order": None} if "order" in case.arguments else {}
    model = case.build(event_shape=case.single_shape, **arguments)
    x = case.items(model, 5)
    assert torch.allclose(model.log_prob(x), sites(model.model, x)["x"]["log_prob"])
    assert torch.allclose(
        model.conditional(0, model.initial_state()).log_prob(x.flatten(1)[:, 0]), model.log_prob(x)
    )
    model.log_prob(x).sum().backward()
    model.check(model.sample(3))


@discrete
def test_enumeration_sums_out_what_is_not_conditioned_on(case):
    model = case.build()
    known = every_second(model)
    given = {name: value for name, value in by_site(case.items(model, 5)).items() if name in known}
    (every,), _ = case.every_item(model)
    with torch.no_grad():
        log_prob = model.log_prob(every)
    columns = by_site(every)
    agrees = torch.stack([(columns[name] == value.unsqueeze(1)) for name, value in given.items()]).all(0)
    assert 1 < agrees.sum(1).min() < len(every)
    expected = torch.where(agrees, log_prob, -math.inf).logsumexp(1)
    program = config_enumerate(poutine.condition(model.model, data=given), default="parallel")
    loss = TraceEnum_ELBO(max_plate_nesting=1).loss(program, lambda num: None, num=5)
    assert loss == pytest.approx(-expected.sum().item(), abs=1e-4)


@cases(lambda case: case.cls is RNADE)
def test_a_kernel_sees_the_density_of_real_sites(case):
    model = case.build()
    x = case.items(model, 4)
    given = {"x_1": x.flatten(1)[:, 1]}
    program = poutine.condition(model.model, data=given)
    _, potential, transforms, _ = initialize_model(program, model_kwargs={"num": 4})
    latents = {name: value for name, value in by_site(x).items() if name not in given}
    unconstrained = {
        name: transforms[name](value) if name in transforms else value for name, value in latents.items()
    }
    assert all(torch.equal(unconstrained[name], value) for name, value in latents.items())
    assert potential(unconstrained).item() == pytest.approx(-model.log_prob(x).sum().item(), abs=1e-4)


@sequential
def test_what_is_drawn_is_float64_where_the_parameters_are(case):
    model = case.build().double()
    for name, site in sites(model.model, num=3).items():
        assert site["log_prob"].dtype == torch.float64, name
        assert site["value"].dtype == case.items(model, 1).dtype, name
    assert model.model(num=3).dtype == case.items(model, 1).dtype


@cases(lambda case: case.is_sequential or case.is_flow)
def test_a_training_step_becomes_one_graph(case, monkeypatch):
    monkeypatch.setattr(
        torch, "compile", lambda graph, dynamic: graph
    )  # which takes seconds, and changes nothing
    model = case.build()
    objective, params = case.objective(model), list(model.parameters())
    step = compile_step(objective, case.items(model, 6))
    x = case.items(model, 6)
    torch.manual_seed(1)
    loss = objective(x)
    expected = torch.autograd.grad(loss, params)
    torch.manual_seed(1)
    assert step(x).item() == pytest.approx(loss.item(), abs=1e-5)
    for param, grad in zip(params, expected, strict=True):
        assert torch.allclose(param.grad, grad, atol=1e-5)


# Machines


def all_layers(case: Case, model: GenerativeModel, num: int) -> dict[str, Tensor]:
    """Values of every layer, from anywhere."""
    drawn = model.initial_state(num)
    return drawn | {"v": case.items(model, num)}


@machines
def test_a_machine_has_a_site_for_each_layer_and_one_factor(case):
    model = case.build()
    hidden = {f"h_{layer + 1}" for layer in range(sum(name.startswith("h_") for name in model.names))}
    names = {"v", *hidden} | ({"y"} if case.labels else set())
    found = sites(model.model, num=3)
    assert set(model.names) == names and set(found) == names | {"energy"}
    assert {name for name, site in found.items() if site["is_observed"]} == {"energy"}
    assert all(
        (found[name]["log_prob"] == 0).all() and found[name]["log_prob"].shape == (3,) for name in names
    )
    assert found["energy"]["log_prob"].shape == (3,)
    assert in_support(model, found["v"]["value"])


@machines
@pytest.mark.parametrize("with_labels", [True, False])
def test_what_a_machine_is_given_is_observed_and_the_guide_draws_the_rest(case, with_labels):
    model = case.build()
    x = case.items(model, 4)
    args = (x, torch.arange(4) % 3) if with_labels and case.labels else (x,)
    found = sites(model.model, *args)
    given = dict(zip(("v", "y"), args, strict=False))
    assert torch.equal(model.model(*args), x)
    assert {name for name, site in found.items() if site["is_observed"]} == {*given, "energy"}
    assert all(torch.equal(found[name]["value"], value) for name, value in given.items())
    guide = sites(model.guide, *args)
    assert set(guide) == set(model.names) - set(given)
    means = model.mean_field(*args)
    for name, site in guide.items():
        assert site["log_prob"].shape == (4,)
        expected = means[name].clamp(1e-3, 1 - 1e-3) if name != "y" else means[name]
        got = site["fn"].probs if name == "y" else site["fn"].mean
        assert torch.allclose(got, expected, atol=2e-3), name


@machines
def test_conditioning_on_every_layer_scores_a_configuration(case):
    model = case.build()
    state = all_layers(case, model, 5)
    for data in (state, {name: state[name] for name in reversed(model.names)}):
        trace = poutine.trace(poutine.condition(model.model, data=data)).get_trace(num=5)
        assert trace.log_prob_sum().item() == pytest.approx(-model.energy(state).sum().item(), rel=1e-5)
        assert torch.equal(trace.nodes["_RETURN"]["value"], state["v"])


@machines
def test_predictive_scores_as_many_configurations_as_it_is_given(case):
    model = case.build()
    state = {name: value.unflatten(0, (4, 3)) for name, value in all_layers(case, model, 12).items()}
    predictive = Predictive(model.model, posterior_samples=state, return_sites=["_RETURN"], parallel=True)
    assert torch.equal(predictive(num=3)["_RETURN"].expand(state["v"].shape), state["v"])


@machines
def test_sample_says_how_long_it_runs_and_refuses_no_sweep(case):
    model = case.build()
    parameter = inspect.signature(model._sample).parameters["sweeps"]
    assert parameter.default >= 100
    assert not torch.equal(model.sample(30, seed=0, sweeps=2), model.sample(30, seed=0, sweeps=3))
    assert "sweeps must be at least 1, got 0" in refused(lambda: model.sample(2, sweeps=0))


@machines
@pytest.mark.parametrize("name", ["ELBO", "ImportanceWeighted", "MaximumLikelihood", "SupervisedELBO"])
def test_an_objective_for_normalised_densities_refuses_a_machine(case, name):
    model = case.build()
    cls = getattr(inference, name)
    wrongs = [lambda: cls(model)]
    if name != "MaximumLikelihood":
        wrongs.append(lambda: cls(model.model, model.guide))
    for wrong in wrongs:
        with pytest.raises(ValueError, match="is unnormalised: train it with PersistentContrastiveDiverg"):
            wrong()


@machines
def test_a_step_of_chains_becomes_no_graph(case):
    model = case.build()
    objective = case.objective(model)
    with pytest.raises(ValueError, match="objective without chains or state of its own, got Persistent"):
        inference.fit(objective, case.batch(model, 4), epochs=1, compile=True, progress=False)


@cases(lambda case: case.is_machine and not case.labels)
def test_labels_for_a_machine_that_has_none_are_refused(case):
    model = case.build()
    x = case.items(model, 3)
    for wrong in (
        lambda: model.check(x, torch.zeros(3, dtype=torch.int64)),
        lambda: model.sample(3, y=1, sweeps=1),
        lambda: model.classify(x),
    ):
        with pytest.raises(ValueError, match="has no label unit") as caught:
            wrong()
        assert "\n" not in str(caught.value)


# Wrong input


def refused(check, *args) -> str:
    """The message, which is one line and says what was expected and what came."""
    with pytest.raises(ValueError, match="got") as caught:
        check(*args)
    message = str(caught.value)
    assert "\n" not in message
    return message


@every_case
def test_items_of_another_shape_are_refused(case):
    model = case.build()
    x = case.batch(model, 4)[0]
    wider = torch.cat([x, x], dim=-1)
    for wrong in (x[0], x.unsqueeze(0), wider, x.reshape(4, -1, 1, 1)):
        message = refused(model.check, wrong)
        assert str(tuple(wrong.shape)) in message
        assert ", ".join(map(str, model.event_shape)) in message
    assert "at least one" in refused(model.check, x[:0])


@every_case
def test_what_is_no_tensor_is_refused(case):
    model = case.build()
    assert "got list" in refused(model.check, [[0.0]])
    assert "got ndarray" in refused(model.check, case.batch(model, 2)[0].numpy())


@every_case
def test_items_of_another_type_are_refused(case):
    model = case.build()
    x = case.batch(model, 4)[0]
    for dtype in {torch.float64, torch.float32, torch.int64, torch.bool} - {x.dtype}:
        message = refused(model.check, x.to(dtype))
        assert str(dtype) in message and str(x.dtype) in message


@every_case
@pytest.mark.parametrize("wrong", [math.nan, math.inf, -math.inf, 0.5, -1.0, 99.0])
def test_an_entry_outside_the_support_is_refused(case, wrong):
    model = case.build()
    x = case.batch(model, 4)[0]
    entry = torch.tensor(wrong)
    if math.isfinite(wrong) and model.support.check(entry) or not (x.is_floating_point() or wrong % 1 == 0):
        return
    x[(-1,) * x.dim()] = wrong
    message = refused(model.check, x)
    assert {math.nan: "NaN", math.inf: "infinity", -math.inf: "infinity"}.get(wrong, f"{wrong:g}") in message


@every_case
def test_right_items_pass(case):
    model = case.build()
    assert model.check(*case.batch(model, 4)) is None


@labelled
def test_wrong_labels_are_refused(case):
    model = case.build()
    x, y = case.batch(model, 4)[0], torch.tensor([0, 1, 2, -1])
    if case.is_sequential:  # its labels are there for all items, or for none
        refused(model.check, x, y)
        model.check(x, y.clamp(min=0))
    else:
        model.check(x, y)
    for wrong in (y[:3], y.unsqueeze(1), y.float(), y.int(), y - 1, y + model.num_classes, [0, 1, 2, 0]):
        refused(model.check, x, wrong)
    for wrong in (y, y[:3], y.float(), model.num_classes, -1, 0.5):
        refused(lambda wrong=wrong: model.sample(4, y=wrong))


@labelled
def test_one_label_serves_every_draw(case):
    model = case.build()
    for y in (1, torch.tensor(1)):
        assert torch.equal(
            case.sample(model, 4, seed=0, y=y), case.sample(model, 4, seed=0, y=torch.full((4,), 1))
        )


@every_case
@pytest.mark.parametrize("event_shape", [(), (0,), (2, 0), (2, -3)])
def test_an_empty_event_shape_is_refused(case, event_shape):
    message = refused(lambda: case.build(event_shape=event_shape))
    assert str(event_shape) in message


@pytest.mark.parametrize(
    ("case", "wrong"),
    [pytest.param(case, wrong, id=f"{case}-{wrong}") for case in CASES for wrong in case.wrong],
)
def test_wrong_arguments_are_refused(case, wrong):
    message = refused(lambda: case.build(**wrong))
    assert any(name in message or str(value) in message for name, value in wrong.items())
