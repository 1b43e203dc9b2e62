"""Ends processes by SIGKILL at chosen moments: at the n-th act on a file, or after a while.

Forking needs a process without other threads: run these from a program of its own, never inside pytest.
"""

import os
import signal
import sys
import time
from collections.abc import Callable

# What a process does to files, as far as Python sees it; what DuckDB does inside is hit by the clock.
ACTS = {
    *("open", "os.rename", "os.mkdir", "os.rmdir", "os.remove", "os.link", "os.chmod", "os.truncate"),
    *("shutil.rmtree", "os.scandir", "os.listdir", "fcntl.flock", "tempfile.mkdtemp"),
}
KILLED = -signal.SIGKILL


def start_killed_at(act: int, home: str, work: Callable[[], None]) -> int:
    """Start the work in a child that kills itself at its n-th act on a file below `home`; return its process id."""

    def arm() -> None:
        seen = 0

        def hook(event: str, arguments: tuple) -> None:
            nonlocal seen
            if event in ACTS and home in str(arguments):
                seen += 1
                if seen == act:
                    os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(hook)

    return start(work, arm)


def run_killed_at(act: int, home: str, work: Callable[[], None]) -> int:
    """Do the work in a child that kills itself at its n-th act; return its exit code."""
    return _wait(start_killed_at(act, home, work))


def run_killed_after(seconds: float, work: Callable[[], None]) -> int:
    """Do the work in a child and kill it after a while; return its exit code."""
    child = start(work)
    time.sleep(seconds)
    os.kill(child, signal.SIGKILL)
    return _wait(child)


def run(work: Callable[[], None]) -> int:
    """Do the work in a child, undisturbed; return its exit code."""
    return _wait(start(work))


def start(work: Callable[[], None], arm: Callable[[], None] | None = None) -> int:
    """Start the work in a child and return its process id."""
    sys.stdout.flush()
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        if arm:
            arm()
        work()
        code = 0
    except BaseException as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
    finally:
        os._exit(code)


def _wait(child: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
