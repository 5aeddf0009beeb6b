"""The embedded data sets, and what every data set promises."""

import hashlib
import subprocess
import sys

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from torch.distributions import MultivariateNormal, constraints

from zoo.data import BinarizedSplit, Split, load, names

EMBEDDED = [name for name in names() if "mnist" not in name]


def bits(x):
    return hashlib.sha256(x.numpy().astype(np.uint8).tobytes()).hexdigest()


def parts(data):
    return data.train, data.valid, data.test


def whole(data):
    return torch.cat([part.x for part in parts(data)])


@pytest.mark.parametrize("name", EMBEDDED)
def test_every_data_set_keeps_the_contract(name):
    data = load(name)
    assert data.name == name
    assert data.description and "\n" not in data.description
    for part in parts(data):
        assert isinstance(part, Split)
        assert part.event_shape == data.event_shape == part.x.shape[1:]
        assert len(part) == len(part.x)
        if part.y is not None:  # texts and sounds have no labels
            assert len(part) == len(part.y)
            assert part.y.dtype == torch.int64
        assert data.support.check(part.x).all()
        assert not part.dynamic and part.intensities is None
        index = torch.tensor([3, 0, 3])
        assert torch.equal(part.batch(index), part.x[index])
        if data.num_classes is not None:
            assert set(part.y.tolist()) == set(range(data.num_classes))


@pytest.mark.parametrize(
    ("name", "support", "dtype", "num_classes", "num_folds", "fold"),
    [
        ("digits", constraints.boolean, torch.float32, 10, 1, None),
        ("digits-4x4", constraints.boolean, torch.float32, 10, 1, None),
        ("digits-levels", constraints.integer_interval(0, 16), torch.int64, 10, 1, None),
        ("names", constraints.integer_interval(0, 53), torch.int64, 3, 1, None),
        ("red-wine", constraints.real, torch.float32, None, 10, 0),
        ("shakespeare", constraints.integer_interval(0, 83), torch.int64, None, 1, None),
        ("speech", constraints.integer_interval(0, 255), torch.int64, None, 1, None),
        ("white-wine", constraints.real, torch.float32, None, 10, 0),
    ],
)
def test_kinds(name, support, dtype, num_classes, num_folds, fold):
    data = load(name)
    assert type(data.support) is type(support)
    assert vars(data.support) == vars(support)
    assert data.train.x.dtype == dtype
    assert (data.num_classes, data.num_folds, data.fold) == (num_classes, num_folds, fold)


@pytest.mark.parametrize("name", ["digits", "digits-4x4", "digits-levels"])
def test_digits_are_the_published_split(name):
    data = load(name)
    assert [len(part) for part in parts(data)] == [1297, 250, 250]
    source = load_digits()
    order = np.random.default_rng(0).permutation(1797)
    expected = torch.from_numpy(source.images[order])
    if name == "digits-4x4":
        expected = torch.nn.functional.avg_pool2d(expected[:, None], 2)[:, 0]
    if name != "digits-levels":
        expected = expected >= 8
    assert torch.equal(whole(data), expected.to(data.train.x.dtype))
    labels = torch.cat([part.y for part in parts(data)])
    assert labels.tolist() == source.target[order].tolist()


def test_digits_have_the_known_bits():
    binary, levels = load("digits").train.x, load("digits-levels").train.x
    assert bits(binary) == "3a3480fb773637f702931810192864dfbf698c55b4e16d7773f53bc83f9d2aba"
    assert bits(levels) == "4e385d1b5d3c5fcfed1d15e4a50a2b2fdb3fa6fff7d8c53bd256e51f022a2961"
    assert torch.equal(binary, (levels >= 8).float())
    assert levels.min() == 0 and levels.max() == 16


def test_small_digits_are_few_enough_to_count_and_different_enough_to_learn():
    data = load("digits-4x4")
    assert data.event_shape == (4, 4) and data.train.x.shape == (1297, 4, 4)
    items = whole(data).flatten(1)
    different, counts = items.unique(dim=0, return_counts=True)
    assert len(different) == 228 and counts.max() < 0.06 * len(items)
    assert items.mean().item() == pytest.approx(0.328, abs=1e-3)
    shares = items.mean(0)
    assert ((shares > 0.4) & (shares < 0.8)).sum() == 8, "half of the pixels say something on their own"
    assert bits(data.train.x) == "667b6175d1812e403d387276b31c930e524516d79c670d7778d728093ba4363b"


@pytest.mark.parametrize(
    ("name", "sizes"), [("red-wine", (1296, 144, 159)), ("white-wine", (3969, 440, 489))]
)
def test_wine_folds_share_the_rows_out(name, sizes):
    folds = [load(name, fold=fold) for fold in range(10)]
    assert tuple(len(part) for part in parts(folds[9])) == sizes
    total = sum(sizes)
    # The rows of all parts, sorted, are the same table whichever fold is held out, once the scale is undone.
    tables = []
    for data in folds:
        assert sum(len(part) for part in parts(data)) == total
        x = whole(data).double()
        x = (x - x.mean(0)) / x.std(0)
        y = torch.cat([part.y for part in parts(data)])
        tables.append(np.sort(x.numpy(), axis=0))
        assert torch.equal(y.sort().values, torch.cat([data.test.y for data in folds]).sort().values)
    for table in tables[1:]:
        np.testing.assert_allclose(table, tables[0], atol=1e-5)


@pytest.mark.parametrize("name", ["red-wine", "white-wine"])
def test_wine_parts_are_in_permuted_order(name):
    quality = {fold: load(name, fold=fold) for fold in range(10)}
    tests = [quality[fold].test.y for fold in range(10)]
    learn = torch.cat(tests[:4] + tests[5:])
    data = quality[4]
    assert torch.equal(torch.cat([data.train.y, data.valid.y]), learn)
    assert len(data.valid) == len(learn) // 10


@pytest.mark.parametrize("name", ["red-wine", "white-wine"])
def test_wine_is_standardised_by_the_nine_folds(name):
    data = load(name, fold=2)
    learn = torch.cat([data.train.x, data.valid.x]).double()
    torch.testing.assert_close(learn.mean(0), torch.zeros(11).double(), atol=1e-5, rtol=0)
    torch.testing.assert_close(learn.var(0, correction=0), torch.ones(11).double(), atol=1e-5, rtol=0)
    assert data.test.x.mean(0).abs().max() > 1e-3  # not by its own numbers


@pytest.mark.parametrize(("name", "figure"), [("red-wine", -13.19), ("white-wine", -13.20)])
def test_a_gaussian_has_the_figure_of_the_rnade_paper(name, figure):
    scores = []
    for fold in range(10):
        data = load(name, fold=fold)
        learn = torch.cat([data.train.x, data.valid.x]).double()
        gaussian = MultivariateNormal(learn.mean(0), torch.cov(learn.T, correction=0))
        scores.append(gaussian.log_prob(data.test.x.double()).mean().item())
    assert np.mean(scores) == pytest.approx(figure, abs=0.01)


@pytest.mark.parametrize("fold", [-1, 10, "3", 0.5])
def test_a_bad_fold_is_refused(fold):
    with pytest.raises(ValueError, match="fold must be 0 to 9 for 'red-wine', got "):
        load("red-wine", fold=fold)


@pytest.mark.parametrize("name", [name for name in names() if not name.endswith("-wine")])
def test_a_fold_is_refused_where_there_are_none(name):
    with pytest.raises(ValueError, match=f"'{name}' has no folds, got fold=0"):
        load(name, fold=0)


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("MNIST", "'mnist'"),
        ("red_wine", "'red-wine'"),
        ("digit", "'digits'"),
        ("fashion", "'fashion-mnist'"),
        ("mnist_levels", "'mnist-levels'"),
        ("x", None),
        (3, None),
    ],
)
def test_an_unknown_name_says_what_is_allowed(name, hint):
    with pytest.raises(ValueError) as caught:
        load(name)
    message = str(caught.value)
    assert repr(name) in message and ", ".join(sorted(names())) in message and "\n" not in message
    assert message.endswith(f"did you mean {hint}?") if hint else "did you mean" not in message


def test_listing_the_names_imports_nothing_heavy():
    heavy = {"torch", "numpy", "sklearn", "pooch"}
    code = f"import sys, zoo.data; zoo.data.names(); print({heavy} & set(sys.modules))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.strip() == "set()"


def test_labels_must_match_the_items():
    with pytest.raises(ValueError, match=r"shape \(4,\).*got \(3,\)"):
        Split(torch.zeros(4, 2), torch.zeros(3))
    with pytest.raises(ValueError, match=r"shape \(4,\).*got \(4, 1\)"):
        BinarizedSplit(torch.zeros(4, 2, dtype=torch.uint8), torch.zeros(4, 1), seed=0)
    with pytest.raises(ValueError, match=r"torch.uint8, got torch.float32"):
        BinarizedSplit(torch.zeros(4, 2), seed=0)


LEVELS = torch.arange(256, dtype=torch.uint8)
REPEATS = 20_000


def draws(kind):
    split = BinarizedSplit(LEVELS.expand(REPEATS, 256), seed=5, dynamic=True)
    if kind == "fixed":
        return split.x
    return split.batch(torch.arange(REPEATS), torch.Generator().manual_seed(0))


@pytest.mark.parametrize("kind", ["fixed", "dynamic"])
def test_a_pixel_is_one_with_probability_level_over_255(kind):
    x = draws(kind)
    assert x.dtype == torch.float32 and constraints.boolean.check(x).all()
    p = LEVELS.double() / 255
    error = x.double().mean(0) - p
    assert error[0] == 0 and error[255] == 0
    z = error[1:255] / (p * (1 - p) / REPEATS).sqrt()[1:255]
    assert z.abs().max() < 5
    assert z.mean().abs() < 5 / 254**0.5  # a bias shared by all levels, as of level / 256, shows here


def test_dynamic_batches_follow_the_generator():
    split = BinarizedSplit(LEVELS.expand(50, 256), seed=0, dynamic=True)
    index = torch.arange(20)
    generator = torch.Generator().manual_seed(1)
    first, second = split.batch(index, generator), split.batch(index, generator)
    assert first.shape == (20, 256)
    assert not torch.equal(first, second)
    assert torch.equal(first, split.batch(index, torch.Generator().manual_seed(1)))
    state = torch.get_rng_state()
    split.batch(index, generator)
    assert torch.equal(torch.get_rng_state(), state)
    split.batch(index)
    assert not torch.equal(torch.get_rng_state(), state)


def test_fixed_binarisation_has_the_known_bits():
    grey = LEVELS.expand(50, 256)
    split = BinarizedSplit(grey, seed=0)
    index = torch.tensor([7, 7, 1])
    assert torch.equal(split.batch(index), split.x[index])
    assert torch.equal(split.batch(index, torch.Generator().manual_seed(3)), split.x[index])
    assert torch.equal(split.x, BinarizedSplit(grey, seed=0, dynamic=True).x)
    assert not torch.equal(split.x, BinarizedSplit(grey, seed=1).x)
    assert bits(split.x) == "26c12e83840b23145d4be20828c3f231ce63a6e6ff1d57e1ad71d23f7aca4905"
