"""How far the moments of every kernel's draws are from the exact ones, and those of broken kernels."""

from dataclasses import replace

import pytest
import torch

from tests.inference.targets import TARGETS
from tests.inference.test_sampler_conformance import (
    BROKEN,
    CASES,
    SEED,
    as_foretold,
    bias,
    bias_foretold,
    gaussian_2,
    is_slow,
    langevin,
    reached,
    stayed,
)

pytestmark = pytest.mark.figures


def test_every_kernel_on_every_target(record_result):
    """The slow pairs, which the tests leave out, as well."""
    found = {}
    for name, case in CASES.items():
        by_target = {}
        for of, made in TARGETS.items():
            target = made()
            if not case.takes(target):
                continue
            if case.is_ours and is_slow(case, target):
                run = replace(case, warmup=2000, draws=2000)
            else:
                run = case if case.is_ours else replace(case, warmup=60, draws=40, chains=40)
            deviations = target.deviations(reached(case.make(target), target, run))
            by_target[of] = {"moments": len(deviations), "largest": deviations.abs().max().item()}
        found[name] = by_target
    record_result("sampler-moments", {"seed": SEED, "limit": 4, "kernels": found})
    assert len(found["RandomWalkMetropolis"]) == 7 and len(found["Gibbs"]) == 2
    for name, by_target in found.items():
        for of, each in by_target.items():
            assert each["largest"] < 4, (name, of)


def test_broken_kernels_are_far_off(record_result):
    found = {}
    for name, (kernel, of, breaks) in BROKEN.items():
        target = TARGETS[of]()
        sound = target.deviations(stayed(CASES[kernel].make(target), target)).abs().max().item()
        with pytest.MonkeyPatch.context() as patch:
            breaks(patch)
            broken = target.deviations(stayed(CASES[kernel].make(target), target)).abs().max().item()
        found[name] = {"kernel": kernel, "target": of, "sound": sound, "broken": broken}
    record_result("sampler-broken", found)
    for name, each in found.items():
        assert each["sound"] < 4 < each["broken"], name


def test_langevins_bias_shrinks_with_its_step_size(record_result):
    target, rows = gaussian_2(), []
    for step in (0.4, 0.2, 0.1, 0.05):
        torch.manual_seed(SEED + 1)
        samples = langevin(target, step, target.draw(10_000), 50)
        foretold = as_foretold(target, step)
        squares = samples["x"].square().sum(-1).mean(1)
        rows.append(
            {
                "step_size": step,
                "bias": bias(target, samples),
                "mcse": (squares.std() / len(squares) ** 0.5).item(),
                "foretold": bias_foretold(target, step),
                "largest": foretold.deviations(samples).abs().max().item(),
            }
        )
    record_result("langevin-bias", {"of": "E[|x|²] = 2 of a Gaussian", "rows": rows})
    for row in rows:
        assert row["largest"] < 4, row
        assert abs(row["bias"] - row["foretold"]) < 4 * row["mcse"] < row["foretold"], row
    for larger, smaller in zip(rows, rows[1:], strict=False):
        assert 1.8 < larger["bias"] / smaller["bias"] < 3, (larger, smaller)
