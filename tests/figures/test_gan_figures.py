"""The headline figure of adversarial training: a divergence that is known."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch

import inference

pytestmark = pytest.mark.figures


def jensen_shannon(p: dist.Distribution, q: dist.Distribution, points: torch.Tensor, volume: float) -> float:
    """In nats, by quadrature: ½ KL(p, m) + ½ KL(q, m), m = (p + q) / 2."""
    log_p, log_q = p.log_prob(points), q.log_prob(points)
    log_m = torch.logaddexp(log_p, log_q) - math.log(2)
    total = log_p.exp() * (log_p - log_m) + log_q.exp() * (log_q - log_m)
    return 0.5 * total.sum().item() * volume


def pairs(dtype: torch.dtype) -> dict[str, tuple[dist.Distribution, dist.Distribution]]:
    """Laws of items, and of draws."""
    two = torch.tensor([[-1.0, 0.0], [1.0, 0.5]], dtype=dtype)
    half = torch.tensor(0.5, dtype=dtype)
    return {
        "one dimension": (
            dist.Normal(0 * half.expand(1), 2 * half).to_event(1),
            dist.Normal(2 * half.expand(1), 4 * half).to_event(1),
        ),
        "two modes": (
            dist.MixtureSameFamily(
                dist.Categorical(probs=half.expand(2)), dist.Normal(two, half).to_event(1)
            ),
            dist.Normal(0 * half.expand(2), 2 * half).to_event(1),
        ),
    }


@pytest.mark.parametrize("name", ["one dimension", "two modes"])
def test_the_discriminator_at_its_optimum_tells_the_jensen_shannon_divergence(name, record_result):
    """The program has no parameters: the discriminator learns alone, to its best on items held out."""
    p, q = pairs(torch.float32)[name]

    def drawing(x):
        with pyro.plate("data", len(x)):
            return pyro.sample("x", q)

    torch.manual_seed(0)
    items, held_out, fresh = p.sample((50_000,)), p.sample((20_000,)), p.sample((400_000,))
    objective = inference.Adversarial(drawing, discriminator=(64, 64))
    result = inference.fit(
        *(objective, items),
        valid=held_out,
        **{"epochs": 20, "batch_size": 1000, "lr": 5e-3, "schedule": "cosine", "progress": False},
    )
    estimate = objective.divergence(fresh, seed=1)
    line = torch.linspace(-12, 12, 1201 if name == "two modes" else 20_001, dtype=torch.float64)
    step = (line[1] - line[0]).item()
    dims = 2 if name == "two modes" else 1
    points = torch.cartesian_prod(*[line] * dims).reshape(-1, dims)
    exact = jensen_shannon(*pairs(torch.float64)[name], points, step**dims)
    record_result(
        f"gan-divergence-{name.replace(' ', '-')}",
        {"nats": exact, "estimate": estimate, "seconds": round(result.seconds, 1)},
    )
    assert estimate == pytest.approx(exact, rel=0.02)
