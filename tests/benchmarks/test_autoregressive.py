"""What the autoregressive models cost, against the same networks in plain PyTorch and against a site each."""

import pyro
import pytest
import torch
from pyro import poutine
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits
from torch.profiler import ProfilerActivity, profile

import inference
import zoo
from tests.benchmarks.timing import MACHINE, adam, expect, median_seconds, step_of

pytestmark = pytest.mark.figures

NUM, HIDDEN, BATCH = 784, 500, 100


def negative_log_prob(logits, x):
    return binary_cross_entropy_with_logits(logits, x, reduction="none").sum(-1)


class PlainFVSBN(nn.Module):
    """The network of ``zoo.FVSBN((784,))``."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(NUM, NUM))
        self.bias = nn.Parameter(torch.zeros(NUM))

    def forward(self, x):
        return negative_log_prob(x @ self.weight.triu(1) + self.bias, x).mean()


class PlainNADE(nn.Module):
    """The network of ``zoo.NADE((784,), 500)``; a subclass says how the recursion is computed."""

    def __init__(self):
        super().__init__()
        self.W = nn.Parameter(torch.randn(NUM - 1, 1, HIDDEN) / NUM**0.5)
        self.c = nn.Parameter(torch.zeros(HIDDEN))
        self.V = nn.Parameter(torch.randn(NUM, 1, HIDDEN) / HIDDEN**0.5)
        self.b = nn.Parameter(torch.zeros(NUM))

    def forward(self, x):
        return negative_log_prob(self.logits(x) + self.b, x).mean()


class LoopNADE(PlainNADE):
    """A pixel at a time, as the equations have it."""

    def logits(self, x):
        a, logits = self.c.expand(len(x), -1), []
        for i in range(NUM):
            if i > 0:
                a = a + x[:, i - 1 : i] * self.W[i - 1]
            logits.append((a.sigmoid() * self.V[i]).sum(-1))
        return torch.stack(logits, dim=1)


class TunedLoopNADE(PlainNADE):
    """The same with fewer and faster operations, and without a gradient of full size for each pixel."""

    def logits(self, x):
        W, V = self.W.unbind(0), self.V.unbind(0)
        a, logits = self.c.expand(len(x), -1), []
        for i in range(NUM):
            if i > 0:
                a = torch.addcmul(a, x[:, i - 1 : i], W[i - 1])
            logits.append(a.sigmoid() @ V[i][0])
        return torch.stack(logits, dim=1)


class CumulativeNADE(PlainNADE):
    """All pixels at once."""

    def logits(self, x):
        moves = (x[:, :-1, None] * self.W[:, 0]).cumsum(1)
        a = self.c + torch.cat([moves.new_zeros(len(x), 1, HIDDEN), moves], dim=1)
        return (a.sigmoid() * self.V[:, 0]).sum(-1)


class Sites(nn.Module):
    """A model's own program with every pixel a site."""

    def __init__(self, autoregressive):
        super().__init__()
        self.autoregressive = autoregressive

    def forward(self, x):
        held = {f"x_{i}": value for i, value in enumerate(x.unbind(1))}
        program = poutine.condition(self.autoregressive.model, data=held)
        with pyro.get_param_store().scope(), pyro.validation_enabled(False):
            return -poutine.trace(program).get_trace(num=len(x)).log_prob_sum() / len(x)


def alike(module, other):
    """Gives a module the weights of another, all of them moved from where they start."""
    with torch.no_grad():
        for param, source in zip(module.parameters(), other.parameters(), strict=True):
            param.copy_(source.view_as(param))
    return module


def fvsbn():
    model = zoo.FVSBN((NUM,))
    with torch.no_grad():
        model.weight.normal_(std=0.02)
        model.bias.normal_(std=0.1)
    return model


def nade():
    model = zoo.NADE((NUM,), hidden=HIDDEN)
    with torch.no_grad():
        model.c.normal_(std=0.1)
        model.b.normal_(std=0.1)
    return model


def prepared(model, batch):
    """The objective as `inference.fit` has it from its first step on."""
    objective = inference.MaximumLikelihood(model)
    objective.prepare(batch)
    return objective


def scoring(loss):
    def score(batch):
        with torch.no_grad():
            loss(batch)

    return score


def backward(module):
    """Loss and gradients, without the optimiser."""

    def step(batch):
        module.zero_grad()
        module(batch).backward()

    return step


@pytest.fixture
def batch():
    return torch.bernoulli(torch.rand(BATCH, NUM))


@pytest.mark.parametrize(
    ("make", "plain"), [(fvsbn, PlainFVSBN), (nade, LoopNADE), (nade, TunedLoopNADE), (nade, CumulativeNADE)]
)
def test_all_compute_the_same_loss_and_gradient(batch, make, plain):
    model = make()
    results = []
    for module in (prepared(model, batch), alike(plain(), model), Sites(model)):
        module.zero_grad()
        loss = module(batch)
        loss.backward()
        results.append((loss.item(), [param.grad.clone() for param in module.parameters()]))
    (loss, grads), *others = results
    for other, their_grads in others:
        assert loss == pytest.approx(other, rel=1e-5)
        for grad, theirs in zip(grads, their_grads, strict=True):
            assert torch.allclose(grad.view_as(theirs), theirs, rtol=1e-3, atol=1e-5)


def test_fvsbn_costs_what_the_plain_network_costs(batch, record, threads):
    model = fvsbn()
    ours, plain = prepared(model, batch), alike(PlainFVSBN(), model)
    own, theirs = median_seconds([scoring(ours), scoring(plain)], batch, rounds=150, warm_up=10)
    score = own / theirs
    steps = [step_of(ours, adam(ours)), step_of(plain, adam(plain))]
    own, theirs = median_seconds(steps, batch, rounds=100, warm_up=10)
    record("fvsbn-cost", score=score, step=own / theirs)
    expect({"score": (1 / score, 1 / 1.10), "step": (theirs / own, 1 / 1.10)})


def test_one_pass_is_fifteen_times_as_fast_as_a_site_for_each_pixel(batch, record, threads):
    model = fvsbn()
    ours, sites = prepared(model, batch), Sites(model)
    fast, slow = median_seconds([scoring(ours), scoring(sites)], batch, rounds=5, warm_up=1)
    score = slow / fast
    steps = [step_of(ours, adam(ours)), step_of(sites, adam(sites))]
    fast, slow = median_seconds(steps, batch, rounds=5, warm_up=1)
    record("fvsbn-sites", score=score, step=slow / fast)
    expect({"score": (score, 15), "step": (slow / fast, 15)})


def test_nade_in_blocks_is_faster_than_a_loop_and_cumulative_sums(batch, record, threads):
    model = nade()
    plain = [alike(make(), model) for make in (LoopNADE, TunedLoopNADE, CumulativeNADE)]
    modules = [prepared(model, batch), *plain]

    def ratios(steps):
        ours, *others = median_seconds(steps, batch, rounds=3, warm_up=1)
        return dict(
            zip(("loop", "tuned_loop", "cumulative"), (other / ours for other in others), strict=True)
        )

    step, score = ratios(list(map(backward, modules))), ratios(list(map(scoring, modules)))
    record("nade-cost", step=step, score=score)
    expect(
        {
            "step, loop": (step["loop"], 3),
            "step, cumulative sums": (step["cumulative"], 5),
            "scoring, loop": (score["loop"], 1 / 1.10),
        }
    )


def test_nade_in_blocks_takes_a_tenth_of_the_memory_of_cumulative_sums(batch, record_result):
    model = nade()
    ours, cumulative = (
        peak_bytes(backward(module), batch)
        for module in (prepared(model, batch), alike(CumulativeNADE(), model))
    )
    # What the loss cannot do without: the gradients. And what cumulative sums cannot: a and h of every pixel.
    assert ours > sum(param.numel() for param in model.parameters()) * 4
    assert cumulative > 2 * BATCH * NUM * HIDDEN * 4
    record_result("nade-memory", {"ratio": ours / cumulative, "bytes": ours, "machine": MACHINE})
    assert ours <= cumulative / 10, (ours, cumulative)


def peak_bytes(step, batch):
    """The most that a step holds at any moment, above what was there before it.

    Every allocation and release of torch's own allocator is recorded, those inside operators and of the
    backward pass included. The size of the process would not do: memory that was released before is taken
    again without growing it.
    """
    step(batch)  # what is made once is no part of a step
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as run:
        step(batch)
    events = run.profiler.kineto_results.events()
    moves = [(event.start_ns(), event.nbytes()) for event in events if event.name() == "[memory]"]
    held = torch.tensor([size for _, size in sorted(moves, key=lambda move: move[0])]).cumsum(0)
    return int(held.max())


@pytest.mark.parametrize("make", [fvsbn, nade])
def test_drawing_is_three_times_as_fast_as_the_traced_program(make, record, threads):
    model = make()

    def draw(seed):
        return model.sample(BATCH, seed=seed)

    def trace(seed):
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            return poutine.trace(model.model).get_trace(num=BATCH).nodes["_RETURN"]["value"]

    def bare_trace(seed):
        """The program with all switched off that can be: no gradient, no validation."""
        with torch.no_grad(), pyro.validation_enabled(False):
            return trace(seed)

    assert torch.equal(draw(3), trace(3))
    fast, slow, bare = median_seconds([draw, trace, bare_trace], 3, rounds=7, warm_up=1)
    record(f"{make.__name__}-draw", ratio=slow / fast, bare_ratio=bare / fast)
    expect({"drawing": (slow / fast, 3)})
