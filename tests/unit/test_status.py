"""Status: what each part says, and that a missing or locked part is a note."""

import subprocess
import sys
from datetime import date

import duckdb
from cleanbill import billing_feed
from cleanbill.control import open_warehouse
from cleanbill.day_ranges import as_ranges, in_words
from cleanbill.gate_report import folder_name
from cleanbill.settings import get_settings
from cleanbill.status import read_status

from tests.feed_warehouse import AS_OF, MONTH, make_warehouse

DAYS = [date(2026, 10, day) for day in (3, 7, 8, 9, 31)] + [date(2026, 11, 1)]


def test_consecutive_days_are_joined():
    ranges = as_ranges(reversed(DAYS))
    assert ranges == [
        (date(2026, 10, 3), date(2026, 10, 3)),
        (date(2026, 10, 7), date(2026, 10, 9)),
        (date(2026, 10, 31), date(2026, 11, 1)),
    ]
    assert in_words(ranges) == "2026-10-03, 2026-10-07…2026-10-09, 2026-10-31…2026-11-01"
    assert as_ranges([]) == []


def test_every_part_of_a_data_root(cleanbill_home):
    make_warehouse()
    with open_warehouse(get_settings()) as connection:
        connection.execute(
            "create table marts.extract_completeness as select * from (values "
            "('sms_usage', 'bj', date '2026-10-07', 'missing'), ('sms_usage', 'bj', date '2026-10-08', 'missing'), "
            "('sms_usage', 'bj', date '2026-10-09', 'delivered'), ('refunds', 'bj', date '2026-10-09', 'waived')"
            ") as t(extract, source, day, status)"
        )
        connection.execute(
            "insert into control.deliveries by name select * replace (2 as delivery, 'rejected' as status, "
            "'rows_differ' as reason_code) from control.deliveries where business_date = date '2026-10-15'"
        )
        connection.execute(
            "insert into control.gate_records values "
            "('run 1', 'raw', false, 1, 0, 'x', '2026-11-01 03:00:00'), "
            "('run 2', 'raw', true, 0, 1, 'x', '2026-11-01 04:00:00')"
        )
        connection.execute(
            "insert into control.gate_results by position values ('run 2', 'raw', 'deliveries', 'rows are conserved', "
            "'warning', false, '1 such rows', 'none', 1, 'look', '2026-11-01 04:00:00')"
        )
    billing_feed.prepare_month(MONTH)
    billing_feed.draft_feed(MONTH)
    status = read_status()
    assert status.as_of == AS_OF
    (pair,) = status.delivered
    assert (pair.extract, pair.source, pair.days, pair.rows_loaded) == ("relation_events", "bj", 3, 3)
    (missing,) = status.missing
    assert (missing.extract, missing.source, missing.days) == ("sms_usage", "bj", 2)
    (refused,) = status.refused
    assert (refused.delivery, refused.status, refused.reason) == (2, "rejected", "rows_differ")
    (gate,) = status.gates
    assert (gate.run_id, gate.passed) == ("run 2", True)
    assert gate.failures == ("warning deliveries: rows are conserved (1 such rows)",)
    assert status.newest_report is None
    page = cleanbill_home / "reports" / "gates" / folder_name("run 2") / "index.html"
    page.parent.mkdir(parents=True)
    page.touch()
    assert read_status().newest_report == page
    (month,) = status.exported
    assert (month.month, month.state, month.as_of) == ("2026-11", "draft", "2026-10-31")
    assert (month.charges, month.charged_li) == (5, 19000)


def test_a_locked_warehouse_is_a_note_and_the_published_marts_still_answer(cleanbill_home, monkeypatch):
    make_warehouse()
    monkeypatch.setattr("cleanbill.status.LOCK_WAIT_SECONDS", 0.2)
    published = get_settings().published_marts
    published.parent.mkdir(parents=True)
    with duckdb.connect(str(published)) as connection:
        connection.execute(
            "create table mart_info as select date '2026-10-30' as as_of, "
            "timestamp '2026-10-31 03:00:00' as published_at"
        )
        connection.execute(
            "create table extract_completeness as select 'refunds' as extract, 'bj' as source, "
            "date '2026-10-01' as day, 'missing' as status"
        )
    holder = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import duckdb, sys; c = duckdb.connect(sys.argv[1]); print(1, flush=True); input()",
            str(get_settings().warehouse),
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    holder.stdout.readline()
    try:
        status = read_status()
    finally:
        holder.communicate(b"\n")
    assert any("holds the warehouse" in note for note in status.notes)
    assert status.published_as_of == date(2026, 10, 30)
    assert [missing.extract for missing in status.missing] == ["refunds"]
    assert status.delivered == []


def test_a_build_that_never_ended_is_said(cleanbill_home):
    make_warehouse()
    assert not any("has not ended" in note for note in read_status().notes)
    with open_warehouse(get_settings()) as connection:
        connection.execute("insert into control.build_under_way values (date '2026-11-01')")
    assert any("has not ended" in note for note in read_status().notes)


def test_a_damaged_manifest_is_a_note(cleanbill_home):
    make_warehouse()
    billing_feed.prepare_month(MONTH)
    (billing_feed.draft_feed(MONTH) / "manifest.json").write_text("{")
    status = read_status()
    assert status.exported == []
    assert any("manifest" in note for note in status.notes)


def test_published_marts_that_cannot_be_read_are_a_note(cleanbill_home):
    settings = get_settings()
    settings.marts.mkdir()
    settings.published_marts.write_bytes(b"no database at all")
    (note,) = [note for note in read_status().notes if "marts.duckdb" in note]
    assert "cannot be read (IOException)" in note
