"""The folder of one run: which process holds it (.lock), and what happened in it (run.json)."""

import contextlib
import json
import logging
import os
import socket
import time
from pathlib import Path

from hftoolkit.errors import EXIT_CODES, RunInterruptedError, UserError
from hftoolkit.training.disk import read_json, write_json

logger = logging.getLogger(__name__)

LOCK_FILE = ".lock"
RECORD_FILE = "run.json"
RECORD_FORMAT = 1
DECIDE_ROUNDING = ("threads", "processes", "versions", "hardware")  # bit for bit equal only where these are


class RunFolderError(UserError, ValueError):
    """The output folder belongs to something else: a living process, other arguments, another program."""

    exit_code = EXIT_CODES["arguments"]


def is_alive(pid):
    """Whether a process of this host exists."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


@contextlib.contextmanager
def lock(folder):
    """Hold the run folder alone; the lock of a process that died on this host is taken over.

    Raises:
        RunFolderError: a living process, or one on another host, holds the folder.
    """
    path, mine = Path(folder) / LOCK_FILE, {"pid": os.getpid(), "host": socket.gethostname()}
    while True:
        try:
            descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
            break
        except FileExistsError:
            _remove_stale_lock(path)
    with open(descriptor, "w", encoding="utf-8") as file:
        json.dump(mine, file)
    try:
        yield
    finally:
        if read_json(path) == mine:
            path.unlink(missing_ok=True)


def _remove_stale_lock(path):
    """Delete a dead process's lock, or raise; renamed first, so that of two that try only one succeeds."""
    if read_json(path) is None:
        time.sleep(0.2)  # a lock that is just being written is empty for a moment
    owner = read_json(path) or {}
    pid, host = owner.get("pid"), owner.get("host")
    # Our own process id in it is a dead process's: a restarted container numbers its processes as before.
    if owner and (host != socket.gethostname() or (pid != os.getpid() and is_alive(pid))):
        raise RunFolderError(
            f"{path.parent} is in use by process {pid} on {host}: wait for it, choose another output_dir, or, if "
            f"that process is no longer alive, delete {path}"
        )
    aside = path.with_name(f"{LOCK_FILE}.{os.getpid()}")
    with contextlib.suppress(FileNotFoundError):
        os.rename(path, aside)
        if (read_json(aside) or {}) != owner:  # in between another process took over: give it back its lock
            os.link(aside, path)
        aside.unlink()


class RunRecord:
    """run.json: what was asked for and what became of it, rewritten whole at every change.

    Wall and CPU seconds continue those of the earlier starts of the same run, up to their last record.
    """

    def __init__(self, folder, **facts):
        self.folder = Path(folder)
        earlier = read_json(self.folder / RECORD_FILE) or {}
        for key in DECIDE_ROUNDING:
            if key in earlier and earlier[key] != facts.get(key):
                was, now = earlier[key], facts.get(key)
                logger.warning("%s: %s before, %s now; the run goes on, with other roundings", key, was, now)
        self.facts = {"format": RECORD_FORMAT, "status": "running", "exit_code": None, "reason": None, **facts}
        self.earlier_seconds = [earlier.get(key) or 0.0 for key in ("wall_seconds", "cpu_seconds")]
        self.started = self._clock()

    @staticmethod
    def _clock():
        """Monotonic wall time, and the CPU time of this process and its finished children."""
        times = os.times()
        return time.monotonic(), times.user + times.system + times.children_user + times.children_system

    def write(self, **changes):
        """Add facts and write the file."""
        spent = [now - start for now, start in zip(self._clock(), self.started, strict=True)]
        total = [round(earlier + now, 3) for earlier, now in zip(self.earlier_seconds, spent, strict=True)]
        self.facts |= {"wall_seconds": total[0], "cpu_seconds": total[1], **changes}
        write_json(self.folder / RECORD_FILE, self.facts)

    def write_end(self, error):
        """Note how the run ended; a folder that cannot be written any more keeps its last record."""
        code = error.exit_code if isinstance(error, UserError) else EXIT_CODES["bug"]
        status = "diverged" if code == EXIT_CODES["diverged"] else "failed"
        if isinstance(error, RunInterruptedError):
            status = "interrupted"
        if self.folder.is_dir():
            with contextlib.suppress(OSError):
                self.write(status=status, exit_code=code, reason=f"{type(error).__name__}: {error}"[:2000])
