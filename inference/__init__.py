"""Methods to fit and compare Pyro programs, from the zoo or the user's own.

Names are imported when they are first used, so that ``import inference`` costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from inference.adversarial import Adversarial
    from inference.adversarial_autoencoder import AdversarialAutoencoder
    from inference.annealing import LogZEstimate, ais, reverse_ais
    from inference.arviz_data import save_netcdf, to_arviz
    from inference.calibration import Calibration, simulation_based_calibration
    from inference.chain_plots import plot_chains
    from inference.chains import Draws, run_chains
    from inference.completion import Completion, complete
    from inference.composition import Cycle, Mixture
    from inference.contrastive_divergence import ContrastiveDivergence, PersistentContrastiveDivergence
    from inference.density_kernel import DensityKernel
    from inference.diagnostics import Diagnosis, diagnose
    from inference.discriminator import Discriminator
    from inference.em import EMResult, fit_em
    from inference.gibbs import BlockGibbs
    from inference.gradients import GradientEstimate, gradient_variance
    from inference.hmc import HMC
    from inference.importance import log_weights
    from inference.joint_distribution import JointTest, joint_distribution_test
    from inference.kernels import Kernel
    from inference.label_switching import relabel
    from inference.langevin import MALA, Langevin
    from inference.likelihood import LikelihoodEstimate, log_likelihood
    from inference.mmd import RBF, InverseMultiquadratic, MMDEstimate, maximum_mean_discrepancy, mmd2
    from inference.objectives import (
        ELBO,
        CrossEntropy,
        ImportanceWeighted,
        MaximumLikelihood,
        Objective,
        SupervisedELBO,
    )
    from inference.posterior import log_predictive, nuts, posterior_draws
    from inference.random_walk import RandomWalkMetropolis, StochasticHillClimb
    from inference.sample_quality import (
        ModeCoverage,
        PrecisionRecall,
        TwoSampleTest,
        classifier_two_sample_test,
        frechet_distance,
        frechet_error,
        modes_covered,
        precision_recall,
    )
    from inference.single_site_gibbs import Gibbs
    from inference.training import FitResult, fit
    from inference.truncated_backpropagation import TruncatedBackpropagation
    from inference.variational_em import VariationalEM
    from inference.wake_sleep import ReweightedWakeSleep
    from inference.wasserstein_autoencoder import WassersteinAutoencoder

_EXPORTS = {
    "Adversarial": "inference.adversarial",
    "AdversarialAutoencoder": "inference.adversarial_autoencoder",
    "BlockGibbs": "inference.gibbs",
    "Calibration": "inference.calibration",
    "Completion": "inference.completion",
    "ContrastiveDivergence": "inference.contrastive_divergence",
    "CrossEntropy": "inference.objectives",
    "Cycle": "inference.composition",
    "DensityKernel": "inference.density_kernel",
    "Diagnosis": "inference.diagnostics",
    "Discriminator": "inference.discriminator",
    "Draws": "inference.chains",
    "ELBO": "inference.objectives",
    "EMResult": "inference.em",
    "FitResult": "inference.training",
    "Gibbs": "inference.single_site_gibbs",
    "GradientEstimate": "inference.gradients",
    "HMC": "inference.hmc",
    "ImportanceWeighted": "inference.objectives",
    "InverseMultiquadratic": "inference.mmd",
    "JointTest": "inference.joint_distribution",
    "Kernel": "inference.kernels",
    "Langevin": "inference.langevin",
    "LikelihoodEstimate": "inference.likelihood",
    "LogZEstimate": "inference.annealing",
    "MALA": "inference.langevin",
    "MMDEstimate": "inference.mmd",
    "MaximumLikelihood": "inference.objectives",
    "Mixture": "inference.composition",
    "ModeCoverage": "inference.sample_quality",
    "Objective": "inference.objectives",
    "PersistentContrastiveDivergence": "inference.contrastive_divergence",
    "PrecisionRecall": "inference.sample_quality",
    "RBF": "inference.mmd",
    "RandomWalkMetropolis": "inference.random_walk",
    "ReweightedWakeSleep": "inference.wake_sleep",
    "StochasticHillClimb": "inference.random_walk",
    "SupervisedELBO": "inference.objectives",
    "TruncatedBackpropagation": "inference.truncated_backpropagation",
    "TwoSampleTest": "inference.sample_quality",
    "VariationalEM": "inference.variational_em",
    "WassersteinAutoencoder": "inference.wasserstein_autoencoder",
    "ais": "inference.annealing",
    "classifier_two_sample_test": "inference.sample_quality",
    "complete": "inference.completion",
    "diagnose": "inference.diagnostics",
    "fit": "inference.training",
    "fit_em": "inference.em",
    "frechet_distance": "inference.sample_quality",
    "frechet_error": "inference.sample_quality",
    "gradient_variance": "inference.gradients",
    "joint_distribution_test": "inference.joint_distribution",
    "log_likelihood": "inference.likelihood",
    "log_predictive": "inference.posterior",
    "log_weights": "inference.importance",
    "maximum_mean_discrepancy": "inference.mmd",
    "mmd2": "inference.mmd",
    "modes_covered": "inference.sample_quality",
    "nuts": "inference.posterior",
    "plot_chains": "inference.chain_plots",
    "posterior_draws": "inference.posterior",
    "precision_recall": "inference.sample_quality",
    "relabel": "inference.label_switching",
    "reverse_ais": "inference.annealing",
    "run_chains": "inference.chains",
    "save_netcdf": "inference.arviz_data",
    "simulation_based_calibration": "inference.calibration",
    "to_arviz": "inference.arviz_data",
}

__all__ = [
    "Adversarial",
    "AdversarialAutoencoder",
    "BlockGibbs",
    "Calibration",
    "Completion",
    "ContrastiveDivergence",
    "CrossEntropy",
    "Cycle",
    "DensityKernel",
    "Diagnosis",
    "Discriminator",
    "Draws",
    "ELBO",
    "EMResult",
    "FitResult",
    "Gibbs",
    "GradientEstimate",
    "HMC",
    "ImportanceWeighted",
    "InverseMultiquadratic",
    "JointTest",
    "Kernel",
    "Langevin",
    "LikelihoodEstimate",
    "LogZEstimate",
    "MALA",
    "MMDEstimate",
    "MaximumLikelihood",
    "Mixture",
    "ModeCoverage",
    "Objective",
    "PersistentContrastiveDivergence",
    "PrecisionRecall",
    "RBF",
    "RandomWalkMetropolis",
    "ReweightedWakeSleep",
    "StochasticHillClimb",
    "SupervisedELBO",
    "TruncatedBackpropagation",
    "TwoSampleTest",
    "VariationalEM",
    "WassersteinAutoencoder",
    "ais",
    "classifier_two_sample_test",
    "complete",
    "diagnose",
    "fit",
    "fit_em",
    "frechet_distance",
    "frechet_error",
    "gradient_variance",
    "joint_distribution_test",
    "log_likelihood",
    "log_predictive",
    "log_weights",
    "maximum_mean_discrepancy",
    "mmd2",
    "modes_covered",
    "nuts",
    "plot_chains",
    "posterior_draws",
    "precision_recall",
    "relabel",
    "reverse_ais",
    "run_chains",
    "save_netcdf",
    "simulation_based_calibration",
    "to_arviz",
]


def __getattr__(name: str) -> Any:
    if name not in _EXPORTS:
        raise AttributeError(f"module 'inference' has no attribute {name!r}")
    return getattr(import_module(_EXPORTS[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
