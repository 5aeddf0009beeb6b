"""One epoch of PCD-1 on an RBM of 784 and 500 units, through `fit`, against scikit-learn's, alternated."""

import statistics
import time

import pytest
import torch
from sklearn.neural_network import BernoulliRBM
from threadpoolctl import threadpool_limits

import inference
import zoo
from tests.benchmarks.timing import MACHINE, expect

pytestmark = pytest.mark.figures

HIDDEN, BATCH, LR = 500, 100, 0.01
AIMS = {"double": 1.6, "single": 0.8}  # the second only lest something be lost


@pytest.fixture(scope="module")
def images():
    """Ten thousand items of MNIST's size and density; what they show is nothing to the time."""
    generator = torch.Generator().manual_seed(0)
    return (torch.rand(10_000, 28, 28, generator=generator) < 0.13).float()


def ours(images):
    rbm = zoo.RBM((28, 28), hidden=HIDDEN)
    pcd = inference.PersistentContrastiveDivergence(rbm, num_chains=BATCH)
    started = time.perf_counter()
    inference.fit(pcd, images, epochs=1, batch_size=BATCH, lr=LR, momentum=0.0, progress=False)
    return time.perf_counter() - started


def theirs(images, dtype):
    rbm = BernoulliRBM(HIDDEN, learning_rate=LR, batch_size=BATCH, n_iter=1, random_state=0)
    x = images.flatten(1).numpy().astype(dtype)
    started = time.perf_counter()
    rbm.fit(x)
    return time.perf_counter() - started


@pytest.mark.parametrize("dtype", AIMS)
def test_an_epoch_against_scikit_learn(dtype, images, threads, record_result):
    """Ours computes in single precision; theirs in that of the data, double where nobody says otherwise."""
    with threadpool_limits(threads):
        ratios = [theirs(images, dtype) / ours(images) for _ in range(9)]
    ratio = statistics.median(ratios[1:])
    figures = {"ratio": ratio, "dtype": dtype, "threads": threads, "machine": MACHINE}
    record_result(f"rbm-epoch-{dtype}-{threads}", figures)
    expect({f"theirs in {dtype} over ours": (ratio, AIMS[dtype])})
