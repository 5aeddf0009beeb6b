"""Learning by contrast: the mean gradient is the exact one, chains go on, a training resumes to the bit."""

import math

import pytest
import torch
from torch import Tensor, nn

import inference
import zoo
from inference import ContrastiveDivergence, PersistentContrastiveDivergence

OBJECTIVES = (ContrastiveDivergence, PersistentContrastiveDivergence)


def lively(machine, seed: int = 3, spread: float = 0.6):
    """Gives a machine weights and means that differ."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for param in machine.parameters():
            param += spread * torch.randn(param.shape, generator=generator)
        for name, mean in machine.named_buffers():
            if name.startswith("mean_"):
                mean.copy_(0.2 + 0.6 * torch.rand(mean.shape, generator=generator))
    return machine


def rbm(**options):
    torch.manual_seed(0)
    return lively(zoo.RBM((4,), hidden=3, **options))


def dbm(**options):
    torch.manual_seed(0)
    return lively(zoo.DBM((4,), hidden=(3, 2), **options))


def bits(num: int = 30, width: int = 4) -> Tensor:
    return (torch.rand(num, width, generator=torch.Generator().manual_seed(2)) < 0.3).float()


def log_z(machine) -> Tensor:
    """By every configuration of the even layers, with a gradient."""
    sizes = [1 if name == "y" else machine.units[layer].num for layer, name in enumerate(machine.names)]
    values = [3 if name == "y" else 2 for name in machine.names]
    even = range(0, len(sizes), 2)
    every = torch.cartesian_prod(
        *(torch.arange(values[layer]) for layer in even for _ in range(sizes[layer]))
    )
    parts = every.split([sizes[layer] for layer in even], dim=1)
    state = {
        machine.names[layer]: part[:, 0] if machine.names[layer] == "y" else part.to(machine.b[0])
        for layer, part in zip(even, parts, strict=True)
    }
    return (-machine.free_energy(state)).logsumexp(0)


def test_log_z_of_these_tests_is_that_of_the_enumeration():
    for machine in (rbm(), rbm(num_classes=3), dbm(centred=True)):
        machine = machine.double()
        assert log_z(machine).item() == pytest.approx(machine.log_partition().item())


def gradient(value: Tensor, module: nn.Module) -> Tensor:
    return torch.cat([grad.flatten() for grad in torch.autograd.grad(value, list(module.parameters()))])


def weights(module: nn.Module) -> Tensor:
    return nn.utils.parameters_to_vector(module.parameters()).detach().clone()


def chains(objective) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in objective.state().items()}


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


class ExactDraws(PersistentContrastiveDivergence):
    """In place of chains, draws from the machine itself."""

    def chains(self, positive):
        return self.source[0].exact_sample(self.num_chains)


# The gradient


@pytest.mark.parametrize("centred", [False, True])
def test_the_mean_gradient_of_an_rbm_is_that_of_the_log_likelihood(centred):
    """Running means stay where they are here, so that the offsets of a centred machine do, too."""
    machine = rbm(centred=centred).double()
    machine.track = lambda positive: None
    x = bits(8).double()
    exact = gradient(log_z(machine) + machine.free_energy({"v": x}).mean(), machine)
    objective = ExactDraws(machine, num_chains=50)
    drawn = torch.stack([gradient(objective(x), machine) for _ in range(200)])
    error = drawn.std(0) / math.sqrt(len(drawn))
    assert error.max() < 0.05 * exact.abs().max()
    assert ((drawn.mean(0) - exact).abs() < 4 * error + 1e-9).all()


def test_the_mean_gradient_of_a_dbm_is_that_of_its_bound():
    machine = dbm().double()
    machine.track = lambda positive: None
    x = bits(8).double()
    posterior = machine.posterior(x)
    exact = gradient(log_z(machine) + machine.free_energy(posterior).mean(), machine)
    objective = ExactDraws(machine, num_chains=50)
    drawn = torch.stack([gradient(objective(x), machine) for _ in range(200)])
    error = drawn.std(0) / math.sqrt(len(drawn))
    assert ((drawn.mean(0) - exact).abs() < 4 * error + 1e-9).all()


@pytest.mark.parametrize("build", [rbm, dbm])
def test_persistent_chains_come_to_the_exact_gradient(build):
    """Chains that go on at the same weights are draws from the machine before long."""
    machine = build().double()
    machine.track = lambda positive: None
    x = bits(8).double()
    exact = gradient(log_z(machine) + machine.free_energy(machine.posterior(x)).mean(), machine)
    objective = PersistentContrastiveDivergence(machine, sweeps=20, num_chains=2000)
    with torch.no_grad():
        for _ in range(3):
            objective(x)
    drawn = torch.stack([gradient(objective(x), machine) for _ in range(30)])
    error = drawn.std(0) / math.sqrt(len(drawn))
    assert ((drawn.mean(0) - exact).abs() < 4 * error + 1e-9).all()


def test_a_few_sweeps_from_the_data_are_biased_and_many_are_not():
    machine = rbm().double()
    machine.track = lambda positive: None
    with torch.no_grad():
        machine.W[0].mul_(3)
    x = torch.ones(5000, 4, dtype=torch.float64)
    exact = gradient(log_z(machine) + machine.free_energy({"v": x}).mean(), machine)
    off = [
        (gradient(ContrastiveDivergence(machine, sweeps=sweeps)(x), machine) - exact).norm()
        for sweeps in (1, 30)
    ]
    assert off[0] > 5 * off[1]


# The chains


def watched(machine):
    """Makes a machine note the states that its blocks are drawn from."""
    seen = []
    blocks = [
        type(block)(
            block.sites,
            lambda state, block=block: (
                seen.append({name: value.clone() for name, value in state.items()}) or block.draw(state)
            ),
        )
        for block in machine.blocks()
    ]
    machine.blocks = lambda: tuple(blocks)
    return seen


def test_contrastive_divergence_starts_from_the_data_each_time():
    machine, x = rbm(), bits(5)
    seen = watched(machine)
    objective = ContrastiveDivergence(machine, sweeps=3)
    for _ in range(2):
        objective(x)
    assert len(seen) == 12
    assert [torch.equal(state["v"], x) for state in seen[::6]] == [True, True]
    assert not torch.equal(seen[5]["v"], x)
    assert dict(objective.named_buffers(recurse=False)) == {}


def test_persistent_chains_go_on_from_where_they_were():
    machine = dbm()
    seen = watched(machine)
    objective = PersistentContrastiveDivergence(machine, sweeps=2, num_chains=7)
    for _ in range(3):
        before, seen[:] = chains(objective), []
        objective(bits(5))
        assert same(seen[0], before)
        assert not any(torch.equal(value, before[name]) for name, value in chains(objective).items())
    assert {name for name, _ in objective.named_buffers(recurse=False)} == {
        "chain_v",
        "chain_h_1",
        "chain_h_2",
    }
    assert all(len(value) == 7 for value in chains(objective).values())


@pytest.mark.parametrize("cls", OBJECTIVES)
def test_a_sweep_draws_every_block_in_turn(cls):
    machine, drawn = dbm(), []
    blocks = machine.blocks()

    class Watched(nn.Module):
        names = machine.names
        initial_state, posterior, free_energy = machine.initial_state, machine.posterior, machine.free_energy

        def blocks(self):
            return [
                type(block)(
                    block.sites, lambda state, block=block: drawn.append(block.sites) or block.draw(state)
                )
                for block in blocks
            ]

    cls(Watched(), sweeps=2)(bits(5))
    in_turn = [("h_1",), ("v", "h_2")]
    assert drawn == (in_turn if cls is ContrastiveDivergence else in_turn[::-1]) * 2


def test_preparing_starts_the_chains_and_the_visible_biases_from_the_data():
    machine = zoo.RBM((4,), hidden=3)
    objective = PersistentContrastiveDivergence(machine, num_chains=4000)
    x = bits(50)
    objective.prepare(x)
    mean = (x.sum(0) + 0.5) / 51
    assert torch.allclose(machine.b[0], mean.logit(), atol=1e-5)
    assert torch.allclose(chains(objective)["v"].mean(0), mean, atol=0.05)
    before = weights(machine)
    objective(x)
    objective.prepare(bits(20) * 0)
    assert torch.equal(weights(machine), before)  # there has been training


def test_real_entries_have_chains_too():
    torch.manual_seed(0)
    machine = zoo.DBM((2, 2), hidden=(3, 2), visible="gaussian", centred=True)
    objective = PersistentContrastiveDivergence(machine, num_chains=5)
    x = torch.randn(20, 2, 2, generator=torch.Generator().manual_seed(1))
    result = inference.fit(objective, x, valid=x, epochs=2, batch_size=10, lr=1e-2, progress=False)
    assert all(math.isfinite(row["valid"]) for row in result.history)
    assert chains(objective)["v"].shape == (5, 2, 2)


# Validation


@pytest.mark.parametrize(("cls", "build"), [(cls, build) for cls in OBJECTIVES for build in (rbm, dbm)])
def test_validation_is_the_bound_and_leaves_the_chains_where_they_are(cls, build):
    machine = build()
    objective = cls(machine, validation_betas=500).eval()
    before = chains(objective) if cls is PersistentContrastiveDivergence else {}
    x = bits(9)
    loss = objective(x).item()
    exact = machine.log_partition().item() - machine.variational_bound(x).mean().item()
    # Of AIS from independent units, and from chains that have not moved yet, the larger log Z.
    assert loss == pytest.approx(exact, abs=0.15 if cls is ContrastiveDivergence else 2)
    estimate = inference.log_likelihood(machine, x, log_z=objective.log_z(), progress=False)
    assert loss == pytest.approx(estimate.nats_per_item, abs=1e-5)
    if before:
        assert same(chains(objective), before)


def test_evaluating_a_pair_leaves_its_chains_where_they_are():
    """It has no log Z to validate by: its loss is the contrast with chains, which run on for it alone."""
    objective = PersistentContrastiveDivergence(dbm().pair(0)).eval()
    before = chains(objective)
    assert objective(bits(5)).isfinite()
    assert same(chains(objective), before)
    objective.train()(bits(5))
    assert not same(chains(objective), before)


def test_validation_takes_the_larger_log_z_of_both_sides(monkeypatch):
    objective = PersistentContrastiveDivergence(rbm())
    from inference import contrastive_divergence as module

    for forward, reverse in ((1.0, 2.0), (4.0, 3.0)):
        for name, value in (("ais", forward), ("reverse_ais", reverse)):
            estimate = type("Estimate", (), {"log_z": torch.tensor(value)})
            monkeypatch.setattr(module, name, lambda *args, estimate=estimate, **settings: estimate)
        objective._log_z = None
        assert objective.log_z() == max(forward, reverse)


@pytest.mark.parametrize("settings", [{}, {"momentum": 0.9}])
def test_log_z_of_the_validation_follows_the_weights_whatever_the_optimiser(settings):
    """A fused one leaves no mark on a parameter that it changes."""
    machine = zoo.RBM((4,), hidden=3)
    objective = ContrastiveDivergence(machine)
    seen = []
    estimate = objective._estimate_log_z
    objective._estimate_log_z = lambda: seen.append(weights(machine)) or estimate()
    result = inference.fit(
        objective, bits(), valid=bits(9), epochs=4, batch_size=3, lr=0.1, progress=False, **settings
    )
    assert len(seen) == len(result.history) == 4  # once an epoch, for three batches
    assert len({tuple(each.tolist()) for each in seen}) == 4
    objective.log_z()
    before = len(seen)
    objective.log_z()
    assert len(seen) == before
    with torch.no_grad():
        machine.b[0] += 1
    objective.log_z()
    assert len(seen) == before + 1


def test_training_raises_the_exact_likelihood():
    torch.manual_seed(0)
    machine = lively(zoo.RBM((4,), hidden=3), spread=0.3)
    x = bits(60, 1).expand(60, 4).contiguous()  # all on or all off
    objective = PersistentContrastiveDivergence(machine, num_chains=200)
    objective.prepare(x)
    before = machine.log_marginal(x).mean().item()
    inference.fit(objective, x, epochs=150, batch_size=20, lr=0.2, momentum=0.5, progress=False)
    assert machine.log_marginal(x).mean().item() > before + 0.8


# Labels


def labels(num: int) -> Tensor:
    return torch.arange(num) % 3


def test_the_mean_gradient_with_labels_is_that_of_the_joint_likelihood():
    machine = rbm(num_classes=3).double()
    machine.track = lambda positive: None
    x, y = bits(6).double(), labels(6)
    exact = gradient(log_z(machine) + machine.free_energy({"v": x, "y": y}).mean(), machine)
    objective = ExactDraws(machine, num_chains=50)
    assert objective.takes_labels and not ExactDraws(rbm()).takes_labels
    drawn = torch.stack([gradient(objective((x, y)), machine) for _ in range(200)])
    error = drawn.std(0) / math.sqrt(len(drawn))
    assert ((drawn.mean(0) - exact).abs() < 4 * error + 1e-9).all()


@pytest.mark.parametrize("build", [rbm, dbm])
def test_a_label_that_is_missing_has_the_means_of_mean_field(build):
    machine = build(num_classes=3)
    x, y = bits(4), torch.tensor([0, -1, 2, -1])
    means = machine.mean_field(x)["y"]
    seen = machine.posterior(x, y)["y"]
    assert torch.equal(seen[[0, 2]], torch.eye(3)[[0, 2]])
    assert torch.allclose(seen[[1, 3]], means[[1, 3]], atol=1e-3)
    objective = ContrastiveDivergence(machine)
    objective((x, y)).backward()
    assert all(param.grad.isfinite().all() for param in machine.parameters())


def test_label_weight_adds_the_cross_entropy_of_the_labels_that_are_known():
    machine = rbm(num_classes=3)
    machine.track = lambda positive: None
    x, y = bits(6), torch.tensor([0, 1, 2, -1, -1, 1])
    losses = []
    for weight in (0.0, 2.0):
        torch.manual_seed(0)
        losses.append(ContrastiveDivergence(machine, label_weight=weight)((x, y)))
    log_prob = machine.classify(x)
    known = y >= 0
    expected = -log_prob[known, y[known]].mean()
    assert (losses[1] - losses[0]).item() == pytest.approx(2 * expected.item(), rel=1e-4)
    torch.manual_seed(0)
    assert ContrastiveDivergence(machine, label_weight=2.0)(x).item() == pytest.approx(
        losses[0].item(), abs=5
    )


def test_labels_that_are_all_missing_leave_the_loss_a_number():
    machine = rbm(num_classes=3)
    loss = ContrastiveDivergence(machine, label_weight=1.0)((bits(6), torch.full((6,), -1)))
    assert loss.isfinite()
    loss.backward()
    assert all(param.grad.isfinite().all() for param in machine.parameters())


def test_wrong_labels_are_refused_at_the_door():
    objective = PersistentContrastiveDivergence(rbm(num_classes=3))
    with pytest.raises(ValueError, match=r"labels must lie in -1..2, got 0..3"):
        inference.fit(objective, (bits(4), torch.tensor([0, 1, 2, 3])), epochs=1, progress=False)
    with pytest.raises(ValueError, match="has no label unit; build it with num_classes"):
        inference.fit(PersistentContrastiveDivergence(rbm()), (bits(4), labels(4)), epochs=1, progress=False)


# Resuming


class StopsAt:
    """A logger that raises at the end of an epoch."""

    def __init__(self, epoch: int) -> None:
        self.epoch = epoch

    def log_metrics(self, metrics, step):
        if step == self.epoch:
            raise KeyboardInterrupt


def train(objective, **settings):
    defaults = {"valid": bits(9), "epochs": 5, "batch_size": 8, "lr": 0.05, "momentum": 0.9}
    options = {**defaults, "schedule": "cosine", "checkpoint_seconds": 0.0, "progress": False, **settings}
    return inference.fit(objective, bits(), **options)


def fresh(cls, build=dbm):
    torch.manual_seed(5)
    return cls(build(centred=True), sweeps=2, validation_betas=20)


@pytest.mark.parametrize("cls", OBJECTIVES)
@pytest.mark.parametrize("epoch", [2, 4])
def test_an_interrupted_training_ends_in_the_same_bits(tmp_path, cls, epoch):
    whole = fresh(cls)
    history = train(whole).history
    assert train(fresh(cls), checkpoint=tmp_path / "c.pt", logger=StopsAt(epoch)).interrupted
    saved = torch.load(tmp_path / "c.pt", weights_only=True)["objective"]
    assert ("chain_v" in saved) == (cls is PersistentContrastiveDivergence)
    torch.manual_seed(99)  # a new process begins anywhere
    resumed = cls(zoo.DBM((4,), hidden=(3, 2), centred=True), sweeps=2, validation_betas=20)
    result = train(resumed, checkpoint=tmp_path / "c.pt")
    assert result.history == history
    assert all(torch.equal(value, resumed.state_dict()[name]) for name, value in whole.state_dict().items())


def test_other_chains_are_another_training(tmp_path):
    train(fresh(PersistentContrastiveDivergence), checkpoint=tmp_path / "c.pt")
    other = PersistentContrastiveDivergence(dbm(centred=True), sweeps=2, num_chains=50, validation_betas=20)
    with pytest.raises(ValueError, match="belongs to a training with another"):
        train(other, checkpoint=tmp_path / "c.pt")


def test_weights_that_are_no_number_are_named_with_their_step_and_the_best_are_kept():
    objective = PersistentContrastiveDivergence(dbm(), validation_betas=5)
    with pytest.raises(FloatingPointError, match=r"epoch \d+, by step \d+.*Kept: the weights of epoch"):
        inference.fit(objective, bits(), epochs=50, batch_size=8, lr=1e38, momentum=0.9, progress=False)
    assert all(param.isfinite().all() for param in objective.parameters())


# Pretraining


def test_pretraining_trains_its_pair_alone_and_in_place():
    machine = zoo.DBM((4,), hidden=(3, 2, 2))
    for layer in range(3):
        before = [param.detach().clone() for param in (*machine.W, *machine.b)]
        objective = PersistentContrastiveDivergence(machine.pair(layer), num_chains=10)
        inference.fit(objective, bits(), epochs=2, batch_size=10, lr=0.1, progress=False)
        moved = [
            not torch.equal(one, other) for one, other in zip(before, (*machine.W, *machine.b), strict=True)
        ]
        expected = [number == layer for number in range(3)] + [
            number in (layer, layer + 1) for number in range(4)
        ]
        assert moved == expected, layer


@pytest.mark.parametrize(("layer", "below", "above"), [(0, 2, 1), (1, 2, 2), (2, 1, 2)])
def test_the_conditionals_of_a_pair_are_doubled_towards_layers_that_are_missing(layer, below, above):
    machine = lively(zoo.DBM((4,), hidden=(3, 2, 2)))
    pair = machine.pair(layer)
    names = pair.names
    W, b, c = machine.W[layer], machine.b[layer], machine.b[layer + 1]
    lower, upper = torch.rand(1, len(b)).round(), torch.rand(1, len(c)).round()
    up = (c + below * lower @ W).sigmoid()
    down = (b + above * upper @ W.T).sigmoid()
    many = {names[0]: lower.expand(40_000, -1), names[1]: upper.expand(40_000, -1)}
    first, second = pair.blocks()
    with torch.no_grad():
        assert torch.allclose(first.draw(many)[names[1]].mean(0), up[0], atol=0.015)
        assert torch.allclose(second.draw(many)[names[0]].mean(0), down[0], atol=0.015)
    state = {names[0]: lower}
    energy = -above * torch.nn.functional.softplus(c + below * lower @ W).sum(-1) - below * lower @ b
    assert torch.allclose(pair.free_energy(state), energy, atol=1e-5)


def test_the_middle_pair_sees_means_that_passed_through_those_below():
    machine = lively(zoo.DBM((4,), hidden=(3, 2)))
    x = bits(5)
    state = machine.pair(1).posterior(x)
    assert torch.allclose(state["h_1"], (machine.b[1] + 2 * x @ machine.W[0]).sigmoid(), atol=1e-6)
    assert list(state) == ["h_1"] and not state["h_1"].requires_grad


@pytest.mark.parametrize(
    ("build", "layer", "said"),
    [
        (lambda: dbm(), 2, r"layer must lie in 0\.\.1, got 2"),
        (lambda: dbm(), -1, r"layer must lie in 0\.\.1, got -1"),
        (lambda: dbm(centred=True), 0, "a centred machine is trained as a whole"),
    ],
)
def test_a_pair_that_cannot_be_is_refused(build, layer, said):
    with pytest.raises(ValueError, match=said):
        build().pair(layer)


# Wrong arguments, and models of one's own


@pytest.mark.parametrize("cls", OBJECTIVES)
@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"sweeps": 0}, "sweeps must be an integer of at least 1, got 0"),
        ({"sweeps": 2.5}, "sweeps must be an integer of at least 1, got 2.5"),
        ({"label_weight": -0.5}, "label_weight must be a number of at least 0, got -0.5"),
        ({"validation_betas": 0}, "validation_betas must be an integer of at least 1, got 0"),
    ],
)
def test_an_argument_below_its_least_is_refused(cls, settings, said):
    with pytest.raises(ValueError, match=said):
        cls(rbm(), **settings)


def test_no_chains_are_refused():
    with pytest.raises(ValueError, match="num_chains must be an integer of at least 1, got 0"):
        PersistentContrastiveDivergence(rbm(), num_chains=0)


@pytest.mark.parametrize("cls", OBJECTIVES)
@pytest.mark.parametrize("model", [zoo.VAE((4,)), nn.Linear(2, 2), lambda x: x])
def test_a_model_without_blocks_is_refused(cls, model):
    with pytest.raises(ValueError, match=f"{cls.__name__} expects a model with blocks, .*, got"):
        cls(model)


@pytest.mark.parametrize("cls", OBJECTIVES)
def test_items_that_are_no_bits_are_refused(cls):
    with pytest.raises(ValueError, match=r"expects entries in \{0, 1\}, got 0.5"):
        inference.fit(cls(rbm()), torch.full((4, 4), 0.5), epochs=1, progress=False)


class Ising(nn.Module):
    """A user's own model, of two sites of ±1 in a ring: no label, no annealing, no running means."""

    def __init__(self) -> None:
        super().__init__()
        self.coupling = nn.Parameter(torch.tensor(0.0))

    def free_energy(self, state):
        return -self.coupling * state["v"] * state["h"]

    def blocks(self):
        class Block:
            def __init__(self, site, other, coupling):
                self.sites, self.other, self.coupling = (site,), other, coupling

            def draw(self, state):
                up = torch.sigmoid(2 * self.coupling * state[self.other])
                return {self.sites[0]: 2.0 * (torch.rand_like(up) < up) - 1}

        coupling = self.coupling.detach()
        return [Block("h", "v", coupling), Block("v", "h", coupling)]

    def initial_state(self, num):
        return {"v": torch.ones(num), "h": torch.ones(num)}

    def posterior(self, x):
        return {"v": x[:, 0], "h": x[:, 1]}


def test_a_model_of_ones_own_is_learnt():
    same_sign = torch.ones(100, 2)
    same_sign[:25, 1] = -1  # E[v h] = 0.5 = tanh(coupling)
    model = Ising()
    objective = PersistentContrastiveDivergence(model, sweeps=3, num_chains=500)
    inference.fit(objective, same_sign, epochs=60, batch_size=100, lr=0.1, momentum=0.5, progress=False)
    assert model.coupling.item() == pytest.approx(math.atanh(0.5), abs=0.12)


@pytest.mark.parametrize("weight", [-1.0, float("nan"), float("inf")])
def test_label_weight_is_a_number(weight):
    with pytest.raises(ValueError, match="label_weight must be a number of at least 0"):
        ContrastiveDivergence(zoo.RBM((4,), 3, num_classes=2), label_weight=weight)


def test_label_weight_wants_a_label_unit_and_labels():
    with pytest.raises(ValueError, match="label_weight expects a model with a label unit, and RBM has none"):
        ContrastiveDivergence(zoo.RBM((4,), 3), label_weight=1.0)
    weighted = ContrastiveDivergence(zoo.RBM((4,), 3, num_classes=2), label_weight=1.0)
    with pytest.raises(ValueError, match="label_weight expects items with labels, got items alone"):
        weighted.check(torch.ones(2, 4))


def test_a_machine_may_change_its_type_after_the_objective_was_built():
    machine = zoo.RBM((4,), 3)
    objective = PersistentContrastiveDivergence(machine, num_chains=5)
    machine.double()
    inference.fit(objective, torch.ones(6, 4).double(), epochs=1, progress=False)
    assert objective.chain_v.dtype == torch.float64


def test_a_pair_moves_its_whole_machine():
    machine = zoo.DBM((4,), (3, 2))
    machine.pair(1).double()
    assert {value.dtype for value in machine.state_dict().values()} == {torch.float64, torch.int64}
    objective = ContrastiveDivergence(machine.pair(0))
    with pytest.raises(ValueError, match="a pair of layers is trained without labels"):
        objective.check((torch.ones(2, 4), torch.zeros(2)))


def test_real_units_refuse_entries_that_never_vary():
    objective = ContrastiveDivergence(zoo.RBM((4,), 3, visible="gaussian"))
    x = torch.randn(6, 4)
    x[:, 2] = 1.0
    with pytest.raises(ValueError, match="RBM expects entries that vary between the training items"):
        inference.fit(objective, x, epochs=1, progress=False)


def test_half_precision_does_not_round_what_validation_shows():
    objective = PersistentContrastiveDivergence(zoo.RBM((4,), 3)).eval()
    x = torch.eye(4)
    with torch.no_grad():
        whole = objective(x)
        with torch.autocast("cpu", torch.bfloat16):
            assert torch.equal(objective(x), whole)
