"""The control schema of the warehouse: what was delivered, what is in force, what was absorbed.

Python writes these tables, dbt reads them as sources. The warehouse is opened by the pipeline alone:
one process at a time may write, and an open reader would block the writer, so every connection waits for
the file lock and is closed at once after use.
"""

import os
import random
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import duckdb

from cleanbill.errors import DataDamaged, SettingsError
from cleanbill.settings import Settings, get_settings

LOCK_WAIT_SECONDS = 600
WAREHOUSE_STORAGE_VERSION = "v1.5.0"

# How DuckDB's messages begin when a file of its own cannot be trusted.
_DAMAGED = ("corrupt database file", "the file", "could not read enough bytes", "failed to deserialize")

CONTROL_DDL = """
create schema if not exists control;

create table if not exists control.deliveries (
    extract varchar not null,
    business_date date not null,
    source varchar not null,
    delivery integer not null,
    manifest_path varchar not null,      -- relative to the data root
    manifest_sha256 varchar not null,
    identity varchar not null,           -- 'msisdn' or 'opaque'
    status varchar not null,             -- accepted / rejected / over_limit
    reason_code varchar,                 -- why it was rejected or held back; null if accepted
    reason varchar,                      -- the one clear line
    duplicate_of varchar,                -- an accepted delivery refused because its bytes are in force elsewhere
    rows_in bigint not null,             -- rows the manifest announces
    rows_loaded bigint not null,
    rows_quarantined bigint not null,
    rows_duplicate bigint not null,
    lake_path varchar,                   -- relative to the data root; null when no row was loaded
    quarantine_path varchar,             -- relative to the data root; null when nothing was quarantined
    content_digest varchar,              -- digest of the normalised rows, independent of their order (full files only)
    primary key (extract, business_date, source, delivery)
);

create table if not exists control.delivery_files (
    extract varchar not null,
    business_date date not null,
    source varchar not null,
    delivery integer not null,
    file_name varchar not null,
    bytes bigint not null,
    sha256 varchar not null,
    rows_in bigint not null,
    rows_loaded bigint not null,
    rows_quarantined bigint not null,
    rows_duplicate bigint not null,
    primary key (extract, business_date, source, delivery, file_name)
);

-- What withdrawals.csv took back; such a delivery never counts.
create table if not exists control.withdrawals (
    extract varchar not null,
    source varchar not null,
    business_date date not null,
    delivery integer not null,
    reason varchar not null,
    requested_by varchar not null,
    approved_by varchar not null
);

-- What ingest wrote into the lake: a build reads no file that differs from it.
create table if not exists control.lake_files (
    lake_path varchar primary key,       -- as in control.deliveries
    sha256 varchar not null
);

-- One row per (extract, business_date, source): the delivery that counts now.
create table if not exists control.in_force (
    extract varchar not null,
    business_date date not null,
    source varchar not null,
    delivery integer not null,
    manifest_sha256 varchar not null,
    rows_in bigint not null,
    rows_loaded bigint not null,
    rows_quarantined bigint not null,
    rows_duplicate bigint not null,
    lake_path varchar,
    content_digest varchar,
    primary key (extract, business_date, source)
);

-- What the build under way computes from: in_force up to its as-of date, as it stood when the build began.
create table if not exists control.build_deliveries (
    extract varchar not null,
    business_date date not null,
    source varchar not null,
    delivery integer not null,
    manifest_sha256 varchar not null,
    rows_in bigint not null,
    rows_loaded bigint not null,
    rows_quarantined bigint not null,
    rows_duplicate bigint not null,
    lake_path varchar,
    content_digest varchar,
    primary key (extract, business_date, source)
);

-- What the last finished build had taken in; written when a build has ended.
create table if not exists control.absorbed (
    extract varchar not null,
    business_date date not null,
    source varchar not null,
    delivery integer not null,
    lake_path varchar,
    content_digest varchar,
    primary key (extract, business_date, source)
);
create table if not exists control.absorbed_state (as_of_date date not null, inputs_digest varchar not null);
create table if not exists control.absorbed_services (
    sp_code varchar not null,
    service_code varchar not null,
    service_name varchar,
    service_class varchar,
    is_portal boolean,
    billing_type varchar,
    monthly_fee_li bigint,
    valid_from date not null,
    valid_to date
);
create table if not exists control.absorbed_usage_days (
    extract varchar not null,
    day date not null,
    is_complete boolean not null
);

-- A row while a build has begun and not ended (also after it was killed): the marts may be half new.
create table if not exists control.build_under_way (as_of_date date not null);

-- One row: what the build under way is to compute.
create table if not exists control.run_context (
    as_of_date date not null,
    previous_as_of_date date,            -- null: nothing absorbed, compute everything
    inputs_digest varchar not null
);

-- What the sealed feed versions in exports/ billed (cleanbill.billed_charges takes each version in once).
create table if not exists control.billed_versions (
    billing_month date not null,
    version integer not null,
    manifest_sha256 varchar not null,
    key_digest varchar not null,         -- of the key the subscriber ids were made with
    lines bigint not null,
    delta_li hugeint not null,           -- as the manifest states it
    sealed_on date not null,
    primary key (billing_month, version)
);
create table if not exists control.billed_lines (
    billing_month date not null,
    version integer not null,
    subscription_id varchar not null,
    subscriber_id varchar not null,
    sp_code varchar not null,
    service_code varchar not null,
    charged_li bigint not null,
    delta_li bigint not null,
    sealed_on date not null
);

-- Reference inputs of the data root, loaded before each build.
create table if not exists control.expected_pairs (
    extract varchar not null,
    source varchar not null,
    schedule varchar not null,           -- daily / optional
    valid_from date not null,
    valid_to date                        -- last expected day; null: open
);
create table if not exists control.test_numbers (msisdn varchar not null, valid_from date not null, valid_to date);
create table if not exists control.waivers (
    extract varchar not null,
    source varchar not null,
    day date not null,
    reason varchar not null,
    requested_by varchar not null,
    approved_by varchar not null,
    expires_on date not null
);

-- One row per finished step of a run: what `cleanbill plan` judges the next one by.
create table if not exists control.step_times (
    step varchar not null,               -- ingest / build_staging / build_marts
    is_full boolean not null,            -- a build of everything
    rows bigint not null,                -- rows read, or rows of the changed deliveries
    seconds double not null,
    finished_at timestamp not null
);

create table if not exists control.gate_results (
    run_id varchar not null,
    stage varchar not null,              -- raw / staging / marts / export
    suite varchar not null,
    expectation varchar not null,
    severity varchar not null,           -- critical / warning
    success boolean not null,
    observed varchar,
    expected varchar,
    unexpected_rows bigint,
    advice varchar,
    checked_at timestamp not null
);

-- One row per run and stage: the verdict, and the digest of the rows it is about.
create table if not exists control.gate_records (
    run_id varchar not null,
    stage varchar not null,
    passed boolean not null,
    critical_failures integer not null,
    warnings integer not null,
    state_digest varchar,                -- null: there was nothing to check
    checked_at timestamp not null,
    primary key (run_id, stage)
);
"""


@contextmanager
def open_warehouse(
    settings: Settings | None = None,
    path: Path | None = None,
    read_only: bool = False,
    wait_seconds: float = LOCK_WAIT_SECONDS,
) -> Iterator[duckdb.DuckDBPyConnection]:
    """Open the warehouse (or a scratch build at `path`), wait for its file lock, close it afterwards.

    Relative paths in SQL resolve against the data root (`file_search_path`), so that stored lake paths
    survive a move of the data root.

    Raises:
        SettingsError: another process kept the file locked for `wait_seconds`.
        DataDamaged: DuckDB's checksums say that the file is not what was written.
    """
    settings = settings or get_settings()
    target = path or settings.warehouse
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        connection = _connect_when_free(target, read_only, settings, wait_seconds)
        try:
            connection.execute("set file_search_path = $home", {"home": str(settings.home)})
            if not read_only:
                connection.execute(CONTROL_DDL)
            yield connection
        finally:
            connection.close()
    except duckdb.Error as error:
        if not str(error).lower().removeprefix("io error: ").startswith(_DAMAGED):
            raise
        raise DataDamaged(
            str(target),
            "the file as it was written",
            "a damaged one (its checksums differ)",
            "move it away; `cleanbill rebuild` makes the warehouse anew from the lake",
        ) from None


def _connect_when_free(
    target: Path, read_only: bool, settings: Settings, wait_seconds: float
) -> duckdb.DuckDBPyConnection:
    config = {
        "threads": settings.threads,
        "memory_limit": settings.memory_limit,
        "autoinstall_known_extensions": False,
        "temp_directory": str(settings.warehouse_folder / "tmp"),
    }
    if not target.exists() and not read_only:
        _create(target, config | {"storage_compatibility_version": WAREHOUSE_STORAGE_VERSION})
    deadline = time.monotonic() + wait_seconds
    while True:
        try:
            return duckdb.connect(str(target), read_only=read_only, config=config)
        except duckdb.IOException as error:
            if "lock" not in str(error).lower():
                raise
            if time.monotonic() > deadline:
                raise SettingsError(
                    where=str(target),
                    expected="to get the file lock",
                    found=f"another process held it for {wait_seconds:g} s",
                    advice="only the pipeline may open the warehouse: close the other program and clear the task",
                ) from error
            time.sleep(random.uniform(0.05, 0.3))  # noqa: S311 - jitter, no secret


def _create(target: Path, config: dict[str, object]) -> None:
    """Create an empty database under another name first: killed half-way, DuckDB leaves a file it cannot open."""
    for leftover in target.parent.glob(f"{target.name}.new-*"):
        leftover.unlink(missing_ok=True)
    fresh = target.with_name(f"{target.name}.new-{os.getpid()}")
    duckdb.connect(str(fresh), config=config).close()
    # Of several processes one wins, and nobody's file is replaced.
    with suppress(FileExistsError, FileNotFoundError):
        os.link(fresh, target)
    fresh.unlink(missing_ok=True)
