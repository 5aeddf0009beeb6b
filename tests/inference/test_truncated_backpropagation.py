"""Truncated backpropagation: streams that go on, a state that is carried, and that leaks nowhere."""

import copy

import pytest
import torch
from torch import nn

import inference
import zoo
from inference.training import _Items
from zoo.data.sequences import SequenceSplit


class Counting(nn.Module):
    """A user's own model: its state is the sum of all numbers so far, and a window's figure depends on it."""

    def __init__(self):
        super().__init__()
        self.w = nn.Parameter(torch.tensor(0.5))
        self.states = []

    def model(self, x):
        import pyro
        import pyro.distributions as dist

        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(self.w, 1.0).expand([x.shape[1]]).to_event(1), obs=x)

    def guide(self, x):
        pass

    def initial_state(self):
        return (torch.zeros(()),)

    def log_prob_from(self, x, state):
        (total,) = state
        total = total.expand(len(x))
        self.states.append(total.detach().clone())
        return -self.w * (x.sum(1) + total), (total + x.sum(1) * self.w / self.w,)


def split(lengths=(20, 14, 9), window=3) -> SequenceSplit:
    generator = torch.Generator().manual_seed(0)
    return SequenceSplit([torch.randint(3, (length,), generator=generator) for length in lengths], window)


def small_rnn(**arguments) -> zoo.CharRNN:
    torch.manual_seed(1)
    return zoo.CharRNN((3,), num_levels=3, hidden=4, cell="lstm", **arguments)


def fit(objective, train=None, **settings):
    defaults = {"epochs": 4, "batch_size": 4, "lr": 0.02, "progress": False, "checkpoint_seconds": 0.0}
    return inference.fit(objective, split() if train is None else train, **{**defaults, **settings})


def weights(module):
    return nn.utils.parameters_to_vector(module.parameters())


@pytest.mark.parametrize(("num", "rows"), [(12, 4), (14, 4), (15, 4), (3, 4), (5, 5), (1, 1), (9, 2)])
def test_every_row_is_a_stream_and_every_item_is_there_once(num, rows):
    order = inference.TruncatedBackpropagation(small_rnn()).order(num, rows)
    assert sorted(order.tolist()) == list(range(num))
    batches = order.split(rows)
    assert all(len(batch) == min(rows, num) for batch in batches[:-1])
    for before, after in zip(batches, batches[1:], strict=False):
        assert torch.equal(after, before[: len(after)] + 1)


def test_the_state_is_carried_along_streams_and_dropped_where_a_sequence_starts():
    counting = Counting()
    objective = inference.TruncatedBackpropagation(counting)
    x = torch.arange(1.0, 9.0).unsqueeze(1)  # eight windows of a single number
    starts = torch.tensor([True, False, False, True, False, False, False, False])
    fit(objective, (x, starts), epochs=2, batch_size=2, lr=1e-9)
    # Rows 1, 2, 3, 4 and 5, 6, 7, 8. The fourth starts a sequence. The second epoch begins anew.
    one_pass = [[0, 0], [1, 5], [3, 11], [0, 18]]
    assert [state.tolist() for state in counting.states] == one_pass * 2


def test_what_is_left_at_the_end_goes_on_with_the_first_rows():
    counting = Counting()
    objective = inference.TruncatedBackpropagation(counting)
    x = torch.arange(1.0, 6.0).unsqueeze(1)
    fit(objective, x, epochs=1, batch_size=2, lr=1e-9)
    assert [state.tolist() for state in counting.states] == [[0, 0], [1, 4], [3]]  # rows 1, 2, 3 and 4, 5


def test_validation_has_a_state_of_its_own():
    counting = Counting()
    objective = inference.TruncatedBackpropagation(counting)
    x = torch.arange(1.0, 5.0).unsqueeze(1)
    result = fit(objective, x, valid=10 * x, epochs=2, batch_size=2, lr=1e-9)
    train, valid = [[0, 0], [1, 3]], [[0, 0], [10, 30]]
    assert [state.tolist() for state in counting.states] == (train + valid) * 2
    # w · mean of (10, 30), (10 + 20, 30 + 40)
    assert result.history[0]["valid"] == pytest.approx(0.5 * (10 + 30 + 30 + 70) / 4, abs=1e-4)


def test_the_loss_is_that_of_the_whole_sequence_and_the_gradient_stops_at_the_window():
    rnn, x = small_rnn(), torch.randint(3, (2, 6), generator=torch.Generator().manual_seed(3))
    objective = inference.TruncatedBackpropagation(rnn)
    first, second = objective(x[:, :3]), objective(x[:, 3:])
    assert (first + second).item() == pytest.approx(-rnn.log_prob_from(x)[0].mean().item(), abs=1e-5)
    (through,) = torch.autograd.grad(second, [rnn.start])
    assert not through.any()
    (own,) = torch.autograd.grad(first, [rnn.start])
    assert own.abs().sum() > 0


def test_a_pass_over_a_text_gives_what_the_text_is_worth():
    rnn, data = small_rnn(), split((21, 12))
    objective = inference.TruncatedBackpropagation(rnn)
    result = fit(objective, data, valid=data, epochs=1, batch_size=1, lr=1e-9)
    whole = sum(rnn.log_prob_of(sequence).sum().item() for sequence in data.sequences)
    assert result.history[0]["valid"] * len(data) == pytest.approx(-whole, abs=1e-3)


def test_what_a_window_begins_with_is_learnt_from_the_one_before():
    """0, 1, 2, 0, 1, 2, … in windows of two: each alone must guess where it begins, at log 3 nats."""
    data, losses = SequenceSplit([torch.arange(3).repeat(60)], 2), {}
    for cls in (inference.TruncatedBackpropagation, inference.MaximumLikelihood):
        torch.manual_seed(0)
        rnn = zoo.CharRNN((2,), num_levels=3, hidden=8, cell="gru")
        losses[cls] = fit(cls(rnn), data, epochs=6, batch_size=3, lr=0.1).history[-1]["train"]
    assert losses[inference.TruncatedBackpropagation] < 0.1
    assert losses[inference.MaximumLikelihood] > 1.09


# Resuming


class FailsAt:
    """A logger that raises at the end of an epoch."""

    def __init__(self, epoch):
        self.epoch = epoch

    def log_metrics(self, metrics, step):
        if step == self.epoch:
            raise KeyboardInterrupt


@pytest.fixture(scope="module")
def uninterrupted():
    rnn = small_rnn(dropout=0.3)
    return fit(inference.TruncatedBackpropagation(rnn), valid=split((13,))).history, weights(rnn)


@pytest.mark.parametrize("epoch", [2, 3])
@pytest.mark.parametrize("same", [True, False])
def test_interrupted_and_resumed_it_ends_in_the_same_bits(tmp_path, uninterrupted, epoch, same):
    objective = inference.TruncatedBackpropagation(small_rnn(dropout=0.3))
    settings = {"valid": split((13,)), "checkpoint": tmp_path / "c.pt"}
    assert fit(objective, logger=FailsAt(epoch), **settings).interrupted
    if not same:
        objective = inference.TruncatedBackpropagation(small_rnn(dropout=0.3))
    resumed = fit(objective, **settings)
    assert resumed.history == uninterrupted[0]
    assert torch.equal(weights(objective.program.source[0]), uninterrupted[1])


def test_a_state_that_was_left_there_changes_nothing(uninterrupted):
    rnn = small_rnn(dropout=0.3)
    objective = inference.TruncatedBackpropagation(rnn)
    objective(torch.ones(4, 3, dtype=torch.int64))
    assert objective.state is not None
    assert fit(objective, valid=split((13,))).history == uninterrupted[0]


def test_the_checkpoint_holds_no_state(tmp_path):
    objective = inference.TruncatedBackpropagation(small_rnn())
    names = set(objective.state_dict())
    fit(objective)
    assert set(objective.state_dict()) == names
    copy.deepcopy(objective)


# What is refused


def test_a_model_that_carries_no_state_is_refused():
    with pytest.raises(ValueError, match="NADE has not; MaximumLikelihood trains it window by window"):
        inference.TruncatedBackpropagation(zoo.NADE((3,)))


def test_more_rows_than_before_are_refused():
    objective = inference.TruncatedBackpropagation(small_rnn())
    objective(torch.ones(2, 3, dtype=torch.int64))
    with pytest.raises(ValueError, match="expected at most 2 rows, as the batch before, got 3"):
        objective(torch.ones(3, 3, dtype=torch.int64))


def test_windows_that_do_not_suit_the_model_are_refused():
    objective = inference.TruncatedBackpropagation(small_rnn())
    with pytest.raises(ValueError, match=r"items of shape \(batch, 3\), got \(4, 5\)"):
        fit(objective, torch.ones(4, 5, dtype=torch.int64))
    with pytest.raises(ValueError, match="without chains or state of its own"):
        fit(objective, compile=True)


def test_items_of_a_plain_split_are_sequences_of_their_own():
    objective = inference.TruncatedBackpropagation(small_rnn())
    _, starts = _Items(objective, zoo.Split(split((12,)).x)).batch(torch.arange(4))
    assert starts.all()


def test_windows_alone_are_those_of_one_sequence():
    items = _Items(inference.TruncatedBackpropagation(small_rnn()), split((12,)).x)
    x, starts = items.batch(torch.arange(4))
    assert x.shape == (4, 3) and starts.tolist() == [True, False, False, False]
