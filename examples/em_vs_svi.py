"""One mixture, fitted by EM, by gradients of the likelihood and by Pyro's own SVI: same model, same optimum?

Takes half a minute. EM's steps are in closed form; the others follow a gradient. The guide of SVI is the
posterior p(z | x) itself, so that its ELBO is log p(x), with the component summed out by enumeration. Nothing
stops early here: what the test digits lose was learnt by heart.
"""

import sys
import time

import torch
from matplotlib.figure import Figure
from pyro.infer import SVI, TraceEnum_ELBO
from pyro.optim import Adam

import inference
import zoo

epochs = int(sys.argv[1]) if len(sys.argv) > 1 else 200
data = zoo.load("digits")
x = data.train.x


def start() -> zoo.BernoulliMixture:
    """The same start for all three."""
    mixture = zoo.BernoulliMixture(data.event_shape, num_components=20)
    mixture.initialize(x, torch.Generator().manual_seed(0))
    return mixture


curves = {}

# Expectation-maximisation: responsibilities, then the means they imply; again and again.
em = start()
result = inference.fit_em(em, x, epochs=epochs, tolerance=0.0, initialize=False)
curves["EM"] = (result.seconds, [row["train"] for row in result.history])

# The gradient of log p(x) = log Σ_k π_k p(x | k), by Adam on mini-batches.
by_gradient = start()
result = inference.fit(
    inference.MaximumLikelihood(by_gradient), x, epochs=epochs, batch_size=100, lr=2e-2, schedule="cosine"
)
curves["gradient of log p(x)"] = (result.seconds, [row["train"] for row in result.history])

# Pyro's own SVI, on the same program and guide as they are, all items in each step.
by_svi = start()
svi = SVI(by_svi.model, by_svi.guide, Adam({"lr": 5e-2}), TraceEnum_ELBO(max_plate_nesting=1))
began = time.monotonic()
losses = [svi.step(x) / len(x) for _ in range(epochs)]
curves["Pyro's SVI"] = (time.monotonic() - began, losses)

print(f"{'':22}{'training':>10}{'test':>8}  nats per digit, {epochs} epochs")
for (name, (seconds, _)), model in zip(curves.items(), (em, by_gradient, by_svi), strict=True):
    train, test = (-model.log_prob(part.x).mean().item() for part in (data.train, data.test))
    print(f"{name:22}{train:10.3f}{test:8.2f}  in {seconds:.1f} s")

figure = Figure(figsize=(5.5, 3.5), layout="constrained")
axes = figure.add_subplot()
for name, (seconds, losses) in curves.items():
    axes.semilogx(torch.arange(1, len(losses) + 1) * seconds / len(losses), losses, label=name)
axes.set(xlabel="seconds", ylabel="-log p(x), nats per training digit", title="a mixture of 20 components")
axes.legend()
figure.savefig("em_vs_svi.png", dpi=120)
print("wrote em_vs_svi.png: the loss against time")
