"""How far changed deliveries reach: which accounts and relations they name, and from which billing month on.

Read from the changed deliveries only, in the versions before and after. A first month is the earliest whose bill can
differ: the models judge the same accounts and months, or fewer.
"""

from dataclasses import dataclass, field
from datetime import date
from pathlib import Path

import duckdb

# Extract → (SQL of the instant from which a record can change a bill, column that names records across deliveries).
INSTANTS = {
    "relation_events": ("event_time", "event_id"),
    "relation_snapshot": ("least(ordered_at, first_ordered_at)", None),
    "sms_usage": ("date_trunc('month', sent_at) + interval 1 month", None),
    "wap_usage": ("date_trunc('month', accessed_at) + interval 1 month", None),
    "gprs_usage": ("date_trunc('month', started_at) + interval 1 month", None),
    "line_status": ("from_time", None),
    "sp_penalties": ("suspended_from", "penalty_id"),
    "refunds": ("date_trunc('month', business_date) + interval 1 month", "refund_id"),
}
NAMES_SUBSCRIBER = ("relation_events", "relation_snapshot", "sms_usage", "wap_usage", "gprs_usage", "line_status")
NAMES_SP = ("relation_events", "relation_snapshot", "sms_usage", "wap_usage", "sp_penalties")
CATALOGUE = "service_catalogue"


@dataclass
class Reach:
    """What a build would touch (estimates): months from `first_month` on, None if no bill can differ.

    `relations`: relations of the accounts (subscriber at one SP) that changed deliveries name; `all_relations`: judged
    whole because of a full build, a new month or a day whose completeness changed. `reasons`: first month per cause.
    """

    first_month: date | None = None
    last_month: date | None = None
    accounts: int = 0
    relations: int = 0
    all_relations: bool = False
    reasons: dict[str, date] = field(default_factory=dict)


def read_reach(connection: duckdb.DuckDBPyConnection, before: Path, after: Path, is_full: bool) -> Reach:
    """Return the reach of `changes`, of new months and of flipped days.

    Args:
        connection: the rehearsal's warehouse, with the temp tables `changes` and `usage_days_before`, and the true
            warehouse (if there is one) attached as `before`.
        before: data root of old lake paths.
        after: data root of new ones.
        is_full: everything is built anew.
    """
    return _Reader(connection, before, after).read(is_full)


class _Reader:
    def __init__(self, connection: duckdb.DuckDBPyConnection, before: Path, after: Path) -> None:
        self.connection = connection
        self.roots = {"old_path": before, "new_path": after}
        self.as_of, self.previous = connection.execute(
            "select as_of_date, previous_as_of_date from control.run_context"
        ).fetchone()
        self.reach = Reach(last_month=_first_of_month_after(self.as_of, from_day=0))

    def read(self, is_full: bool) -> Reach:
        self.connection.execute("create temp table named (msisdn varchar, sp_code varchar, service_code varchar)")
        for extract in INSTANTS:
            self._read_extract(extract)
        self._read_catalogue()
        self._look_at_completeness()
        self._look_at_new_months()
        if is_full:
            self._found("full build", self._oldest_order())
            self.reach.all_relations = True
        self._count_relations()
        months = [month for month in self.reach.reasons.values() if month <= self.reach.last_month]
        self.reach.first_month = min(months, default=None)
        return self.reach

    def _has(self, table: str, schema: str | None = None) -> bool:
        return bool(
            self.connection.execute(
                "select count(*) from information_schema.tables where table_name = $table "
                "and ($schema is null or (table_catalog = 'before' and table_schema = $schema))",
                {"table": table, "schema": schema},
            ).fetchone()[0]
        )

    def _found(self, reason: str, since: date | None) -> None:
        """Note a cause; M counts when M-01 is not before `since`."""
        if since is not None:
            month = since if since.day == 1 else _first_of_month_after(since)
            self.reach.reasons[reason] = min(month, self.reach.reasons.get(reason, month))

    def _paths(self, extract: str) -> list[str]:
        rows = self.connection.execute(
            "select old_path, new_path from changes where extract = $extract", {"extract": extract}
        ).fetchall()
        return [
            str(self._existing(column, path))
            for row in rows
            for column, path in zip(self.roots, row, strict=True)
            if path is not None
        ]

    def _existing(self, column: str, path: str) -> Path:
        """A delivery that was accepted before lies in the true lake, also when it counts again only now."""
        found = self.roots[column] / path
        return found if found.exists() else self.roots["old_path"] / path

    def _read_extract(self, extract: str) -> None:
        paths = self._paths(extract)
        if not paths:
            return
        instant, identity = INSTANTS[extract]
        rows = {"paths": paths}
        (since,) = self.connection.execute(f"select min({instant})::date from read_parquet($paths)", rows).fetchone()  # noqa: S608
        self._found(extract, since)
        if identity and self._has(f"stg_{extract}", "staging"):
            (namesake,) = self.connection.execute(
                f"select min({instant})::date from before.staging.stg_{extract} "  # noqa: S608 - constants above
                f"where {identity} in (select {identity} from read_parquet($paths))",
                rows,
            ).fetchone()
            self._found(extract, namesake)
        if extract == "relation_events":
            self._found(extract, self._behind_snapshots(since))
        if extract in NAMES_SUBSCRIBER or extract in NAMES_SP:
            subscriber = "msisdn" if extract in NAMES_SUBSCRIBER else "null"
            provider = "sp_code" if extract in NAMES_SP else "null"
            service = "service_code" if extract in ("relation_events", "relation_snapshot") else "null"
            self.connection.execute(
                f"insert into named select distinct {subscriber}, {provider}, {service} from read_parquet($paths)",  # noqa: S608
                rows,
            )

    def _behind_snapshots(self, since: date | None) -> date | None:
        """A change before a snapshot was taken can undo what the snapshot opened, back to its order."""
        if since is None or not self._has("stg_relation_snapshot", "staging"):
            return None
        return self.connection.execute(
            "select min(least(ordered_at, first_ordered_at))::date from before.staging.stg_relation_snapshot "
            "where business_date > $since",
            {"since": since},
        ).fetchone()[0]

    def _read_catalogue(self) -> None:
        first_change, first_file = self.connection.execute(
            "select (select min(business_date) from changes where extract = $extract), "
            "(select min(business_date) from (select business_date from control.build_deliveries "
            "where extract = $extract union all select business_date from absorbed_before where extract = $extract))",
            {"extract": CATALOGUE},
        ).fetchone()
        if first_change is not None:
            is_first = first_change <= first_file
            self._found(CATALOGUE, self._oldest_order() if is_first else date.fromordinal(first_change.toordinal() + 1))

    def _oldest_order(self) -> date | None:
        orders = [
            self.connection.execute(
                f"select min({INSTANTS[extract][0]})::date from read_parquet($paths)",  # noqa: S608
                {"paths": paths},
            ).fetchone()[0]
            for extract in ("relation_events", "relation_snapshot")
            if (paths := self._paths(extract))
        ]
        if self._has("int_spells", "intermediate"):
            oldest = "select min(ordered_at)::date from before.intermediate.int_spells"
            orders += self.connection.execute(oldest).fetchone()
        return min((order for order in orders if order is not None), default=None)

    def _look_at_completeness(self) -> None:
        """A day of usage that became complete, or is so no longer, is judged for everybody."""
        (flipped,) = self.connection.execute(
            """
            with expected as (
                select distinct extract, source, unnest(generate_series(
                    valid_from::timestamp, least(coalesce(valid_to, $as_of), $as_of)::timestamp, interval 1 day
                ))::date as day
                from control.expected_pairs
                where schedule = 'daily'
            ),

            days as (
                select expected.extract, expected.day, bool_and(deliveries.delivery is not null) as is_complete
                from expected
                left join control.build_deliveries as deliveries
                    on
                        expected.extract = deliveries.extract
                        and expected.source = deliveries.source
                        and expected.day = deliveries.business_date
                where expected.extract like '%\\_usage' escape '\\'
                group by expected.extract, expected.day
            ),

            known as (
                select extract, day, is_complete from usage_days_before where extract like '%\\_usage' escape '\\'
            )

            select min(coalesce(days.day, known.day))
            from days
            full join known using (extract, day)
            where
                coalesce(days.day, known.day) <= least($as_of, (select greatest($previous, max(day)) from known))
                and coalesce(days.is_complete, false) <> coalesce(known.is_complete, false)
            """,
            {"as_of": self.as_of, "previous": self.previous},
        ).fetchone()
        if flipped is not None and self.previous is not None:
            self._found("completeness of usage", date.fromordinal(flipped.toordinal() + 1))
            self.reach.all_relations |= self.reach.reasons["completeness of usage"] <= self.reach.last_month

    def _look_at_new_months(self) -> None:
        if self.previous is not None:
            self._found("new month", date.fromordinal(self.previous.toordinal() + 2))
            self.reach.all_relations |= self.reach.reasons["new month"] <= self.reach.last_month

    def _count_relations(self) -> None:
        (self.reach.accounts,) = self.connection.execute(
            "select count(*) from (select distinct msisdn, sp_code from named where msisdn is not null)"
        ).fetchone()
        known = "select null::varchar as msisdn, null::varchar as sp_code, null::varchar as service_code where false"
        if self._has("int_spells", "intermediate"):
            known = "select distinct msisdn, sp_code, service_code from before.intermediate.int_spells"
        touched = """
            select known.* from known semi join named
                on known.msisdn = named.msisdn and known.sp_code = named.sp_code
            union
            select known.* from known semi join named on known.msisdn = named.msisdn and named.sp_code is null
            union
            select known.* from known semi join named on named.msisdn is null and known.sp_code = named.sp_code
            union
            select * from named where msisdn is not null and sp_code is not null and service_code is not null
        """
        if self.reach.all_relations:
            touched = "from known union select * from named where msisdn is not null and service_code is not null"
        (self.reach.relations,) = self.connection.execute(
            f"with known as ({known}) select count(*) from ({touched})"  # noqa: S608 - texts above
        ).fetchone()


def _first_of_month_after(day: date, from_day: int = 1) -> date:
    """Return the first of the next month; with from_day=0 the first of the month that holds the next day."""
    if from_day == 0:
        return date.fromordinal(day.toordinal() + 1).replace(day=1)
    return date.fromordinal(day.replace(day=28).toordinal() + 4).replace(day=1)
