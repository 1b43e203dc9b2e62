"""The oracle against cases worked out by hand: it must be right before it may judge the pipeline."""

import csv
import hashlib
import hmac
import io
import json
from datetime import date, datetime, timedelta
from pathlib import Path

import pytest

from tests.oracle import rules
from tests.oracle.feed import first_feed
from tests.oracle.landing import CONTRACT, BadRecord, parse_time, read_landing, split_records
from tests.oracle.marts import Oracle
from tests.worlds import write_world

KEY = "hand"
NUMBER = "13800001234"
DAY = timedelta(days=1)


def at(text: str) -> datetime:
    return datetime.fromisoformat(text)


class Hand:
    """A landing folder written by hand: records by business date, zero rows on all other days."""

    def __init__(self, home: Path, first: str, last: str):
        self.home = home
        self.first, self.last = date.fromisoformat(first), date.fromisoformat(last)
        self.rows: dict = {}
        self.missing: set = set()
        self.catalogue = [self.service("S1", "sms"), self.service("W1", "wap"), self.service("I1", "ivr")]

    @staticmethod
    def service(code: str, service_class: str, **more: object) -> dict:
        return {
            "sp_code": "900001",
            "service_code": code,
            "service_name": code,
            "service_class": service_class,
            "is_portal": "false",
            "billing_type": "monthly",
            "monthly_fee_li": 5000,
            "status": "active",
            "valid_from": "2000-01-01",
            **more,
        }

    def add(self, extract: str, day: str, **row: object) -> "Hand":
        self.rows.setdefault((extract, date.fromisoformat(day)), []).append(row)
        return self

    def event(self, event_id: str, action: str, time: str, service: str = "S1", **more: object) -> "Hand":
        row = {
            "event_id": event_id,
            "msisdn": NUMBER,
            "sp_code": "900001",
            "service_code": service,
            "action": action,
            "event_time": time,
            "confirmed_at": time,
            "province": "bj",
            **more,
        }
        return self.add("relation_events", row.pop("day", time[:10]), **row)

    def message(self, time: str, count: int = 1, **more: object) -> "Hand":
        row = {
            "msisdn": NUMBER,
            "sp_code": "900001",
            "service_code": "S1",
            "direction": "MT",
            "sent_at": time,
            "status": "ok",
            "purpose": "content",
            "message_count": count,
            "fee_li": 0,
        }
        return self.add("sms_usage", time[:10], **{**row, **more})

    def hit(self, time: str, **more: object) -> "Hand":
        row = {"msisdn": NUMBER, "sp_code": "900001", "service_code": "W1", "accessed_at": time, "status": "ok"}
        return self.add("wap_usage", time[:10], **{**row, "hits": 1, "fee_li": 0, **more})

    def write(self) -> "Hand":
        day = self.first
        named = {extract for extract, _ in [*self.rows, *self.missing]}
        always = {"relation_events", "service_catalogue", "sms_usage", "wap_usage", "gprs_usage"}
        while day <= self.last:
            for extract in sorted(named | always):
                rows = self.rows.get((extract, day), [])
                if extract == "service_catalogue":
                    rows = rows or self.catalogue
                if extract != "relation_snapshot" or rows:
                    self.deliver(extract, day, rows)
            day += DAY
        return self

    def deliver(
        self, extract: str, day: date, rows: list, delivery: int = 1, source: str = "bj", **manifest: object
    ) -> None:
        if (extract, day) in self.missing:
            return
        folder = self.home / "landing" / extract / day.isoformat()
        folder.mkdir(parents=True, exist_ok=True)
        stem = f"{extract}_{day:%Y%m%d}_{source}" + (f"_d{delivery}" if delivery > 1 else "")
        stream = io.StringIO()
        writer = csv.DictWriter(stream, list(CONTRACT[extract]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        raw = stream.getvalue().encode()
        (folder / f"{stem}.csv").write_bytes(raw)
        entry = {"name": f"{stem}.csv", "rows": len(rows), "bytes": len(raw), "sha256": hashlib.sha256(raw).hexdigest()}
        content = {
            "extract": extract,
            "business_date": day.isoformat(),
            "source": source,
            "delivery": delivery,
            "schema_version": 1,
            "files": [entry],
            **manifest,
        }
        (folder / f"{stem}.manifest.json").write_text(json.dumps(content))

    def oracle(self, as_of: str | None = None) -> Oracle:
        self.write()
        return Oracle(self.home, KEY, date.fromisoformat(as_of) if as_of else None)


def bills(oracle: Oracle) -> dict:
    """Return billing month -> disposition (of the one spell live then)."""
    return {f"{row['billing_month']:%Y-%m}": row["disposition"] for row in oracle.rows("billing_dispositions")}


# --------------------------------------------------------------------------------------------------- trial (R6)


def bills_by_statement_of_2007(first_order: datetime, month: date) -> bool:
    """A real billing system of 2007: ordered before the month, and before the 21st of the month before."""
    before = (month - DAY).replace(day=21)
    return first_order < datetime(month.year, month.month, 1) and first_order < datetime(before.year, before.month, 21)


def test_trial_equals_the_statement_of_2007():
    instant, end = datetime(2007, 1, 1), datetime(2008, 3, 1)
    while instant < end:
        for moment in (instant - timedelta(seconds=1), instant, instant + timedelta(seconds=1)):
            if moment.date() < rules.TRIAL_RULE_FROM:
                continue
            first = Oracle.first_billable_month(moment)
            months = [date(2007 + index // 12, index % 12 + 1, 1) for index in range(30)]
            assert first == next(month for month in months if bills_by_statement_of_2007(moment, month))
        instant += DAY


@pytest.mark.parametrize(
    ("first_order", "days", "billed"),
    [
        ("2006-07-21 00:00:00", 42, "2006-09-01"),
        ("2007-02-20 23:59:59", 8, "2007-03-01"),
        ("2007-07-20 23:59:59", 11, "2007-08-01"),
        ("2007-02-21 00:00:00", 39, "2007-04-01"),
        ("2007-03-01 00:00:00", 31, "2007-04-01"),
        ("2006-12-31 23:59:59", 31, "2007-02-01"),
    ],
)
def test_trial_length(first_order, days, billed):
    month = Oracle.first_billable_month(at(first_order))
    assert str(month) == billed
    length = datetime(month.year, month.month, 1) - at(first_order)
    assert length.days == days


@pytest.mark.parametrize(
    ("first_order", "billed"),
    [
        ("2006-06-28 00:00:00", "2006-07-01"),  # 72 hours end exactly then
        ("2006-06-28 00:00:01", "2006-08-01"),
        ("2006-07-09 23:59:59", "2006-08-01"),
        ("2006-07-10 00:00:00", "2006-08-01"),
        ("2006-06-30 23:59:59", "2006-08-01"),
    ],
)
def test_trial_before_the_notice_is_72_hours(first_order, billed):
    assert str(Oracle.first_billable_month(at(first_order))) == billed


# --------------------------------------------------------------------------------------------------- spells


def test_spells_with_suspensions_and_instants_at_the_first(tmp_path):
    hand = Hand(tmp_path, "2026-03-01", "2026-07-31")
    hand.event("1", "order", "2026-03-05 10:00:00")
    hand.event("2", "suspend", "2026-04-30 23:59:59")
    hand.event("3", "suspend", "2026-05-02 00:00:00")  # already suspended: nothing
    hand.event("4", "activate", "2026-06-01 00:00:00")  # counts for July: still suspended at June's 1st
    hand.event("5", "cancel", "2026-07-01 00:00:00")  # counts for August: July is still charged
    hand.event("6", "resume", "2026-07-02 00:00:00")
    hand.event("7", "order", "2026-08-01 00:00:00", day="2026-07-31")
    hand.message("2026-03-06 00:00:00", 4).message("2026-04-01 00:00:00", 4).message("2026-06-01 00:00:00", 4)
    oracle = hand.oracle()
    assert bills(oracle) == {
        "2026-04": "billed",
        "2026-05": "suspended",
        "2026-06": "suspended",
        "2026-07": "billed",
    }
    first, second = oracle.rows("subscriptions")
    assert (first["ended_at"], first["end_reason"], first["status"]) == (at("2026-07-01"), "cancel", "ended")
    assert (second["first_ordered_at"], second["ordered_at"]) == (at("2026-03-05T10:00:00"), at("2026-08-01"))
    assert second["first_billable_month"] == date(2026, 4, 1)  # a re-order never gets a second trial
    assert [(row["event_id"], row["reason"]) for row in oracle.rows("relation_event_findings")] == [
        ("6", "not_ordered")
    ]
    text = f"{NUMBER}|900001|S1|2026-03-05 10:00:00|1"
    assert first["subscription_id"] == hmac.new(KEY.encode(), text.encode(), hashlib.sha256).hexdigest()[:32]
    assert first["msisdn_masked"] == "138****1234"


def test_an_act_at_the_midnight_after_as_of_does_not_change_the_status(tmp_path):
    hand = Hand(tmp_path, "2026-03-01", "2026-03-31")
    hand.event("1", "order", "2026-03-05 10:00:00").event("2", "cancel", "2026-04-01 00:00:00", day="2026-03-31")
    (row,) = hand.oracle().rows("subscriptions")
    assert (row["status"], row["ended_at"]) == ("active", at("2026-04-01"))


def test_replace_and_cancel_all(tmp_path):
    hand = Hand(tmp_path, "2026-03-01", "2026-03-31")
    hand.event("1", "order", "2026-03-01 10:00:00")
    hand.event("2", "replace", "2026-03-02 10:00:00", "W1", old_service_code="S1")
    hand.event("3", "order", "2026-03-03 10:00:00", "I1")
    hand.event("4", "suspend_all", "2026-03-04 10:00:00", "")
    hand.event("5", "cancel_all", "2026-03-05 10:00:00", "")
    hand.event("6", "replace", "2026-03-06 10:00:00", "XX", old_service_code="YY")
    oracle = hand.oracle()
    ended = {row["service_code"]: (row["end_reason"], str(row["ended_at"])) for row in oracle.rows("subscriptions")}
    assert ended == {
        "S1": ("replace", "2026-03-02 10:00:00"),
        "W1": ("cancel_all", "2026-03-05 10:00:00"),
        "I1": ("cancel_all", "2026-03-05 10:00:00"),
        "XX": (None, "None"),
    }
    assert sorted(row["reason"] for row in oracle.rows("relation_event_findings")) == ["not_ordered", "unknown_service"]


def test_all_of_an_sp_without_an_open_relation_is_no_finding(tmp_path):
    hand = Hand(tmp_path, "2026-03-01", "2026-03-31")
    hand.event("1", "order", "2026-03-01 10:00:00").event("2", "cancel", "2026-03-02 10:00:00")
    hand.event("3", "cancel_all", "2026-03-03 10:00:00", "").event("4", "suspend_all", "2026-03-04 10:00:00", "")
    assert hand.oracle().rows("relation_event_findings") == []


def test_one_finding_per_event_and_reason(tmp_path):
    hand = Hand(tmp_path, "2026-03-01", "2026-03-31").event("1", "order", "2026-03-01 10:00:00")
    hand.event("2", "replace", "2026-03-03 10:00:00", "XX", old_service_code="YY")  # both unknown, YY not ordered
    hand.event("3", "replace", "2026-03-04 10:00:00", "S1", old_service_code="XX")  # S1 is open already
    found = {
        (row["event_id"], row["service_code"], row["reason"]) for row in hand.oracle().rows("relation_event_findings")
    }
    assert found == {
        ("2", "XX", "unknown_service"),
        ("2", "XX", "not_ordered"),
        ("3", "S1", "unknown_service"),  # the service it replaces is not in the catalogue
        ("3", "S1", "already_ordered"),
    }


def test_event_ids_count_once_and_conflicts_are_found(tmp_path):
    hand = Hand(tmp_path, "2026-03-01", "2026-03-31")
    hand.event("1", "order", "2026-03-05 10:00:00")
    hand.event("1", "order", "2026-03-05 10:00:00", msisdn="86" + NUMBER, day="2026-03-06")  # the same: a repeat
    hand.event("1", "cancel", "2026-03-05 10:00:00", day="2026-03-07")
    oracle = hand.oracle()
    assert [row["status"] for row in oracle.rows("subscriptions")] == ["active"]
    (finding,) = oracle.rows("relation_event_findings")
    assert (finding["reason"], finding["business_date"]) == ("conflicting_event", date(2026, 3, 7))


def test_snapshot_opens_what_no_event_names(tmp_path):
    hand = Hand(tmp_path, "2026-03-01", "2026-04-02")
    row = {"msisdn": NUMBER, "sp_code": "900001", "province": "bj"}
    old = {"ordered_at": "2025-01-05 00:00:00", "first_ordered_at": "2024-12-31 00:00:00", "status": "suspended"}
    hand.add("relation_snapshot", "2026-03-01", **row, service_code="S1", **old)
    hand.event("1", "order", "2026-03-01 00:00:00", "W1")  # at the snapshot's midnight: not before it
    hand.add("relation_snapshot", "2026-03-01", **row, service_code="W1", **{**old, "status": "active"})
    hand.add("relation_snapshot", "2026-04-01", **row, service_code="S1", **old)
    oracle = hand.oracle("2026-04-01")
    spells = {row["service_code"]: row for row in oracle.rows("subscriptions")}
    assert spells["S1"]["status"] == "suspended"
    assert spells["S1"]["first_billable_month"] == date(2025, 2, 1)
    assert spells["W1"]["ordered_at"] == at("2025-01-05")
    reasons = [(row["service_code"], row["reason"], row["event_id"]) for row in oracle.rows("relation_event_findings")]
    assert sorted(reasons, key=str) == [("W1", "already_ordered", "1"), ("W1", "snapshot_disagrees", None)]


# --------------------------------------------------------------------------------------------------- catalogue


def test_catalogue_versions(tmp_path):
    hand = Hand(tmp_path, "2026-03-01", "2026-03-31")
    for day in range(1, 32):
        fee, valid_from = (5000, "2000-01-01") if day < 10 else (6000, "2026-03-05")
        if day in (20, 21):
            hand.add("service_catalogue", f"2026-03-{day:02}", **Hand.service("W1", "wap"))
            continue
        row = Hand.service("S1", "sms", monthly_fee_li=fee, valid_from=valid_from)
        hand.add("service_catalogue", f"2026-03-{day:02}", **row)
    versions = [
        (row["service_code"], row["monthly_fee_li"], str(row["valid_from"]), str(row["valid_to"]))
        for row in hand.oracle().rows("dim_service")
    ]
    assert sorted(versions) == [
        ("S1", 5000, "2000-01-01", "2026-03-11"),  # the changed row holds from the day after its file
        ("S1", 6000, "2026-03-11", "2026-03-21"),  # absent from the file of the 20th
        ("S1", 6000, "2026-03-23", "None"),
        ("W1", 5000, "2026-03-21", "2026-03-23"),
    ]


def test_a_future_row_holds_from_its_valid_from(tmp_path):
    hand = Hand(tmp_path, "2026-03-01", "2026-03-31")
    future = Hand.service("S1", "sms", monthly_fee_li=7000, valid_from="2026-03-15")
    for day in range(1, 32):
        if day < 20:
            hand.add("service_catalogue", f"2026-03-{day:02}", **Hand.service("S1", "sms"))
        hand.add("service_catalogue", f"2026-03-{day:02}", **future)
    rows = [(row["monthly_fee_li"], str(row["valid_from"])) for row in hand.oracle().rows("dim_service")]
    assert rows == [(5000, "2000-01-01"), (7000, "2026-03-15")]


# --------------------------------------------------------------------------------------------------- anomalies


@pytest.mark.parametrize(
    ("use", "detected", "resolved"),
    [
        (None, "2026-04-04", None),
        ("2026-04-04 23:59:59", None, None),
        ("2026-04-05 00:00:00", "2026-04-04", "2026-04-05"),
        ("2026-03-05 09:59:59", "2026-04-04", None),
        ("2026-03-05 10:00:00", None, None),
    ],
)
def test_never_accessed(tmp_path, use, detected, resolved):
    hand = Hand(tmp_path, "2026-03-01", "2026-04-30")
    hand.event("1", "order", "2026-03-05 10:00:00")
    if use:
        hand.message(use, direction="MO")
    rows = hand.oracle().rows("anomalous_subscriptions")
    found = [(str(row["detected_on"]), row["resolved_on"] and str(row["resolved_on"])) for row in rows]
    assert found == ([(detected, resolved)] if detected else [])


@pytest.mark.parametrize(("end", "found"), [("2026-04-04 23:59:59", 0), ("2026-04-05 00:00:00", 1)])
def test_never_accessed_needs_the_spell_live_at_the_end_of_the_day(tmp_path, end, found):
    hand = Hand(tmp_path, "2026-03-01", "2026-04-30")
    hand.event("1", "order", "2026-03-05 10:00:00").event("2", "cancel", end)
    assert len(hand.oracle().rows("anomalous_subscriptions")) == found


def test_a_missing_day_makes_nobody_abnormal(tmp_path):
    hand = Hand(tmp_path, "2026-03-01", "2026-04-30")
    hand.event("1", "order", "2026-03-05 10:00:00").missing.add(("sms_usage", date(2026, 4, 4)))
    assert hand.oracle().rows("anomalous_subscriptions") == []


def test_no_traffic_reads_cmwap_of_the_subscriber(tmp_path):
    hand = Hand(tmp_path, "2026-03-01", "2026-04-30")
    hand.event("1", "order", "2026-03-05 10:00:00", "W1").hit("2026-03-06 00:00:00")
    hand.add(
        "gprs_usage",
        "2026-03-06",
        msisdn=NUMBER,
        apn="cmnet",
        started_at="2026-03-06 00:00:00",
        up_bytes=9,
        down_bytes=9,
    )
    hand.add(
        "gprs_usage",
        "2026-04-06",
        msisdn=NUMBER,
        apn="CmWap",
        started_at="2026-04-06 00:00:00",
        up_bytes=0,
        down_bytes=1,
    )
    (row,) = hand.oracle().rows("anomalous_subscriptions")
    assert (row["anomaly_type"], str(row["resolved_on"])) == ("no_traffic", "2026-04-06")
    assert row["report_to"] == "cooperation_service_centre"


@pytest.mark.parametrize(
    ("reported_at", "status"),
    [
        ("2026-04-09 23:59:59", "reported"),
        ("2026-04-10 00:00:00", "reported_late"),
        ("2026-03-05 09:59:59", "unreported"),
        ("2026-03-05 10:00:00", "reported"),
    ],
)
def test_report_status(tmp_path, reported_at, status):
    hand = Hand(tmp_path, "2026-03-01", "2026-04-30")
    hand.event("1", "order", "2026-03-05 10:00:00")
    hand.add(
        "sp_reports",
        reported_at[:10],
        report_id="n",
        sp_code="900001",
        service_code="S1",
        msisdn=NUMBER,
        reported_at=reported_at,
    )
    (row,) = hand.oracle().rows("anomalous_subscriptions")
    # Detected on Saturday 4 April; Monday the 6th is Qingming: due on Thursday the 9th.
    assert (str(row["due_on"]), row["report_status"], row["report_to"]) == ("2026-04-09", status, "bj")


def test_due_on_counts_make_up_days_and_estimates_beyond_the_calendar():
    assert rules.due_on(date(2026, 9, 17)) == (date(2026, 9, 21), False)  # Sunday the 20th is worked
    assert rules.due_on(date(2026, 9, 30)) == (date(2026, 10, 10), False)  # Saturday the 10th is worked
    assert rules.due_on(date(2026, 12, 28)) == (date(2026, 12, 31), False)
    assert rules.due_on(date(2026, 12, 29)) == (date(2027, 1, 1), True)


# --------------------------------------------------------------------------------------------------- silence


@pytest.mark.parametrize(("count", "verdict"), [(0, "silent"), (3, "silent"), (4, None)])
def test_silent_messages(tmp_path, count, verdict):
    hand = Hand(tmp_path, "2026-03-01", "2026-05-31")
    hand.event("1", "order", "2026-03-05 10:00:00")
    hand.message("2026-03-31 23:59:59").message("2026-05-01 00:00:00").message("2026-04-09 00:00:00", 9, direction="MO")
    hand.message("2026-04-09 00:00:00", 9, purpose="fee").message("2026-04-09 00:00:00", 9, status="failed")
    if count:
        hand.message("2026-04-01 00:00:00", count)
    rows = hand.oracle("2026-05-01").rows("silent_subscriptions")
    assert [(row["verdict"], row["mt_count"], str(row["billing_month"])) for row in rows] == (
        [(verdict, count, "2026-05-01")] if verdict else []
    )


def test_unknown_stops_billing_but_not_before_the_data_start(tmp_path):
    hand = Hand(tmp_path, "2026-03-02", "2026-05-31")
    hand.missing.add(("sms_usage", date(2026, 4, 30)))
    hand.add(
        "relation_snapshot",
        "2026-03-02",
        msisdn=NUMBER,
        sp_code="900001",
        service_code="S1",
        status="active",
        ordered_at="2026-02-05 00:00:00",
        confirmed_at="2026-02-05 00:00:00",
    )
    hand.message("2026-04-09 00:00:00", 1)
    oracle = hand.oracle()
    verdicts = {f"{row['billing_month']:%Y-%m}": row["verdict"] for row in oracle.rows("silent_subscriptions")}
    assert verdicts == {"2026-04": "unknown", "2026-05": "unknown", "2026-06": "silent"}
    assert oracle.blockers == {date(2026, 5, 1): {("unknown_usage", "sms_usage", "bj", date(2026, 4, 30))}}
    assert bills(oracle) == {"2026-03": "billed", "2026-04": "billed", "2026-05": "billed", "2026-06": "silent"}
    assert first_feed(tmp_path, KEY, date(2026, 5, 1)).blockers
    assert not first_feed(tmp_path, KEY, date(2026, 4, 1)).blockers


def test_a_day_on_which_nothing_is_expected_leaves_silence_undecided(tmp_path):
    hand = Hand(tmp_path, "2026-03-01", "2026-04-30").event("1", "order", "2026-03-01 00:00:00")
    hand.message("2026-03-05 00:00:00", 1)
    (tmp_path / "expected_extracts.csv").write_text(
        "extract,source,schedule,valid_from,valid_to\nrelation_events,bj,daily,2026-03-01,\n"
        "sms_usage,bj,daily,2026-03-01,2026-04-29\n"
    )
    oracle = hand.oracle()
    (row,) = [row for row in oracle.rows("silent_subscriptions") if row["billing_month"] == date(2026, 5, 1)]
    assert row["verdict"] == "unknown"
    assert oracle.blockers == {date(2026, 5, 1): {("unknown_usage", "sms_usage", None, date(2026, 4, 30))}}


def test_two_people_can_waive_a_missing_day(tmp_path):
    hand = Hand(tmp_path, "2026-03-01", "2026-04-30").event("1", "order", "2026-03-01 00:00:00")
    hand.message("2026-03-05 00:00:00", 1).missing.add(("sms_usage", date(2026, 4, 9)))
    hand.missing.add(("relation_events", date(2026, 4, 10)))
    waiver = "extract,source,day,reason,requested_by,approved_by,expires_on\nsms_usage,bj,2026-04-09,broken,ann,{},{}\n"
    hand.write()
    events = {("missing_day", "relation_events", "bj", date(2026, 4, 10))}
    usage = {("unknown_usage", "sms_usage", "bj", date(2026, 4, 9))}
    for approver, expires_on, left in (
        ("bob", "2026-04-30", events),
        ("bob", "2026-04-29", events | usage),
        ("ann", "2026-04-30", events | usage),
    ):
        (tmp_path / "waivers.csv").write_text(waiver.format(approver, expires_on))
        feed = first_feed(tmp_path, KEY, date(2026, 5, 1))
        assert feed.blockers == left
        assert [row["disposition"] for row in Oracle(tmp_path, KEY).rows("billing_dispositions")][-1] == "billed"


@pytest.mark.parametrize(
    ("ordered_at", "month"), [("2026-03-01 00:00:00", "2026-07"), ("2026-03-01 00:00:01", "2026-08")]
)
def test_silent_access_needs_four_whole_months(tmp_path, ordered_at, month):
    hand = Hand(tmp_path, "2026-03-01", "2026-07-31")
    hand.event("1", "order", ordered_at, "W1")
    rows = hand.oracle().rows("silent_subscriptions")
    assert f"{min(row['billing_month'] for row in rows):%Y-%m}" == month
    assert all(row["mt_count"] is None and row["wap_hits"] == 0 for row in rows)


def test_a_suspension_that_ends_at_the_window_start_is_no_part_of_it(tmp_path):
    hand = Hand(tmp_path, "2026-03-01", "2026-05-31")
    hand.event("1", "order", "2026-03-01 00:00:00").event("2", "suspend", "2026-03-09 00:00:00")
    hand.event("3", "resume", "2026-04-01 00:00:00").event("4", "suspend", "2026-05-01 00:00:00")
    months = [f"{row['billing_month']:%Y-%m}" for row in hand.oracle().rows("silent_subscriptions")]
    assert months == ["2026-05"]


# --------------------------------------------------------------------------------------------------- dispositions


def line(hand: Hand, status: str, start: str, end: str | None) -> None:
    hand.add("line_status", "2026-03-31", msisdn=NUMBER, status=status, from_time=start, to_time=end)


@pytest.mark.parametrize(
    ("lines", "disposition"),
    [
        ([("stopped", "2026-03-01 00:00:00", "2026-03-31 24:00:00")], "stopped"),
        ([("stopped", "2026-03-01 00:00:01", None)], "billed"),
        ([("stopped", "2026-02-01 00:00:00", "2026-03-31 23:59:59")], "billed"),
        (
            [("stopped", "2026-02-01 00:00:00", "2026-03-09 00:00:00"), ("stopped", "2026-03-09 00:00:00", None)],
            "stopped",
        ),
        (
            [("stopped", "2026-02-01 00:00:00", "2026-03-09 00:00:00"), ("stopped", "2026-03-09 00:00:01", None)],
            "billed",
        ),
        ([("closed", "2026-03-31 23:59:59", None)], "closed"),
        ([("closed", "2026-04-01 00:00:00", None)], "billed"),
        ([("closed", "2026-03-01 00:00:00", "2026-03-31 23:59:59")], "billed"),
        ([("closed", "2026-03-01 00:00:00", "2026-04-01 00:00:00")], "closed"),
    ],
)
def test_line_status(tmp_path, lines, disposition):
    hand = Hand(tmp_path, "2026-03-01", "2026-03-31")
    hand.event("1", "order", "2026-03-05 10:00:00").message("2026-03-06 00:00:00", 9)
    for one in lines:
        line(hand, *one)
    (row,) = hand.oracle().rows("billing_dispositions")
    expected = ("billed", "chargeable") if disposition == "billed" else ("line_stopped", disposition)
    assert (row["disposition"], row["reason"]) == expected


@pytest.mark.parametrize(
    ("pieces", "disposition"),
    [
        ([("", "2026-03-01 00:00:00", "2026-03-11 00:00:00")], "billed"),
        ([("", "2026-03-01 00:00:00", "2026-03-11 00:00:01")], "sp_suspended"),
        ([("S1", "2026-03-22 00:00:00", None)], "billed"),
        ([("S1", "2026-03-21 23:59:59", None)], "sp_suspended"),
        ([("W1", "2026-02-01 00:00:00", None)], "billed"),
        (
            [("", "2026-03-01 00:00:00", "2026-03-08 00:00:00"), ("S1", "2026-03-05 00:00:00", "2026-03-11 00:00:00")],
            "billed",
        ),
        ([("", "2026-02-01 00:00:00", "2026-03-06 00:00:00"), ("S1", "2026-03-27 00:00:00", None)], "billed"),
    ],
)
def test_suspended_service_provider(tmp_path, pieces, disposition):
    hand = Hand(tmp_path, "2026-03-01", "2026-03-31")
    hand.event("1", "order", "2026-03-05 10:00:00").message("2026-03-06 00:00:00", 9)
    for index, (service, start, end) in enumerate(pieces):
        hand.add(
            "sp_penalties",
            "2026-03-31",
            penalty_id=str(index),
            sp_code="900001",
            service_code=service,
            suspended_from=start,
            suspended_to=end,
        )
    assert bills(hand.oracle()) == {"2026-04": disposition}


@pytest.mark.parametrize(
    ("confirmed_at", "disposition"),
    [("", "unconsented"), ("2026-03-31 23:59:59", "billed"), ("2026-04-01 00:00:00", "unconsented")],
)
def test_consent(tmp_path, confirmed_at, disposition):
    hand = Hand(tmp_path, "2026-03-01", "2026-03-31").event(
        "1", "order", "2026-03-05 10:00:00", confirmed_at=confirmed_at
    )
    assert bills(hand.oracle()) == {"2026-04": disposition}


@pytest.mark.parametrize(
    ("ordered_at", "disposition"), [("2006-10-09 23:59:59", "billed"), ("2006-10-10 00:00:00", "unconsented")]
)
def test_consent_begins_in_october_2006(tmp_path, ordered_at, disposition):
    hand = Hand(tmp_path, "2006-10-01", "2006-10-31").event("1", "order", ordered_at, confirmed_at="")
    assert bills(hand.oracle()) == {"2006-11": disposition}


@pytest.mark.parametrize(
    ("valid_from", "valid_to", "disposition"),
    [
        ("2026-03-31", "2026-04-01", "test"),
        ("2026-03-01", "2026-03-31", "billed"),
        ("2026-04-01", "", "billed"),
    ],
)
def test_test_numbers(tmp_path, valid_from, valid_to, disposition):
    hand = Hand(tmp_path, "2026-03-01", "2026-03-31").event("1", "order", "2026-03-05 10:00:00")
    (tmp_path / "test_numbers.csv").write_text(f"msisdn,valid_from,valid_to\n86{NUMBER},{valid_from},{valid_to}\n")
    assert bills(hand.oracle()) == {"2026-04": disposition}


def test_catalogue_decides_first(tmp_path):
    hand = Hand(tmp_path, "2026-03-01", "2026-03-31")
    hand.catalogue = [
        Hand.service("S1", "sms", billing_type="per_use", monthly_fee_li=500),
        Hand.service("W1", "wap", monthly_fee_li=0),
    ]
    for index, service in enumerate(("S1", "W1", "XX")):
        hand.event(str(index), "order", "2026-03-25 10:00:00", service)
    rows = {row["service_code"]: row for row in hand.oracle().rows("billing_dispositions")}
    assert {code: (row["disposition"], row["fee_li"], row["charged_li"]) for code, row in rows.items()} == {
        "S1": ("free_service", 500, 0),
        "W1": ("free_service", 0, 0),
        "XX": ("unknown_service", 0, 0),
    }


def test_abnormal_and_settlement(tmp_path):
    hand = Hand(tmp_path, "2026-03-01", "2026-05-31")
    hand.catalogue[2] = Hand.service("I1", "ivr", monthly_fee_li=3)
    hand.event("1", "order", "2026-03-01 10:00:00").event("2", "order", "2026-03-01 10:00:00", "I1")
    hand.message("2026-05-01 00:00:00", 9)
    refund = {
        "msisdn": NUMBER,
        "sp_code": "900001",
        "service_code": "S1",
        "billing_month": "2026-02-01",
        "amount_li": 30,
    }
    hand.add("refunds", "2026-03-31", refund_id="1", times=2, **refund)
    hand.add("refunds", "2026-04-01", refund_id="2", times=1, **{**refund, "sp_code": "777777"})
    oracle = hand.oracle()
    by_service = {
        (row["service_code"], f"{row['billing_month']:%m}"): row["disposition"]
        for row in oracle.rows("billing_dispositions")
    }
    # Detected on 31 March, resolved by the message of 1 May 00:00: still abnormal at May's 1st.
    assert by_service == {
        ("S1", "04"): "abnormal",
        ("S1", "05"): "abnormal",
        ("S1", "06"): "billed",
        ("I1", "04"): "billed",
        ("I1", "05"): "billed",
        ("I1", "06"): "billed",
    }
    settled = {(row["sp_code"], f"{row['billing_month']:%m}"): row for row in oracle.rows("sp_settlement")}
    april = settled[("900001", "04")]
    assert (april["gross_li"], april["abnormal_li"], april["refunds_li"], april["double_refunds_li"]) == (
        5003,
        5000,
        30,
        30,
    )
    assert (april["to_settle_li"], april["operator_share_li"], april["sp_share_li"]) == (-57, -9, -48)
    assert settled[("777777", "05")]["to_settle_li"] == -30
    assert set(settled) == {("900001", "04"), ("900001", "05"), ("900001", "06"), ("777777", "05")}


@pytest.mark.parametrize(("amount", "share"), [(10, 2), (30, 4), (50, 8), (-10, -2), (-30, -4), (100, 15), (5003, 750)])
def test_operator_share_rounds_half_to_even(amount, share):
    assert rules.operator_share(amount) == share


# --------------------------------------------------------------------------------------------------- deliveries


def test_resend_replaces_and_a_damaged_one_does_not(tmp_path):
    hand = Hand(tmp_path, "2026-03-01", "2026-03-31")
    hand.event("1", "order", "2026-03-05 10:00:00").event("2", "order", "2026-03-06 10:00:00", "W1").write()
    hand.deliver("relation_events", date(2026, 3, 5), [], 2)
    hand.deliver("relation_events", date(2026, 3, 6), [], 2, totals={"nothing": 1})
    oracle = Oracle(tmp_path, KEY)
    assert [row["service_code"] for row in oracle.rows("subscriptions")] == ["W1"]
    assert len(oracle.landing.rejected) == 1


def test_the_same_bytes_on_another_day_are_refused(tmp_path):
    hand = Hand(tmp_path, "2026-03-01", "2026-03-31").message("2026-03-05 10:00:00").write()
    landing = tmp_path / "landing" / "sms_usage"
    raw = (landing / "2026-03-05" / "sms_usage_20260305_bj.csv").read_bytes()
    assert raw.count(b"\n") == 2
    rows = list(csv.DictReader(io.StringIO(raw.decode())))
    hand.deliver("sms_usage", date(2026, 3, 6), rows)
    oracle = Oracle(tmp_path, KEY)
    assert [one.key[1] for one in oracle.landing.refused] == [date(2026, 3, 6)]
    missing = [row for row in oracle.rows("extract_completeness") if row["status"] == "missing"]
    assert [(row["extract"], row["day"]) for row in missing] == [("sms_usage", date(2026, 3, 6))]


def test_bad_records_and_duplicates_are_counted(tmp_path):
    hand = Hand(tmp_path, "2026-03-01", "2026-03-31")
    for second in range(98):
        hand.message(f"2026-03-05 10:00:{second % 60:02}", second + 1)
    hand.add("sms_usage", "2026-03-05", **{**hand.rows[("sms_usage", date(2026, 3, 5))][0], "msisdn": "0086" + NUMBER})
    hand.message("2026-03-05 10:00:00", 1, fee_li="1.0")
    row = next(
        one for one in hand.oracle().rows("extract_completeness") if one["extract"] == "sms_usage" and one["rows_in"]
    )
    counts = (row["rows_in"], row["rows_loaded"], row["rows_quarantined"], row["rows_duplicate"])
    assert counts == (100, 98, 1, 1)


def test_more_than_one_percent_bad_records_keeps_the_delivery_out(tmp_path):
    hand = Hand(tmp_path, "2026-03-01", "2026-03-31")
    for second in range(97):
        hand.message(f"2026-03-05 10:00:{second % 60:02}", second + 1)
    hand.message("2026-03-05 10:00:00", 1, fee_li="1e3").message("2026-03-05 10:00:00", 1, msisdn="861380000123")
    assert [one.key[1] for one in Oracle(hand.write().home, KEY).landing.over_limit] == [date(2026, 3, 5)]


@pytest.mark.parametrize(
    ("time", "loaded"),
    [
        ("2026-03-04 00:00:00", 1),
        ("2026-03-03 23:59:59", 0),
        ("2026-04-05 00:00:00", 1),
        ("2026-04-05 00:00:01", 0),
    ],
)
def test_lateness(tmp_path, time, loaded):
    hand = Hand(tmp_path, "2026-03-01", "2026-04-30")
    for second in range(100):
        hand.message(f"2026-04-04 10:00:{second % 60:02}", second + 1)
    row = {**hand.rows[("sms_usage", date(2026, 4, 4))][0], "sent_at": time}
    hand.add("sms_usage", "2026-04-04", **row)
    counts = next(one for one in hand.oracle().rows("extract_completeness") if one["rows_in"] == 101)
    assert counts["rows_loaded"] == 100 + loaded


def test_times():
    assert parse_time("2026-12-31 24:00:00") == parse_time("20261231240000") == datetime(2027, 1, 1)
    for text in ("2026-12-31 24:00:01", "2026-02-29 00:00:00", "2026-1-01 00:00:00", "2026-01-01"):
        with pytest.raises(BadRecord):
            parse_time(text)


def test_records_with_quotes():
    text = 'a,b\r\n"x ""y"", z",1\n"two\nlines",2\nbad"quote,3\n4,'
    assert split_records(text) == [
        (1, ["a", "b"]),
        (2, ['x "y", z', "1"]),
        (3, ["two\nlines", "2"]),
        (5, None),
        (6, ["4", ""]),
    ]


def test_as_of_is_the_newest_day_with_everything(tmp_path):
    hand = Hand(tmp_path, "2026-03-01", "2026-03-10")
    hand.missing |= {("sms_usage", date(2026, 3, 5)), ("refunds", date(2026, 3, 10))}
    hand.write()
    assert Oracle(tmp_path, KEY).as_of == date(2026, 3, 9)
    (tmp_path / "expected_extracts.csv").write_text(
        "extract,source,schedule,valid_from,valid_to\nsms_usage,bj,daily,2026-03-01,\nrefunds,bj,optional,2026-03-01,\n"
    )
    oracle = Oracle(tmp_path, KEY)
    assert oracle.as_of == date(2026, 3, 10)
    counts = [(row["extract"], row["expected"], row["delivered"]) for row in oracle.rows("extract_completeness")]
    assert counts.count(("sms_usage", True, False)) == 1
    assert counts.count(("refunds", False, True)) == 9


# --------------------------------------------------------------------------------------------------- worlds


def test_worlds_are_reproducible_and_reach_every_corner(tmp_path):
    write_world(11, tmp_path / "a")
    write_world(11, tmp_path / "b")
    names = sorted(path.relative_to(tmp_path / "a") for path in (tmp_path / "a").rglob("*") if path.is_file())
    assert all((tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes() for name in names)
    dispositions, findings, statuses = set(), set(), set()
    for seed in range(100, 108):
        write_world(seed, tmp_path / str(seed), months=3)
        landing = read_landing(tmp_path / str(seed))
        oracle = Oracle(tmp_path / str(seed), KEY, landing=landing)
        assert landing.over_limit == []
        dispositions |= {(row["disposition"], row["reason"]) for row in oracle.rows("billing_dispositions")}
        findings |= {row["reason"] for row in oracle.rows("relation_event_findings")}
        statuses |= {(row["anomaly_type"], row["report_status"]) for row in oracle.rows("anomalous_subscriptions")}
    assert len(dispositions) == 12
    assert findings == {"already_ordered", "not_ordered", "unknown_service", "conflicting_event", "snapshot_disagrees"}
    assert {kind for kind, _ in statuses} == {"never_accessed", "no_traffic"}
    assert {status for _, status in statuses} == {"reported", "reported_late", "unreported", "pending"}
