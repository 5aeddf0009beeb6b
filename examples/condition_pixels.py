"""Every pixel is a `pyro.sample` site: Pyro's handlers reach each of them. Takes some 10 seconds."""

import sys

import pyro
import torch
from matplotlib import pyplot as plt
from pyro import poutine

import inference
import zoo

epochs = int(sys.argv[1]) if len(sys.argv) > 1 else 60
data = zoo.load("digits")
torch.manual_seed(0)
nade = zoo.NADE(data.event_shape, hidden=100)
inference.fit(
    inference.MaximumLikelihood(nade), data.train, valid=data.valid, epochs=epochs, batch_size=50, lr=5e-3
)

# The program draws pixel by pixel; a trace shows 64 sites in scan order.
trace = poutine.trace(nade.model).get_trace(num=5)
names = [name for name in trace.nodes if name.startswith("x_")]
print(f"{len(names)} sites: {', '.join(names[:3])}, ..., {names[-1]}")
trace.compute_log_prob()
by_site = sum(trace.nodes[name]["log_prob"] for name in names)
in_one_pass = nade.log_prob(trace.nodes["_RETURN"]["value"])
print(f"log p(x) site by site {by_site[0]:.4f}, in one pass {in_one_pass[0]:.4f} nats")

# Condition on any of them: a vertical stroke in column 3, and whatever the model makes of it.
stroke = {f"x_{8 * row + 3}": torch.ones(16) for row in range(8)}
drawn = pyro.condition(nade.model, data=stroke)(num=16).detach()

# Or intervene: the sites are set as before, and what they say of the pixels before them is cut off. In a
# program that runs forwards both draw alike; they differ in the weight that the sites give to a draw.
conditioned = poutine.trace(pyro.condition(nade.model, data=stroke)).get_trace(num=16)
intervened = poutine.trace(pyro.do(nade.model, data=stroke)).get_trace(num=16)
print(f"log-weight of 16 conditioned draws {conditioned.log_prob_sum():.1f}, of intervened ones")
print(f"{intervened.log_prob_sum():.1f} nats: only the first count how likely the stroke was")

# Draws given all that is held, weighted as they should be: `complete` does it for any mask.
observed = torch.zeros(8, 8, dtype=torch.bool)
observed[:, 3] = True
given = inference.complete(nade, torch.ones(1, 8, 8), observed, num=16, particles=2000).draws[:, 0]

picture = torch.stack([drawn, given]).permute(0, 2, 1, 3).reshape(2 * 8, 16 * 8)
plt.imsave("condition_pixels.png", picture.repeat_interleave(6, 0).repeat_interleave(6, 1), cmap="gray_r")
print("wrote condition_pixels.png: draws from left to right, and draws given the whole stroke")
