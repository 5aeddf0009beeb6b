"""What ends a command with one line."""


class UsageFault(Exception):
    """What was asked for cannot be done: exit code 2."""


class EnvironmentFault(Exception):
    """The surroundings do not allow it, for instance a full disk: exit code 1."""
