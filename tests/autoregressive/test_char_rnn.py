"""What only the character RNN promises: its formula, the state that it carries, any length, the end."""

import math

import pytest
import torch
from torch.nn.functional import log_softmax, one_hot

import zoo
from zoo.autoregressive import char_rnn

CELLS = ("tanh", "lstm", "gru")


def network(cell="lstm", length=6, **arguments) -> zoo.CharRNN:
    torch.manual_seed(0)
    rnn = zoo.CharRNN((length,), num_levels=4, hidden=7, cell=cell, **arguments)
    with torch.no_grad():
        for param in rnn.parameters():
            param += 0.5 * torch.randn_like(param)
    return rnn


def text(length: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(4, (length,), generator=torch.Generator().manual_seed(seed))


def test_the_conditionals_are_the_recurrence_of_the_docstring():
    rnn = network("tanh").double()
    weights = dict(rnn.rnn.named_parameters())
    x = text(6)
    h, expected = rnn.start[0, 0], []
    for character in x:
        expected.append(log_softmax(rnn.head.weight @ h + rnn.head.bias, -1)[character])
        inputs = weights["weight_ih_l0"] @ one_hot(character, 4).double() + weights["bias_ih_l0"]
        h = torch.tanh(inputs + weights["weight_hh_l0"] @ h + weights["bias_hh_l0"])
    assert torch.allclose(rnn.log_prob(x.unsqueeze(0)), sum(expected))
    assert torch.allclose(rnn.log_prob_of(x), torch.stack(expected))


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("layers", [1, 2])
def test_a_text_in_pieces_with_its_state_is_the_text_in_one(cell, layers):
    rnn = network(cell, layers=layers)
    x = torch.stack([text(30, seed) for seed in range(3)])
    whole, after = rnn.log_prob_from(x)
    state, parts = None, []
    for piece in x.split([1, 9, 20], dim=1):
        log_prob, state = rnn.log_prob_from(piece, state)
        parts.append(log_prob)
    assert torch.allclose(sum(parts), whole, atol=1e-5)
    assert torch.allclose(state[0], after[0], atol=1e-5)
    # The state matters: a piece that begins anew is worth something else.
    assert not torch.allclose(rnn.log_prob_from(x[:, 10:])[0], parts[2], atol=1e-2)


@pytest.mark.parametrize("cell", CELLS)
def test_a_long_text_is_read_in_chunks_with_its_state(cell, monkeypatch):
    rnn = network(cell, dropout=0.5)
    x = text(50)
    monkeypatch.setattr(char_rnn, "CHUNK", 7)
    found = rnn.train().log_prob_of(x)
    assert rnn.training and not found.requires_grad and found.shape == (50,)
    rnn.eval()
    state, expected = rnn.initial_state(), []
    for step, value in enumerate(x):
        expected.append(rnn.conditional(step, state).log_prob(value))
        state = rnn.advance(step, state, value)
    assert torch.allclose(found, torch.stack(expected), atol=1e-5)


def test_dropout_is_for_training_alone():
    rnn = network(dropout=0.5)
    x = text(6).unsqueeze(0)
    assert not torch.equal(rnn.train().log_prob(x), rnn.log_prob(x))
    assert torch.equal(rnn.eval().log_prob(x), rnn.log_prob(x))


# Writing


def test_what_is_written_follows_the_prefix(monkeypatch):
    """One character after a long prefix is drawn by its conditional: frequencies against probabilities."""
    monkeypatch.setattr(char_rnn, "CHUNK", 5)
    rnn, prefix = network("gru"), text(23)
    probabilities = torch.stack(
        [rnn.log_prob_of(torch.cat([prefix, torch.tensor([last])]))[-1] for last in range(4)]
    ).exp()
    drawn = rnn.generate(20_000, 1, prefix=prefix, seed=1)
    assert drawn.shape == (20_000, 1)
    found = drawn.flatten().bincount(minlength=4) / 20_000
    assert torch.allclose(found, probabilities, atol=0.015)
    warm = rnn.generate(20_000, 1, prefix=prefix, temperature=3.0, seed=1)
    flattened = (probabilities.log() / 3).softmax(0)
    assert torch.allclose(warm.flatten().bincount(minlength=4) / 20_000, flattened, atol=0.015)


def test_without_a_prefix_it_draws_items_as_sample_does():
    rnn = network("lstm")
    assert torch.equal(rnn.generate(5, 6, seed=3), rnn.sample(5, seed=3))
    assert torch.equal(rnn.generate(5, 6, seed=3, prefix=text(0)), rnn.sample(5, seed=3))
    longer = rnn.generate(5, 40, seed=3)
    assert longer.shape == (5, 40) and torch.equal(longer[:, :6], rnn.sample(5, seed=3))


def test_each_character_costs_one_step(monkeypatch):
    rnn = network()
    read, lengths = rnn.read, []
    monkeypatch.setattr(rnn, "read", lambda x, state: lengths.append(x.shape[-1]) or read(x, state))
    rnn.generate(2, 9, prefix=text(30), seed=0)
    assert lengths == [30] + [1] * 9


def test_a_seed_leaves_the_generators_alone():
    rnn = network()
    before = torch.random.get_rng_state()
    assert torch.equal(rnn.generate(2, 9, seed=5), rnn.generate(2, 9, seed=5))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert not torch.equal(rnn.generate(2, 9), rnn.generate(2, 9))


# The end


def test_after_the_end_there_is_nothing_else():
    rnn = network("lstm", length=5, end=2)
    ended = torch.tensor([[0, 2, 2, 2, 2]])
    state, worth = rnn.initial_state(), 0.0
    for step, value in enumerate(ended[0, :2]):
        worth += rnn.conditional(step, state).log_prob(value).item()
        state = rnn.advance(step, state, value)
    assert rnn.log_prob(ended).item() == pytest.approx(worth, abs=1e-5)
    assert rnn.log_prob(ended).item() == pytest.approx(rnn.log_prob_of(ended[0, :2]).sum().item(), abs=1e-5)
    assert rnn.log_prob(torch.tensor([[0, 2, 2, 1, 2]])).item() == -math.inf
    drawn = rnn.sample(500, seed=0)
    came = (drawn == 2).cumsum(1) > 0
    assert came.any() and (drawn[came] == 2).all() and not came.all()
    # The state remembers it, across pieces too.
    _, state = rnn.log_prob_from(ended[:, :2])
    assert rnn.log_prob_from(ended[:, 2:], state)[0].item() == 0
    assert rnn.log_prob_from(torch.tensor([[2, 0]]), state)[0].item() == -math.inf
    assert (rnn.generate(3, 2, prefix=torch.tensor([1, 2]), seed=0) == 2).all()


def test_a_prefix_longer_than_the_context_is_refused():
    rnn = network(length=5, end=2)
    assert rnn.generate(1, 2, prefix=text(3)).shape == (1, 2)
    for asked in (lambda: rnn.generate(1, 1, prefix=text(5)), lambda: rnn.generate(1, 3, prefix=text(3))):
        with pytest.raises(ValueError, match="longer than the context, 5 characters: shorten it"):
            asked()
    with pytest.raises(ValueError, match="a text of 6 is longer than the context, 5 characters"):
        rnn.log_prob_of(text(6))


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"num": 0}, "num and length must be at least 1, got 0 and 3"),
        ({"length": 0}, "num and length must be at least 1, got 1 and 0"),
        ({"temperature": 0.0}, r"temperature must be at least 1e-6, and finite, got 0\.0"),
        ({"temperature": math.nan}, "temperature must be at least 1e-6, and finite, got nan"),
        ({"prefix": torch.tensor([4])}, r"a prefix in 0 \.\.\. 3, got 4 \.\.\. 4"),
        ({"prefix": torch.tensor([1, -1])}, r"a prefix in 0 \.\.\. 3, got -1 \.\.\. 1"),
        (
            {"prefix": torch.tensor([1.0])},
            r"torch\.int64 and shape \(length,\), got torch\.float32 of \(1,\)",
        ),
        ({"prefix": torch.tensor([[1]])}, r"shape \(length,\), got torch\.int64 of \(1, 1\)"),
        ({"prefix": "ROMEO:"}, r"shape \(length,\), got str"),
    ],
)
def test_bad_requests(asked, words):
    with pytest.raises(ValueError, match=words):
        network().generate(**{"num": 1, "length": 3, **asked})


def test_an_empty_text_has_no_probability_to_give():
    with pytest.raises(ValueError, match="at least one character, got none"):
        network().log_prob_of(text(0))


def test_items_that_go_on_after_their_end_are_refused():
    model = zoo.CharRNN((4,), 5, hidden=4, end=0)
    model.check(torch.tensor([[1, 2, 0, 0], [1, 2, 3, 4]]))
    with pytest.raises(
        ValueError, match=r"nothing but 0 after the first 0.* in 1 of 2; is end another symbol\?"
    ):
        model.check(torch.tensor([[1, 0, 2, 0], [1, 2, 3, 4]]))
