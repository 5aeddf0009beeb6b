"""``zoo sample``: draws from a trained run."""

from pathlib import Path
from typing import Annotated

import typer

from zoo.cli.errors import UsageFault


def sample(
    run: Annotated[Path, typer.Argument(help="Run folder of zoo train.")],
    num: Annotated[int, typer.Option(help="How many items.")] = 64,
    label: Annotated[int | None, typer.Option(help="Which label, for a model that has labels.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of the draw.")] = 0,
    out: Annotated[
        Path | None, typer.Option(help="File to write: .png for a picture, .npy for the numbers.")
    ] = None,
) -> None:
    """Draw items from a trained model, into a picture or an array."""
    import io

    import numpy as np

    from inference.checkpoint import write_atomically
    from zoo.cli.pictures import item_grid, to_png
    from zoo.cli.report import say
    from zoo.cli.run_folder import RunFolder

    model = RunFolder(run).load_model()
    out = out or run / ("drawn.png" if label is None else f"drawn-{label}.png")
    if out.suffix not in (".png", ".npy"):
        raise UsageFault(f"--out expects a file that ends in .png or .npy, got {out}")
    if label is not None and not hasattr(model, "num_classes"):
        raise UsageFault(f"--label expects a model with labels, and a {type(model).__name__} has none")
    items = model.sample(num, seed=seed, **({} if label is None else {"y": label}))
    if out.suffix == ".png":
        data = to_png(item_grid(items, title=f"{num} draws from {type(model).__name__}"))
    else:
        buffer = io.BytesIO()
        np.save(buffer, items.cpu().numpy(), allow_pickle=False)
        data = buffer.getvalue()
    write_atomically(out, data)
    say(f"wrote {num} items to {out}")
