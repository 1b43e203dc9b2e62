"""How things stand: delivered, missing, gated, published, exported.

Reads only; while the pipeline holds the warehouse, what analysts see published is shown instead, and said.
"""

from dataclasses import dataclass, field
from datetime import date, datetime
from pathlib import Path

import duckdb

from cleanbill import acknowledgements, feed_files
from cleanbill.control import open_warehouse
from cleanbill.day_ranges import as_ranges
from cleanbill.errors import FeedError, SettingsError
from cleanbill.feed_versions import numbers_in
from cleanbill.gate_report import folder_name
from cleanbill.manifest import DeliveryKey
from cleanbill.settings import Settings, get_settings

LOCK_WAIT_SECONDS = 2.0


@dataclass(frozen=True)
class PairStatus:
    """One (extract, source): its days in force and its rows."""

    extract: str
    source: str
    first_day: date
    last_day: date
    days: int
    rows_loaded: int
    rows_quarantined: int
    rows_duplicate: int


@dataclass(frozen=True)
class MissingDays:
    """Expected days of one (extract, source) without a delivery that nobody waived, as ranges."""

    extract: str
    source: str
    ranges: tuple[tuple[date, date], ...]

    @property
    def days(self) -> int:
        return sum((last - first).days + 1 for first, last in self.ranges)


@dataclass(frozen=True)
class RefusedDelivery:
    """A delivery that is not in force because it was rejected or is over its quarantine limit."""

    extract: str
    business_date: date
    source: str
    delivery: int
    status: str
    reason: str


@dataclass(frozen=True)
class WithdrawnDelivery:
    """A delivery an operator took back; `effect` says what counts instead."""

    key: DeliveryKey
    reason: str
    requested_by: str
    approved_by: str
    effect: str


@dataclass(frozen=True)
class WaiverStatus:
    """One line of waivers.csv; `effect` says whether it counts at the as-of date, and if not why."""

    extract: str
    source: str
    day: date
    reason: str
    requested_by: str
    approved_by: str
    expires_on: date
    effect: str


@dataclass(frozen=True)
class GateStatus:
    """The newest verdict of one stage; `failures` are the broken expectations, critical first."""

    stage: str
    run_id: str
    passed: bool
    checked_at: datetime
    failures: tuple[str, ...]


@dataclass(frozen=True)
class MonthStatus:
    """The feed of one billing month: not billable yet / prepared / draft / approved / sealed, with its charges."""

    month: str
    state: str
    as_of: str | None
    charges: int | None
    charged_li: int | None
    folder: Path


@dataclass
class Status:
    """The whole picture; `notes` say what could not be read and why."""

    home: Path
    as_of: date | None = None
    published_as_of: date | None = None
    published_at: datetime | None = None
    delivered: list[PairStatus] = field(default_factory=list)
    missing: list[MissingDays] = field(default_factory=list)
    refused: list[RefusedDelivery] = field(default_factory=list)
    withdrawn: list[WithdrawnDelivery] = field(default_factory=list)
    waivers: list[WaiverStatus] = field(default_factory=list)
    gates: list[GateStatus] = field(default_factory=list)
    newest_report: Path | None = None  # the page of the newest run with a gate
    exported: list[MonthStatus] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    alarms: list[str] = field(default_factory=list)  # what the billing system rejected, or did not answer


def read_status(settings: Settings | None = None) -> Status:
    """Return how the data root stands; nothing is changed and a missing part is a note, not an error."""
    settings = settings or get_settings()
    status = Status(home=settings.home)
    _read_published(status, settings)
    _read_warehouse(status, settings)
    _read_exports(status, settings)
    try:
        status.alarms = acknowledgements.alarms(settings)
    except FeedError as error:
        status.alarms = [str(error)]
    return status


def _read_warehouse(status: Status, settings: Settings) -> None:
    if not settings.warehouse.exists():
        status.notes.append("nothing was taken in yet: `cleanbill run --from DAY --to DAY`")
        return
    try:
        with open_warehouse(settings, read_only=True, wait_seconds=LOCK_WAIT_SECONDS) as connection:
            tables = _tables(connection)
            state = connection.execute("select as_of_date from control.absorbed_state").fetchone()
            status.as_of = state[0] if state else None
            if connection.execute("select count(*) from control.build_under_way").fetchone()[0]:
                status.notes.append("a build was begun and has not ended; the marts of the warehouse may be half new")
            status.delivered = _delivered(connection)
            status.refused = _refused(connection, tables)
            if ("control", "withdrawals") in tables:
                status.withdrawn = _withdrawn(connection)
            status.gates = _gates(connection, tables)
            status.newest_report = _newest_report(status.gates, settings)
            if ("marts", "extract_completeness") in tables:
                status.missing = _missing(connection, "marts.extract_completeness")
                status.waivers = _waivers(connection)
    except SettingsError:
        status.notes.append("the pipeline is at work and holds the warehouse; deliveries and gates are not shown")


def _read_published(status: Status, settings: Settings) -> None:
    if not settings.published_marts.exists():
        status.notes.append("nothing is published yet")
        return
    config = {"autoinstall_known_extensions": False}
    try:
        with duckdb.connect(str(settings.published_marts), read_only=True, config=config) as connection:
            info = connection.execute("select as_of, published_at from mart_info").fetchone()
            status.missing = _missing(connection, "extract_completeness")
    except duckdb.Error as error:  # its message may quote what stands in the file
        found = type(error).__name__
        status.notes.append(
            f"{settings.published_marts} cannot be read ({found}): move it away, the next run writes it"
        )
        return
    status.published_as_of, status.published_at = info if info else (None, None)


def _tables(connection: duckdb.DuckDBPyConnection) -> set[tuple[str, str]]:
    return set(connection.execute("select table_schema, table_name from information_schema.tables").fetchall())


def _delivered(connection: duckdb.DuckDBPyConnection) -> list[PairStatus]:
    rows = connection.execute(
        """
        select
            extract, source, min(business_date), max(business_date), count(*),
            sum(rows_loaded)::bigint, sum(rows_quarantined)::bigint, sum(rows_duplicate)::bigint
        from control.in_force
        group by extract, source
        order by extract, source
        """
    ).fetchall()
    return [PairStatus(*row) for row in rows]


def _refused(connection: duckdb.DuckDBPyConnection, tables: set[tuple[str, str]]) -> list[RefusedDelivery]:
    """List refused deliveries that still matter: not taken back, and nothing newer of their day and source counts."""
    taken_back = "anti join control.withdrawals as withdrawals using (extract, business_date, source, delivery)"
    rows = connection.execute(
        f"""
        select
            deliveries.extract, deliveries.business_date, deliveries.source, deliveries.delivery, deliveries.status,
            coalesce(deliveries.reason_code, '')
        from control.deliveries as deliveries
        {taken_back if ("control", "withdrawals") in tables else ""}
        left join control.in_force as in_force using (extract, business_date, source)
        where deliveries.status <> 'accepted' and coalesce(in_force.delivery, 0) < deliveries.delivery
        order by all
        """  # noqa: S608 - a constant
    ).fetchall()
    return [RefusedDelivery(*row) for row in rows]


def _withdrawn(connection: duckdb.DuckDBPyConnection) -> list[WithdrawnDelivery]:
    rows = connection.execute(
        """
        select
            withdrawals.extract, withdrawals.business_date, withdrawals.source, withdrawals.delivery,
            withdrawals.reason, withdrawals.requested_by, withdrawals.approved_by,
            case
                when deliveries.delivery is null then 'nobody delivered it (yet)'
                when in_force.delivery is null then 'the day is missing'
                else 'delivery ' || in_force.delivery || ' counts'
            end
        from control.withdrawals as withdrawals
        left join control.deliveries as deliveries using (extract, business_date, source, delivery)
        left join control.in_force as in_force using (extract, business_date, source)
        order by all
        """
    ).fetchall()
    return [WithdrawnDelivery(DeliveryKey(*row[:4]), *row[4:]) for row in rows]


def _waivers(connection: duckdb.DuckDBPyConnection) -> list[WaiverStatus]:
    """List the waivers of the last build; those without effect say why."""
    rows = connection.execute(
        """
        select
            waivers.extract, waivers.source, waivers.day, waivers.reason, waivers.requested_by, waivers.approved_by,
            waivers.expires_on,
            case
                when waivers.day > state.as_of_date then 'not yet: the day lies after the as-of date'
                when completeness.status = 'delivered' then 'none: the day is delivered'
                when completeness.status is null then 'none: the day is not expected'
                when waivers.expires_on < state.as_of_date then 'none: expired'
                else 'in effect'
            end
        from control.waivers as waivers
        cross join (select max(as_of_date) as as_of_date from control.absorbed_state) as state
        left join marts.extract_completeness as completeness using (extract, source, day)
        order by all
        """
    ).fetchall()
    return [WaiverStatus(*row) for row in rows]


def _missing(connection: duckdb.DuckDBPyConnection, table: str) -> list[MissingDays]:
    rows = connection.execute(
        f"select extract, source, list(day order by day) from {table} where status = 'missing' "  # noqa: S608
        "group by extract, source order by extract, source"
    ).fetchall()
    return [MissingDays(extract, source, tuple(as_ranges(days))) for extract, source, days in rows]


def _gates(connection: duckdb.DuckDBPyConnection, tables: set[tuple[str, str]]) -> list[GateStatus]:
    if ("control", "gate_records") not in tables:
        return []
    newest = connection.execute(
        """
        select stage, run_id, passed, checked_at
        from control.gate_records
        qualify row_number() over (partition by stage order by checked_at desc, run_id desc) = 1
        order by list_position(['raw', 'staging', 'marts', 'export'], stage)
        """
    ).fetchall()
    statuses = []
    for stage, run_id, passed, checked_at in newest:
        failures = connection.execute(
            """
            select severity || ' ' || suite || ': ' || expectation || ' (' || coalesce(observed, '?') || ')'
            from control.gate_results
            where stage = $stage and run_id = $run_id and not success
            order by severity, suite, expectation
            """,
            {"stage": stage, "run_id": run_id},
        ).fetchall()
        statuses.append(GateStatus(stage, run_id, passed, checked_at, tuple(text for (text,) in failures)))
    return statuses


def _newest_report(gates: list[GateStatus], settings: Settings) -> Path | None:
    newest = max(gates, key=lambda gate: gate.checked_at, default=None)
    if newest is None:
        return None
    page = settings.reports / "gates" / folder_name(newest.run_id) / "index.html"
    return page if page.exists() else None


def _read_exports(status: Status, settings: Settings) -> None:
    """Find the newest state of every month: the sealed version counts, else what waits in the working folder."""
    working = settings.warehouse_folder / "billing"
    released = settings.exports / "billing"
    months = {path.name for root in (working, released) if root.is_dir() for path in root.iterdir() if path.is_dir()}
    for month in sorted(months):
        folders = [
            (f"sealed v{number}", released / month / f"v{number}") for number in sorted(numbers_in(released / month))
        ]
        waiting = [(state, working / month / state) for state in ("approved", "draft")]
        found = next(((state, folder) for state, folder in [*reversed(folders), *waiting] if folder.is_dir()), None)
        status.notes += [
            f"{month}: an adjustment is {'approved, not sealed yet' if state == 'approved' else 'drafted'}"
            for state, folder in waiting
            if folders and folder.is_dir()
        ]
        if found is None:
            state = "prepared" if (working / month / "feed.duckdb").exists() else "not billable yet"
            status.exported.append(MonthStatus(month, state, None, None, None, working / month))
            continue
        state, folder = found
        try:
            manifest, _ = feed_files.read_manifest(folder)
            billed = manifest["dispositions"]["billed"]
            status.exported.append(
                MonthStatus(month, state, manifest["as_of"], billed["count"], billed["fee_li"], folder)
            )
        except (FeedError, KeyError, TypeError) as error:
            status.notes.append(f"{folder}: {error}")
