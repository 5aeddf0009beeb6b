"""``zoo sample``: draws from a trained run."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from zoo.cli.errors import UsageFault

if TYPE_CHECKING:
    from zoo.model import GenerativeModel

MOST_TILES = 4096
"""As many as a picture holds before nobody can look at it."""


def sample(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Run folder of zoo train.")],
    num: Annotated[
        int | None, typer.Option(min=1, help="How many items; left out, 64; 1 text or sound, or 20 names.")
    ] = None,
    label: Annotated[int | None, typer.Option(help="Which label, for a model that has labels.")] = None,
    sweeps: Annotated[
        int | None, typer.Option(min=1, help="Gibbs sweeps for each draw, for a model that draws by them.")
    ] = None,
    prefix: Annotated[
        str | None, typer.Option(help="What a text goes on from; of a sound, a WAV file.")
    ] = None,
    length: Annotated[
        int | None, typer.Option(min=1, help="Characters of a text; left out, 1000, or a whole name.")
    ] = None,
    seconds: Annotated[float | None, typer.Option(help="Of a sound, above 0; left out, 1.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the draw.")] = 0,
    out: Annotated[
        Path | None,
        typer.Option(
            help="File: .png for a picture, .npy for the numbers; left out, drawn.png in the run folder. "
            "Of texts .txt or .npy; left out, they are printed. Of sounds .wav or .npy; left out, drawn.wav."
        ),
    ] = None,
) -> None:
    """Draw items from a trained model.

    They go into a picture, or into a NumPy array of shape (num, *event_shape); texts are printed, or go into
    a text file. Of drawn names it is said which occur in training. Sounds go into a WAV file.
    """
    from zoo.cli.run_folder import RunFolder
    from zoo.cli.sound import SOUNDS, draw_sound, refuse_sound_options
    from zoo.cli.text import TEXTS, refuse_text_options, write

    data = RunFolder(run).config()["data"]
    if data in (*TEXTS, *SOUNDS) and (label is not None or sweeps is not None):
        raise UsageFault(f"--label and --sweeps are not for a run on {data}")
    if data in SOUNDS:
        refuse_text_options(None, length, data)
        draw_sound(run, num, prefix=prefix, seconds=seconds, seed=seed, out=out)
        return
    refuse_sound_options(seconds, data)
    if data in TEXTS:
        write(run, num, prefix=prefix, length=length, seed=seed, out=out)
        return
    refuse_text_options(prefix, length, data)
    num = num or 64
    out = out or run / ("drawn.png" if label is None else f"drawn-{label}.png")
    if out.suffix not in (".png", ".npy") or out.is_dir():
        raise UsageFault(f"--out expects a file that ends in .png or .npy, got {out}")
    if out.suffix == ".png" and num > MOST_TILES:
        raise UsageFault(
            f"a picture holds at most {MOST_TILES:,} items, got --num {num}; write them with --out FILE.npy"
        )

    from inference.checkpoint import write_atomically
    from zoo.cli.pictures import highest_level, item_grid, sweeps_of, to_npy, to_png
    from zoo.cli.report import counted, say

    model = RunFolder(run).load_model()
    if not out.parent.is_dir():
        raise UsageFault(f"--out expects a file in a folder that is there, got {out}")
    if label is not None:
        check_label(label, model)
    run_for = sweeps_of(model, sweeps)
    if sweeps is not None and run_for is None:
        raise UsageFault(
            f"--sweeps expects a model that draws by Gibbs sweeps, which {type(model).__name__} does not"
        )
    conditions = {} if label is None else {"y": label}
    items = model.sample(num, seed=seed, **conditions, **({} if run_for is None else {"sweeps": run_for}))
    how = "" if run_for is None else f", after {counted(run_for, 'Gibbs sweep')}, the first half annealed"
    if out.suffix == ".png":
        asked = "" if label is None else f", label {label}"
        title = f"{counted(num, 'draw')} from {type(model).__name__}{asked}{how}"
        data = to_png(item_grid(items, title=title, highest=highest_level(model)))
    else:
        data = to_npy(items)
    write_atomically(out, data)
    say(f"wrote {counted(num, 'item')} to {out}{how}")


def check_label(label: int, model: "GenerativeModel") -> None:
    """Checks a label that was asked for.

    Raises:
        UsageFault: If the model has no labels, or none such.
    """
    classes = getattr(model, "num_classes", None)
    if classes is None:
        raise UsageFault(f"--label expects a model with labels, and {type(model).__name__} has none")
    if not 0 <= label < classes:
        raise UsageFault(f"--label expects one of 0 to {classes - 1}, got {label}")
