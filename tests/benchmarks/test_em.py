"""EM for a mixture of Gaussians on red wine against scikit-learn's, from the same start, alternated."""

import statistics
import time

import numpy as np
import pytest
import torch
from sklearn.mixture import GaussianMixture
from threadpoolctl import threadpool_limits

import inference
import zoo
from tests.benchmarks.timing import MACHINE, expect

pytestmark = pytest.mark.figures

COMPONENTS, EPOCHS = 5, 50
THEIRS = {"full": "full", "tied": "tied", "diagonal": "diag", "spherical": "spherical"}


@pytest.mark.parametrize("covariance", THEIRS)
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_em_against_scikit_learn(covariance, threads, record_result):
    x = zoo.load("red-wine").train.x.double()
    mixture = zoo.GaussianMixture(x.shape[1:], COMPONENTS, covariance=covariance).double()
    mixture.initialize(x, torch.Generator().manual_seed(0))
    start = {name: value.clone() for name, value in mixture.state_dict().items()}
    factor = mixture.precision_factor().detach()
    theirs = GaussianMixture(
        COMPONENTS,
        covariance_type=THEIRS[covariance],
        tol=0.0,
        reg_covar=0.0,
        max_iter=EPOCHS,
        weights_init=np.full(COMPONENTS, 1 / COMPONENTS),
        means_init=start["loc"].numpy(),
        precisions_init=(factor @ factor.mT if mixture.is_correlated else factor.square()).numpy(),
    )

    def seconds(run):
        started = time.perf_counter()
        run()
        return time.perf_counter() - started

    def ours():
        mixture.load_state_dict(start)
        inference.fit_em(mixture, x, epochs=EPOCHS, tolerance=0.0, initialize=False, progress=False)

    with threadpool_limits(threads):
        ratios = [seconds(lambda: theirs.fit(x.numpy())) / seconds(ours) for _ in range(21)]
    difference = abs(theirs.score(x.numpy()) - mixture.log_prob(x).mean().item())
    figures = {
        "ratio": statistics.median(ratios[1:]),
        "difference_nats": difference,
        "covariance": covariance,
        "threads": threads,
        "machine": MACHINE,
    }
    record_result(f"em-{covariance}-{threads}", figures)
    assert theirs.n_iter_ == EPOCHS
    assert difference <= 1e-6
    expect({f"theirs over ours, {covariance}": (figures["ratio"], 1.0)})
