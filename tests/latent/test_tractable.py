"""Programs over the parameters take a dimension of chains: many values of θ are scored by one run."""

import pytest
import torch
from pyro import poutine

import zoo
from inference.batched_program import BatchedProgram
from zoo.latent.tractable import TractableModel

MODELS = {
    "ppca": lambda: zoo.PPCA((5,), latent_dim=2),
    "ppca of images": lambda: zoo.PPCA((2, 3), latent_dim=2),
    "bernoulli-mixture": lambda: zoo.BernoulliMixture((2, 3), 3),
    **{
        f"{covariance} gaussian-mixture": lambda covariance=covariance: zoo.GaussianMixture(
            (5,), 3, covariance=covariance
        )
        for covariance in ("full", "tied", "diagonal", "spherical")
    },
    "gaussian-mixture of images": lambda: zoo.GaussianMixture((2, 3), 3),
}


@pytest.mark.parametrize("name", MODELS)
def test_many_parameters_are_scored_at_once(name):
    torch.manual_seed(0)
    model = MODELS[name]().double()
    x = model.sample(7).double()
    program = BatchedProgram(model.bayesian_model, (x,))
    assert program.refusal is None
    drawn = program.draw(3)
    alone = [
        poutine.trace(poutine.condition(model.bayesian_model, data={k: v[row] for k, v in drawn.items()}))
        .get_trace(x)
        .log_prob_sum()
        for row in range(3)
    ]
    assert torch.allclose(program.log_prob(drawn, 3), torch.stack(alone), rtol=1e-9)


def test_none_is_missing():
    assert {type(build()) for build in MODELS.values()} == {
        kind
        for kind in (getattr(zoo, name) for name in zoo.__all__)
        if isinstance(kind, type) and issubclass(kind, TractableModel)
    }
