"""The Markov chain against its transitions, counted."""

import pytest
import torch

import zoo
from tests.autoregressive.maximum_likelihood import fitted


def test_number_of_parameters():
    for event_shape, num in (((1,), 1), ((5,), 9), ((2, 3), 11)):
        assert sum(param.numel() for param in zoo.MarkovChain(event_shape).parameters()) == num
    chain = zoo.MarkovChain((4,), num_levels=3)
    assert sum(param.numel() for param in chain.parameters()) == 3 + 3 * 3 * 3


@pytest.mark.parametrize("num_levels", [2, 3])
def test_each_conditional_is_the_formula(num_levels):
    order = (2, 0, 3, 1)
    chain = zoo.MarkovChain((2, 2), num_levels=num_levels, order=order)
    with torch.no_grad():
        chain.initial.normal_()
        chain.transitions.normal_()
    x = torch.randint(num_levels, (6, 2, 2))
    items = x.float() if num_levels == 2 else x

    def table(logits):
        """Probabilities of all levels."""
        return (
            torch.stack([1 - logits.sigmoid(), logits.sigmoid()], -1)
            if num_levels == 2
            else logits.softmax(-1)
        )

    for item, log_prob in zip(x, chain.log_prob(items), strict=True):
        values = [item.flatten()[variable] for variable in order]
        p = table(chain.initial)[values[0]]
        for step in range(1, 4):
            p = p * table(chain.transitions[step - 1])[values[step - 1], values[step]]
        assert torch.allclose(log_prob, p.log(), atol=1e-6)


def test_maximum_likelihood_is_the_share_of_each_transition():
    order = (1, 2, 0)
    x = torch.tensor(
        [[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 1, 1], [0, 1, 1], [1, 0, 1], [1, 1, 0], [1, 1, 1]]
    ).float()
    chain = zoo.MarkovChain((3,), order=order)
    fitted(chain, x)
    first, second, third = (x[:, variable] for variable in order)
    expected = torch.stack(
        [
            torch.stack([second[first == level].mean() for level in (0, 1)]),
            torch.stack([third[second == level].mean() for level in (0, 1)]),
        ]
    )
    assert chain.initial.sigmoid().item() == pytest.approx(first.mean().item(), abs=1e-3)
    assert torch.allclose(chain.transitions.sigmoid(), expected, atol=1e-3)


def test_maximum_likelihood_with_levels_is_the_share_of_each_transition():
    x = torch.cartesian_prod(torch.arange(3), torch.arange(3)).repeat(3, 1)[:25]
    chain = zoo.MarkovChain((2,), num_levels=3)
    fitted(chain, x)
    counts = torch.zeros(3, 3).index_put((x[:, 0], x[:, 1]), torch.ones(25), accumulate=True)
    assert len(counts.unique()) > 1
    assert torch.allclose(chain.transitions[0].softmax(-1), counts / counts.sum(1, keepdim=True), atol=1e-3)
    assert torch.allclose(chain.initial.softmax(-1), counts.sum(1) / 25, atol=1e-3)
