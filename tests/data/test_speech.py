"""The embedded speech: its levels by their formula, its files, and what no file may be."""

import io
import math
import wave

import numpy as np
import pytest
import torch

from zoo.data import load, speech
from zoo.data.sequences import SequenceSplit
from zoo.data.speech import inverse_mu_law, mu_law, read_wav, wav_bytes


def written(path, *, rate=16_000, channels=1, width=2, frames=b"\1\0\2\0\3\0\4\0\5\0\6\0"):
    with wave.open(str(path), "wb") as sound:
        sound.setnchannels(channels)
        sound.setsampwidth(width)
        sound.setframerate(rate)
        sound.writeframes(frames)
    return path


# Levels


@pytest.mark.parametrize("levels", [2, 16, 256])
def test_levels_are_those_of_the_formula(levels):
    mu = levels - 1
    x = torch.linspace(-1, 1, 2001, dtype=torch.float64)
    expected = [
        math.floor((math.copysign(math.log(1 + mu * abs(a)) / math.log(1 + mu), a) + 1) / 2 * mu + 0.5)
        for a in x.tolist()
    ]
    assert mu_law(x, levels).tolist() == expected
    assert mu_law(x, levels).dtype == torch.int64
    assert expected[0] == 0 and expected[-1] == mu


@pytest.mark.parametrize("levels", [2, 16, 256])
def test_the_middle_of_a_level_is_in_it_and_half_a_level_is_an_edge(levels):
    every = torch.arange(levels)
    middle = inverse_mu_law(every, levels)
    assert torch.equal(mu_law(middle, levels), every)
    assert (middle.diff() > 0).all() and torch.allclose(middle, -middle.flip(0))
    edges = inverse_mu_law(every[:-1] + 0.5, levels)
    assert torch.equal(mu_law((edges + 1e-9).clamp(-1, 1), levels), every[1:])
    assert torch.equal(mu_law((edges - 1e-9).clamp(-1, 1), levels), every[:-1])


@pytest.mark.parametrize("wrong", [1.5, -1.01, math.nan, math.inf])
def test_an_amplitude_outside_is_refused(wrong):
    for more in (0, 2):
        with pytest.raises(ValueError, match=f"-1 to 1, got {wrong:g} and {more} more outside; .* by 32768"):
            mu_law(torch.tensor([0.0, wrong, *[2.0] * more]))


def test_fewer_than_two_levels_are_refused():
    for convert in (mu_law, inverse_mu_law):
        with pytest.raises(ValueError, match="levels must be at least 2, got 1"):
            convert(torch.zeros(1), 1)


# Files


def test_a_file_holds_what_was_written(tmp_path):
    levels = torch.arange(256)
    path = tmp_path / "sound.wav"
    path.write_bytes(wav_bytes(levels))
    with wave.open(str(path)) as sound:
        assert (sound.getframerate(), sound.getnchannels(), sound.getsampwidth()) == (16_000, 1, 2)
        frames = np.frombuffer(sound.readframes(sound.getnframes()), "<i2")
    assert frames[0] == -32768 and frames[-1] == 32767 and (np.diff(frames.astype(int)) > 0).all()
    assert torch.equal(mu_law(read_wav(path)), levels)
    assert torch.equal(read_wav(path), read_wav(str(path)))
    assert torch.equal(read_wav(io.BytesIO(path.read_bytes())), read_wav(path))
    assert read_wav(path).tolist() == (frames / 32768).tolist()


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"rate": 44_100}, "got 44,100 Hz, mono, 16 bits"),
        ({"channels": 2}, "got 16,000 Hz, stereo, 16 bits"),
        ({"channels": 3}, "got 16,000 Hz, 3 channels, 16 bits"),
        ({"width": 1}, "got 16,000 Hz, mono, 8 bits"),
        ({"rate": 8_000, "channels": 2, "width": 3}, "got 8,000 Hz, stereo, 24 bits"),
    ],
)
def test_another_rate_stereo_and_another_width_are_refused_with_the_remedy(tmp_path, wrong, said):
    path = written(tmp_path / "a sound.wav", **wrong)
    with pytest.raises(ValueError) as caught:
        read_wav(path)
    message = str(caught.value)
    assert f"{path} should be a sound of 16,000 Hz, mono, 16 bits, {said}; " in message
    assert message.endswith(f"ffmpeg -i '{path}' -ar 16000 -ac 1 -c:a pcm_s16le converted.wav makes it one")
    assert "\n" not in message


@pytest.mark.parametrize("content", [b"", b"ID3 and so on", b"RIFF\4\0\0\0WAVE"])
def test_what_is_no_wav_file_is_refused_with_the_remedy(tmp_path, content):
    path = tmp_path / "sound.mp3"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"sound\.mp3 is no WAV file in PCM \(.+\); ffmpeg -i "):
        read_wav(path)


def test_a_file_that_ends_early_is_refused(tmp_path):
    path = tmp_path / "cut.wav"
    path.write_bytes(wav_bytes(torch.full((100,), 128))[:-60])
    with pytest.raises(ValueError, match=r"cut\.wav ends early: expected 200 bytes of sound, got 140"):
        read_wav(path)


def test_silence_of_no_length_is_refused_and_a_missing_file_is_missing(tmp_path):
    with pytest.raises(ValueError, match="expected a sound of at least one sample, got none"):
        read_wav(written(tmp_path / "empty.wav", frames=b""))
    with pytest.raises(FileNotFoundError):
        read_wav(tmp_path / "missing.wav")


def test_levels_of_several_sounds_are_no_file():
    with pytest.raises(ValueError, match=r"levels of shape \(samples,\), got \(2, 3\)"):
        wav_bytes(torch.zeros(2, 3, dtype=torch.int64))


# The data set


def test_whole_clips_are_held_out():
    data = load("speech")
    assert (data.rate, data.event_shape, data.num_classes) == (16_000, (4096,), None)
    parts = data.train, data.valid, data.test
    assert all(isinstance(part, SequenceSplit) for part in parts)
    lengths = [[len(clip) for clip in part.sequences] for part in parts]
    assert lengths == [[113_600, 84_800, 96_800], [47_840], [52_640]]
    for part in parts:
        assert part.x.dtype == torch.int64 and data.support.check(part.x).all()
        assert torch.equal(part.x[0], part.sequences[0][:4096])
    assert not set(speech.TRAIN) & {*speech.VALID, *speech.TEST} and speech.VALID != speech.TEST


def test_the_clips_have_the_known_levels():
    data = load("speech")
    # Loud enough to be speech, and in all but a few of the levels.
    assert len(torch.cat([clip for clip in data.train.sequences]).unique()) > 200
    spread = [inverse_mu_law(part.sequences[0]).std().item() for part in (data.train, data.valid, data.test)]
    assert spread == pytest.approx([0.0598, 0.0434, 0.0674], abs=2e-4)


def test_only_sounds_have_a_rate():
    assert load("digits").rate is None
