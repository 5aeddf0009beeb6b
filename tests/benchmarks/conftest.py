import pytest
import torch


@pytest.fixture(params=[1, 2])
def threads(request):
    """Threads of torch's own: the fewer, the more of a step is Pyro's."""
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)
