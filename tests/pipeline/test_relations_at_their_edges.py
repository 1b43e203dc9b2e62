"""Relations where deliveries meet: snapshots of several sources, and records that say more than they should."""

from datetime import date
from pathlib import Path

from cleanbill.ingest import ingest
from cleanbill.settings import get_settings

from tests.compare import assert_marts_equal
from tests.oracle.test_oracle import NUMBER, Hand
from tests.pipeline.conftest import data_root
from tests.replay import Recording

ALL_DAYS = (date(1990, 1, 1), date(2100, 1, 1))
OTHER = "13800009999"
DAY_0 = date(2026, 3, 1)


def stock_row(msisdn: str, ordered_at: str = "2025-01-05 00:00:00", service: str = "S1", **more: str) -> dict:
    row = {"msisdn": msisdn, "sp_code": "900001", "service_code": service, "status": "active", "province": "bj"}
    return row | {"first_ordered_at": ordered_at, "ordered_at": ordered_at, "confirmed_at": ordered_at} | more


def build(recording: Recording, home: Path) -> list[tuple]:
    """Build what arrived, hold it against the oracle and return the findings as (service, reason, source, date)."""
    ingest(*ALL_DAYS)
    recording.build()
    found = assert_marts_equal(home, get_settings().warehouse).rows("relation_event_findings")
    return sorted((row["service_code"], row["reason"], row["source"], str(row["business_date"])) for row in found)


def test_what_one_source_says_late_leaves_what_another_said(recording: Recording, tmp_path: Path) -> None:
    """A relation that bj's snapshot names is not missing because only sh's file of the same date is new."""
    with data_root(tmp_path / "home") as home:
        hand = Hand(home, "2026-03-01", "2026-03-03")
        hand.add("relation_snapshot", "2026-03-01", **stock_row(NUMBER)).write()
        assert build(recording, home) == []
        hand.deliver("relation_snapshot", DAY_0, [stock_row(OTHER)], source="sh")
        assert build(recording, home) == []
        # sh takes its relation back: nothing but the snapshot ever named it. bj forgets its one on the 3rd.
        hand.deliver("relation_snapshot", DAY_0, [], 2, source="sh")
        hand.deliver("relation_snapshot", date(2026, 3, 3), [], source="sh")
        assert build(recording, home) == [("S1", "snapshot_disagrees", "bj", "2026-03-03")]
        hand.deliver("relation_snapshot", date(2026, 3, 3), [stock_row(NUMBER)])
        assert build(recording, home) == []


def test_records_that_say_more_than_they_should(recording: Recording, tmp_path: Path) -> None:
    with data_root(tmp_path / "home") as home:
        hand = Hand(home, "2026-03-01", "2026-03-31")
        # Only a replace names the service it replaces: the snapshot opens S1 of this subscriber.
        hand.event("1", "order", "2026-03-01 10:00:00", "W1", old_service_code="S1")
        hand.add("relation_snapshot", "2026-03-02", **stock_row(NUMBER))
        # An order dated after the snapshot's midnight: the pauses belong to the spell they happened in.
        hand.add("relation_snapshot", "2026-03-02", **stock_row(OTHER, "2026-03-20 00:00:00"))
        for event_id, action, day in (("2", "suspend", 3), ("3", "cancel", 4), ("4", "order", 5), ("5", "suspend", 6)):
            hand.event(event_id, action, f"2026-03-{day:02} 10:00:00", msisdn=OTHER)
        hand.write()
        # W1, ordered before it, and the order of the future lie beside the snapshot; the latter opened, so agrees.
        assert build(recording, home) == [("W1", "snapshot_disagrees", "bj", "2026-03-02")]
        bills = assert_marts_equal(home, get_settings().warehouse).rows("billing_dispositions")
        april = {(row["service_code"], row["disposition"]) for row in bills if row["billing_month"] == date(2026, 4, 1)}
        assert april == {("S1", "abnormal"), ("W1", "abnormal"), ("S1", "suspended")}
