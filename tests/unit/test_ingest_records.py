"""Every kind of wrong record ends in quarantine with file, line, column, reason and raw text; the rest loads."""

import csv
from datetime import date, datetime
from pathlib import Path
from typing import Any

import duckdb
import pytest
from cleanbill.contract import CONTRACTS, ORIGIN_COLUMNS
from cleanbill.control import open_warehouse
from cleanbill.ingest import IngestSummary, ingest
from cleanbill.reason_codes import RECORD_CODES
from cleanbill.settings import get_settings

from tests.delivery_writer import HEADERS, DeliveryWriter, policy_root

DAY = date(2026, 10, 1)

GOOD = {
    "relation_events": "e1,13800000001,900001,SVC1,order,2026-10-01 10:00:00,web,2026-10-01 10:01:00,bj",
    "relation_snapshot": "13800000001,900001,SVC1,active,2025-01-01 00:00:00,2026-01-01 00:00:00,,web,bj",
    "sms_usage": "13800000001,900001,SVC1,MT,2026-10-01 10:00:00,ok,content,2,100",
    "wap_usage": "13800000001,900001,SVC1,2026-10-01 10:00:00,ok,2,100",
    "gprs_usage": "13800000001,cmwap,2026-10-01 10:00:00,10,20",
    "service_catalogue": "900001,SVC1,Weather,sms,false,monthly,1000,active,2026-01-01,资费1元",
    "service_providers": "900001,Some SP,bj,active,a@b",
    "sp_reports": "r1,900001,SVC1,13800000001,never_accessed,2026-10-01 10:00:00",
    "sp_penalties": "p1,900001,SVC1,2026-09-01 00:00:00,2026-09-11 00:00:00,late",
    "refunds": "f1,13800000001,900001,SVC1,2026-09-01,1000,1,complaint",
    "line_status": "13800000001,stopped,2026-09-01 00:00:00,2026-09-11 00:00:00",
}


def changed(extract: str, **values: str) -> str:
    """Return the good line of an extract with some fields replaced."""
    fields = dict(zip(HEADERS[extract].split(","), GOOD[extract].split(","), strict=True))
    assert values.keys() <= fields.keys()
    return ",".join((fields | values).values())


@pytest.fixture
def home(cleanbill_home: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A data root whose sources may have any share of broken records."""
    monkeypatch.setenv("CLEANBILL_PROJECT_ROOT", str(policy_root(tmp_path / "project")))
    get_settings.cache_clear()
    return cleanbill_home


def run() -> IngestSummary:
    return ingest(DAY, date(2026, 10, 31))


def quarantined(home: Path, extract: str = "sms_usage", name: str = "bj.d1") -> list[dict[str, str]]:
    path = home / "quarantine" / extract / "2026-10-01" / f"{name}.csv"
    with path.open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def loaded(home: Path, extract: str = "sms_usage", columns: str = "*", name: str = "bj.d1") -> list[tuple]:
    path = home / "lake" / extract / "2026-10-01" / f"{name}.parquet"
    return duckdb.execute(f"select {columns} from read_parquet(?) order by line_no", [str(path)]).fetchall()


def assert_conserved() -> None:
    with open_warehouse() as warehouse:
        for table in ("deliveries", "delivery_files"):
            rows = warehouse.execute(
                f"select rows_in, rows_loaded + rows_quarantined + rows_duplicate from control.{table}"
                + (" where status <> 'rejected'" if table == "deliveries" else "")
            ).fetchall()
            assert rows
            assert all(announced == found for announced, found in rows)


# --- one bad field at a time -----------------------------------------------------------------------------------

NUMBERS = ["1.7", "1e3", "0x10", " 8", "8 ", "8,", "--1", "1_000", "１", "9223372036854775808", "-9223372036854775809"]
TIMES = [
    "2026-10-01",
    "2026-10-01T10:00:00",
    "2026-10-01 10:00",
    "2026-10-01 10:00:00.5",
    "2026-10-01 10:00:00Z",
    " 2026-10-01 10:00:00",
    "2026-10-01 10:00:60",
    "2026-10-01 10:60:00",
    "2026-10-01 24:00:01",
    "2026-10-01 25:00:00",
    "2026-13-01 10:00:00",
    "2026-09-31 10:00:00",
    "2026-02-29 10:00:00",
    "0000-01-01 00:00:00",
    "20261001",
    "2026100110000",
    "202610011000000",
    "20261001240001",
    "20260931100000",
    "1/10/2026 10:00:00",
]
MSISDNS = [
    "1380000000",
    "138000000011",
    "23800000001",
    "8613800000001234",
    "868613800000001",
    "+8613800000001x",
    "+ 8613800000001",
    "8601380000000",
    "0013800000001",
    "+13800000001",
    " 13800000001",
    "138-0000-0001",
    "１3800000001",
    "1064912345678",
]

CASES: list[tuple[str, dict[str, str], str, str]] = [
    *(("sms_usage", {"message_count": text}, "message_count", "bad_number") for text in NUMBERS if "," not in text),
    *(("sms_usage", {"sent_at": text}, "sent_at", "bad_time") for text in TIMES),
    *(("sms_usage", {"msisdn": text}, "msisdn", "bad_msisdn") for text in MSISDNS),
    *((extract, {"msisdn": "123"}, "msisdn", "bad_msisdn") for extract in GOOD if "msisdn" in HEADERS[extract]),
    *((extract, {"sp_code": "90001"}, "sp_code", "bad_code") for extract in GOOD if "sp_code" in HEADERS[extract]),
    *(("sms_usage", {"sp_code": text}, "sp_code", "bad_code") for text in ("9000011", "90000a", " 900001", "９00001")),
    *(
        ("sms_usage", {"service_code": text}, "service_code", "bad_code")
        for text in ("A2345678901", "-SVC", "=SVC", "@SVC", "+SVC", "S VC", "SVC;", "服务", ".x")
    ),
    *(("sms_usage", {"direction": text}, "direction", "bad_code") for text in ("mt", "MT ", "M", "DELIVER")),
    ("sms_usage", {"status": "OK"}, "status", "bad_code"),
    ("sms_usage", {"purpose": "advert"}, "purpose", "bad_code"),
    ("sms_usage", {"fee_li": "-1"}, "fee_li", "negative_fee"),
    ("sms_usage", {"fee_li": "1.00"}, "fee_li", "bad_number"),
    *(("sms_usage", {name: ""}, name, "missing_value") for name in HEADERS["sms_usage"].split(",")),
    ("wap_usage", {"fee_li": "-1"}, "fee_li", "negative_fee"),
    ("wap_usage", {"hits": "x"}, "hits", "bad_number"),
    ("wap_usage", {"hits": ""}, "hits", "missing_value"),
    ("wap_usage", {"status": "sent"}, "status", "bad_code"),
    ("wap_usage", {"accessed_at": "now"}, "accessed_at", "bad_time"),
    ("gprs_usage", {"up_bytes": "1.5"}, "up_bytes", "bad_number"),
    ("gprs_usage", {"down_bytes": ""}, "down_bytes", "missing_value"),
    ("gprs_usage", {"started_at": ""}, "started_at", "missing_value"),
    ("relation_events", {"event_id": ""}, "event_id", "missing_value"),
    ("relation_events", {"action": "2"}, "action", "bad_code"),
    ("relation_events", {"action": "Order"}, "action", "bad_code"),
    ("relation_events", {"action": ""}, "action", "missing_value"),
    *(
        ("relation_events", {"service_code": "", "action": action}, "service_code", "missing_value")
        for action in ("order", "cancel", "suspend", "resume", "activate", "replace")
    ),
    *(
        ("relation_events", {"service_code": "SVC1", "action": action}, "service_code", "bad_code")
        for action in ("cancel_all", "suspend_all")
    ),
    ("relation_events", {"action": "replace"}, "old_service_code", "missing_value"),
    ("relation_events", {"confirmed_at": "yes"}, "confirmed_at", "bad_time"),
    ("relation_snapshot", {"ordered_at": ""}, "ordered_at", "missing_value"),
    ("relation_snapshot", {"status": "ended"}, "status", "bad_code"),
    ("relation_snapshot", {"first_ordered_at": "2025"}, "first_ordered_at", "bad_time"),
    ("service_catalogue", {"service_class": "game"}, "service_class", "bad_code"),
    *(("service_catalogue", {"is_portal": text}, "is_portal", "bad_code") for text in ("1", "yes", "TRUE")),
    ("service_catalogue", {"billing_type": "weekly"}, "billing_type", "bad_code"),
    ("service_catalogue", {"monthly_fee_li": ""}, "monthly_fee_li", "missing_value"),
    ("service_catalogue", {"monthly_fee_li": "-1"}, "monthly_fee_li", "negative_fee"),
    ("service_catalogue", {"status": "on"}, "status", "bad_code"),
    *(
        ("service_catalogue", {"valid_from": text}, "valid_from", "bad_date")
        for text in ("20260101", "2026-02-30", "2026-1-1", "2026-01-01 00:00:00", "0000-01-01")
    ),
    ("service_providers", {"status": "blocked"}, "status", "bad_code"),
    ("sp_reports", {"report_id": ""}, "report_id", "missing_value"),
    ("sp_reports", {"reported_at": "2026-10-01"}, "reported_at", "bad_time"),
    ("sp_penalties", {"penalty_id": ""}, "penalty_id", "missing_value"),
    ("sp_penalties", {"suspended_from": ""}, "suspended_from", "missing_value"),
    ("sp_penalties", {"suspended_to": "open"}, "suspended_to", "bad_time"),
    ("refunds", {"refund_id": ""}, "refund_id", "missing_value"),
    ("refunds", {"billing_month": "2026-09-02"}, "billing_month", "bad_date"),
    ("refunds", {"billing_month": "2026-09"}, "billing_month", "bad_date"),
    ("refunds", {"amount_li": "1,5"[:1] + ".5"}, "amount_li", "bad_number"),
    *(("refunds", {"times": text}, "times", "bad_code") for text in ("0", "3", "1.0", "one")),
    ("line_status", {"status": "active"}, "status", "bad_code"),
    ("line_status", {"from_time": ""}, "from_time", "missing_value"),
    ("line_status", {"to_time": "2026-13-01 00:00:00"}, "to_time", "bad_time"),
]


def test_each_bad_field_has_its_code_line_and_column(home: Path) -> None:
    expected: dict[str, list[tuple[str, str, str, str]]] = {}
    for extract in GOOD:
        cases = [case for case in CASES if case[0] == extract]
        lines = [line for case in cases for line in (GOOD[extract], changed(extract, **case[1]))] + [GOOD[extract]]
        DeliveryWriter(home, extract).add(lines).write()
        expected[extract] = [
            (str(2 * place + 3), column, code, lines[2 * place + 1]) for place, (_, _, column, code) in enumerate(cases)
        ]
    summary = run()
    assert summary.rejections == []
    assert_conserved()
    for extract, rows in expected.items():
        found = quarantined(home, extract)
        assert [(row["line"], row["column"], row["reason_code"], row["raw"]) for row in found] == rows
        assert {row["file"] for row in found} == {f"{extract}_20261001_bj.csv"}
        for row, case in zip(found, [case for case in CASES if case[0] == extract], strict=True):
            assert row["found"] == case[1].get(row["column"], "")
            assert row["reason_code"] in RECORD_CODES
        # What is right loads; usage keeps one of the equal good lines.
        good_lines = 1 if CONTRACTS[extract].drops_equal_rows else len(rows) + 1
        assert len(loaded(home, extract)) == good_lines


# --- what is right ---------------------------------------------------------------------------------------------


def test_lake_files_have_the_contract_columns_and_types(home: Path) -> None:
    for extract, line in GOOD.items():
        DeliveryWriter(home, extract).add([line]).write()
    run()
    for extract, contract in CONTRACTS.items():
        expected = [(column.name, column.sql_type.upper()) for column in contract.columns]
        expected += [(name, sql_type.upper()) for name, sql_type in ORIGIN_COLUMNS.items()]
        for path in (f"{extract}/2026-10-01/bj.d1.parquet", f"{extract}/empty.parquet"):
            described = duckdb.execute("describe from read_parquet(?)", [str(home / "lake" / path)]).fetchall()
            assert [row[:2] for row in described] == expected, path
        assert loaded(home, extract, "business_date, source, delivery, file_name, line_no") == [
            (DAY, "bj", 1, f"{extract}_20261001_bj.csv", 2)
        ]
        empty = home / "lake" / extract / "empty.parquet"
        assert duckdb.execute("select count(*) from read_parquet(?)", [str(empty)]).fetchall() == [(0,)]


VALUES: list[tuple[str, dict[str, str], str, Any]] = [
    ("wap_usage", {"hits": "-1", "accessed_at": "20261001000000"}, "accessed_at", datetime(2026, 10, 1)),
    *(
        ("sms_usage", {"msisdn": prefix + "13812345678"}, "msisdn", "13812345678")
        for prefix in ("", "86", "+86", "0086")
    ),
    ("sms_usage", {"msisdn": "8610000000000"}, "msisdn", "10000000000"),
    ("sms_usage", {"sent_at": "20261001235959"}, "sent_at", datetime(2026, 10, 1, 23, 59, 59)),
    ("sms_usage", {"sent_at": "2026-09-30 24:00:00"}, "sent_at", datetime(2026, 10, 1)),
    ("sms_usage", {"sent_at": "20260930240000"}, "sent_at", datetime(2026, 10, 1)),
    ("sms_usage", {"message_count": "+3"}, "message_count", 3),
    ("sms_usage", {"message_count": "-3"}, "message_count", -3),
    ("sms_usage", {"message_count": "0"}, "message_count", 0),
    ("sms_usage", {"message_count": "007"}, "message_count", 7),
    ("sms_usage", {"message_count": "9223372036854775807"}, "message_count", 2**63 - 1),
    ("sms_usage", {"message_count": "-9223372036854775808"}, "message_count", -(2**63)),
    ("sms_usage", {"fee_li": "-0"}, "fee_li", 0),
    ("sms_usage", {"service_code": "a-b_c.d0123"[:10]}, "service_code", "a-b_c.d012"),
    ("sms_usage", {"direction": "MO"}, "direction", "MO"),
    ("gprs_usage", {"apn": " CmWap "}, "apn", "CMWAP"),
    ("gprs_usage", {"apn": ""}, "apn", None),
    ("gprs_usage", {"up_bytes": "0"}, "up_bytes", 0),
    ("relation_events", {"channel": "", "confirmed_at": "", "province": ""}, "channel", None),
    ("relation_events", {"action": "cancel_all", "service_code": ""}, "service_code", None),
    ("relation_events", {"action": "suspend_all", "service_code": ""}, "action", "suspend_all"),
    ("relation_events", {"confirmed_at": "1999-01-01 00:00:00"}, "confirmed_at", datetime(1999, 1, 1)),
    ("relation_snapshot", {"first_ordered_at": "", "status": "suspended"}, "status", "suspended"),
    ("relation_snapshot", {"ordered_at": "2004-02-29 24:00:00"}, "ordered_at", datetime(2004, 3, 1)),
    ("service_catalogue", {"is_portal": "true"}, "is_portal", True),
    ("service_catalogue", {"billing_type": "free", "monthly_fee_li": ""}, "monthly_fee_li", None),
    ("service_catalogue", {"billing_type": "per_use", "monthly_fee_li": "0"}, "monthly_fee_li", 0),
    ("service_catalogue", {"valid_from": "2028-02-29", "status": ""}, "valid_from", date(2028, 2, 29)),
    ("service_providers", {"status": "inactive", "sp_name": "", "contact": ""}, "status", "inactive"),
    ("sp_reports", {"anomaly_type": ""}, "anomaly_type", None),
    ("sp_penalties", {"service_code": "", "suspended_to": "", "reason": ""}, "service_code", None),
    ("sp_penalties", {"suspended_to": "9999-12-31 23:59:59"}, "suspended_to", datetime(9999, 12, 31, 23, 59, 59)),
    ("refunds", {"times": "2", "amount_li": "-5"}, "times", 2),
    ("refunds", {"amount_li": "-5"}, "amount_li", -5),
    ("line_status", {"to_time": "", "status": "closed"}, "to_time", None),
    ("line_status", {"from_time": "2030-01-01 00:00:00"}, "from_time", datetime(2030, 1, 1)),
]


def test_right_values_are_normalised(home: Path) -> None:
    for extract in GOOD:
        cases = [case for case in VALUES if case[0] == extract]
        DeliveryWriter(home, extract).add([changed(extract, **case[1]) for case in cases]).write()
    summary = run()
    assert summary.rows_quarantined == 0
    for extract in GOOD:
        cases = [case for case in VALUES if case[0] == extract]
        rows = loaded(home, extract, ", ".join(CONTRACTS[extract].required_header) + ", line_no")
        by_line = {row[-1]: dict(zip(CONTRACTS[extract].required_header, row, strict=False)) for row in rows}
        for place, (_, _, column, value) in enumerate(cases):
            # Equal usage lines are counted once, by their first line.
            if place + 2 in by_line:
                assert by_line[place + 2][column] == value, cases[place]
            else:
                assert CONTRACTS[extract].drops_equal_rows
                assert value in {row[column] for row in by_line.values()}


def test_opaque_sources_keep_their_ids(home: Path) -> None:
    lines = [changed("sms_usage", msisdn=text) for text in ("A-10b3", "S-1,x"[:3], "13800000001", "")]
    writer = DeliveryWriter(home).add(lines)
    writer.changes = {"identity": "opaque", "made_by": "cleanbill land"}
    writer.write()
    run()
    assert loaded(home, columns="msisdn") == [("A-10b3",), ("S-1",), ("13800000001",)]
    assert [row["reason_code"] for row in quarantined(home)] == ["missing_value"]
    with open_warehouse() as warehouse:
        assert warehouse.execute("select identity from control.deliveries").fetchall() == [("opaque",)]


def test_replace_names_its_old_service(home: Path) -> None:
    header = HEADERS["relation_events"] + ",old_service_code"
    line = changed("relation_events", action="replace")
    DeliveryWriter(home, "relation_events").add(
        [line + ",OLD1", line + ",", line + ",too long code", GOOD["relation_events"] + ","], header
    ).write()
    run()
    assert loaded(home, "relation_events", "action, old_service_code") == [("replace", "OLD1"), ("order", None)]
    assert [(row["column"], row["reason_code"]) for row in quarantined(home, "relation_events")] == [
        ("old_service_code", "missing_value"),
        ("old_service_code", "bad_code"),
    ]


# --- lateness --------------------------------------------------------------------------------------------------

LATENESS = [
    ("2026-08-31 00:00:00", True),
    ("2026-08-30 24:00:00", True),
    ("2026-08-30 23:59:59", False),
    ("2026-10-01 23:59:59", True),
    ("2026-10-01 24:00:00", True),
    ("20261001240000", True),
    ("2026-10-02 00:00:00", True),
    ("2026-10-02 00:00:01", False),
    ("1970-01-01 00:00:00", False),
    ("9999-12-31 23:59:59", False),
]


@pytest.mark.parametrize("extract", ["relation_events", "sms_usage", "wap_usage", "gprs_usage", "sp_reports"])
def test_lateness_holds_at_both_ends(home: Path, extract: str) -> None:
    column = next(column.name for column in CONTRACTS[extract].columns if column.is_record_time)
    DeliveryWriter(home, extract).add([changed(extract, **{column: text}) for text, _ in LATENESS]).write()
    run()
    found = [(int(row["line"]), row["column"], row["reason_code"]) for row in quarantined(home, extract)]
    refused = [place + 2 for place, (_, is_allowed) in enumerate(LATENESS) if not is_allowed]
    assert found == [(line, column, "outside_lateness") for line in refused]


def test_lateness_is_a_policy_of_source_and_extract(home: Path) -> None:
    seed = get_settings().dbt_project / "seeds" / "policy_ingest.csv"
    seed.write_text(
        "source,extract,max_lateness_days,max_quarantined_percent,valid_from,valid_to,reason,origin\n"
        "*,*,31,100,1900-01-01,,r,o\n"
        "*,sms_usage,5,100,1900-01-01,,r,o\n"
        "sh,*,4,100,1900-01-01,,r,o\n"
        "sh,sms_usage,3,100,1900-01-01,2026-10-02,r,o\n"
        "sh,sms_usage,2,100,2026-10-02,,r,o\n"
    )
    days = [f"2026-{9 if day <= 30 else 10:02d}-{(day - 1) % 30 + 1:02d} 00:00:00" for day in range(24, 33)]
    for extract, column in (("sms_usage", "sent_at"), ("wap_usage", "accessed_at")):
        for source in ("bj", "sh"):
            DeliveryWriter(home, extract, source=source).add(
                [changed(extract, **{column: day}) for day in days]
            ).write()
    DeliveryWriter(home, day="2026-10-02", source="sh").add([changed("sms_usage", sent_at=day) for day in days]).write()
    run()

    def earliest(extract: str, source: str, day: str = "2026-10-01") -> date:
        path = home / "lake" / extract / day / f"{source}.d1.parquet"
        column = "sent_at" if extract == "sms_usage" else "accessed_at"
        return duckdb.execute(f"select min({column})::date from read_parquet(?)", [str(path)]).fetchone()[0]

    assert earliest("sms_usage", "bj") == date(2026, 9, 26)
    assert earliest("wap_usage", "bj") == date(2026, 9, 24)
    assert earliest("wap_usage", "sh") == date(2026, 9, 27)
    assert earliest("sms_usage", "sh") == date(2026, 9, 28)
    assert earliest("sms_usage", "sh", "2026-10-02") == date(2026, 9, 30)


# --- the text of a file ----------------------------------------------------------------------------------------


def catalogue(name: str, text: str) -> str:
    return f"900001,{name},{text},sms,false,monthly,1000,active,2026-01-01,x"


def test_rfc_4180_quotes(home: Path) -> None:
    lines = [
        catalogue("S1", '"a, b"'),
        catalogue("S2", '"say ""hello"""'),
        catalogue("S3", '""'),
        catalogue("S4", '""""'),
        ",".join(f'"{field}"' for field in catalogue("S5", "all quoted").split(",")),
        catalogue("S6", '","'),
        catalogue("S7", '"two\nlines"'),
        catalogue("S8", '"one\n\nthree, ""x"""'),
        catalogue("S9", "plain"),
    ]
    DeliveryWriter(home, "service_catalogue").add(lines).write()
    summary = run()
    assert summary.rows_quarantined == 0
    assert loaded(home, "service_catalogue", "service_code, service_name, line_no") == [
        ("S1", "a, b", 2),
        ("S2", 'say "hello"', 3),
        ("S3", None, 4),
        ("S4", '"', 5),
        ("S5", "all quoted", 6),
        ("S6", ",", 7),
        ("S7", "two\nlines", 8),
        ("S8", 'one\n\nthree, "x"', 10),
        ("S9", "plain", 13),
    ]


def test_a_stray_quote_costs_its_own_line_only(home: Path) -> None:
    """Trap 2: an unterminated quote must not swallow what follows."""
    broken_lines = [
        catalogue("B1", 'say "hello"'),
        catalogue("B1", '"open'),
        catalogue("B1", '"closed" early'),
        catalogue("B1", 'late"'),
        catalogue("B1", '"a"b"'),
        '"' + catalogue("B1", "x"),
        catalogue("B1", "x") + '"',
    ]
    cases = {
        f"s{number}-{place}": (broken, neighbour)
        for number, broken in enumerate(broken_lines)
        for place, neighbour in enumerate(("plain", '"quoted, text"', '"two\nlines"', '"a""b"'))
    }
    for source, (broken, neighbour) in cases.items():
        around = [catalogue(f"S{number}", neighbour) for number in range(4)]
        DeliveryWriter(home, "service_catalogue", source=source).add([*around[:2], broken, *around[2:]]).write()
    assert run().rejections == []
    for source, (broken, neighbour) in cases.items():
        rows = loaded(home, "service_catalogue", "service_code, service_name", f"{source}.d1")
        text = neighbour.strip('"').replace('""', '"')
        assert rows == [("S0", text), ("S1", text), ("S2", text), ("S3", text)], source
        row = quarantined(home, "service_catalogue", f"{source}.d1")[0]
        assert (row["reason_code"], row["raw"]) == ("bad_quotes", broken)
        assert int(row["line"]) == 4 + 2 * neighbour.count("\n")


def test_two_stray_quotes_far_apart(home: Path) -> None:
    lines = [GOOD["sms_usage"].replace("SVC1", f"S{number}") for number in range(300)]
    lines[50] = '"' + lines[50]
    lines[250] = lines[250] + '"'
    DeliveryWriter(home).add(lines).write()
    run()
    assert [(row["line"], row["reason_code"]) for row in quarantined(home)] == [
        ("52", "bad_quotes"),
        ("252", "bad_quotes"),
    ]
    assert len(loaded(home)) == 298


def with_bytes(position: int, extra: bytes) -> bytes:
    line = GOOD["sms_usage"].encode()
    return line[:position] + extra + line[position:]


LINES = [
    (with_bytes(3, b"\x00"), "invalid_bytes", r"138\x0000000001,"),
    (with_bytes(3, b"\xff"), "invalid_bytes", r"138\xff00000001,"),
    (with_bytes(12, "北京".encode("gbk")), "invalid_bytes", r"13800000001,\xb1\xb1\xbe\xa9900001,"),
    (with_bytes(12, b"\xc0\xaf"), "invalid_bytes", r"\xc0\xaf"),
    (with_bytes(12, b"\xed\xa0\x80"), "invalid_bytes", r"\xed\xa0\x80"),
    (with_bytes(12, b"\xe5\x8c"), "invalid_bytes", r"\xe5\x8c"),
    (with_bytes(12, b"\r"), "invalid_bytes", r"13800000001,\x0d900001"),
    (with_bytes(12, b"\x01"), "invalid_bytes", r"\x01"),
    (with_bytes(12, b"\x1a"), "invalid_bytes", r"\x1a"),
    (with_bytes(12, b"\x1c"), "invalid_bytes", r"\x1c"),
    (with_bytes(12, b"\x7f"), "invalid_bytes", r"\x7f"),
    (with_bytes(0, b"\xef\xbb\xbf"), "bad_msisdn", "13800000001"),
    (with_bytes(0, b"x" * 70_000), "line_too_long", "xxxx"),
    (with_bytes(0, b"x" * 3_000_000), "line_too_long", "xxxx"),
    (with_bytes(0, b"\x00" * 3_000_000), "line_too_long", r"\x00"),
    (GOOD["sms_usage"].encode()[:-4], "wrong_field_count", "content"),
    (GOOD["sms_usage"].encode() + b",", "wrong_field_count", "100,"),
    (GOOD["sms_usage"].encode() + b",x", "wrong_field_count", "100,x"),
    (b"x", "wrong_field_count", "x"),
    (b",,,,,,,,", "missing_value", ",,,,,,,,"),
    (b"   ", "wrong_field_count", "   "),
    (b"\\N", "wrong_field_count", "\\N"),
    (GOOD["sms_usage"].replace(",", ";").encode(), "wrong_field_count", ";"),
    (GOOD["sms_usage"].replace(",", "\t").encode(), "wrong_field_count", "\t"),
]


@pytest.mark.parametrize("line_end", [b"\n", b"\r\n"], ids=["LF", "CRLF"])
@pytest.mark.parametrize("gz", [False, True], ids=["plain", "gz"])
def test_lines_that_are_no_records(home: Path, line_end: bytes, gz: bool) -> None:
    good = [GOOD["sms_usage"].replace("SVC1", f"S{number}").encode() for number in range(len(LINES) + 1)]
    lines = [HEADERS["sms_usage"].encode(), good[0]]
    for number, (line, _, _) in enumerate(LINES):
        lines += [line, good[number + 1]]
    DeliveryWriter(home).add_bytes(line_end.join(lines) + line_end, len(lines) - 1, gz=gz).write()
    summary = run()
    assert summary.rejections == []
    found = quarantined(home)
    assert [(int(row["line"]), row["reason_code"]) for row in found] == [
        (2 * number + 3, code) for number, (_, code, _) in enumerate(LINES)
    ]
    for row, (_, _, told) in zip(found, LINES, strict=True):
        assert told in row["raw"]
        assert len(row["raw"]) < 2000
    assert len(loaded(home)) == len(LINES) + 1
    assert_conserved()


@pytest.mark.parametrize("has_mark", [True, False])
@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
@pytest.mark.parametrize("has_last_end", [True, False])
def test_mark_line_ends_and_missing_last_end(home: Path, has_mark: bool, line_end: str, has_last_end: bool) -> None:
    text = line_end.join([HEADERS["sms_usage"], GOOD["sms_usage"], changed("sms_usage", direction="MO")])
    text += line_end if has_last_end else ""
    content = (b"\xef\xbb\xbf" if has_mark else b"") + text.encode()
    DeliveryWriter(home).add_bytes(content, 2).write()
    summary = run()
    assert (summary.rows_loaded, summary.rejections) == (2, [])
    assert loaded(home, columns="fee_li, line_no") == [(100, 2), (100, 3)]


def test_mixed_line_ends_in_one_file(home: Path) -> None:
    lines = [HEADERS["sms_usage"], *(GOOD["sms_usage"].replace("SVC1", f"S{number}") for number in range(4))]
    text = lines[0] + "\r\n" + lines[1] + "\n" + lines[2] + "\r\n" + lines[3] + "\n" + lines[4]
    DeliveryWriter(home).add_bytes(text.encode(), 4).write()
    assert run().rows_loaded == 4


def test_lines_longer_than_a_block_of_reading(home: Path) -> None:
    """A giant line between good ones: the rest loads, memory stays small, line numbers stay right."""
    giant = b"y" * (9 * 1024 * 1024)
    lines = [HEADERS["sms_usage"].encode(), giant, GOOD["sms_usage"].encode(), giant + b"\r", b""]
    DeliveryWriter(home).add_bytes(b"\n".join(lines), 3).write()
    run()
    assert [(row["line"], row["reason_code"]) for row in quarantined(home)] == [
        ("2", "line_too_long"),
        ("4", "line_too_long"),
    ]
    assert loaded(home, columns="line_no") == [(3,)]


def test_blocks_are_cut_anywhere(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The result does not depend on where the reader's blocks end."""
    lines = [catalogue(f"S{number}", f'"n{number}, 名\r\n称"') for number in range(40)]
    text = "\ufeff" + "\r\n".join([HEADERS["service_catalogue"], *lines, "broken\rline"])
    results = []
    for number, block in enumerate((1, 2, 3, 7, 64, 4096)):
        monkeypatch.setattr("cleanbill.spool.BLOCK_BYTES", block)
        writer = DeliveryWriter(home, "service_catalogue", source=f"s{number}")
        writer.add_bytes(text.encode(), 41, gz=number % 2 == 1).write()
        run()
        name = f"s{number}.d1"
        results.append(
            (
                loaded(home, "service_catalogue", "* exclude (source, file_name)", name),
                [(row["line"], row["reason_code"]) for row in quarantined(home, "service_catalogue", name)],
            )
        )
    assert all(result == results[0] for result in results)
    assert len(results[0][0]) == 40
    assert results[0][0][39][2] == "n39, 名\n称"
    assert results[0][1] == [("82", "invalid_bytes")]


@pytest.mark.parametrize("gz", [False, True])
def test_a_byte_order_mark_is_taken_off_the_file_only(home: Path, gz: bool) -> None:
    """A second mark belongs to the data: dropped silently, it would turn a wrong first line into a good one."""
    mark = b"\xef\xbb\xbf"
    header, good = HEADERS["sms_usage"].encode(), GOOD["sms_usage"].encode()
    DeliveryWriter(home).add_bytes(mark + header + b"\n" + mark + good + b"\n" + good + b"\n", 2, gz=gz).write()
    DeliveryWriter(home, source="alone").add_bytes(header + b"\n" + mark + b"\n" + good + b"\n", 2, gz=gz).write()
    DeliveryWriter(home, source="twice").add_bytes(mark * 2 + header + b"\n" + good + b"\n", 1, gz=gz).write()
    summary = run()
    assert [row["reason_code"] for row in quarantined(home)] == ["bad_msisdn"]
    assert [row["reason_code"] for row in quarantined(home, name="alone.d1")] == ["wrong_field_count"]
    assert [line.split("]")[0] for line in summary.rejections] == ["[bad_header"]
    assert loaded(home, columns="line_no") == loaded(home, columns="line_no", name="alone.d1") == [(3,)]
