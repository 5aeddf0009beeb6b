"""The ``zoo`` command: list, train, evaluate and sample the models.

A file for each command; what they share lies beside them (`recipe`, `run_folder`, `pictures`, `report`). Torch and
Pyro are imported when a command needs them, so that ``zoo --help`` answers at once.
"""

import sys

import typer
from typer import _click as click

from zoo.cli.errors import EnvironmentFault, UsageFault
from zoo.cli.evaluate import evaluate
from zoo.cli.list_models import list_models
from zoo.cli.sample import sample
from zoo.cli.train import train

app = typer.Typer(
    help="Deep generative models as Pyro programs: train them, evaluate them, draw from them.",
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode=None,
)
app.command("list")(list_models)
app.command("train")(train)
app.command("evaluate")(evaluate)
app.command("sample")(sample)


def main(args: list[str] | None = None) -> None:
    """Runs the command and exits: 0, 2 for a mistake in what was asked, 1 for a fault of the surroundings.

    Args:
        args: The arguments; None takes those of the process.
    """
    sys.exit(_run(args))


def _run(args: list[str] | None) -> int:
    try:
        code = app(args, prog_name="zoo", standalone_mode=False)
        return code if isinstance(code, int) else 0
    except click.exceptions.ClickException as error:
        return _say(error.format_message(), 2)
    except (UsageFault, ValueError) as error:
        return _say(str(error), 2)
    except (EnvironmentFault, FloatingPointError, OSError) as error:
        return _say(str(error), 1)
    except (KeyboardInterrupt, click.exceptions.Abort):
        return _say("interrupted", 130)


def _say(message: str, code: int) -> int:
    print(f"zoo: {' '.join(message.split())}", file=sys.stderr)
    return code
