"""Methods to fit and compare Pyro programs, from the zoo or the user's own.

Names are imported when they are first used, so that ``import inference`` costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from inference.completion import Completion, complete
    from inference.importance import log_weights
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
    "Completion": "inference.completion",
    "CrossEntropy": "inference.objectives",
    "ELBO": "inference.objectives",
    "FitResult": "inference.training",
    "ImportanceWeighted": "inference.objectives",
    "LikelihoodEstimate": "inference.likelihood",
    "MaximumLikelihood": "inference.objectives",
    "Objective": "inference.objectives",
    "SupervisedELBO": "inference.objectives",
    "complete": "inference.completion",
    "fit": "inference.training",
    "log_likelihood": "inference.likelihood",
    "log_weights": "inference.importance",
}

__all__ = [
    "ELBO",
    "Completion",
    "CrossEntropy",
    "FitResult",
    "ImportanceWeighted",
    "LikelihoodEstimate",
    "MaximumLikelihood",
    "Objective",
    "SupervisedELBO",
    "complete",
    "fit",
    "log_likelihood",
    "log_weights",
]


def __getattr__(name: str) -> Any:
    if name not in _EXPORTS:
        raise AttributeError(f"module 'inference' has no attribute {name!r}")
    return getattr(import_module(_EXPORTS[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
