"""Locks between processes that the system frees by itself when their holder dies."""

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cleanbill.errors import FeedError

LOCK_WAIT_SECONDS = 120
LOCK_FILE_MODE = 0o600
POLL_SECONDS = 0.05


@contextmanager
def alone(path: Path, work: str, wait_seconds: float = LOCK_WAIT_SECONDS) -> Iterator[None]:
    """Hold the lock file `path` (made if missing) while the block runs.

    Args:
        path: the lock file; its folder must exist.
        work: what is done under it, for the message.
        wait_seconds: how long another holder is waited for.

    Raises:
        FeedError: another process held it all that time.
    """
    descriptor = os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, LOCK_FILE_MODE)
    try:
        deadline = time.monotonic() + wait_seconds
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError as error:
                if time.monotonic() > deadline:
                    raise FeedError(
                        where=str(path),
                        expected=f"to be alone while {work}",
                        found=f"another process held the lock for {wait_seconds:g} s",
                        advice="wait for the other run to end, then try again",
                    ) from error
                time.sleep(POLL_SECONDS)
        yield
    finally:
        os.close(descriptor)
