"""Encoder and decoder: shapes of any image under any batch, what stands on the left, and what is refused."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from zoo.latent.networks import Decoder, Encoder

sides = st.integers(1, 9)
images = st.one_of(st.tuples(sides, sides), st.tuples(st.integers(1, 3), sides, sides))
events = st.one_of(images, st.tuples(sides))
widths = st.lists(st.integers(1, 4), min_size=1, max_size=3).map(tuple)
batches = st.lists(st.integers(0, 3), max_size=3).map(tuple)
conditions = st.integers(0, 2)


def condition_of(batch: tuple[int, ...], dim: int) -> torch.Tensor | None:
    return torch.randn(*batch, dim) if dim else None


@given(event_shape=images, hidden=widths, batch=batches, dim=conditions)
def test_convolutions_carry_any_image(event_shape, hidden, batch, dim):
    encoder = Encoder(event_shape, 5, network="conv", hidden=hidden, condition_dim=dim)
    assert encoder(torch.randn(*batch, *event_shape), condition_of(batch, dim)).shape == (*batch, 5)
    decoder = Decoder(5, event_shape, num_params=2, network="conv", hidden=hidden, condition_dim=dim)
    assert decoder(torch.randn(*batch, 5), condition_of(batch, dim)).shape == (2, *batch, *event_shape)


@given(event_shape=events, hidden=widths, batch=batches, dim=conditions)
def test_perceptrons_carry_any_item(event_shape, hidden, batch, dim):
    encoder = Encoder(event_shape, 5, hidden=hidden, condition_dim=dim)
    assert encoder(torch.randn(*batch, *event_shape), condition_of(batch, dim)).shape == (*batch, 5)
    decoder = Decoder(5, event_shape, num_params=2, hidden=hidden, condition_dim=dim)
    assert decoder(torch.randn(*batch, 5), condition_of(batch, dim)).shape == (2, *batch, *event_shape)


@pytest.mark.parametrize("network", ["mlp", "conv"])
def test_every_item_goes_through_alone(network):
    shape = (2, 5, 3)
    encoder = Encoder(shape, 4, network=network, hidden=(3, 4), condition_dim=2).double()
    decoder = Decoder(4, shape, num_params=2, network=network, hidden=(3, 4), condition_dim=2).double()
    x, z = torch.randn(2, 3, *shape).double(), torch.randn(2, 3, 4).double()
    condition = torch.randn(2, 3, 2).double()
    features, params = encoder(x, condition), decoder(z, condition)
    for i in range(2):
        for j in range(3):
            assert torch.allclose(encoder(x[i, j], condition[i, j]), features[i, j])
            assert torch.allclose(decoder(z[i, j], condition[i, j]), params[:, i, j])


@pytest.mark.parametrize("network", ["mlp", "conv"])
@pytest.mark.parametrize(
    ("left", "condition", "together"),
    [((4,), (3, 1), (3, 4)), ((3, 1), (4,), (3, 4)), ((2, 1, 4), (3, 1), (2, 3, 4)), ((), (3,), (3,))],
)
def test_a_condition_broadcasts(network, left, condition, together):
    shape = (5, 3)
    encoder = Encoder(shape, 4, network=network, hidden=(3,), condition_dim=2)
    decoder = Decoder(4, shape, num_params=1, network=network, hidden=(3,), condition_dim=2)
    x, z, c = torch.randn(*left, *shape), torch.randn(*left, 4), torch.randn(*condition, 2)
    all_x, all_z, all_c = x.expand(*together, *shape), z.expand(*together, 4), c.expand(*together, 2)
    assert encoder(x, c).shape == (*together, 4)
    assert torch.allclose(encoder(x, c), encoder(all_x, all_c), atol=1e-6)
    assert torch.allclose(decoder(z, c), decoder(all_z, all_c), atol=1e-6)


@pytest.mark.parametrize("network", ["mlp", "conv"])
def test_a_condition_makes_a_difference(network):
    encoder = Encoder((5, 3), 4, network=network, hidden=(3,), condition_dim=2, activation="tanh")
    decoder = Decoder(
        4, (5, 3), num_params=1, network=network, hidden=(3,), condition_dim=2, activation="tanh"
    )
    one, other = torch.eye(2)
    for net, given_item in ((encoder, torch.randn(5, 3)), (decoder, torch.randn(4))):
        assert not torch.allclose(net(given_item, one), net(given_item, other))


@pytest.mark.parametrize(
    ("event_shape", "sizes"),
    [
        ((28, 28), [(1, 28, 28), (8, 14, 14), (16, 7, 7)]),
        ((3, 5, 9), [(3, 5, 9), (8, 3, 5), (16, 2, 3)]),
        ((1, 1), [(1, 1, 1), (8, 1, 1), (16, 1, 1)]),
    ],
)
def test_convolutions_halve_the_image_and_double_it_back(event_shape, sizes):
    encoder = Encoder(event_shape, 4, network="conv", hidden=(8, 16))
    decoder = Decoder(4, event_shape, num_params=2, network="conv", hidden=(8, 16))
    seen = []
    for layer in (*encoder.modules(), *decoder.modules()):
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
            layer.register_forward_hook(
                lambda layer, args, out: seen.append((args[0].shape[1:], out.shape[1:]))
            )
    encoder(torch.randn(1, *event_shape))
    assert seen == [(sizes[0], sizes[1]), (sizes[1], sizes[2])]
    seen.clear()
    decoder(torch.randn(1, 4))
    image = (2 * sizes[0][0], *sizes[0][1:])
    assert seen == [(sizes[2], sizes[1]), (sizes[1], image)]


def test_a_decoder_runs_through_the_widths_backwards():
    def linear(net: nn.Module) -> list[tuple[int, int]]:
        return [(m.in_features, m.out_features) for m in net.modules() if isinstance(m, nn.Linear)]

    assert linear(Encoder((6,), 4, hidden=(7, 5), condition_dim=3)) == [(9, 7), (7, 5), (5, 4)]
    assert linear(Decoder(4, (6,), num_params=2, hidden=(7, 5), condition_dim=3)) == [(7, 5), (5, 7), (7, 12)]


@pytest.mark.parametrize(("name", "layer"), [("relu", nn.ReLU), ("silu", nn.SiLU), ("tanh", nn.Tanh)])
@pytest.mark.parametrize("network", ["mlp", "conv"])
def test_activation_stands_between_the_layers_and_not_after_the_last(name, layer, network):
    for net in (
        Encoder((5, 3), 4, network=network, hidden=(3, 2), activation=name),
        Decoder(4, (5, 3), num_params=1, network=network, hidden=(3, 2), activation=name),
    ):
        leaves = [type(m) for m in net.modules() if not list(m.children())]
        layers = [kind for kind in leaves if kind in (nn.Linear, nn.Conv2d, nn.ConvTranspose2d, layer)]
        assert layers[1::2] == [layer] * (len(layers) // 2)
        assert layer not in layers[::2]


def test_under_autocast_the_type_that_went_in_comes_out():
    encoder, decoder = Encoder((5, 3), 4), Decoder(4, (5, 3), num_params=1)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        features = encoder(torch.randn(2, 5, 3))
        assert features.dtype == torch.float32
        assert decoder(features).dtype == torch.float32


def test_dropout_works_while_training_alone():
    encoder = Encoder((5, 3), 4, network="conv", hidden=(8, 8), dropout=0.5)
    x = torch.randn(2, 5, 3)
    assert not torch.equal(encoder(x), encoder(x))
    encoder.eval()
    assert torch.equal(encoder(x), encoder(x))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"network": "rnn"}, "network must be one of mlp, conv, got 'rnn'"),
        ({"activation": "gelu"}, "activation must be one of relu, silu, tanh, got 'gelu'"),
        ({"hidden": ()}, r"hidden must hold one or more widths of at least 1, got \(\)"),
        ({"hidden": (4, 0)}, r"hidden must hold one or more widths of at least 1, got \(4, 0\)"),
        ({"network": "conv", "event_shape": (6,)}, r"'conv' expects items of shape .*, got \(6,\)"),
        ({"network": "conv", "event_shape": (1, 1, 2, 2)}, r"'conv' expects .*, got \(1, 1, 2, 2\)"),
    ],
)
def test_wrong_arguments_are_refused(arguments, message):
    arguments = {"event_shape": (2, 3), **arguments}
    with pytest.raises(ValueError, match=message):
        Encoder(out_features=4, **arguments)
    with pytest.raises(ValueError, match=message):
        Decoder(latent_dim=4, num_params=1, **arguments)


@pytest.mark.parametrize("network", ["mlp", "conv"])
def test_the_last_hidden_layer_comes_with_the_features_made_of_it(network):
    encoder = Encoder((5, 3), 4, network=network, hidden=(3, 6), condition_dim=2, activation="tanh")
    x, condition = torch.randn(7, 2, 5, 3), torch.randn(2, 2)
    hidden, features = encoder.with_hidden(x, condition)
    assert hidden.shape == (7, 2, 6 if network == "mlp" else 24) and hidden.abs().max() < 1
    assert torch.equal(features, encoder(x, condition))
    assert torch.equal(encoder.head[-1](hidden), features)
