"""The ``zoo`` command: list, train, compare, evaluate and sample models, complete images, tell anomalies.

A file for each command; what they share lies beside them (`recipe`, `run_folder`, `pictures`, `report`).
Torch and Pyro are imported when a command needs them, so that ``zoo --help`` answers at once.
"""

import sys

import typer

from zoo.cli.anomaly import anomaly
from zoo.cli.compare import compare
from zoo.cli.complete import complete
from zoo.cli.errors import EnvironmentFault, UsageFault
from zoo.cli.evaluate import evaluate
from zoo.cli.list_models import list_models
from zoo.cli.sample import sample
from zoo.cli.train import train

app = typer.Typer(
    help="Deep generative models as Pyro programs: train them, evaluate them, draw from them.",
    add_completion=False,
    rich_markup_mode=None,
)
app.command("list")(list_models)
app.command("train")(train)
app.command("evaluate")(evaluate)
app.command("sample")(sample)
app.command("compare")(compare)
app.command("complete")(complete)
app.command("anomaly")(anomaly)

UsageError = typer.BadParameter.__mro__[1]
"""Every mistake in the arguments themselves; typer keeps the class where each version likes."""

LONGEST_MESSAGE = 1000


def main(args: list[str] | None = None) -> None:
    """Runs the command and exits.

    The exit code is 0, or 2 for a mistake in what was asked, 1 for one of the surroundings, 130 for Ctrl-C.

    Args:
        args: The arguments; None takes those of the process.
    """
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")  # a terminal without ± shows a question mark
    sys.exit(_run(sys.argv[1:] if args is None else args))


def _run(args: list[str]) -> int:
    try:
        code = app(args or ["--help"], prog_name="zoo", standalone_mode=False, obj=args)
        return code if isinstance(code, int) else 0
    except UsageError as error:
        return _say(_usage_message(error), 2)
    except (UsageFault, ValueError) as error:
        return _say(str(error), 2)
    except (ZeroDivisionError, OverflowError):  # mistakes of ours
        raise
    except (EnvironmentFault, ArithmeticError, MemoryError) as error:  # no finite number, no convergence
        return _say(str(error) or "out of memory", 1)
    except OSError as error:
        return _say(f"{error.strerror}: {error.filename}" if error.filename else str(error), 1)
    except (KeyboardInterrupt, typer.Abort):
        return _say("interrupted", 130)


def _usage_message(error: Exception) -> str:
    message = error.format_message().rstrip(".")
    if message.startswith("No such command"):
        message += f"; the commands are {', '.join(command.name for command in app.registered_commands)}"
    context = getattr(error, "ctx", None)
    return f"{message}; see {context.command_path if context else 'zoo'} --help"


def _say(message: str, code: int) -> int:
    line = " ".join(message.split())
    if len(line) > LONGEST_MESSAGE:
        line = f"{line[: LONGEST_MESSAGE // 2]} ... {line[-LONGEST_MESSAGE // 2 :]}"
    print(f"zoo: {line}", file=sys.stderr)
    return code
