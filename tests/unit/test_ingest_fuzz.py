"""I4: no byte is accepted unverified.

Mutants under their original manifest must all be refused. Mutants whose manifest was made anew are legal files:
for them every line must end exactly where an independent reading of the contract, line by line in plain Python,
puts it.
"""

import gzip
import random
import re
from collections.abc import Callable
from datetime import date, datetime, timedelta
from pathlib import Path

import duckdb
import pytest
from cleanbill.control import open_warehouse
from cleanbill.ingest import ingest
from cleanbill.settings import get_settings

from tests.delivery_writer import HEADERS, DeliveryWriter, policy_root

DAY = date(2026, 10, 1)
HEADER = HEADERS["sms_usage"]
ROWS = 40
SEED = 20060710
SEEDS = [SEED, *(pytest.param(SEED + 2 * number, marks=pytest.mark.soak) for number in range(1, 20))]

SPOILED_FIELDS = [
    *(b"", b"1e2", b"1.7", b"0x10", b" 8 ", b"-1", b"+5", b"NULL", b"\xb1\xb1", b"9" * 30),
    *(b'"8"', b'"', b'"a"b"', b'""', b'""""'),
    *(b"2026-10-01 24:00:00", b"20261001240000", b"2026-08-30 23:59:59", b"2026-10-02 00:00:01", b"2026-02-30"),
]

Mutation = Callable[[random.Random, bytes], bytes]


def original(rng: random.Random) -> bytes:
    """Return a good file with some equal lines."""
    lines = []
    for _ in range(ROWS):
        moment = datetime(2026, 9, 1) + timedelta(seconds=rng.randrange(31 * 86_400))
        lines.append(
            f"{rng.choice(['', '86', '+86', '0086'])}138{rng.randrange(10**8):08d},900{rng.randrange(1000):03d},"
            f"SVC{rng.randrange(50)},{rng.choice(['MT', 'MO'])},{moment:%Y-%m-%d %H:%M:%S},"
            f"{rng.choice(['ok', 'failed'])},{rng.choice(['content', 'fee', 'reminder', 'test'])},"
            f"{rng.randrange(1, 20)},{rng.randrange(0, 2000)}"
        )
    lines[7] = lines[3]
    return "\n".join([HEADER, *lines, ""]).encode()


def _lines(content: bytes) -> list[bytes]:
    return content.split(b"\n")


def flip_bit(rng: random.Random, content: bytes) -> bytes:
    place = rng.randrange(len(content))
    return content[:place] + bytes([content[place] ^ (1 << rng.randrange(8))]) + content[place + 1 :]


def delete_byte(rng: random.Random, content: bytes) -> bytes:
    place = rng.randrange(len(content))
    return content[:place] + content[place + 1 :]


def insert_byte(rng: random.Random, content: bytes) -> bytes:
    place = rng.randrange(len(content) + 1)
    byte = bytes([rng.choice([*b'",\r\n\x00\x01\x1a \t-+.0123456789eExX', *range(256)])])
    return content[:place] + byte + content[place:]


def duplicate_line(rng: random.Random, content: bytes) -> bytes:
    lines = _lines(content)
    place = rng.randrange(len(lines))
    return b"\n".join([*lines[:place], lines[place], *lines[place:]])


def delete_line(rng: random.Random, content: bytes) -> bytes:
    lines = _lines(content)
    del lines[rng.randrange(len(lines))]
    return b"\n".join(lines)


def swap_lines(rng: random.Random, content: bytes) -> bytes:
    lines = _lines(content)
    first, second = rng.randrange(len(lines)), rng.randrange(len(lines))
    lines[first], lines[second] = lines[second], lines[first]
    return b"\n".join(lines)


def swap_header_names(rng: random.Random, content: bytes) -> bytes:
    header, rest = content.split(b"\n", 1) if b"\n" in content else (content, b"")
    names = header.split(b",")
    first, second = rng.randrange(len(names)), rng.randrange(len(names))
    names[first], names[second] = names[second], names[first]
    return b",".join(names) + b"\n" + rest


def truncate(rng: random.Random, content: bytes) -> bytes:
    return content[: rng.randrange(len(content))]


def spoil_field(rng: random.Random, content: bytes) -> bytes:
    lines = _lines(content)
    place = rng.randrange(len(lines))
    fields = lines[place].split(b",")
    column = rng.randrange(len(fields))
    field = fields[column]
    fields[column] = rng.choice([*SPOILED_FIELDS, field.lower(), field + b" ", b'"' + field + b'"'])
    return b"\n".join([*lines[:place], b",".join(fields), *lines[place + 1 :]])


def crlf(rng: random.Random, content: bytes) -> bytes:
    return content.replace(b"\n", b"\r\n")


def byte_order_mark(rng: random.Random, content: bytes) -> bytes:
    return b"\xef\xbb\xbf" + content


MUTATIONS: list[Mutation] = [
    flip_bit,
    delete_byte,
    insert_byte,
    duplicate_line,
    delete_line,
    swap_lines,
    swap_header_names,
    truncate,
    spoil_field,
    spoil_field,
    crlf,
    byte_order_mark,
]


def mutants(count: int, seed: int) -> list[tuple[bytes, bytes]]:
    """Return pairs of an original and its mutant by one or two mutations; the mutant always differs."""
    rng = random.Random(seed)
    result: list[tuple[bytes, bytes]] = []
    while len(result) < count:
        content = original(rng)
        mutant = content
        for _ in range(rng.choice([1, 1, 2])):
            mutant = rng.choice(MUTATIONS)(rng, mutant) or b"x"
        if mutant != content:
            result.append((content, mutant))
    return result


# --- the independent reading -----------------------------------------------------------------------------------


def split_fields(line: str) -> list[str] | None:
    """Split one line by RFC 4180; None when its quotes are wrong."""
    fields, rest = [], line
    while True:
        if rest.startswith('"'):
            match = re.match(r'"((?:[^"]|"")*)"(?=,|$)', rest, re.DOTALL)
            if match is None:
                return None
            fields.append(match[1].replace('""', '"'))
            rest = rest[match.end() :]
        else:
            field = rest.partition(",")[0]
            if '"' in field:
                return None
            fields.append(field)
            rest = rest[len(field) :]
        if not rest:
            return fields
        rest = rest[1:]


def read_number(text: str) -> int:
    if not re.fullmatch(r"[+-]?[0-9]+", text, re.ASCII) or not -(2**63) <= int(text) < 2**63:
        raise ValueError
    return int(text)


def read_moment(text: str) -> datetime:
    if re.fullmatch(r"[0-9]{14}", text, re.ASCII):
        text = f"{text[:4]}-{text[4:6]}-{text[6:8]} {text[8:10]}:{text[10:12]}:{text[12:]}"
    if not re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2} [0-9]{2}:[0-9]{2}:[0-9]{2}", text, re.ASCII):
        raise ValueError
    if text.endswith(" 24:00:00"):
        return datetime.fromisoformat(text[:10]) + timedelta(days=1)
    return datetime.fromisoformat(text)


def read_record(fields: dict[str, str]) -> tuple:
    """Return the typed record.

    Raises:
        ValueError: it belongs into quarantine.
    """
    number = re.fullmatch(r"(?:\+86|0086|86)?(1[0-9]{10})", fields["msisdn"], re.ASCII)
    moment = read_moment(fields["sent_at"])
    is_right = (
        number is not None
        and re.fullmatch(r"[0-9]{6}", fields["sp_code"], re.ASCII)
        and re.fullmatch(r"[0-9A-Za-z][0-9A-Za-z._-]{0,9}", fields["service_code"], re.ASCII)
        and fields["direction"] in ("MT", "MO")
        and datetime(2026, 8, 31) <= moment <= datetime(2026, 10, 2)
        and fields["status"] in ("ok", "failed")
        and fields["purpose"] in ("content", "fee", "reminder", "test")
        and read_number(fields["fee_li"]) >= 0
    )
    if not is_right or number is None:
        raise ValueError
    return (
        number[1],
        *(fields[name] for name in ("sp_code", "service_code", "direction")),
        moment,
        fields["status"],
        fields["purpose"],
        read_number(fields["message_count"]),
        read_number(fields["fee_li"]),
    )


def read_file(content: bytes, announced: int) -> tuple[dict[int, tuple], set[int], set[int]] | None:
    """Return loaded records, quarantined and duplicate lines by line number; None when the delivery is rejected."""
    lines = content.removeprefix(b"\xef\xbb\xbf").split(b"\n")
    if lines[-1] == b"":
        lines.pop()
    lines = [line.removesuffix(b"\r") for line in lines]
    try:
        header = split_fields(lines[0].decode()) if lines else None
    except UnicodeDecodeError:
        return None
    if header is None or len(set(header)) < len(header) or not set(HEADER.split(",")) <= set(header):
        return None
    if re.search(r"[\x00-\x08\x0a-\x1f\x7f]", lines[0].decode()):
        return None
    blanks = {place + 1 for place, line in enumerate(lines) if place and line == b""}
    if announced not in (len(lines) - 1, len(lines) - 1 - len(blanks)):
        return None
    loaded: dict[int, tuple] = {}
    quarantined: set[int] = set(blanks) if announced == len(lines) - 1 else set()
    duplicates: set[int] = set()
    for number, line in enumerate(lines[1:], start=2):
        if number in blanks:
            continue
        try:
            if re.search(rb"[\x00-\x08\x0a-\x1f\x7f]", line):
                raise ValueError
            fields = split_fields(line.decode())
            if fields is None or len(fields) != len(header):
                raise ValueError
            record = read_record(dict(zip(header, fields, strict=True)))
        except ValueError:
            quarantined.add(number)
            continue
        if record in loaded.values():
            duplicates.add(number)
        else:
            loaded[number] = record
    return loaded, quarantined, duplicates


# --- the tests -------------------------------------------------------------------------------------------------


@pytest.fixture
def home(cleanbill_home: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("CLEANBILL_PROJECT_ROOT", str(policy_root(tmp_path / "project")))
    get_settings.cache_clear()
    return cleanbill_home


@pytest.mark.parametrize("seed", SEEDS)
def test_mutants_under_their_old_manifest_are_all_refused(home: Path, seed: int) -> None:
    print(f"seed {seed}")
    for number, (content, mutant) in enumerate(mutants(1000, seed)):
        writer = DeliveryWriter(home, source=f"s{number}").add_bytes(content, ROWS, gz=number % 3 == 0)
        writer.write()
        name, packed, _ = writer.parts[0]
        # Every third: the mutation hits the packed bytes.
        broken = flip_bit(random.Random(number), packed) if number % 3 == 0 else mutant
        (writer.folder / name).write_bytes(broken)
    summary = ingest(DAY, DAY)
    assert (summary.accepted, summary.rejected) == (0, 1000)
    assert not list((home / "lake").rglob("*.d1.parquet"))
    with open_warehouse() as warehouse:
        rows = warehouse.execute("select source, reason_code, reason from control.deliveries").fetchall()
    assert len(rows) == 1000
    for source, code, reason in rows:
        assert code in ("sha256_differs", "bytes_differ")
        assert f"_{source}.csv" in reason
        assert "expected" in reason
        assert "found" in reason
        assert "What to do" in reason


@pytest.mark.parametrize("seed", SEEDS)
def test_mutants_with_a_manifest_of_their_own_end_where_the_contract_says(home: Path, seed: int) -> None:
    print(f"seed {seed + 1}")
    cases = mutants(400, seed + 1)
    for number, (_, mutant) in enumerate(cases):
        writer = DeliveryWriter(home, source=f"s{number}")
        if number % 4:
            writer.add_bytes(mutant, ROWS).write()
        else:
            writer.parts.append((f"{writer.stem}.csv.gz", gzip.compress(mutant, mtime=0), ROWS))
            writer.write()
    ingest(DAY, DAY)
    with open_warehouse() as warehouse:
        rows = warehouse.execute(
            "select source, status, rows_in, rows_loaded, rows_quarantined, rows_duplicate, quarantine_path "
            "from control.deliveries"
        ).fetchall()
    assert len(rows) == len(cases)
    outcomes = {"accepted": 0, "rejected": 0}
    for source, status, rows_in, *counts, quarantine_path in rows:
        mutant = cases[int(source[1:])][1]
        expected = read_file(mutant, ROWS)
        outcomes[status] += 1
        if expected is None:
            assert status == "rejected", (source, mutant)
            continue
        loaded, quarantined, duplicates = expected
        assert (status, rows_in, *counts) == ("accepted", ROWS, len(loaded), len(quarantined), len(duplicates)), mutant
        if quarantine_path:
            lines = duckdb.execute("select line from read_csv(?)", [str(home / quarantine_path)]).fetchall()
            assert {line for (line,) in lines} == quarantined, mutant
        if not loaded:
            assert not (home / f"lake/sms_usage/2026-10-01/{source}.d1.parquet").exists()
            continue
        found = duckdb.execute(
            f"select line_no, {HEADER} from read_parquet(?)",
            [str(home / f"lake/sms_usage/2026-10-01/{source}.d1.parquet")],
        ).fetchall()
        assert {row[0]: row[1:] for row in found} == loaded, mutant
    # The mutations must reach both ends.
    assert min(outcomes.values()) > 50, outcomes
