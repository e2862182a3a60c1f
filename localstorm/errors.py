"""The errors localstorm tells its users about.

Each carries one clear line; the command line prints it and exits with `exit_code`.
"""


class LocalStormError(Exception):
    """Something the user can put right: the message names the thing and what was expected."""

    exit_code = 2


class CrashLoopError(LocalStormError):
    """A task was restarted more often than `--max-restarts` allows."""

    exit_code = 1


class ProtocolError(Exception):
    """A component sent something that the multilang protocol does not allow; its process is replaced."""
