"""Small, nasty, contract-true worlds: landing folders whose instants sit on the boundaries of the rules.

`write_world(seed, home)` writes deliveries, manifests and reference files for a few months, a few sources and some
dozens of subscribers. Everything follows from the seed, which is printed.
"""

import csv
import gzip
import hashlib
import io
import json
import random
from dataclasses import dataclass, field
from datetime import date, datetime, time, timedelta
from pathlib import Path

from tests.oracle.rules import due_on

COLUMNS = {
    "relation_events": "event_id msisdn sp_code service_code action event_time channel confirmed_at province "
    "old_service_code",
    "relation_snapshot": "msisdn sp_code service_code status first_ordered_at ordered_at confirmed_at channel province",
    "sms_usage": "msisdn sp_code service_code direction sent_at status purpose message_count fee_li",
    "wap_usage": "msisdn sp_code service_code accessed_at status hits fee_li",
    "gprs_usage": "msisdn apn started_at up_bytes down_bytes",
    "service_catalogue": "sp_code service_code service_name service_class is_portal billing_type monthly_fee_li status "
    "valid_from marketing_text",
    "service_providers": "sp_code sp_name province status contact",
    "sp_reports": "report_id sp_code service_code msisdn anomaly_type reported_at",
    "sp_penalties": "penalty_id sp_code service_code suspended_from suspended_to reason",
    "refunds": "refund_id msisdn sp_code service_code billing_month amount_li times reason",
    "line_status": "msisdn status from_time to_time",
}
COLUMNS = {extract: columns.split() for extract, columns in COLUMNS.items()}
BY_SOURCE = ("relation_events", "sms_usage", "wap_usage", "gprs_usage")
BY_HEADQUARTERS = ("service_catalogue", "service_providers", "sp_reports", "sp_penalties", "refunds", "line_status")
HEADQUARTERS = "hq"
ONE_DAY = timedelta(days=1)
ONE_SECOND = timedelta(seconds=1)

# (first day, what is special about the time)
STARTS = (
    date(2026, 4, 1),  # an ordinary year
    date(2026, 2, 27),  # starts in mid-month, short February behind it
    date(2026, 9, 1),  # National Day; runs beyond the published working calendar
    date(2023, 12, 1),  # a leap day
    date(2006, 6, 1),  # the trial rule begins on 10 July, the consent rule on 10 October
)


@dataclass
class World:
    """What was written."""

    seed: int
    home: Path
    first_day: date
    last_day: date
    sources: list
    billing_months: list = field(default_factory=list)


def midnight(day: date) -> datetime:
    """Return 00:00:00 of a day."""
    return datetime.combine(day, time())


def next_first(day: date) -> date:
    """Return the first day of the month after a day's month."""
    return (day.replace(day=28) + timedelta(days=4)).replace(day=1)


def write_world(
    seed: int,
    home: Path,
    *,
    months: int | None = None,
    start: date | None = None,
    subscribers: int | None = None,
    holes: str = "some",
    snapshots: bool | None = None,
    resends: bool = True,
    bad_records: bool = True,
    expected_file: bool | None = None,
    test_numbers: bool | None = None,
) -> World:
    """Write a random world into `home/landing` (and its reference files into `home`).

    Args:
        seed: everything random follows from it; it is printed.
        home: data root; made if missing.
        months: calendar months with deliveries; drawn if None (2 to 8, short ones more often).
        start: first business date; drawn if None.
        subscribers: number of subscribers; drawn if None (10 to 40).
        holes: "none", "usage" (only usage deliveries may miss) or "some" (any extract may miss a delivery).
        snapshots: write relation snapshots on day 0 and on some 1sts; drawn if None.
        resends: write higher delivery numbers, repeated bytes and rejected deliveries too.
        bad_records: put bad records into big deliveries, at most 1 % of each.
        expected_file: write expected_extracts.csv; drawn if None.
        test_numbers: write test_numbers.csv; drawn if None.
    """
    print(f"world seed {seed}")
    rng = random.Random(seed)
    maker = WorldMaker(rng, home, seed)
    maker.choose_calendar(months or rng.choice([2, 2, 3, 3, 4, 5, 6, 8]), start or rng.choice(STARTS))
    maker.choose_services()
    maker.write_catalogue_rows()
    maker.live_through(subscribers or rng.randint(10, 40), rng.random() < 0.6 if snapshots is None else snapshots)
    maker.interrupt_lines()
    maker.penalise()
    maker.refund()
    maker.report()
    maker.fill_up(bad_records)
    maker.repeat_events()
    if test_numbers if test_numbers is not None else rng.random() < 0.6:
        maker.write_test_numbers()
    maker.write_landing(holes, resends)
    if expected_file if expected_file is not None else rng.random() < 0.4:
        maker.write_expected_file()
    return maker.world


class WorldMaker:
    """Collects records per (extract, source, business date), then writes them as deliveries."""

    def __init__(self, rng: random.Random, home: Path, seed: int):
        self.rng = rng
        self.home = home
        self.seed = seed
        self.records: dict = {}
        self.bad_lines: dict = {}
        self.counter = 0
        self.relations: dict = {}  # (msisdn, sp, service) -> list of [ordered, ended or None, source]
        self.event_log: list = []

    # ----------------------------------------------------------------------------------- time

    def choose_calendar(self, months: int, start: date) -> None:
        """Fix first and last day, the sources and the instants everything clusters around."""
        rng = self.rng
        self.first_day = start
        last = start
        for _ in range(months):
            last = next_first(last)
        last -= ONE_DAY
        self.last_day = last + timedelta(days=rng.choice([0, 0, 0, 1, 9]))
        self.sources = ["bj", "sh", "gd"][: rng.choice([2, 2, 3])]
        # A source may begin later than the others.
        self.begins = dict.fromkeys([*self.sources, HEADQUARTERS], self.first_day)
        if len(self.sources) == 3 and rng.random() < 0.5:
            self.begins["gd"] = self.first_day + timedelta(days=rng.randint(1, 20))
        # An extract may begin later than the others, or not exist at all.
        self.extract_begins = {}
        self.absent = set()
        if rng.random() < 0.3:
            late = rng.choice(["sms_usage", "wap_usage", "gprs_usage"])
            self.extract_begins[late] = self.first_day + timedelta(days=rng.randint(1, 40))
        if rng.random() < 0.1:
            self.absent.add(rng.choice(["wap_usage", "gprs_usage", "line_status", "sp_reports", "refunds"]))
        firsts, day = [], self.first_day
        while next_first(day) <= self.last_day + ONE_DAY:
            day = next_first(day)
            firsts.append(day)
        self.firsts = firsts
        self.world = World(self.seed, self.home, self.first_day, self.last_day, self.sources, list(firsts))
        self.corners = [midnight(first) for first in firsts]
        self.corners += [midnight(first.replace(day=21)) for first in [self.first_day, *firsts]]
        self.corners.append(midnight(self.last_day + ONE_DAY))
        if start.year == 2006:
            self.corners += [
                datetime(2006, 6, 28),  # plus 72 hours is exactly 1 July
                datetime(2006, 7, 10),
                datetime(2006, 7, 29),
                datetime(2006, 10, 10),
            ]
        span = (self.first_day, self.last_day + ONE_DAY)
        self.corners = [one for one in self.corners if midnight(span[0]) <= one <= midnight(span[1])]

    def instant(self, after: datetime | None = None) -> datetime:
        """Draw an instant of the world, mostly at or one second beside a corner."""
        rng = self.rng
        after = after or midnight(self.first_day)
        end = midnight(self.last_day + ONE_DAY)
        corners = [one for one in self.corners if one > after]
        if corners and rng.random() < 0.6:
            drawn = rng.choice(corners) + rng.choice([-1, 0, 0, 1]) * ONE_SECOND
        else:
            seconds = max(1, int((end - after).total_seconds()))
            drawn = after + timedelta(seconds=rng.randint(0, seconds))
            if rng.random() < 0.2:
                drawn = midnight(drawn.date())
        return min(max(drawn, after), end)

    def business_date(self, at: datetime, source: str) -> date | None:
        """Choose the business date that delivers a record of an instant; None if there is none any more."""
        rng = self.rng
        day = at.date()
        if at == midnight(day) and (rng.random() < 0.4 or day > self.last_day):
            day -= ONE_DAY  # 24:00:00 of the day before
        elif rng.random() < 0.12:
            day += timedelta(days=rng.choice([1, 1, 2, 5, 30, 31]))
        day = min(day, self.last_day) if day > self.last_day and at.date() <= self.last_day else day
        day = max(day, self.begins[source])
        if day > self.last_day or (day - at.date()).days > 31:
            return None
        return day

    def add(self, extract: str, source: str, day: date | None, **values: object) -> None:
        """Put a record into the delivery of an extract, source and day."""
        if day is None or not self.begins[source] <= day <= self.last_day or extract in self.absent:
            return
        if day < self.extract_begins.get(extract, day):
            return
        assert set(values) == set(COLUMNS[extract]), set(values) ^ set(COLUMNS[extract])
        self.records.setdefault((extract, source, day), []).append(values)

    def days(self, source: str = HEADQUARTERS) -> list:
        count = (self.last_day - self.begins[source]).days + 1
        return [self.begins[source] + ONE_DAY * n for n in range(count)]

    # ----------------------------------------------------------------------------------- services

    def choose_services(self) -> None:
        """Choose the SPs and about eight services of all classes and billing types."""
        rng = self.rng
        self.providers = ["900001", "900002", "801234"]
        kinds = [
            ("sms", "monthly", 5000),
            ("mms", "monthly", 8000),
            ("wap", "monthly", 6000),
            ("portal", "monthly", 3333),
            ("ivr", "monthly", 2000),
            ("other", "monthly", 1),
            ("sms", rng.choice(["per_use", "free"]), 500),
            ("wap", rng.choice(["per_use", "monthly"]), 0),
            ("sms", "monthly", 7),
        ]
        self.services = {}
        for index, (service_class, billing_type, fee) in enumerate(kinds):
            sp_code = self.providers[index % len(self.providers)]
            # Codes repeat between SPs: a service code is unique within its SP only.
            service_code = (
                f"S{index // len(self.providers)}" if rng.random() < 0.8 else f"-{index}".strip("-") + ".a_b-c"
            )
            self.services[(sp_code, service_code)] = (service_class, billing_type, fee)
        self.unlisted = (self.providers[0], "NOPE")

    def write_catalogue_rows(self) -> None:
        """Write the full catalogue of every day, with changes, future rows, late comers and gaps."""
        rng = self.rng
        for sp_code in self.providers:
            renamed = rng.choice(self.days())
            gone = rng.choice(self.days()) if rng.random() < 0.15 else None
            for day in self.days():
                if gone and day >= gone:
                    continue
                self.add(
                    "service_providers",
                    HEADQUARTERS,
                    day,
                    sp_code=sp_code,
                    sp_name=f"企业{sp_code}" + ("（新）" if day >= renamed else ""),
                    province=rng.choice(["bj", "sh"]) if day == renamed else "gd",
                    status="active" if day < renamed else "inactive",
                    contact='说 "你好", 再见' if rng.random() < 0.9 else "two\nlines",
                )
        for (sp_code, service_code), (service_class, billing_type, fee) in self.services.items():
            since = rng.choice([date(2000, 1, 1)] * 4 + [self.first_day, self.first_day + timedelta(days=5)])
            base = {
                "sp_code": sp_code,
                "service_code": service_code,
                "service_name": f"服务 {service_code}, 第1版",
                "service_class": service_class,
                "is_portal": service_class in ("wap", "portal"),
                "billing_type": billing_type,
                "monthly_fee_li": None if billing_type == "per_use" and rng.random() < 0.5 else fee,
                "status": "active",
                "valid_from": since,
                "marketing_text": None,
            }
            story = rng.choice(
                ["same"] * 7
                + [
                    "text",
                    "class",
                    "withdrawn",
                    "valid_from",
                    "fee",
                    "fee",
                    "future",
                    "future",
                    "gap",
                    "gap",
                    "late",
                    "gone",
                    "type",
                    "back_dated",
                ]
            )
            if story in ("future", "back_dated", "withdrawn"):
                turn = self.catalogue_turn()
            changed_on = self.catalogue_turn()
            back_on = changed_on + timedelta(days=rng.choice([1, 2, 35]))
            for day in self.days():
                rows = [dict(base)]
                newer = {**base, "service_name": f"服务 {service_code} 第2版", "monthly_fee_li": fee + 1000}
                if story == "fee" and day >= changed_on:
                    rows = [{**newer, "valid_from": changed_on}]
                elif story == "type" and day >= changed_on:
                    rows = [{**newer, "valid_from": changed_on, "billing_type": "free"}]
                elif story == "text" and day >= changed_on:
                    rows = [{**base, "marketing_text": '免费试用, 真的"免费"'}]
                elif story == "class" and day >= changed_on:
                    rows = [{**base, "service_class": "sms" if service_class == "wap" else "wap"}]
                elif story == "valid_from" and day >= changed_on:
                    rows = [{**base, "valid_from": changed_on}]
                elif story == "withdrawn" and turn - timedelta(days=9) <= day < turn - timedelta(
                    days=rng.choice([0, 4])
                ):
                    # A coming row alone in the file; withdrawn again, perhaps just before it would have held.
                    rows = [{**newer, "valid_from": turn}]
                elif story == "future" and day >= turn - timedelta(days=10):
                    # The coming row stands beside the present one, later alone.
                    rows = (
                        [dict(base), {**newer, "valid_from": turn}]
                        if day < back_on
                        else [{**newer, "valid_from": turn}]
                    )
                elif story == "back_dated" and day >= turn:
                    rows = [{**newer, "valid_from": turn - timedelta(days=40)}]
                elif (
                    (story == "gap" and changed_on <= day < back_on)
                    or (story == "late" and day < changed_on)
                    or (story == "gone" and day >= changed_on)
                ):
                    rows = []
                for row in rows:
                    self.add("service_catalogue", HEADQUARTERS, day, **row)

    def catalogue_turn(self) -> date:
        """Draw a day for a change in the catalogue: the last day of a month, a 1st, the day after it, or any."""
        rng = self.rng
        if self.firsts and rng.random() < 0.75:
            return rng.choice(self.firsts) + rng.choice([-1, 0, 1]) * ONE_DAY
        return rng.choice(self.days())

    # ----------------------------------------------------------------------------------- relations

    def live_through(self, subscribers: int, snapshots: bool) -> None:
        """Let subscribers order, suspend, cancel, re-order and use."""
        rng = self.rng
        self.snapshots = snapshots
        self.numbers = [f"1{rng.choice([38, 59, 30])}{seq:08d}" for seq in rng.sample(range(10**8), subscribers)]
        state = []  # day-0 snapshot
        for number in self.numbers:
            source = rng.choice(self.sources)
            for service in rng.sample(list(self.services), rng.choice([1, 1, 2, 3, 4])):
                relation = (number, *service)
                if snapshots and rng.random() < 0.4:
                    state.append(self.old_relation(relation, source))
                else:
                    early = midnight(self.begins[source]) + rng.choice([0, 0, 1]) * ONE_SECOND
                    self.order_relation(relation, source, early if rng.random() < 0.3 else self.instant())
            if rng.random() < 0.1:
                self.order_relation((number, *self.unlisted), source, self.instant())
            if rng.random() < 0.25:
                self.act_on_all(number, source)
        for relation in list(self.relations):
            self.use(relation)
            if rng.random() < 0.1:
                self.event(
                    relation, rng.choice(["cancel", "suspend", "resume"]), self.instant(), rng.choice(self.sources)
                )
        if snapshots:
            for row, source in state:
                self.add("relation_snapshot", source, self.begins[source], **row)
            self.later_snapshots()

    def old_relation(self, relation: tuple, source: str) -> tuple:
        """Make a relation the day-0 snapshot brings in, and its later life; return its snapshot row and source."""
        rng = self.rng
        begin = midnight(self.begins[source])
        ordered_at = begin - rng.choice(
            [ONE_SECOND, timedelta(days=9), timedelta(days=40), timedelta(days=130), timedelta(days=400)]
        )
        if rng.random() < 0.3:
            ordered_at = midnight(ordered_at.date().replace(day=rng.choice([1, 21])))
        first = ordered_at - rng.choice([timedelta(), timedelta(days=33), timedelta(days=500)])
        suspended = rng.random() < 0.15
        row = {
            "msisdn": relation[0],
            "sp_code": relation[1],
            "service_code": relation[2],
            "status": "suspended" if suspended else "active",
            "first_ordered_at": first,
            "ordered_at": ordered_at,
            "confirmed_at": self.confirmation(ordered_at),
            "channel": rng.choice(["web", None]),
            "province": rng.choice([source, source, None]),
        }
        self.relations[relation] = [[ordered_at, None, source]]
        self.continue_life(relation, source, begin)
        return row, source

    def confirmation(self, ordered_at: datetime) -> datetime | None:
        """Draw a second confirmation: none, soon, or at the edge of a 1st."""
        rng = self.rng
        kind = rng.random()
        if kind < 0.08:
            return None
        if kind < 0.2 and self.firsts:
            return midnight(rng.choice(self.firsts)) + rng.choice([-1, 0, 1]) * ONE_SECOND
        return ordered_at + timedelta(seconds=rng.choice([0, 5, 600]))

    def event(self, relation: tuple, action: str, at: datetime, source: str, **more: object) -> dict | None:
        """Write one relation event; return it."""
        rng = self.rng
        self.counter += 1
        row = {
            "event_id": f"{rng.choice('ab9Z')}{self.counter}",
            "msisdn": relation[0],
            "sp_code": relation[1],
            "service_code": relation[2],
            "action": action,
            "event_time": at,
            "channel": rng.choice(["sms", "web", "wap", None]),
            "confirmed_at": self.confirmation(at) if action in ("order", "replace") else None,
            "province": rng.choice([source, source, source, "内蒙古", None]),
            "old_service_code": None,
            **more,
        }
        day = self.business_date(at, source)
        if day is None:
            return None
        self.add("relation_events", source, day, **row)
        self.event_log.append((source, day, row))
        return row

    def order_relation(self, relation: tuple, source: str, at: datetime) -> None:
        """Order a relation and let it live."""
        rng = self.rng
        if self.event(relation, "order", at, source) is None:
            return
        self.relations.setdefault(relation, []).append([at, None, source])
        if rng.random() < 0.15:
            self.event(relation, "order", self.instant(at), source)  # already ordered, or a second spell
        self.continue_life(relation, source, at)

    def continue_life(self, relation: tuple, source: str, since: datetime) -> None:
        """Suspend, resume, cancel, replace and re-order a live relation, often at corners."""
        rng = self.rng
        at = since
        for _ in range(rng.choice([0, 0, 0, 1, 1, 2])):
            at = self.instant(at)
            self.event(relation, "suspend", at, source)
            if rng.random() < 0.15:
                self.event(relation, "suspend", self.instant(at), source)
            if rng.random() < 0.7:
                at = at if rng.random() < 0.1 else self.instant(at)
                self.event(relation, rng.choice(["resume", "activate"]), at, source)
        fate = rng.random()
        if fate < 0.45:
            return
        ordered_at = self.relations[relation][-1][0]
        ends = [self.instant(at), self.instant(at)]
        # Ends at the edges of the detection day and right after the order.
        observed_from = max(ordered_at.date(), self.first_day)
        detected_on = midnight(observed_from + timedelta(days=31))
        ends += [detected_on + rng.choice([-1, 0, 1]) * ONE_SECOND, since]
        end = rng.choice([one for one in ends if since <= one <= midnight(self.last_day + ONE_DAY)])
        if fate > 0.9:
            others = [one for one in self.services if one[0] == relation[1] and one[1] != relation[2]]
            if others:
                other = relation if rng.random() < 0.1 else (relation[0], *rng.choice(others))
                self.event(other, "replace", end, source, old_service_code=relation[2])
                self.relations[relation][-1][1] = end
                self.relations.setdefault(other, []).append([end, None, source])
                return
        if self.event(relation, "cancel", end, source) is None:
            return
        self.relations[relation][-1][1] = end
        if rng.random() < 0.5:
            again = rng.choice([end, self.instant(end), self.instant(end)])
            self.order_relation(relation, rng.choice(self.sources), again)

    def act_on_all(self, number: str, source: str) -> None:
        """Cancel or suspend everything of a subscriber with one SP."""
        rng = self.rng
        own = [relation for relation in self.relations if relation[0] == number]
        if not own:
            return
        relation = rng.choice(own)
        began = max(spell[0] for spell in self.relations[relation])
        at = self.instant(max(began, midnight(self.begins[source])))
        action = rng.choice(["cancel_all", "suspend_all"])
        if self.event((number, relation[1], None), action, at, source) is None:
            return
        if action == "suspend_all":
            if rng.random() < 0.5:
                self.event(relation, "resume", self.instant(at), source)
            return
        for other in own:
            for spell in self.relations[other]:
                if other[1] == relation[1] and spell[0] <= at and (spell[1] is None or spell[1] > at):
                    spell[1] = at
        if rng.random() < 0.4:
            self.order_relation(relation, source, self.instant(at))

    def later_snapshots(self) -> None:
        """Write full snapshots on some 1sts: mostly what was lived, with a few differences and surprises."""
        rng = self.rng
        for first in self.firsts:
            if first > self.last_day or rng.random() < 0.5:
                continue
            start = midnight(first)
            for relation, spells in self.relations.items():
                for ordered_at, ended_at, source in spells:
                    live = ordered_at < start and (ended_at is None or ended_at >= start)
                    if not live or rng.random() < 0.1 or self.begins[source] > first:
                        continue
                    opened = [row for _, _, row in self.event_log if self.opens(row, relation, ordered_at)]
                    self.add(
                        "relation_snapshot",
                        source,
                        first,
                        msisdn=relation[0],
                        sp_code=relation[1],
                        service_code=relation[2],
                        status="suspended" if rng.random() < 0.1 else "active",
                        first_ordered_at=spells[0][0],
                        ordered_at=ordered_at,
                        confirmed_at=opened[0]["confirmed_at"] if opened else None,
                        channel=opened[0]["channel"] if opened else None,
                        province=opened[0]["province"] if opened else None,
                    )
                    break
            self.repeat_snapshot_rows(first)
            number = f"137{rng.randrange(10**8):08d}"
            service = rng.choice(list(self.services))
            source = rng.choice(self.sources)
            row, _ = self.old_relation((number, *service), source)
            ordered_at = start - rng.choice([ONE_SECOND, timedelta(days=31), timedelta(days=200)])
            row |= {"ordered_at": ordered_at, "first_ordered_at": ordered_at, "status": "active"}
            self.relations[(number, *service)][0][0] = ordered_at
            self.add("relation_snapshot", source, max(first, self.begins[source]), **row)
            self.use((number, *service))

    def repeat_snapshot_rows(self, first: date) -> None:
        """Name some relations twice in the snapshots of a day: in the same file, or in that of another source."""
        rng = self.rng
        for source in self.sources:
            for row in list(self.records.get(("relation_snapshot", source, first), [])):
                if rng.random() < 0.03:
                    self.add("relation_snapshot", rng.choice([source, *self.sources]), first, **row)

    @staticmethod
    def opens(row: dict, relation: tuple, at: datetime) -> bool:
        return (
            (row["msisdn"], row["sp_code"], row["service_code"]) == relation
            and row["event_time"] == at
            and row["action"] in ("order", "replace")
        )

    # ----------------------------------------------------------------------------------- usage

    def use(self, relation: tuple) -> None:
        """Use a relation: not at all, just enough, or at the edges of its spells and windows."""
        rng = self.rng
        service_class = self.services.get(relation[1:], ("sms",))[0]
        for ordered_at, ended_at, _ in self.relations[relation]:
            begin = max(ordered_at, midnight(self.first_day))
            end = min(ended_at or midnight(self.last_day + ONE_DAY), midnight(self.last_day + ONE_DAY))
            detected = midnight(max(ordered_at.date(), self.first_day) + timedelta(days=31))
            edges = [ordered_at - ONE_SECOND, ordered_at, end - ONE_SECOND, end]
            edges += [detected - ONE_SECOND, detected, detected + ONE_SECOND, detected - ONE_DAY]
            edges += [one + rng.choice([-1, 0]) * ONE_SECOND for one in self.corners if begin <= one <= end]
            edges = [one for one in edges if midnight(self.first_day) <= one <= midnight(self.last_day + ONE_DAY)]
            if service_class in ("sms", "mms") or rng.random() < 0.05:
                self.exchange_messages(relation, begin, end, edges)
            if service_class in ("wap", "portal") or rng.random() < 0.05:
                self.browse(relation, begin, end, edges)

    def exchange_messages(self, relation: tuple, begin: datetime, end: datetime, edges: list) -> None:
        rng = self.rng
        habit = rng.choice(["none", "none", "edges", "monthly", "monthly", "not_counted"])
        if habit == "none":
            return
        if habit == "edges":
            for at in rng.sample(edges, min(len(edges), rng.choice([1, 1, 2, 3]))):
                self.message(relation, at, rng.choice(["MT", "MO"]), rng.choice([1, 3, 4]))
            return
        if habit == "not_counted":
            at = self.instant(begin)
            self.message(relation, at, "MT", 9, purpose=rng.choice(["fee", "reminder", "test"]))
            self.message(relation, at, "MO", 9, status="failed")
            self.message(relation, at, "MT", 0)
            return
        month = begin.date().replace(day=1)
        while midnight(month) < end:
            total = rng.choice([0, 3, 3, 4, 4, 12])
            low, high = max(begin, midnight(month)), min(end, midnight(next_first(month)))
            while total > 0:
                part = min(total, rng.choice([1, 2, 3]))
                at = rng.choice([low, high - ONE_SECOND, low + (high - low) * rng.random()]).replace(microsecond=0)
                self.message(relation, at, "MT", part)
                total -= part
            if rng.random() < 0.3:
                self.message(relation, low, "MO", 50)
            month = next_first(month)

    def message(
        self, relation: tuple, at: datetime, direction: str, count: int, status: str = "ok", purpose: str = "content"
    ) -> None:
        source = self.rng.choice(self.sources)  # people roam
        self.add(
            "sms_usage",
            source,
            self.business_date(at, source),
            msisdn=relation[0],
            sp_code=relation[1],
            service_code=relation[2],
            direction=direction,
            sent_at=at,
            status=status,
            purpose=purpose,
            message_count=count,
            fee_li=self.rng.choice([0, 100]),
        )

    def browse(self, relation: tuple, begin: datetime, end: datetime, edges: list) -> None:
        rng = self.rng
        habit = rng.choice(["none", "none", "edges", "once", "often", "not_counted"])
        times = []
        if habit == "edges":
            times = rng.sample(edges, min(len(edges), rng.choice([1, 1, 2])))
        elif habit == "once":
            times = [self.instant(begin)]
        elif habit == "often":
            times = [self.instant(begin) for _ in range(8)]
        for at in times:
            self.hit(relation, at, 1)
        if habit == "not_counted":
            self.hit(relation, self.instant(begin), 5, status="failed")
            self.hit(relation, self.instant(begin), 0)
        traffic = rng.choice(["with_hits", "none", "edges", "net_only"])
        if traffic == "edges":
            times = rng.sample(edges, min(len(edges), rng.choice([1, 2])))
        elif traffic != "with_hits":
            times = []
        for at in times:
            self.traffic(
                relation[0], at, rng.choice(["CMWAP", "cmwap", "CmWap"]), rng.choice([(0, 1), (7, 900), (1, 0)])
            )
        if traffic == "net_only":
            self.traffic(relation[0], self.instant(begin), "CMNET", (500, 500))
            self.traffic(relation[0], self.instant(begin), "cmwap", (0, 0))

    def hit(self, relation: tuple, at: datetime, hits: int, status: str = "ok") -> None:
        source = self.rng.choice(self.sources)
        self.add(
            "wap_usage",
            source,
            self.business_date(at, source),
            msisdn=relation[0],
            sp_code=relation[1],
            service_code=relation[2],
            accessed_at=at,
            status=status,
            hits=hits,
            fee_li=0,
        )

    def traffic(self, number: str, at: datetime, apn: str, volume: tuple) -> None:
        source = self.rng.choice(self.sources)
        self.add(
            "gprs_usage",
            source,
            self.business_date(at, source),
            msisdn=number,
            apn=apn,
            started_at=at,
            up_bytes=volume[0],
            down_bytes=volume[1],
        )

    # ----------------------------------------------------------------------------------- what interrupts a charge

    def some_first(self) -> date:
        return self.rng.choice(self.firsts or [next_first(self.last_day)])

    def interrupt_lines(self) -> None:
        """Stop and close lines over whole months, nearly whole months and at the edge of a 1st."""
        rng = self.rng
        for number in rng.sample(self.numbers, max(2, len(self.numbers) // 4)):
            first = self.some_first()
            begin, end = midnight((first - ONE_DAY).replace(day=1)), midnight(first)
            middle = begin + timedelta(days=rng.randint(1, 20), seconds=rng.randint(0, 86399))
            story = rng.choice(
                ["whole", "adjacent", "gap", "open", "late", "closed", "closed_late", "closed_to", "mixed", "empty"]
            )
            pieces = {
                "whole": [("stopped", begin, end)],
                "adjacent": [("stopped", begin - ONE_DAY, middle), ("stopped", middle, end)],
                "gap": [("stopped", begin, middle), ("stopped", middle + ONE_SECOND, None)],
                "open": [("stopped", begin, None)],
                "late": [("stopped", begin + ONE_SECOND, None)],
                "closed": [("closed", end - ONE_SECOND, None)],
                "closed_late": [("closed", end, None)],
                "closed_to": [("closed", middle, end + rng.choice([-1, 0]) * ONE_SECOND)],
                "empty": [("stopped", begin, begin), ("closed", end, middle), ("stopped", begin - ONE_DAY, begin)],
                "mixed": [("stopped", begin, end), ("closed", end - ONE_SECOND, end)],
            }[story]
            for status, start, stop in pieces:
                day = rng.choice(self.days())
                self.add("line_status", HEADQUARTERS, day, msisdn=number, status=status, from_time=start, to_time=stop)
                if stop is not None and rng.random() < 0.5:
                    # First known as open, closed by a newer business date.
                    earlier = day - timedelta(days=rng.randint(1, 9))
                    self.add(
                        "line_status",
                        HEADQUARTERS,
                        earlier,
                        msisdn=number,
                        status=status,
                        from_time=start,
                        to_time=None,
                    )

    def penalise(self) -> None:
        """Suspend SPs and services around the limit of 240 hours in a month."""
        rng = self.rng
        for index in range(rng.choice([1, 2, 3, 4])):
            first = self.some_first()
            begin, end = midnight((first - ONE_DAY).replace(day=1)), midnight(first)
            sp_code, service_code = rng.choice(list(self.services))
            limit = timedelta(hours=240)
            story = rng.choice(["exact", "over", "union", "open_exact", "open_over", "across", "empty"])
            half = timedelta(hours=120)
            pieces = {
                "exact": [(None, begin, begin + limit)],
                "over": [(service_code, begin + ONE_DAY, begin + ONE_DAY + limit + ONE_SECOND)],
                # Overlapping pieces of the SP and of the service count once.
                "union": [
                    (None, begin, begin + half + timedelta(hours=1)),
                    (service_code, begin + half, begin + limit + rng.choice([0, 1]) * ONE_SECOND),
                ],
                "open_exact": [(None, end - limit, None)],
                "open_over": [(None, end - limit - ONE_SECOND, None)],
                "empty": [(None, end, begin), (None, begin, begin + limit), (service_code, begin, begin)],
                "across": [(service_code, begin - half, begin + limit), (None, end, end + limit)],
            }[story]
            for part, (service, start, stop) in enumerate(pieces):
                row = {
                    "penalty_id": f"p{index}-{part}",
                    "sp_code": sp_code,
                    "service_code": service,
                    "suspended_from": start,
                    "suspended_to": stop,
                    "reason": "整改",
                }
                day = rng.choice(self.days())
                self.add("sp_penalties", HEADQUARTERS, day, **row)
                if rng.random() < 0.4:
                    earlier = day - timedelta(days=rng.randint(1, 9))
                    self.add("sp_penalties", HEADQUARTERS, earlier, **{**row, "suspended_to": None})

    def refund(self) -> None:
        """Refund around month ends, once and twice, and correct a refund later."""
        rng = self.rng
        for index in range(rng.choice([0, 3, 6])):
            relation = rng.choice(list(self.relations))
            day = rng.choice([self.some_first() - rng.choice([0, 1]) * ONE_DAY, rng.choice(self.days())])
            row = {
                "refund_id": f"r{index}",
                "msisdn": relation[0],
                "sp_code": rng.choice([relation[1], "777777"]),
                "service_code": relation[2],
                "billing_month": day.replace(day=1),
                "amount_li": rng.choice([1, 3, 10, 30, 5000, -10]),
                "times": rng.choice([1, 1, 2]),
                "reason": None,
            }
            self.add("refunds", HEADQUARTERS, day, **row)
            if rng.random() < 0.3:
                later = day + timedelta(days=rng.choice([1, 30]))
                self.add("refunds", HEADQUARTERS, later, **{**row, "amount_li": 2000})

    def report(self) -> None:
        """Report relations as abnormal at the edges of their due date and of their spells."""
        rng = self.rng
        for relation, spells in self.relations.items():
            if rng.random() < 0.5:
                continue
            for ordered_at, _, _ in spells:
                detected_on = max(ordered_at.date(), self.first_day) + timedelta(days=30)
                limit = midnight(due_on(detected_on)[0] + ONE_DAY)
                at = rng.choice([limit - ONE_SECOND, limit, ordered_at, ordered_at - ONE_SECOND, self.instant()])
                if not midnight(self.first_day) <= at <= midnight(self.last_day + ONE_DAY):
                    continue
                self.counter += 1
                row = {
                    "report_id": f"n{self.counter}",
                    "sp_code": relation[1],
                    "service_code": relation[2],
                    "msisdn": relation[0],
                    "anomaly_type": rng.choice(["no_traffic", "never_accessed", None]),
                    "reported_at": at,
                }
                day = self.business_date(at, HEADQUARTERS)
                self.add("sp_reports", HEADQUARTERS, day, **row)
                if day and rng.random() < 0.2 and (day + ONE_DAY - at.date()).days <= 31:
                    # The same report again, newer and later: it replaces the first.
                    later = min(at + timedelta(hours=rng.choice([1, 24])), midnight(day + 2 * ONE_DAY))
                    self.add("sp_reports", HEADQUARTERS, day + ONE_DAY, **{**row, "reported_at": later})

    def repeat_events(self) -> None:
        """Deliver some events a second time, some of them with other content under the same id."""
        rng = self.rng
        for source, day, row in rng.sample(self.event_log, min(len(self.event_log), 6)):
            again = day + timedelta(days=rng.choice([0, 1, 3]))
            other_source = source if again == day else rng.choice(self.sources)
            if (again - row["event_time"].date()).days > 31:
                continue
            changed = dict(row)
            if rng.random() < 0.5:
                changed |= {"channel": "changed", "province": "changed"}
            if rng.random() < 0.3 and row["action"] in ("order", "cancel"):
                changed["action"] = "suspend"
            self.add("relation_events", other_source, again, **changed)

    def write_test_numbers(self) -> None:
        """Declare some numbers as test numbers, with validity that begins or ends at a 1st."""
        rng = self.rng
        lines = ["msisdn,valid_from,valid_to"]
        for number in rng.sample(self.numbers, max(1, len(self.numbers) // 10)):
            first = self.some_first()
            start, stop = rng.choice(
                [
                    (self.first_day, None),
                    (self.first_day, first),
                    (self.first_day, first - ONE_DAY),
                    (first, None),
                    (first - ONE_DAY, first + timedelta(days=40)),
                ]
            )
            prefix = rng.choice(["", "86", "+86"])
            lines.append(f"{prefix}{number},{start},{stop or ''}")
        self.home.mkdir(parents=True, exist_ok=True)
        (self.home / "test_numbers.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")

    # ----------------------------------------------------------------------------------- filling and bad records

    def fill_up(self, bad_records: bool) -> None:
        """Make a few deliveries big, with use in no spell, so that one bad record in a hundred is allowed."""
        rng = self.rng
        for extract in BAD_KINDS:
            times = 1 if extract in ("sms_usage", "wap_usage", "gprs_usage") or rng.random() < 0.5 else 0
            for _ in range(times):
                source = rng.choice(self.sources) if extract in BY_SOURCE else HEADQUARTERS
                day = rng.choice(self.days(source))
                for _ in range(rng.choice([100, 199, 200, 230])):
                    at = midnight(day) + timedelta(seconds=rng.randint(0, 86399))
                    relation = (f"133{rng.randrange(10**8):08d}", *rng.choice(list(self.services)))
                    self.add(extract, source, day, **self.filler(extract, relation, at, source))
                rows = len(self.records.get((extract, source, day), []))
                if bad_records and rows >= 100:
                    for _ in range(rng.randint(1, (rows + 1) // 100)):
                        self.bad_lines.setdefault((extract, source, day), []).append(rng.choice(BAD_KINDS[extract]))

    def filler(self, extract: str, relation: tuple, at: datetime, source: str) -> dict:
        names = dict(zip(("msisdn", "sp_code", "service_code"), relation, strict=True))
        if extract == "sms_usage":
            return {
                **names,
                "direction": "MT",
                "sent_at": at,
                "status": "ok",
                "purpose": "content",
                "message_count": 1,
                "fee_li": 0,
            }
        if extract == "wap_usage":
            return {**names, "accessed_at": at, "status": "ok", "hits": 1, "fee_li": 0}
        if extract == "gprs_usage":
            apn = self.rng.choice(["cmnet", "cmwap", None])
            return {"msisdn": relation[0], "apn": apn, "started_at": at, "up_bytes": 1, "down_bytes": 2}
        if extract == "line_status":
            return {"msisdn": relation[0], "status": "stopped", "from_time": at, "to_time": None}
        self.counter += 1
        if extract == "refunds":
            money = {"billing_month": at.date().replace(day=1), "amount_li": 1, "times": 1, "reason": "批量"}
            return {"refund_id": f"f{self.counter}", **names, **money}
        if extract == "sp_reports":
            return {"report_id": f"f{self.counter}", **names, "anomaly_type": None, "reported_at": at}
        return {
            "event_id": f"f{self.counter}",
            **names,
            "action": "order",
            "event_time": at,
            "channel": "web",
            "confirmed_at": at,
            "province": source,
            "old_service_code": None,
        }

    # ----------------------------------------------------------------------------------- writing

    def write_landing(self, holes: str, resends: bool) -> None:
        """Write every delivery of every pair and day, zero rows included, except the holes."""
        rng = self.rng
        pairs = [(extract, source) for extract in BY_SOURCE for source in self.sources]
        pairs += [(extract, HEADQUARTERS) for extract in BY_HEADQUARTERS]
        keys = [
            (extract, source, day)
            for extract, source in pairs
            for day in self.days(source)
            if extract not in self.absent and day >= self.extract_begins.get(extract, day)
        ]
        keys += [key for key in self.records if key[0] == "relation_snapshot"]
        missing = set()
        candidates = [key for key in keys if holes == "some" or key[0] in ("sms_usage", "wap_usage", "gprs_usage")]
        if holes != "none":
            for _ in range(rng.choice([0, 1, 2, 5])):
                missing.add(rng.choice(candidates))
            if rng.random() < 0.15:
                missing |= {key for key in keys if key[2] == self.last_day and rng.random() < 0.3}
        self.written: dict = {}
        for key in keys:
            if key in missing:
                continue
            rows = list(self.records.get(key, []))
            if key[0] in ("sms_usage", "wap_usage", "gprs_usage") and rows and rng.random() < 0.2:
                rows.append(dict(rng.choice(rows)))  # a line equal in all columns, perhaps spelled otherwise
            style = rng.random()
            if resends and rows and style < 0.03:
                # The first attempt lacks or doubles something; the resend replaces it whole.
                wrong = rng.sample(rows, rng.randint(0, len(rows)))
                self.write_delivery(key, 1, wrong, [])
                self.write_delivery(key, 2, rows, self.bad_lines.get(key, []))
            elif resends and style < 0.035:
                self.write_delivery(key, 1, rows, self.bad_lines.get(key, []))
                self.write_delivery(key, 2, rows[:1], [], damage=rng.choice(["sha256", "bytes", "rows", "header"]))
            else:
                self.write_delivery(key, 1, rows, self.bad_lines.get(key, []))
        if resends:
            self.repeat_bytes()

    def repeat_bytes(self) -> None:
        """Send the bytes of one day again as the second delivery of a later day: refused, the first one stays."""
        rng = self.rng
        repeatable = [
            key
            for key, (number, content) in self.written.items()
            if key[0] in ("sms_usage", "wap_usage", "relation_events") and number == 1 and content[1] > 0
        ]
        for key in rng.sample(repeatable, min(2, len(repeatable))):
            later = (key[0], rng.choice(self.sources), key[2] + ONE_DAY)
            if later in self.written and self.written[later][0] == 1:
                content, rows = self.written[key][1]
                self.write_bytes(later, 2, [(content, rows, ".csv")])

    def write_delivery(self, key: tuple, number: int, rows: list, bad: list, damage: str | None = None) -> None:
        """Write the files and the manifest of one delivery, in one of the many allowed spellings."""
        rng = self.rng
        extract = key[0]
        lines = [self.render(extract, row) for row in rows]
        header = list(COLUMNS[extract])
        if extract == "relation_events" and all(row["old_service_code"] is None for row in rows) and rng.random() < 0.5:
            header.remove("old_service_code")
        if rng.random() < 0.1:
            rng.shuffle(header)
        if rng.random() < 0.05:
            header.insert(rng.randint(0, len(header)), "extra_column")
        if damage == "header":
            header[0] = header[-1]
        parts = [lines]
        if len(lines) > 1 and rng.random() < 0.2:
            cut = rng.randint(0, len(lines) - 1)
            parts = [lines[:cut], lines[cut:]]
        files = []
        for index, part in enumerate(parts):
            extra = bad if index == len(parts) - 1 else []
            files.append((self.encode(extract, header, part, extra), len(part) + len(extra), ""))
        if damage == "rows":
            files[0] = (files[0][0], files[0][1] + 1, "")
        self.write_bytes(key, number, files, damage, None if bad else self.totals(extract, rows))

    def totals(self, extract: str, rows: list) -> dict | None:
        """Return control totals for some deliveries."""
        columns = {"sms_usage": "message_count", "wap_usage": "hits", "refunds": "amount_li"}
        if extract not in columns or self.rng.random() < 0.5:
            return None
        return {columns[extract]: sum(row[columns[extract]] for row in rows)}

    def write_bytes(
        self, key: tuple, number: int, files: list, damage: str | None = None, totals: dict | None = None
    ) -> None:
        """Write data files first, the manifest last."""
        rng = self.rng
        extract, source, day = key
        folder = self.home / "landing" / extract / day.isoformat()
        folder.mkdir(parents=True, exist_ok=True)
        stem = f"{extract}_{day:%Y%m%d}_{source}" + (f"_d{number}" if number > 1 else "")
        entries = []
        for index, (content, rows, ending) in enumerate(files, start=1):
            part = f"_{index:03d}" if len(files) > 1 or rng.random() < 0.2 else ""
            packed = not ending and rng.random() < 0.5
            raw = gzip.compress(content, mtime=0) if packed else content
            name = f"{stem}{part}.csv" + (".gz" if packed else "")
            (folder / name).write_bytes(raw)
            digest = hashlib.sha256(raw + (b"!" if damage == "sha256" else b"")).hexdigest()
            size = len(raw) + (damage == "bytes")
            entries.append({"name": name, "rows": rows, "bytes": size, "sha256": digest})
            if damage is None and not packed and len(files) == 1:
                self.written[key] = (number, (content, rows))
        manifest = {
            "extract": extract,
            "business_date": day.isoformat(),
            "source": source,
            "delivery": number,
            "schema_version": 1,
            "files": entries,
        }
        if totals is not None:
            manifest["totals"] = totals
        text = json.dumps(manifest, ensure_ascii=False, indent=rng.choice([None, 2]))
        (folder / f"{stem}.manifest.json").write_text(text, encoding="utf-8")

    def render(self, extract: str, row: dict) -> dict:
        """Spell the values of a record in one of the allowed ways."""
        rng = self.rng
        spelled = {}
        for column, value in row.items():
            if value is None:
                text = ""
            elif isinstance(value, datetime):
                text = self.spell_time(value)
            elif isinstance(value, date):
                text = value.isoformat()
            elif isinstance(value, bool):
                text = "true" if value else "false"
            elif isinstance(value, int):
                text = str(value) if value < 0 else rng.choice([str(value)] * 8 + [f"+{value}", f"0{value}"])
            elif column == "msisdn":
                text = rng.choice(["", "", "", "86", "+86", "0086"]) + value
            else:
                text = value
            spelled[column] = text
        spelled["extra_column"] = "x"
        return spelled

    def spell_time(self, at: datetime) -> str:
        """Spell an instant; a midnight perhaps as 24:00:00 of the day before."""
        rng = self.rng
        if at == midnight(at.date()) and rng.random() < 0.4:
            day = at.date() - ONE_DAY
            return rng.choice([f"{day} 24:00:00", f"{day:%Y%m%d}240000"])
        return at.strftime(rng.choice(["%Y-%m-%d %H:%M:%S", "%Y-%m-%d %H:%M:%S", "%Y%m%d%H%M%S"]))

    def encode(self, extract: str, header: list, lines: list, bad: list) -> bytes:
        """Return CSV bytes: perhaps with BOM, CRLF, needless quotes, no newline at the end."""
        rng = self.rng
        stream = io.StringIO(newline="")
        ending = rng.choice(["\n", "\n", "\n", "\r\n"])
        quoting = csv.QUOTE_ALL if rng.random() < 0.05 else csv.QUOTE_MINIMAL
        writer = csv.writer(stream, lineterminator=ending, quoting=quoting)
        writer.writerow(header)
        for line in lines:
            writer.writerow([line[column] for column in header])
        raw = stream.getvalue().encode("utf-8")
        for kind in bad:
            raw += spoil(extract, header, rng.choice(lines), kind) + ending.encode()
        if rng.random() < 0.05 and lines and not bad:
            raw = raw.removesuffix(ending.encode())
        return (b"\xef\xbb\xbf" if rng.random() < 0.1 else b"") + raw

    def write_expected_file(self) -> None:
        """Write expected_extracts.csv: what is delivered, perhaps one pair that ended and one that never came."""
        rng = self.rng
        lines = ["extract,source,schedule,valid_from,valid_to"]
        last_source = self.sources[-1]
        oddity = rng.choice(["none", "ended", "optional", "unlisted", "interrupted", "all_ended"])
        odd_extract = rng.choice(["sms_usage", "wap_usage", "gprs_usage"])
        for source in self.sources:
            lines.append(f"relation_snapshot,{source},optional,{self.first_day},")
            for extract in BY_SOURCE:
                if extract in self.absent:
                    continue
                begin = max(self.begins[source], self.extract_begins.get(extract, self.first_day))
                schedule, ended = "daily", ""
                if extract == odd_extract and (source == last_source or oddity == "all_ended"):
                    if oddity == "unlisted":
                        continue
                    if oddity == "optional":
                        schedule = "optional"
                    elif oddity in ("ended", "all_ended"):
                        ended = begin + (self.last_day - begin) * 2 // 3
                    elif oddity == "interrupted":
                        middle = begin + (self.last_day - begin) // 2
                        lines.append(f"{extract},{source},daily,{begin},{middle}")
                        begin = middle + 3 * ONE_DAY
                lines.append(f"{extract},{source},{schedule},{begin},{ended}")
        for extract in BY_HEADQUARTERS:
            since = self.first_day
            if extract == "service_providers":
                since -= timedelta(days=2)  # expected before it was ever delivered
            if extract not in self.absent:
                lines.append(f"{extract},{HEADQUARTERS},daily,{since},")
        if rng.random() < 0.3:
            lines.append(f"wap_usage,xz,daily,{self.first_day},{self.first_day + timedelta(days=3)}")
        self.home.mkdir(parents=True, exist_ok=True)
        (self.home / "expected_extracts.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")


BAD_KINDS = {
    "sms_usage": [
        "number",
        "blank",
        "time",
        "old",
        "future",
        "msisdn",
        "code",
        "fields",
        "bytes",
        "fee",
        "empty",
        "nul",
    ],
    "wap_usage": ["number", "exponent", "time", "old", "future", "msisdn", "code", "fields", "bytes", "fee", "empty"],
    "gprs_usage": ["number", "hex", "time", "old", "future", "msisdn", "fields", "bytes", "empty"],
    "relation_events": ["time", "old", "future", "msisdn", "code", "fields", "bytes", "empty", "overlong"],
    "line_status": ["msisdn", "code", "fields", "bytes", "empty", "nul"],
    "refunds": ["number", "msisdn", "fields", "empty", "times", "month"],
    "sp_reports": ["time", "old", "future", "msisdn", "fields", "empty", "overlong"],
}
TIME_COLUMN = {
    "sms_usage": "sent_at",
    "wap_usage": "accessed_at",
    "gprs_usage": "started_at",
    "relation_events": "event_time",
    "sp_reports": "reported_at",
}
NUMBER_COLUMN = {"sms_usage": "message_count", "wap_usage": "hits", "gprs_usage": "up_bytes", "refunds": "amount_li"}
CODE_COLUMN = {"sms_usage": "direction", "wap_usage": "status", "relation_events": "action", "line_status": "status"}


def spoil(extract: str, header: list, good: dict, kind: str) -> bytes:
    """Return one bad record made from a good one."""
    line = dict(good)
    if kind in ("number", "blank", "exponent", "hex"):
        line[NUMBER_COLUMN[extract]] = {"number": "1.7", "blank": " 8", "exponent": "1e3", "hex": "0x10"}[kind]
    elif kind == "time":
        line[TIME_COLUMN[extract]] = "2026-01-32 00:00:00"
    elif kind == "old":
        line[TIME_COLUMN[extract]] = "1999-12-31 23:59:59"
    elif kind == "future":
        line[TIME_COLUMN[extract]] = "2099-01-01 00:00:00"
    elif kind == "msisdn":
        line["msisdn"] = "8610649000001"
    elif kind == "code":
        line[CODE_COLUMN[extract]] = "9"
    elif kind == "fee":
        line["fee_li"] = "-1"
    elif kind == "empty":
        line["msisdn"] = ""
    elif kind == "times":
        line["times"] = "3"
    elif kind == "month":
        line["billing_month"] = "2026-03-02"
    elif kind == "overlong":
        line["service_code"] = "A2345678901"
    stream = io.StringIO(newline="")
    csv.writer(stream, lineterminator="").writerow([line[column] for column in header])
    text = stream.getvalue()
    if kind == "fields":
        text += ",more"
    if kind == "nul":
        text = text[:3] + "\x00" + text[3:]
    return text.encode("utf-8") + (b"\xff" if kind == "bytes" else b"")
