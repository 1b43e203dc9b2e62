"""Take the reference files of the data root into the control schema: withdrawals, expected extracts, test numbers,
waivers. Each is optional, small, and read whole before a build.
"""

from collections.abc import Callable
from dataclasses import astuple
from pathlib import Path
from typing import Any

import duckdb

from cleanbill.expected_extracts import read_expected_pairs
from cleanbill.reference_files import ReferenceLine, read_lines
from cleanbill.settings import Settings
from cleanbill.withdrawals import load_withdrawals

SNAPSHOT = "relation_snapshot"  # optional when nobody says what is expected
TEST_NUMBER_COLUMNS = ("msisdn", "valid_from", "valid_to")
WAIVER_COLUMNS = ("extract", "source", "day", "reason", "requested_by", "approved_by", "expires_on")


def load_reference_inputs(connection: duckdb.DuckDBPyConnection, settings: Settings) -> None:
    """Replace what the control schema knows of the reference files by what the data root says now.

    What is withdrawn decides anew what is in force. Without `expected_extracts.csv` each (extract, source) pair in
    force is expected daily from its first business date on; relation_snapshot is optional (2-extracts).

    Raises:
        InputFileError: a reference file is wrong.
    """
    load_withdrawals(connection, settings.home)
    listed = read_expected_pairs(settings.home)
    if listed is not None:
        pairs = [astuple(pair) for pair in listed]
    else:
        pairs = connection.execute(
            """
            select
                extract,
                source,
                case when extract = $snapshot then 'optional' else 'daily' end,
                min(business_date),
                null
            from control.in_force
            group by extract, source
            """,
            {"snapshot": SNAPSHOT},
        ).fetchall()
    _replace(connection, "expected_pairs", pairs)
    numbers = _rows(settings.home / "test_numbers.csv", TEST_NUMBER_COLUMNS, _test_number)
    _replace(connection, "test_numbers", numbers)
    _replace(connection, "waivers", _rows(settings.home / "waivers.csv", WAIVER_COLUMNS, _waiver))


def _test_number(line: ReferenceLine) -> tuple[Any, ...]:
    return line.msisdn("msisdn"), *line.validity()


def _waiver(line: ReferenceLine) -> tuple[Any, ...]:
    missing = (line.extract(), line.source(), line.day("day"))
    return *missing, line.free_text("reason"), *line.two_people(), line.day("expires_on")


def _rows(
    path: Path, columns: tuple[str, ...], parse: Callable[[ReferenceLine], tuple[Any, ...]]
) -> list[tuple[Any, ...]]:
    return [parse(line) for line in read_lines(path, columns) or []]


def _replace(connection: duckdb.DuckDBPyConnection, table: str, rows: list[tuple[Any, ...]]) -> None:
    connection.execute(f"delete from control.{table}")  # noqa: S608 - the three names above
    if rows:
        marks = ", ".join("?" for _ in rows[0])
        connection.executemany(f"insert into control.{table} values ({marks})", rows)  # noqa: S608
