"""Shakespeare and the names: what is in which part, and that no character is lost or made up."""

import gzip
import hashlib
import os
from pathlib import Path

import numpy as np
import pytest
import torch

import zoo
from zoo.data import text
from zoo.data.ngrams import DISCOUNTS, NGrams
from zoo.data.sequences import SequenceSplit

COMPLETE = Path(os.environ.get("ZOO_DATA_DIR", "nowhere")) / "text" / f"{text.COMPLETE}.gz"

needs_all_texts = pytest.mark.skipif(not COMPLETE.exists(), reason="ZOO_DATA_DIR has no text/")


@pytest.fixture
def play(monkeypatch) -> zoo.Dataset:
    """The one that is embedded."""
    monkeypatch.delenv("ZOO_DATA_DIR", raising=False)
    return zoo.load("shakespeare")


@pytest.fixture(scope="module")
def names() -> zoo.Dataset:
    return zoo.load("names")


def parts(data):
    return data.train, data.valid, data.test


def written(data, part):
    return [data.decode(sequence) for sequence in part.sequences]


# The embedded play


def test_the_embedded_play_is_whole_and_cut_at_its_acts(play):
    (first,), (fourth,), (fifth,) = (written(play, part) for part in parts(play))
    digest = hashlib.sha256((first + fourth + fifth).encode()).hexdigest()
    assert digest == "c4f748c8d386f98db9d39e6cbac69913c940653a222eb847b608be64e4d66aeb"
    assert first.startswith("THE TRAGEDY OF CORIOLANUS\n") and "\nACT III." in first
    assert fourth.startswith("ACT IV.\n") and fifth.startswith("ACT V.\n")
    assert "\nACT " not in fourth and "\nACT " not in fifth
    assert (play.alphabet, "acts" in play.description) == (text.ALPHABET, True)


def test_windows_are_the_text_in_order_without_its_remainder(play):
    for part in parts(play):
        (whole,) = part.sequences
        assert part.x.shape == (len(whole) // 100, 100) and part.x.dtype == torch.int64
        assert torch.equal(part.x.flatten(), whole[: part.x.numel()])
        assert part.starts.tolist() == [True] + [False] * (len(part) - 1)
        assert part.y is None


def test_a_character_that_was_never_seen_is_named_with_its_remedy(play):
    assert play.decode(play.encode("ROMEO:\nAy me!")) == "ROMEO:\nAy me!"
    assert play.encode("").shape == (0,)
    with pytest.raises(ValueError, match=r"the character 'é' was never seen in training: leave it out, or"):
        play.encode("Roméo")
    with pytest.raises(ValueError, match=r"the character '#' \(nor '%é'\) was never seen in training"):
        play.encode("é#%")
    with pytest.raises(ValueError, match=r"expected entries 0 \.\.\. 83, got 0 \.\.\. 84"):
        play.decode(torch.tensor([0, 84]))
    with pytest.raises(ValueError, match=r"expected entries 0 \.\.\. 83, got -1 \.\.\. 0"):
        play.decode(torch.tensor([0, -1]))


def test_images_have_no_alphabet():
    digits = zoo.load("digits")
    for asked in (lambda: digits.encode("a"), lambda: digits.decode(torch.tensor([0]))):
        with pytest.raises(ValueError, match="data set 'digits' has no alphabet: its items are no texts"):
            asked()


# All of Shakespeare


@needs_all_texts
def test_whole_plays_are_held_out_and_every_character_of_them_is_known():
    data = zoo.load("shakespeare")
    learnt, *held_out = (written(data, part) for part in parts(data))
    assert [len(texts) for texts in (learnt, *held_out)] == [36, 3, 3]
    titles = [[whole.partition("\n")[0] for whole in texts] for texts in (learnt, *held_out)]
    assert titles[1:] == [list(text.VALID), list(text.TEST)]
    assert not {*text.VALID, *text.TEST} & set(titles[0]) and "THE TRAGEDY OF CORIOLANUS" in titles[0]
    assert "".join(sorted(set("".join(learnt)))) == data.alphabet
    assert set("".join(sum(held_out, []))) <= set(data.alphabet)
    everything = sorted(learnt + sum(held_out, []))
    whole = gzip.decompress(COMPLETE.read_bytes()).decode()
    assert all(each in whole for each in everything)
    assert sum(map(len, everything)) == len(whole)
    assert data.train.starts.sum() == 36


@needs_all_texts
def test_all_texts_are_found_in_a_folder_compressed_or_not(play, tmp_path, monkeypatch):
    assert len(zoo.load("shakespeare", folder=COMPLETE.parent).train.sequences) == 36
    (tmp_path / text.COMPLETE).write_bytes(gzip.decompress(COMPLETE.read_bytes()))
    monkeypatch.setenv("ZOO_DATA_DIR", str(tmp_path))
    assert len(zoo.load("shakespeare").train.sequences) == 36


def test_other_content_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("ZOO_DATA_DIR", str(tmp_path))
    (tmp_path / "text").mkdir()
    path = tmp_path / "text" / f"{text.COMPLETE}.gz"
    path.write_bytes(gzip.compress(b"MACBETH\n\nby William Shakespeare\n"))
    with pytest.raises(ValueError, match=f"{path} is not the {text.COMPLETE} expected: it has SHA-256"):
        zoo.load("shakespeare")
    path.write_bytes(path.read_bytes()[:20])
    with pytest.raises(ValueError, match=f"{path} is a truncated or damaged gzip file"):
        zoo.load("shakespeare")


def test_a_folder_that_was_named_must_have_them(tmp_path):
    with pytest.raises(FileNotFoundError, match="without a folder, one embedded play is loaded"):
        zoo.load("shakespeare", folder=tmp_path)
    with pytest.raises(NotADirectoryError, match="does not exist or is not a folder"):
        zoo.load("shakespeare", folder=tmp_path / "nowhere")


def test_texts_are_told_apart_where_one_ends_in_the_line_of_the_next():
    whole = (
        "KING JOHN\n\nby William Shakespeare\nNought.\n\nTHE ENDTHE SONNETS\nby William Shakespeare\nLove.]"
    )
    whole += "MACBETH\n\nby William Shakespeare\nAmen."
    texts = text._texts(whole)
    assert list(texts) == ["KING JOHN", "THE SONNETS", "MACBETH"]
    assert texts["THE SONNETS"] == "THE SONNETS\nby William Shakespeare\nLove.]"


# Names


def test_each_name_is_there_once_in_one_part_with_the_list_that_it_is_on(names):
    assert [len(part) for part in parts(names)] == [6822, 800, 800]
    x = torch.cat([part.x for part in parts(names)])
    assert x.shape == (8422, 16) and len(x.unique(dim=0)) == 8422
    assert names.num_classes == 3 and names.alphabet.startswith("\n-AB") and len(names.alphabet) == 54
    found = {
        names.decode(item).rstrip("\n"): int(label)
        for part in parts(names)
        for item, label in zip(part.x, part.y, strict=True)
    }
    assert (found["Ophelia"], found["Ferdinand"], found["Robin"]) == (0, 1, 2)
    assert "Helen-Elizabeth" in found and all(name.strip() == name and name for name in found)
    assert torch.cat([part.y for part in parts(names)]).bincount().tolist() == [4525, 3478, 419]


def test_a_name_ends_once_and_stays_ended(names):
    ended = names.train.x == 0
    assert ended[:, -1].all() and not ended[:, 0].any()
    assert (ended.int().diff(dim=1) >= 0).all()


def test_the_split_of_the_names_is_fixed(names):
    digest = hashlib.sha256(names.test.x.numpy().astype(np.uint8).tobytes()).hexdigest()
    assert digest.startswith("9a079844e574f97c")


# Windows


def test_windows_of_several_sequences_never_run_over_an_end():
    split = SequenceSplit([torch.arange(7), torch.arange(2), torch.arange(10, 16)], length=3)
    assert split.x.tolist() == [[0, 1, 2], [3, 4, 5], [10, 11, 12], [13, 14, 15]]
    assert split.starts.tolist() == [True, False, True, False]
    assert [len(sequence) for sequence in split.sequences] == [7, 2, 6] and len(split) == 4
    assert split.event_shape == (3,)


@pytest.mark.parametrize(
    ("sequences", "length", "words"),
    [
        ([torch.arange(3)], 0, "length must be at least 1, got 0"),
        ([], 3, "at least one, got none"),
        ([torch.zeros(2, 3)], 3, r"sequences of one dimension, at least one, got \(2, 3\)"),
        ([torch.arange(2), torch.arange(4)], 5, "as long as a window of 5, the longest has 4"),
    ],
)
def test_sequences_that_give_no_window_are_refused(sequences, length, words):
    with pytest.raises(ValueError, match=words):
        SequenceSplit(sequences, length)


# Counts


def test_counts_sum_to_one_after_every_context():
    generator = torch.Generator().manual_seed(0)
    train = [torch.randint(3, (40,), generator=generator), torch.randint(3, (30,), generator=generator)]
    ngrams = NGrams(train, [torch.randint(3, (20,), generator=generator)], num_symbols=3, order=3)
    contexts = torch.cartesian_prod(*[torch.arange(3)] * 4)
    p = torch.stack([ngrams.log_prob_of(each)[:, -1] for each in contexts]).exp().view(27, 3, 3)
    assert torch.allclose(p.sum(1), torch.ones(27, 3, dtype=torch.float64))
    assert all(discount in DISCOUNTS for discount in ngrams.discounts) and len(ngrams.discounts) == 3


def test_counts_are_the_formula_by_hand():
    train = [torch.tensor([0, 1, 0, 1, 0, 2])]
    ngrams = NGrams(train, [torch.tensor([0, 1, 2])], num_symbols=4, order=2)
    d = ngrams.discounts
    first = lambda times: (max(times - d[0], 0) + d[0] * 3 / 4) / 6  # noqa: E731 - n() = 6, m() = 3
    second = (2 - d[1] + d[1] * 2 * first(2)) / 3  # 0 is followed by 1, 1, 2
    found = ngrams.log_prob_of(torch.tensor([0, 1, 3, 0])).exp()
    assert found[0].tolist() == pytest.approx([first(3), first(2), first(0), first(3)])
    # After a beginning, and after 3, which nothing ever followed, it is what the unigrams say.
    alone = (0 + d[1] * 1 * first(0)) / 2  # 1 is followed by 0, 0
    assert found[1].tolist() == pytest.approx([first(3), second, alone, first(3)])


def test_discounts_are_the_best_of_the_grid_for_the_validation_part():
    generator = torch.Generator().manual_seed(1)
    train, valid = torch.randint(5, (200,), generator=generator), torch.randint(5, (60,), generator=generator)
    ngrams = NGrams([train], [valid], num_symbols=5, order=2)
    best = ngrams.nats_per_symbol([valid])
    for row in range(2):
        for discount in DISCOUNTS:
            ngrams.discounts = [*ngrams.discounts[:row], float(discount), *ngrams.discounts[row + 1 :]]
            assert ngrams.nats_per_symbol([valid])[row] >= best[row] - 1e-12
        ngrams = NGrams([train], [valid], num_symbols=5, order=2)


def test_counts_refuse_what_they_cannot_hold():
    with pytest.raises(ValueError, match=r"order must be at least 1, .* got 0"):
        NGrams([torch.arange(3)], [torch.arange(3)], 3, 0)
    with pytest.raises(ValueError, match=r"100 symbols to its power below 2\*\*63, got 10"):
        NGrams([torch.arange(3)], [torch.arange(3)], 100, 10)
