"""Why one subscription is or is not charged for one month: facts, rules in their order, policy rows, input lines.

Reads the warehouse as it stands and decides nothing itself: the decision is the row of `billing_dispositions`, the
facts beside each rule are the rows it was made of. Numbers are masked.
"""

import re
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from typing import Any

import duckdb

from cleanbill.control import open_warehouse
from cleanbill.errors import NothingToExplain
from cleanbill.masking import mask_msisdn, mask_text
from cleanbill.settings import get_settings

SUBSCRIPTION_ID = re.compile(r"[0-9a-f]{32}")
LOCK_WAIT_SECONDS = 10.0
LINES_PER_EXTRACT = 40


@dataclass(frozen=True)
class RuleFact:
    """One disposition in its order: `answer` is no / yes / not asked; `fact` is what the rule looked at."""

    disposition: str
    answer: str
    fact: str


@dataclass(frozen=True)
class PolicyRow:
    """A policy row that applied, and the day it was looked up for."""

    table: str
    valid_on: date
    values: dict[str, Any]


@dataclass(frozen=True)
class InputLine:
    """One line of one delivery behind the decision."""

    extract: str
    business_date: date
    source: str
    delivery: int
    file_name: str
    line_no: int
    content: str


@dataclass
class Explanation:
    """Everything behind one decision; all sections are in the order in which they are shown.

    `decision` is None when the relation was not live at M-01 00:00 or the month was not judged; `no_decision` says
    which. `waivers` are the missing days it does without. `lines_left_out` counts usage lines beyond
    LINES_PER_EXTRACT per extract.
    """

    as_of: date
    is_unfinished: bool
    month: date
    subscription_id: str
    spell: dict[str, Any]
    service: dict[str, Any]
    usage: list[dict[str, Any]]
    anomalies: list[dict[str, Any]]
    silence: dict[str, Any] | None
    decision: dict[str, Any] | None
    no_decision: str | None
    rules: list[RuleFact]
    policy: list[PolicyRow]
    waivers: list[dict[str, Any]] = field(default_factory=list)
    lines: list[InputLine] = field(default_factory=list)
    lines_left_out: dict[str, int] = field(default_factory=dict)


def explain(subscription_id: str, month: date) -> Explanation:
    """Explain the decision on one subscription for billing month M at the warehouse's as-of date.

    Args:
        subscription_id: 32 hex digits, as in `subscriptions` and the feed.
        month: first day of M.

    Raises:
        NothingToExplain: the id is malformed or unknown at this as-of date, or nothing was built yet.
        SettingsError: the pipeline is at work and keeps the warehouse locked.
    """
    settings = get_settings()
    if not SUBSCRIPTION_ID.fullmatch(subscription_id):
        raise NothingToExplain(
            where="subscription id",
            expected="32 hex digits",
            found=f"{len(subscription_id)} other characters",
            advice="take it from `subscriptions`, `billing_dispositions` or a line of the feed",
        )
    if not settings.warehouse.exists():
        raise _nothing_built()
    with open_warehouse(settings, read_only=True, wait_seconds=LOCK_WAIT_SECONDS) as connection:
        return _Explainer(connection, subscription_id, month).explain()


def _nothing_built() -> NothingToExplain:
    return NothingToExplain(
        where="warehouse",
        expected="a finished build",
        found="none",
        advice="`cleanbill run --from DAY --to DAY` builds it",
    )


class _Explainer:
    """Collects the rows of one subscription from an open warehouse."""

    def __init__(self, connection: duckdb.DuckDBPyConnection, subscription_id: str, month: date) -> None:
        self.connection = connection
        self.subscription_id = subscription_id
        self.month = month
        self.values: dict[str, Any] = {"id": subscription_id, "month": month}

    def explain(self) -> Explanation:
        state = self._row("select as_of_date from control.absorbed_state")
        if state is None:
            raise _nothing_built()
        as_of = state["as_of_date"]
        spell = self._spell(as_of)
        service = self._row(
            """
            select
                services.service_name, services.service_class, services.billing_type, services.monthly_fee_li,
                services.valid_from, services.valid_to, classes.usage_extract
            from intermediate.int_service_versions as services
            left join policy.service_classes as classes on services.service_class = classes.service_class
            where
                services.sp_code = $sp_code and services.service_code = $service_code
                and services.valid_from <= $month and (services.valid_to is null or services.valid_to > $month)
            """
        )
        silence = self._row(
            """
            select verdict, window_start, mt_count, wap_hits, before_data_start
            from intermediate.int_silence
            where subscription_id = $id and billing_month = $month
            """
        )
        anomalies = self._rows(
            """
            select anomaly_type, observed_from, detected_on, resolved_on, due_on, report_to, report_status, reported_at
            from marts.anomalous_subscriptions
            where subscription_id = $id
            order by detected_on, anomaly_type
            """
        )
        decision = self._row(
            """
            select disposition, reason, fee_li, charged_li
            from marts.billing_dispositions
            where subscription_id = $id and billing_month = $month
            """
        )
        explanation = Explanation(
            as_of=as_of,
            is_unfinished=self._row("select 1 from control.build_under_way") is not None,
            month=self.month,
            subscription_id=self.subscription_id,
            spell=spell,
            service=service or {},
            usage=self._rows(
                """
                select month, mt_count, mo_count, wap_hits, active_days, last_used_on
                from marts.subscription_usage_monthly
                where subscription_id = $id
                order by month
                """
            ),
            anomalies=anomalies,
            silence=silence,
            decision=decision,
            no_decision=None if decision else self._why_undecided(spell, as_of),
            rules=[],
            policy=self._policy(spell, service or {}, anomalies),
        )
        explanation.rules = self._rules(explanation)
        self.values["window_start"] = silence["window_start"] if silence else _month_before(self.month)
        usage_extract = explanation.service.get("usage_extract")
        extracts = [usage_extract, "gprs_usage"] if usage_extract == "wap_usage" else [usage_extract]
        self.values["usage_extracts"] = [extract for extract in extracts if extract in USAGE_LINES]
        explanation.waivers = self._waivers()
        self._add_lines(explanation)
        return explanation

    def _waivers(self) -> list[dict[str, Any]]:
        """Return the waivers in effect of days the decision rests on: every bill's extracts, and use in the window."""
        return self._rows(
            """
            select
                waivers.extract, waivers.source, waivers.day, waivers.reason, waivers.requested_by,
                waivers.approved_by, waivers.expires_on
            from control.waivers as waivers
            inner join marts.extract_completeness using (extract, source, day)
            where
                extract_completeness.status = 'waived'
                and waivers.expires_on >= (select as_of_date from control.absorbed_state)
                and waivers.day < $month
                and (
                    (list_contains($usage_extracts, waivers.extract) and waivers.day >= $window_start)
                    or waivers.extract in (
                        select extract
                        from policy.policy_billing_inputs
                        where valid_from <= $month and (valid_to is null or valid_to > $month)
                    )
                )
            order by all
            """
        )

    def _spell(self, as_of: date) -> dict[str, Any]:
        spell = self._row(
            """
            select
                spells.msisdn, spells.subscriber_id, spells.sp_code, spells.service_code, spells.province,
                spells.channel, spells.first_ordered_at, spells.ordered_at, spells.ended_at, spells.end_reason,
                spells.confirmed_at, spells.first_billable_month, spells.opening_event_id, subscriptions.status
            from intermediate.int_spells as spells
            left join marts.subscriptions on spells.subscription_id = subscriptions.subscription_id
            where spells.subscription_id = $id
            """
        )
        if spell is None:
            raise NothingToExplain(
                where=f"subscription {self.subscription_id}",
                expected=f"a subscription known as of {as_of}",
                found="none with this id",
                advice="check the id; ids change with CLEANBILL_PSEUDONYM_KEY; later orders need a later as-of date",
            )
        self.values |= {"msisdn": spell.pop("msisdn")}
        self.values |= {name: spell[name] for name in ("sp_code", "service_code")}
        return {"msisdn": mask_msisdn(self.values["msisdn"]), **spell}

    def _why_undecided(self, spell: dict[str, Any], as_of: date) -> str:
        midnight = datetime.combine(self.month, datetime.min.time())
        if self.month > as_of + timedelta(days=1):
            return f"not judged yet: billing rows exist for months that begin by {as_of + timedelta(days=1)}"
        if spell["ordered_at"] >= midnight:
            return "not live at that midnight: ordered on or after it"
        if spell["ended_at"] is not None and spell["ended_at"] < midnight:
            return f"not live at that midnight: ended before it ({spell['end_reason']})"
        return "no decision is recorded"

    def _rules(self, explanation: Explanation) -> list[RuleFact]:
        """Put the facts beside the rules, in the order in which the rules are asked; the first that holds decides."""
        decided = explanation.decision["disposition"] if explanation.decision else None
        facts = {
            "unknown_service": self._catalogue_fact(explanation.service),
            "free_service": self._fee_fact(explanation.service),
            "test": self._intervals_fact(
                "test number",
                "select valid_from, valid_to from control.test_numbers where msisdn = $msisdn order by valid_from",
            ),
            "suspended": self._intervals_fact(
                "relation paused",
                "select suspended_from, suspended_to from intermediate.int_suspensions "
                "where subscription_id = $id order by suspended_from",
            ),
            "trial": f"first order {explanation.spell['first_ordered_at']}, first billable month "
            f"{explanation.spell['first_billable_month']:%Y-%m}",
            "unconsented": f"ordered {explanation.spell['ordered_at']}, second confirmation "
            f"{explanation.spell['confirmed_at'] or 'none'}",
            "line_stopped": self._intervals_fact(
                "line",
                "select from_time, to_time, status from intermediate.int_line_intervals "
                "where msisdn = $msisdn order by from_time",
            ),
            "sp_suspended": self._intervals_fact(
                "SP or service suspended",
                "select suspended_from, suspended_to from intermediate.int_penalties_current "
                "where sp_code = $sp_code and (service_code is null or service_code = $service_code) "
                "and suspended_from < $month order by suspended_from",
            ),
            "abnormal": "; ".join(
                f"{row['anomaly_type']} detected {row['detected_on']}, "
                + (f"resolved {row['resolved_on']}" if row["resolved_on"] else "not resolved")
                for row in explanation.anomalies
            )
            or "no anomaly",
            "silent": self._silence_fact(explanation.silence),
            "billed": "no rule before this one holds",
        }
        rules = []
        answer = "no" if decided else "not asked"
        for disposition, fact in facts.items():
            rules.append(RuleFact(disposition, "yes" if disposition == decided else answer, fact))
            if disposition == decided:
                answer = "not asked"
        return rules

    @staticmethod
    def _catalogue_fact(service: dict[str, Any]) -> str:
        if not service:
            return "the catalogue of that midnight does not name the service"
        return f"catalogue row valid {service['valid_from']} to {service['valid_to'] or 'open'}"

    @staticmethod
    def _fee_fact(service: dict[str, Any]) -> str:
        if not service:
            return "no catalogue row"
        return f"billing type {service['billing_type']}, monthly fee {service['monthly_fee_li']} li"

    @staticmethod
    def _silence_fact(silence: dict[str, Any] | None) -> str:
        if silence is None:
            return "use above the limit, or not judged (class without usage, ordered or suspended within the window)"
        count = f"{silence['mt_count']} MT" if silence["mt_count"] is not None else f"{silence['wap_hits']} accesses"
        early = "; the window begins before the first usage day" if silence["before_data_start"] else ""
        return f"{silence['verdict']}: {count} since {silence['window_start']}{early}"

    def _intervals_fact(self, what: str, sql: str) -> str:
        parts = []
        for begin, end, *status in self._tuples(sql):
            parts.append(f"{' '.join([what, *status])} from {begin} to {end or 'open'}")
        return "; ".join(parts) or f"never: {what}"

    def _policy(
        self, spell: dict[str, Any], service: dict[str, Any], anomalies: list[dict[str, Any]]
    ) -> list[PolicyRow]:
        """Look up each policy row for the day its rule asks (domain: which policy row counts)."""
        asked = [
            ("policy_trial", spell["first_ordered_at"].date(), "true"),
            ("policy_consent", spell["ordered_at"].date(), "true"),
            ("policy_silence", self.month, "service_class = $service_class"),
            ("policy_suspension", self.month, "true"),
            *(
                ("policy_tenure", anomaly["detected_on"], f"anomaly_type = '{anomaly['anomaly_type']}'")
                for anomaly in anomalies
                if anomaly["anomaly_type"] in ("never_accessed", "no_traffic")
            ),
        ]
        self.values["service_class"] = service.get("service_class")
        rows = []
        for table, valid_on, condition in asked:
            self.values["valid_on"] = valid_on
            for values in self._rows(
                f"""
                select *
                from policy.{table}
                where valid_from <= $valid_on and (valid_to is null or valid_to > $valid_on) and {condition}
                """  # noqa: S608 - the names above
            ):
                rows.append(PolicyRow(table, valid_on, values))
        return rows

    def _add_lines(self, explanation: Explanation) -> None:
        """List the lines of the deliveries in force that the decision rests on."""
        for extract, sql in RECORD_LINES.items():
            self._take(explanation, extract, sql)
        for extract in self.values["usage_extracts"]:
            self.values["paths"] = self._lake_paths(extract)
            self._take(explanation, extract, USAGE_LINES[extract])

    def _take(self, explanation: Explanation, extract: str, sql: str) -> None:
        found = self._rows(f"select business_date, source, delivery, file_name, line_no, {sql}")
        for row in found[:LINES_PER_EXTRACT]:
            key = {name: row.pop(name) for name in ("business_date", "source", "delivery", "file_name", "line_no")}
            content = mask_text(", ".join(f"{name} {value}" for name, value in row.items() if value is not None))
            explanation.lines.append(InputLine(extract=extract, content=content, **key))
        if len(found) > LINES_PER_EXTRACT:
            explanation.lines_left_out[extract] = len(found) - LINES_PER_EXTRACT

    def _lake_paths(self, extract: str) -> list[str]:
        """Return the lake files in force that can hold records of the window (a record may arrive late)."""
        self.values["extract"] = extract
        paths = self._tuples(
            """
            select lake_path
            from control.in_force
            where
                extract = $extract and lake_path is not null and business_date >= $window_start::date - 1
                and business_date <= (select as_of_date from control.absorbed_state)
            order by business_date, source
            """
        )
        return [f"lake/{extract}/empty.parquet", *(path for (path,) in paths)]

    def _row(self, sql: str) -> dict[str, Any] | None:
        rows = self._rows(sql)
        return rows[0] if rows else None

    def _rows(self, sql: str) -> list[dict[str, Any]]:
        cursor = self._ask(sql)
        names = [column[0] for column in cursor.description]
        return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]

    def _tuples(self, sql: str) -> list[tuple[Any, ...]]:
        return self._ask(sql).fetchall()

    def _ask(self, sql: str) -> duckdb.DuckDBPyConnection:
        return self.connection.execute(sql, {name: self.values[name] for name in re.findall(r"\$(\w+)", sql)})


def _month_before(month: date) -> date:
    return (month - timedelta(days=1)).replace(day=1)


# What a line says is told without the number: `msisdn` is in no list of columns.
# Each text goes on after "select <place of the line>, ".
RECORD_LINES = {
    "relation_events": """
        event_id, action, event_time as at, service_code, old_service_code, confirmed_at
        from staging.stg_relation_events
        where
            msisdn = $msisdn and sp_code = $sp_code
            and (service_code = $service_code or old_service_code = $service_code or service_code is null)
        order by event_time, event_id
    """,
    "relation_snapshot": """
        status, first_ordered_at, ordered_at, confirmed_at
        from staging.stg_relation_snapshot
        where msisdn = $msisdn and sp_code = $sp_code and service_code = $service_code and business_date <= $month
        order by business_date, source
    """,
    # Full files: the newest one before that midnight, or the first.
    "service_catalogue": """
        service_class, billing_type, monthly_fee_li, valid_from
        from staging.stg_service_catalogue
        where
            sp_code = $sp_code and service_code = $service_code
            and business_date = (
                select coalesce(max(business_date) filter (where business_date < $month), min(business_date))
                from staging.stg_service_catalogue
            )
        order by valid_from
    """,
    "line_status": """
        status, from_time, to_time
        from staging.stg_line_status
        where msisdn = $msisdn
        order by from_time, business_date
    """,
    "sp_penalties": """
        penalty_id, service_code, suspended_from, suspended_to
        from staging.stg_sp_penalties
        where sp_code = $sp_code and (service_code is null or service_code = $service_code) and suspended_from < $month
        order by suspended_from, business_date
    """,
    "sp_reports": """
        report_id, anomaly_type, reported_at
        from staging.stg_sp_reports
        where msisdn = $msisdn and sp_code = $sp_code and service_code = $service_code
        order by reported_at, report_id
    """,
}
USAGE_LINES = {
    "sms_usage": """
        sent_at as at, direction, purpose, status, message_count
        from read_parquet($paths)
        where
            msisdn = $msisdn and sp_code = $sp_code and service_code = $service_code
            and sent_at >= $window_start and sent_at < $month
        order by sent_at, business_date, source, file_name, line_no
    """,
    "wap_usage": """
        accessed_at as at, status, hits
        from read_parquet($paths)
        where
            msisdn = $msisdn and sp_code = $sp_code and service_code = $service_code
            and accessed_at >= $window_start and accessed_at < $month
        order by accessed_at, business_date, source, file_name, line_no
    """,
    "gprs_usage": """
        started_at as at, apn, up_bytes + down_bytes as bytes
        from read_parquet($paths)
        where msisdn = $msisdn and started_at >= $window_start and started_at < $month
        order by started_at, business_date, source, file_name, line_no
    """,
}
