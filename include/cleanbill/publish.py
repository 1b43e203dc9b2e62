"""Publishing: analysts get a copy of the marts, moved into place by one rename while they read the old one.

Nothing is published unless the gate of the marts passed in this very run for exactly the rows that stand in the
warehouse now. All files are written and flushed beside their targets first; only then are they renamed, so a
failure leaves what was published before as it was.
"""

import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import duckdb

from cleanbill.billed_charges import absorb_sealed
from cleanbill.control import open_warehouse
from cleanbill.digests import code_version, deliveries_digest, policy_digest, quoted, table_digest
from cleanbill.errors import GateFailed
from cleanbill.file_lock import alone
from cleanbill.gates import LOCAL_TIME, require_green
from cleanbill.published_tables import (
    BILLED_CHARGES,
    GATE_RESULTS,
    MART_INFO,
    PUBLISHED_MARTS,
    RUN_TABLE_COMMENTS,
    PublishedTable,
)
from cleanbill.settings import Settings, get_settings

# The oldest format DuckDB still writes: read by 1.1 and later (2.0's own is not).
PUBLISHED_STORAGE_VERSION = "v1.0.0"
PUBLISHED_MODE = 0o640
STAGED = "staged"  # catalogue name of the file being built
PARQUET_DIGESTS = "digests.json"
VERSION_NAME = re.compile(r"v(\d{6})\.duckdb")
GATED_STAGES = ("raw", "staging", "marts")


@dataclass(frozen=True)
class Publication:
    """What a publication wrote: the database, its rows per table, and the Parquet tables that changed."""

    path: Path
    rows: dict[str, int]
    rewritten_parquet: tuple[str, ...]


def publish_marts(run_id: str) -> Publication:
    """Publish the marts of the warehouse as `marts/marts.duckdb` and `marts/parquet/<table>/<table>.parquet`.

    Args:
        run_id: the run whose gate of the marts must be green for the rows that stand there now.

    Raises:
        GateFailed: the gate's record is absent, red, or about other rows. Nothing was changed.
    """
    settings = get_settings()
    with _staging_folder(settings) as staging:
        database = staging / settings.published_marts.name
        with open_warehouse(settings, read_only=True) as connection:
            require_green("marts", run_id, connection, settings)
            options = f"read_write, storage_version '{PUBLISHED_STORAGE_VERSION}'"
            connection.execute(f"attach '{_sql_text(database)}' as {STAGED} ({options})")
            for table in PUBLISHED_MARTS:
                _copy_mart(connection, table)
            _write_gate_results(connection, run_id)
            _write_mart_info(connection, run_id, settings)
            rows, digests = _describe(connection, (*PUBLISHED_MARTS, GATE_RESULTS, MART_INFO))
            changed = _write_changed_parquet(connection, staging, digests, settings)
            connection.execute(f"detach {STAGED}")
        _release(staging, database, changed, digests, settings)
    return Publication(settings.published_marts, rows, tuple(changed))


def publish_billed_charges() -> bool:
    """Bring the table billed_charges of the published file up to the sealed versions; leave all else as it is.

    A released bill is seen at once, whatever state the warehouse is in: the published file itself is copied, the one
    table replaced, and the copy moved into place. Done again it changes nothing.

    Returns:
        Whether something was published: not if nothing is published yet, or the table is up to date.

    Raises:
        FeedError: a sealed version is damaged. Nothing was changed.
    """
    settings = get_settings()
    with open_warehouse(settings) as connection:
        absorb_sealed(connection, settings)
    if not settings.published_marts.exists():
        return False
    with _staging_folder(settings) as staging:
        database = staging / settings.published_marts.name
        with open_warehouse(settings, read_only=True) as connection:
            connection.execute(f"attach '{_sql_text(settings.published_marts)}' as published (read_only)")
            if _same_billed_versions(connection):
                return False
            options = f"read_write, storage_version '{PUBLISHED_STORAGE_VERSION}'"
            connection.execute(f"attach '{_sql_text(database)}' as {STAGED} ({options})")
            connection.execute(f"copy from database published to {STAGED}")
            connection.execute(f"drop table if exists {STAGED}.main.{quoted(BILLED_CHARGES.name)}")
            _copy_mart(connection, BILLED_CHARGES)
            now = datetime.now(LOCAL_TIME).replace(tzinfo=None, microsecond=0)
            connection.execute(f"update {STAGED}.main.mart_info set published_at = $now", {"now": now})  # noqa: S608
            _, new = _describe(connection, (BILLED_CHARGES, MART_INFO))
            digests = _published_digests(settings) | new
            changed = _write_changed_parquet(connection, staging, new, settings)
            connection.execute(f"detach {STAGED}")
            connection.execute("detach published")
        _release(staging, database, changed, digests, settings)
    return True


def _same_billed_versions(connection: duckdb.DuckDBPyConnection) -> bool:
    """Tell whether the attached published file holds exactly the versions taken in, line count and sum."""
    if not connection.execute(
        "select count(*) from duckdb_tables() where database_name = 'published' and table_name = $table",
        {"table": BILLED_CHARGES.name},
    ).fetchone()[0]:
        return False
    sums = "select billing_month, version, count(*), sum(delta_li)::hugeint, min(sealed_on) from {} group by all"
    here, there = sums.format("control.billed_lines"), sums.format(f"published.main.{BILLED_CHARGES.name}")
    differing = f"select count(*) from (({here} except {there}) union all ({there} except {here}))"  # noqa: S608
    return connection.execute(differing).fetchone()[0] == 0


@contextmanager
def _staging_folder(settings: Settings) -> Iterator[Path]:
    """Give an empty folder beside the published file, to one publication at a time.

    Raises:
        FeedError: another process publishes for too long.
    """
    settings.marts.mkdir(parents=True, exist_ok=True)
    settings.warehouse_folder.mkdir(parents=True, exist_ok=True)
    with alone(settings.warehouse_folder / "publishing.lock", "publishing"):
        _remove_leftovers(settings)
        _keep_version(settings)  # of a publication that was killed before it could
        # Same file system as the target, so that the move is one rename.
        staging = Path(tempfile.mkdtemp(prefix=".publishing-", dir=settings.marts))
        try:
            yield staging
        finally:
            shutil.rmtree(staging, ignore_errors=True)


def _release(
    staging: Path, database: Path, changed: dict[str, Path], digests: dict[str, str], settings: Settings
) -> None:
    _require_closed(database)
    database.chmod(PUBLISHED_MODE)
    _flush(database)
    _move_into_place(staging, database, changed, digests, settings)


def _copy_mart(connection: duckdb.DuckDBPyConnection, table: PublishedTable) -> None:
    columns = ", ".join(quoted(column) for column in table.columns)
    order = ", ".join(f"{quoted(column)} nulls last" for column in table.order)
    target = f"{STAGED}.main.{quoted(table.name)}"
    source = table.source or f"marts.{quoted(table.name)}"
    connection.execute(
        f"create table {target} as select {columns} from {source} order by {order}"  # noqa: S608 - names from the allow-list
    )
    comment = connection.execute(
        """
        select comment from (
            select database_name, schema_name, table_name, comment from duckdb_tables()
            union all
            select database_name, schema_name, view_name, comment from duckdb_views()
        )
        where database_name = current_database() and schema_name = 'marts' and table_name = $table
        """,
        {"table": table.name},
    ).fetchone()
    described = connection.execute(
        """
        select column_name, comment
        from duckdb_columns()
        where
            database_name = current_database()
            and schema_name = 'marts'
            and table_name = $table
            and comment is not null
        """,
        {"table": table.name},
    ).fetchall()
    comments = {column: text for column, text in described if column in table.columns}
    _comment(connection, table.name, {"": (comment and comment[0]) or "", **comments})


def _write_gate_results(connection: duckdb.DuckDBPyConnection, run_id: str) -> None:
    connection.execute(
        f"""
        create table {STAGED}.main.gate_results as
        select stage, suite, expectation, success, observed, expected
        from control.gate_results
        where run_id = $run_id and list_contains($stages, stage)
        order by list_position($stages, stage), suite, expectation
        """,  # noqa: S608 - a fixed name
        {"run_id": run_id, "stages": list(GATED_STAGES)},
    )
    _comment(connection, GATE_RESULTS.name, RUN_TABLE_COMMENTS[GATE_RESULTS.name])


def _write_mart_info(connection: duckdb.DuckDBPyConnection, run_id: str, settings: Settings) -> None:
    (as_of,) = connection.execute("select as_of_date from control.absorbed_state").fetchone()
    (red_gates,) = connection.execute(
        """
        select coalesce(string_agg(broken, '; ' order by broken), '')
        from (
            select stage || '/' || suite || ': ' || expectation as broken
            from control.gate_results
            where run_id = $run_id and list_contains($stages, stage) and not success
        )
        """,
        {"run_id": run_id, "stages": list(GATED_STAGES)},
    ).fetchone()
    (waived,) = connection.execute(
        """
        select coalesce(string_agg(day_waived, '; ' order by day_waived), '')
        from (
            select extract || '/' || source || '/' || day as day_waived
            from marts.extract_completeness
            where status = 'waived'
        )
        """
    ).fetchone()
    connection.execute(
        f"""
        create table {STAGED}.main.mart_info as
        select
            cast($as_of as date) as as_of,
            cast($deliveries_digest as varchar) as deliveries_digest,
            cast($policy_digest as varchar) as policy_digest,
            cast($code_version as varchar) as code_version,
            cast($published_at as timestamp) as published_at,
            cast($red_gates as varchar) as red_gates,
            cast($waived as varchar) as waived
        """,
        {
            "as_of": as_of,
            "deliveries_digest": deliveries_digest(connection, as_of),
            "policy_digest": policy_digest(connection, settings),
            "code_version": code_version(settings),
            "published_at": datetime.now(LOCAL_TIME).replace(tzinfo=None, microsecond=0),
            "red_gates": red_gates,
            "waived": waived,
        },
    )
    _comment(connection, MART_INFO.name, RUN_TABLE_COMMENTS[MART_INFO.name])


def _comment(connection: duckdb.DuckDBPyConnection, table: str, comments: dict[str, str]) -> None:
    """Write descriptions into the published file; the empty key is the table's own."""
    for column, text in comments.items():
        subject = f"{STAGED}.main.{quoted(table)}"
        if not text:
            continue
        if column:
            connection.execute(f"comment on column {subject}.{quoted(column)} is '{_sql_text(text)}'")
        else:
            connection.execute(f"comment on table {subject} is '{_sql_text(text)}'")


def _describe(
    connection: duckdb.DuckDBPyConnection,
    tables: Iterable[PublishedTable] = (*PUBLISHED_MARTS, GATE_RESULTS, MART_INFO),
) -> tuple[dict[str, int], dict[str, str]]:
    """Return the row count and the content digest of tables of the file being built."""
    (warehouse,) = connection.execute("select current_database()").fetchone()
    connection.execute(f"use {STAGED}")
    try:
        rows, digests = {}, {}
        for table in tables:
            (rows[table.name],) = connection.execute(f"select count(*) from {quoted(table.name)}").fetchone()  # noqa: S608
            digests[table.name] = table_digest(connection, "main", table.name)
    finally:
        connection.execute(f"use {quoted(warehouse)}")
    return rows, digests


def _write_changed_parquet(
    connection: duckdb.DuckDBPyConnection, staging: Path, digests: dict[str, str], settings: Settings
) -> dict[str, Path]:
    """Write the tables whose content differs from what is published; return table → staged file."""
    published = _published_digests(settings)
    changed = {}
    for table, digest in digests.items():
        if published.get(table) == digest and _parquet_path(settings, table).exists():
            continue
        staged = staging / f"{table}.parquet"
        # The table was written in its order, and a scan keeps that order.
        connection.execute(
            f"copy (from {STAGED}.main.{quoted(table)}) to '{_sql_text(staged)}' (format parquet, compression zstd)"
        )
        staged.chmod(PUBLISHED_MODE)
        _flush(staged)
        changed[table] = staged
    return changed


def _published_digests(settings: Settings) -> dict[str, str]:
    try:
        return json.loads((settings.marts / "parquet" / PARQUET_DIGESTS).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}


def _parquet_path(settings: Settings, table: str) -> Path:
    return settings.marts / "parquet" / table / f"{table}.parquet"


def _keep_version(settings: Settings) -> None:
    """Give the published file a second name among the last versions (a hard link: no bytes are copied)."""
    if settings.kept_publications == 0 or not settings.published_marts.exists():
        return
    folder = settings.marts / "versions"
    folder.mkdir(exist_ok=True)
    kept = sorted(path for path in folder.iterdir() if VERSION_NAME.fullmatch(path.name))
    if kept and kept[-1].samefile(settings.published_marts):
        return
    newest = int(VERSION_NAME.fullmatch(kept[-1].name).group(1)) if kept else 0
    os.link(settings.published_marts, folder / f"v{newest + 1:06d}.duckdb")


def _move_into_place(
    staging: Path, database: Path, changed: dict[str, Path], digests: dict[str, str], settings: Settings
) -> None:
    for table, staged in changed.items():
        target = _parquet_path(settings, table)
        target.parent.mkdir(parents=True, exist_ok=True)
        staged.replace(target)
        _flush(target.parent)
    record = staging / PARQUET_DIGESTS
    record.write_text(json.dumps(digests, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    _flush(record)
    record.replace(settings.marts / "parquet" / PARQUET_DIGESTS)
    database.replace(settings.published_marts)
    _flush(settings.marts)
    _keep_version(settings)
    _drop_old_versions(settings)


def _drop_old_versions(settings: Settings) -> None:
    folder = settings.marts / "versions"
    if folder.exists():
        kept = sorted(path for path in folder.iterdir() if VERSION_NAME.fullmatch(path.name))
        for old in kept[: -settings.kept_publications or None]:
            old.unlink()


def _remove_leftovers(settings: Settings) -> None:
    """Remove what a killed publication left behind (only one runs at a time: the pool has one slot)."""
    for leftover in settings.marts.glob(".publishing-*"):
        shutil.rmtree(leftover, ignore_errors=True)


def _require_closed(database: Path) -> None:
    """A write-ahead log beside the file would mean that the file alone is not the whole truth."""
    log = database.with_name(database.name + ".wal")
    if log.exists():
        raise GateFailed(
            where=database.name,
            expected="a published file without a write-ahead log",
            found="one",
            advice="publish again; what was published before is unchanged",
        )


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sql_text(value: Path | str) -> str:
    return str(value).replace("'", "''")
