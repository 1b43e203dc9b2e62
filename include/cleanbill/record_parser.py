"""From clean lines to typed records, inside DuckDB: one set of SQL statements for many deliveries of one extract.

Every line ends as a loaded record, a dropped duplicate or a quarantined record with its reason; the counts come
from the same table, so that nothing can slip between them.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from pathlib import Path

import duckdb

from cleanbill.contract import ORIGIN_COLUMNS, Contract
from cleanbill.manifest import DeliveryKey
from cleanbill.record_sql import (
    JUDGED_RECORDS,
    LINES,
    QUOTE_PARAMETERS,
    SPLIT_PLAIN_LINES,
    SPLIT_QUOTED_LINES,
    typed_records,
)
from cleanbill.spool import BROKEN_BYTE_MARK, LONG_LINE_MARK, SpooledFile


@dataclass(frozen=True)
class ParserInput:
    """One spooled file of one delivery, with what its records are judged by.

    Attributes:
        delivery_no: number of the delivery within the batch.
        file_no: number of the file within the batch, ascending with (delivery, file name).
        spooled: the file; it has at least one line.
        business_date: of the delivery.
        max_lateness_days: how old a record's own time may be.
        is_opaque: the source names subscribers by opaque ids, not phone numbers.
    """

    delivery_no: int
    file_no: int
    spooled: SpooledFile
    business_date: date
    max_lateness_days: int
    is_opaque: bool


@dataclass(frozen=True)
class FileNames:
    """The file names of one delivery; their file numbers follow one another."""

    first_file_no: int
    names: list[str]


@dataclass(frozen=True)
class FileCounts:
    """What became of the lines of one file; blank lines are counted apart from the other quarantined ones."""

    records: int
    blank: int
    quarantined: int
    duplicates: int


@dataclass(frozen=True)
class ColumnTotal:
    """Sum of an integer column over all records of a delivery, and how many of them could not be read there."""

    total: int
    unreadable: int


class ParsedBatch:
    """The parsed records of one batch, as temporary tables of one connection."""

    def __init__(self, connection: duckdb.DuckDBPyConnection, contract: Contract) -> None:
        self._connection = connection
        self._contract = contract

    def parse(self, inputs: list[ParserInput]) -> None:
        """Parse the files into the table `parsed`; files with another header are read by another statement."""
        columns = ", ".join(f"{column.name} {column.sql_type}" for column in self._contract.columns)
        self._connection.execute(
            f"create or replace temp table parsed (delivery_no integer, file_no integer, line_no bigint, {columns}, "
            "failed_column varchar, reason_code varchar, found varchar, raw varchar)"
        )
        for header, group in _by_header(inputs).items():
            self._parse_layout(header, group)
        if self._contract.drops_equal_rows:
            self._mark_duplicates()

    def _parse_layout(self, header: tuple[str, ...], inputs: list[ParserInput]) -> None:
        paths, first_positions, position = [], [], 1
        for item in inputs:
            paths.append(str(item.spooled.path))
            first_positions.append(position)
            position += item.spooled.lines
        self._connection.execute(
            "create or replace temp table spooled as select unnest($paths) as path, unnest($delivery_nos)::integer "
            "as delivery_no, unnest($file_nos)::integer as file_no, unnest($first_positions)::bigint as "
            "first_position, unnest($earliest)::timestamp as earliest, unnest($latest)::timestamp as latest, "
            "unnest($opaque)::boolean as is_opaque",
            {
                "paths": paths,
                "delivery_nos": [item.delivery_no for item in inputs],
                "file_nos": [item.file_no for item in inputs],
                "first_positions": first_positions,
                "earliest": [_midnight(item.business_date, -item.max_lateness_days) for item in inputs],
                "latest": [_midnight(item.business_date, 1) for item in inputs],
                "opaque": [item.is_opaque for item in inputs],
            },
        )
        has_quotes = any(item.spooled.has_quotes for item in inputs)
        split_records = SPLIT_QUOTED_LINES if has_quotes else SPLIT_PLAIN_LINES
        typed = typed_records(self._contract, header)
        self._connection.execute(
            f"insert into parsed with {LINES}, {split_records}, {JUDGED_RECORDS}, {typed}",
            {"paths": paths, "width": len(header), "broken": BROKEN_BYTE_MARK, "long": LONG_LINE_MARK}
            | (QUOTE_PARAMETERS if has_quotes else {}),
        )

    def _mark_duplicates(self) -> None:
        """Keep the first of equal records of a delivery; candidates are found by hash, then compared in full."""
        names = ", ".join(column.name for column in self._contract.columns)
        self._connection.execute(
            f"""
            create or replace temp table duplicates as
            with suspects as (
                select delivery_no, hash({names}) as record_hash
                from parsed where reason_code is null
                group by all having count(*) > 1
            ),
            ranked as (
                select
                    parsed.rowid as parsed_row,
                    row_number() over (partition by delivery_no, {names} order by file_no, line_no) as place
                from parsed
                where reason_code is null and (delivery_no, hash({names})) in (from suspects)
            )
            select parsed_row from ranked where place > 1
            """  # noqa: S608  names come from the contract
        )
        self._connection.execute(
            "update parsed set reason_code = 'duplicate' where rowid in (select parsed_row from duplicates)"
        )

    def counts(self) -> dict[int, FileCounts]:
        """Return the counts per file number; a file without any line is not in it."""
        rows = self._connection.execute(
            """
            select
                file_no,
                count(*),
                count(*) filter (where reason_code = 'blank_line'),
                count(*) filter (where reason_code not in ('blank_line', 'duplicate')),
                count(*) filter (where reason_code = 'duplicate')
            from parsed group by file_no
            """
        ).fetchall()
        return {row[0]: FileCounts(*row[1:]) for row in rows}

    def drop_blank_lines(self, file_nos: list[int]) -> None:
        """Forget the blank lines of files whose manifest does not count them as records."""
        self._connection.execute(
            "delete from parsed where reason_code = 'blank_line' and file_no in (select unnest($file_nos))",
            {"file_nos": file_nos},
        )

    def totals(self, column: str) -> dict[int, ColumnTotal]:
        """Return per delivery number the sum of an integer column over all its records, duplicates included.

        A quarantined record adds its number if that can be read.
        """
        if column not in self._contract.integer_columns:
            raise KeyError(column)
        rows = self._connection.execute(
            f"""
            select
                delivery_no,
                coalesce(sum({column}::hugeint), 0)::varchar,
                count(*) filter (where {column} is null and reason_code <> 'duplicate')
            from parsed group by delivery_no
            """  # noqa: S608  the column was checked
        ).fetchall()
        return {row[0]: ColumnTotal(int(row[1]), row[2]) for row in rows}

    def content_digests(self) -> dict[int, str]:
        """Return per delivery number a digest of its loaded records that does not depend on their order."""
        names = ", ".join(column.name for column in self._contract.columns)
        rows = self._connection.execute(
            f"""
            with digests as (
                select delivery_no, md5_number(to_json(row({names}))::varchar) as digest
                from parsed where reason_code is null
            )
            select delivery_no, count(*), bit_xor(digest), sum((digest % 9223372036854775807)::hugeint)
            from digests group by delivery_no
            """  # noqa: S608  names come from the contract
        ).fetchall()
        return {row[0]: "-".join(str(part) for part in row[1:]) for row in rows}

    def write_records(self, delivery_no: int, key: DeliveryKey, files: FileNames, target: Path) -> None:
        """Write the loaded records of a delivery as Parquet, in the order of their lines."""
        names = ", ".join(column.name for column in self._contract.columns)
        self._connection.execute(
            f"""
            copy (
                select
                    {names},
                    $business_date::date as business_date,
                    $source::varchar as source,
                    $delivery::integer as delivery,
                    $file_names[file_no - $first_file_no + 1]::varchar as file_name,
                    line_no
                from parsed
                where delivery_no = $delivery_no and reason_code is null
                order by file_no, line_no
            ) to $target (format parquet, compression zstd)
            """,  # noqa: S608  names come from the contract
            {
                "business_date": key.business_date,
                "source": key.source,
                "delivery": key.delivery,
                "delivery_no": delivery_no,
                "first_file_no": files.first_file_no,
                "file_names": files.names,
                "target": str(target),
            },
        )

    def write_quarantine(self, delivery_no: int, files: FileNames, target: Path) -> None:
        """Write the quarantined records of a delivery as CSV: where, why, what was found, the raw text."""
        self._connection.execute(
            """
            copy (
                select
                    $file_names[file_no - $first_file_no + 1]::varchar as "file",
                    line_no as line,
                    failed_column as "column",
                    reason_code,
                    found,
                    raw
                from parsed
                where delivery_no = $delivery_no and reason_code <> 'duplicate'
                order by file_no, line_no
            ) to $target (format csv, header)
            """,
            {
                "delivery_no": delivery_no,
                "first_file_no": files.first_file_no,
                "file_names": files.names,
                "target": str(target),
            },
        )

    def drop(self) -> None:
        """Free the temporary tables."""
        for table in ("parsed", "spooled", "duplicates"):
            self._connection.execute(f"drop table if exists {table}")


def write_empty_lake_file(connection: duckdb.DuckDBPyConnection, contract: Contract, target: Path) -> None:
    """Write a Parquet file of no rows with the columns of the extract's lake files."""
    columns = {column.name: column.sql_type for column in contract.columns} | ORIGIN_COLUMNS
    nulls = ", ".join(f"null::{sql_type} as {name}" for name, sql_type in columns.items())
    connection.execute(
        f"copy (select {nulls} where false) to $target (format parquet, compression zstd)",
        {"target": str(target)},
    )


def _by_header(inputs: Iterable[ParserInput]) -> dict[tuple[str, ...], list[ParserInput]]:
    groups: dict[tuple[str, ...], list[ParserInput]] = {}
    for item in inputs:
        groups.setdefault(item.spooled.header, []).append(item)
    return groups


def _midnight(day: date, days_later: int) -> datetime:
    try:
        return datetime(day.year, day.month, day.day) + timedelta(days=days_later)
    except OverflowError:  # at the ends of the calendar every moment is near enough
        return datetime.min if days_later < 0 else datetime.max
