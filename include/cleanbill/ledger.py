"""The ledger of released money: `exports/ledger.jsonl`, append-only, one JSON line per act (4-billing-feed, A1, A2).

Each line carries the hash of the line before (`prev_hash`) and its own (`hash`), so an edited, removed, inserted or
moved line shows. `exports/ledger.head` holds number and hash of the last line, and every approval.json those at the
time of the approval: a ledger cut short shows too. Whoever rewrites the ledger, its head and the approvals of all
released versions together leaves no trace here; keep a copy of the head elsewhere.
"""

import errno
import getpass
import hashlib
import json
import os
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from cleanbill import feed_files
from cleanbill.errors import FeedError
from cleanbill.feed_versions import RELEASED_FILE, make_released_folder
from cleanbill.file_lock import alone
from cleanbill.masking import mask_text
from cleanbill.settings import Settings, get_settings

LEDGER = "ledger.jsonl"
HEAD = "ledger.head"
LOCK = "ledger.lock"
ZONE = ZoneInfo("Asia/Shanghai")
BEFORE_THE_FIRST = "0" * 64
LONGEST_TEXT = 1000
FIELDS = frozenset(
    "seq at os_user person action object details result reason run_id prev_hash hash".split()  # noqa: SIM905
)
DAMAGED = "`cleanbill verify` shows what differs; restore exports/ledger.jsonl and exports/ledger.head from a backup"

Entry = dict[str, Any]


@dataclass(frozen=True)
class LedgerProblem:
    """Something wrong with one of the two files of the ledger."""

    file: str
    text: str


def record(
    action: str,
    subject: dict[str, Any],
    *,
    details: dict[str, Any] | None = None,
    person: str | None = None,
    result: str = "done",
    reason: str | None = None,
    run_id: str | None = None,
    settings: Settings | None = None,
) -> Entry:
    """Append one act to the ledger, durable when this returns; the same act again adds nothing.

    Args:
        action: what was done, a fixed code such as `approved`, `sealed`, `rejected`.
        subject: what it was done to: month, version, sha256 of the manifest.
        details: what else an auditor needs (with `action` and `subject` it says what "the same act" is).
        person: the person who answers for it; the user of the operating system is added.
        result: how it ended.
        reason: free text; numbers of subscribers in it are masked.
        run_id: the run in which it was done.
        settings: the installation.

    Returns:
        The entry, new or as it stands there already.

    Raises:
        FeedError: the ledger was tampered with; nothing is added to it then.
    """
    settings = settings or get_settings()
    make_released_folder(settings.exports, settings)
    with _lock(settings):
        found = _repaired_entries(settings)
        wanted = (action, subject, details or {})
        for entry in found:
            if (entry["action"], entry["object"], entry["details"]) == wanted:
                return entry
        entry = _act(action, subject) | {
            "details": details or {},
            "person": person,
            "reason": None if reason is None else mask_text(reason)[:LONGEST_TEXT],
            "result": result,
            "run_id": run_id,
        }
        return _append(entry, found, settings)


def entries(settings: Settings | None = None) -> list[Entry]:
    """Return all entries, after dropping what a killed writer left of a line.

    Raises:
        FeedError: the ledger was tampered with.
    """
    settings = settings or get_settings()
    if not _exists(settings):
        return []
    with _lock(settings):
        return _repaired_entries(settings)


def head(settings: Settings | None = None) -> dict[str, Any]:
    """Return number and hash of the last entry, for an approval to be anchored at.

    Raises:
        FeedError: the ledger is damaged.
    """
    found = entries(settings)
    return {"entries": len(found), "hash": found[-1]["hash"] if found else BEFORE_THE_FIRST}


def check(settings: Settings) -> list[LedgerProblem]:
    """Check every line, the chain and the head; return what is wrong (nothing: a whole ledger, or none at all)."""
    whole, torn = _lines(settings)
    stated = _read_head(settings)
    if stated is None:
        return [LedgerProblem(HEAD, "is missing or was altered")] if whole or torn or _exists(settings) else []
    problems = _chain_problems(whole) or _head_problems(stated, whole)
    if torn and not problems:
        problems = [f"ends in the middle of line {len(whole) + 1}"]
    return [LedgerProblem(LEDGER, text) for text in problems]


def read(settings: Settings) -> list[Entry]:
    """Return all entries of a ledger that was checked, without writing anything."""
    return [json.loads(line) for line in _lines(settings)[0]]


def os_user() -> str:
    """Return the user of the operating system under whom this process runs."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container user without a name
        return f"uid {os.getuid()}"


def _lock(settings: Settings) -> AbstractContextManager[None]:
    settings.warehouse_folder.mkdir(parents=True, exist_ok=True)
    return alone(settings.warehouse_folder / LOCK, "writing the ledger")


def _exists(settings: Settings) -> bool:
    return (settings.exports / LEDGER).exists() or (settings.exports / HEAD).exists()


def _lines(settings: Settings) -> tuple[list[bytes], bytes]:
    """Return the whole lines of the ledger, and what stands after the last line end (normally nothing)."""
    path = settings.exports / LEDGER
    if not path.exists():
        return [], b""
    *whole, torn = path.read_bytes().split(b"\n")
    return whole, torn


def _chain_problems(lines: list[bytes]) -> list[str]:
    problems = []
    previous = BEFORE_THE_FIRST
    for number, line in enumerate(lines, start=1):
        entry = _parsed(line)
        if entry is None:
            return [*problems, f"line {number} is no entry of a ledger, or was altered"]
        if entry["prev_hash"] != previous or entry["seq"] != number:
            problems.append(f"line {number} does not follow the line before: lines were removed, added or moved")
        previous = entry["hash"]
    return problems


def _parsed(line: bytes) -> Entry | None:
    """Return the entry a line holds, or None unless every byte of it is as it was written."""
    try:
        entry = json.loads(line)
        is_whole = set(entry) == FIELDS and _as_line(entry) == line and entry["hash"] == _hash_of(entry)
    except (ValueError, TypeError, RecursionError):
        return None
    return entry if is_whole else None


def _head_problems(stated: dict[str, Any], whole: list[bytes]) -> list[str]:
    """Compare the lines with the head; a line more than it counts is right if it is the one announced there."""
    known = stated["entries"]
    if len(whole) < known:
        return [f"has {len(whole)} entries of {known}: its end was cut off"]
    last_hash = _parsed(whole[known - 1])["hash"] if known else BEFORE_THE_FIRST
    if last_hash != stated["hash"]:
        return [f"line {known} is not the one its head knows"]
    if len(whole) == known or (len(whole) == known + 1 and _parsed(whole[known])["hash"] == stated["next"]):
        return []
    return [f"line {known + 1} was not announced in its head: it was added by somebody else"]


def _repaired_entries(settings: Settings) -> list[Entry]:
    """Return the entries after dropping what a killed writer left of a line; the drop is an entry too.

    Raises:
        FeedError: anything else is wrong with the ledger.
    """
    path = settings.exports / LEDGER
    whole, torn = _lines(settings)
    stated = _read_head(settings)
    is_killed_writer = bool(torn) and stated is not None and len(whole) == stated["entries"] and stated["next"]
    if is_killed_writer:
        entry = _parsed(torn)
        if entry is not None and entry["hash"] == stated["next"]:  # whole but for its line end
            _write(path, b"\n")
            torn = b""
        else:
            _cut(path, sum(len(line) + 1 for line in whole))
    problems = check(settings)
    if problems:
        raise _damaged(problems[0], settings)
    found = [json.loads(line) for line in _lines(settings)[0]]
    if torn:
        entry = _act("torn_line_dropped", {"line": len(found) + 1}) | {
            "details": {"bytes": len(torn), "sha256": hashlib.sha256(torn).hexdigest()},
            "reason": mask_text(torn.decode(errors="replace"))[:LONGEST_TEXT],
            "result": "its act is recorded anew by whoever repeats it",
        }
        found.append(_append(entry, found, settings))
    return found


def _act(action: str, subject: dict[str, Any]) -> Entry:
    return {
        "action": action,
        "at": datetime.now(ZONE).isoformat(timespec="seconds"),
        "details": {},
        "object": subject,
        "os_user": os_user(),
        "person": None,
        "reason": None,
        "result": "done",
        "run_id": None,
    }


def _append(entry: Entry, before: list[Entry], settings: Settings) -> Entry:
    """Announce the line in the head, append it, settle the head: a kill between any two of these can be told."""
    last = before[-1]["hash"] if before else BEFORE_THE_FIRST
    entry = entry | {"seq": len(before) + 1, "prev_hash": last}
    entry["hash"] = _hash_of(entry)
    _write_head(len(before), last, entry["hash"], settings)
    _write(settings.exports / LEDGER, _as_line(entry) + b"\n")
    _write_head(len(before) + 1, entry["hash"], None, settings)
    return entry


def _write(path: Path, data: bytes) -> None:
    is_new = not path.exists()
    descriptor = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_APPEND, RELEASED_FILE)
    try:
        os.fchmod(descriptor, RELEASED_FILE)  # whatever the umask
        if os.write(descriptor, data) != len(data):
            raise OSError(errno.ENOSPC, "no space for a whole line", str(path))
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    if is_new:
        feed_files.flush_folder(path.parent)


def _cut(path: Path, length: int) -> None:
    with path.open("rb+") as file:
        file.truncate(length)
        os.fsync(file.fileno())


def _write_head(count: int, last: str, announced: str | None, settings: Settings) -> None:
    feed_files.write_text(settings.exports / HEAD, _head_text(count, last, announced), RELEASED_FILE)


def _head_text(count: int, last: str, announced: str | None) -> str:
    """Return the head with a sum of its own: a flipped byte in it must not look like a cut ledger."""
    known = {"entries": count, "hash": last, "next": announced}
    return _canonical(known | {"check": hashlib.sha256(_canonical(known).encode()).hexdigest()}) + "\n"


def _read_head(settings: Settings) -> dict[str, Any] | None:
    """Return what the head states, or None unless every byte of it is as it was written."""
    try:
        content = (settings.exports / HEAD).read_bytes()
        stated = json.loads(content)
        is_whole = content == _head_text(stated["entries"], stated["hash"], stated["next"]).encode()
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        return None
    return stated if is_whole else None


def _hash_of(entry: Entry) -> str:
    return hashlib.sha256(_as_line({name: entry[name] for name in entry if name != "hash"})).hexdigest()


def _as_line(entry: Entry) -> bytes:
    return _canonical(entry).encode()


def _canonical(content: dict[str, Any]) -> str:
    return json.dumps(content, sort_keys=True, ensure_ascii=False, separators=(",", ":"))


def _damaged(problem: LedgerProblem, settings: Settings) -> FeedError:
    return FeedError(
        where=str(settings.exports / problem.file),
        expected="the ledger as it was written",
        found=problem.text,
        advice=DAMAGED,
    )
