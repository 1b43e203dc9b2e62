"""A delivery is accepted whole or not at all, counts once, and replaces the one before it."""

import gzip
import itertools
import json
import os
import random
import signal
import subprocess
import sys
from datetime import date
from pathlib import Path

import duckdb
import pytest
from cleanbill.control import CONTROL_DDL, open_warehouse
from cleanbill.deliveries import DeliveryOutcome, FileOutcome, read_duplicates, record
from cleanbill.errors import IngestFailed, InputFileError
from cleanbill.ingest import IngestSummary, ingest
from cleanbill.ingest_policy import read_ingest_policy
from cleanbill.manifest import DeliveryKey
from cleanbill.reason_codes import DELIVERY_CODES
from cleanbill.settings import get_settings

from tests.delivery_writer import HEADERS, DeliveryWriter, policy_root

DAY = date(2026, 10, 1)
LINE = "13800000001,900001,SVC1,MT,2026-10-01 10:00:00,ok,content,2,100"


def lines(count: int, start: int = 0) -> list[str]:
    return [LINE.replace("13800000001", f"138{start + number:08d}") for number in range(count)]


def run(date_to: date = date(2026, 10, 31)) -> IngestSummary:
    return ingest(DAY, date_to)


def query(sql: str) -> list[tuple]:
    with open_warehouse() as warehouse:
        return warehouse.execute(sql).fetchall()


def statuses() -> list[tuple]:
    return query("select source, delivery, status, reason_code from control.deliveries order by all")


def in_force() -> list[tuple]:
    return query("select extract, business_date::varchar, source, delivery from control.in_force order by all")


def code_of(summary: IngestSummary) -> str:
    assert len(summary.rejections) == 1, summary.rejections
    assert "What to do:" in summary.rejections[0]
    code = summary.rejections[0].split("]")[0].lstrip("[")
    assert code in DELIVERY_CODES
    return code


def state(home: Path) -> dict[str, list[tuple]]:
    """Return all that ingest leaves behind, independent of when and in which steps it came."""
    tables = {
        table: query(f"select * from control.{table} order by all")
        for table in ("deliveries", "delivery_files", "in_force")
    }
    for path in sorted((home / "lake").rglob("*.parquet")):
        rows = duckdb.execute("from read_parquet(?) order by all", [str(path)]).fetchall()
        tables[str(path.relative_to(home))] = rows
    for path in sorted((home / "quarantine").rglob("*")):
        if path.is_file():
            tables[str(path.relative_to(home))] = [(path.read_text(),)]
    return tables


# --- the files of a delivery -----------------------------------------------------------------------------------


@pytest.mark.parametrize("gz", [False, True])
def test_delivery_of_several_files(cleanbill_home: Path, gz: bool) -> None:
    writer = DeliveryWriter(cleanbill_home, totals={"message_count": 14, "fee_li": 700})
    # The second file has other columns in another order, the third no row, the fourth repeats a line of the first.
    header = "fee_li,note,message_count,purpose,status,sent_at,direction,service_code,sp_code,msisdn,note2"
    writer.add(lines(3), part="_001", gz=gz)
    writer.add(
        [
            "100,x,2,content,ok,2026-10-01 10:00:00,MT,SVC1,900001,8613800000100,",
            '100,"y,z",2,content,ok,20261001110000,MO,SVC1,900001,13800000100,',
        ],
        header,
        part="_002",
        gz=not gz,
    )
    writer.add([], part="_003", gz=gz).add([lines(3)[1], *lines(1, 7)], part="_004", gz=gz).write()
    summary = run()
    assert summary.rejections == []
    assert (summary.rows_in, summary.rows_loaded, summary.rows_duplicate) == (7, 6, 1)
    assert summary.extra_columns == {"sms_usage bj": {"'note'", "'note2'"}}
    assert "note2" in str(summary)
    files = query("select rows_in, rows_loaded, rows_duplicate from control.delivery_files order by file_name")
    assert files == [(3, 3, 0), (2, 2, 0), (0, 0, 0), (2, 1, 1)]
    rows = duckdb.execute(
        "select msisdn, direction, file_name[:25], line_no from read_parquet(?)",
        [str(cleanbill_home / "lake/sms_usage/2026-10-01/bj.d1.parquet")],
    ).fetchall()
    assert rows == [
        ("13800000000", "MT", "sms_usage_20261001_bj_001", 2),
        ("13800000001", "MT", "sms_usage_20261001_bj_001", 3),
        ("13800000002", "MT", "sms_usage_20261001_bj_001", 4),
        ("13800000100", "MT", "sms_usage_20261001_bj_002", 2),
        ("13800000100", "MO", "sms_usage_20261001_bj_002", 3),
        ("13800000007", "MT", "sms_usage_20261001_bj_004", 3),
    ]


def test_zero_rows_differ_from_nothing(cleanbill_home: Path) -> None:
    DeliveryWriter(cleanbill_home, source="header").add([]).write()
    DeliveryWriter(cleanbill_home, source="packed").add([], gz=True).write()
    DeliveryWriter(cleanbill_home, source="nofile").write()
    DeliveryWriter(cleanbill_home, source="noend").add_bytes(HEADERS["sms_usage"].encode(), 0).write()
    DeliveryWriter(cleanbill_home, source="totals", totals={"fee_li": 0}).add([]).write()
    summary = run()
    assert (summary.accepted, summary.rows_in) == (5, 0)
    assert [row[2] for row in in_force()] == ["header", "noend", "nofile", "packed", "totals"]
    assert query("select distinct lake_path, quarantine_path, rows_in from control.deliveries") == [(None, None, 0)]


HEADER = HEADERS["sms_usage"]
BROKEN_HEADERS = [
    (b"", "an empty file"),
    (b"\n" + HEADER.encode() + b"\n", "without msisdn"),
    (LINE.encode() + b"\n", "without msisdn"),
    (HEADER.replace("fee_li", "fee").encode() + b"\n", "without fee_li"),
    (HEADER.replace("fee_li", "FEE_LI").encode() + b"\n", "without fee_li"),
    (HEADER.replace("fee_li", " fee_li").encode() + b"\n", "without fee_li"),
    (HEADER.replace(",fee_li", "").encode() + b"\n", "without fee_li"),
    (HEADER.encode() + b",fee_li\n", "twice: fee_li"),
    (HEADER.encode() + b",x,x\n", "twice: a name outside the contract"),
    (HEADER.encode() + b",,\n", "twice: a name outside the contract"),
    (HEADER.replace(",", ";").encode() + b"\n", "without msisdn"),
    (HEADER.replace(",", "\t").encode() + b"\n", "without msisdn"),
    (HEADER.encode("utf-16"), "no text"),
    ("手机号,".encode("gbk") + HEADER.encode() + b"\n", "no text"),
    (HEADER.encode() + b",\x00\n", "no text"),
    (HEADER.encode() + b"\r" + LINE.encode() + b"\r", "no text"),
    (b'"' + HEADER.encode() + b"\n", "broken quotes"),
    (HEADER.encode() + b',"x\n', "broken quotes"),
    (b",".join(b"c%d" % number for number in range(1_000_000)) + b"\n", "line without end"),
    (gzip.compress(HEADER.encode()), "no text"),
    (b"PK\x03\x04 zip", "no text"),
]


def test_header_is_checked_by_name(cleanbill_home: Path) -> None:
    for number, (content, _) in enumerate(BROKEN_HEADERS):
        DeliveryWriter(cleanbill_home, source=f"s{number:02d}").add_bytes(content, 0).write()
    summary = run()
    assert summary.accepted == 0
    assert [row[3] for row in statuses()] == ["bad_header"] * len(BROKEN_HEADERS)
    reasons = query("select reason from control.deliveries order by source")
    for (reason,), (_, told) in zip(reasons, BROKEN_HEADERS, strict=True):
        assert told in reason
        assert "line 1: expected" in reason


def test_quoted_header_is_read(cleanbill_home: Path) -> None:
    header = ",".join(f'"{name}"' for name in HEADER.split(","))
    DeliveryWriter(cleanbill_home).add([LINE], header).write()
    assert run().rows_loaded == 1


def spoil_content(path: Path) -> None:
    path.write_bytes(path.read_bytes().replace(b"100", b"200"))


@pytest.mark.parametrize(
    ("spoil", "code"),
    [
        (lambda path: path.write_bytes(path.read_bytes()[:-1]), "bytes_differ"),
        (lambda path: path.write_bytes(path.read_bytes() + b"\n"), "bytes_differ"),
        (lambda path: path.write_bytes(b""), "bytes_differ"),
        (spoil_content, "sha256_differs"),
        (lambda path: path.unlink(), "file_missing"),
    ],
)
def test_file_that_differs_from_its_manifest(cleanbill_home: Path, spoil, code: str) -> None:
    path = DeliveryWriter(cleanbill_home).add(lines(3), part="_001").add(lines(3, 9), part="_002").write()
    data = path.with_name("sms_usage_20261001_bj_002.csv")
    before = data.read_bytes()
    spoil(data)
    assert code_of(run()) == code
    assert in_force() == []
    assert not list((cleanbill_home / "lake").rglob("*.d1.parquet"))
    # Put right, the same delivery comes in.
    data.write_bytes(before)
    summary = run()
    assert (summary.accepted, summary.rejections) == (1, [])
    assert statuses() == [("bj", 1, "accepted", None)]


def test_hash_comes_before_parsing(cleanbill_home: Path) -> None:
    """A file that is both changed and no CSV at all is refused for its hash."""
    path = DeliveryWriter(cleanbill_home).add(lines(1), gz=True).write()
    data = path.with_name("sms_usage_20261001_bj.csv.gz")
    data.write_bytes(bytes(len(data.read_bytes())))
    assert code_of(run()) == "sha256_differs"


BROKEN_GZIPS = [
    gzip.compress(b"x" * 100)[:-1],
    gzip.compress((HEADER + "\n" + LINE).encode())[:-8],
    gzip.compress((HEADER + "\n" + LINE).encode())[:20],
    gzip.compress((HEADER + "\n" + LINE).encode()) + b"rest",
    (HEADER + "\n" + LINE).encode(),
    b"",
    b"\x1f\x8b",
]


def test_broken_gzip(cleanbill_home: Path) -> None:
    for number, content in enumerate(BROKEN_GZIPS):
        writer = DeliveryWriter(cleanbill_home, source=f"s{number}")
        writer.parts.append((f"{writer.stem}.csv.gz", content, 1))
        writer.write()
    run()
    assert [row[3] for row in statuses()] == ["bad_gzip"] * len(BROKEN_GZIPS)


def test_gzip_of_several_members(cleanbill_home: Path) -> None:
    writer = DeliveryWriter(cleanbill_home)
    content = gzip.compress((HEADER + "\n" + LINE[:20]).encode()) + gzip.compress((LINE[20:] + "\n").encode())
    writer.parts.append((f"{writer.stem}.csv.gz", content, 1))
    writer.write()
    assert run().rows_loaded == 1


def test_number_of_records(cleanbill_home: Path) -> None:
    for announced in (2, 3, 4):
        content = "\n".join([HEADER, *lines(3)]).encode()
        DeliveryWriter(cleanbill_home, source=f"s{announced}").add_bytes(content, announced).write()
    summary = run()
    assert [row[2:] for row in statuses()] == [
        ("rejected", "rows_differ"),
        ("accepted", None),
        ("rejected", "rows_differ"),
    ]
    for announced, line in zip((2, 4), sorted(summary.rejections), strict=True):
        assert f"expected {announced} records; found 3 records" in line


def test_rows_are_counted_per_file(cleanbill_home: Path) -> None:
    content = "\n".join([HEADER, *lines(3)]).encode()
    writer = DeliveryWriter(cleanbill_home)
    writer.add_bytes(content, 2, part="_001").add_bytes(content.replace(b"SVC1", b"SVC2"), 4, part="_002").write()
    assert code_of(run()) == "rows_differ"


def test_manifest_tells_whether_blank_lines_are_records(
    cleanbill_home: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("CLEANBILL_PROJECT_ROOT", str(policy_root(tmp_path / "project")))
    get_settings.cache_clear()
    content = "\n".join([HEADER, *lines(2), "", lines(1, 5)[0], "", ""]).encode()
    DeliveryWriter(cleanbill_home, source="without").add_bytes(content, 3).write()
    DeliveryWriter(cleanbill_home, source="with").add_bytes(content, 5).write()
    DeliveryWriter(cleanbill_home, source="neither").add_bytes(content, 4).write()
    summary = run()
    assert query("select source, rows_in, rows_loaded, rows_quarantined from control.deliveries order by 1") == [
        ("neither", 4, 0, 0),
        ("with", 5, 3, 2),
        ("without", 3, 3, 0),
    ]
    assert "found 3 records and 2 blank lines" in summary.rejections[0]
    lake = cleanbill_home / "lake/sms_usage/2026-10-01/without.d1.parquet"
    assert duckdb.execute("select line_no from read_parquet(?)", [str(lake)]).fetchall() == [(2,), (3,), (5,)]
    assert (cleanbill_home / "quarantine/sms_usage/2026-10-01/with.d1.csv").read_text().count("blank_line") == 2


# --- control totals --------------------------------------------------------------------------------------------


TOTALS: list[tuple[list[str], dict[str, int], bool]] = [
    ([], {"message_count": 6}, True),
    ([], {"message_count": 5}, False),
    ([], {"message_count": 7}, False),
    ([], {"message_count": 6, "fee_li": 300}, True),
    ([], {"message_count": 6, "fee_li": 301}, False),
    ([], {}, True),
    # A dropped duplicate counts.
    ([lines(1)[0]], {"message_count": 8, "fee_li": 400}, True),
    ([lines(1)[0]], {"message_count": 6, "fee_li": 300}, False),
    # So does a quarantined record whose number can be read, even a fee below zero.
    ([LINE.replace("MT", "XX")], {"message_count": 8, "fee_li": 400}, True),
    ([LINE.replace("MT", "XX")], {"message_count": 6}, False),
    ([LINE.replace(",100", ",-5")], {"fee_li": 295}, True),
    # Where a number cannot be read, the total may be more, never less.
    ([LINE.replace(",2,", ",1.7,")], {"message_count": 6}, True),
    ([LINE.replace(",2,", ",1.7,")], {"message_count": 8}, True),
    ([LINE.replace(",2,", ",1.7,")], {"message_count": 5}, False),
    ([LINE.replace(",2,", ",1.7,")], {"fee_li": 400}, True),
    ([LINE.replace(",2,", ",1.7,")], {"fee_li": 401}, False),
    ([LINE + ",more"], {"fee_li": 400}, True),
]


def test_control_totals(cleanbill_home: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CLEANBILL_PROJECT_ROOT", str(policy_root(tmp_path / "project")))
    get_settings.cache_clear()
    for number, (extra, totals, _) in enumerate(TOTALS):
        writer = DeliveryWriter(cleanbill_home, source=f"s{number:02d}", totals=totals)
        # Each source has bytes of its own: copies would be duplicate deliveries.
        writer.add([*lines(3, 100 * number), *extra]).write()
    run()
    for (source, _, status, code), (_, totals, is_right) in zip(statuses(), TOTALS, strict=True):
        assert (status, code) == (("accepted", None) if is_right else ("rejected", "total_differs")), (source, totals)
    assert len(in_force()) == sum(is_right for _, _, is_right in TOTALS)


def test_totals_beyond_64_bits_are_summed_exactly(cleanbill_home: Path) -> None:
    text = [LINE.replace(",2,", f",{2**62},").replace("SVC1", f"S{number}") for number in range(3)]
    DeliveryWriter(cleanbill_home, totals={"message_count": 2**62}).add(text).write()
    summary = run()
    assert code_of(summary) == "total_differs"
    assert f"found {3 * 2**62}." in summary.rejections[0]


# --- how much may be broken ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("good", "bad", "status"),
    [(99, 1, "accepted"), (98, 1, "over_limit"), (198, 2, "accepted"), (197, 2, "over_limit"), (0, 1, "over_limit")],
)
def test_quarantine_limit(cleanbill_home: Path, good: int, bad: int, status: str) -> None:
    DeliveryWriter(cleanbill_home).add([*lines(good), *[line + ",x" for line in lines(bad)]]).write()
    summary = run()
    assert statuses()[0][2] == status
    assert (cleanbill_home / "quarantine/sms_usage/2026-10-01/bj.d1.csv").exists()
    assert (cleanbill_home / "lake/sms_usage/2026-10-01/bj.d1.parquet").exists() == (status == "accepted")
    assert len(in_force()) == (status == "accepted")
    assert query("select rows_in, rows_loaded, rows_quarantined from control.deliveries") == [(good + bad, good, bad)]
    if status == "over_limit":
        assert code_of(summary) == "over_limit"
        assert f"found {bad} of {good + bad}." in summary.rejections[0]


def test_held_back_delivery_leaves_the_previous_one_in_force(
    cleanbill_home: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    DeliveryWriter(cleanbill_home).add(lines(5)).write()
    DeliveryWriter(cleanbill_home, delivery=2).add([*lines(5), "x"]).write()
    run()
    assert statuses() == [("bj", 1, "accepted", None), ("bj", 2, "over_limit", "over_limit")]
    assert in_force() == [("sms_usage", "2026-10-01", "bj", 1)]
    # It is tried again: with another limit it counts.
    monkeypatch.setenv("CLEANBILL_PROJECT_ROOT", str(policy_root(tmp_path / "project")))
    get_settings.cache_clear()
    assert run().accepted == 1
    assert in_force() == [("sms_usage", "2026-10-01", "bj", 2)]


# --- versions, repetition, order -------------------------------------------------------------------------------


def test_the_same_again_changes_nothing(cleanbill_home: Path) -> None:
    for day in ("2026-10-01", "2026-10-02"):
        DeliveryWriter(cleanbill_home, day=day).add([*lines(120), "x", lines(1)[0]]).write()
    DeliveryWriter(cleanbill_home, "service_providers").add(["900001,SP,bj,active,"]).write()
    first = run()
    assert (first.accepted, first.unchanged) == (3, 0)
    before = state(cleanbill_home)
    stamps = {path: path.stat().st_mtime_ns for path in cleanbill_home.joinpath("lake").rglob("*.parquet")}
    for _ in range(2):
        again = run()
        assert (again.accepted, again.unchanged, again.rejections) == (0, 3, [])
    assert state(cleanbill_home) == before
    assert {path: path.stat().st_mtime_ns for path in stamps} == stamps


def test_a_higher_delivery_replaces_a_lower_one_whole(cleanbill_home: Path) -> None:
    DeliveryWriter(cleanbill_home).add(lines(5)).write()
    run()
    DeliveryWriter(cleanbill_home, delivery=3).add(lines(2, 50)).write()
    run()
    DeliveryWriter(cleanbill_home, delivery=2).add(lines(9)).write()
    assert run().accepted == 1
    assert in_force() == [("sms_usage", "2026-10-01", "bj", 3)]
    assert query("select lake_path, rows_loaded from control.in_force") == [
        ("lake/sms_usage/2026-10-01/bj.d3.parquet", 2)
    ]


def test_a_resend_may_hold_nothing(cleanbill_home: Path) -> None:
    DeliveryWriter(cleanbill_home).add(lines(5)).write()
    DeliveryWriter(cleanbill_home, delivery=2).add([]).write()
    run()
    assert query("select delivery, rows_in, lake_path from control.in_force") == [(2, 0, None)]


def test_a_broken_resend_leaves_the_previous_delivery_in_force(cleanbill_home: Path) -> None:
    DeliveryWriter(cleanbill_home).add(lines(5)).write()
    DeliveryWriter(cleanbill_home, delivery=2).add_bytes(b"rubbish\n", 0).write()
    assert code_of(run()) == "bad_header"
    assert in_force() == [("sms_usage", "2026-10-01", "bj", 1)]


def test_an_accepted_number_never_changes(cleanbill_home: Path) -> None:
    DeliveryWriter(cleanbill_home).add(lines(5)).write()
    run()
    before = state(cleanbill_home)
    path = DeliveryWriter(cleanbill_home).add(lines(6)).write()
    for _ in range(2):
        assert code_of(run()) == "delivery_changed"
        assert state(cleanbill_home) == before
    path.write_bytes(b"not even JSON")
    assert code_of(run()) == "delivery_changed"
    assert state(cleanbill_home) == before


def test_deliveries_after_the_last_day_do_not_exist_yet(cleanbill_home: Path) -> None:
    for day in ("2026-10-01", "2026-10-02", "2026-10-03"):
        DeliveryWriter(cleanbill_home, day=day).add(lines(2)).write()
    assert run(date(2026, 10, 2)).accepted == 2
    late = ingest(date(2026, 10, 4), date(2026, 10, 4))
    assert (late.accepted, late.unchanged) == (1, 2)


def test_the_same_bytes_elsewhere_are_a_duplicate(cleanbill_home: Path) -> None:
    DeliveryWriter(cleanbill_home, day="2026-10-02").add(lines(3)).write()
    first = run()
    assert first.duplicates == []
    # The earlier key comes later: it keeps the bytes, whatever the order of arrival.
    DeliveryWriter(cleanbill_home, day="2026-10-01").add(lines(3)).write()
    DeliveryWriter(cleanbill_home, day="2026-10-02", source="sh").add(lines(3)).write()
    summary = run()
    assert summary.accepted == 2
    assert in_force() == [("sms_usage", "2026-10-01", "bj", 1)]
    with open_warehouse() as warehouse:
        found = {(key.business_date.day, key.source): original for key, original in read_duplicates(warehouse).items()}
        assert found == {
            (2, "bj"): "sms_usage 2026-10-01 bj delivery 1",
            (2, "sh"): "sms_usage 2026-10-01 bj delivery 1",
        }
    assert len(summary.duplicates) == 1
    assert "sms_usage 2026-10-02 sh delivery 1: same bytes as" in str(summary)
    # The owner resends other bytes: the copies are copies of nothing in force any more, the next in order counts.
    DeliveryWriter(cleanbill_home, day="2026-10-01", delivery=2).add(lines(4)).write()
    run()
    assert in_force() == [("sms_usage", "2026-10-01", "bj", 2), ("sms_usage", "2026-10-02", "bj", 1)]


def test_a_duplicate_gives_way_to_the_delivery_before_it(cleanbill_home: Path) -> None:
    DeliveryWriter(cleanbill_home, day="2026-10-01").add(lines(3)).write()
    DeliveryWriter(cleanbill_home, day="2026-10-02").add(lines(4)).write()
    DeliveryWriter(cleanbill_home, day="2026-10-02", delivery=2).add(lines(3)).add(lines(9, 9), part="_001").write()
    run()
    assert in_force() == [("sms_usage", "2026-10-01", "bj", 1), ("sms_usage", "2026-10-02", "bj", 1)]


def test_what_may_repeat(cleanbill_home: Path) -> None:
    repeated = {
        "service_catalogue": "900001,S,n,sms,false,monthly,1,active,2026-01-01,",
        "service_providers": "900001,SP,bj,active,",
        "relation_snapshot": "13800000001,900001,S,active,,2026-01-01 00:00:00,,,",
        "line_status": "13800000001,stopped,2026-09-01 00:00:00,",
        "sp_penalties": "p,900001,,2026-09-01 00:00:00,,",
    }
    refused = {
        "relation_events": "e,13800000001,900001,S,order,2026-10-01 00:00:00,,,",
        "wap_usage": "13800000001,900001,S,2026-10-01 00:00:00,ok,1,0",
        "gprs_usage": "13800000001,cmwap,2026-10-01 00:00:00,1,1",
        "sp_reports": "r,900001,S,13800000001,,2026-10-01 00:00:00",
        "refunds": "f,13800000001,900001,S,2026-09-01,1,1,",
    }
    for extract, line in (repeated | refused).items():
        for day in ("2026-10-01", "2026-10-02"):
            DeliveryWriter(cleanbill_home, extract, day=day).add([line]).write()
            DeliveryWriter(cleanbill_home, extract, day=day, source="empty").add([]).write()
    # A resend with the bytes of the delivery before it is no duplicate.
    DeliveryWriter(cleanbill_home, "refunds", delivery=2).add([refused["refunds"]]).write()
    run()
    days = {(row[0], row[1][-2:], row[2]) for row in in_force()}
    assert {extract for extract in repeated if (extract, "02", "bj") in days} == set(repeated)
    assert not {extract for extract in refused if (extract, "02", "bj") in days}
    assert {(extract, day, "empty") for extract in repeated | refused for day in ("01", "02")} <= days
    assert ("refunds", "2026-10-01", "bj", 2) in in_force()


def test_order_of_arrival_does_not_matter(cleanbill_home: Path, tmp_path: Path) -> None:
    """I2: deliveries, resends, copies and broken ones in any order and any batches leave the same state."""
    seed = 20261001
    rng = random.Random(seed)
    writers = [
        DeliveryWriter(cleanbill_home, day=f"2026-10-0{day}", source=source, delivery=delivery).add(
            lines(rng.choice([0, 2, 2, 3, 3]), rng.choice([0, 0, 50]))
        )
        for day in (1, 2, 3)
        for source in ("bj", "sh")
        for delivery in (1, 2, 3)
    ]
    writers[4].changes = {"totals": {"fee_li": 1}}
    results = []
    for attempt in range(6):
        home = tmp_path / f"home{attempt}"
        settings = get_settings().model_copy(update={"home": home})
        order = list(writers)
        if attempt:
            rng.shuffle(order)
        size = len(order) if attempt == 0 else rng.randint(3, 9)
        for start in range(0, len(order), size):
            for writer in order[start : start + size]:
                writer.home = home
                writer.write()
            ingest(DAY, date(2026, 10, 3), settings)
        with open_warehouse(settings) as warehouse:
            results.append(
                [
                    warehouse.execute(f"select * from control.{table} order by all").fetchall()
                    for table in ("deliveries", "delivery_files", "in_force")
                ]
            )
    assert all(result == results[0] for result in results[1:]), f"seed {seed}"
    duplicates = [row for row in results[0][0] if row[10]]
    assert duplicates, "the worlds must hold copies"


def test_in_force_is_what_a_plain_walk_gives() -> None:
    """`control.in_force` against a few lines of Python, on many small random sets of deliveries."""
    for seed in range(20):
        rng = random.Random(seed)
        outcomes = []
        for day, source in itertools.product((1, 2, 3), ("a", "b")):
            for delivery in range(1, rng.randint(1, 4)):
                key = DeliveryKey("wap_usage", date(2026, 10, day), source, delivery)
                files = tuple(
                    FileOutcome(f"f{number}", 1, rng.choice("pqrst"), rng.choice([0, 1, 1]), 0, 0, 0)
                    for number in range(rng.randint(0, 2))
                )
                status = rng.choice(["accepted", "accepted", "rejected", "over_limit"])
                outcomes.append(DeliveryOutcome(key, "p", "s", "msisdn", status, files=files))
        expected, owned = [], set()
        keys = sorted({(outcome.key.business_date, outcome.key.source) for outcome in outcomes})
        for key in keys:
            versions = [
                outcome
                for outcome in outcomes
                if (outcome.key.business_date, outcome.key.source) == key and outcome.status == "accepted"
            ]
            for outcome in sorted(versions, key=lambda item: -item.key.delivery):
                digests = {file.sha256 for file in outcome.files if file.rows_in}
                if not digests & owned:
                    owned |= digests
                    expected.append((*key, outcome.key.delivery))
                    break
        rng.shuffle(outcomes)
        with duckdb.connect() as warehouse:
            warehouse.execute(CONTROL_DDL)
            cut = rng.randint(0, len(outcomes))
            record(warehouse, outcomes[:cut])
            record(warehouse, outcomes[cut:])
            found = warehouse.execute(
                "select business_date, source, delivery from control.in_force order by all"
            ).fetchall()
        assert found == sorted(expected), f"seed {seed}"


def test_full_files_have_a_digest_of_their_content(cleanbill_home: Path) -> None:
    rows = ["900001,One,bj,active,", "900002,Two,sh,active,", "900002,Two,sh,active,"]
    variants = {
        "same": (rows, HEADERS["service_providers"]),
        "turned": (rows[::-1], HEADERS["service_providers"]),
        "fewer": (rows[:2], HEADERS["service_providers"]),
        "moved": (["900001,One,,active,bj", *rows[1:]], HEADERS["service_providers"]),
        "none": ([], HEADERS["service_providers"]),
    }
    for source, (text, header) in variants.items():
        DeliveryWriter(cleanbill_home, "service_providers", source=source).add(text, header).write()
    run()
    digests = dict(query("select source, content_digest from control.in_force"))
    assert digests["same"] == digests["turned"]
    assert len(set(digests.values())) == 4
    DeliveryWriter(cleanbill_home).add(lines(1)).write()
    run()
    assert query("select content_digest from control.in_force where extract = 'sms_usage'") == [(None,)]


# --- policy ----------------------------------------------------------------------------------------------------


def test_shipped_policy_gives_the_defaults_of_the_contract() -> None:
    rule = read_ingest_policy(get_settings().dbt_project).rule("sms_usage", "bj", DAY)
    assert (rule.max_lateness_days, rule.max_quarantined_percent) == (31, 1)


@pytest.mark.parametrize(
    "row",
    [
        "*,mail_usage,31,1,1900-01-01,,r,o",
        "*,*,x,1,1900-01-01,,r,o",
        "*,*,31,many,1900-01-01,,r,o",
        "*,*,-1,1,1900-01-01,,r,o",
        "*,*,31,101,1900-01-01,,r,o",
        "*,*,31,1,,,r,o",
        "*,*,31,1,1900-01-01,soon,r,o",
        "*,*,31,1,2030-01-01,,r,o",
        "*,*,31,1",
    ],
)
def test_wrong_policy_stops_with_its_line(
    cleanbill_home: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, row: str
) -> None:
    root = policy_root(tmp_path / "project")
    seed = root / "dbt_project" / "seeds" / "policy_ingest.csv"
    seed.write_text(seed.read_text().splitlines()[0] + "\n" + row + "\n")
    monkeypatch.setenv("CLEANBILL_PROJECT_ROOT", str(root))
    get_settings.cache_clear()
    DeliveryWriter(cleanbill_home).add(lines(1)).write()
    with pytest.raises(InputFileError, match=r"policy_ingest\.csv"):
        run()


# --- bombs, crashes, races -------------------------------------------------------------------------------------


def test_bombs_are_refused_and_harm_nobody(cleanbill_home: Path) -> None:
    """I7: small files that unpack to much."""
    bombs = {
        "zeros": gzip.compress(bytes(50_000_000)),
        "lines": gzip.compress((HEADER + "\n").encode() + (LINE + "\n").encode() * 400_000),
        "header": gzip.compress(b"a," * 20_000_000),
    }
    for source, content in bombs.items():
        writer = DeliveryWriter(cleanbill_home, source=source)
        writer.parts.append((f"{writer.stem}.csv.gz", content, 400_000))
        writer.write()
    DeliveryWriter(cleanbill_home, source="honest").add(lines(10)).write()
    child = start_child(cleanbill_home)
    output, _ = child.communicate(timeout=60)
    peak_kib, seconds = output.split()[-2:]
    assert int(peak_kib) < 512 * 1024
    assert float(seconds) < 5
    assert in_force() == [("sms_usage", "2026-10-01", "honest", 1)]
    assert {row[3] for row in statuses() if row[0] != "honest"} == {"too_large"}


def test_repetitive_but_small_files_are_no_bombs(cleanbill_home: Path) -> None:
    content = gzip.compress((HEADER + "\n").encode() + (LINE + "\n").encode() * 100_000)
    writer = DeliveryWriter(cleanbill_home)
    writer.parts.append((f"{writer.stem}.csv.gz", content, 100_000))
    writer.write()
    assert run().rows_duplicate == 99_999


def test_leftovers_of_a_killed_run_are_removed(cleanbill_home: Path) -> None:
    work = cleanbill_home / "lake" / ".ingest" / "batch0"
    work.mkdir(parents=True)
    (work / "0.lake").write_bytes(b"half")
    orphan = cleanbill_home / "lake/sms_usage/2026-10-01/bj.d1.parquet"
    orphan.parent.mkdir(parents=True)
    orphan.write_bytes(b"never recorded")
    DeliveryWriter(cleanbill_home).add_bytes(b"rubbish\n", 0).write()
    run()
    assert not work.parent.exists()
    assert not orphan.exists()


def write_crash_world(home: Path) -> None:
    for day, source in itertools.product(range(1, 8), ("bj", "sh", "gd")):
        for extract, line in (
            ("sms_usage", LINE),
            ("line_status", "13800000001,stopped,2026-09-01 00:00:00,"),
            ("service_providers", "900001,SP,bj,active,"),
        ):
            text = (
                [line.replace("900001", f"9{number:05d}") for number in range(200)]
                if extract == "sms_usage"
                else [line]
            )
            bad = ["x"] if extract == "sms_usage" and day % 2 else []
            DeliveryWriter(home, extract, f"2026-10-{day:02d}", source).add([*text, *bad]).write()


CHILD = """
import re, time
from datetime import date
from pathlib import Path
import cleanbill.ingest as module
import cleanbill.ingest_journal as journal
module.BATCH_DELIVERIES = 4
journal.RECORD_EVERY_DELIVERIES = 8
print("started", flush=True)
started = time.process_time()
module.ingest(date(2026, 10, 1), date(2026, 10, 31))
# VmHWM is this program's own peak; ru_maxrss would begin with what the parent had when it forked.
peak = re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text()).group(1)
print("ended", peak, time.process_time() - started, flush=True)
"""


def start_child(home: Path) -> subprocess.Popen:
    environment = os.environ | {"CLEANBILL_HOME": str(home)}
    return subprocess.Popen([sys.executable, "-c", CHILD], env=environment, stdout=subprocess.PIPE, text=True)


def test_kill_at_any_moment_and_run_again(
    cleanbill_home: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """R1 in small: a killed ingest leaves nothing that counts twice or is lost."""
    write_crash_world(cleanbill_home)
    run()
    reference = state(cleanbill_home)
    home = tmp_path / "killed"
    write_crash_world(home)
    rng = random.Random(7)
    kills = 0
    for _ in range(6):
        child = start_child(home)
        assert child.stdout is not None
        child.stdout.readline()
        try:
            child.wait(timeout=rng.uniform(0.02, 0.8))
        except subprocess.TimeoutExpired:
            child.send_signal(signal.SIGKILL)
            kills += 1
        child.wait()
    assert kills > 0
    monkeypatch.setenv("CLEANBILL_HOME", str(home))
    get_settings.cache_clear()
    run()
    assert state(home) == reference
    assert not (home / "lake" / ".ingest").exists()


def test_two_runs_at_once_load_everything_once(
    cleanbill_home: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """I3: the second waits for the first."""
    write_crash_world(cleanbill_home)
    children = [start_child(cleanbill_home) for _ in range(3)]
    assert [child.wait(timeout=120) for child in children] == [0, 0, 0]
    twin = tmp_path / "twin"
    write_crash_world(twin)
    found = state(cleanbill_home)
    monkeypatch.setenv("CLEANBILL_HOME", str(twin))
    get_settings.cache_clear()
    run()
    assert state(twin) == found


def test_a_file_still_being_written_is_not_read(cleanbill_home: Path) -> None:
    """I9: what is incomplete is refused and comes in when it is whole."""
    path = DeliveryWriter(cleanbill_home).add(lines(50)).write()
    data = path.with_name("sms_usage_20261001_bj.csv")
    whole = data.read_bytes()
    for size in (0, 1, len(whole) // 2, len(whole) - 1):
        data.write_bytes(whole[:size])
        assert code_of(run()) == "bytes_differ"
    data.write_bytes(whole)
    assert run().rows_loaded == 50


def test_a_disk_that_cannot_be_written_stops_ingest_with_advice(
    cleanbill_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    DeliveryWriter(cleanbill_home).add(lines(5)).write()

    def full(temporary: Path, target: Path) -> None:
        raise OSError(28, "No space left on device", str(target))

    with monkeypatch.context() as patch:
        patch.setattr("cleanbill.delivery_reader.move_into_place", full)
        with pytest.raises(IngestFailed, match="full disk"):
            run()
    assert statuses() == []
    assert run().accepted == 1


def test_messages_hold_no_phone_number(cleanbill_home: Path) -> None:
    """S1: what is printed or recorded about a delivery quotes no record."""
    number = "13912345678"
    for source, line in enumerate((number, number + ",x", LINE.replace("13800000001", number).replace("MT", number))):
        DeliveryWriter(cleanbill_home, source=f"s{source}", totals={"fee_li": 1}).add([line]).write()
    DeliveryWriter(cleanbill_home, source="header").add_bytes(number.encode() + b"\n", 0).write()
    summary = run()
    assert len(summary.rejections) == 4
    recorded = json.dumps(query("select * from control.deliveries"), default=str)
    assert number not in str(summary) + recorded
