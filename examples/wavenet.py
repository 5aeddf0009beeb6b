"""WaveNet on read speech: bits per sample against a linear predictor, and a sound. Takes some minutes."""

import sys

import torch
from matplotlib import pyplot as plt

import inference
import zoo
from zoo.data.linear_prediction import fit_linear_predictor
from zoo.data.speech import inverse_mu_law, wav_bytes

epochs = int(sys.argv[1]) if len(sys.argv) > 1 else 30
data = zoo.load("speech")
# A single epoch is to show that it runs: a smaller network, and less of the sound.
small = epochs == 1
size = {"residual_channels": 4, "skip_channels": 8, "layers": 5, "stacks": 1} if small else {}

torch.manual_seed(0)
wavenet = zoo.WaveNet(data.event_shape, **size)
inference.fit(
    inference.MaximumLikelihood(wavenet),
    data.train.x[::8] if small else data.train,
    valid=data.valid.x[:2] if small else data.valid,
    epochs=epochs,
    batch_size=2,
    lr=4e-3,
    schedule="cosine",
)

# A clip that was held out, each sample after all before it; and a linear predictor that sees as many of them.
(clip,) = data.test.sequences
bits = -wavenet.log_prob_of(clip).mean().item() / torch.log(torch.tensor(2.0)).item()
order = wavenet.receptive_field
predictor = fit_linear_predictor(data.train.sequences, data.valid.sequences, order)
print(f"WaveNet:          {bits:.3f} bits per sample of the 8 that they are stored in")
print(f"linear predictor: {predictor.bits([clip]):.3f}, also of the {order} samples before")

# The first second of the clip, and two more that the model makes of it.
rate = data.rate // 10 if small else data.rate
drawn = wavenet.generate(1, 2 * rate, prefix=clip[:rate], seed=0)[0]
sound = torch.cat([clip[:rate], drawn])
with open("wavenet.wav", "wb") as file:
    file.write(wav_bytes(sound))

_, rows = plt.subplots(2, sharex=True, sharey=True, figsize=(8, 5), layout="constrained")
for axes, levels, title in ((rows[0], clip[: 3 * rate], "held out"), (rows[1], sound, "from 1/3 on drawn")):
    axes.specgram(inverse_mu_law(levels).numpy(), NFFT=400, noverlap=200, Fs=data.rate, vmin=-140, vmax=-50)
    axes.set(ylabel="Hz", title=title)
rows[1].set_xlabel("seconds")
plt.savefig("wavenet.png")
print("wrote wavenet.wav and wavenet.png: spectrograms of a held-out clip, and of its beginning gone on from")
