"""Analysts' questions to the published marts: one SELECT, read-only, in a cage (6-reliability S4).

Three walls, each enough for most attacks: sqlglot proves that the text is one SELECT on published tables with harmless
functions; the engine is opened read-only, without access to files, network or settings; the process around it has a
memory limit, may write no file, has an empty environment and is ended when its time is up.
"""

import json
import logging
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

from cleanbill.errors import QueryRefused
from cleanbill.settings import get_settings

MAX_ROWS = 10_000
SECONDS = 60.0
MEMORY_MB = 2_000
PROCESS_MARGIN_MB = 2_000  # address space of the interpreter and the engine's own structures beside its memory limit
GRACE_SECONDS = 5.0
LONGEST_STATEMENT = 100_000
THREADS = 2

TABLE_FUNCTIONS = frozenset({"range", "generate_series", "unnest"})
CATALOGUE_VIEWS = frozenset({"tables", "columns"})  # of information_schema: what there is to ask about
# Functions that read settings, the environment, files or secrets, or run text as SQL.
REFUSED_FUNCTIONS = frozenset(
    {
        "current_setting",
        "getenv",
        "getvariable",
        "glob",
        "json_execute_serialized_sql",
        "query",
        "query_table",
        "sniff_csv",
        "which_secret",
        "write_log",
        "nextval",
        "currval",
    }
)
REFUSED_PREFIXES = ("read_", "duckdb_", "pragma_", "parquet_", "sqlite_", "postgres_", "mysql_", "iceberg_", "delta_")
REFUSED_SUFFIXES = ("_scan", "_scan_pushdown")
SYSTEM_TABLES = frozenset({"sqlite_master", "sqlite_schema", "sqlite_temp_master", "sqlite_temp_schema"})
PLAIN_NAME = re.compile(r"[a-z_][a-z0-9_]*")


@dataclass(frozen=True)
class QueryResult:
    """The answer: column names, rows of Python values, and whether rows beyond the limit were left out."""

    columns: list[str]
    rows: list[tuple[Any, ...]]
    is_cut: bool


def query(
    sql: str,
    max_rows: int = MAX_ROWS,
    seconds: float = SECONDS,
    memory_mb: int = MEMORY_MB,
    database: Path | None = None,
) -> QueryResult:
    """Answer one SELECT on the published marts.

    Args:
        sql: one SELECT statement (also WITH … SELECT, VALUES, set operations, `from table`).
        max_rows: rows returned at most; the rest is left out and `is_cut` says so.
        seconds: time after which the statement is stopped.
        memory_mb: memory limit of the engine in MB.
        database: published file to ask; by default marts/marts.duckdb.

    Raises:
        QueryRefused: it is not one SELECT, names what is not published, fails, or exceeds its limits.
    """
    statement = require_select(sql)
    target = database or get_settings().published_marts
    if not target.is_file():
        raise QueryRefused(
            where=str(target),
            expected="published marts",
            found="no such file",
            advice="`cleanbill run --from DAY --to DAY` builds and publishes them",
        )
    request = {
        "database": str(target),
        "sql": statement,
        "max_rows": max_rows,
        "seconds": seconds,
        "memory_mb": memory_mb,
        "process_mb": memory_mb + PROCESS_MARGIN_MB,
        "threads": THREADS,
    }
    result = _ask(request)
    if "error" in result:
        raise _failed(result, seconds, memory_mb)
    rows = [
        tuple(_typed(value, kind) for value, kind in zip(row, result["types"], strict=True)) for row in result["rows"]
    ]
    return QueryResult(columns=result["columns"], rows=rows, is_cut=result["is_cut"])


def _ask(request: dict[str, Any]) -> dict[str, Any]:
    command = [sys.executable, "-I", str(Path(__file__).with_name("query_cage.py"))]
    try:
        finished = subprocess.run(  # noqa: S603 - our own interpreter and file; the statement travels on stdin
            command,
            input=json.dumps(request).encode(),
            capture_output=True,
            env={name: os.environ[name] for name in ("LD_LIBRARY_PATH",) if name in os.environ},
            timeout=request["seconds"] + GRACE_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return {"error": "InterruptException", "text": ""}
    try:
        return json.loads(finished.stdout)
    except ValueError:
        return {"error": "MemoryError", "text": ""}  # the process was ended by its limits


def _failed(result: dict[str, Any], seconds: float, memory_mb: int) -> QueryRefused:
    """Turn the engine's error into ours; its text is about the analyst's own statement and published rows only."""
    if result["error"] == "InterruptException":
        return QueryRefused(
            where="query",
            expected=f"an answer within {seconds:g} s",
            found="a statement still running then; it was stopped",
            advice="ask for less: filter by month, aggregate, check that joins have a condition",
        )
    if result["error"] in ("OutOfMemoryException", "MemoryError", "RuntimeError"):
        return QueryRefused(
            where="query",
            expected=f"a statement that needs at most {memory_mb} MB",
            found="one that asked for more; it was stopped",
            advice="ask for less: filter by month, aggregate, select fewer columns",
        )
    return QueryRefused(
        where="query",
        expected="a statement the published marts can answer",
        found=" ".join(result["text"].split())[:400],
        advice="`select table_name, column_name from information_schema.columns` lists what there is",
    )


def _typed(value: Any, kind: str) -> Any:
    """Give dates and times back as Python values; what JSON does not know came as text."""
    if isinstance(value, str):
        try:
            if kind == "DATE":
                return date.fromisoformat(value)
            if kind.startswith("DECIMAL"):
                return Decimal(value)
            if kind.startswith("TIMESTAMP") and "ZONE" not in kind:
                return datetime.fromisoformat(value)
        except (ValueError, ArithmeticError):  # infinity, or a year Python does not have
            return value
    return value


def require_select(sql: str) -> str:
    """Return the statement, proven to be one SELECT on published tables.

    Raises:
        QueryRefused: it is not; the message says what was found.
    """
    import sqlglot
    from sqlglot import exp
    from sqlglot.errors import SqlglotError

    logging.getLogger("sqlglot").setLevel(logging.ERROR)  # it warns of what we refuse anyway
    if len(sql) > LONGEST_STATEMENT:
        raise _refused(f"a text of {len(sql)} characters")
    try:
        statements = [statement for statement in sqlglot.parse(sql, dialect="duckdb") if statement is not None]
    except (SqlglotError, RecursionError) as error:
        raise _refused(f"text that does not parse ({' '.join(str(error).split())[:160]})") from error
    if len(statements) != 1:
        raise _refused(f"{len(statements)} statements")
    statement = statements[0]
    if not isinstance(statement, exp.Query):
        raise _refused(f"a {statement.key.upper()} statement")
    for node in statement.walk():
        _require_harmless(node)
    return sql


def _require_harmless(node: Any) -> None:
    from sqlglot import exp

    changing = (exp.DML, exp.DDL, exp.Into, exp.Command, exp.Copy, exp.Attach, exp.Set, exp.Pragma, exp.Lock)
    if isinstance(node, changing) and not isinstance(node, exp.Query):
        raise _refused(f"a {node.key.upper()} inside the statement")
    if isinstance(node, exp.Func):
        names = {node.name.lower()} if isinstance(node, exp.Anonymous) else {name.lower() for name in node.sql_names()}
        for name in names:
            if name in REFUSED_FUNCTIONS or name.startswith(REFUSED_PREFIXES) or name.endswith(REFUSED_SUFFIXES):
                raise _refused(f"the function {name}")
    if isinstance(node, exp.Table):
        _require_published(node)


def _require_published(table: Any) -> None:
    """Let a FROM item be a plain name, information_schema.tables/columns, or a harmless table function."""
    from sqlglot import exp

    if isinstance(table.this, exp.Func):
        anonymous = isinstance(table.this, exp.Anonymous)
        names = {table.this.name.lower()} if anonymous else {name.lower() for name in table.this.sql_names()}
        if not names & TABLE_FUNCTIONS:
            raise _refused(f"the table function {min(names)}")
        return
    name, schema, catalog = table.name.lower(), table.db.lower(), table.catalog.lower()
    is_catalogue = schema == "information_schema" and name in CATALOGUE_VIEWS
    is_plain = schema in ("", "main") and PLAIN_NAME.fullmatch(name) and not name.startswith(REFUSED_PREFIXES)
    if catalog not in ("", "marts") or not (is_catalogue or is_plain) or name in SYSTEM_TABLES:
        raise _refused(f"the table {table.sql(dialect='duckdb')[:60]}")


def _refused(found: str) -> QueryRefused:
    return QueryRefused(
        where="query",
        expected="one SELECT on the published marts",
        found=found,
        advice="`select table_name, column_name from information_schema.columns` lists what there is",
    )
