"""Read speech, 16 kHz: five clips of a reader of Sense and Sensibility, 24.7 seconds, in 256 levels.

    f(x) = sign(x) log(1 + μ|x|) / log(1 + μ),    level = ⌊(f(x) + 1) / 2 · μ + ½⌋,    μ = K - 1,

for amplitudes x in -1 … 1: fine steps where it is quiet, coarse ones where it is loud (µ-law, ITU-T G.711).

References:
    | WaveNet: A generative model for raw audio (van den Oord et al., 2016), section 2.2
    | https://arxiv.org/abs/1609.03499
    | LibriVox recording of Sense and Sensibility (Austen, 1811), chapter 1; in the public domain
"""

import io
import math
import os
import shlex
import wave
from importlib import resources
from typing import BinaryIO

import numpy as np
import torch
from torch import Tensor
from torch.distributions import constraints

from zoo.data import DESCRIPTIONS
from zoo.data.dataset import Dataset
from zoo.data.sequences import SequenceSplit

RATE = 16_000
"""Samples for each second."""

NUM_LEVELS = 256

WINDOW = 4096
"""Samples of a training item: a quarter of a second."""

TRAIN, VALID, TEST = ("0870", "0890", "0920"), ("0880",), ("0930",)
"""The clips of each part, by the number in their file's name: 18.5, 3.0 and 3.3 seconds."""

FULL_SCALE = 2**15
"""What a 16-bit sample is divided by."""


def load() -> Dataset:
    """Loads the clips: three to learn from, one to choose by and one to report on, each of them whole.

    Items are windows of 4,096 levels, int64, cut one after the other; the clips themselves, of any length,
    are the ``sequences`` of each part.

    Example:
        >>> data = load()
        >>> data.train, data.rate
        (SequenceSplit(70 windows of 4096, from 3 sequences), 16000)
        >>> [len(clip) for clip in data.test.sequences]
        [52640]
    """

    def split(names: tuple[str, ...]) -> SequenceSplit:
        return SequenceSplit([mu_law(_embedded(name)) for name in names], WINDOW)

    return Dataset(
        name="speech",
        event_shape=torch.Size([WINDOW]),
        support=constraints.integer_interval(0, NUM_LEVELS - 1),
        train=split(TRAIN),
        valid=split(VALID),
        test=split(TEST),
        rate=RATE,
        description=DESCRIPTIONS["speech"],
    )


def mu_law(x: Tensor, levels: int = NUM_LEVELS) -> Tensor:
    """Amplitudes as levels, by the formula above.

    Args:
        x: Amplitudes, -1 to 1, of any shape.
        levels: K, at least 2.

    Returns:
        Levels 0 to K - 1, int64, of the same shape.

    Raises:
        ValueError: If an amplitude is outside -1 to 1 or no number, or ``levels`` is below 2.

    Example:
        >>> mu_law(torch.tensor([-1.0, -0.01, 0.0, 0.01, 1.0]))
        tensor([  0,  98, 128, 157, 255])
    """
    _check_levels(levels)
    if not (x.abs() <= 1).all():  # NaN among them
        wrong = x[~(x.abs() <= 1)]
        raise ValueError(
            f"expected amplitudes of -1 to 1, got {wrong[0].item():g} and {len(wrong) - 1} more outside; "
            "divide samples of 16 bits by 32768"
        )
    x, mu = x.double(), levels - 1
    companded = x.sign() * (mu * x.abs()).log1p() / math.log1p(mu)
    return ((companded + 1) / 2 * mu + 0.5).long()


def inverse_mu_law(level: Tensor, levels: int = NUM_LEVELS) -> Tensor:
    """Amplitudes in the middle of levels, on the scale of f, so that `mu_law` gives the same levels again.

    x = sign(y) ((1 + μ)^|y| - 1) / μ,    y = 2 level / μ - 1.

    Args:
        level: Of any shape; fractions are the edges between levels.
        levels: K, at least 2.

    Returns:
        Amplitudes -1 to 1, float64, of the same shape.

    Raises:
        ValueError: If ``levels`` is below 2.

    Example:
        >>> inverse_mu_law(torch.tensor([0, 98, 255]))
        tensor([-1.0000, -0.0102,  1.0000], dtype=torch.float64)
    """
    _check_levels(levels)
    mu = levels - 1
    y = 2 * level.double() / mu - 1
    return y.sign() * (y.abs() * math.log1p(mu)).expm1() / mu


def read_wav(file: str | os.PathLike[str] | BinaryIO) -> Tensor:
    """Reads a sound of 16 kHz, mono, 16 bits: what the speech here is, and what a model of it can continue.

    Args:
        file: Its path, or an open file.

    Returns:
        Amplitudes -1 to 1, float32, shape ``(samples,)``.

    Raises:
        ValueError: If it is no WAV file, or one of another rate, in stereo, of another sample width, or
            without a sample; the message has the command that converts it.
        OSError: If it cannot be read.

    Example:
        >>> mu_law(read_wav(io.BytesIO(wav_bytes(torch.tensor([128, 200, 0])))))
        tensor([128, 200,   0])
    """
    name = os.fspath(file) if isinstance(file, str | os.PathLike) else getattr(file, "name", "the file")
    remedy = f"ffmpeg -i {shlex.quote(str(name))} -ar {RATE} -ac 1 -c:a pcm_s16le converted.wav makes it one"
    try:
        with wave.open(file if hasattr(file, "read") else os.fspath(file), "rb") as sound:
            rate, channels, width = sound.getframerate(), sound.getnchannels(), sound.getsampwidth()
            promised = sound.getnframes() * channels * width
            data = sound.readframes(sound.getnframes())
    except (wave.Error, EOFError) as error:
        reason = str(error) or "it ends early"
        raise ValueError(f"{name} is no WAV file in PCM ({reason}); {remedy}") from None
    if (rate, channels, width) != (RATE, 1, 2):
        said = {1: "mono", 2: "stereo"}.get(channels, f"{channels} channels")
        raise ValueError(
            f"{name} should be a sound of {RATE:,} Hz, mono, 16 bits, got {rate:,} Hz, {said}, "
            f"{8 * width} bits; {remedy}"
        )
    if len(data) < promised:
        raise ValueError(f"{name} ends early: expected {promised:,} bytes of sound, got {len(data):,}")
    if len(data) < width:
        raise ValueError(f"{name}: expected a sound of at least one sample, got none")
    samples = np.frombuffer(data[: len(data) // width * width], dtype="<i2")
    return torch.from_numpy(samples.astype(np.float32)) / FULL_SCALE


def wav_bytes(levels: Tensor, num_levels: int = NUM_LEVELS) -> bytes:
    """A sound as the content of a WAV file: 16 kHz, mono, 16 bits.

    Args:
        levels: µ-law levels 0 to ``num_levels - 1``, shape ``(samples,)``.
        num_levels: K, at least 2.

    Raises:
        ValueError: If ``levels`` has another number of dimensions, or ``num_levels`` is below 2.
    """
    if levels.dim() != 1:
        raise ValueError(f"expected levels of shape (samples,), got {tuple(levels.shape)}")
    samples = (inverse_mu_law(levels, num_levels) * FULL_SCALE).round().clamp(max=FULL_SCALE - 1)
    content = io.BytesIO()
    with wave.open(content, "wb") as sound:
        sound.setnchannels(1)
        sound.setsampwidth(2)
        sound.setframerate(RATE)
        sound.writeframes(samples.cpu().numpy().astype("<i2").tobytes())
    return content.getvalue()


def _embedded(name: str) -> Tensor:
    place = resources.files("zoo.data").joinpath("files", f"sense-and-sensibility-{name}.wav")
    with place.open("rb") as file:
        return read_wav(file)


def _check_levels(levels: int) -> None:
    if levels < 2:
        raise ValueError(f"levels must be at least 2, got {levels}")
