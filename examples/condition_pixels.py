"""Every pixel is a `pyro.sample` site: Pyro's handlers reach each of them. Takes some 10 seconds."""

import sys

import pyro
import torch
from matplotlib import pyplot as plt
from pyro import poutine
from torch.nn.functional import pad

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

# Hold any of them: a vertical stroke in column 3, and whatever the model draws around it. A program runs
# forwards: what lies before a held pixel was drawn without it. The trace has the weight that corrects this.
stroke = {f"x_{8 * row + 3}": torch.ones(1000) for row in range(8)}
trace = poutine.trace(pyro.condition(nade.model, data=stroke)).get_trace(num=1000)
trace.compute_log_prob()
weights = sum(trace.nodes[name]["log_prob"] for name in stroke).softmax(0)
print(f"1,000 draws with the stroke held are worth {1 / weights.square().sum():.0f} that know of it")
drawn = trace.nodes["_RETURN"]["value"][:16].detach()

# `complete` weighs and picks as it goes, for any mask.
observed = torch.zeros(8, 8, dtype=torch.bool)
observed[:, 3] = True
completion = inference.complete(nade, torch.ones(1, 8, 8), observed, num=16, particles=2000)
print(completion)
given = completion.draws[:, 0]

picture = pad(torch.stack([drawn, given]), (1, 1, 1, 1)).permute(0, 2, 1, 3).flatten(2).flatten(0, 1)
plt.imsave("condition_pixels.png", picture.repeat_interleave(6, 0).repeat_interleave(6, 1), cmap="gray_r")
print("wrote condition_pixels.png: draws from left to right, and draws given the whole stroke")
