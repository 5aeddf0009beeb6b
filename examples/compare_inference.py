"""One mixture of two Gaussians under EM, MAP, variational Bayes and NUTS. Takes a minute or two."""

import sys
import time

from matplotlib import pyplot as plt
from pyro.infer.autoguide import AutoDelta, AutoNormal

import inference
import zoo

num_draws = int(sys.argv[1]) if len(sys.argv) > 1 else 300
epochs = 5 * num_draws

# Acidity and alcohol of the red wines: 200 of them to learn from, so few that the parameters stay uncertain.
data = zoo.load("red-wine")
x, test = data.train.x[:200, [0, 10]], data.test.x[:, [0, 10]]
mixture = zoo.GaussianMixture((2,), num_components=2, covariance="diagonal")


def program(x):
    """The parameters are sites with a prior; which component a wine is of is summed out."""
    return mixture.bayesian_model(x)


draws, seconds = {}, {}


def timed(name, method):
    began = time.monotonic()
    draws[name] = method()
    seconds[name] = time.monotonic() - began


def by_em():
    """Maximum likelihood, as a posterior of one draw."""
    inference.fit_em(mixture, x, epochs=epochs, progress=False)
    theta = {name: value.detach()[None, None] for name, value in mixture.theta().items()}
    return inference.Draws(theta, {}, {name: value[0] for name, value in theta.items()}, 0, 1, seed=0)


def by_variation(guide, number):
    elbo = inference.ELBO(program, guide)  # of points: the posterior's mode; else its nearest Gaussian
    inference.fit(elbo, x, batch_size=len(x), epochs=epochs, lr=0.03, schedule="cosine", progress=False)
    return inference.posterior_draws(guide, number)


timed("EM", by_em)
start = {name: value.detach().clone() for name, value in mixture.theta().items()}
nearby = {"init_loc_fn": lambda site: start[site["name"]]}  # so that no method is judged by its luck
timed("MAP", lambda: by_variation(AutoDelta(program, **nearby), 1))
timed("mean field", lambda: by_variation(AutoNormal(program, **nearby, init_scale=0.05), 4 * num_draws))
timed("NUTS", lambda: inference.nuts(program, x, num_draws=num_draws, num_chains=4, warmup=num_draws))

# A mixture does not name its components: what the chains call the first need not be the same one.
before = draws["NUTS"]
draws = {name: inference.relabel(each, list(start), reference=start) for name, each in draws.items()}
print(f"\n{'':<12}{'test log p(x)':>16}{'± draws':>10}{'seconds':>9}{'R-hat of loc':>14}{'as drawn':>10}")
for name, each in draws.items():
    predictive = inference.log_predictive(program, each, test, progress=False)
    figure = f"{predictive.mean:.3f} ± {predictive.standard_error:.3f}"
    error = f"{predictive.monte_carlo_error:.4f}".replace("nan", "-")
    worst = ["-", "-"]
    if name == "NUTS" and num_draws > 3:
        rows = [inference.diagnose(run, sites=["loc"]).rows for run in (each, before)]
        worst = [f"{max(row.r_hat for row in found if row.name[:4] == 'loc['):.3f}" for found in rows]
    print(f"{name:<12}{figure:>16}{error:>10}{seconds[name]:>9.1f}{worst[0]:>14}{worst[1]:>10}")

figure, axes = plt.subplots(figsize=(5.6, 4.6), layout="constrained")
axes.scatter(*x.T, s=6, color="0.75", label="wines")
for k in range(2):
    nuts = draws["NUTS"].samples["loc"][:, :, k].flatten(0, 1)
    axes.scatter(*nuts.T, s=3, alpha=0.3, color=f"C{k}", label=f"mean {k + 1} by NUTS")
for name, marker in (("EM", "$E$"), ("MAP", "$M$"), ("mean field", "$F$")):
    axes.scatter(*draws[name].samples["loc"].mean((0, 1)).T, marker=marker, s=50, color="black", label=name)
axes.set(xlabel="fixed acidity", ylabel="alcohol", title="the posterior of the means, standardised")
axes.legend(fontsize=7)
figure.savefig("compare_inference.png", dpi=120)
print("wrote compare_inference.png: draws of the means, and the other methods' points")
