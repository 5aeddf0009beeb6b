import pytest
import torch

from tests.benchmarks.timing import MACHINE


@pytest.fixture(params=[1, 2])
def threads(request):
    """Threads of torch's own: the fewer, the more of a step is Pyro's."""
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


@pytest.fixture
def record(threads, record_result):
    """Keeps figures under a name, with the number of threads and the machine that they are of."""

    def record(name, **figures):
        record_result(f"{name}-{threads}", {**figures, "threads": threads, "machine": MACHINE})

    return record
