"""Progress of long work: a bar in a terminal, now and then a line elsewhere."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

SECONDS_BETWEEN_LINES = 60.0


class Progress:
    """What `progress` yields; `advance` moves it on."""

    def advance(self, text: str = "") -> None:
        """One unit done, and what to say about it."""

    def say(self, text: str) -> None:
        """A line that stays, above the bar."""


class _Bar(Progress):
    def __init__(self, description: str, total: int, done: int) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as RichProgress

        self.bar = RichProgress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[text]}"),
            console=Console(stderr=True),
        )
        self.task = self.bar.add_task(description, total=total, completed=done, text="")

    def advance(self, text: str = "") -> None:
        self.bar.update(self.task, advance=1, text=text)

    def say(self, text: str) -> None:
        self.bar.console.print(text, markup=False, highlight=False)


class _Lines(Progress):
    def __init__(self, description: str, total: int, done: int) -> None:
        self.description, self.total, self.done, self.last = description, total, done, time.monotonic()

    def advance(self, text: str = "") -> None:
        self.done += 1
        if time.monotonic() - self.last >= SECONDS_BETWEEN_LINES:
            self.last = time.monotonic()
            self.say(f"{self.description} {self.done}/{self.total} {text}".rstrip())

    def say(self, text: str) -> None:
        print(text, file=sys.stderr, flush=True)


@contextmanager
def progress(description: str, total: int, *, done: int = 0, enabled: bool = True) -> Iterator[Progress]:
    """Shows how far a loop has come, on standard error.

    Args:
        description: What is being done.
        total: How many units there are.
        done: How many were done before.
        enabled: False shows nothing.
    """
    if not enabled:
        yield Progress()
    elif sys.stderr.isatty():
        bar = _Bar(description, total, done)
        with bar.bar:
            yield bar
    else:
        yield _Lines(description, total, done)
