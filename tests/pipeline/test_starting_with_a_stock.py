"""The first-day guide of the README on a small world: a snapshot of day 0, then days without a trace of some of it."""

import csv
import gzip
import hashlib
import json
from datetime import date
from pathlib import Path

import pytest
from cleanbill.errors import FeedError
from cleanbill.ingest import ingest
from cleanbill.settings import get_settings
from cleanbill.startup_reminders import write_startup_reminders

from tests.compare import assert_marts_equal
from tests.oracle.test_oracle import Hand
from tests.pipeline.conftest import data_root
from tests.replay import Recording, table_rows

ALL_DAYS = (date(1990, 1, 1), date(2100, 1, 1))
START = date(2026, 5, 1)


def stock_row(number: int, service: str, ordered_at: str, **more: object) -> dict:
    row = {"msisdn": f"1380000{number:04d}", "sp_code": "900001", "service_code": service, "status": "active"}
    row |= {"first_ordered_at": ordered_at, "ordered_at": ordered_at, "confirmed_at": ordered_at, "province": "bj"}
    return row | more


def start_with_a_stock(home: Path) -> Hand:
    hand = Hand(home, "2026-03-01", "2026-04-30")
    rows = [stock_row(number, "S1", "2025-06-01 10:00:00") for number in range(40)]
    rows += [stock_row(number, "W1", "2025-06-01 10:00:00") for number in range(10)]
    hand.rows["relation_snapshot", hand.first] = rows
    for number, time in enumerate(("2026-04-30 23:59:59", "2026-05-01 00:00:00")):
        hand.event(f"o{number}", "order", time, msisdn=f"1390000000{number}", day="2026-04-30")
    hand.event("c1", "cancel", "2026-04-30 23:59:59", msisdn="13800000000", day="2026-04-30")
    hand.event("c2", "cancel", "2026-05-01 00:00:00", msisdn="13800000001", day="2026-04-30")
    return hand.write()


def lines_of(folder: Path) -> list[dict]:
    lines = []
    for path in sorted(folder.glob("*.csv.gz")):
        with gzip.open(path, "rt", encoding="utf-8", newline="") as file:
            lines += list(csv.DictReader(file))
    return lines


def test_the_first_day_guide(recording: Recording, tmp_path: Path) -> None:
    with data_root(tmp_path / "home") as home:
        start_with_a_stock(home)
        ingest(*ALL_DAYS)
        recording.build()
        assert_marts_equal(home, get_settings().warehouse)
        tables = table_rows(get_settings().warehouse, ("marts", "intermediate"))
        spells = [row for row in tables["marts.subscriptions"] if row[8].year == 2025]
        assert len(spells) == 50
        # Disuse is observed from the first usage day on, though the orders are older.
        stock = {row[0] for row in spells}
        observed = {row[5:7] for row in tables["marts.anomalous_subscriptions"] if row[0] in stock}
        assert observed == {(date(2026, 3, 1), date(2026, 3, 31))}
        # Silence is unknown while its window begins before the data, and that stops no bill.
        verdicts = {(row[5], row[4], row[9]) for row in tables["marts.silent_subscriptions"] if row[0] in stock}
        assert (date(2026, 4, 1), "sms", "silent") in verdicts
        assert {verdict for month, of, verdict in verdicts if month <= date(2026, 3, 1) or of == "wap"} == {"unknown"}
        assert tables["intermediate.int_billing_blockers"] == []

        written = write_startup_reminders(START)
        lines = lines_of(written.folder)
        due = {(line["msisdn"], line["service_code"]) for line in lines}
        assert len(lines) == len(due) == written.relations == 50
        assert ("13800000000", "S1") not in due  # ended before the end of the as-of date
        assert ("13800000001", "S1") in due  # its end is an act of the day after
        assert ("13900000000", "S1") in due
        assert ("13900000001", "S1") not in due
        assert {line["monthly_fee_li"] for line in lines} == {"5000"}
        days = {line["batch_day"] for line in lines}
        assert min(days) >= "2026-05-01"
        assert max(days) <= "2026-06-30"
        assert len({(line["msisdn"], line["batch_day"]) for line in lines}) == written.subscribers


def test_the_list_is_sealed_and_the_same_again(recording: Recording, tmp_path: Path) -> None:
    with data_root(tmp_path / "home") as home:
        with pytest.raises(FeedError, match="a finished build"):
            write_startup_reminders(START)
        start_with_a_stock(home)
        ingest(*ALL_DAYS)
        recording.build()
        folder = write_startup_reminders(START).folder
        before = {path.name: path.read_bytes() for path in folder.iterdir()}
        assert (folder / "_SUCCESS").read_text().strip() == hashlib.sha256(before["manifest.json"]).hexdigest()
        for entry in json.loads(before["manifest.json"])["files"]:
            assert hashlib.sha256(before[entry["name"]]).hexdigest() == entry["sha256"]
        assert len(before) == 61 + 2
        assert {path.stat().st_mode & 0o077 for path in (folder, *folder.iterdir())} == {0}
        assert write_startup_reminders(START).was_there
        recording.build(as_of=date(2026, 4, 29))
        with pytest.raises(FeedError, match="another one"):
            write_startup_reminders(START)
        assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
        assert [path.name for path in folder.parent.iterdir()] == ["2026-05"]
