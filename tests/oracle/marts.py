"""Compute every row of the marts from a data root, one row at a time, following the written definitions."""

import hashlib
import hmac
from dataclasses import dataclass, field
from datetime import date, datetime, time, timedelta
from pathlib import Path

from tests.oracle import growth, rules
from tests.oracle.landing import (
    BadRecord,
    Delivery,
    Landing,
    normalise_msisdn,
    optional_date,
    read_landing,
    read_reference,
)

COLUMNS = {
    "dim_service": "sp_code service_code service_name service_class is_portal billing_type monthly_fee_li valid_from "
    "valid_to",
    "dim_service_provider": "sp_code sp_name province status",
    "subscriptions": "subscription_id subscriber_id msisdn_masked sp_code service_code province channel "
    "first_ordered_at ordered_at ended_at end_reason status confirmed_at first_billable_month",
    "subscription_usage_monthly": "subscription_id month mt_count mo_count wap_hits active_days last_used_on",
    "anomalous_subscriptions": "subscription_id subscriber_id sp_code service_code anomaly_type observed_from "
    "detected_on resolved_on due_on due_on_is_estimated report_to report_status reported_at",
    "silent_subscriptions": "subscription_id subscriber_id sp_code service_code service_class billing_month "
    "window_start mt_count wap_hits verdict",
    "billing_dispositions": "billing_month subscription_id subscriber_id sp_code service_code province disposition "
    "reason fee_li charged_li",
    "billing_preview": "billing_month subscription_id subscriber_id sp_code service_code province disposition reason "
    "fee_li charged_li verdict",
    "billing_preview_stops": "billing_month extract source day reason relations",
    "relation_event_findings": "event_id subscriber_id sp_code service_code action event_time business_date source "
    "reason",
    "extract_completeness": "extract source day expected delivered delivery rows_in rows_loaded rows_quarantined "
    "rows_duplicate status",
    "sp_settlement": "sp_code billing_month gross_li errors_li audited_li stopped_li closed_li abnormal_li silent_li "
    "price_per_message_li refunds_li penalties_li double_refunds_li other_li to_settle_li operator_share_li "
    "sp_share_li status hold_reason",
}
COLUMNS = {table: columns.split() for table, columns in COLUMNS.items()} | {"service_growth": growth.COLUMNS}
GRAIN = {
    "dim_service": ["sp_code", "service_code", "valid_from"],
    "dim_service_provider": ["sp_code"],
    "subscriptions": ["subscription_id"],
    "subscription_usage_monthly": ["subscription_id", "month"],
    "anomalous_subscriptions": ["subscription_id", "anomaly_type"],
    "silent_subscriptions": ["subscription_id", "billing_month"],
    "billing_dispositions": ["billing_month", "subscription_id"],
    "billing_preview": ["billing_month", "subscription_id"],
    "billing_preview_stops": ["reason", "extract", "source", "day"],
    "relation_event_findings": [
        "event_id",
        "business_date",
        "source",
        "sp_code",
        "service_code",
        "subscriber_id",
        "reason",
    ],
    "extract_completeness": ["extract", "source", "day"],
    "sp_settlement": ["sp_code", "billing_month"],
    "service_growth": ["sp_code", "service_code", "day"],
}
REASONS = {
    "unknown_service": "not_in_catalogue",
    "free_service": "no_monthly_fee",
    "test": "test_number",
    "suspended": "relation_suspended",
    "trial": "in_trial",
    "unconsented": "no_second_confirmation",
    "sp_suspended": "suspension_over_limit",
    "abnormal": "abnormal_relation",
    "silent": "silent_user",
    "billed": "chargeable",
}
BILLING_INPUTS = ("relation_events", "service_catalogue", "line_status", "sp_penalties", "refunds")

ONE_DAY = timedelta(days=1)


def midnight(day: date) -> datetime:
    """Return 00:00:00 of a day."""
    return datetime.combine(day, time())


def add_months(first: date, months: int) -> date:
    """Move a first-of-month by whole months."""
    index = first.year * 12 + first.month - 1 + months
    return date(index // 12, index % 12 + 1, 1)


def holds(start: datetime, end: datetime | None, instant: datetime) -> bool:
    """Tell whether an interval holds at an instant, which means the state just before it."""
    return start < instant and (end is None or end >= instant)


@dataclass
class Spell:
    """One order … cancel interval of a relation."""

    relation: tuple  # (msisdn, sp_code, service_code)
    ordered_at: datetime
    opening_event_id: str
    opening_source: str
    province: str | None
    channel: str | None
    confirmed_at: datetime | None
    first_ordered_at: datetime | None = None
    ended_at: datetime | None = None
    end_reason: str | None = None
    next_ordered_at: datetime | None = None
    suspensions: list = field(default_factory=list)  # [from, to or None]
    uses: list = field(default_factory=list)  # (time, kind, quantity)
    anomalies: list = field(default_factory=list)  # (detected_on, resolved_on)

    def live_at(self, instant: datetime) -> bool:
        return holds(self.ordered_at, self.ended_at, instant)

    def suspended_at(self, instant: datetime) -> bool:
        return any(holds(start, end, instant) for start, end in self.suspensions)

    def covers(self, instant: datetime) -> bool:
        return self.ordered_at <= instant and (self.ended_at is None or instant < self.ended_at)

    def suspend(self, instant: datetime) -> None:
        if not self.is_suspended():
            self.suspensions.append([instant, None])

    def resume(self, instant: datetime) -> None:
        if self.is_suspended():
            self.suspensions[-1][1] = instant

    def is_suspended(self) -> bool:
        return bool(self.suspensions) and self.suspensions[-1][1] is None

    def end(self, instant: datetime, reason: str) -> None:
        self.resume(instant)
        self.ended_at, self.end_reason = instant, reason


class Oracle:
    """All marts of one data root at one as-of date; `tables` maps a table to its rows in contract order.

    Args:
        home: data root with landing/ and the reference files.
        key: pseudonym key.
        as_of: deliveries of later business dates do not exist; None takes the default of the contract.
        landing: deliveries already read, to save time when several as-of dates are computed.
        waived_at: the day a waiver must not have expired by; None: the as-of date. Given, nothing is previewed.
    """

    def __init__(
        self,
        home: Path,
        key: str | bytes,
        as_of: date | None = None,
        landing: Landing | None = None,
        waived_at: date | None = None,
    ):
        self.home = home
        self.key = key.encode() if isinstance(key, str) else key
        self.landing = landing or read_landing(home)
        self.expectations = self.read_expectations()
        self.as_of = as_of or self.default_as_of()
        self.waived_at = waived_at or self.as_of
        self.undecided: dict = {}  # (billing month, extract) -> first days of the windows that stay unknown
        self.end_of_as_of = midnight(self.as_of + ONE_DAY)
        self.in_force = {key: one for key, one in self.landing.in_force.items() if key[1] <= self.as_of}
        self.test_numbers = self.read_test_numbers()
        self.pseudonyms: dict = {}
        self.windows: dict = {}
        self.blockers: dict = {}  # billing month -> set of (blocker, extract, source, day)
        self.before_data_start: set = set()  # (subscription_id, billing_month) of unknowns that do not stop billing
        self.tables = {table: [] for table in COLUMNS}
        self.prepare_completeness()
        self.prepare_catalogue()
        self.prepare_spells()
        self.prepare_usage()
        self.prepare_interruptions()
        self.write_dim_service()
        self.write_dim_service_provider()
        self.write_subscriptions()
        self.write_usage_monthly()
        self.write_anomalies()
        self.write_months()
        self.write_settlement()
        if waived_at is None and self.as_of.day >= rules.PREVIEW_FROM_DAY:
            self.write_preview()
        if waived_at is None:
            self.write_growth()

    def rows(self, table: str) -> list:
        """Return a table as dicts."""
        return [dict(zip(COLUMNS[table], row, strict=True)) for row in self.tables[table]]

    def records(self, extract: str) -> list:
        """Return the rows in force of an extract by (business date, source), then file and line."""
        return [row for key in sorted(self.in_force) if key[0] == extract for row in self.in_force[key].rows]

    def days_in_force(self, extract: str) -> list:
        """Return the business dates of an extract with any delivery in force."""
        return sorted({key[1] for key in self.in_force if key[0] == extract})

    def write(self, table: str, **values: object) -> None:
        """Append a row, in contract order."""
        assert set(values) == set(COLUMNS[table]), (table, set(values) ^ set(COLUMNS[table]))
        self.tables[table].append(tuple(values[column] for column in COLUMNS[table]))

    def pseudonym(self, text: str) -> str:
        """Return the first 32 hex digits of the keyed hash of a text."""
        if text not in self.pseudonyms:
            digest = hmac.new(self.key, text.encode(), hashlib.sha256).hexdigest()
            self.pseudonyms[text] = digest[:32]
        return self.pseudonyms[text]

    def subscription_id(self, spell: Spell) -> str:
        return self.pseudonym("|".join([*spell.relation, str(spell.ordered_at), spell.opening_event_id]))

    # --------------------------------------------------------------------------------- reference inputs

    def read_expectations(self) -> list | None:
        """Return (extract, source, daily, valid_from, valid_to) or None when no file says what is expected."""
        rows = read_reference(self.home / "expected_extracts.csv")
        if rows is None:
            return None
        return [
            (
                row["extract"],
                row["source"],
                row["schedule"] == "daily",
                optional_date(row["valid_from"]) or date.min,
                optional_date(row["valid_to"]),
            )
            for row in rows
        ]

    def expected_on(self, day: date) -> set:
        """Return the (extract, source) pairs expected on a day."""
        if self.expectations is not None:
            return {
                (extract, source)
                for extract, source, daily, start, end in self.expectations
                if daily and start <= day and (end is None or day <= end)
            }
        return {pair for pair, first in self.first_seen().items() if first <= day and pair[0] != "relation_snapshot"}

    def first_seen(self) -> dict:
        """Return the first business date of each pair that has a delivery in force."""
        if not hasattr(self, "_first_seen"):
            self._first_seen: dict = {}
            for extract, day, source in self.landing.in_force:
                pair = (extract, source)
                self._first_seen[pair] = min(day, self._first_seen.get(pair, day))
        return self._first_seen

    def default_as_of(self) -> date:
        """Return the newest date on which every expected pair is delivered."""
        days = {day for _, day, _ in self.landing.in_force}
        for day in sorted(days, reverse=True):
            expected = self.expected_on(day)
            if expected and all((extract, day, source) in self.landing.in_force for extract, source in expected):
                return day
        raise ValueError("no date has all expected deliveries")

    def read_test_numbers(self) -> dict:
        """Return the validity ranges of each test number."""
        numbers: dict = {}
        for row in read_reference(self.home / "test_numbers.csv") or []:
            try:
                msisdn = normalise_msisdn(row["msisdn"])
            except BadRecord:
                msisdn = row["msisdn"]  # an opaque identity
            valid = (optional_date(row["valid_from"]) or date.min, optional_date(row["valid_to"]))
            numbers.setdefault(msisdn, []).append(valid)
        return numbers

    def is_test(self, msisdn: str, day: date) -> bool:
        return any(start <= day and (end is None or day < end) for start, end in self.test_numbers.get(msisdn, []))

    # --------------------------------------------------------------------------------- completeness

    def prepare_completeness(self) -> None:
        """Write extract_completeness and remember the complete days of each extract."""
        days = [key[1] for key in self.in_force]
        if self.expectations is not None:
            days += [start for _, _, daily, start, _ in self.expectations if daily]
        self.complete_days: dict = {}
        self.missing: set = set()
        written = set()
        day = min(days, default=self.as_of)
        while day <= self.as_of:
            expected = self.expected_on(day)
            whole = {extract for extract, _ in expected}
            for extract, source in expected:
                delivery = self.in_force.get((extract, day, source))
                if delivery is None:
                    whole.discard(extract)
                    self.missing.add((extract, source, day))
                self.write_completeness(extract, source, day, True, delivery)
                written.add((extract, day, source))
            for extract in whole:
                self.complete_days.setdefault(extract, set()).add(day)
            day += ONE_DAY
        for extract, day, source in self.in_force:
            if (extract, day, source) not in written:
                self.write_completeness(extract, source, day, False, self.in_force[(extract, day, source)])

    def write_completeness(self, extract: str, source: str, day: date, expected: bool, delivery: object) -> None:
        self.write(
            "extract_completeness",
            extract=extract,
            source=source,
            day=day,
            expected=expected,
            delivered=delivery is not None,
            delivery=delivery.delivery if delivery else None,
            rows_in=delivery.rows_in if delivery else 0,
            rows_loaded=delivery.rows_loaded if delivery else 0,
            rows_quarantined=delivery.rows_quarantined if delivery else 0,
            rows_duplicate=delivery.rows_duplicate if delivery else 0,
            status="delivered" if delivery else "waived" if self.is_waived(extract, source, day) else "missing",
        )

    def window_complete(self, extract: str, first: date, last: date) -> bool:
        """Tell whether every day of [first, last] of an extract is complete."""
        window = (extract, first, last)
        if window not in self.windows:
            complete = self.complete_days.get(extract, set())
            self.windows[window] = all(first + ONE_DAY * n in complete for n in range((last - first).days + 1))
        return self.windows[window]

    # --------------------------------------------------------------------------------- catalogue

    def prepare_catalogue(self) -> None:
        """Group catalogue rows by service, oldest first, and remember which services each day's files name."""
        self.catalogue_files = self.days_in_force("service_catalogue")
        self.catalogue_rows: dict = {}
        self.named_in_file: dict = {day: set() for day in self.catalogue_files}
        for row in self.records("service_catalogue"):
            service = (row["sp_code"], row["service_code"])
            self.catalogue_rows.setdefault(service, []).append(row)
            self.named_in_file[row["business_date"]].add(service)
        for rows in self.catalogue_rows.values():
            rows.sort(key=lambda row: (row["business_date"], row["valid_from"]))

    def catalogue(self, service: tuple, day: date) -> dict | None:
        """Return the catalogue row of a service at the midnight that begins a day, or None."""
        if not self.catalogue_files:
            return None
        files = [one for one in self.catalogue_files if one < day] or self.catalogue_files[:1]
        if service not in self.named_in_file[files[-1]]:
            return None
        for row in reversed(self.catalogue_rows[service]):
            if row["business_date"] <= files[-1] and row["valid_from"] <= day:
                return row
        return None

    def service_class(self, service: tuple, day: date) -> str | None:
        row = self.catalogue(service, day)
        return row["service_class"] if row else None

    def write_dim_service(self) -> None:
        """Write the validity ranges of each service: a new one starts wherever the row at a midnight changes."""
        for service, rows in self.catalogue_rows.items():
            days = {row["valid_from"] for row in rows} | {day + ONE_DAY for day in self.catalogue_files}
            current, started = None, None
            for day in sorted(days):
                row = self.catalogue(service, day)
                if self.same_version(current, row):
                    continue
                if current is not None:
                    self.write_service_version(current, started, day)
                current, started = row, day
            if current is not None:
                self.write_service_version(current, started, None)

    @staticmethod
    def same_version(left: dict | None, right: dict | None) -> bool:
        ignored = ("business_date", "source")
        if left is None or right is None:
            return left is right
        return all(left[column] == right[column] for column in left if column not in ignored)

    def write_service_version(self, row: dict, valid_from: date, valid_to: date | None) -> None:
        shown = {column: row[column] for column in COLUMNS["dim_service"][:7]}
        shown["monthly_fee_li"] = shown["monthly_fee_li"] or 0  # an amount that does not apply is 0
        self.write("dim_service", **shown, valid_from=valid_from, valid_to=valid_to)

    def write_dim_service_provider(self) -> None:
        """Write each SP as the newest day's files describe it."""
        days = self.days_in_force("service_providers")
        newest = {row["sp_code"]: row for row in self.records("service_providers") if row["business_date"] == days[-1]}
        for row in newest.values():
            self.write("dim_service_provider", **{column: row[column] for column in COLUMNS["dim_service_provider"]})

    # --------------------------------------------------------------------------------- spells

    def prepare_spells(self) -> None:
        """Replay snapshots and events into spells and findings."""
        self.spells: dict = {}  # relation -> spells in order
        self.relations_of: dict = {}  # (msisdn, sp) -> relations ever opened
        self.findings: dict = {}  # (event id, reason) or a snapshot key -> row
        events = self.kept_events()
        named_before = self.first_naming(events)
        steps: dict = {}  # (msisdn, sp) -> list of (time, rank, event id, what)
        openings = []
        opened_by_snapshot: dict = {}
        snapshots = self.records("relation_snapshot")
        for row in snapshots:
            relation = (row["msisdn"], row["sp_code"], row["service_code"])
            start = midnight(row["business_date"])
            if relation in named_before and named_before[relation] < start:
                continue
            if relation in opened_by_snapshot:
                continue
            opened_by_snapshot[relation] = row
            openings.append(id(row))
            steps.setdefault(relation[:2], []).append((start, 0, relation[2], row))
        for event in events:
            steps.setdefault((event["msisdn"], event["sp_code"]), []).append(
                (event["event_time"], 1, event["event_id"], event)
            )
        for (msisdn, sp_code), todo in steps.items():
            for _, rank, _, what in sorted(todo, key=lambda step: step[:3]):
                if rank == 0:
                    self.open_from_snapshot(what)
                else:
                    self.apply_event(msisdn, sp_code, what)
        for relation, spells in self.spells.items():
            first = min(spell.ordered_at for spell in spells)
            if relation in opened_by_snapshot:
                first = min(first, opened_by_snapshot[relation]["first_ordered_at"] or first)
            for index, spell in enumerate(spells):
                spell.first_ordered_at = first
                spell.next_ordered_at = spells[index + 1].ordered_at if index + 1 < len(spells) else None
        self.compare_snapshots(snapshots, set(openings))
        for row in self.findings.values():
            self.write("relation_event_findings", **row)

    def kept_events(self) -> list:
        """Return the events whose id was not seen before; other content under the same id is a finding."""
        kept: dict = {}
        for row in self.records("relation_events"):
            content = {column: value for column, value in row.items() if column not in ("business_date", "source")}
            first = kept.setdefault(row["event_id"], (content, row))
            if first[0] != content:
                self.add_finding(row, "conflicting_event")
        return [row for _, row in kept.values()]

    @staticmethod
    def first_naming(events: list) -> dict:
        """Return the earliest event time that names each relation."""
        first: dict = {}
        for event in events:
            for service_code in (event["service_code"], event["old_service_code"]):
                if service_code is None or event["action"] in ("cancel_all", "suspend_all"):
                    continue
                if service_code == event["old_service_code"] and event["action"] != "replace":
                    continue
                relation = (event["msisdn"], event["sp_code"], service_code)
                first[relation] = min(event["event_time"], first.get(relation, event["event_time"]))
        return first

    def add_finding(self, event: dict, reason: str) -> None:
        self.findings.setdefault(
            (event["event_id"], reason),
            {
                "event_id": event["event_id"],
                "subscriber_id": self.pseudonym(event["msisdn"]),
                "sp_code": event["sp_code"],
                "service_code": event["service_code"],
                "action": event["action"],
                "event_time": event["event_time"],
                "business_date": event["business_date"],
                "source": event["source"],
                "reason": reason,
            },
        )

    def open_spell(self, relation: tuple) -> Spell | None:
        """Return the relation's spell if it has not ended."""
        spells = self.spells.get(relation)
        return spells[-1] if spells and spells[-1].ended_at is None else None

    def add_spell(self, spell: Spell) -> None:
        if spell.relation not in self.spells:
            self.relations_of.setdefault(spell.relation[:2], []).append(spell.relation)
        self.spells.setdefault(spell.relation, []).append(spell)

    def open_from_snapshot(self, row: dict) -> None:
        relation = (row["msisdn"], row["sp_code"], row["service_code"])
        spell = Spell(
            relation, row["ordered_at"], "", row["source"], row["province"], row["channel"], row["confirmed_at"]
        )
        if row["status"] == "suspended":
            spell.suspend(row["ordered_at"])
        self.add_spell(spell)

    def apply_event(self, msisdn: str, sp_code: str, event: dict) -> None:
        """Apply one event to the relations it concerns."""
        action, at = event["action"], event["event_time"]
        end_of_day = at.date() + ONE_DAY
        relation = (msisdn, sp_code, event["service_code"])
        if action in ("cancel_all", "suspend_all"):
            for other in self.relations_of.get((msisdn, sp_code), []):
                spell = self.open_spell(other)
                if spell is None:
                    continue
                if action == "cancel_all":
                    spell.end(at, action)
                else:
                    spell.suspend(at)
            return
        named = [event["service_code"]] + ([event["old_service_code"]] if action == "replace" else [])
        if any(self.catalogue((sp_code, service_code), end_of_day) is None for service_code in named):
            self.add_finding(event, "unknown_service")
        if action == "replace":
            old = self.open_spell((msisdn, sp_code, event["old_service_code"]))
            if old is None:
                self.add_finding(event, "not_ordered")
            else:
                old.end(at, action)
        spell = self.open_spell(relation)
        if action in ("order", "replace"):
            if spell is not None:
                self.add_finding(event, "already_ordered")
                return
            opened = Spell(
                relation,
                at,
                event["event_id"],
                event["source"],
                event["province"],
                event["channel"],
                event["confirmed_at"],
            )
            self.add_spell(opened)
        elif spell is None:
            self.add_finding(event, "not_ordered")
        elif action == "cancel":
            spell.end(at, action)
        elif action == "suspend":
            spell.suspend(at)
        else:
            spell.resume(at)

    def compare_snapshots(self, snapshots: list, openings: set) -> None:
        """Report where a snapshot differs from the state the events give at its midnight."""
        by_day: dict = {day: set() for day in self.days_in_force("relation_snapshot")}
        for row in snapshots:
            relation = (row["msisdn"], row["sp_code"], row["service_code"])
            start = midnight(row["business_date"])
            by_day[row["business_date"]].add(relation)
            if id(row) in openings:
                continue
            live = [spell for spell in self.spells.get(relation, []) if spell.live_at(start)]
            ours = None
            if live:
                spell = live[0]
                ours = (
                    "suspended" if spell.suspended_at(start) else "active",
                    spell.first_ordered_at,
                    spell.ordered_at,
                    spell.confirmed_at,
                    spell.channel,
                    spell.province,
                )
            theirs = (
                row["status"],
                row["first_ordered_at"] or row["ordered_at"],
                row["ordered_at"],
                row["confirmed_at"],
                row["channel"],
                row["province"],
            )
            if ours != theirs:
                self.add_snapshot_finding(relation, row["business_date"], row["source"])
        for day, named in by_day.items():
            for relation, spells in self.spells.items():
                for spell in spells:
                    if spell.live_at(midnight(day)) and relation not in named:
                        self.add_snapshot_finding(relation, day, spell.opening_source)

    def add_snapshot_finding(self, relation: tuple, day: date, source: str) -> None:
        self.findings.setdefault(
            ("snapshot", relation, day, source),
            {
                "event_id": None,
                "subscriber_id": self.pseudonym(relation[0]),
                "sp_code": relation[1],
                "service_code": relation[2],
                "action": None,
                "event_time": None,
                "business_date": day,
                "source": source,
                "reason": "snapshot_disagrees",
            },
        )

    def all_spells(self) -> list:
        return [spell for spells in self.spells.values() for spell in spells]

    @staticmethod
    def first_billable_month(first_ordered_at: datetime) -> date:
        """Return the first month whose 1st lies after the first order and not before the end of the trial."""
        first_day = first_ordered_at.date()
        next_first = add_months(first_day.replace(day=1), 1)
        if first_day >= rules.TRIAL_RULE_FROM:
            return next_first if first_day.day < rules.TRIAL_JUDGE_DAY else add_months(next_first, 1)
        trial_end = first_ordered_at + timedelta(hours=rules.TRIAL_HOURS_BEFORE)
        while midnight(next_first) < trial_end:
            next_first = add_months(next_first, 1)
        return next_first

    def write_subscriptions(self) -> None:
        for spell in self.all_spells():
            msisdn, sp_code, service_code = spell.relation
            if spell.ended_at is not None and spell.ended_at < self.end_of_as_of:
                status = "ended"
            elif spell.suspended_at(self.end_of_as_of):
                status = "suspended"
            else:
                status = "active"
            self.write(
                "subscriptions",
                subscription_id=self.subscription_id(spell),
                subscriber_id=self.pseudonym(msisdn),
                msisdn_masked=f"{msisdn[:3]}****{msisdn[-4:]}",
                sp_code=sp_code,
                service_code=service_code,
                province=spell.province,
                channel=spell.channel,
                first_ordered_at=spell.first_ordered_at,
                ordered_at=spell.ordered_at,
                ended_at=spell.ended_at,
                end_reason=spell.end_reason,
                status=status,
                confirmed_at=spell.confirmed_at,
                first_billable_month=self.first_billable_month(spell.first_ordered_at),
            )

    # --------------------------------------------------------------------------------- usage

    def prepare_usage(self) -> None:
        """Give every counted use to the spell it falls into, and collect the counted traffic per subscriber."""
        for row in self.records("sms_usage"):
            if row["status"] == "ok" and row["purpose"] == "content" and row["message_count"] > 0:
                self.add_use(row, row["sent_at"], row["direction"], row["message_count"])
        for row in self.records("wap_usage"):
            if row["status"] == "ok" and row["hits"] > 0:
                self.add_use(row, row["accessed_at"], "hit", row["hits"])
        self.traffic: dict = {}
        for row in self.records("gprs_usage"):
            at = row["started_at"]
            if row["apn"] != "CMWAP" or row["up_bytes"] + row["down_bytes"] <= 0:
                continue
            if not self.is_test(row["msisdn"], at.date()):
                self.traffic.setdefault(row["msisdn"], []).append(at)

    def add_use(self, row: dict, at: datetime, kind: str, quantity: int) -> None:
        if self.is_test(row["msisdn"], at.date()):
            return
        for spell in self.spells.get((row["msisdn"], row["sp_code"], row["service_code"]), []):
            if spell.covers(at):
                spell.uses.append((at, kind, quantity))

    def write_usage_monthly(self) -> None:
        for spell in self.all_spells():
            by_month: dict = {}
            for at, kind, quantity in spell.uses:
                by_month.setdefault(at.date().replace(day=1), []).append((at, kind, quantity))
            for month, uses in by_month.items():
                self.write(
                    "subscription_usage_monthly",
                    subscription_id=self.subscription_id(spell),
                    month=month,
                    mt_count=sum(quantity for _, kind, quantity in uses if kind == "MT"),
                    mo_count=sum(quantity for _, kind, quantity in uses if kind == "MO"),
                    wap_hits=sum(quantity for _, kind, quantity in uses if kind == "hit"),
                    active_days=len({at.date() for at, _, _ in uses}),
                    last_used_on=max(at.date() for at, _, _ in uses),
                )

    # --------------------------------------------------------------------------------- growth

    def write_growth(self) -> None:
        """Judge the new orders of every service by day, from the first delivered day of order events."""
        delivered = self.days_in_force("relation_events")
        if not delivered:
            return
        counts: dict = {}
        for spell in self.all_spells():
            by_day = counts.setdefault(spell.relation[1:], {})
            day = spell.ordered_at.date()
            by_day[day] = by_day.get(day, 0) + 1
        known_from = {}
        for row in self.rows("dim_service"):
            service = (row["sp_code"], row["service_code"])
            known_from[service] = min(row["valid_from"], known_from.get(service, row["valid_from"]))
        complete = self.complete_days.get("relation_events", set())
        self.tables["service_growth"] = growth.Growth(counts, known_from, complete, delivered[0], self.as_of).rows()

    # --------------------------------------------------------------------------------- anomalies

    def write_anomalies(self) -> None:
        reports = self.reports()
        for spell in self.all_spells():
            messages = [at for at, kind, _ in spell.uses if kind in ("MT", "MO")]
            hits = [at for at, kind, _ in spell.uses if kind == "hit"]
            traffic = [at for at in self.traffic.get(spell.relation[0], []) if spell.covers(at)]
            by_message = self.detect(spell, "sms_usage", rules.MESSAGE_CLASSES, messages)
            by_access = self.detect(spell, "wap_usage", rules.ACCESS_CLASSES, hits)
            # Both can hold only if the service changed its class meanwhile: the earlier detection counts.
            found = min((one for one in (by_message, by_access) if one), key=lambda one: one[1], default=None)
            if found:
                self.write_anomaly(spell, "never_accessed", found, reports)
            found = self.detect(spell, "gprs_usage", rules.ACCESS_CLASSES, traffic)
            if found:
                self.write_anomaly(spell, "no_traffic", found, reports)

    def detect(self, spell: Spell, extract: str, classes: tuple, uses: list) -> tuple | None:
        """Return (observed_from, detected_on, resolved_on, class) or None if it is no anomaly by now."""
        delivered = self.days_in_force(extract)
        if not delivered:
            return None
        observed_from = max(spell.ordered_at.date(), delivered[0])
        detected_on = observed_from + timedelta(days=rules.TENURE_DAYS)
        if detected_on > self.as_of:
            return None
        end_of_day = midnight(detected_on + ONE_DAY)
        service_class = self.service_class(spell.relation[1:], end_of_day.date())
        if service_class not in classes or not spell.live_at(end_of_day):
            return None
        if not self.window_complete(extract, observed_from, detected_on):
            return None
        if any(at < end_of_day for at in uses):
            return None
        ends = [at.date() for at in uses]
        if spell.ended_at is not None:
            ends.append(spell.ended_at.date())
        resolved_on = min(ends, default=None)
        if resolved_on is not None and resolved_on > self.as_of:
            resolved_on = None
        return observed_from, detected_on, resolved_on, service_class

    def reports(self) -> dict:
        """Return the instants reported for each relation; of one report id the newest business date counts."""
        newest = {row["report_id"]: row for row in self.records("sp_reports")}
        reports: dict = {}
        for row in newest.values():
            relation = (row["msisdn"], row["sp_code"], row["service_code"])
            reports.setdefault(relation, []).append(row["reported_at"])
        return reports

    def write_anomaly(self, spell: Spell, anomaly_type: str, found: tuple, reports: dict) -> None:
        observed_from, detected_on, resolved_on, service_class = found
        spell.anomalies.append((detected_on, resolved_on))
        due_on, is_estimated = rules.due_on(detected_on)
        counting = [
            at
            for at in reports.get(spell.relation, [])
            if at >= spell.ordered_at and (spell.next_ordered_at is None or at < spell.next_ordered_at)
        ]
        reported_at = min(counting, default=None)
        if reported_at is not None:
            report_status = "reported" if reported_at < midnight(due_on + ONE_DAY) else "reported_late"
        else:
            report_status = "pending" if self.as_of <= due_on else "unreported"
        to_centre = service_class in rules.ACCESS_CLASSES
        self.write(
            "anomalous_subscriptions",
            subscription_id=self.subscription_id(spell),
            subscriber_id=self.pseudonym(spell.relation[0]),
            sp_code=spell.relation[1],
            service_code=spell.relation[2],
            anomaly_type=anomaly_type,
            observed_from=observed_from,
            detected_on=detected_on,
            resolved_on=resolved_on,
            due_on=due_on,
            due_on_is_estimated=is_estimated,
            report_to="cooperation_service_centre" if to_centre else spell.province,
            report_status=report_status,
            reported_at=reported_at,
        )

    # --------------------------------------------------------------------------------- billing months

    def prepare_interruptions(self) -> None:
        """Collect line stops and SP suspensions; of one key the newest business date counts."""
        lines = {(row["msisdn"], row["status"], row["from_time"]): row for row in self.records("line_status")}
        self.lines: dict = {}
        for row in lines.values():
            self.lines.setdefault(row["msisdn"], []).append(row)
        self.penalties = list({row["penalty_id"]: row for row in self.records("sp_penalties")}.values())

    def write_months(self) -> None:
        """Write silence and disposition of each spell at every 1st at which it was live."""
        for spell in self.all_spells():
            month = add_months(spell.ordered_at.date().replace(day=1), 1)
            while month <= self.as_of + ONE_DAY and (spell.ended_at is None or spell.ended_at >= midnight(month)):
                row = self.catalogue(spell.relation[1:], month)
                is_silent = self.judge_silence(spell, month, row)
                self.write_disposition(spell, month, row, is_silent)
                month = add_months(month, 1)
        self.note_missing_days()

    def judge_silence(self, spell: Spell, month: date, row: dict | None) -> bool:
        """Write the silence row of a spell for a billing month, if any; tell whether it is silent."""
        service_class = row["service_class"] if row else None
        if service_class in rules.MESSAGE_CLASSES:
            extract, kind = "sms_usage", "MT"
            length, limit = rules.SILENT_MESSAGE_MONTHS, rules.SILENT_MESSAGE_LIMIT
        elif service_class in rules.ACCESS_CLASSES:
            extract, kind = "wap_usage", "hit"
            length, limit = rules.SILENT_ACCESS_MONTHS, rules.SILENT_ACCESS_LIMIT
        else:
            return False
        window_start = add_months(month, -length)
        begin, end = midnight(window_start), midnight(month)
        if spell.ordered_at > begin:
            return False
        for start, stop in spell.suspensions:
            # Any common part of positive length counts.
            if max(start, begin) < min(stop or end, end):
                return False
        use = sum(quantity for at, what, quantity in spell.uses if what == kind and begin <= at < end)
        if use > limit:
            return False
        last_day = month - ONE_DAY
        verdict = "silent" if self.window_complete(extract, window_start, last_day) else "unknown"
        if verdict == "unknown":
            # An extract that never came starts where it was to come.
            first_expected = min((day for missing, _, day in self.missing if missing == extract), default=None)
            first_usage_day = min(self.days_in_force(extract), default=first_expected)
            if first_usage_day is None or window_start < first_usage_day:
                self.before_data_start.add((self.subscription_id(spell), month))
            else:
                self.block_unknown(month, extract, window_start)
        self.write(
            "silent_subscriptions",
            subscription_id=self.subscription_id(spell),
            subscriber_id=self.pseudonym(spell.relation[0]),
            sp_code=spell.relation[1],
            service_code=spell.relation[2],
            service_class=service_class,
            billing_month=month,
            window_start=window_start,
            mt_count=use if kind == "MT" else None,
            wap_hits=use if kind == "hit" else None,
            verdict=verdict,
        )
        return verdict == "silent"

    def block(self, month: date, blocker: str, extract: str, first: date, last: date) -> None:
        """Remember the missing days that stop a billing month, unless two people waived them."""
        for missing_extract, source, day in self.missing:
            if missing_extract == extract and first <= day <= last and not self.is_waived(extract, source, day):
                self.blockers.setdefault(month, set()).add((blocker, extract, source, day))

    def block_unknown(self, month: date, extract: str, first: date) -> None:
        """Remember the days that leave a silence window undecided; a day on which nothing is expected is one too."""
        self.undecided.setdefault((month, extract), []).append(first)
        self.block(month, "unknown_usage", extract, first, month - ONE_DAY)
        day = first
        while day < month:
            if not any(pair[0] == extract for pair in self.expected_on(day)):
                self.blockers.setdefault(month, set()).add(("unknown_usage", extract, None, day))
            day += ONE_DAY

    def is_waived(self, extract: str, source: str, day: date) -> bool:
        """Tell whether two people waived the day, for as long as the as-of date does not lie after the last day."""
        return any(
            (row["extract"], row["source"], row["day"]) == (extract, source, day.isoformat())
            and row["requested_by"] != row["approved_by"]
            and optional_date(row["expires_on"]) >= self.waived_at
            for row in read_reference(self.home / "waivers.csv") or []
        )

    def note_missing_days(self) -> None:
        """Remember the missing days of the other inputs that stop the next month to bill."""
        month = add_months(self.as_of.replace(day=1), 1)
        for extract in BILLING_INPUTS:
            self.block(month, "missing_day", extract, date.min, month - ONE_DAY)

    def line_reason(self, msisdn: str, month: date) -> str | None:
        """Return closed, stopped or None for a line at a 1st."""
        now, begin = midnight(month), midnight(add_months(month, -1))
        lines = self.lines.get(msisdn, [])
        if any(one["status"] == "closed" and holds(one["from_time"], one["to_time"], now) for one in lines):
            return "closed"
        covered_until = begin
        for one in sorted((one for one in lines if one["status"] == "stopped"), key=lambda one: one["from_time"]):
            if one["from_time"] <= covered_until:
                covered_until = max(covered_until, one["to_time"] or now)
        return "stopped" if covered_until >= now else None

    def over_suspension_limit(self, service: tuple, month: date) -> bool:
        """Tell whether suspensions of the SP or service cover more than the limit of the month before."""
        begin, end = midnight(add_months(month, -1)), midnight(month)
        pieces = []
        for one in self.penalties:
            if one["sp_code"] == service[0] and one["service_code"] in (None, service[1]):
                start, stop = max(one["suspended_from"], begin), min(one["suspended_to"] or end, end)
                if start < stop:
                    pieces.append((start, stop))
        total, covered_until = timedelta(), begin
        for start, stop in sorted(pieces):
            start = max(start, covered_until)
            if start < stop:
                total += stop - start
                covered_until = stop
        return total > rules.SUSPENSION_LIMIT

    def write_disposition(self, spell: Spell, month: date, row: dict | None, is_silent: bool) -> None:
        now = midnight(month)
        fee_li = (row["monthly_fee_li"] or 0) if row else 0
        line = self.line_reason(spell.relation[0], month)
        needs_consent = spell.ordered_at.date() >= rules.CONSENT_FROM
        reason = None
        if row is None:
            disposition = "unknown_service"
        elif row["billing_type"] != "monthly" or fee_li == 0:
            disposition = "free_service"
        elif self.is_test(spell.relation[0], month - ONE_DAY):
            disposition = "test"
        elif spell.suspended_at(now):
            disposition = "suspended"
        elif month < self.first_billable_month(spell.first_ordered_at):
            disposition = "trial"
        elif needs_consent and (spell.confirmed_at is None or spell.confirmed_at >= now):
            disposition = "unconsented"
        elif line:
            disposition, reason = "line_stopped", line
        elif self.over_suspension_limit(spell.relation[1:], month):
            disposition = "sp_suspended"
        elif any(
            detected < month and (resolved is None or resolved >= month) for detected, resolved in spell.anomalies
        ):
            disposition = "abnormal"
        elif is_silent:
            disposition = "silent"
        else:
            disposition = "billed"
        self.write(
            "billing_dispositions",
            billing_month=month,
            subscription_id=self.subscription_id(spell),
            subscriber_id=self.pseudonym(spell.relation[0]),
            sp_code=spell.relation[1],
            service_code=spell.relation[2],
            province=spell.province,
            disposition=disposition,
            reason=reason or REASONS[disposition],
            fee_li=fee_li,
            charged_li=fee_li if disposition == "billed" else 0,
        )

    # --------------------------------------------------------------------------------- preview

    def write_preview(self) -> None:
        """Write the bill of the next month as another oracle computes it at the month's last day, had every expected
        usage delivery of the days still to come arrived without a record."""
        month = add_months(self.as_of.replace(day=1), 1)
        coming = dict(self.in_force)
        day = self.as_of + ONE_DAY
        while day < month:
            expected = self.expected_on(day) if self.expectations is not None else {(key[0], key[2]) for key in coming}
            for extract, source in expected:
                if extract in ("sms_usage", "wap_usage", "gprs_usage"):
                    coming[(extract, day, source)] = Delivery(extract, day, source, 1, "", "")
            day += ONE_DAY
        landing = Landing([], [], [], [], coming)
        future = Oracle(self.home, self.key, month - ONE_DAY, landing, waived_at=self.as_of)
        unknown = {
            row["subscription_id"]
            for row in future.rows("silent_subscriptions")
            if row["billing_month"] == month and row["verdict"] == "unknown"
        } - {subscription for subscription, billed in future.before_data_start if billed == month}
        for row in future.rows("billing_dispositions"):
            if row["billing_month"] != month:
                continue
            verdict = "known"
            if row["disposition"] == "billed" and row["subscription_id"] in unknown:
                verdict = "unknown"
            elif row["disposition"] in ("abnormal", "silent") and self.as_of + ONE_DAY < month:
                verdict = "open"
            self.write("billing_preview", **row, verdict=verdict)
        for reason, extract, source, day in future.blockers.get(month, ()):
            if source is not None and day > self.as_of:
                continue  # not missing yet
            windows = future.undecided.get((month, extract), []) if reason == "unknown_usage" else []
            self.write(
                "billing_preview_stops",
                billing_month=month,
                extract=extract,
                source=source,
                day=day,
                reason=reason,
                relations=sum(first <= day for first in windows),
            )

    # --------------------------------------------------------------------------------- settlement

    def write_settlement(self) -> None:
        """Write the waterfall of every SP and month with a live relation or a refund."""
        amounts: dict = {}  # (sp, month) -> column -> li

        def add(sp_code: str, month: date, column: str, amount: int) -> None:
            columns = amounts.setdefault((sp_code, month), {})
            columns[column] = columns.get(column, 0) + amount

        deducted = {"sp_suspended": "other_li", "abnormal": "abnormal_li", "silent": "silent_li"}
        for row in self.rows("billing_dispositions"):
            sp_code, month, disposition = row["sp_code"], row["billing_month"], row["disposition"]
            add(sp_code, month, "gross_li", 0)
            if disposition in ("line_stopped", "sp_suspended", "abnormal", "silent", "billed"):
                add(sp_code, month, "gross_li", row["fee_li"])
            if disposition == "line_stopped":
                add(sp_code, month, f"{row['reason']}_li", row["fee_li"])
            elif disposition in deducted:
                add(sp_code, month, deducted[disposition], row["fee_li"])
        refunds = {row["refund_id"]: row for row in self.records("refunds")}
        for row in refunds.values():
            month = add_months(row["business_date"].replace(day=1), 1)
            if month <= self.as_of + ONE_DAY:
                add(row["sp_code"], month, "refunds_li", row["amount_li"])
                if row["times"] == 2:
                    add(row["sp_code"], month, "double_refunds_li", row["amount_li"])
        for (sp_code, month), columns in amounts.items():
            money = {column: columns.get(column, 0) for column in COLUMNS["sp_settlement"] if column.endswith("_li")}
            money["audited_li"] = money["gross_li"] - money["errors_li"]
            money["to_settle_li"] = money["audited_li"] - sum(
                money[column]
                for column in (
                    "stopped_li",
                    "closed_li",
                    "abnormal_li",
                    "silent_li",
                    "price_per_message_li",
                    "refunds_li",
                    "penalties_li",
                    "double_refunds_li",
                    "other_li",
                )
            )
            money["operator_share_li"] = rules.operator_share(money["to_settle_li"])
            money["sp_share_li"] = money["to_settle_li"] - money["operator_share_li"]
            self.write(
                "sp_settlement", sp_code=sp_code, billing_month=month, **money, status="payable", hold_reason=None
            )
