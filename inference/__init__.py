"""Methods to fit and compare Pyro programs, from the zoo or the user's own.

Names are imported when they are first used, so that ``import inference`` costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from inference.annealing import LogZEstimate, ais, reverse_ais
    from inference.chains import Draws, run_chains
    from inference.completion import Completion, complete
    from inference.contrastive_divergence import ContrastiveDivergence, PersistentContrastiveDivergence
    from inference.diagnostics import Diagnosis, diagnose, to_arviz
    from inference.gibbs import BlockGibbs
    from inference.importance import log_weights
    from inference.kernels import Kernel
    from inference.likelihood import LikelihoodEstimate, log_likelihood
    from inference.objectives import (
        ELBO,
        CrossEntropy,
        ImportanceWeighted,
        MaximumLikelihood,
        Objective,
        SupervisedELBO,
    )
    from inference.training import FitResult, fit

_EXPORTS = {
    "BlockGibbs": "inference.gibbs",
    "Completion": "inference.completion",
    "ContrastiveDivergence": "inference.contrastive_divergence",
    "CrossEntropy": "inference.objectives",
    "Diagnosis": "inference.diagnostics",
    "Draws": "inference.chains",
    "ELBO": "inference.objectives",
    "FitResult": "inference.training",
    "ImportanceWeighted": "inference.objectives",
    "Kernel": "inference.kernels",
    "LikelihoodEstimate": "inference.likelihood",
    "LogZEstimate": "inference.annealing",
    "MaximumLikelihood": "inference.objectives",
    "Objective": "inference.objectives",
    "PersistentContrastiveDivergence": "inference.contrastive_divergence",
    "SupervisedELBO": "inference.objectives",
    "ais": "inference.annealing",
    "complete": "inference.completion",
    "diagnose": "inference.diagnostics",
    "fit": "inference.training",
    "log_likelihood": "inference.likelihood",
    "log_weights": "inference.importance",
    "reverse_ais": "inference.annealing",
    "run_chains": "inference.chains",
    "to_arviz": "inference.diagnostics",
}

__all__ = [
    "ELBO",
    "BlockGibbs",
    "Completion",
    "ContrastiveDivergence",
    "CrossEntropy",
    "Diagnosis",
    "Draws",
    "FitResult",
    "ImportanceWeighted",
    "Kernel",
    "LikelihoodEstimate",
    "LogZEstimate",
    "MaximumLikelihood",
    "Objective",
    "PersistentContrastiveDivergence",
    "SupervisedELBO",
    "ais",
    "complete",
    "diagnose",
    "fit",
    "log_likelihood",
    "log_weights",
    "reverse_ais",
    "run_chains",
    "to_arviz",
]


def __getattr__(name: str) -> Any:
    if name not in _EXPORTS:
        raise AttributeError(f"module 'inference' has no attribute {name!r}")
    return getattr(import_module(_EXPORTS[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
