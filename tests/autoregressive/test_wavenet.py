"""WaveNet against its formula; long sequences in parts, and drawing from ring buffers, against one pass."""

import math

import pytest
import torch
from scipy.stats import chi2

import zoo
from zoo.autoregressive import wavenet as module
from zoo.autoregressive.ring_buffers import RingBuffers

TINY = {"num_levels": 7, "residual_channels": 3, "skip_channels": 4, "layers": 3, "stacks": 2}


def tiny(length=40, **other):
    model = zoo.WaveNet((length,), **{**TINY, **other}).double().eval()
    with torch.no_grad():
        for param in model.parameters():
            param += 0.3 * torch.randn_like(param)
        model.skip.bias += 1.0  # no rectifier that is shut to all
        model.head[1].bias += 1.0
    return model


@pytest.mark.parametrize("kernel_size", [2, 3])
def test_each_conditional_is_the_formula(kernel_size):
    model, x = tiny(30, kernel_size=kernel_size), torch.randint(7, (30,))
    probs, mu = model.conditionals(x).probs, 6
    zero = torch.zeros(3, dtype=torch.float64)
    h = []  # of the layer below, a column for each step
    for t in range(30):
        if t == 0:
            h.append(zero)
            continue
        level = 2 * x[t - 1].item() / mu - 1
        amplitude = math.copysign((1 + mu) ** abs(level) - 1, level) / mu
        h.append(model.front.weight @ torch.tensor([level, 4 * amplitude], dtype=torch.float64))
    told = [torch.zeros(4).double() for _ in range(30)]
    for layer, d in enumerate([1, 2, 4, 1, 2, 4]):
        gate, above = model.gates[layer], []
        S = model.skip.weight[:, 3 * layer : 3 * layer + 3]
        for t in range(30):
            seen = [h[t - j * d] if t >= j * d else zero for j in range(kernel_size)]
            a = gate.bias + sum(gate.weight[:, :, -1 - j] @ column for j, column in enumerate(seen))
            z = torch.tanh(a[:3]) * torch.sigmoid(a[3:])
            told[t] = told[t] + S @ z
            above.append(h[t] + (model.residuals[layer].weight[:, :, 0] @ z if layer < 5 else 0))
        h = above
    first, last = model.head[1], model.head[3]
    for t in range(30):
        spoken = torch.relu(first.weight @ torch.relu(told[t] + model.skip.bias) + first.bias)
        expected = torch.softmax(last.weight @ spoken + last.bias, -1)
        assert torch.allclose(probs[t], expected, rtol=0, atol=1e-12), t


@pytest.mark.parametrize(
    ("arguments", "reach"), [({}, 15), ({"stacks": 1}, 8), ({"kernel_size": 3}, 29), ({"layers": 1}, 3)]
)
def test_the_receptive_field_is_as_far_as_the_last_sample_looks(arguments, reach):
    model = tiny(40, **arguments)
    assert model.receptive_field == reach
    x = torch.randint(7, (40,))
    changed = []
    for place in range(39):
        other = x.clone()
        other[place] = (x[place] + 3) % 7
        if (model.conditionals(other).logits[-1] - model.conditionals(x).logits[-1]).abs().max() > 1e-12:
            changed.append(39 - place)
    assert max(changed) == reach and set(changed) >= {1, reach}


def test_zoo_has_the_size_that_it_says():
    model = zoo.WaveNet((4096,))
    assert model.dilations == (1, 2, 4, 8, 16, 32, 64, 128, 256) * 2
    assert model.receptive_field == 1023
    C, S, L, K = 32, 64, 18, 256
    expected = 2 * C + L * (4 * C * C + 2 * C) + (L - 1) * C * C + L * C * S + S + S * S + S + S * K + K
    assert sum(param.numel() for param in model.parameters()) == expected


@pytest.mark.parametrize("kernel_size", [2, 3, 4])
@torch.no_grad()
def test_queues_hold_what_one_pass_computes(kernel_size):
    model, x = tiny(kernel_size=kernel_size), torch.randint(7, (2, 40))
    state, expected = model.initial_state(), model.params(x)
    for step, value in enumerate(x.unbind(1)):
        assert torch.allclose(model.params_at(step, state), expected[:, step], rtol=0, atol=1e-12), step
        state = model.advance(step, state, value)
    spans = [(kernel_size - 1) * dilation for dilation in model.dilations]
    assert [len(queue) for queue in state.queues] == spans


@pytest.mark.parametrize("chunk", [1, 13, 1000])
def test_a_long_sequence_is_scored_in_parts_as_in_one(chunk, monkeypatch):
    monkeypatch.setattr(module, "CHUNK", chunk)
    model, x = tiny(), torch.randint(7, (60,))
    log_prob = model.train().log_prob_of(x)
    assert model.training and not log_prob.requires_grad
    whole = zoo.WaveNet((60,), **TINY).double()
    whole.load_state_dict(model.state_dict())
    assert torch.allclose(log_prob, whole.conditionals(x).log_prob(x), rtol=0, atol=1e-12)
    assert log_prob.sum().item() == pytest.approx(whole.log_prob(x.unsqueeze(0)).item())


@pytest.mark.parametrize("chunk", [1, 100, 10_000])
def test_items_are_scored_together_or_one_by_one(chunk, monkeypatch):
    monkeypatch.setattr(module, "CHUNK", chunk)
    model, x = tiny(), torch.randint(7, (2, 3, 40))
    expected = model.conditionals(x).log_prob(x).sum(-1)
    assert torch.allclose(model.log_prob(x), expected, rtol=0, atol=1e-12)
    assert torch.allclose(model.log_prob(x[0, 0]), expected[0, 0], rtol=0, atol=1e-12)


@pytest.mark.parametrize("kernel_size", [2, 3, 4])
@pytest.mark.parametrize("known", [0, 1, 5, 39])
@torch.no_grad()
def test_ring_buffers_hold_what_one_pass_computes(kernel_size, known):
    model, x = tiny(kernel_size=kernel_size), torch.randint(7, (2, 40))
    rings = RingBuffers(model, 2, x[0, :known])
    expected = model.params(torch.cat([x[:1, :known].expand(2, -1), x[:, known:]], dim=1))
    rings.draw(0)  # takes in the prefix
    for step in range(len(rings.prefix), 40):
        rings.compute_column()
        place = step - len(rings.prefix) + known
        if place == 40:
            break
        assert torch.allclose(rings.logits(), expected[:, place], rtol=0, atol=1e-12)
        rings.take(x[:, place])


def test_what_is_generated_after_a_prefix_follows_the_conditionals():
    model = tiny()
    prefix = torch.randint(7, (33,))  # longer than the 15 samples that count
    drawn = model.generate(20_000, 2, prefix=prefix, seed=0)
    assert drawn.shape == (20_000, 2) and drawn.dtype == torch.int64
    pairs = torch.cartesian_prod(torch.arange(7), torch.arange(7))
    longer = torch.cat([prefix.expand(49, -1), pairs], 1)
    expected = 20_000 * model.conditionals(longer).log_prob(longer)[:, -2:].sum(1).exp().detach()
    count = torch.bincount(7 * drawn[:, 0] + drawn[:, 1], minlength=49)
    often = expected > 5
    statistic = ((count - expected).square() / expected)[often].sum().item()
    assert often.sum() > 20 and chi2.sf(statistic, int(often.sum()) - 1) > 1e-3


@torch.no_grad()
def test_only_as_much_of_a_prefix_counts_as_the_model_reaches():
    model = tiny()

    def logits(prefix):
        rings = RingBuffers(model, 1, prefix)
        rings.draw(0)
        rings.compute_column()
        return rings.logits()

    prefix = torch.randint(7, (30,))
    other = prefix.clone()
    other[-15] = (prefix[-15] + 3) % 7
    assert torch.equal(logits(prefix), logits(prefix[-15:]))
    assert not torch.allclose(logits(prefix), logits(other), rtol=0, atol=1e-9)
    assert torch.equal(
        model.generate(3, 50, prefix=prefix, seed=1), model.generate(3, 50, prefix=prefix[-15:], seed=1)
    )


def test_generating_is_reproducible_and_leaves_the_generator_as_it_was():
    model = tiny().train()
    state = torch.get_rng_state()
    assert torch.equal(model.generate(2, 30, seed=3), model.generate(2, 30, seed=3))
    assert torch.equal(torch.get_rng_state(), state) and model.training
    assert not torch.equal(model.generate(2, 30, seed=3), model.generate(2, 30, seed=4))
    assert not torch.equal(model.generate(2, 30), model.generate(2, 30))


def test_noise_in_blocks_of_any_size_is_drawn_for_every_sample(monkeypatch):
    from zoo.autoregressive import ring_buffers

    monkeypatch.setattr(ring_buffers, "NOISE", 20)
    drawn = tiny().generate(2, 31, seed=0)
    assert drawn.shape == (2, 31) and ((drawn >= 0) & (drawn < 7)).all() and len(drawn.unique()) > 3


def test_dropout_drops_in_training_alone():
    model, x = tiny(dropout=0.5), torch.randint(7, (4, 40))
    assert torch.equal(model.log_prob(x), model.log_prob(x))
    model.train()
    assert not torch.equal(model.log_prob(x), model.log_prob(x))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"event_shape": (2, 3)}, r"event_shape must be \(samples,\), got \(2, 3\)"),
        ({"num_levels": 2}, "num_levels must be at least 3, got 2"),
        ({"residual_channels": 0}, "residual_channels must be at least 1, got 0"),
        ({"skip_channels": 0}, "skip_channels must be at least 1, got 0"),
        ({"layers": 0}, "layers must be at least 1, got 0"),
        ({"stacks": 0}, "stacks must be at least 1, got 0"),
        ({"kernel_size": 1}, "kernel_size must be at least 2, got 1"),
        ({"dropout": 1.0}, "dropout must lie between 0 and 1, below it, got 1.0"),
    ],
)
def test_wrong_arguments_are_refused(arguments, words):
    with pytest.raises(ValueError, match=words):
        zoo.WaveNet(**{"event_shape": (5,), **TINY, **arguments})


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ([1, 2], "of torch.int64 and shape (samples,), got list"),
        (torch.zeros(4), "of torch.int64 and shape (samples,), got torch.float32 of (4,)"),
        (torch.zeros(1, 4, dtype=torch.int64), "got torch.int64 of (1, 4)"),
        (torch.tensor([0, 7]), "in 0 ... 6, got 0 ... 7"),
        (torch.tensor([0, -1]), "in 0 ... 6, got -1 ... 0"),
    ],
)
def test_what_is_no_sequence_of_levels_is_refused(wrong, words):
    model = tiny()
    for what, refuse in (
        ("a sequence", model.log_prob_of),
        ("a prefix", lambda wrong: model.generate(1, 1, prefix=wrong)),
    ):
        with pytest.raises(ValueError) as caught:
            refuse(wrong)
        assert f"expected {what}" in str(caught.value) and words in str(caught.value)


def test_nothing_to_score_or_to_draw_is_refused():
    model = tiny()
    with pytest.raises(ValueError, match=r"expected a sequence .* got torch.int64 of \(0,\)"):
        model.log_prob_of(torch.empty(0, dtype=torch.int64))
    for num, length in ((0, 1), (1, 0)):
        with pytest.raises(ValueError, match=f"at least 1, got {num} and {length}"):
            model.generate(num, length)
