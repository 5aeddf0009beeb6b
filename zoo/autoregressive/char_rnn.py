"""Character RNN: a recurrent state that has read the characters so far.

    h_{t+1} = tanh(W_hh h_t + W_xh x_{t+1}),    p(x_{t+1} | x_≤t) = softmax(W_hy h_t),

with a bias in each, x as one of K; or an LSTM or a GRU in place of the first. h_0 is learnt.

References:
    | Finding structure in time (Elman, 1990)
    | Generating sequences with recurrent neural networks (Graves, 2013), section 2
    | Long short-term memory (Hochreiter & Schmidhuber, 1997)
    | Learning phrase representations using RNN encoder-decoder for statistical machine translation
      (Cho et al., 2014), section 2.3 for the GRU
"""

import math
from typing import Literal

import pyro
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from zoo.autoregressive.autoregressive import Autoregressive
from zoo.model import evaluation_mode

Cell = Literal["tanh", "lstm", "gru"]

CELLS = {"tanh": nn.RNN, "lstm": nn.LSTM, "gru": nn.GRU}

State = tuple[Tensor, Tensor]
"""What the cells hold, ``(..., 1 or 2, layers, hidden)``, an LSTM both h and c; whether the end has come."""

CHUNK = 4096
"""Characters of a text that are read at once where nothing is to be learnt."""


class CharRNN(Autoregressive):
    """Recurrent network over characters, or over other sequences of symbols without an order among them.

    Args:
        event_shape: ``(T,)``: characters of an item. A text of any length can be read and written besides,
            unless the items end, by ``end``.
        num_levels: K, the size of the alphabet, at least 3; the entries are integers 0 … K - 1, int64.
        hidden: Numbers that a layer's h holds, at least 1.
        layers: How many layers, at least 1: each reads the h of the one before.
        cell: ``"tanh"`` as above, ``"lstm"`` or ``"gru"``.
        dropout: Share of the h of each layer that is zero in training, 0 to below 1.
        end: The symbol that ends an item, and fills it up: after it, nothing else has positive probability.

    Raises:
        ValueError: If an argument is none of the above.

    Example:
        >>> rnn = CharRNN((20,), num_levels=5, hidden=8, cell="lstm")
        >>> rnn.sample(3).shape
        torch.Size([3, 20])
        >>> rnn.log_prob_of(torch.arange(5).repeat(100)).shape
        torch.Size([500])
        >>> rnn.generate(2, 30, prefix=torch.tensor([0, 1, 2]), seed=0).shape
        torch.Size([2, 30])
    """

    recipes = {
        "shakespeare": {
            "model": {"num_levels": 84, "hidden": 512, "cell": "lstm", "dropout": 0.1},
            "objective": "truncated-backpropagation",
            "fit": {
                **{"epochs": 10, "batch_size": 32, "lr": 2e-3, "schedule": "cosine"},
                **{"clip_norm": 100.0, "precision": "bf16-mixed"},
            },
        },
        "names": {
            "model": {"num_levels": 54, "hidden": 128, "cell": "lstm", "dropout": 0.2, "end": 0},
            "objective": "maximum-likelihood",
            "fit": {"epochs": 30, "batch_size": 50, "lr": 5e-3, "schedule": "cosine"},
        },
    }

    def __init__(
        self,
        event_shape: tuple[int, ...],
        num_levels: int,
        hidden: int = 128,
        *,
        layers: int = 1,
        cell: Cell = "tanh",
        dropout: float = 0.0,
        end: int | None = None,
    ) -> None:
        super().__init__(event_shape, None, num_levels)
        if len(self.event_shape) != 1:
            raise ValueError(f"event_shape must be (length,), got {tuple(self.event_shape)}")
        if num_levels < 3:
            raise ValueError(f"num_levels must be at least 3, got {num_levels}")
        if hidden < 1 or layers < 1:
            raise ValueError(f"hidden and layers must be at least 1, got {hidden} and {layers}")
        if cell not in CELLS:
            raise ValueError(f"cell must be one of {', '.join(CELLS)}, got {cell!r}")
        if not 0 <= dropout < 1:
            raise ValueError(f"dropout must lie between 0 and 1, below it, got {dropout}")
        if end is not None and (isinstance(end, bool | float) or end not in range(num_levels)):
            raise ValueError(f"end must be one of 0 ... {num_levels - 1}, got {end}")
        self.end = end
        self.rnn = CELLS[cell](
            num_levels, hidden, layers, batch_first=True, dropout=dropout if layers > 1 else 0.0
        )
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(hidden, num_levels)
        self.start = nn.Parameter(torch.zeros(1 + (cell == "lstm"), layers, hidden))
        others = torch.arange(num_levels) != (-1 if end is None else end)
        self.register_buffer("others", others, persistent=False)

    def params(self, x: Tensor) -> Tensor:
        """Logits of all characters in one pass, shape ``(..., T, K)``."""
        state = self.initial_state()
        h, _ = self.read(x[..., :-1], state)
        return self._logits(x, h, state)

    def initial_state(self) -> State:
        """h_0, and that the end has not come."""
        return self.start, self.others.new_zeros(())

    def params_at(self, step: int, state: State) -> Tensor:
        """Logits of the character that comes after the state, shape ``(..., K)``."""
        hidden, ended = state
        return self._masked(self.head(self.dropout(hidden[..., 0, -1, :])), ended)

    def advance(self, step: int, state: State, value: Tensor) -> State:
        """The state that has read one more character."""
        return self.read(value.unsqueeze(-1), state)[1]

    def read(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """Reads on from a state: gives h after each character.

        Args:
            x: The characters, shape ``(..., t)``; t may be 0.
            state: Where to begin, its batch dimensions those of x, or such that they fit.

        Returns:
            h of the last layer, shape ``(..., t, hidden)``, and the state after the last character.
        """
        hidden, ended = state
        batch = torch.broadcast_shapes(x.shape[:-1], hidden.shape[:-3])
        hidden, x = hidden.expand(*batch, *self.start.shape), x.expand(*batch, x.shape[-1])
        if not x.shape[-1]:
            return self.start.new_zeros(*x.shape, self.rnn.hidden_size), (hidden, ended.expand(batch))
        parts = hidden.reshape(batch.numel(), *self.start.shape).permute(1, 2, 0, 3).contiguous()
        levels = torch.arange(self.num_levels, device=x.device)
        inputs = (x.reshape(batch.numel(), -1, 1) == levels).to(self.start.dtype)  # one of K
        h, last = self.rnn(inputs, tuple(parts) if len(parts) == 2 else parts[0])
        last = torch.stack(last) if len(parts) == 2 else last.unsqueeze(0)
        last = (
            last.permute(2, 0, 1, 3).reshape(hidden.shape).to(self.start.dtype)
        )  # mixed precision's is less
        ended = ended.expand(batch) if self.end is None else ended | (x == self.end).any(-1)
        return h.reshape(*batch, *h.shape[1:]), (last, ended)

    def log_prob_from(self, x: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """Log-probability of items that go on from a state, and the state after them.

        Args:
            x: The items, shape ``(..., t)``, of any length.
            state: What this gave for the items before; None is the beginning of a text.

        Returns:
            Log-probabilities in nats, shape ``(...)``, and the state.
        """
        state = self.initial_state() if state is None else state
        h, after = self.read(x, state)
        return self._of_each(x, h[..., :-1, :], state).sum(-1), after

    @torch.no_grad()
    def log_prob_of(self, sequence: Tensor) -> Tensor:
        """Log-probability of each character of one text, in nats, given all before it; without gradient.

        Args:
            sequence: The text, int64, shape ``(length,)``, of any length.

        Raises:
            ValueError: If it is no such tensor or empty, an entry is not in 0 … K - 1, or it is longer than
                an item that ends.
        """
        self._check_text("a text", sequence, room=0)
        if not len(sequence):
            raise ValueError("expected a text of at least one character, got none")
        state, parts = self.initial_state(), []
        with evaluation_mode(self):
            for x in sequence.split(CHUNK):
                h, after = self.read(x, state)
                parts.append(self._of_each(x, h[:-1], state))
                state = after
        return torch.cat(parts)

    @torch.no_grad()
    def generate(
        self,
        num: int,
        length: int,
        *,
        prefix: Tensor | None = None,
        temperature: float = 1.0,
        seed: int | None = None,
    ) -> Tensor:
        """Writes on after a prefix, one step for each character.

        Args:
            num: How many texts, at least 1.
            length: Characters of each, at least 1, without the prefix.
            prefix: What they all go on from, int64, shape ``(any length,)``; None is the beginning of a text.
            temperature: What logits are divided by: 1 draws from the model, less is more cautious.
            seed: Makes the draw reproducible, and leaves torch's generators alone; None draws from them.

        Returns:
            The characters after the prefix, shape ``(num, length)``.

        Raises:
            ValueError: If an argument is none of the above, or items end and prefix and length are together
                longer than one.
        """
        if num < 1 or length < 1:
            raise ValueError(f"num and length must be at least 1, got {num} and {length}")
        if not 1e-6 <= temperature < math.inf:
            raise ValueError(f"temperature must be at least 1e-6, and finite, got {temperature}")
        state = self.initial_state()
        self._check_text("a prefix", torch.empty(0, dtype=torch.int64) if prefix is None else prefix, length)
        fork = torch.random.fork_rng(enabled=seed is not None)
        with evaluation_mode(self), pyro.validation_enabled(False), fork:
            if seed is not None:
                torch.manual_seed(seed)
            for x in () if prefix is None else prefix.split(CHUNK):
                _, state = self.read(x, state)
            drawn: list[Tensor] = []
            for step in range(length):
                drawn.append(self._draw(self.params_at(step, state) / temperature, num))
                state = self.advance(step, state, drawn[-1])
        return torch.stack(drawn, -1)

    def check(self, x: Tensor) -> None:
        """As `GenerativeModel.check`; and after the end of an item there is nothing else.

        Raises:
            ValueError: If there is.
        """
        super().check(x)
        if self.end is not None:
            wrong = (((x == self.end).cumsum(-1) > 0) & (x != self.end)).any(-1).sum().item()
            if wrong:
                raise ValueError(
                    f"{type(self).__name__} expects nothing but {self.end} after the first {self.end}, which "
                    f"ends an item, got something else in {wrong} of {len(x)}; is end another symbol?"
                )

    def _logits(self, x: Tensor, h: Tensor, state: State) -> Tensor:
        """Logits of characters ``(..., t)``, from the state before the first, h after all but the last."""
        hidden, ended = state
        first = hidden[..., 0, -1, :].expand(*h.shape[:-2], -1).unsqueeze(-2)
        logits = self.head(self.dropout(torch.cat([first.to(h.dtype), h], -2)))
        if self.end is not None:
            came = (x == self.end).cumsum(-1)
            ended = ended.unsqueeze(-1) | (came.roll(1, -1).index_fill(-1, came.new_zeros(1), 0) > 0)
        return self._masked(logits, ended)

    def _masked(self, logits: Tensor, ended: Tensor) -> Tensor:
        """Mixed precision's in full again; after the end, all but the end impossible."""
        logits = logits.to(self.start.dtype)
        if self.end is None:
            return logits
        return logits.masked_fill(ended.unsqueeze(-1) & self.others, -torch.inf)

    def _of_each(self, x: Tensor, h: Tensor, state: State) -> Tensor:
        """Log-probability of each character, shape ``(..., t)``."""
        logits = self._logits(x, h, state)
        return -cross_entropy(logits.flatten(0, -2), x.flatten(), reduction="none").view(x.shape)

    def _check_text(self, what: str, x: Tensor, room: int) -> None:
        """Checks characters at the door, and that so many more fit into an item that ends."""
        if not isinstance(x, Tensor) or x.dim() != 1 or x.dtype != torch.int64:
            came = f"{x.dtype} of {tuple(x.shape)}" if isinstance(x, Tensor) else type(x).__name__
            raise ValueError(f"expected {what} of torch.int64 and shape (length,), got {came}")
        if len(x) and not 0 <= x.min() <= x.max() < self.num_levels:
            raise ValueError(
                f"expected {what} in 0 ... {self.num_levels - 1}, got {int(x.min())} ... {int(x.max())}"
            )
        if self.end is not None and len(x) + room > self.num_variables:
            more = f" and {room} more" if room else ""
            raise ValueError(
                f"{what} of {len(x)}{more} is longer than the context, {self.num_variables} characters: "
                "shorten it"
            )
