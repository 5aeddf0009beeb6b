"""The figures of an undirected model: log Z from both sides, the bound that hangs on it, the chains."""

import math
from typing import TYPE_CHECKING, Any

from zoo.cli.report import counted

if TYPE_CHECKING:
    from inference import Diagnosis, LikelihoodEstimate, LogZEstimate
    from zoo.data import Dataset

ANNEALING = {"chains": 500, "betas": 2000}
"""Chains and steps of the annealing that a log Z is estimated by, of a machine that is not large."""

LARGE = 180_000
"""Connections from which on there are fewer chains and items, so that MNIST stays within minutes."""

POSTERIOR_PARTICLES = 20
"""Chains for each test item, where log p(v) itself is estimated."""

POSTERIOR_ITEMS = 1000
"""Test items, at most, of which the gap between bound and log p(v) is estimated."""

CHAINS, DRAWS = 100, 500
"""Of the run that tells how the chains mix, after as many sweeps that are not kept."""

LAGS = (1, 10, 100)
"""Sweeps after which the autocorrelation of the energy is written down."""


def likelihood_figures(
    model: Any,
    dataset: "Dataset",
    *,
    bound: str,
    particles: int,
    chains: int | None = None,
    betas: int | None = None,
    seed: int = 0,
) -> "tuple[LikelihoodEstimate, dict[str, Any], dict[str, Any]]":
    """The likelihood of the test items; what ``metrics.json`` holds of it besides; what it holds of chains.

    Args:
        model: A trained model whose density is unnormalised.
        dataset: What it was trained on.
        bound: ``"elbo"`` reports the variational bound, ``"importance-weighted"`` the estimate by annealing.
        particles: Chains for each item of that estimate.
        chains: Of the annealing that log Z is estimated by; None is 500, fewer where the machine is large.
        betas: Steps of that annealing; None is 2,000.
        seed: Seed of whatever is drawn.
    """
    import inference

    log_z = estimated_log_z(model, chains=chains, betas=betas, seed=seed)
    estimate = inference.log_likelihood(
        model, dataset.test, particles=particles, bound=bound, log_z=log_z, seed=seed
    )
    kernel = inference.BlockGibbs(model)
    draws = inference.run_chains(kernel, DRAWS, num_chains=CHAINS, sites=[model.names[-1]], seed=seed)
    reverse = inference.reverse_ais(model, draws.last, betas=log_z.betas, seed=seed, progress=True)
    low, high = estimate.interval
    extra = {
        "interval": [_finite(-high), _finite(-low)],
        "log_z": {
            **_ends(log_z),
            "reverse": {**_ends(reverse), "from": "the machine's own chains, as good as those are"},
        },
    }
    if not model.bound_is_exact and bound == "elbo":
        num = min(len(dataset.test.x), max(100, round(share_of_work(model) * POSTERIOR_ITEMS)))
        extra["posterior"] = _gap(model, dataset.test.x[:num], log_z, seed)
    return estimate, extra, _mixing(inference.diagnose(draws, worst=0))


def estimated_log_z(
    model: Any, *, chains: int | None = None, betas: int | None = None, seed: int
) -> "LogZEstimate":
    """One log Z for whatever is compared by it, with as many chains and steps as suit the model's size."""
    import inference

    chains = chains or max(100, round(share_of_work(model) * ANNEALING["chains"]))
    betas = betas or ANNEALING["betas"]
    return inference.ais(model, chains=chains, betas=betas, seed=seed, progress=True)


def share_of_work(model: Any) -> float:
    """How much of the full number of chains or items a model is given: all, unless it is large."""
    return min(1.0, LARGE / sum(param.numel() for param in model.parameters()))


def _ends(estimate: "LogZEstimate") -> dict[str, Any]:
    low, high = (end.item() for end in estimate.interval())
    return {
        "estimate": estimate.log_z.item(),
        "low": _finite(low),
        "high": _finite(high),
        "chains": len(estimate.log_weights),
        "betas": estimate.betas,
        "effective_sample_size": estimate.effective_sample_size.item(),
    }


def _gap(model: Any, x: Any, log_z: "LogZEstimate", seed: int) -> dict[str, Any]:
    """What mean field loses: the bound on log p(v), and log p(v) by annealing, of the same items."""
    import inference

    annealed, bound = (
        inference.log_likelihood(model, x, particles=POSTERIOR_PARTICLES, bound=kind, log_z=log_z, seed=seed)
        for kind in ("importance-weighted", "elbo")
    )
    gap = annealed.per_item - bound.per_item
    return {
        "items": len(x),
        "particles": POSTERIOR_PARTICLES,
        "nats_per_item": annealed.nats_per_item,
        "bound_nats_per_item": bound.nats_per_item,
        "gap": gap.mean().item(),
        "gap_standard_error": gap.std().item() / math.sqrt(len(gap)) if len(gap) > 1 else None,
    }


def _mixing(diagnosis: "Diagnosis") -> dict[str, Any]:
    row = next(row for row in diagnosis.rows if row.name == "energy")
    correlation = diagnosis.autocorrelation
    lags = [] if correlation is None else [lag for lag in LAGS if lag < len(correlation)]
    return {
        "chains": diagnosis.num_chains,
        "draws": diagnosis.num_draws,
        "r_hat": _finite(row.r_hat),
        "effective_sample_size": _finite(row.ess_bulk),
        "autocorrelation": {str(lag): _finite(correlation[lag].item()) for lag in lags},
        "integrated_time": _finite(diagnosis.integrated_time),
    }


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None  # JSON has nothing else


def likelihood_rows(metrics: dict[str, Any]) -> list[tuple[str, str, str]]:
    """Rows of the table on log Z, what hangs on it, and the chains: figure, value, explanation."""
    test = metrics["test"]
    log_z = test["log_z"]
    reverse = log_z["reverse"]
    how = f"{counted(log_z['chains'], 'chain')} of annealing in {counted(log_z['betas'], 'step')}"
    rows = [
        (
            "log Z from below, nats",
            f"{log_z['estimate']:.2f}",
            f"95 % within {_end(log_z['low'])} … {_end(log_z['high'])}; low on average; by {how}"
            f"{_warning(log_z)}",
        ),
        (
            "log Z from above, nats",
            f"{reverse['estimate']:.2f}",
            f"95 % within {_end(reverse['low'])} … {_end(reverse['high'])}; high on average, if the chains "
            f"that it starts from, of the machine itself, are draws from it{_warning(reverse)}",
        ),
        (
            "-log p(x) if log Z is either, nats",
            " … ".join(
                f"{end:.2f}"
                for end in sorted(
                    test["nats_per_item"] + shift for shift in (0.0, reverse["estimate"] - log_z["estimate"])
                )
            ),
            f"the first figure; 95 % by the first log Z are {_end(test['interval'][0])} … "
            f"{_end(test['interval'][1])}",
        ),
    ]
    if "posterior" in test:
        posterior = test["posterior"]
        error = posterior["gap_standard_error"]
        rows.append(
            (
                "what mean field loses, nats",
                _with_error(posterior["gap"], error),
                f"KL from q(h | v) to p(h | v): -log p(x) of {counted(posterior['items'], 'test item')} is "
                f"{posterior['nats_per_item']:.2f} by annealing, {counted(posterior['particles'], 'chain')} "
                f"each, and the bound {posterior['bound_nats_per_item']:.2f}",
            )
        )
    if "chains" in metrics:
        rows.append(_chains_row(metrics["chains"]))
    return rows


def _chains_row(chains: dict[str, Any]) -> tuple[str, str, str]:
    r_hat, worth, time = chains["r_hat"], chains["effective_sample_size"], chains["integrated_time"]
    kept = f"{counted(chains['chains'], 'chain')} of {counted(chains['draws'], 'sweep')}"
    if r_hat is None or worth is None or time is None:
        return "energy of chains, R-hat", "unknown", f"it never changes in {kept}"
    words = "they agree" if r_hat <= 1.01 else "they nearly agree" if r_hat <= 1.1 else "they disagree"
    return (
        "energy of chains, R-hat",
        f"{r_hat:.3f}",
        f"{words} ({kept}; 1 is agreement); worth {counted(round(worth), 'independent draw')}, one in "
        f"{counted(max(1, round(time)), 'sweep')}",
    )


def _warning(estimate: dict[str, Any]) -> str:
    """That few chains carry the weight, where they do; runs from before it was written down say nothing."""
    from inference.annealing import FEW, TOO_FEW

    few = estimate["chains"] > 1 and estimate.get("effective_sample_size", FEW) < FEW
    return f"; {TOO_FEW}" if few else ""


def _with_error(value: float, error: float | None) -> str:
    """A figure and its standard error, which has two significant digits; the figure has as many decimals."""
    if not error or not math.isfinite(error):
        return f"{value:.3f}"
    decimals = max(0, 1 - int(f"{error:.1e}".split("e")[1]))
    return f"{value:.{decimals}f} ± {error:.{decimals}f}"


def _end(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.2f}"
