"""Sounds on the command line: drawn and continued, seen as spectrograms, and what a sample of them costs."""

import math
from typing import TYPE_CHECKING, Any

from zoo.cli.errors import UsageFault

if TYPE_CHECKING:
    from pathlib import Path

    from matplotlib.figure import Figure
    from torch import Tensor

    from zoo.data import Dataset

SOUNDS = ("speech",)
"""Data sets whose entries are the levels of a sound."""

SECONDS = 1.0
"""Of a sound that is drawn, where nobody says how many."""

PREFIX_SECONDS = 1.0
"""Of the held-out clip that is continued, where no other beginning is given."""

PAUSE_SECONDS = 0.25
"""Between several sounds in one file."""

SHOWN_SECONDS = 2.0
"""Of the sounds that a run folder holds."""


def refuse_sound_options(seconds: float | None, data: str) -> None:
    """Refuses, for a run on anything else, what only a sound can be asked for.

    Raises:
        UsageFault: If it was asked for.
    """
    if seconds is not None:
        raise UsageFault(f"--seconds expects a run on {' or '.join(SOUNDS)}, and this is one on {data}")


def draw_sound(
    run: "Path",
    num: int | None,
    *,
    prefix: str | None,
    seconds: float | None,
    seed: int,
    out: "Path | None",
    completes: bool = False,
) -> None:
    """Draws sounds from a run, and writes them to a file.

    Args:
        run: The run folder.
        num: How many; None is 1. In a WAV file one comes after the other, a quarter of a second between.
        prefix: A WAV file that they go on from.
        seconds: Of each, what it goes on from left out; None is 1.
        seed: Seed of the draw.
        out: A file that ends in ``.wav``, or in ``.npy`` for levels of shape ``(num, samples)``; None is
            drawn.wav or completed.wav in the run folder.
        completes: Whether what they go on from is written as well, and is the first second of the held-out
            clip where there is no ``prefix``.

    Raises:
        UsageFault: If the file is no such, or the model draws no sounds.
        ValueError: If ``prefix`` is no WAV file that the model can go on from.
    """
    out = out or run / ("completed.wav" if completes else "drawn.wav")
    if out.suffix not in (".wav", ".npy") or out.is_dir():
        raise UsageFault(f"--out expects a file that ends in .wav or .npy for a sound, got {out}")
    seconds = SECONDS if seconds is None else seconds

    import torch

    from inference.checkpoint import write_atomically
    from zoo.cli.pictures import to_npy
    from zoo.cli.report import counted, say
    from zoo.cli.run_folder import RunFolder
    from zoo.data import load
    from zoo.data.speech import mu_law, read_wav, wav_bytes

    folder = RunFolder(run)
    config = folder.config()
    model: Any = folder.load_model()
    dataset = load(config["data"])
    assert dataset.rate is not None
    if not hasattr(model, "generate"):
        raise UsageFault(f"expected a run of a model that draws sounds of any length, got {config['model']}")
    if not 1 / dataset.rate <= seconds < math.inf:
        raise UsageFault(f"--seconds expects at least 1/{dataset.rate}, one sample, got {seconds:g}")
    length = round(seconds * dataset.rate)
    if not out.parent.is_dir():
        raise UsageFault(f"--out expects a file in a folder that is there, got {out}")
    begun = torch.empty(0, dtype=torch.int64)
    if prefix is not None:
        try:
            begun = mu_law(read_wav(prefix))
        except OSError as error:
            raise UsageFault(
                f"--prefix expects a WAV file, got {prefix!r}: {error.strerror or error}"
            ) from None
    elif completes:
        begun = dataset.test.sequences[0][: round(PREFIX_SECONDS * dataset.rate)]
    drawn = model.generate(num or 1, length, prefix=begun, seed=seed).cpu()
    sounds = torch.cat([begun.expand(len(drawn), -1), drawn], -1) if completes else drawn
    write_atomically(
        out, to_npy(sounds) if out.suffix == ".npy" else wav_bytes(one_after_the_other(sounds, dataset.rate))
    )
    after = f" after {len(begun) / dataset.rate:.2f} s" if len(begun) else ""
    say(f"wrote {counted(len(sounds), 'sound')} of {length / dataset.rate:.2f} s{after} to {out}")


def one_after_the_other(sounds: "Tensor", rate: int) -> "Tensor":
    """Sounds of µ-law levels ``(num, samples)`` as one, with pauses between."""
    import torch

    from zoo.data.speech import NUM_LEVELS

    pause = sounds.new_full((round(PAUSE_SECONDS * rate),), NUM_LEVELS // 2)
    parts = [part for sound in sounds for part in (pause, sound)]
    return torch.cat(parts[1:])


def sound_figures(model: Any, dataset: "Dataset") -> dict[str, Any]:
    """What ``metrics.json`` holds of a model of sound: bits per sample of whole test clips, and of others.

    Every sample is scored given all of its clip before it that the model reaches. A linear predictor that
    looks at as many samples is fitted to the training clips, and what it leaves free chosen on those for
    validation.
    """
    from zoo.data.linear_prediction import fit_linear_predictor

    device = next(model.parameters()).device
    clips = dataset.test.sequences
    nats = sum(-model.log_prob_of(clip.to(device)).double().sum().item() for clip in clips)
    size = sum(map(len, clips))
    predictor = fit_linear_predictor(
        dataset.train.sequences, dataset.valid.sequences, model.receptive_field, model.num_levels
    )
    return {
        "sound": {
            "bits_per_sample": nats / size / math.log(2),
            "linear_predictor": predictor.bits(clips),
            "order": model.receptive_field,
            "density": predictor.density,
            "uniform": math.log2(model.num_levels),
            "samples": size,
        }
    }


def sound_rows(metrics: dict[str, Any]) -> list[tuple[str, str, str]]:
    """The same as rows of the printed table: what, how much, how."""
    of = metrics["sound"]
    return [
        (
            "-log p, bits per sample",
            f"{of['bits_per_sample']:.3f}",
            f"of {of['samples']:,} test samples, each after all before it in its clip; "
            f"{of['bits_per_sample'] / of['uniform']:.1%} of {of['uniform']:g} bits",
        ),
        (
            "the same, linear predictor",
            f"{of['linear_predictor']:.3f}",
            f"of as many past samples, {of['order']:,}; what is left over {of['density']}",
        ),
    ]


def sound_samples(model: Any, dataset: "Dataset") -> "Tensor":
    """What a run folder holds of a model of sound: levels ``(1, samples)``."""
    return model.generate(1, round(SHOWN_SECONDS * dataset.rate), seed=0).cpu()


def spectrograms(real: "Tensor", drawn: "Tensor", rate: int, *, name: str) -> "Figure":
    """Two sounds, one above the other: how loud each frequency is at each time, in decibels.

    Args:
        real: µ-law levels, shape ``(samples,)``.
        drawn: The same.
        rate: Samples for each second.
        name: Of the model that drew.
    """
    import numpy as np
    from matplotlib.figure import Figure
    from scipy.signal import stft

    from zoo.data.speech import inverse_mu_law

    figure = Figure(figsize=(8, 5), layout="constrained")
    rows = figure.subplots(2, sharex=True, sharey=True)
    window = min(round(0.025 * rate), len(real), len(drawn))
    loudness = []
    for sound in (real, drawn):
        frequency, seconds, spectrum = stft(inverse_mu_law(sound).numpy(), rate, nperseg=window)
        loudness.append((seconds, frequency, 20 * np.log10(np.abs(spectrum) + 1e-6)))
    highest = max(decibels.max() for *_, decibels in loudness)
    for axes, title, (seconds, frequency, decibels) in zip(
        rows, ("held-out clip", f"drawn by {name}"), loudness, strict=True
    ):
        image = axes.pcolormesh(
            seconds, frequency / 1000, decibels, vmin=highest - 70, vmax=highest, cmap="magma"
        )
        axes.set_title(title, fontsize=9, loc="left")
        axes.set_ylabel("kHz")
    rows[-1].set_xlabel("seconds")
    figure.colorbar(image, ax=rows, label="decibels")
    return figure
