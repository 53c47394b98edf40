"""What the user sees of a reading: problems on stderr, one line each, or a text on stdout."""

import io
import os
import re
import sys

from hftoolkit.arguments.checks import redacted
from hftoolkit.errors import EXIT_CODES

WRONG = EXIT_CODES["arguments"]


class Problems:
    """The mistakes found so far, each with its place and the exit code that it stands for."""

    def __init__(self):
        self.found = []

    def add(self, place, message, code=WRONG):
        self.found.append((place, message, code))

    def end_if_any(self):
        """Print all problems in the order of the file and end the program; return if there is none."""
        if not self.found:
            return
        lines = [f"error  {place}  {message}" for place, message, _ in sorted(self.found, key=_order)]
        count = f"{len(lines)} problem{'s' if len(lines) > 1 else ''}; nothing was started."
        if rank() == 0:
            sys.stderr.write("\n".join(redacted(line) for line in [*lines, count]) + "\n")
        codes = {code for _, _, code in self.found}
        raise SystemExit(WRONG if WRONG in codes else codes.pop())


def end_well(text):
    """Print a text and end the program with exit code 0."""
    if rank() == 0:
        write_out(text)
    raise SystemExit(EXIT_CODES["done"])


def write_out(text):
    """Write to stdout; a reader that went away (`| head`) has read enough."""
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except BrokenPipeError:
        drop_output()


def drop_output():
    """Send stdout nowhere, or Python would complain about the closed pipe once more when it ends."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def forgive_encoding():
    """Let a terminal that lacks a letter (LANG=C) show its code instead of ending the program."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def rank():
    """Return the number of this process in a launch of several; only number 0 writes."""
    text = os.environ.get("RANK", "")
    return int(text) if text.isdecimal() else 0


def _order(problem):
    """By line and column of the file, then the command line."""
    found = re.search(r":(\d+):(\d+)$", problem[0])
    return (0, int(found[1]), int(found[2])) if found else (1, 0, 0)
