"""PixelCNN: what its masks let it see, its cache, colours, labels, and levels as a mixture of logistics."""

import math

import pyro
import pytest
import torch
from pyro import poutine
from torch.nn.functional import conv2d

import inference
import zoo
from zoo.autoregressive.discretized_logistic import DiscretizedLogisticMixture
from zoo.autoregressive.masked_convolution import MaskedConv2d, colour_of
from zoo.autoregressive.pixel_cnn import PixelCNN

SMALL = {"hidden": 6, "layers": 3, "first_kernel_size": 3}
KINDS = pytest.mark.parametrize("gated", [True, False], ids=["gated", "plain"])


def moved(model: PixelCNN) -> PixelCNN:
    """In float64, with weights that make every dependence large enough to be seen."""
    model = model.double()
    with torch.no_grad():
        for param in model.parameters():
            param += 0.3 * torch.randn_like(param)
        model.head[0].bias += 1.0
    return model


def seen_from(model: PixelCNN, row: int, column: int) -> torch.Tensor:
    """Which pixels the outputs at a pixel depend on, by gradient at enough images."""
    x = model.sample(30) if model.num_classes is None else model.sample(30, y=0)
    y = None if model.num_classes is None else torch.zeros(30, dtype=torch.int64)
    return model.influence(x, row, column, y) > 0


# What a pixel sees


def test_the_gated_stacks_see_every_pixel_before_and_none_after():
    model = moved(PixelCNN((5, 7), **{**SMALL, "layers": 7}))
    for row, column in ((0, 0), (0, 6), (3, 2), (4, 6)):
        seen = seen_from(model, row, column)
        before = torch.arange(35).view(5, 7) < 7 * row + column
        assert torch.equal(seen, before), (row, column)


def test_the_plain_masks_have_a_blind_spot():
    """Of the row above, a block of 3×3 sees one column to the right; and each row costs it a layer."""
    model = moved(PixelCNN((5, 9), **SMALL, gated=False))
    seen = seen_from(model, 4, 3)
    before = torch.arange(45).view(5, 9) < 9 * 4 + 3
    columns = torch.arange(9)
    wedge = torch.stack([columns > 3 + (4 - row) for row in range(5)])
    # One convolution of the pixels and three blocks: four rows up, and four columns to the left.
    reached = torch.stack([(columns >= 3 - 4) & (torch.tensor(4 - row) <= 4) for row in range(5)])
    assert torch.equal(seen, before & ~wedge & reached)
    assert (before & wedge).sum() == 10 and seen.sum() == 29


def test_the_gated_stacks_have_none_within_their_reach():
    model = moved(PixelCNN((5, 9), **SMALL))
    seen = seen_from(model, 4, 3)
    columns = torch.arange(9)
    for row in range(5):
        up = 4 - row
        # The vertical stack widens by a column with each layer, whichever row it comes from.
        within = (columns - 3).abs() <= 3 if up else (columns < 3) & (columns >= 0)
        expected = within if up <= 3 else torch.zeros(9, dtype=torch.bool)
        assert torch.equal(seen[row], expected), row


@KINDS
def test_no_output_depends_on_its_own_entry_or_on_later_ones(gated):
    """By gradient and by perturbation, for every colour of every pixel."""
    model = moved(PixelCNN((3, 3, 4), 12, 2, first_kernel_size=3, gated=gated, num_levels=4))
    x = model.sample(8)
    maps = model.maps(x).requires_grad_()
    outputs = model.outputs(maps).unflatten(1, (3, 4))
    place = torch.arange(36).view(3, 4, 3).permute(2, 0, 1)  # along the scan: rows, columns, colours
    for colour in range(3):
        for row in range(3):
            for column in range(4):
                (grad,) = torch.autograd.grad(
                    outputs[:, colour, :, row, column].square().sum(), maps, retain_graph=True
                )
                own = place[colour, row, column]
                assert (grad[:, place >= own] == 0).all(), (colour, row, column)
                if colour or column:
                    assert (grad[:, place == own - 1] != 0).any(), (colour, row, column)
    with torch.no_grad():
        for _ in range(10):
            own = int(torch.randint(36, ()))
            other = torch.where(place >= own, model.maps(model.sample(8)), maps)
            change = (model.outputs(other).unflatten(1, (3, 4)) - outputs).abs().amax((0, 2))
            assert (change[place <= own] == 0).all()


def test_influence_is_the_derivative():
    model = moved(PixelCNN((2, 3), 4, 2))
    x = model.sample(5)
    h = 1e-5
    found = model.influence(x, 1, 2)
    for row in range(2):
        for column in range(3):
            step = torch.zeros(2, 3, dtype=torch.float64)
            step[row, column] = h
            up, down = (model.outputs((model.maps(x) + sign * step).unsqueeze(1)) for sign in (1, -1))
            slope = (up - down)[:, 0, 1, 2] / (2 * h)
            assert slope.square().mean().sqrt().item() == pytest.approx(found[row, column].item(), abs=1e-8)


def test_masks_by_colour():
    assert colour_of(8, 3).tolist() == [0, 0, 0, 1, 1, 1, 2, 2]
    a = MaskedConv2d(3, 6, (1, 3), "A", colours=3, parts=2).mask[:, :, 0]
    assert (a[:, :, 0] == 1).all() and (a[:, :, 2] == 0).all()
    assert a[:3, :, 1].tolist() == [[0, 0, 0], [1, 0, 0], [1, 1, 0]]
    assert torch.equal(a[3:], a[:3])
    b = MaskedConv2d(3, 3, (3, 3), "B", colours=3).mask
    assert (b[:, :, 0] == 1).all() and b[:, :, 1, 1].tolist() == [[1, 0, 0], [1, 1, 0], [1, 1, 1]]
    assert MaskedConv2d(2, 2, (3, 3), "row").mask is None
    with pytest.raises(ValueError, match="at least 3 feature maps, one for each colour, got 2 and 6"):
        MaskedConv2d(2, 6, colours=3)


def test_a_masked_convolution_is_one_with_zeros():
    convolution = MaskedConv2d(2, 4, (5, 3), "B")
    x = torch.randn(3, 2, 6, 7)
    whole = torch.zeros(4, 2, 5, 3)
    whole[:, :, :3] = convolution.weight
    whole[:, :, 2, 2] = 0
    assert torch.allclose(convolution(x), conv2d(x, whole, convolution.bias, padding=(2, 1)), atol=1e-6)


# Drawing


@KINDS
@pytest.mark.parametrize(
    "arguments",
    [
        {"event_shape": (5, 4)},
        {"event_shape": (5, 4), "first_kernel_size": 7, "kernel_size": 5},
        {"event_shape": (5, 4), "kernel_size": 1},
        {"event_shape": (3, 4, 3), "num_levels": 5},
        {"event_shape": (2, 4, 3), "num_levels": 9, "output": "logistic", "components": 2},
        {"event_shape": (5, 4), "num_classes": 3},
    ],
    ids=["small", "large", "by one", "colours", "logistic", "labelled"],
)
def test_from_pixel_to_pixel_as_in_one_pass(arguments, gated):
    model = moved(PixelCNN(**{**SMALL, **arguments, "gated": gated}))
    y = () if model.num_classes is None else (torch.arange(6) % 3,)
    x = model.sample(6, y=y[0] if y else None)
    entries = model.in_scan_order(x)
    together = model.params(entries, *y)
    state = model.initial_state(*y)
    for step in range(model.num_variables):
        one = model.params_at(step, state).expand_as(together[:, step])
        assert torch.allclose(one, together[:, step], atol=1e-10), step
        state = model.advance(step, state, entries[:, step])


@KINDS
def test_dropout_is_for_training_alone(gated):
    labelled = PixelCNN((4, 4), 8, 2, gated=gated, dropout=0.5, num_classes=3)
    x = labelled.sample(230, seed=0)  # more than are classified at a time
    assert torch.equal(labelled.classify(x), labelled.classify(x)) and labelled.training
    labelled.eval()
    assert torch.allclose(labelled.classify(x).logsumexp(1), torch.zeros(230), atol=1e-5)
    model = PixelCNN((4, 4), 8, 2, gated=gated, dropout=0.5)
    assert torch.equal(model.influence(x, 2, 2), model.influence(x, 2, 2))
    x = model.sample(4, seed=0)
    assert not torch.equal(model.log_prob(x), model.log_prob(x))
    model.eval()
    assert torch.equal(model.log_prob(x), model.log_prob(x))


# Labels


def test_a_label_leads_to_other_images():
    model = moved(PixelCNN((3, 3), 6, 2, num_classes=3))
    x = model.sample(40, y=1, seed=0)
    assert not torch.equal(x, model.sample(40, y=2, seed=0))
    assert torch.equal(x, model.sample(40, y=torch.ones(40, dtype=torch.int64), seed=0))
    assert torch.equal(x, model.given(1).sample(40, seed=0))


def test_labels_are_summed_out_or_joint():
    model = moved(PixelCNN((3, 3), 6, 2, num_classes=3))
    x, y = model.sample(5), torch.tensor([0, 1, 2, 0, 1])
    joint = torch.stack([model.given(label).log_prob(x) for label in range(3)], -1) - math.log(3)
    assert torch.allclose(model.log_prob(x, y), joint.gather(1, y.unsqueeze(1)).squeeze(1))
    assert torch.allclose(model.log_prob(x), joint.logsumexp(1))
    assert torch.allclose(model.classify(x), joint.log_softmax(1))
    trace = poutine.trace(model.model).get_trace(x)
    trace.compute_log_prob()
    assert torch.allclose(trace.nodes["x"]["log_prob"], model.log_prob(x)) and "y" not in trace.nodes
    held = poutine.trace(pyro.condition(model.model, data={"y": y})).get_trace(num=5)
    held.compute_log_prob()
    drawn = held.nodes["_RETURN"]["value"]
    total = sum(site["log_prob"] for name, site in held.nodes.items() if name == "y" or name.startswith("x_"))
    assert torch.allclose(total, model.log_prob(drawn, y))


def test_what_needs_a_label_says_so():
    model = PixelCNN((3, 3), 4, 1, num_classes=3)
    for call in (model.initial_state, lambda: model.conditionals(model.sample(2))):
        with pytest.raises(ValueError, match=r"3 labels need one: give y, or take model.given\(label\)"):
            call()
    with pytest.raises(ValueError, match=r"labels must lie in 0\.\.2, got 3\.\.3"):
        model.given(3)
    plain = PixelCNN((3, 3), 4, 1)
    y = torch.zeros(2, dtype=torch.int64)
    for call in (
        lambda: plain.model(y=y),
        lambda: plain.sample(2, y=0),
        lambda: plain.given(0),
        lambda: plain.classify(plain.sample(2)),
        lambda: plain.log_prob(plain.sample(2), y),
        lambda: plain.conditionals(plain.sample(2), y),
        lambda: plain.influence(plain.sample(2), 0, 0, y),
        lambda: plain.check(plain.sample(2), y),
    ):
        with pytest.raises(ValueError, match="PixelCNN has no labels; build it with num_classes"):
            call()


def test_labels_reach_the_objective_where_the_model_has_some():
    data = zoo.load("digits")
    few = zoo.Split(data.train.x[:60], data.train.y[:60])
    for classes, labels in ((10, True), (None, False)):
        objective = inference.MaximumLikelihood(PixelCNN((8, 8), 4, 1, num_classes=classes))
        assert objective.takes_labels == labels
        result = inference.fit(objective, few, epochs=1, progress=False)
        assert math.isfinite(result.history[0]["train"])


def test_completion_by_label():
    model = PixelCNN((3, 3), 4, 1, num_classes=3)
    x = model.sample(2, y=1)
    observed = torch.arange(9).view(3, 3) >= 5
    done = inference.complete(model.given(1), x, observed, num=3, particles=20, progress=False)
    assert done.method == "smc" and torch.equal(done.draws[..., 2, :], x[:, 2].expand(3, 2, 3))
    with pytest.raises(ValueError, match="need one: give y"):
        inference.complete(model, x, observed, progress=False)


@KINDS
@pytest.mark.parametrize("colours", [1, 2])
def test_completions_that_are_resampled_follow_the_density(gated, colours):
    """Weights so uneven that particles are resampled, against all images that there are."""
    model = PixelCNN((colours, 2, 2), 6, 2, gated=gated)
    with torch.no_grad():
        for param in model.parameters():
            param *= 2.0
    every = torch.cartesian_prod(*[torch.tensor([0.0, 1.0])] * 4 * colours).view(-1, colours, 2, 2)
    x = every[:1].flip(-1) * 0 + 1.0
    observed = torch.zeros(colours, 2, 2, dtype=torch.bool)
    observed[:, 1] = True
    agrees = (every[:, :, 1] == 1).all((1, 2))
    expected = model.log_prob(every[agrees]).logsumexp(0).item()
    found = inference.complete(model, x, observed, num=2, particles=20_000, progress=False)
    assert found.method == "smc"
    assert found.log_evidence.item() == pytest.approx(
        expected, abs=4 * found.log_evidence_error.item() + 1e-3
    )


def test_images_of_other_colours_are_refused():
    with pytest.raises(ValueError) as caught:
        PixelCNN((3, 4, 4), 6, 1).check(torch.zeros(5, 4, 4))
    assert str(caught.value) == (
        "PixelCNN of 3 colours expects items (batch, 3, 4, 4), got (5, 4, 4): "
        "build it with event_shape=(4, 4)"
    )


# Levels


def test_a_mixture_of_logistics_is_cut_into_cells():
    params = torch.randn(4, 9, dtype=torch.float64)
    mixture = DiscretizedLogisticMixture(params, num_levels=6)
    weights, loc, log_scale = params.unflatten(-1, (3, 3)).unbind(-2)
    edges = (torch.arange(5, dtype=torch.float64) + 0.5) * 2 / 5 - 1
    below = ((edges.view(-1, 1, 1) - loc) / log_scale.exp()).sigmoid()
    ends = torch.zeros_like(below[:1])
    cells = torch.cat([ends, below, ends + 1]).diff(dim=0)
    expected = (weights.softmax(-1) * cells).sum(-1)
    levels = mixture.enumerate_support()
    assert levels.shape == (6, 4)
    assert torch.allclose(mixture.log_prob(levels).exp(), expected, atol=1e-12)
    assert torch.allclose(mixture.log_prob(levels).exp().sum(0), torch.ones(4, dtype=torch.float64))


def test_a_wide_logistic_keeps_its_gradient_too():
    params = torch.tensor([[0.0, 0.0, 300.0]], requires_grad=True)
    log_prob = DiscretizedLogisticMixture(params, num_levels=8).log_prob(torch.tensor([3]))
    (grad,) = torch.autograd.grad(log_prob.sum(), params)
    assert log_prob.isfinite().all() and grad.isfinite().all()


@pytest.mark.parametrize(("shape", "num_levels"), [((5, 4), 8), ((5, 0), 8), ((5, 3), 1)])
def test_a_mixture_of_nothing_is_refused(shape, num_levels):
    with pytest.raises(
        ValueError, match=f"three parameters for each component.* {num_levels} and {shape[1]}"
    ):
        DiscretizedLogisticMixture(torch.zeros(shape), num_levels)


def test_a_narrow_logistic_far_away_keeps_its_gradient():
    params = torch.tensor([[0.0, 0.9, -6.0]], requires_grad=True)
    log_prob = DiscretizedLogisticMixture(params, num_levels=256).log_prob(torch.tensor([3]))
    (grad,) = torch.autograd.grad(log_prob.sum(), params)
    assert log_prob.isfinite().all() and grad.isfinite().all() and grad[0, 1] < 0


def test_levels_of_a_mixture_are_drawn_by_their_probability():
    mixture = DiscretizedLogisticMixture(torch.tensor([0.3, -0.2, -0.5, 0.4, -1.0, -2.0]), num_levels=5)
    count = torch.bincount(mixture.sample((20_000,)), minlength=5) / 20_000
    p = mixture.log_prob(torch.arange(5)).exp()
    assert ((count - p).abs() < 4 * (p * (1 - p) / 20_000).sqrt()).all()


def test_mixed_precision_ends_at_the_parameters_of_the_entries():
    model = PixelCNN((4, 4), 8, 1, num_levels=5)
    x = model.sample(3)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        params = model.params(model.in_scan_order(x))
        log_prob = model.log_prob(x)
    assert params.dtype == log_prob.dtype == torch.float32
    assert torch.allclose(log_prob, model.log_prob(x), atol=0.3)
