"""Digests by which two states of the warehouse are compared: what went in, and what stands there now.

All are sha256 hex texts. They are computed from the warehouse itself, not from files beside it: a file edited
after the build must not change what the build claims to be made of.
"""

import hashlib
import hmac
import json
from collections.abc import Iterable
from datetime import date
from pathlib import Path

import duckdb

import cleanbill
from cleanbill.settings import Settings

CODE_FOLDERS = ("include/cleanbill", "dbt_project/models", "dbt_project/macros", "expectations")
CODE_SUFFIXES = frozenset({".py", ".sql", ".yml", ".csv"})
VERSION_DIGITS = 12


def deliveries_digest(connection: duckdb.DuckDBPyConnection, as_of: date) -> str:
    """Return the digest of the deliveries in force with a business date up to `as_of`.

    One line per delivery: extract, business date, source, delivery number, sha256 of its manifest; sorted.
    """
    rows = connection.execute(
        """
        select extract, business_date, source, delivery, manifest_sha256
        from control.in_force
        where business_date <= $as_of
        order by extract, business_date, source
        """,
        {"as_of": as_of},
    ).fetchall()
    return _sha256_of_lines(",".join(str(value) for value in row) for row in rows)


def policy_digest(connection: duckdb.DuckDBPyConnection, settings: Settings, as_of: date | None = None) -> str:
    """Return the digest of every policy table as loaded, of the expected pairs and of the test numbers.

    With `as_of`, expected pairs are taken as they stand up to that day: a source that starts later plays no part.

    Test numbers are true MSISDNs and few: a plain hash of them could be guessed, so they enter under the
    pseudonym key. Rows are hashed in the order of their text, so that load order plays no part.

    Raises:
        SettingsError: there are test numbers and no pseudonym key.
    """
    tables = connection.execute(
        """
        select table_schema, table_name
        from information_schema.tables
        where
            table_catalog = current_database()
            and (
                table_schema = 'policy'
                or (table_schema = 'control' and table_name in ('expected_pairs', 'test_numbers'))
            )
        order by table_schema, table_name
        """
    ).fetchall()
    lines: list[str] = []
    for schema, table in tables:
        rows = sorted(_rows_as_json(connection, schema, table))
        if table == "expected_pairs" and as_of is not None:
            rows = sorted(_pairs_up_to(as_of, rows))
        if table == "test_numbers" and rows:
            key = settings.pseudonym_key_bytes()
            rows = sorted(hmac.new(key, row.encode(), "sha256").hexdigest() for row in rows)
        lines.append(f"{schema}.{table}")
        lines.extend(rows)
    return _sha256_of_lines(lines)


def tables_digest(connection: duckdb.DuckDBPyConnection, tables: Iterable[tuple[str, str]]) -> str:
    """Return the digest of the names, columns and rows of some tables, whatever the order of their rows.

    Args:
        connection: an open database.
        tables: (schema, table) pairs; one that does not exist counts as absent, not as empty.
    """
    return _sha256_of_lines(table_digest(connection, schema, table) for schema, table in sorted(tables))


def table_digest(connection: duckdb.DuckDBPyConnection, schema: str, table: str) -> str:
    """Return one line that changes with any change of a table's columns or rows (not with their order)."""
    columns = connection.execute(
        """
        select column_name, data_type
        from information_schema.columns
        where table_catalog = current_database() and table_schema = $schema and table_name = $table
        order by ordinal_position
        """,
        {"schema": schema, "table": table},
    ).fetchall()
    if not columns:
        return f"{schema}.{table} absent"
    count, hash_sum = connection.execute(
        # A sum, not an exclusive or: two equal rows must not cancel each other.
        f"select count(*), coalesce(sum(hash(counted)::hugeint), 0) from {quoted(schema)}.{quoted(table)} as counted"  # noqa: S608 - names come from the catalogue
    ).fetchone()
    return f"{schema}.{table} {columns} {count} {hash_sum}"


def code_version(settings: Settings) -> str:
    """Return the version of the code that computed a state: the release and a digest of its sources."""
    digest = hashlib.sha256()
    for folder in CODE_FOLDERS:
        root = settings.project_root / folder
        for path in sorted(path for path in root.rglob("*") if path.suffix in CODE_SUFFIXES and path.is_file()):
            digest.update(path.relative_to(settings.project_root).as_posix().encode())
            digest.update(_file_sha256(path))
    return f"{cleanbill.__version__}+{digest.hexdigest()[:VERSION_DIGITS]}"


def quoted(identifier: str) -> str:
    """Return an identifier in double quotes for SQL text."""
    return '"' + identifier.replace('"', '""') + '"'


def _rows_as_json(connection: duckdb.DuckDBPyConnection, schema: str, table: str) -> list[str]:
    cursor = connection.execute(f"select * from {quoted(schema)}.{quoted(table)}")  # noqa: S608 - names come from the catalogue
    columns = [column[0] for column in cursor.description]
    return [
        json.dumps(
            {name: None if value is None else str(value) for name, value in zip(columns, row, strict=True)},
            ensure_ascii=False,
        )
        for row in cursor.fetchall()
    ]


def _pairs_up_to(as_of: date, rows: list[str]) -> list[str]:
    day = as_of.isoformat()
    started = [pair for pair in map(json.loads, rows) if pair["valid_from"] <= day]
    return [
        json.dumps(pair | {"valid_to": pair["valid_to"] if (pair["valid_to"] or day) < day else None})
        for pair in started
    ]


def _sha256_of_lines(lines: Iterable[str]) -> str:
    digest = hashlib.sha256()
    for line in lines:
        digest.update(line.encode() + b"\n")
    return digest.hexdigest()


def _file_sha256(path: Path) -> bytes:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()
