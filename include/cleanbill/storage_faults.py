"""Faults of the machine, not of the data: what they are called and what to do about them.

The texts of DuckDB's errors may quote data, so nothing of them is passed on but the name of a file.
"""

import errno
import re
import shutil
from pathlib import Path

import duckdb

from cleanbill.errors import CleanbillError, StorageFailed

FAULTS = (
    OSError,
    MemoryError,
    duckdb.IOException,
    duckdb.OutOfMemoryException,
    duckdb.FatalException,
    duckdb.InternalException,
    duckdb.InterruptException,
)
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_FULL_TEXTS = ("no space left", "disk quota exceeded", "file too large", "out of disk space")
_READ_ONLY = (errno.EROFS, errno.EACCES, errno.EPERM)
_READ_ONLY_TEXTS = ("read-only file system", "permission denied", "operation not permitted")
_QUOTED_PATH = re.compile(r"""["']([^"'\n]+)["']""")


def storage_failure(
    error: Exception | str, home: Path, kind: type[StorageFailed] = StorageFailed
) -> StorageFailed | None:
    """Return the error that tells a fault of disk, permissions or memory in plain words; None if it is none.

    Args:
        error: what was raised, or what a child process wrote.
        home: the data root, whose free space is told.
        kind: the class of the error to return.
    """
    if isinstance(error, CleanbillError):
        return error if isinstance(error, StorageFailed) else None
    text = str(error).lower()
    number = getattr(error, "errno", None)
    where = _path_in(error, home)
    if number in _FULL or any(part in text for part in _FULL_TEXTS):
        free = shutil.disk_usage(home).free if home.exists() else 0
        return kind(where, "room to write", f"a full disk ({free} bytes free)", "free some space, then run again")
    if number in _READ_ONLY or any(part in text for part in _READ_ONLY_TEXTS):
        return kind(
            where,
            "a file or folder that may be written",
            "no permission, or a file system that is read-only",
            "give the user of the pipeline the right to write there, then run again",
        )
    if isinstance(error, (MemoryError, duckdb.OutOfMemoryException)):
        return kind(
            str(home),
            "enough memory",
            "too little",
            "raise CLEANBILL_MEMORY_LIMIT or free memory, then run again",
        )
    return None


def any_fault(error: Exception, home: Path, kind: type[StorageFailed]) -> StorageFailed:
    """Return the error that tells any of FAULTS, also one whose cause is not plain."""
    if known := storage_failure(error, home, kind):
        return known
    found = f"{error.strerror}: {error.filename}" if isinstance(error, OSError) and error.strerror else None
    return kind(
        _path_in(error, home),
        "files that can be read and written",
        found or type(error).__name__,
        "check permissions, disk and memory limit (CLEANBILL_MEMORY_LIMIT), then run again",
    )


def _path_in(error: Exception | str, home: Path) -> str:
    """Return the file below the data root that an error speaks of, else the data root."""
    named = [str(name) for name in (getattr(error, "filename2", None), getattr(error, "filename", None)) if name]
    named += _QUOTED_PATH.findall(str(error))
    return next((name for name in named if name.startswith(f"{home}/")), str(home))
