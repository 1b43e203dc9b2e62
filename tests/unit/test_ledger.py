"""The ledger: what it records, what a kill leaves of it, and that tampering shows (A1, A2)."""

import json
import multiprocessing
import random
import stat
from pathlib import Path

import pytest
from cleanbill import ledger
from cleanbill.errors import FeedError
from cleanbill.settings import get_settings

SUBJECT = {"billing_month": "2026-11", "version": 1, "manifest_sha256": "0" * 64}
TAMPERINGS = 200


def write(entries: int = 6) -> Path:
    for number in range(entries):
        ledger.record("approved", SUBJECT | {"version": number}, person="Li Lei", reason="released by a person")
    return get_settings().exports / ledger.LEDGER


def test_an_entry_says_who_did_what_to_what_and_follows_the_one_before(cleanbill_home: Path) -> None:
    path = write(2)
    first, second = (json.loads(line) for line in path.read_text().splitlines())
    assert set(first) == ledger.FIELDS
    assert (first["seq"], first["prev_hash"]) == (1, "0" * 64)
    assert (second["seq"], second["prev_hash"]) == (2, first["hash"])
    assert (first["action"], first["person"], first["object"]["version"]) == ("approved", "Li Lei", 0)
    assert first["os_user"]
    assert first["at"].endswith("+08:00")
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert ledger.check(get_settings()) == []


def test_the_same_act_again_adds_nothing(cleanbill_home: Path) -> None:
    path = write(3)
    content = path.read_bytes()
    write(3)
    assert path.read_bytes() == content


def test_no_phone_number_stays_in_a_reason(cleanbill_home: Path) -> None:
    ledger.record("rejected", SUBJECT, reason="13812345678 is not ours")
    assert ledger.entries()[0]["reason"] == "138****5678 is not ours"


def test_without_a_ledger_nothing_is_wrong(cleanbill_home: Path) -> None:
    assert ledger.check(get_settings()) == []
    assert ledger.entries() == []
    assert ledger.head() == {"entries": 0, "hash": "0" * 64}


@pytest.mark.parametrize("kept", [0, 1, 40, -1])
def test_a_line_torn_by_a_kill_is_named_and_its_act_recorded_again(cleanbill_home, monkeypatch, kept: int) -> None:
    """Killed after `kept` bytes of the line (-1: all but its line end) were written."""
    path = write(2)
    real = ledger._write

    def killed(target: Path, data: bytes) -> None:
        real(target, data[: kept if kept >= 0 else len(data) - 1])
        raise KeyboardInterrupt

    monkeypatch.setattr(ledger, "_write", killed)
    with pytest.raises(KeyboardInterrupt):
        ledger.record("sealed", SUBJECT)
    torn = path.read_bytes().split(b"\n")[-1]
    monkeypatch.setattr(ledger, "_write", real)
    ledger.record("sealed", SUBJECT)
    assert ledger.check(get_settings()) == []
    actions = [entry["action"] for entry in ledger.entries()]
    if torn and kept > 0:
        assert actions == ["approved", "approved", "torn_line_dropped", "sealed"]
        assert ledger.entries()[2]["reason"] == torn.decode()
    else:
        assert actions == ["approved", "approved", "sealed"]


@pytest.mark.parametrize("stop_before", [1, 2])
def test_a_kill_beside_the_head_is_no_tampering(cleanbill_home, monkeypatch, stop_before: int) -> None:
    """The head is written twice: before the line, to announce it, and after it."""
    write(2)
    real, calls = ledger._write_head, []

    def killed(*values: object) -> None:
        calls.append(values)
        if len(calls) == stop_before:
            raise KeyboardInterrupt
        real(*values)

    monkeypatch.setattr(ledger, "_write_head", killed)
    with pytest.raises(KeyboardInterrupt):
        ledger.record("sealed", SUBJECT)
    monkeypatch.setattr(ledger, "_write_head", real)
    assert ledger.check(get_settings()) == []
    ledger.record("sealed", SUBJECT)
    assert [entry["action"] for entry in ledger.entries()] == ["approved", "approved", "sealed"]
    ledger.record("acknowledged", SUBJECT)
    assert ledger.check(get_settings()) == []


def tamper(path: Path, rng: random.Random) -> str:
    lines = path.read_bytes().splitlines(keepends=True)
    kind = rng.choice(["flip", "delete", "insert", "reorder", "truncate", "edit", "forge"])
    at = rng.randrange(len(lines))
    if kind == "flip":
        content = bytearray(b"".join(lines))
        content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
        lines = [bytes(content)]
    elif kind == "delete":
        del lines[at]
    elif kind == "insert":
        lines.insert(at, lines[rng.randrange(len(lines))])
    elif kind == "reorder":
        other = (at + rng.randrange(1, len(lines))) % len(lines)
        lines[at], lines[other] = lines[other], lines[at]
    elif kind == "truncate":
        content = b"".join(lines)
        lines = [content[: rng.randrange(len(content))]]
    elif kind == "edit":
        lines[at] = lines[at].replace(b"Li Lei", b"Li Lie")
    else:  # a line that follows, with its hash right: only its announcement is missing
        entry = json.loads(lines[-1]) | {"seq": len(lines) + 1, "person": "Mallory"}
        entry["prev_hash"] = entry["hash"]
        entry["hash"] = ledger._hash_of(entry)
        lines.append(ledger._as_line(entry) + b"\n")
    path.write_bytes(b"".join(lines))
    return kind


def test_every_tampering_is_found_and_nothing_is_added_to_it(cleanbill_home: Path) -> None:
    path = write()
    good = path.read_bytes()
    rng = random.Random(7)
    for _ in range(TAMPERINGS):
        kind = tamper(path, rng)
        if path.read_bytes() == good:
            continue
        assert ledger.check(get_settings()), kind
        with pytest.raises(FeedError, match="as it was written"):
            ledger.record("sealed", SUBJECT)
        path.write_bytes(good)
    assert ledger.check(get_settings()) == []


def test_a_flipped_head_is_named_as_such(cleanbill_home: Path) -> None:
    path = write().with_name(ledger.HEAD)
    good = path.read_bytes()
    for at in range(len(good)):
        content = bytearray(good)
        content[at] ^= 1
        path.write_bytes(content)
        assert [problem.file for problem in ledger.check(get_settings())] == [ledger.HEAD]


def test_a_lost_ledger_beside_its_head_is_found(cleanbill_home: Path) -> None:
    path = write(1)
    path.unlink()
    assert [problem.file for problem in ledger.check(get_settings())] == [ledger.LEDGER]
    with pytest.raises(FeedError):
        ledger.record("sealed", SUBJECT)


def _record(number: int) -> None:
    ledger.record("approved", SUBJECT | {"version": number})


def test_writers_take_turns(cleanbill_home: Path) -> None:
    with multiprocessing.get_context("fork").Pool(4) as pool:
        pool.map(_record, range(40))
    assert ledger.check(get_settings()) == []
    assert {entry["object"]["version"] for entry in ledger.entries()} == set(range(40))
