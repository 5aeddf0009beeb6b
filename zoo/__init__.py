"""A zoo of deep generative models, each a Pyro model plus guide.

Names are imported when they are first used, so that ``import zoo`` costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from zoo.data import Dataset, Split, load
    from zoo.latent import VAE, SupervisedVAE
    from zoo.model import GenerativeModel

_EXPORTS = {
    "Dataset": "zoo.data",
    "GenerativeModel": "zoo.model",
    "Split": "zoo.data",
    "SupervisedVAE": "zoo.latent",
    "VAE": "zoo.latent",
    "load": "zoo.data",
}

__all__ = ["VAE", "Dataset", "GenerativeModel", "Split", "SupervisedVAE", "load"]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    if name not in _EXPORTS:
        raise AttributeError(f"module 'zoo' has no attribute {name!r}")
    return getattr(import_module(_EXPORTS[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
