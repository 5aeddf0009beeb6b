"""Linear flows on images of 17 levels: the full Gaussian, and what a logit and a logistic prior add.

Takes half a minute.
"""

import sys

import torch
from matplotlib import pyplot as plt
from torch.nn.functional import pad

import inference
import zoo

epochs = int(sys.argv[1]) if len(sys.argv) > 1 else 60
data = zoo.load("digits-levels")  # integers 0 to 16
rows = [data.test.x[:16]]


def evaluate(flow):
    return inference.log_likelihood(flow, data.test, bound="elbo", particles=10, progress=False)


def fit(**options):
    torch.manual_seed(0)
    flow = zoo.LinearFlow(data.event_shape, num_levels=17, **options)
    inference.fit(
        inference.ELBO(flow),
        data.train,
        valid=data.valid,
        epochs=epochs,
        batch_size=50,
        lr=1e-2,
        schedule="cosine",
        clip_norm=50.0,
    )
    rows.append(flow.sample(16, seed=0))
    return flow


# The full Gaussian of levels with noise in their cells, in closed form: mean and covariance.
learn, test = (part.x.flatten(1) + torch.rand(len(part), 64) for part in (data.train, data.test))
gaussian = torch.distributions.MultivariateNormal(learn.mean(0), learn.T.cov())
print(f"full Gaussian, closed form:   log p(x) ≥ {gaussian.log_prob(test).mean():.2f} nats per item")
print(f"flow, Gaussian prior:         {evaluate(fit(prior='gaussian'))}")
print(f"the same behind a logit:      {evaluate(fit(prior='gaussian', offset=0.01))}")
components = fit(prior="logistic", offset=0.01)
print(f"logit and logistic prior:     {evaluate(components)}")

picture = pad(torch.stack(rows), (1, 1, 1, 1)).permute(0, 2, 1, 3).flatten(2).flatten(0, 1)
plt.imsave("linear_flow.png", picture.repeat_interleave(6, 0).repeat_interleave(6, 1), cmap="gray_r")
print("wrote linear_flow.png: real digits, and draws of the three flows")
