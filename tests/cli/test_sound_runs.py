"""What the commands make of a run on speech: bits per sample, WAV files, spectrograms."""

import json
import math
import shutil
import wave
from pathlib import Path

import matplotlib.image
import numpy as np
import pytest
import torch

from tests.cli.conftest import call, contents
from zoo import WaveNet
from zoo.cli.run_folder import RunFolder
from zoo.cli.sound import one_after_the_other, sound_rows, spectrograms
from zoo.data import load
from zoo.data.dataset import Dataset
from zoo.data.linear_prediction import fit_linear_predictor
from zoo.data.sequences import SequenceSplit
from zoo.data.speech import mu_law, read_wav, wav_bytes

SMALL = ("residual_channels=2", "skip_channels=3", "layers=3", "stacks=1")
TINY = ("--epochs", "1", "--batch-size", "1", "--lr", "0.01", "--accelerator", "cpu")


def short(name, **other):
    """The real clips, but only a little of each."""
    data = load(name, **other)
    if data.rate is None:
        return data
    parts = {
        part: SequenceSplit([clip[20_000:24_000] for clip in getattr(data, part).sequences], 1000)
        for part in ("train", "valid", "test")
    }
    return Dataset("speech", torch.Size([1000]), data.support, **parts, rate=data.rate)


@pytest.fixture(autouse=True, scope="module")
def short_clips():
    from zoo import data

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(data, "load", short)
        patch.setattr("zoo.cli.sound.SHOWN_SECONDS", 0.1)
        patch.setattr("zoo.cli.sound.PREFIX_SECONDS", 0.05)
        yield


@pytest.fixture(scope="module")
def trained_wavenet(short_clips, tmp_path_factory):
    """A run that no test may change."""
    folder = tmp_path_factory.mktemp("sounds") / "wavenet"
    settings = [word for setting in SMALL for word in ("--set", setting)]
    assert call("train", "wavenet", "--data", "speech", *TINY, *settings, "--out", folder) == 0
    return folder


@pytest.fixture
def run(trained_wavenet, tmp_path):
    return Path(shutil.copytree(trained_wavenet, tmp_path / "run"))


@pytest.fixture
def prefixes(monkeypatch):
    """What sounds are gone on from: after so short a training, no draw would tell."""
    seen, generate = [], WaveNet.generate

    def watched(self, num, length, *, prefix=None, seed=None):
        seen.append(prefix)
        return generate(self, num, length, prefix=prefix, seed=seed)

    monkeypatch.setattr(WaveNet, "generate", watched)
    return seen


def shown(capsys) -> str:
    return " ".join(capsys.readouterr().out.split())


def test_a_run_holds_a_sound_and_spectrograms(trained_wavenet):
    names = {path.name for path in trained_wavenet.iterdir()}
    assert names >= {"samples.wav", "spectrograms.png", "learning_curve.png"} and "samples.png" not in names
    assert len(read_wav(trained_wavenet / "samples.wav")) == 1600
    assert matplotlib.image.imread(trained_wavenet / "spectrograms.png").shape[0] > 300


def test_the_figures_are_those_of_whole_clips(trained_wavenet, zoo, run, capsys):
    sound = json.loads((trained_wavenet / "metrics.json").read_text())["sound"]
    data, model = short("speech"), RunFolder(trained_wavenet).load_model()
    (clip,) = data.test.sequences
    assert sound["bits_per_sample"] == pytest.approx(-model.log_prob_of(clip).mean().item() / math.log(2))
    assert (sound["uniform"], sound["samples"], sound["order"]) == (8.0, 4000, model.receptive_field)
    predictor = fit_linear_predictor(data.train.sequences, data.valid.sequences, model.receptive_field)
    assert sound["linear_predictor"] == pytest.approx(predictor.bits([clip]))
    assert sound["density"] == predictor.density
    assert zoo("evaluate", run) == 0
    text = shown(capsys)
    assert f"-log p, bits per sample {sound['bits_per_sample']:.3f} of 4,000 test samples" in text
    assert f"the same, linear predictor {sound['linear_predictor']:.3f} of as many past samples, 8;" in text
    assert json.loads((run / "metrics.json").read_text())["sound"] == sound


def test_rows_say_what_share_of_the_uniform_is_left():
    sound = {"bits_per_sample": 4.0, "linear_predictor": 4.8, "order": 1023, "density": "Cauchy"}
    (_, value, how), (_, other, of) = sound_rows({"sound": {**sound, "uniform": 8.0, "samples": 12_345}})
    assert (value, other) == ("4.000", "4.800")
    assert "12,345 test samples" in how and "50.0% of 8 bits" in how and "1,023; " in of and "Cauchy" in of


def test_sounds_are_drawn_into_a_file(zoo, run, tmp_path, capsys):
    before = contents(run)
    assert zoo("sample", run) == 0
    after = contents(run)
    (run / "again.wav").write_bytes(after.pop("drawn.wav"))
    assert after == before and len(read_wav(run / "again.wav")) == 16_000
    assert f"wrote 1 sound of 1.00 s to {run}/drawn.wav" in shown(capsys)
    words = ("--seconds", "0.02", "--num", 2, "--seed", 3)
    assert zoo("sample", run, *words, "--out", "two.wav") == 0
    assert zoo("sample", run, *words, "--out", "two.npy") == 0
    levels = torch.from_numpy(np.load(tmp_path / "two.npy", allow_pickle=False))
    assert levels.shape == (2, 320)
    model = RunFolder(run).load_model()
    assert torch.equal(levels, model.generate(2, 320, seed=3))
    assert torch.equal(mu_law(read_wav(tmp_path / "two.wav")), one_after_the_other(levels, 16_000))


def test_several_sounds_have_silence_between():
    sounds = torch.tensor([[1, 2, 3], [4, 5, 6]])
    assert one_after_the_other(sounds, 8).tolist() == [1, 2, 3, 128, 128, 4, 5, 6]
    assert one_after_the_other(sounds[:1], 8).tolist() == [1, 2, 3]


def test_the_held_out_clip_is_gone_on_from(zoo, run, tmp_path, capsys, prefixes):
    begun = short("speech").test.sequences[0][:800]
    assert zoo("complete", run, "--seconds", "0.02", "--seed", 5) == 0
    assert f"wrote 1 sound of 0.02 s after 0.05 s to {run}/completed.wav" in shown(capsys)
    levels = mu_law(read_wav(run / "completed.wav"))
    assert len(levels) == 1120 and torch.equal(levels[:800], begun)
    assert torch.equal(prefixes[0], begun)
    model = RunFolder(run).load_model()
    assert torch.equal(levels[800:], model.generate(1, 320, prefix=begun, seed=5)[0])
    assert zoo("complete", run, "--num", 3, "--seconds", "0.01", "--out", "three.npy") == 0
    assert np.load(tmp_path / "three.npy", allow_pickle=False).shape == (3, 960)


def test_a_file_is_gone_on_from(zoo, run, tmp_path, prefixes):
    begun = torch.arange(256)
    (tmp_path / "mine.wav").write_bytes(wav_bytes(begun))
    model = RunFolder(run).load_model()
    drawn = model.generate(1, 160, prefix=begun, seed=0)[0]
    words = ("--prefix", "mine.wav", "--seconds", "0.01")
    assert zoo("complete", run, *words, "--out", "both.wav") == 0
    assert torch.equal(mu_law(read_wav(tmp_path / "both.wav")), torch.cat([begun, drawn]))
    assert zoo("sample", run, *words, "--out", "after.wav") == 0  # without what it goes on from
    assert torch.equal(mu_law(read_wav(tmp_path / "after.wav")), drawn)
    assert len(prefixes) == 3 and all(torch.equal(prefix, begun) for prefix in prefixes)


def test_spectrograms_show_a_tone_where_it_is():
    seconds = torch.arange(8000) / 16_000
    tones = [mu_law(0.5 * torch.sin(2 * math.pi * f * seconds)) for f in (1000, 3000)]
    figure = spectrograms(*tones, 16_000, name="WaveNet")
    above, below, bar = figure.axes
    for axes, tone in ((above, 1.0), (below, 3.0)):
        (image,) = axes.collections
        middle = np.asarray(image.get_array())[:, 20]
        highest = axes.get_ylim()[1] * middle.argmax() / len(middle)
        assert highest == pytest.approx(tone, abs=0.05)
    assert above.get_title(loc="left") == "held-out clip"
    assert below.get_title(loc="left") == "drawn by WaveNet"
    assert (below.get_xlabel(), below.get_ylabel(), bar.get_ylabel()) == ("seconds", "kHz", "decibels")


# Refused


@pytest.mark.parametrize("wrong", ["0", "-1", "nan", "inf", "0.00001"])
def test_no_time_at_all_is_refused(refused, run, wrong):
    for command in ("sample", "complete"):
        assert "--seconds expects at least 1/16000, one sample, got" in refused(
            command, run, "--seconds", wrong
        )


@pytest.mark.parametrize("command", ["sample", "complete"])
def test_a_beginning_of_another_rate_in_stereo_or_missing_is_refused(refused, run, tmp_path, command):
    with wave.open(str(tmp_path / "cd.wav"), "wb") as sound:
        sound.setnchannels(2)
        sound.setsampwidth(2)
        sound.setframerate(44_100)
        sound.writeframes(bytes(400))
    line = refused(command, run, "--prefix", "cd.wav")
    assert "got 44,100 Hz, stereo, 16 bits; ffmpeg -i cd.wav -ar 16000 -ac 1" in line
    assert "is no WAV file" in refused(command, run, "--prefix", run / "config.json")
    for wrong in ("missing.wav", run, ""):
        line = refused(command, run, "--prefix", wrong)
        assert f"--prefix expects a WAV file, got {str(wrong)!r}: " in line


@pytest.mark.parametrize("command", ["sample", "complete"])
def test_files_that_hold_no_sound_are_refused(refused, run, command):
    for out in ("picture.png", "sound.mp3", "sound"):
        assert f"ends in .wav or .npy for a sound, got {out}" in refused(command, run, "--out", out)
    assert "in a folder that is there" in refused(command, run, "--out", "missing/sound.wav")


def test_options_of_other_runs_are_refused(refused, run):
    for words in (("--label", 1), ("--sweeps", 3)):
        assert "--label and --sweeps are not for a run on speech" in refused("sample", run, *words)
    for command in ("sample", "complete"):
        assert "--length expects a run on" in refused(command, run, "--length", 3)
    config = json.loads((run / "config.json").read_text())
    (run / "config.json").write_text(json.dumps(config | {"data": "digits"}))
    for command in ("sample", "complete"):
        line = refused(command, run, "--seconds", "1")
        assert "--seconds expects a run on speech, and this is one on digits" in line


def test_levels_that_are_not_those_of_the_data_are_refused(refused):
    words = ("--data", "speech", *TINY, "--set", "num_levels=16", "--out", "other")
    assert "expects entries in {0, ..., 15}" in refused("train", "wavenet", *words)
