"""The reference files of the data root: expected extracts, test numbers, waivers.

Each is optional, small, and read whole before a build into its table of the control schema. A wrong line stops
the build with its line number: a half-read list of expected extracts would turn a missing file into silence.
"""

import csv
import re
from collections.abc import Callable, Iterator
from dataclasses import astuple, dataclass
from datetime import date
from pathlib import Path
from typing import Any

import duckdb

from cleanbill.contract import CONTRACTS
from cleanbill.errors import InputFileError
from cleanbill.expected_extracts import read_expected_pairs
from cleanbill.manifest import is_source_name
from cleanbill.settings import Settings

SNAPSHOT = "relation_snapshot"  # optional when nobody says what is expected
MSISDN_PREFIXES = ("0086", "+86", "86")
MSISDN_PATTERN = re.compile(r"1\d{10}")


@dataclass(frozen=True)
class _Line:
    path: Path
    number: int
    fields: dict[str, str]

    def wrong(self, column: str, expected: str) -> InputFileError:
        found = "a number that is not one" if column == "msisdn" else repr((self.fields.get(column) or "")[:40])
        return InputFileError(
            where=f"{self.path.name}, line {self.number}, column {column}",
            expected=expected,
            found=found,
            advice="correct the line and run again; nothing was built",
        )

    def text(self, column: str) -> str:
        value = (self.fields.get(column) or "").strip()
        if not value:
            raise self.wrong(column, "a value")
        return value

    def day(self, column: str) -> date:
        try:
            return date.fromisoformat(self.text(column))
        except ValueError as error:
            raise self.wrong(column, "a date written YYYY-MM-DD") from error

    def day_or_none(self, column: str) -> date | None:
        return self.day(column) if (self.fields.get(column) or "").strip() else None

    def one_of(self, column: str, allowed: tuple[str, ...]) -> str:
        value = self.text(column)
        if value not in allowed:
            raise self.wrong(column, "one of " + ", ".join(allowed))
        return value

    def source(self, column: str) -> str:
        value = self.text(column)
        if not is_source_name(value):
            raise self.wrong(column, "the name of a source")
        return value

    def msisdn(self, column: str) -> str:
        value = self.text(column)
        for prefix in MSISDN_PREFIXES:
            if value.startswith(prefix):
                value = value.removeprefix(prefix)
                break
        if not MSISDN_PATTERN.fullmatch(value):
            raise self.wrong(column, "an MSISDN: 1 and 10 digits, optionally after 86, +86 or 0086")
        return value


def load_reference_inputs(connection: duckdb.DuckDBPyConnection, settings: Settings) -> None:
    """Replace control.expected_pairs, control.test_numbers and control.waivers by what the data root says now.

    Without `expected_extracts.csv` each (extract, source) pair in force is expected daily from its first business
    date on; relation_snapshot is optional (2-extracts).

    Raises:
        InputFileError: a line of a reference file is wrong.
    """
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
    _replace(connection, "test_numbers", _rows(settings.home / "test_numbers.csv", _test_number))
    _replace(connection, "waivers", _rows(settings.home / "waivers.csv", _waiver))


def _test_number(line: _Line) -> tuple[Any, ...]:
    return line.msisdn("msisdn"), line.day("valid_from"), line.day_or_none("valid_to")


def _waiver(line: _Line) -> tuple[Any, ...]:
    row = (
        line.one_of("extract", tuple(CONTRACTS)),
        line.source("source"),
        line.day("day"),
        line.text("reason"),
        line.text("requested_by"),
        line.text("approved_by"),
        line.day("expires_on"),
    )
    if row[4] == row[5]:
        raise line.wrong("approved_by", "a second person")
    return row


def _rows(path: Path, parse: Callable[[_Line], tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    return [parse(line) for line in _lines(path)] if path.is_file() else []


def _lines(path: Path) -> Iterator[_Line]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file, strict=True)
        try:
            for fields in reader:
                if any(fields.values()):
                    yield _Line(path, reader.line_num, fields)
        except (UnicodeDecodeError, csv.Error) as error:
            raise InputFileError(
                where=f"{path.name}, after line {reader.line_num}",
                expected="CSV in UTF-8 with closed quotes",
                found=type(error).__name__,
                advice="save the file as UTF-8 CSV and run again; nothing was built",
            ) from error


def _replace(connection: duckdb.DuckDBPyConnection, table: str, rows: list[tuple[Any, ...]]) -> None:
    connection.execute(f"delete from control.{table}")  # noqa: S608 - the three names above
    if rows:
        marks = ", ".join("?" for _ in rows[0])
        connection.executemany(f"insert into control.{table} values ({marks})", rows)  # noqa: S608
