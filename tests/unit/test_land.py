"""Landing foreign files: what each kind of foreign row becomes, and that nothing is lost or done twice."""

import csv
import hashlib
import json
import shutil
from datetime import date
from pathlib import Path

import pytest
from cleanbill.errors import InputFileError
from cleanbill.ingest import ingest
from cleanbill.land import LandSummary, land
from cleanbill.settings import Settings

EVENTS = """
source: acme
description: a platform with its own codes
identity: msisdn
consent: as_delivered
quarantine_limit_percent: 60
files:
  orders:
    name: orders.txt
    delimiter: "|"
    columns: [id, phone, product, kind, at, confirmed]
    key: [id]
records:
  - extract: relation_events
    from: orders
    when:
      - {column: kind, is: not_equal, value: "0"}
    columns:
      event_id: id
      msisdn: {column: phone, strip_leading_zeros: true}
      sp_code: {constant: "100001"}
      service_code: {column: product, codes: {ring: "2001", game: "2002"}}
      action: {column: kind, codes: {"1": order, "2": suspend, "3": cancel}}
      event_time: {column: at, time: ["%Y%m%d%H%M%S", "%Y-%m-%d %H:%M"]}
      confirmed_at: {column: confirmed, time: ["%Y%m%d%H%M%S"]}
"""
HEADER = "id|phone|product|kind|at|confirmed"


class Source:
    """A foreign source on disk, and the data root it is landed into."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.mapping = folder / "acme.yml"
        self.files = folder / "foreign"
        self.files.mkdir()
        self.settings = Settings(home=folder / "home")

    def write(self, name: str, *lines: str, encoding: str = "utf-8") -> Path:
        path = self.files / name
        path.write_bytes("".join(f"{line}\n" for line in lines).encode(encoding))
        return path

    def land(self, **options) -> LandSummary:
        return land(self.mapping, self.files, self.settings, **options)

    def records(self, extract: str, day: str, delivery: int = 1) -> list[dict[str, str]]:
        numbering = f"_d{delivery}" if delivery > 1 else ""
        name = f"{extract}_{day.replace('-', '')}_acme{numbering}.csv"
        with (self.settings.landing / extract / day / name).open(encoding="utf-8", newline="") as text:
            return list(csv.DictReader(text))

    def rejected(self, name: str = "orders.txt") -> list[tuple[int, str, str]]:
        paths = list((self.settings.quarantine / "land" / "acme").glob(f"*/{name}.rejected.csv"))
        if not paths:
            return []
        (path,) = paths
        with path.open(encoding="utf-8", newline="") as text:
            return [(int(row["line_no"]), row["reason"], row["contract_column"]) for row in csv.DictReader(text)]

    def everything(self) -> dict[str, bytes]:
        files = [path for path in sorted(self.settings.home.rglob("*")) if path.is_file() and path.suffix != ".lock"]
        return {str(path.relative_to(self.settings.home)): path.read_bytes() for path in files}


@pytest.fixture
def source(tmp_path: Path) -> Source:
    made = Source(tmp_path)
    made.mapping.write_text(EVENTS, encoding="utf-8")
    return made


def test_codes_times_numbers_and_constants_become_contract_columns(source: Source):
    source.write(
        "orders.txt",
        HEADER,
        "e1|013800000001|ring|1|20240105101112|20240105101200",
        "e2|8613800000002|game|2|2024-01-05 23:59|",
    )
    source.land()
    assert source.records("relation_events", "2024-01-05") == [
        {
            "event_id": "e1",
            "msisdn": "13800000001",
            "sp_code": "100001",
            "service_code": "2001",
            "action": "order",
            "event_time": "2024-01-05 10:11:12",
            "channel": "",
            "confirmed_at": "2024-01-05 10:12:00",
            "province": "",
        },
        {
            "event_id": "e2",
            "msisdn": "8613800000002",
            "sp_code": "100001",
            "service_code": "2002",
            "action": "suspend",
            "event_time": "2024-01-05 23:59:00",
            "channel": "",
            "confirmed_at": "",
            "province": "",
        },
    ]


@pytest.mark.parametrize(
    ("written", "day", "time"),
    [
        ("20240105000000", "2024-01-05", "2024-01-05 00:00:00"),
        ("20240105235959", "2024-01-05", "2024-01-05 23:59:59"),
        ("20240105240000", "2024-01-05", "2024-01-05 24:00:00"),
        ("20240105002400", "2024-01-05", "2024-01-05 00:24:00"),
        ("2024-01-05 24:00", "2024-01-05", "2024-01-05 24:00:00"),
        ("20240229120000", "2024-02-29", "2024-02-29 12:00:00"),
    ],
)
def test_a_time_goes_to_its_day_and_24_00_to_the_day_it_ends(source: Source, written: str, day: str, time: str):
    source.write("orders.txt", HEADER, f"e1|13800000001|ring|1|{written}|")
    source.land()
    assert [record["event_time"] for record in source.records("relation_events", day)] == [time]


@pytest.mark.parametrize(
    ("row", "reason", "column"),
    [
        ("e2|13800000001|ring|9|20240105101112|", "bad_code", "action"),
        ("e2|13800000001|Ring|1|20240105101112|", "bad_code", "service_code"),
        ("e2|13800000001|ring|1|20240105250000|", "bad_time", "event_time"),
        ("e2|13800000001|ring|1|20240105240001|", "bad_time", "event_time"),
        ("e2|13800000001|ring|1|20230229101112|", "bad_time", "event_time"),
        ("e2|13800000001|ring|1|2024010510111|", "bad_time", "event_time"),  # a digit is missing: not 10:11:01
        ("e2|13800000001|ring|1|24-01-05 10:11|", "bad_time", "event_time"),
        ("e2|13800000001|ring|1|2024-1-5 10:11|", "bad_time", "event_time"),
        ("e2|13800000001|ring|1|epoch|", "bad_time", "event_time"),
        ("e2|13800000001|ring|1|infinity|", "bad_time", "event_time"),
        ("e2|13800000001|ring|1||", "missing_value", "business_date"),
        ("e2|13800000001|ring|1|20240105101112|soon", "bad_time", "confirmed_at"),
        ("e2|13800000001|ring|1|20240105101112", "wrong_field_count", ""),
        ("e2|13800000001|ring|1|20240105101112||x", "wrong_field_count", ""),
        ('e2|13800000001|"ring|1|20240105101112|"x', "bad_quotes", ""),
        ("|13800000001|ring|1|20240105101112|", "missing_value", ""),
        ("e1|13800000009|ring|1|20240105101112|", "conflicting_key", ""),
        ("e2|13800000001|ri\x00ng|1|20240105101112|", "invalid_bytes", ""),
    ],
)
def test_a_row_that_cannot_be_converted_is_kept_out_with_line_and_reason(
    source: Source, row: str, reason: str, column: str
):
    good = "e1|13800000001|ring|1|20240105101112|"
    original = source.write("orders.txt", HEADER, good, row)
    summary = source.land()
    assert source.rejected() == [(3, reason, column)]
    assert [record["event_id"] for record in source.records("relation_events", "2024-01-05")] == ["e1"]
    (count,) = summary.files
    assert (count.rows, count.placed, count.skipped, count.duplicates, count.quarantined) == (2, 1, 0, 0, 1)
    assert f"1 rows {reason}" in summary.render()
    assert original.read_bytes().decode().splitlines()[1] == good


def test_rows_nobody_wants_and_repeats_are_counted(source: Source):
    repeated = "e1|13800000001|ring|1|20240105101112|"
    source.write("orders.txt", HEADER, repeated, "", repeated, "e2|13800000001|unheard|0|never|")
    (count,) = source.land().files
    assert (count.rows, count.placed, count.skipped, count.duplicates, count.quarantined) == (3, 1, 1, 1, 0)


def test_quotes_may_hold_delimiters_quotes_and_line_ends(source: Source):
    source.write(
        "orders.txt",
        HEADER,
        '"e|1"|13800000001|"ring"|"1"|20240105101112|',
        '"e""2',
        'x"|13800000002|ring|1|20240105101112|',
        "e3|13800000003|ring|9|20240105101112|",
    )
    source.land()
    identifiers = [record["event_id"] for record in source.records("relation_events", "2024-01-05")]
    assert identifiers == ["e|1", 'e"2\nx']
    assert source.rejected() == [(5, "bad_code", "action")]


def test_lines_swallowed_by_a_wrong_quote_count_as_rows(source: Source):
    good = [f"e{number}|13800000001|ring|1|20240105101112|" for number in range(6)]
    source.write("orders.txt", HEADER, *good, 'e7|13800000001|ri"ng|1|20240105101112|', good[0], 'e8|"')
    (count,) = source.land().files
    assert (count.rows, count.placed, count.quarantined) == (9, 6, 3)


def test_gbk_windows_line_ends_and_gzip(source: Source):
    import gzip

    source.mapping.write_text(
        EVENTS.replace('delimiter: "|"', 'delimiter: "|"\n    encoding: gb18030').replace(
            "{ring:", "{彩铃: '2009', ring:"
        ),
        encoding="utf-8",
    )
    text = f"{HEADER}\r\ne1|13800000001|彩铃|1|20240105101112|\r\n".encode("gb18030")
    (source.files / "orders.txt.gz").write_bytes(gzip.compress(text))
    source.land()
    assert [record["service_code"] for record in source.records("relation_events", "2024-01-05")] == ["2009"]


def test_bytes_of_another_encoding_are_quarantined(source: Source):
    path = source.write("orders.txt", HEADER, "e1|13800000001|ring|1|20240105101112|")
    path.write_bytes(path.read_bytes() + "e2|13800000001|彩铃|1|20240105101112|\n".encode("gbk"))
    source.land()
    assert source.rejected() == [(3, "invalid_bytes", "")]


def test_days_without_rows_are_delivered_and_expected(source: Source):
    source.write("orders.txt", HEADER, "e1|13800000001|ring|1|20231230101112|", "e2|13800000001|ring|3|20240102101112|")
    (count,) = source.land().extracts
    assert (count.records, count.days, count.days_without_rows, count.written) == (2, 4, 2, 4)
    assert source.records("relation_events", "2024-01-01") == []
    manifest = json.loads(
        (source.settings.landing / "relation_events/2024-01-01/relation_events_20240101_acme.manifest.json").read_text()
    )
    assert manifest["files"][0]["rows"] == 0
    assert manifest["identity"] == "msisdn"
    assert manifest["made_by"] == "cleanbill land"
    assert (source.settings.home / "expected_extracts.csv").read_text().splitlines() == [
        "extract,source,schedule,valid_from,valid_to",
        "relation_events,acme,daily,2023-12-30,2024-01-02",
    ]


def test_ingest_accepts_every_delivery(source: Source, monkeypatch: pytest.MonkeyPatch):
    rows = [f"e{number}|1380000000{number}|ring|1|2024010{number}101112|" for number in (1, 3, 5)]
    source.write("orders.txt", HEADER, *rows)
    source.land()
    summary = ingest(date(2024, 1, 1), date(2024, 1, 5), source.settings)
    assert (summary.accepted, summary.rejected, summary.over_limit) == (5, 0, 0)
    assert (summary.rows_in, summary.rows_loaded, summary.rows_quarantined) == (3, 3, 0)


def test_landing_twice_changes_nothing(source: Source):
    source.write("orders.txt", HEADER, "e1|13800000001|ring|1|20240105101112|", "e2|13800000001|ring|9|20240105101112|")
    original = (source.files / "orders.txt").read_bytes()
    source.land()
    before = source.everything()
    summary = source.land()
    after = source.everything()
    report = "reports/land/acme_20240105_20240105.json"
    assert before.pop(report) != after.pop(report)  # it says what this landing wrote: nothing
    assert before == after
    assert summary.deliveries_written == 0
    assert (source.files / "orders.txt").read_bytes() == original


def test_new_records_of_a_day_make_a_second_delivery_of_that_day_only(source: Source):
    first = ["e1|13800000001|ring|1|20240105101112|", "e2|13800000001|ring|3|20240106101112|"]
    source.write("orders.txt", HEADER, *first)
    source.land()
    source.write("orders.txt", HEADER, *first, "e3|13800000002|ring|1|20240105111112|")
    assert source.land().deliveries_written == 1
    assert [record["event_id"] for record in source.records("relation_events", "2024-01-05", 2)] == ["e1", "e3"]
    assert not list((source.settings.landing / "relation_events/2024-01-06").glob("*_d2*"))


def test_a_landing_that_would_lose_records_is_refused_unless_told(source: Source):
    source.write("orders.txt", HEADER, "e1|13800000001|ring|1|20240105101112|", "e2|13800000002|ring|1|20240105101112|")
    source.land()
    before = source.everything()
    source.write("orders.txt", HEADER, "e2|13800000002|ring|1|20240105101112|")
    with pytest.raises(InputFileError, match="1 of relation_events 2024-01-05"):
        source.land()
    assert source.everything() == before
    source.land(replace=True)
    assert [record["event_id"] for record in source.records("relation_events", "2024-01-05", 2)] == ["e2"]


def test_only_the_asked_days_are_landed(source: Source):
    rows = [f"e{number}|13800000001|ring|1|2024010{number}101112|" for number in (1, 2, 3, 4)]
    source.write("orders.txt", HEADER, *rows)
    summary = source.land(date_from=date(2024, 1, 2), date_to=date(2024, 1, 3))
    assert (summary.extracts[0].records, summary.extracts[0].days) == (2, 2)
    assert sorted(path.name for path in (source.settings.landing / "relation_events").iterdir()) == [
        "2024-01-02",
        "2024-01-03",
    ]


def test_a_later_file_widens_what_is_expected(source: Source):
    source.write("orders.txt", HEADER, "e1|13800000001|ring|1|20240105101112|")
    source.land()
    source.write("orders.txt", HEADER, "e2|13800000001|ring|3|20240108101112|")
    source.land(date_from=date(2024, 1, 6))
    lines = (source.settings.home / "expected_extracts.csv").read_text().splitlines()
    assert lines[1:] == ["relation_events,acme,daily,2024-01-05,2024-01-08"]


def test_the_first_expected_file_keeps_what_was_expected_without_it(source: Source):
    for day in ("2024-01-03", "2024-01-02"):
        folder = source.settings.landing / "sms_usage" / day
        folder.mkdir(parents=True)
        (folder / f"sms_usage_{day.replace('-', '')}_bj_d2.manifest.json").write_text("{}")
    source.write("orders.txt", HEADER, "e1|13800000001|ring|1|20240105101112|")
    source.land()
    assert (source.settings.home / "expected_extracts.csv").read_text().splitlines()[1:] == [
        "sms_usage,bj,daily,2024-01-02,",
        "relation_events,acme,daily,2024-01-05,2024-01-05",
    ]


def test_a_source_name_in_use_by_others_is_refused(source: Source):
    folder = source.settings.landing / "relation_events/2024-01-05"
    folder.mkdir(parents=True)
    (folder / "relation_events_20240105_acme.manifest.json").write_text("{}")
    source.write("orders.txt", HEADER, "e1|13800000001|ring|1|20240105101112|")
    with pytest.raises(InputFileError, match="somebody else"):
        source.land()


def limit_of(source: Source, percent: int) -> None:
    text = EVENTS.replace("quarantine_limit_percent: 60", f"quarantine_limit_percent: {percent}")
    source.mapping.write_text(text, encoding="utf-8")


@pytest.mark.parametrize(("bad", "lands"), [(1, True), (2, False)])
def test_more_refused_rows_than_the_limit_land_nothing(source: Source, bad: int, lands: bool):
    limit_of(source, 10)
    rows = [f"e{number}|13800000001|ring|{9 if number < bad else 1}|20240105101112|" for number in range(10)]
    source.write("orders.txt", HEADER, *rows)
    if lands:
        assert source.land().files[0].quarantined == bad
    else:
        with pytest.raises(InputFileError, match=f"{bad} bad_code action"):
            source.land()
        assert source.everything() == {}


def test_an_open_quote_at_the_end_is_never_a_small_loss(source: Source):
    limit_of(source, 10)
    rows = [f"e{number}|13800000001|ring|1|20240105101112|" for number in range(10)]
    rows[3] = rows[3].replace("ring", '"ring')
    source.write("orders.txt", HEADER, *rows)
    with pytest.raises(InputFileError, match="7: 7 bad_quotes"):
        source.land()


@pytest.mark.parametrize(
    ("header", "said"),
    [
        ("id|phone|product|kind|at", "confirmed 0 times"),
        (f"{HEADER}|id", "id 2 times"),
        (HEADER.replace("|", ","), "id"),
    ],
)
def test_a_header_without_the_mapped_columns_is_refused(source: Source, header: str, said: str):
    source.write("orders.txt", header, "e1|13800000001|ring|1|20240105101112|")
    with pytest.raises(InputFileError, match=said):
        source.land()


def test_columns_are_read_by_name_and_others_reported(source: Source):
    source.write("orders.txt", "extra|confirmed|at|kind|product|phone|id", "x||20240105101112|1|ring|13800000001|e1")
    summary = source.land()
    assert summary.files[0].unmapped_columns == ["extra"]
    assert source.records("relation_events", "2024-01-05")[0]["msisdn"] == "13800000001"


def test_a_file_without_header_is_read_by_position(source: Source):
    text = EVENTS.replace('delimiter: "|"', 'delimiter: "|"\n    header: false')
    source.mapping.write_text(text, encoding="utf-8")
    source.write("orders.txt", "e1|13800000001|ring|1|20240105101112|")
    assert source.land().files[0].rows == 1
    assert source.records("relation_events", "2024-01-05")[0]["event_id"] == "e1"


def test_what_a_killed_landing_left_is_cleared(source: Source):
    leftover = source.settings.landing / ".land" / "orders.utf8"
    leftover.parent.mkdir(parents=True)
    leftover.write_text("13800000001")
    half = source.settings.landing / "relation_events/2024-01-05/relation_events_20240105_acme.csv"
    half.parent.mkdir(parents=True)
    half.write_text("half a file")
    source.write("orders.txt", HEADER, "e1|13800000001|ring|1|20240105101112|")
    source.land()
    assert not leftover.parent.exists()
    assert source.records("relation_events", "2024-01-05")[0]["event_id"] == "e1"


def test_two_landings_never_run_at_once(source: Source):
    import fcntl

    source.settings.warehouse_folder.mkdir(parents=True)
    source.write("orders.txt", HEADER, "e1|13800000001|ring|1|20240105101112|")
    with (source.settings.warehouse_folder / "land.lock").open("a") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(InputFileError, match="another one at work"):
            source.land()
    assert source.land().deliveries_written == 1


def test_a_missing_file_is_named(source: Source):
    with pytest.raises(InputFileError, match=r"orders\.txt"):
        source.land()


def test_a_wild_date_does_not_open_thousands_of_days(source: Source):
    source.write("orders.txt", HEADER, "e1|13800000001|ring|1|19000105101112|", "e2|13800000001|ring|1|20240105101112|")
    with pytest.raises(InputFileError, match="period"):
        source.land()


@pytest.mark.parametrize(
    ("last", "quarantined"), [("2024-01-05", [(3, "outside_period", "business_date")]), ("2024-01-06", [])]
)
def test_rows_outside_the_declared_period_are_quarantined(source: Source, last: str, quarantined: list):
    text = EVENTS.replace("files:", f"period: {{first: 2024-01-04, last: {last}}}\nfiles:", 1)
    source.mapping.write_text(text, encoding="utf-8")
    source.write("orders.txt", HEADER, "e1|13800000001|ring|1|20240104101112|", "e2|13800000001|ring|1|20240106000000|")
    source.land()
    assert source.rejected() == quarantined


def test_texts_of_mapping_and_file_never_become_sql(source: Source):
    hostile = "'); drop table x; --\""
    text = EVENTS.replace("ring:", f"'{hostile.replace(chr(39), chr(39) * 2)}':").replace("[id,", "['i\"d; select 1',")
    text = text.replace("key: [id]", "key: ['i\"d; select 1']").replace("event_id: id", "event_id: 'i\"d; select 1'")
    source.mapping.write_text(text, encoding="utf-8")
    quoted = hostile.replace('"', '""')
    source.write(
        "orders.txt",
        '"i""d; select 1"|phone|product|kind|at|confirmed',
        f'"{quoted}"|13800000001|"{quoted}"|1|20240105101112|',
    )
    source.land()
    (record,) = source.records("relation_events", "2024-01-05")
    assert (record["event_id"], record["service_code"]) == (hostile, "2001")


MONEY = """
source: acme
description: refunds and prices in other units
identity: msisdn
consent: as_delivered
quarantine_limit_percent: 100
period: {first: 2024-01-01, last: 2024-01-31}
files:
  refunds:
    name: refunds.csv
    columns: [id, phone, amount, day, month]
records:
  - extract: refunds
    from: refunds
    day: {column: day, time: ["%Y-%m-%d"]}
    columns:
      refund_id: id
      msisdn: phone
      sp_code: {constant: "100001"}
      service_code: {constant: "2001"}
      billing_month: {column: month, time: ["%Y%m"]}
      amount_li: {column: amount, unit: UNIT}
      times: {constant: "1"}
  - extract: service_catalogue
    day: first
    rows:
      - {sp_code: "100001", service_code: "2001", service_name: "Ring, ring", service_class: sms, is_portal: "false",
         billing_type: monthly, monthly_fee_li: "8000", valid_from: "2023-01-01"}
"""


@pytest.mark.parametrize(
    ("unit", "amount", "li"),
    [
        ("yuan", "8", "8000"),
        ("yuan", "8.001", "8001"),
        ("yuan", "8.0010", "8001"),
        ("yuan", "8.0011", None),
        ("yuan", "0.1", "100"),
        ("yuan", "-2.50", "-2500"),
        ("yuan", "123456789012.345", "123456789012345"),
        ("yuan", "1e3", None),
        ("yuan", "8,00", None),
        ("yuan", ".5", None),
        ("fen", "8", "80"),
        ("fen", "8.1", "81"),
        ("fen", "8.11", None),
        ("li", "8", "8"),
        ("li", "8.0", "8"),
        ("li", "8.1", None),
    ],
)
def test_money_becomes_whole_li_or_is_refused(source: Source, unit: str, amount: str, li: str | None):
    source.mapping.write_text(MONEY.replace("UNIT", unit), encoding="utf-8")
    source.write("refunds.csv", "id,phone,amount,day,month", f'r1,13800000001,"{amount}",2024-01-05,202312')
    source.land()
    records = source.records("refunds", "2024-01-05")
    assert [record["amount_li"] for record in records] == ([] if li is None else [li])
    assert source.rejected("refunds.csv") == ([(2, "bad_number", "amount_li")] if li is None else [])


def test_constant_rows_are_delivered_once_and_optional(source: Source):
    source.mapping.write_text(MONEY.replace("UNIT", "fen"), encoding="utf-8")
    source.write("refunds.csv", "id,phone,amount,day,month", "r1,13800000001,5,2024-01-05,202312")
    source.land()
    (row,) = source.records("service_catalogue", "2024-01-01")
    assert (row["service_name"], row["monthly_fee_li"], row["status"]) == ("Ring, ring", "8000", "")
    assert source.records("refunds", "2024-01-05")[0]["billing_month"] == "2023-12-01"
    assert (source.settings.home / "expected_extracts.csv").read_text().splitlines()[1:] == [
        "refunds,acme,daily,2024-01-01,2024-01-31",
        "service_catalogue,acme,optional,2024-01-01,",
    ]
    assert ingest(date(2024, 1, 1), date(2024, 1, 31), source.settings).accepted == 32


def test_services_that_contradict_each_other_are_refused(source: Source):
    doubled = MONEY.replace("UNIT", "fen") + MONEY[MONEY.index("      - {sp_code") :].replace("8000", "9000")
    source.mapping.write_text(doubled, encoding="utf-8")
    source.write("refunds.csv", "id,phone,amount,day,month", "r1,13800000001,5,2024-01-05,202312")
    with pytest.raises(InputFileError, match="2 different rows for 100001, 2001"):
        source.land()


LOOKUP = """
source: acme
description: usage that names only the order
identity: opaque
consent: as_delivered
quarantine_limit_percent: 100
files:
  orders:
    name: orders.csv
    columns: [order, product]
    key: [order]
    derive:
      service: {column: product, codes: {A: "2001"}}
  use:
    name: use.csv
    columns: [order, day, hits]
    lookups:
      bought: {file: orders, match: {order: order}, required: REQUIRED}
records:
  - extract: wap_usage
    from: use
    columns:
      msisdn: order
      sp_code: {constant: "100001"}
      service_code: bought.service
      accessed_at: {column: day, time: ["%Y-%m-%d"]}
      status: {constant: ok}
      hits: hits
      fee_li: {constant: "0"}
"""


@pytest.mark.parametrize(
    ("required", "rejected"),
    [
        ("true", [(3, "no_match", ""), (4, "bad_code", "service_code")]),
        ("false", [(4, "bad_code", "service_code")]),
    ],
)
def test_a_looked_up_value_brings_its_own_doubt_along(source: Source, required: str, rejected: list):
    source.mapping.write_text(LOOKUP.replace("REQUIRED", required), encoding="utf-8")
    source.write("orders.csv", "order,product", "o1,A", "o2,Z")
    source.write("use.csv", "order,day,hits", "o1,2024-01-05,3", "o3,2024-01-05,4", "o2,2024-01-05,5")
    source.land()
    assert source.rejected("use.csv") == rejected
    found = [(one["msisdn"], one["service_code"]) for one in source.records("wap_usage", "2024-01-05")]
    assert found == ([("o1", "2001")] if required == "true" else [("o1", "2001"), ("o3", "")])


# --- RavenStack -------------------------------------------------------------------------------------------------

REPOSITORY = Path(__file__).resolve().parents[2]
SAMPLE = REPOSITORY / "tests" / "fixtures" / "ravenstack"
ORIGINAL = REPOSITORY.parent / "shared" / "data" / "ravenstack"


def test_ravenstack_sample_keeps_each_subscription_and_counts_what_is_odd(tmp_path: Path):
    settings = Settings(home=tmp_path / "home")
    summary = land("ravenstack", SAMPLE, settings)
    assert [(file.rows, file.placed, file.quarantined) for file in summary.files] == [(2, 0, 0), (6, 6, 0), (11, 11, 0)]
    odd = {oddity.what: oddity.rows for oddity in summary.oddities}
    assert odd == {
        "use before its subscription starts": 2,
        "use after its subscription ends": 1,
        "use that counts zero accesses": 1,
        "use that takes no time": 1,
        "use with at least as many errors as accesses": 2,
        "subscription that ends before it starts": 0,
        "subscription that ends on the day it starts": 2,
        "subscription without a fee that is no trial": 0,
        "trial subscription (free in the source)": 1,
        "subscription that starts before its account signed up": 0,
    }
    extracts = {count.extract: (count.records, count.added_up) for count in summary.extracts}
    assert extracts == {
        "relation_events": (9, 0),
        "wap_usage": (10, 1),
        "service_catalogue": (5, 0),
        "service_providers": (1, 0),
    }
    ingested = ingest(date(2023, 1, 1), date(2024, 12, 31), settings)
    assert (ingested.accepted, ingested.rows_quarantined, ingested.rows_duplicate) == (731 * 2 + 2, 0, 0)


def records_of(settings: Settings, extract: str) -> list[dict[str, str]]:
    records = []
    for path in sorted((settings.landing / extract).glob("*/*.csv")):
        with path.open(encoding="utf-8", newline="") as text:
            records += csv.DictReader(text)
    return records


def foreign(name: str) -> list[dict[str, str]]:
    with (ORIGINAL / name).open(encoding="utf-8", newline="") as text:
        return list(csv.DictReader(text))


@pytest.mark.skipif(not ORIGINAL.is_dir(), reason="the original data set is not beside the repository")
def test_ravenstack_original_row_by_row(tmp_path: Path):
    """An independent reading of the original in plain Python gives the same records."""
    settings = Settings(home=tmp_path / "home")
    before = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in ORIGINAL.iterdir()}
    summary = land("ravenstack", ORIGINAL, settings)
    assert {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in ORIGINAL.iterdir()} == before

    subscriptions = {row["subscription_id"]: row for row in foreign("subscriptions.csv")}
    countries = {row["account_id"]: row["country"] for row in foreign("accounts.csv")}
    usages = foreign("feature_usage.csv")

    def service(row: dict[str, str]) -> str:
        plan = "Ent" if row["plan_tier"] == "Enterprise" else row["plan_tier"]
        return f"{plan}-{'T' if row['is_trial'] == 'True' else ''}{row['seats']}"

    expected_events = {
        (key, "order", service(row), f"{row['start_date']} 00:00:00", countries[row["account_id"]])
        for key, row in subscriptions.items()
    } | {
        (key, "cancel", service(row), f"{row['end_date']} 24:00:00", countries[row["account_id"]])
        for key, row in subscriptions.items()
        if row["end_date"]
    }
    events = records_of(settings, "relation_events")
    assert len(events) == 5486
    assert {
        (one["msisdn"], one["action"], one["service_code"], one["event_time"], one["province"]) for one in events
    } == expected_events
    assert all((one["confirmed_at"] == one["event_time"]) == (one["action"] == "order") for one in events)

    fees = {one["service_code"]: int(one["monthly_fee_li"]) for one in records_of(settings, "service_catalogue")}
    assert all(fees[service(row)] == int(row["mrr_amount"]) * 1000 for row in subscriptions.values())

    expected_hits: dict[tuple[str, str, str], int] = {}
    for use in usages:
        key = (
            use["subscription_id"], service(subscriptions[use["subscription_id"]]), f"{use['usage_date']} 00:00:00"
        )  # fmt: skip
        expected_hits[key] = expected_hits.get(key, 0) + int(use["usage_count"])
    hits = {
        (one["msisdn"], one["service_code"], one["accessed_at"]): int(one["hits"])
        for one in records_of(settings, "wap_usage")
    }
    assert hits == expected_hits

    odd = {oddity.what: oddity.rows for oddity in summary.oddities}
    outside = sum(
        use["usage_date"] < subscriptions[use["subscription_id"]]["start_date"]
        or use["usage_date"] > (subscriptions[use["subscription_id"]]["end_date"] or "9999")
        for use in usages
    )
    assert odd["use before its subscription starts"] + odd["use after its subscription ends"] == outside == 19432
    shutil.rmtree(settings.home)
