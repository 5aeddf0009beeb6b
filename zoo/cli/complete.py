"""``zoo complete``: the rest of test images, a text or a sound, drawn by a run given the part shown."""

import math
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from zoo.cli.errors import UsageFault, choose
from zoo.cli.sample import MOST_TILES, check_label

if TYPE_CHECKING:
    from torch import Tensor

    from inference import Completion

OCCLUSIONS = {
    "top": "the upper half",
    "bottom": "the lower half",
    "left": "the left half",
    "right": "the right half",
    "centre": "the middle, a rectangle of about half the area",
    "random": "half of the pixels, others in each image",
}
"""What of an image may be hidden."""

METHODS = ("auto", "ancestral", "smc", "gibbs", "left-to-right")

MOST_ROWS = 16
"""Images of which a table says what their completions are worth."""


def complete(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Run folder of zoo train.")],
    occlude: Annotated[
        str | None,
        typer.Option(help=f"Which half of each image is hidden: {', '.join(OCCLUSIONS)}; left out, bottom."),
    ] = None,
    items: Annotated[int | None, typer.Option(min=1, help="How many test images; left out, 8.")] = None,
    num: Annotated[
        int | None, typer.Option(min=1, help="Completions of each; left out, 8, and 1 of a sound.")
    ] = None,
    prefix: Annotated[
        str | None,
        typer.Option(
            help="The beginning of a text, instead of images; of a sound, a WAV file: left out, the first "
            "second of the held-out clip."
        ),
    ] = None,
    length: Annotated[
        int | None, typer.Option(min=1, help="Characters after it; left out, 1000, or to the end of a name.")
    ] = None,
    seconds: Annotated[
        float | None, typer.Option(help="Of a sound, after its beginning, above 0; left out, 1.")
    ] = None,
    label: Annotated[
        int | None,
        typer.Option(help="Which label to complete as, for a model of pixels by label; left out, their own."),
    ] = None,
    method: Annotated[
        str | None,
        typer.Option(
            help=f"One of {', '.join(METHODS)}; auto, if left out, is exact where it can be, else smc; gibbs "
            "of a machine."
        ),
    ] = None,
    particles: Annotated[
        int | None, typer.Option(min=1, help="Of each image, for smc and gibbs; left out, 1000.")
    ] = None,
    sweeps: Annotated[
        int | None, typer.Option(min=1, help="Times through the hidden pixels, for gibbs; left out, 100.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the draws, and of what random hides.")] = 0,
    out: Annotated[
        Path | None,
        typer.Option(
            help="File: .png for a picture, .npy for the numbers; left out, completions.png there. Of texts "
            ".txt or .npy; left out, they are printed. Of sounds .wav or .npy; left out, completed.wav."
        ),
    ] = None,
) -> None:
    """Complete half-hidden test images by a trained model.

    For models that draw pixel by pixel, and by gibbs alone for machines (rbm, dbm). The picture shows each
    image with its hidden part in orange, its completions, and the original; a NumPy array has shape
    (num, items, *event_shape). A run on texts goes on from --prefix; one on
    sounds too, into a WAV file that holds both.
    """
    from zoo.cli.run_folder import RunFolder
    from zoo.cli.sound import SOUNDS, draw_sound, refuse_sound_options
    from zoo.cli.text import TEXTS, refuse_text_options, write

    folder = RunFolder(run)
    config = folder.config()
    if config["data"] in (*TEXTS, *SOUNDS):
        of_images = {
            **{"occlude": occlude, "items": items, "label": label, "method": method},
            **{"particles": particles, "sweeps": sweeps},
        }
        for name, asked in of_images.items():
            if asked is not None:
                raise UsageFault(f"--{name} is for images, and this is a run on {config['data']}")
    if config["data"] in SOUNDS:
        refuse_text_options(None, length, config["data"])
        draw_sound(run, num, prefix=prefix, seconds=seconds, seed=seed, out=out, completes=True)
        return
    refuse_sound_options(seconds, config["data"])
    num = num or 8
    if config["data"] in TEXTS:
        if prefix is None:
            raise UsageFault(f"zoo complete expects --prefix, the beginning of a text, for {config['data']}")
        write(run, num, prefix=prefix, length=length, seed=seed, out=out)
        return
    refuse_text_options(prefix, length, config["data"])
    occlude, method = occlude or "bottom", method or "auto"
    items, particles, sweeps = items or 8, particles or 1000, sweeps or 100
    choose("part to hide", occlude, OCCLUSIONS)
    choose("method", method, METHODS)
    out = out or run / "completions.png"
    if out.suffix not in (".png", ".npy") or out.is_dir():
        raise UsageFault(f"--out expects a file that ends in .png or .npy, got {out}")
    if out.suffix == ".png" and items * (num + 2) > MOST_TILES:
        raise UsageFault(
            f"a picture holds at most {MOST_TILES:,} images, got --items {items} and --num {num}; write them "
            "with --out FILE.npy"
        )

    import inference
    from inference.checkpoint import write_atomically
    from zoo.cli.pictures import completions, highest_level, to_npy, to_png
    from zoo.cli.report import counted, say
    from zoo.data import load

    if len(config["event_shape"]) < 2:
        raise UsageFault(
            f"zoo complete expects images, and the items of {config['data']} are vectors; "
            "inference.complete takes those of an autoregressive model, with any mask"
        )
    model = folder.load_model()
    if not out.parent.is_dir():
        raise UsageFault(f"--out expects a file in a folder that is there, got {out}")
    if model.density == "none":
        raise UsageFault(
            f"zoo complete expects a model with a likelihood, which says what goes with what is shown, and "
            f"{config['model']} has none"
        )
    given = hasattr(model, "given") and model.num_classes is not None
    if label is not None and not given:
        raise UsageFault(
            f"--label expects a model of pixels by label, and {type(model).__name__} here is none"
        )
    if label is not None:
        check_label(label, model)
    test = load(config["data"], fold=config["fold"]).test
    if items > len(test):
        raise UsageFault(f"--items expects at most the {len(test):,} test items, got {items}")
    x = test.x[:items]
    observed = shown(occlude, x, seed)
    settings = {"num": num, "method": method, "particles": particles, "sweeps": sweeps, "seed": seed}
    if given:
        labels = test.y[:items] if label is None else test.y[:items] * 0 + label
        result = by_label(model, x, labels, observed, settings)
    else:
        result = inference.complete(model, x, observed, **settings)
    if out.suffix == ".png":
        name, highest = type(model).__name__, highest_level(model)
        data = to_png(completions(x, observed, result.draws, name=name, highest=highest))
    else:
        data = to_npy(result.draws)
    write_atomically(out, data)
    report(result, observed, OCCLUSIONS[occlude], particles, sweeps)
    say(f"wrote {counted(num * items, 'completion')} to {out}")


def by_label(
    model: Any, x: "Tensor", labels: "Tensor", observed: "Tensor", settings: dict[str, Any]
) -> "Completion":
    """Completions of images by p(x | y), each given its label."""
    import torch

    import inference

    parts = []
    for label in labels.unique().tolist():
        own = labels == label
        # Images of different labels do not share their random numbers.
        own_seed = {**settings, "seed": settings["seed"] + label}
        parts.append(inference.complete(model.given(label), x[own], observed[own], **own_seed))
    # They come label by label; each image goes back to its place.
    place = labels.argsort(stable=True).argsort()
    fields = {
        name: torch.cat([getattr(part, name) for part in parts])[place]
        for name in ("effective_sample_size", "log_evidence", "log_evidence_error")
    }
    draws = torch.cat([part.draws for part in parts], dim=1)[:, place]
    worst = next((part for part in parts if not part.exact), parts[0])
    return replace(worst, draws=draws, **fields)


def shown(occlude: str, x: "Tensor", seed: int) -> "Tensor":
    """Which entries of images stay visible, bool, as the images: all channels of a pixel or none.

    Args:
        occlude: One of `OCCLUSIONS`. Of an odd number of rows or columns, the one in the middle is hidden.
        x: The images, shape ``(items, height, width)`` or ``(items, channels, height, width)``.
        seed: Seed of ``"random"``.
    """
    import torch

    height, width = x.shape[-2:]
    rows = columns = slice(None)
    if occlude == "centre":
        rows, columns = _middle(height), _middle(width)
    elif occlude in ("top", "bottom"):
        rows = slice((height + 1) // 2) if occlude == "top" else slice(height // 2, None)
    elif occlude in ("left", "right"):
        columns = slice((width + 1) // 2) if occlude == "left" else slice(width // 2, None)
    hidden = torch.zeros(len(x), height, width, dtype=torch.bool)
    if occlude == "random":
        noise = torch.rand(len(x), height * width, generator=torch.Generator().manual_seed(seed))
        hidden.view(len(x), -1).scatter_(1, noise.argsort(-1)[:, : height * width // 2], True)
    else:
        hidden[:, rows, columns] = True
    return ~hidden.view(len(x), *(1,) * (x.dim() - 3), height, width).expand(x.shape)


def _middle(length: int) -> slice:
    """So much of a side that the square of it is half the area."""
    long = max(1, round(length / math.sqrt(2)))
    return slice((length - long) // 2, (length - long) // 2 + long)


def report(result: "Completion", observed: "Tensor", hidden: str, particles: int, sweeps: int) -> None:
    """Prints how the completions were drawn, and how many independent ones they are worth."""
    from rich.console import Console

    from zoo.cli.report import counted, plain_table, say

    num, items = result.draws.shape[:2]
    say(f"{counted(num, 'completion')} of each of {counted(items, 'test image')}, without {hidden}")
    how = {
        "ancestral": "exact: the model draws what is hidden after what is shown, each completion on its own",
        "smc": f"{counted(particles, 'particle')} of each image, kept where they fit what is shown later; "
        "approximate, and better with more --particles",
        "gibbs": f"a chain for each completion, {counted(sweeps, 'time')} through the hidden pixels; "
        "approximate, and better with more --sweeps",
        "left-to-right": "each pixel drawn blind to what is shown later; biased, for comparison",
    }
    say(f"{result.method}: {how[result.method]}")
    if result.method == "left-to-right":
        return
    known = not result.log_evidence.isnan().all()  # an undirected model's chains do not tell
    titles = ["log p(what is shown), nats"] if known else []
    table = plain_table("image", "hidden", f"{counted(num, 'completion')} worth", *titles)
    pixels = (~observed).reshape(items, -1, *observed.shape[-2:])[:, 0].sum((1, 2))
    worth = result.effective_sample_size
    for item in range(min(items, MOST_ROWS)):
        error = result.log_evidence_error[item].item()
        spread = "" if result.exact else f" ± {error:.2f}" if math.isfinite(error) else " ± unknown"
        table.add_row(
            str(item),
            counted(int(pixels[item]), "pixel"),
            "unknown" if worth[item].isnan() else f"{worth[item].item():.1f} independent",
            *([f"{result.log_evidence[item].item():.2f}{spread}"] if known else []),
        )
    Console(highlight=False).print(table)
    if items > MOST_ROWS:
        say(f"and {items - MOST_ROWS:,} more; at the least they are worth {worth.min().item():.1f}")
    if worth.min() < num / 2:
        more = "--sweeps" if result.method == "gibbs" else "--particles, or --method gibbs"
        say(f"some images have fewer than half as many independent completions as asked for: try more {more}")
