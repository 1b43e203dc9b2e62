"""Holds two states of the marts against each other, row for row: the floor's and cleanbill's."""

from pathlib import Path

import duckdb

from tests.bench.floor import MARTS


def differences(expected: Path, found: Path, found_schema: str = "main") -> list[str]:
    """Compare every mart of the floor; return one line per mart whose rows or sums differ (none: the same job).

    Args:
        expected: the file the floor published.
        found: a file cleanbill published, or its warehouse.
        found_schema: schema of the marts there (`marts` in a warehouse).
    """
    connection = duckdb.connect(config={"autoinstall_known_extensions": False})
    try:
        connection.execute(f"attach '{expected}' as floor (read_only)")
        connection.execute(f"attach '{found}' as built (read_only)")
        return [line for table in MARTS if (line := _difference(connection, table, found_schema))]
    finally:
        connection.close()


def _difference(connection: duckdb.DuckDBPyConnection, table: str, schema: str) -> str | None:
    columns = connection.execute(
        "select column_name, data_type from duckdb_columns() "
        "where database_name = 'floor' and schema_name = 'main' and table_name = $1 order by column_index",
        [table],
    ).fetchall()
    names = ", ".join(name for name, _ in columns)
    sums = ", ".join(f"sum({name})" for name, kind in columns if kind == "BIGINT") or "null"
    totals = [
        connection.execute(f"select count(*), {sums} from {source}").fetchone()
        for source in (f"floor.main.{table}", f"built.{schema}.{table}")
    ]
    (missing,) = connection.execute(
        f"select count(*) from (select {names} from floor.main.{table} "
        f"except all select {names} from built.{schema}.{table})"
    ).fetchone()
    if totals[0] == totals[1] and not missing:
        return None
    return f"{table}: rows and sums {totals[0]} of the floor, {totals[1]} of cleanbill; {missing} rows differ"
