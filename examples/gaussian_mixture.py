"""A mixture of Gaussians on real measurements: EM, what covariances are worth, odd wines. Some seconds."""

import sys

import torch
from matplotlib.figure import Figure
from matplotlib.patches import Ellipse

import inference
import zoo

epochs = int(sys.argv[1]) if len(sys.argv) > 1 else 300
data = zoo.load("white-wine")

# p(x) = Σ_k π_k N(x | μ_k, Σ_k). What is assumed of Σ_k decides how many numbers are to be learnt.
for covariance in ("spherical", "diagonal", "tied", "full"):
    mixture = zoo.GaussianMixture(data.event_shape, 10, covariance=covariance, pseudo_count=1.0)
    result = inference.fit_em(mixture, data.train, valid=data.valid, epochs=epochs, restarts=3)
    size = sum(param.numel() for param in mixture.parameters())
    test = inference.log_likelihood(mixture, data.test, progress=False)
    print(f"{covariance:>9}: {size:4} numbers, {result.seconds:4.1f} s, {test}")

# The density tells odd wines: those of lowest log p(x) among the test wines.
log_prob = mixture.log_prob(data.test.x).detach()
odd = log_prob.argsort()[:5]
print("the five oddest test wines, log p(x):", " ".join(f"{value:.0f}" for value in log_prob[odd]))

# Two of the eleven measurements, with an ellipse of two standard deviations for each component.
first, second = 7, 10  # density and alcohol
theta = {name: value.detach() for name, value in mixture.theta().items()}
tril = theta["scale"].unsqueeze(-1) * theta["correlation_tril"]
covariances = (tril @ tril.mT)[:, [[first], [second]], [first, second]]
figure = Figure(figsize=(5, 4), layout="constrained")
axes = figure.add_subplot()
axes.plot(data.train.x[:, first], data.train.x[:, second], ".", markersize=1.5, color="silver")
axes.plot(data.test.x[odd, first], data.test.x[odd, second], "x", color="tab:red", label="oddest test wines")
for weight, loc, matrix in zip(theta["weights"], theta["loc"], covariances, strict=True):
    values, directions = torch.linalg.eigh(matrix)
    width, height = (4 * values.sqrt()).tolist()
    angle = torch.atan2(directions[1, 0], directions[0, 0]).rad2deg().item()
    centre = (loc[first].item(), loc[second].item())
    alpha = 0.2 + 0.8 * (weight / theta["weights"].max()).item()
    axes.add_patch(Ellipse(centre, width, height, angle=angle, fill=False, color="tab:blue", alpha=alpha))
axes.set(xlabel="density, standardised", ylabel="alcohol, standardised", xlim=(-3, 4), ylim=(-3, 4))
axes.legend(loc="upper right")
figure.savefig("gaussian_mixture.png", dpi=120)
print("wrote gaussian_mixture.png: the wines, and the components, the heavier the darker")
