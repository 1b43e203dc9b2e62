"""Replays the SQL of a real dbt build in one process, for tests that need very many builds of small worlds.

The compiled SQL does not depend on data (as-of date and changed deliveries are tables), so what dbt sent to DuckDB
in one full and one incremental build is what it would send in any other. `test_incremental.py` proves that a
replayed build and a real one leave the same rows.
"""

import json
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date
from pathlib import Path

import duckdb
from cleanbill import build
from cleanbill.control import open_warehouse
from cleanbill.pseudonym import set_key_variables
from cleanbill.settings import get_settings

MODEL_SCHEMAS = ("staging", "intermediate", "marts")
COMMENT = re.compile(r"/\*.*?\*/", re.DOTALL)
WAREHOUSE = "cleanbill"
NO_EFFECT = ("select", "comment")  # what dbt asks the catalogue, and descriptions of columns


class Recording:
    """The statements of one full and one incremental build, and the policy tables they read."""

    def __init__(self, full: list[str], incremental: list[str], policy: dict[str, tuple[str, list[tuple]]]) -> None:
        self.full = full
        self.incremental = incremental
        self.policy = policy

    def build(self, as_of: date | None = None) -> date:
        """Do what build_staging and build_marts do, with the recorded statements instead of dbt."""
        settings = get_settings()
        with open_warehouse(settings) as connection:
            set_key_variables(connection, settings.pseudonym_key_bytes())
            is_full = build._begin(connection, settings, as_of)
            (decided,) = connection.execute("select as_of_date from control.run_context").fetchone()
            if is_full:
                self._clear(connection)
            for statement in self.full if is_full else self.incremental:
                connection.execute(statement)
            build._absorb(connection)
        return decided

    @contextmanager
    def instead_of_dbt(self) -> Iterator[None]:
        """Let build_staging, build_marts and build_scratch execute the recorded statements in this process."""

        def execute(settings, database: Path, selectors: tuple[str, ...], is_full: bool) -> None:
            if not set(build.MARTS) <= set(selectors):
                return  # the statements of staging are executed with those of the marts
            with open_warehouse(settings, path=database) as connection:
                set_key_variables(connection, settings.pseudonym_key_bytes())
                if is_full:
                    self._clear(connection)
                for statement in self.full if is_full else self.incremental:
                    # dbt names the database, which DuckDB calls by its file.
                    connection.execute(statement.replace(f'"{WAREHOUSE}".', f'"{database.stem}".'))

        real, build._dbt_build = build._dbt_build, execute
        try:
            yield
        finally:
            build._dbt_build = real

    def _clear(self, connection: duckdb.DuckDBPyConnection) -> None:
        for schema in MODEL_SCHEMAS:
            connection.execute(f"drop schema if exists {schema} cascade")
            connection.execute(f"create schema {schema}")
        connection.execute("create schema if not exists policy")
        for table, (definition, rows) in self.policy.items():
            connection.execute(f"drop table if exists policy.{table}")
            connection.execute(definition)
            marks = ", ".join("?" for _ in rows[0])
            connection.executemany(f"insert into policy.{table} values ({marks})", rows)


def record() -> Recording:
    """Run two real builds of a data root whose lake is ingested and whose warehouse was never built.

    Returns:
        What dbt executed: first on a warehouse without tables, then on one with them.
    """
    settings = get_settings()
    full = _record_build(settings)
    incremental = _record_build(settings)
    with open_warehouse(settings, read_only=True) as connection:
        tables = connection.execute(
            "select table_name, sql from duckdb_tables() "
            "where schema_name = 'policy' and database_name = current_database()"
        ).fetchall()
        policy = {name: (sql, connection.execute(f"from policy.{name}").fetchall()) for name, sql in tables}
    return Recording(full, incremental, policy)


def _record_build(settings) -> list[str]:
    logs = settings.warehouse_folder / "dbt" / "logs"
    shutil.rmtree(logs, ignore_errors=True)
    with _json_log():
        build.build_staging()
        build.build_marts()
    statements = []
    for line in (logs / "dbt.log").read_text().splitlines():
        event = json.loads(line)
        if event["info"]["name"] != "SQLQuery":
            continue
        node = event["data"].get("node_info", {}).get("unique_id", "")
        statement = COMMENT.sub("", event["data"]["sql"]).strip()
        if node.startswith("model.") and not statement.lower().startswith(NO_EFFECT):
            statements.append(statement)
    return statements


@contextmanager
def _json_log():
    wanted = {"DBT_LOG_FORMAT_FILE": "json", "DBT_LOG_LEVEL_FILE": "debug"}
    before = {name: os.environ.get(name) for name in wanted}
    os.environ.update(wanted)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def table_rows(database: Path, schemas: tuple[str, ...] = ("marts",)) -> dict[str, list[tuple]]:
    """Return the sorted rows of every table and view of some schemas, read by a fresh read-only connection."""
    connection = duckdb.connect(str(database), read_only=True)
    try:
        names = connection.execute(
            "select table_schema, table_name from information_schema.tables "
            "where table_schema in (select unnest(?)) order by all",
            [list(schemas)],
        ).fetchall()
        return {
            f"{schema}.{name}": connection.execute(f'select * from "{schema}"."{name}" order by all').fetchall()
            for schema, name in names
        }
    finally:
        connection.close()
