"""Errors that a user can cause and mend: one line, no traceback, a stable exit code.

A recipe that ends with one of these prints the message and leaves with its exit code; inside a program they are
ordinary exceptions and can be caught.
"""

import contextlib
import sys

EXIT_CODES = {
    "done": 0,
    "bug": 1,
    "arguments": 2,
    "data": 3,
    "diverged": 4,
    "checkpoint": 5,
    "environment": 6,
    "hub": 7,
    "interrupted": 75,
}


class UserError(Exception):
    """Something the user can mend. The message names the value, the place and the remedy."""

    exit_code = EXIT_CODES["bug"]


class DataError(UserError, ValueError):
    """The data cannot be used as they are."""

    exit_code = EXIT_CODES["data"]


class DivergedError(UserError, ArithmeticError):
    """A loss, gradient or weight is not finite."""

    exit_code = EXIT_CODES["diverged"]


class CheckpointError(UserError, ValueError):
    """A checkpoint or model folder is damaged or belongs to something else."""

    exit_code = EXIT_CODES["checkpoint"]


class MachineError(UserError, OSError):
    """The machine is in the way: a full disk, a read-only folder, a missing package."""

    exit_code = EXIT_CODES["environment"]


class HubError(UserError, OSError):
    """The Hub could not be reached or refused."""

    exit_code = EXIT_CODES["hub"]


class RunInterruptedError(UserError):
    """The run was asked to stop; it left a checkpoint from which the same command resumes."""

    exit_code = EXIT_CODES["interrupted"]


@contextlib.contextmanager
def one_line_errors():
    """Print a UserError as one line on stderr and leave with its exit code; let anything else through."""
    try:
        yield
    except UserError as error:
        sys.stderr.write(f"error  {error}\n")
        sys.exit(error.exit_code)
