"""The preview of the next bill: held against the oracle day by day, and against the bill that then comes."""

from datetime import date, timedelta
from pathlib import Path

import pytest
from cleanbill.ingest import ingest
from cleanbill.settings import get_settings

from tests.compare import assert_marts_equal
from tests.oracle.landing import read_landing
from tests.oracle.test_oracle import Hand
from tests.pipeline.conftest import data_root
from tests.replay import Recording, table_rows
from tests.worlds import write_world

ALL_DAYS = (date(1990, 1, 1), date(2100, 1, 1))
ONE_DAY = timedelta(days=1)
COMPARED = ["billing_preview", "billing_preview_stops", "billing_dispositions", "silent_subscriptions"]


def marts() -> dict[str, list[tuple]]:
    return table_rows(get_settings().warehouse)


@pytest.mark.parametrize("seed", [3])
def test_day_by_day_the_preview_equals_the_oracle(recording: Recording, tmp_path: Path, seed: int) -> None:
    """From the day before the first preview to the day after the month, with holes, resends and a jump."""
    with data_root(tmp_path / "home") as home:
        write_world(seed, home, months=2, start=date(2026, 4, 1), subscribers=20)
        ingest(*ALL_DAYS)
        landing = read_landing(home)
        for day in (19, 20, 21, 25, 29, 30, 31):
            as_of = date(2026, 5, 1) if day == 31 else date(2026, 4, day)
            recording.build(as_of=as_of)
            assert_marts_equal(home, get_settings().warehouse, as_of, COMPARED, landing)


def test_uneventful_days_make_the_preview_the_bill(recording: Recording, tmp_path: Path) -> None:
    """One relation is abnormal, one is about to be: seen on the 20th, and on the last day, when it is the bill."""
    with data_root(tmp_path / "home") as home:
        hand = Hand(home, "2026-03-01", "2026-04-30")
        hand.event("1", "order", "2026-03-25 10:00:00")  # never used: detected on 24 April
        hand.event("2", "order", "2026-03-01 10:00:00", "W1")  # never used: abnormal since 31 March
        hand.write()
        ingest(*ALL_DAYS)
        recording.build(as_of=date(2026, 4, 19))
        assert marts()["marts.billing_preview"] == []
        recording.build(as_of=date(2026, 4, 20))
        preview = marts()["marts.billing_preview"]
        assert "open" in {row[-1] for row in preview}
        recording.build(as_of=date(2026, 4, 30))
        tables = marts()
        bill = [row for row in tables["marts.billing_dispositions"] if row[0] == date(2026, 5, 1)]
        assert [row[:-1] for row in preview] == bill == [row[:-1] for row in tables["marts.billing_preview"]]
        assert {row[-1] for row in tables["marts.billing_preview"]} == {"known"}


def test_a_missing_file_is_named_and_its_arrival_takes_it_off(recording: Recording, tmp_path: Path) -> None:
    with data_root(tmp_path / "home") as home:
        hand = Hand(home, "2026-03-01", "2026-04-25").event("1", "order", "2026-03-01 00:00:00")
        hand.message("2026-03-05 00:00:00")  # not abnormal
        (home / "expected_extracts.csv").write_text(
            "extract,source,schedule,valid_from,valid_to\nrelation_events,bj,daily,2026-03-01,\n"
            "sms_usage,bj,daily,2026-03-01,\nservice_catalogue,bj,daily,2026-03-01,\n"
        )
        hand.missing.add(("sms_usage", date(2026, 4, 9)))
        hand.write()
        ingest(*ALL_DAYS)
        recording.build()
        tables = marts()
        assert tables["marts.billing_preview_stops"] == [
            (date(2026, 5, 1), "sms_usage", "bj", date(2026, 4, 9), "unknown_usage", 1)
        ]
        assert [row[-1] for row in tables["marts.billing_preview"]] == ["unknown"]
        hand.missing.clear()
        hand.deliver("sms_usage", date(2026, 4, 9), [])
        ingest(*ALL_DAYS)
        recording.build()
        tables = marts()
        assert tables["marts.billing_preview_stops"] == []
        assert [row[6] for row in tables["marts.billing_preview"]] == ["silent"]
        assert_marts_equal(home, get_settings().warehouse, tables=COMPARED)
