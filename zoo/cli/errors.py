"""What ends a command with one line, and the check of a name against those that are allowed."""

import difflib
from collections.abc import Iterable


class UsageFault(Exception):
    """What was asked for cannot be done: exit code 2."""


class EnvironmentFault(Exception):
    """The surroundings do not allow it, for instance a device that is not there: exit code 1."""


def choose(what: str, name: str, allowed: Iterable[str], *, where: str = "") -> str:
    """Returns a name that is one of the allowed.

    Args:
        what: What the name names, for the message.
        name: The name that came.
        allowed: Those there are.
        where: Where the name came from, for the message.

    Raises:
        UsageFault: If it is none of them; the message lists them, and says which may be meant.
    """
    allowed = list(allowed)
    if name in allowed:
        return name
    near = difflib.get_close_matches(name.lower(), allowed, n=1)
    hint = f" (did you mean {near[0]}?)" if near else ""
    raise UsageFault(f"unknown {what} {name!r}{where}{hint}; expected one of {', '.join(allowed)}")
