"""What the next run will change, before it runs: `cleanbill plan`.

The run is rehearsed: its own first steps (ingest, and the decision what to build) work in a folder that is deleted
afterwards, on a copy of the records of deliveries. So which deliveries change, whether everything is built anew and as
of which day is exact, as long as nothing else arrives. Which relations and months that touches is read from the changed
deliveries alone and errs towards more; what it costs is an estimate from earlier runs.
"""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date, timedelta
from pathlib import Path

import duckdb

from cleanbill import build
from cleanbill.control import open_warehouse
from cleanbill.errors import BuildFailed, SettingsError
from cleanbill.expected_extracts import expected_extracts_path
from cleanbill.ingest import ingest
from cleanbill.plan_reach import Reach, read_reach
from cleanbill.settings import Settings, get_settings
from cleanbill.step_times import BUILD_MARTS, BUILD_STAGING, INGEST, Expectation, expected_seconds
from cleanbill.withdrawals import withdrawals_path

LOCK_WAIT_SECONDS = 2.0
# What the rehearsal starts from; everything else of the control schema it makes itself.
COPIED_TABLES = (
    "deliveries",
    "delivery_files",
    "withdrawals",
    "in_force",
    "absorbed",
    "absorbed_state",
    "absorbed_usage_days",
    "test_numbers",
    "step_times",
)
LATE, NEW, RESENT, EARLIER, WITHDRAWN, GONE = "late", "new", "resent", "earlier number", "withdrawn", "gone"


@dataclass(frozen=True)
class Change:
    """A delivery that the next build takes in otherwise than the last one did.

    `kind`: new, late (its day lies within what was built), resent (a higher number), earlier number (the higher one was
    taken back), withdrawn, or gone (its bytes count for another day now).
    """

    kind: str
    extract: str
    business_date: date
    source: str
    old_delivery: int | None
    new_delivery: int | None
    rows: int


@dataclass
class Plan:
    """What the next run will do; `as_of` is None when it could build nothing, and `cannot` says why.

    `changes`, `refused`, `as_of` and `full_because` are exact; `reach` and `seconds` are estimates.
    """

    previous_as_of: date | None = None
    as_of: date | None = None
    cannot: str | None = None
    changes: list[Change] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    waiting: int = 0
    full_because: list[str] = field(default_factory=list)
    reach: Reach | None = None
    sealed_months: list[str] = field(default_factory=list)
    rows_to_read: int = 0
    rows_to_build: int = 0
    seconds: dict[str, Expectation] = field(default_factory=dict)


def make_plan(last: date | None = None, settings: Settings | None = None) -> Plan:
    """Return what `cleanbill run --to <last>` would do now; the data root is left as it is.

    Args:
        last: last business date to take in; None: all that was delivered.
        settings: the installation.

    Raises:
        SettingsError: the pipeline is at work and holds the warehouse.
        InputFileError: a reference file is wrong, as the run would say.
    """
    settings = settings or get_settings()
    settings.warehouse_folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".plan-", dir=settings.warehouse_folder) as folder:
        rehearsal = settings.model_copy(update={"home": Path(folder)})
        _copy_data_root(settings, rehearsal)
        summary = ingest(date.min, last or date.max, rehearsal)
        plan = Plan(refused=sorted(summary.rejections) + sorted(summary.duplicates), rows_to_read=summary.rows_in)
        with open_warehouse(rehearsal) as connection:
            _plan_build(plan, connection, rehearsal)
            _estimate_time(plan, connection)
            if plan.as_of is not None:
                with _attached(connection, settings):
                    plan.reach = read_reach(connection, settings.home, rehearsal.home, bool(plan.full_because))
        plan.sealed_months = _sealed_months(plan, settings)
    return plan


def _copy_data_root(settings: Settings, rehearsal: Settings) -> None:
    """Give the rehearsal the landing folder, the reference files and the records of what was taken in."""
    if settings.landing.is_dir():
        rehearsal.landing.symlink_to(settings.landing)
    for path in (
        expected_extracts_path(settings.home),
        withdrawals_path(settings.home),
        settings.home / "test_numbers.csv",
        settings.home / "waivers.csv",
    ):
        if path.exists():
            (rehearsal.home / path.name).symlink_to(path)
    with open_warehouse(rehearsal) as connection, _attached(connection, settings) as tables:
        for table in COPIED_TABLES:
            if ("control", table) in tables:
                connection.execute(f"insert into control.{table} by name from before.control.{table}")


@contextmanager
def _attached(connection: duckdb.DuckDBPyConnection, settings: Settings) -> Iterator[set[tuple[str, str]]]:
    """Open the warehouse as `before`, read-only and briefly; yield its (schema, table) pairs."""
    if not settings.warehouse.exists():
        yield set()
        return
    try:
        with open_warehouse(settings, read_only=True, wait_seconds=LOCK_WAIT_SECONDS):
            pass  # waits for the lock, which ATTACH does not
        connection.execute(f"attach '{str(settings.warehouse).replace(chr(39), chr(39) * 2)}' as before (read_only)")
    except (SettingsError, duckdb.IOException) as error:
        raise SettingsError(
            where=str(settings.warehouse),
            expected="to read what the last run left",
            found="the pipeline at work on it",
            advice="ask again when the run has ended: a plan made meanwhile would be about half a run",
        ) from error
    try:
        tables = connection.execute(
            "select table_schema, table_name from information_schema.tables where table_catalog = 'before'"
        ).fetchall()
        yield set(tables)
    finally:
        connection.execute("detach before")


def _plan_build(plan: Plan, connection: duckdb.DuckDBPyConnection, rehearsal: Settings) -> None:
    state = connection.execute("select as_of_date, inputs_digest from control.absorbed_state").fetchone()
    plan.previous_as_of = state[0] if state else None
    before = {
        "the list of test numbers changed": connection.execute("from control.test_numbers order by all").fetchall(),
        "the first day of a usage extract moved": _first_usage_days(connection, "absorbed"),
    }
    connection.execute("create temp table absorbed_before as from control.absorbed")
    connection.execute("create temp table usage_days_before as from control.absorbed_usage_days")
    try:
        is_full = build._begin(connection, rehearsal, None)
    except BuildFailed as error:
        plan.cannot = str(error)
        return
    plan.as_of, digest = connection.execute("select as_of_date, inputs_digest from control.run_context").fetchone()
    after = (
        connection.execute("from control.test_numbers order by all").fetchall(),
        _first_usage_days(connection, "build_deliveries"),
    )
    if is_full:
        moved = [text for (text, old), new in zip(before.items(), after, strict=True) if old != new]
        plan.full_because = moved if state else []
        if state is None:
            plan.full_because = ["nothing was built before"]
        elif state[0] > plan.as_of:
            plan.full_because.append(f"the as-of date moves back from {state[0]} to {plan.as_of}")
        if state and state[1] != digest and not plan.full_because:
            plan.full_because = ["policy, models or the pseudonym key changed"]
    plan.changes = _changes(connection, plan.previous_as_of)
    plan.rows_to_build = build.rows_to_take_in(connection) if is_full else sum(change.rows for change in plan.changes)
    (plan.waiting,) = connection.execute(
        "select count(*) from control.in_force where business_date > $as_of", {"as_of": plan.as_of}
    ).fetchone()


def _first_usage_days(connection: duckdb.DuckDBPyConnection, table: str) -> list[tuple[str, date]]:
    return connection.execute(
        f"select extract, min(business_date) from control.{table} "  # noqa: S608 - the two names above
        "where extract in (select unnest($extracts)) group by extract order by extract",
        {"extracts": list(build.USAGE_EXTRACTS)},
    ).fetchall()


def _changes(connection: duckdb.DuckDBPyConnection, previous_as_of: date | None) -> list[Change]:
    """Compare what is in force up to the as-of date with what the last build took in."""
    connection.execute(
        """
        create temp table changes as
        select
            coalesce(after.extract, before.extract) as extract,
            coalesce(after.business_date, before.business_date) as business_date,
            coalesce(after.source, before.source) as source,
            before.delivery as old_delivery,
            after.delivery as new_delivery,
            before.lake_path as old_path,
            after.lake_path as new_path,
            coalesce(after.rows_loaded, 0) as rows
        from control.build_deliveries as after
        full join absorbed_before as before using (extract, business_date, source)
        where after.delivery is distinct from before.delivery
        """
    )
    rows = connection.execute(
        """
        select
            case
                when old_delivery is null and changes.business_date <= $as_of then $late
                when old_delivery is null then $new
                when new_delivery > old_delivery then $resent
                when new_delivery is not null then $earlier
                when withdrawals.delivery is not null then $withdrawn
                else $gone
            end,
            changes.extract, changes.business_date, changes.source, old_delivery, new_delivery, changes.rows
        from changes
        left join control.withdrawals as withdrawals
            on
                changes.extract = withdrawals.extract
                and changes.business_date = withdrawals.business_date
                and changes.source = withdrawals.source
                and changes.old_delivery = withdrawals.delivery
        order by changes.business_date, changes.extract, changes.source
        """,
        {"as_of": previous_as_of or date.min, "late": LATE, "new": NEW, "resent": RESENT, "earlier": EARLIER}
        | {"withdrawn": WITHDRAWN, "gone": GONE},
    ).fetchall()
    return [Change(*row) for row in rows]


def _estimate_time(plan: Plan, connection: duckdb.DuckDBPyConnection) -> None:
    is_full = bool(plan.full_because)
    if plan.rows_to_read:
        plan.seconds[INGEST] = expected_seconds(connection, INGEST, False, plan.rows_to_read)
    if plan.as_of is not None:
        for step in (BUILD_STAGING, BUILD_MARTS):
            plan.seconds[step] = expected_seconds(connection, step, is_full, plan.rows_to_build)


def _sealed_months(plan: Plan, settings: Settings) -> list[str]:
    """Return the billing months with a sealed version whose bill the run may judge otherwise."""
    if plan.as_of is None or plan.reach is None or plan.reach.first_month is None:
        return []
    last = (plan.as_of + timedelta(days=1)).replace(day=1)
    sealed = {path.parent.parent.name for path in (settings.exports / "billing").glob("*/v*/_SUCCESS")}
    return sorted(month for month in sealed if f"{plan.reach.first_month:%Y-%m}" <= month <= f"{last:%Y-%m}")
