"""The pictures: every kind of item is shown, and shown right."""

from types import SimpleNamespace

import matplotlib.image
import numpy as np
import pytest
import torch

from zoo.cli.pictures import GAP_COLOUR, draw_pictures, item_grid, learning_curve, to_png
from zoo.cli.run_folder import RunFolder
from zoo.data import Split, load
from zoo.flows import NICE, MintNet
from zoo.flows.fixed_point import ConvergenceError, Inversion
from zoo.latent import VAE


def held_out(split):
    """What the pictures take of a data set of images or vectors."""
    return SimpleNamespace(test=split, alphabet=None, rate=None, num_classes=None)


def canvas(figure):
    """The image in a figure, (height, width, 3), 0 black and 1 white."""
    return np.asarray(figure.axes[0].images[0].get_array())


def test_a_grid_has_ink_where_the_entries_are_high():
    items = torch.zeros(3, 4, 5)
    items[1, 0, 0] = 1.0
    image = canvas(item_grid(items, columns=2))
    assert image.shape == (4 + 1 + 4, 5 + 1 + 5, 3)
    assert (image[0, 6] == 0).all(), "the one entry is black"
    assert (image[:4, :5] == 1).all(), "the first item is white"
    assert np.allclose(image[4], GAP_COLOUR) and np.allclose(image[:, 5], GAP_COLOUR)
    assert (image[5:, 6:] == 1).all(), "there is no fourth item"


def test_a_grid_of_colours_shows_them_as_they_are():
    items = torch.zeros(1, 3, 4, 4)
    items[0, 0] = 1.0
    assert (canvas(item_grid(items)) == [1, 0, 0]).all()


def test_levels_and_real_numbers_are_scaled_into_the_range_of_ink():
    image = canvas(item_grid(torch.tensor([[[0, 16], [8, 4]]])))
    assert np.allclose(image[..., 0], [[1, 0], [0.5, 0.75]])
    image = canvas(item_grid(torch.tensor([[[-3.0, 1.0], [-1.0, 0.0]]])))
    assert np.allclose(image[..., 0], [[1, 0], [0.5, 0.25]])


def test_full_ink_is_the_highest_level_there_is_and_not_the_highest_drawn():
    image = canvas(item_grid(torch.tensor([[[0, 4], [8, 2]]]), highest=16))
    assert np.allclose(image[..., 0], [[1, 0.75], [0.5, 0.875]])


def test_draws_of_levels_are_scaled_like_the_test_items_whatever_was_drawn():
    from zoo.cli.pictures import _samples

    faint = torch.full((96, 2, 2), 4)
    model = SimpleNamespace(
        event_shape=(2, 2), support=torch.distributions.constraints.integer_interval(0, 16)
    )
    model.sample = model._sample = lambda num, seed: faint
    image = canvas(_samples(model, held_out(Split(torch.full((40, 2, 2), 8)))))
    assert np.allclose(image[0, 0], 0.75) and np.allclose(image[-1, 0], 0.5)


@pytest.mark.parametrize("shape", [(8, 8), (28, 28), (1, 28, 28), (3, 16, 24)])
@pytest.mark.parametrize("num", [1, 20])
def test_titles_and_row_labels_stay_on_the_picture(shape, num):
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    title = "twenty draws from the supervised variational autoencoder"
    rows = ["a row with a long name"] * -(-num // 16)
    figure = item_grid(torch.rand(num, *shape), title=title, rows=rows)
    renderer = FigureCanvasAgg(figure).get_renderer()
    width, height = figure.bbox.size
    axes = figure.axes[0]
    texts = [axes.title, axes._left_title, *axes.texts]
    assert [text.get_text() for text in texts if text.get_text()] == [title, *rows]
    for text in texts:
        box = text.get_window_extent(renderer)
        assert box.x0 >= 0 and box.y0 >= 0 and box.x1 <= width and box.y1 <= height, text


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("items", [torch.randn(50, 11), torch.zeros(5, 3), torch.randn(1, 2)])
def test_vectors_are_histograms_of_their_entries(items):
    figure = item_grid(items, title="draws")
    assert len(figure.axes) == items.shape[1]
    heights = [patch.get_height() for patch in figure.axes[0].patches]
    assert sum(heights) > 0
    to_png(figure)


def test_a_picture_is_a_png():
    import io

    image = matplotlib.image.imread(io.BytesIO(to_png(item_grid(torch.zeros(2, 8, 8)))), format="png")
    assert image.shape[0] > 50


def test_a_learning_curve_of_one_epoch_shows_it():
    figure = learning_curve([{"epoch": 1, "train": 3.0, "valid": 2.0, "lr": 0.1}])
    lines = figure.axes[0].lines
    assert [line.get_label() for line in lines] == ["training items", "validation items"]
    assert all(line.get_marker() == "o" for line in lines)


def test_a_learning_curve_is_not_flattened_by_its_first_epochs():
    history = [{"epoch": epoch, "train": 1e6 if epoch == 1 else 100.0 - epoch} for epoch in range(1, 51)]
    figure = learning_curve(history)
    low, high = figure.axes[0].get_ylim()
    assert low < 50 and 95 < high < 200
    assert len(figure.axes[0].lines) == 1, "no validation items"


def test_a_contrast_is_drawn_apart_from_the_likelihood():
    history = [{"epoch": epoch, "train": -0.1 * epoch, "valid": 30.0 - epoch} for epoch in range(1, 25)]
    above, below = learning_curve(history, contrast="a contrast").axes
    assert [line.get_label() for line in above.lines] == ["validation items"]
    assert above.get_ylim()[0] > 0 and not above.get_title(loc="left")
    assert below.lines[0].get_label() == "training items" and below.get_title(loc="left") == "a contrast"
    (alone,) = learning_curve([{"epoch": 1, "train": -0.1}], contrast="a contrast").axes
    assert alone.get_title(loc="left") == "a contrast"


@pytest.mark.parametrize(
    ("objective", "arguments", "said"),
    [
        ("elbo", {}, None),
        ("contrastive-divergence", {}, "contrast of data and chains, nats (no likelihood)"),
        ("persistent-contrastive-divergence", {}, "contrast of data and chains, nats (no likelihood)"),
        (
            "persistent-contrastive-divergence",
            {"label_weight": 0.5},
            "contrast of data and chains and loss of labels, nats (no likelihood)",
        ),
    ],
)
def test_the_configuration_tells_whether_the_loss_is_a_contrast(
    tmp_path, monkeypatch, objective, arguments, said
):
    seen = []
    monkeypatch.setattr(
        "zoo.cli.pictures.learning_curve",
        lambda history, contrast: seen.append(contrast) or item_grid(torch.zeros(1, 2)),
    )
    run = RunFolder(tmp_path)
    run.save_history([{"epoch": 1, "train": 3.0}])
    monkeypatch.setattr(run, "config", lambda: {"objective": objective, "objective_arguments": arguments})
    model = VAE((8, 8), latent_dim=2, hidden=(4,))
    assert "learning_curve.png" in draw_pictures(model, held_out(Split(torch.ones(3, 8, 8))), run)
    assert seen == [said]


@pytest.mark.parametrize(
    ("shape", "arguments", "expected"),
    [
        ((28, 28), {"latent_dim": 2}, {"samples.png", "reconstructions.png", "manifold.png"}),
        ((8, 8), {"latent_dim": 3}, {"samples.png", "reconstructions.png", "traversals.png"}),
        ((11,), {"likelihood": "gaussian"}, {"samples.png"}),
    ],
)
@pytest.mark.parametrize("num", [3, 40])
def test_every_picture_that_a_model_has_is_drawn(tmp_path, shape, arguments, expected, num):
    model = VAE(shape, hidden=(4,), **arguments)
    drawn = draw_pictures(model, held_out(Split(torch.ones(num, *shape))), RunFolder(tmp_path))
    assert set(drawn) == expected == {path.name for path in tmp_path.iterdir()}


LEVELS = {"num_levels": 17, "hidden": 4, "layers": 2}


@pytest.mark.parametrize(
    ("cls", "arguments", "expected"),
    [
        (NICE, {"num_levels": 17, "hidden": (8,)}, {"samples.png", "interpolations.png"}),
        (NICE, {"hidden": (8,)}, {"samples.png", "interpolations.png"}),
        (MintNet, LEVELS, {"samples.png", "interpolations.png", "inversion.png"}),
    ],
)
def test_a_flow_has_no_vector_of_codes_and_shows_the_way_between_items(tmp_path, cls, arguments, expected):
    torch.manual_seed(0)
    model = cls((8, 8), **arguments)
    x = load("digits-levels").test.x[:40]
    x = x if "num_levels" in arguments else x / 16
    drawn = draw_pictures(model, held_out(Split(x)), RunFolder(tmp_path))
    assert set(drawn) == expected == {path.name for path in tmp_path.iterdir()}


def test_a_flow_over_vectors_has_histograms_alone(tmp_path):
    model = NICE((11,), hidden=(8,))
    drawn = draw_pictures(model, held_out(Split(torch.randn(20, 11))), RunFolder(tmp_path))
    assert drawn == ["samples.png"]


def test_a_single_item_has_no_way_to_another(tmp_path):
    test = Split(load("digits-levels").test.x[:1])
    drawn = draw_pictures(NICE((8, 8), num_levels=17), held_out(test), RunFolder(tmp_path))
    assert drawn == ["samples.png"]


def test_items_are_paired_with_others_of_another_label():
    from zoo.cli.pictures import _pairs

    split = Split(torch.zeros(7, 2), torch.tensor([3, 3, 3, 1, 3, 2, 2]))
    assert _pairs(split) == [(0, 3), (1, 5), (2, 6)], "the seventh has nobody left"
    assert _pairs(split, most=2) == [(0, 3), (1, 5)]
    assert _pairs(Split(torch.zeros(5, 2))) == [(0, 1), (2, 3)]
    assert _pairs(Split(torch.zeros(2, 2), torch.tensor([1, 1]))) == []


def test_interpolations_begin_and_end_with_real_items():
    from zoo.cli.pictures import _interpolations

    x = torch.tensor([0, 8, 4, 12])[:, None, None].expand(4, 2, 2)  # none of full ink
    model = SimpleNamespace(support=torch.distributions.constraints.integer_interval(0, 16))
    asked = []

    def interpolate(start, end, steps):
        asked.append((start[:, 0, 0].tolist(), end[:, 0, 0].tolist()))
        return torch.full((len(start), steps, 2, 2), 8)

    model.interpolate = interpolate
    image = canvas(_interpolations(model, x, [(0, 1), (2, 3)], steps=4))
    assert asked == [([0, 4], [8, 12])]
    assert np.allclose(image[0::3, 0::3, 0], [[1, 0.5, 0.5, 0.5], [0.75, 0.5, 0.5, 0.25]])


def test_inversion_shows_median_and_largest_error_of_every_layer_and_the_tolerance():
    from zoo.cli.pictures import _inversion

    history = torch.tensor([[1.0, 2.0, 4.0], [0.1, 0.3, 0.2], [0.0, 0.0, 1e-6]])
    asked = []

    def invert(z, tolerance):
        asked.append((z, tolerance))
        reports = [history, history[:2] / 10]
        return [Inversion(z, torch.zeros(3), each[-1], each) for each in reports]

    figure = _inversion(SimpleNamespace(encode=lambda x: x + 1, invert=invert), torch.zeros(3, 2, 2))
    ((codes, tolerance),) = asked
    assert (codes == 1).all(), "it is the codes that are inverted"
    (axes,) = figure.axes
    lines = [line.get_ydata() for line in axes.lines]
    assert axes.get_yscale() == "log" and len(lines) == 5
    least = torch.finfo(torch.float32).eps / 4
    expected = [[4.0, 0.3, 1e-6], [2.0, 0.2, least], [0.4, 0.03], [0.2, 0.02], [tolerance] * 2]
    for came, wanted in zip(lines, expected, strict=True):
        assert np.allclose(came, wanted, rtol=1e-5)
    assert [list(line.get_xdata()) for line in axes.lines[:4]] == [[0, 1, 2]] * 2 + [[0, 1]] * 2
    labels = [text.get_text() for text in axes.get_legend().get_texts()]
    assert [label.split()[0] for label in labels] == ["largest", "median", "tolerance,"]


def test_the_error_of_an_inversion_falls_below_the_tolerance_that_is_shown():
    from zoo.cli.pictures import _inversion

    torch.manual_seed(0)
    model = MintNet((8, 8), **LEVELS)
    *curves, tolerance = _inversion(model, load("digits-levels").test.x[:20]).axes[0].lines
    assert len(curves) == 4
    for curve in curves:
        assert curve.get_ydata()[0] > 1e-3 > tolerance.get_ydata()[0] >= curve.get_ydata()[-1]


@pytest.mark.parametrize(
    "error", [ConvergenceError("3 items did not converge", [0]), FloatingPointError("nan")]
)
def test_a_picture_that_cannot_be_drawn_is_said_and_the_others_are_drawn(
    tmp_path, capsys, monkeypatch, error
):
    def fail(*args, **settings):
        raise error

    model = MintNet((8, 8), **LEVELS)
    monkeypatch.setattr(MintNet, "invert", fail)
    test = Split(load("digits-levels").test.x[:40])
    drawn = draw_pictures(model, held_out(test), RunFolder(tmp_path))
    assert set(drawn) == {"samples.png", "interpolations.png"} == {path.name for path in tmp_path.iterdir()}
    assert capsys.readouterr().out == f"inversion.png is not drawn: {error}\n"


def test_a_mistake_in_a_picture_is_no_picture_that_cannot_be_drawn(tmp_path, monkeypatch):
    def fail(*args, **settings):
        raise ZeroDivisionError

    monkeypatch.setattr(NICE, "sample", fail)
    with pytest.raises(ZeroDivisionError):
        draw_pictures(NICE((8, 8)), held_out(Split(torch.zeros(2, 8, 8))), RunFolder(tmp_path))


def test_a_model_with_labels_shows_each(trained):
    assert (trained / "supervised-vae" / "labels.png").exists()
    assert not (trained / "supervised-vae" / "traversals.png").exists()


def test_reconstructions_stand_below_what_they_are_of():
    from zoo.cli.pictures import _reconstructions

    items = torch.zeros(40, 4, 4)
    model = SimpleNamespace(reconstruct=lambda x: torch.ones_like(x))
    figure = _reconstructions(model, items)
    image = canvas(figure)
    assert [text.get_text() for text in figure.axes[0].texts] == ["real", "reconstructed"] * 2
    assert [image[5 * row, 0, 0] for row in range(4)] == [1, 0, 1, 0]


def test_the_manifold_runs_right_with_the_first_entry_and_up_with_the_second():
    from zoo.cli.pictures import _manifold

    def decode(z):
        mean = torch.zeros(len(z), 2, 2)
        mean[:, 0, 0] = z[:, 0].sigmoid()
        mean[:, 1, 1] = z[:, 1].sigmoid()
        return SimpleNamespace(mean=mean)

    image = canvas(_manifold(SimpleNamespace(decode=decode, prior_loc=torch.zeros(2)), side=5))
    ink = 1 - image[..., 0]
    assert (np.diff(ink[0, 0::3]) > 0).all(), "z[0] grows to the right"
    assert (np.diff(ink[1::3, 1]) < 0).all(), "z[1] grows upwards"
