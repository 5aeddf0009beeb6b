"""The pictures: every kind of item is shown, and shown right."""

from types import SimpleNamespace

import matplotlib.image
import numpy as np
import pytest
import torch

from zoo.cli.pictures import GAP_COLOUR, draw_pictures, item_grid, learning_curve, to_png
from zoo.cli.run_folder import RunFolder
from zoo.data import Split
from zoo.latent import VAE


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
    drawn = draw_pictures(model, SimpleNamespace(test=Split(torch.ones(num, *shape))), RunFolder(tmp_path))
    assert set(drawn) == expected == {path.name for path in tmp_path.iterdir()}


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
