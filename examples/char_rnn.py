"""Two character RNNs on first names: do they learn them by heart, or what a name is? Takes a minute."""

import sys

import torch

import inference
import zoo

epochs = int(sys.argv[1]) if len(sys.argv) > 1 else 20
data = zoo.load("names")
letters = len(data.alphabet)  # the first of them, entry 0, ends a name
training = {data.decode(item).rstrip() for item in data.train.x}

for cell in ("tanh", "lstm"):
    torch.manual_seed(0)
    rnn = zoo.CharRNN(data.event_shape, letters, hidden=128, cell=cell, dropout=0.2, end=0)
    result = inference.fit(
        inference.MaximumLikelihood(rnn),
        data.train,
        valid=data.valid,
        epochs=epochs,
        batch_size=50,
        lr=5e-3 if cell == "lstm" else 2e-3,
        schedule="cosine",
    )
    print(f"{cell}, best after {result.best_epoch} epochs")
    print(inference.log_likelihood(rnn, data.test, progress=False))

    # A few draws, a star at those that occur in training.
    drawn = [data.decode(item).rstrip() for item in rnn.sample(1000, seed=0)]
    print(", ".join(name + "*" * (name in training) for name in drawn[:20]))
    share = sum(name in training for name in drawn) / len(drawn)
    print(f"{share:.0%} of 1,000 drawn names occur in training")

# A prefix is read once, and every letter after it is one step from the state that is kept.
prefix = data.encode("Mar")
endings = rnn.generate(8, data.event_shape[0] - len(prefix), prefix=prefix, seed=0)
print("after Mar:", ", ".join("Mar" + data.decode(ending).rstrip() for ending in endings))
