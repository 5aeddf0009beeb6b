"""`inference.plot_chains`: what its pictures hold, of series whose shape is known."""

import sys
import warnings

import matplotlib
import numpy as np
import pytest
import torch
from matplotlib.figure import Figure

import inference

NAMES = ["trace.png", "rank.png", "autocorrelation.png"]


def draws_of(energy=None, **samples):
    first = next(iter(samples.values()))
    return inference.Draws(
        samples=samples,
        stats={} if energy is None else {"energy": energy},
        last={"x": torch.zeros(len(first))},
        warmup=0,
        thin=1,
        seed=0,
    )


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def drawn(tmp_path, monkeypatch):
    """Draws the pictures without a word of warning; gives the figures that were saved, by name."""
    figures = []
    monkeypatch.setattr(Figure, "savefig", lambda self, buffer, **settings: figures.append(self))

    def draw(*args, **settings):
        figures.clear()
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            paths = inference.plot_chains(*args, tmp_path, **settings)
        return dict(zip([path.name for path in paths], figures, strict=True))

    return draw


def titles(figure):
    return [axes.get_title(loc="left").split("  ")[0] for axes in figure.axes if axes.get_title(loc="left")]


def line(figure, label, panel=0):
    (found,) = [line for line in figure.axes[panel].lines if line.get_label() == label]
    return found.get_ydata()


def legend(figure):
    return [text.get_text() for text in figure.legends[0].get_texts()]


@pytest.mark.parametrize("chains", [1, 4, 30])
def test_three_pictures_are_written(tmp_path, chains):
    before = dict(matplotlib.rcParams)
    draws = draws_of(x=noise(chains, 40, seed=1) > 0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        paths = inference.plot_chains(draws, tmp_path / "new" / "folder")
    assert [path.name for path in paths] == NAMES
    assert {path.name for path in (tmp_path / "new" / "folder").iterdir()} == set(NAMES)
    for path in paths:
        assert path.read_bytes().startswith(b"\x89PNG") and path.stat().st_size > 5000
    assert dict(matplotlib.rcParams) == before
    pyplot = sys.modules.get("matplotlib.pyplot")
    assert pyplot is None or pyplot.get_fignums() == []


def test_a_few_chains_have_a_line_each(drawn):
    x = noise(4, 200)
    figures = drawn(draws_of(x=x))
    assert list(figures) == NAMES
    trace = figures["trace.png"]
    assert legend(trace) == [f"chain {chain}" for chain in range(4)]
    for chain in range(4):
        assert np.array_equal(line(trace, f"chain {chain}"), x[chain].double())
    title = trace.axes[0].get_title(loc="left")
    assert title.startswith("x    R-hat ") and "ESS " in title
    assert trace.get_suptitle() == "4 chains of 200 draws"


def test_ranks_are_those_among_all_draws(drawn):
    x = torch.stack([torch.arange(100.0), torch.arange(100.0) + 0.5, torch.arange(100.0) + 1000])
    figure = drawn(draws_of(x=x))["rank.png"]
    assert np.allclose(line(figure, "chain 2")[:13], 0) and np.allclose(line(figure, "chain 2")[14:], 3)
    for chain in range(3):
        assert line(figure, f"chain {chain}")[:-1].mean() == pytest.approx(1)
    assert np.abs(line(figure, "chain 0") - line(figure, "chain 1")).max() <= 0.4
    # Equal draws are put in order by chance, so that booleans that agree look uniform.
    flags = noise(4, 5000) > 0
    figure = drawn(draws_of(x=flags))["rank.png"]
    heights = np.stack([line(figure, f"chain {chain}") for chain in range(4)])
    assert np.abs(heights - 1).max() < 5 * (20 / 5000) ** 0.5


def test_autocorrelation_is_that_of_the_closed_form(drawn):
    shocks, phi = noise(4, 4000).double(), 0.8
    values = [shocks[:, 0]]
    for step in range(1, 4000):
        values.append(phi * values[-1] + (1 - phi**2) ** 0.5 * shocks[:, step])
    x = torch.stack(values, 1)
    x[3] += 3
    figure = drawn(draws_of(x=x))["autocorrelation.png"]
    exact = phi ** np.arange(101)
    for chain in range(4):
        assert np.abs(line(figure, f"chain {chain}") - exact).max() < 0.2
    assert np.abs(line(figure, "chain 0")[:4] - exact[:4]).max() < 0.05
    # About the mean of all, one that is apart leaves what the chains differ by: 27/16 over 1 + 27/16.
    assert line(figure, "about the mean of all")[60:].mean() == pytest.approx(27 / 43, abs=0.05)


def test_one_chain_is_compared_with_itself(drawn):
    x = torch.cat([noise(1, 100), noise(1, 100, seed=1) + 100], 1)
    figures = drawn(draws_of(x=x))
    assert legend(figures["rank.png"])[-2:] == ["first half", "second half"]
    assert np.allclose(line(figures["rank.png"], "first half")[:-1], [2] * 10 + [0] * 10)
    assert "R-hat" not in figures["trace.png"].axes[0].get_title(loc="left")
    assert figures["trace.png"].get_suptitle() == "1 chain of 200 draws"
    assert "about the mean of all" not in legend(figures["autocorrelation.png"])


def test_many_chains_are_bands_and_those_that_stand_out(drawn):
    x = noise(200, 60)
    x[17] += 5
    figures = drawn(draws_of(x=x))
    for figure in figures.values():
        assert {"all chains", "90 % of chains"} <= set(legend(figure))
        names = [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
        assert len(names) == 3
        assert not any(label.startswith("chain") for label in legend(figure))
    assert figures["trace.png"].axes[0].get_legend().get_texts()[0].get_text() == "chain 17"
    inner = figures["trace.png"].axes[0].collections[1].get_datalim(figures["trace.png"].axes[0].transData)
    assert -3.0 < inner.y0 < -1.2 and 1.2 < inner.y1 < 3.0


def test_of_two_values_the_trace_is_a_moving_mean(drawn):
    flags = noise(2, 400) > 0
    figure = drawn(draws_of(x=flags))["trace.png"]
    assert figure.axes[0].get_ylabel() == "mean of 20 draws"
    found = line(figure, "chain 1")
    assert len(found) == 381
    assert found[0] == pytest.approx(flags[1, :20].double().mean().item())
    assert found[-1] == pytest.approx(flags[1, -20:].double().mean().item())


def test_the_energy_and_the_worst_entries_are_shown(drawn):
    v = noise(4, 200, 3, 3)
    v[0, :, 1, 2] += 3
    v[..., 0, 0] = 1.0
    v[2, 5, 2, 2] = float("nan")
    figures = drawn(draws_of(noise(4, 200, seed=1), v=v, w=noise(4, 200)), most=4)
    shown = titles(figures["trace.png"])
    assert shown[:2] == ["energy", "v[2, 2]"] and "v[1, 2]" in shown and len(shown) == 4
    (words,) = [text.get_text() for text in figures["rank.png"].axes[1].texts]
    assert words == "not finite in 1 of 800 draws"
    assert titles(drawn(draws_of(v=v, w=noise(4, 200)), sites=["w"])["rank.png"]) == ["w"]
    everything = titles(drawn(draws_of(v=v), most=50)["trace.png"])
    assert len(everything) == 8 and "v[0, 0]" not in everything
    # An energy that never changes tells nothing.
    assert titles(drawn(draws_of(torch.ones(4, 200), w=noise(4, 200)))["trace.png"]) == ["w"]


def test_a_chain_that_does_not_move_keeps_its_correlation(drawn):
    x = noise(3, 100)
    x[1] = 0.5
    figures = drawn(draws_of(x=x))
    assert (line(figures["autocorrelation.png"], "chain 1") == 1).all()
    assert (line(figures["trace.png"], "chain 1") == 0.5).all()


def test_a_long_line_is_thinned(drawn):
    figure = drawn(draws_of(x=noise(2, 12_000)))["trace.png"]
    assert len(line(figure, "chain 0")) == 4000


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"sites": ["x", "z"]}, "a list of some of x, got z"),
        ({"sites": "x"}, "a list of some of x, got x"),
        ({"most": 0}, "most must be an integer of at least 1, got 0"),
    ],
)
def test_what_is_not_there_is_refused(tmp_path, settings, said):
    with pytest.raises(ValueError, match=said):
        inference.plot_chains(draws_of(x=noise(2, 9)), tmp_path, **settings)
    assert list(tmp_path.iterdir()) == []


def test_too_few_draws_and_draws_that_never_differ_are_refused(tmp_path):
    with pytest.raises(ValueError, match="expected 4 draws of each chain or more, to plot, got 3: draw more"):
        inference.plot_chains(draws_of(x=noise(2, 3)), tmp_path)
    with pytest.raises(ValueError, match="draws that differ, to plot, got the same in all draws"):
        inference.plot_chains(draws_of(x=torch.ones(2, 30)), tmp_path)
    assert list(tmp_path.iterdir()) == []
