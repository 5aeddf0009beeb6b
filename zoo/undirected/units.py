"""The layers of a Boltzmann machine: units of one kind, independent given the fields that act on them.

Each kind is an exponential family in its field f, with a statistic s and a base energy e:

    p(z | f) = exp(s(z)·f - e(z) - A(f)),    A(f) the log of what makes it sum to one, in nats.

References:
    | Exponential Family Harmoniums with an Application to Information Retrieval
    | (Welling, Rosen-Zvi & Hinton, 2004), section 2
"""

import math

import pyro.distributions as dist
import torch
from torch import Tensor, nn
from torch.nn.functional import one_hot, softplus


class Units(nn.Module):
    """One layer; a subclass says what its units are.

    Values have the shape ``(..., *shape)``; statistics, fields and means of the statistic ``(..., num)``.

    Args:
        shape: Shape of a value of the layer.
        num: How many statistics it has.
    """

    def __init__(self, shape: tuple[int, ...], num: int) -> None:
        super().__init__()
        self.shape = torch.Size(shape)
        self.num = num

    def statistic(self, value: Tensor) -> Tensor:
        """The statistic s of values, ``(..., num)``."""
        return value.flatten(-len(self.shape)) if len(self.shape) != 1 else value

    def value(self, statistic: Tensor) -> Tensor:
        """Values that have this statistic."""
        return statistic.unflatten(-1, self.shape) if len(self.shape) != 1 else statistic

    def base_energy(self, statistic: Tensor) -> Tensor | float:
        """The energy e of values with this statistic, summed over the units; 0 where all have the same."""
        return 0.0

    def log_normalizer(self, field: Tensor) -> Tensor:
        """The log-normaliser A of a field, in nats, summed over the units."""
        raise NotImplementedError

    def mean(self, field: Tensor) -> Tensor:
        """The mean of the statistic under a field."""
        raise NotImplementedError

    def sample(self, field: Tensor) -> Tensor:
        """The statistic of a draw under a field."""
        raise NotImplementedError

    def distribution(self, field: Tensor) -> dist.Distribution:
        """The distribution of values under a field."""
        raise NotImplementedError

    def flat(self, like: Tensor) -> dist.Distribution:
        """A distribution over the support, in the type and place of ``like``, to be masked."""
        return self.distribution(like.new_zeros(self.num))

    def entropy(self, mean: Tensor) -> Tensor:
        """The entropy, in nats, of units with this mean of the statistic, summed over them."""
        raise NotImplementedError

    def field(self, mean: Tensor) -> Tensor:
        """The field under which the statistic has this mean, kept away from certainty."""
        raise NotImplementedError

    @property
    def count(self) -> float:
        """How many different values the layer can take."""
        return math.inf

    def configurations(self, like: Tensor) -> Tensor:
        """The statistic of everything that the layer can be, ``(count, num)``, in the type of ``like``."""
        raise ValueError(
            f"{type(self).__name__} cannot be enumerated: expected units of finitely many values"
        )


class BernoulliUnits(Units):
    """Units that are 0 or 1: s(z) = z, A(f) = Σ log(1 + exp f)."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__(shape, math.prod(shape))

    def log_normalizer(self, field: Tensor) -> Tensor:
        """Σ log(1 + exp f)."""
        return softplus(field).sum(-1)

    def mean(self, field: Tensor) -> Tensor:
        """σ(f), the probabilities of a 1."""
        return field.sigmoid()

    def sample(self, field: Tensor) -> Tensor:
        """Zeros and ones."""
        # Five times as fast on a CPU as torch.bernoulli.
        # In half precision a uniform number has too few digits for rare ones.
        field = field if field.dtype in (torch.float32, torch.float64) else field.float()
        uniform = torch.rand_like(field)
        return torch.lt(uniform, field.sigmoid(), out=uniform)

    def distribution(self, field: Tensor) -> dist.Distribution:
        """Bernoulli with logits f."""
        return dist.Bernoulli(logits=self.value(field)).to_event(len(self.shape))

    def entropy(self, mean: Tensor) -> Tensor:
        """Σ -m log m - (1 - m) log(1 - m)."""
        return -(mean.xlogy(mean) + (1 - mean).xlogy(1 - mean)).sum(-1)

    def field(self, mean: Tensor) -> Tensor:
        """The log-odds, of means within 0.001 and 0.999."""
        return mean.clamp(1e-3, 1 - 1e-3).logit()

    @property
    def count(self) -> int:
        """2^num."""
        return 2**self.num

    def configurations(self, like: Tensor) -> Tensor:
        """All 2^num of zeros and ones."""
        bits = torch.arange(self.num, device=like.device, dtype=torch.int32)
        number = torch.arange(self.count, device=like.device, dtype=torch.int32)
        return (number.unsqueeze(-1) >> bits & 1).to(like)


class GaussianUnits(Units):
    """Real units of a learnt scale σ: s(z) = z/σ, e(z) = ½ s², so that z given f is N(σ f, σ²)."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__(shape, math.prod(shape))
        self.log_scale = nn.Parameter(torch.zeros(self.num))

    def statistic(self, value: Tensor) -> Tensor:
        """z/σ."""
        return super().statistic(value) * (-self.log_scale).exp()

    def value(self, statistic: Tensor) -> Tensor:
        """σ s."""
        return super().value(statistic * self.log_scale.exp())

    def base_energy(self, statistic: Tensor) -> Tensor:
        """Σ ½ s²."""
        return 0.5 * statistic.square().sum(-1)

    def log_normalizer(self, field: Tensor) -> Tensor:
        """Σ ½ f² + log σ + ½ log 2π."""
        return (0.5 * field.square() + self.log_scale + 0.5 * math.log(2 * math.pi)).sum(-1)

    def mean(self, field: Tensor) -> Tensor:
        """The field itself."""
        return field

    def sample(self, field: Tensor) -> Tensor:
        """The field and standard Gaussian noise."""
        return field + torch.randn_like(field)

    def distribution(self, field: Tensor) -> dist.Distribution:
        """N(σ f, σ²)."""
        scale = self.value(torch.ones_like(field))
        return dist.Normal(self.value(field), scale).to_event(len(self.shape))

    def field(self, mean: Tensor) -> Tensor:
        """The mean itself."""
        return mean


class CategoricalUnit(Units):
    """One unit of several classes: s(z) is one-hot, A(f) = log Σ exp f. A value is the class, an integer."""

    def __init__(self, num_classes: int) -> None:
        super().__init__((), num_classes)

    def statistic(self, value: Tensor) -> Tensor:
        """One-hot."""
        return one_hot(value, self.num)

    def value(self, statistic: Tensor) -> Tensor:
        """The class, where the one is."""
        return statistic.argmax(-1)

    def log_normalizer(self, field: Tensor) -> Tensor:
        """The log of Σ exp f."""
        return field.logsumexp(-1)

    def mean(self, field: Tensor) -> Tensor:
        """The probabilities of the classes, softmax f."""
        return field.softmax(-1)

    def sample(self, field: Tensor) -> Tensor:
        """One-hot, by the largest of the fields with Gumbel noise."""
        gumbel = -torch.empty_like(field).exponential_().log()
        return one_hot((field + gumbel).argmax(-1), self.num).to(field)

    def distribution(self, field: Tensor) -> dist.Distribution:
        """Categorical with logits f."""
        return dist.Categorical(logits=field)

    def entropy(self, mean: Tensor) -> Tensor:
        """-Σ m log m."""
        return -mean.xlogy(mean).sum(-1)

    def field(self, mean: Tensor) -> Tensor:
        """The log of the means, of at least 0.001."""
        return mean.clamp(min=1e-3).log()

    @property
    def count(self) -> int:
        """How many classes there are."""
        return self.num

    def configurations(self, like: Tensor) -> Tensor:
        """One row for each class."""
        return torch.eye(self.num, dtype=like.dtype, device=like.device)
