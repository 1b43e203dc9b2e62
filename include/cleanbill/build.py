"""Runs dbt: decides the as-of date, what is left to compute, and remembers what was taken in.

`build_deliveries` against `absorbed` tells the models which deliveries changed. The first is what was in force when
the build began, the second is written from it when the last model has ended: a killed build does the same set again,
and a delivery that came in between is left to the next build. A changed policy, key, list of test numbers or
model, and an as-of date that moved back, make a full build.
"""

import hashlib
import hmac
import json
import logging
import os
import subprocess
import sys
import time
from datetime import date
from pathlib import Path

import duckdb

from cleanbill import run_lease
from cleanbill.billed_charges import absorb_sealed
from cleanbill.control import open_warehouse
from cleanbill.deliveries import decide_in_force
from cleanbill.errors import BuildFailed, FeedError
from cleanbill.masking import mask_text
from cleanbill.reference_inputs import load_reference_inputs
from cleanbill.settings import Settings, get_settings
from cleanbill.step_times import BUILD_MARTS, BUILD_STAGING, note_step
from cleanbill.storage_faults import storage_failure

USAGE_EXTRACTS = ("sms_usage", "wap_usage", "gprs_usage")
WATCHED_EXTRACTS = (*USAGE_EXTRACTS, "relation_events")  # whose first day and completeness enter the rows
STAGING = ("path:seeds", "path:models/staging")
MARTS = ("path:models/intermediate", "path:models/marts")
MODEL_FOLDERS = ("models", "macros", "seeds")
LONGEST_EXCERPT = 2000  # characters of a dbt message in an error


def build_staging(as_of: date | None = None) -> date:
    """Take the changed deliveries into the staging tables and fix what this build computes.

    Args:
        as_of: the as-of date A; by default the newest date on which every expected pair is delivered.

    Returns:
        The as-of date of the build.

    Raises:
        BuildFailed: no date is complete yet, or dbt failed.
        InputFileError: a reference file is wrong.
    """
    settings = get_settings()
    started = time.monotonic()
    with open_warehouse(settings) as connection:
        _absorb_sealed_feeds(connection, settings)
        is_full = _begin(connection, settings, as_of)
        (decided,) = connection.execute("select as_of_date from control.run_context").fetchone()
        rows = rows_to_take_in(connection)
    _dbt_build(settings, settings.warehouse, STAGING, is_full)
    with open_warehouse(settings) as connection:
        note_step(connection, BUILD_STAGING, is_full, rows, time.monotonic() - started)
    return decided


def build_marts() -> None:
    """Compute the intermediate models and marts of the build that `build_staging` began, then remember it.

    Raises:
        BuildFailed: no build was begun, or dbt failed.
    """
    settings = get_settings()
    started = time.monotonic()
    with open_warehouse(settings) as connection:
        rows = rows_to_take_in(connection)
        context = connection.execute("select previous_as_of_date is null from control.run_context").fetchone()
    if context is None:
        raise BuildFailed(
            where="control.run_context",
            expected="a build begun by build_staging",
            found="none",
            advice="run the task build_staging first",
        )
    _dbt_build(settings, settings.warehouse, MARTS, is_full=context[0])
    with open_warehouse(settings) as connection:
        _absorb(connection)
        note_step(connection, BUILD_MARTS, context[0], rows, time.monotonic() - started)


def build_scratch(as_of: date) -> Path:
    """Build all models at another as-of date into a database of its own; the warehouse is not touched.

    Returns:
        The path of the scratch database (replaced by the next scratch build of the same date).

    Raises:
        BuildFailed: nothing is delivered up to that date, or dbt failed.
    """
    settings = get_settings()
    path = settings.warehouse_folder / "scratch" / f"as_of_{as_of:%Y%m%d}.duckdb"
    for leftover in (path, path.with_name(path.name + ".wal")):
        leftover.unlink(missing_ok=True)
    with open_warehouse(settings, path=path) as connection:
        connection.execute(f"attach '{_sql_text(settings.warehouse)}' as warehouse (read_only)")
        for table in ("deliveries", "delivery_files", "lake_files"):
            connection.execute(f"insert into control.{table} select * from warehouse.control.{table}")  # noqa: S608
        connection.execute("detach warehouse")
        decide_in_force(connection)
        _begin(connection, settings, as_of)
    _dbt_build(settings, path, STAGING + MARTS, is_full=True)
    with open_warehouse(settings, path=path) as connection:
        _absorb(connection)
    return path


def _absorb_sealed_feeds(connection: duckdb.DuckDBPyConnection, settings: Settings) -> None:
    """Take in what was billed; a released version that was damaged is told and does not stop the days."""
    try:
        absorb_sealed(connection, settings)
    except FeedError as error:
        logging.getLogger(__name__).warning("billed_charges stays as it is: %s", error)


def rows_to_take_in(connection: duckdb.DuckDBPyConnection) -> int:
    """Return the rows of the deliveries that the build under way takes in and the last one did not."""
    return connection.execute(
        """
        select coalesce(sum(deliveries.rows_loaded), 0)::bigint
        from control.build_deliveries as deliveries
        anti join control.absorbed as absorbed using (extract, business_date, source, delivery)
        """
    ).fetchone()[0]


def newest_complete_date(connection: duckdb.DuckDBPyConnection) -> date | None:
    """Return the newest date on which every expected pair is delivered (the default of A), None if there is none."""
    return connection.execute(
        """
        with expected as (
            select
                extract,
                source,
                unnest(generate_series(
                    valid_from::timestamp,
                    least(coalesce(valid_to, newest.business_date), newest.business_date)::timestamp,
                    interval 1 day
                ))::date as day
            from control.expected_pairs
            cross join (select max(business_date) as business_date from control.in_force) as newest
            where schedule = 'daily'
        ),
        days as (
            select expected.day, bool_and(in_force.delivery is not null) as is_complete
            from expected
            left join control.in_force
                on
                    expected.extract = in_force.extract
                    and expected.source = in_force.source
                    and expected.day = in_force.business_date
            group by expected.day
        )
        select max(day) from days where is_complete
        """
    ).fetchone()[0]


def _begin(connection: duckdb.DuckDBPyConnection, settings: Settings, as_of: date | None) -> bool:
    """Write control.run_context; return whether everything is to be computed anew."""
    connection.execute("begin")
    load_reference_inputs(connection, settings)
    decided = as_of or newest_complete_date(connection)
    if decided is None:
        connection.execute("commit")
        raise BuildFailed(
            where="as-of date",
            expected="at least one business date on which every expected pair is delivered",
            found="none",
            advice="deliver the missing extracts, or correct expected_extracts.csv; `cleanbill status` lists them",
        )
    digest = inputs_digest(connection, settings, decided)
    state = connection.execute("select as_of_date, inputs_digest from control.absorbed_state").fetchone()
    is_full = state is None or state[0] > decided or state[1] != digest
    if is_full:
        # Nothing absorbed is worth anything now; emptied first, so that a killed full build stays a full build.
        for table in ("absorbed", "absorbed_state", "absorbed_usage_days", "absorbed_services"):
            connection.execute(f"delete from control.{table}")  # noqa: S608
    connection.execute("delete from control.build_under_way")
    connection.execute("insert into control.build_under_way values ($as_of)", {"as_of": decided})
    connection.execute("delete from control.build_deliveries")
    connection.execute(
        "insert into control.build_deliveries by name select * from control.in_force where business_date <= $as_of",
        {"as_of": decided},
    )
    connection.execute("delete from control.run_context")
    connection.execute(
        "insert into control.run_context values ($as_of, $previous, $digest)",
        {"as_of": decided, "previous": None if is_full else state[0], "digest": digest},
    )
    connection.execute("commit")
    return is_full


def _absorb(connection: duckdb.DuckDBPyConnection) -> None:
    """Remember what the finished build has taken in, in one transaction."""
    connection.execute("begin")
    for table in ("absorbed", "absorbed_state", "absorbed_usage_days", "absorbed_services"):
        connection.execute(f"delete from control.{table}")  # noqa: S608
    connection.execute(
        """
        insert into control.absorbed
        select extract, business_date, source, delivery, lake_path, content_digest
        from control.build_deliveries
        """
    )
    connection.execute(
        "insert into control.absorbed_usage_days select extract, day, is_complete from intermediate.int_extract_days "
        "where extract in (select unnest($extracts))",
        {"extracts": list(WATCHED_EXTRACTS)},
    )
    connection.execute(
        """
        insert into control.absorbed_services
        select
            sp_code, service_code, service_name, service_class, is_portal, billing_type, monthly_fee_li,
            valid_from, valid_to
        from intermediate.int_service_versions
        """
    )
    connection.execute("insert into control.absorbed_state select as_of_date, inputs_digest from control.run_context")
    connection.execute("delete from control.build_under_way")
    connection.execute("commit")


def inputs_digest(connection: duckdb.DuckDBPyConnection, settings: Settings, as_of: date) -> str:
    """Digest everything besides deliveries that every row depends on.

    Deliveries, expected pairs and waivers are left out on purpose: the models follow their changes one by one.
    The first day of each usage extract is in (it moves the observation of every spell), and that of the order events
    (it moves every baseline of growth).
    """
    digest = hmac.new(settings.pseudonym_key_bytes(), b"cleanbill inputs", hashlib.sha256)
    for folder in MODEL_FOLDERS:
        for path in sorted((settings.dbt_project / folder).rglob("*")):
            if path.is_file():
                digest.update(path.relative_to(settings.dbt_project).as_posix().encode() + b"\0" + path.read_bytes())
    test_numbers = connection.execute("from control.test_numbers order by all").fetchall()
    first_days = connection.execute(
        """
        select extract, min(business_date)
        from control.in_force
        where extract in (select unnest($extracts)) and business_date <= $as_of
        group by extract
        order by extract
        """,
        {"extracts": list(WATCHED_EXTRACTS), "as_of": as_of},
    ).fetchall()
    digest.update(repr((test_numbers, first_days)).encode())
    return digest.hexdigest()


def _dbt_build(settings: Settings, database: Path, selectors: tuple[str, ...], is_full: bool) -> None:
    """Run one `dbt build` as a process of its own (in this process DuckDB would stay locked until its end)."""
    artefacts = settings.warehouse_folder / "dbt"
    artefacts.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "cleanbill.dbt_process", "build"]
    command += ["--project-dir", str(settings.dbt_project), "--profiles-dir", str(settings.dbt_project)]
    command += ["--log-path", str(artefacts / "logs"), "--target-path", str(artefacts / "target")]
    command += ["--exclude-resource-type", "unit_test", "--select", *selectors]
    if is_full:
        command.append("--full-refresh")
    environment = os.environ | {
        "CLEANBILL_HOME": str(settings.home),
        "CLEANBILL_DBT_DATABASE": str(database),
        "CLEANBILL_THREADS": str(settings.threads),
        "CLEANBILL_MEMORY_LIMIT": settings.memory_limit,
        "DBT_SEND_ANONYMOUS_USAGE_STATS": "false",
    }
    outcome = subprocess.run(  # noqa: S603
        command, env=environment, capture_output=True, text=True, check=False, pass_fds=run_lease.handed_on()
    )
    if outcome.returncode != 0:
        failures = _failures(artefacts / "target" / "run_results.json", outcome)
        if fault := storage_failure(failures, settings.home):
            raise fault
        raise BuildFailed(
            where="dbt build " + " ".join(selectors),
            expected="every model and test to pass",
            found=mask_text(failures),
            advice=f"see {artefacts / 'logs' / 'dbt.log'}; correct the cause, clear the task: it repeats the same set",
        )


def _failures(results: Path, outcome: subprocess.CompletedProcess[str]) -> str:
    """Return what failed, from dbt's results file, or the end of its output if it never got that far."""
    if results.is_file():
        failed = [
            f"{result['unique_id']}: {result['message']}"
            for result in json.loads(results.read_text())["results"]
            if result["status"] in ("error", "fail", "runtime error")
        ]
        if failed:
            return "; ".join(failed)[:LONGEST_EXCERPT]
    return (outcome.stdout + outcome.stderr)[-LONGEST_EXCERPT:]


def _sql_text(path: Path) -> str:
    """Return a path as the inside of a SQL string (ATTACH takes no bound parameter)."""
    return str(path).replace("'", "''")
