"""A mixture of products of coins on real handwritten digits: EM, prototypes, likelihood. Takes seconds."""

import sys

import torch
from matplotlib import pyplot as plt
from torch.nn.functional import pad

import inference
import zoo

epochs = int(sys.argv[1]) if len(sys.argv) > 1 else 200
data = zoo.load("digits")

# p(x) = Σ_k π_k ∏_i Bern(x_i | p_ki): a hidden class explains an image. The pseudo-count is a prior on the
# coins (MAP instead of maximum likelihood): no pixel is quite impossible.
mixture = zoo.BernoulliMixture(data.event_shape, num_components=60, pseudo_count=0.3)

# Both steps of EM are formulas, and no learning rate is to be chosen. It ends in a local optimum: of ten
# starts the one is kept that does best on the validation digits.
result = inference.fit_em(mixture, data.train, valid=data.valid, epochs=epochs, restarts=10)
print(f"best of {len(result.starts)} starts: number {result.start}, {len(result.history)} epochs")
print("validation nats of the starts:", " ".join(f"{loss:.2f}" for loss in sorted(result.starts)))

# The density is a sum of sixty terms, so that the likelihood is exact.
print(inference.log_likelihood(mixture, data.test))

# Which component a digit belongs to is the posterior, and it tells much of the label, which it never saw.
component = mixture.posterior(data.train.x).probs.argmax(-1)
labels = torch.stack([data.train.y[component == k].float().mode().values for k in component.unique()])
votes = dict(zip(component.unique().tolist(), labels.tolist(), strict=True))
found = mixture.posterior(data.test.x).probs.argmax(-1)
right = torch.tensor([votes.get(int(k), -1) == y for k, y in zip(found, data.test.y, strict=True)])
print(f"test digits whose component is mostly of their label: {right.double().mean():.1%}")

# The components by their weight, and digits drawn from them.
order = mixture.theta()["weights"].argsort(descending=True)
prototypes = mixture.theta()["probs"][order][:48].detach()
tiles = pad(torch.cat([prototypes, mixture.sample(48, seed=0)]), (1, 1, 1, 1), value=0.2).unflatten(
    0, (6, 16)
)
picture = tiles.permute(0, 2, 1, 3).flatten(2).flatten(0, 1)
plt.imsave("bernoulli_mixture.png", picture.repeat_interleave(6, 0).repeat_interleave(6, 1), cmap="gray_r")
print("wrote bernoulli_mixture.png: three rows of prototypes, the heaviest first, and three of new digits")
