"""The lecture's point: which modes a Gaussian covers, by the divergence that it is fitted under."""

import math
import runpy
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

pytestmark = pytest.mark.figures

EXAMPLE = Path(__file__).parents[2] / "examples" / "divergences.py"
LINE = torch.linspace(-12, 12, 4001, dtype=torch.float64)
STEP = (LINE[1] - LINE[0]).item()

DIVERGENCES = {
    "forward KL(p, q)": lambda p, q: kl(p, q),
    "reverse KL(q, p)": lambda p, q: kl(q, p),
    "Jensen–Shannon": lambda p, q: (kl(p, (p + q) / 2) + kl(q, (p + q) / 2)) / 2,
    "Wasserstein": lambda p, q: (STEP * (p - q).cumsum(0)).abs().sum() * STEP,
}
"""Between densities on `LINE`; the last is W_1, the area between the distribution functions."""


def kl(p: Tensor, q: Tensor) -> Tensor:
    return (torch.xlogy(p, p) - torch.xlogy(p, q.clamp(min=1e-300))).sum() * STEP


def density(loc: float | Tensor, scale: float | Tensor) -> Tensor:
    return torch.exp(-0.5 * ((LINE - loc) / scale) ** 2) / (scale * math.sqrt(2 * math.pi))


@pytest.fixture(scope="module")
def fits(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("divergences"))
        patch.setattr(sys, "argv", ["divergences.py"])
        return runpy.run_path(str(EXAMPLE), run_name="__main__")["fits"]


@pytest.fixture(scope="module")
def target():
    return 0.65 * density(-2.0, 0.5) + 0.35 * density(2.0, 0.5)


def minimum(divergence, target, loc, scale):
    """The nearest minimum, by the gradient of the divergence itself."""
    at = torch.tensor([loc, math.log(scale)], dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([at], max_iter=200, line_search_fn="strong_wolfe")

    def step():
        optimizer.zero_grad()
        loss = divergence(target, density(at[0], at[1].exp()))
        loss.backward()
        return loss

    optimizer.step(step)
    return at[0].item(), at[1].exp().item()


@pytest.mark.parametrize("start", ["narrow", "wide"])
@pytest.mark.parametrize("name", DIVERGENCES)
def test_a_fit_is_at_a_minimum_of_its_divergence(fits, target, name, start):
    found = fits[name, start]
    loc, scale = found.mean.item(), found.stddev.item()
    best_loc, best_scale = minimum(DIVERGENCES[name], target, loc, scale)
    assert loc == pytest.approx(best_loc, abs=0.15)
    assert scale == pytest.approx(best_scale, abs=0.15)


def test_which_modes_are_covered(fits):
    for start in ("narrow", "wide"):
        for covering in ("forward KL(p, q)", "Wasserstein"):
            assert fits[covering, start].stddev > 1.7, "both modes"
        assert fits["reverse KL(q, p)", start].mean == pytest.approx(-2, abs=0.05), "the heavier mode"
        assert fits["reverse KL(q, p)", start].stddev == pytest.approx(0.5, abs=0.05)
    assert fits["Jensen–Shannon", "narrow"].stddev < 0.6, "one mode from one start"
    assert fits["Jensen–Shannon", "wide"].stddev > 1.7, "and both from another"


def test_of_the_two_minima_of_jensen_shannon_a_single_mode_is_the_lower(fits, target):
    value = {
        start: DIVERGENCES["Jensen–Shannon"](
            target, density(fits["Jensen–Shannon", start].mean, fits["Jensen–Shannon", start].stddev)
        )
        for start in ("narrow", "wide")
    }
    assert value["narrow"] < value["wide"] - 0.04
