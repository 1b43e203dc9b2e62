"""Bring the records of a foreign file into DuckDB, each with its line number and its raw text.

Python turns bytes into clean UTF-8 lines (DuckDB reads no GBK and counts no bytes); splitting into records and
fields is SQL. A record that cannot be split keeps its place with a problem code, so that nothing is lost.
"""

# ruff: noqa: S608 - every identifier is numbered, a checked name or of the contract; every text is bound

import csv
from pathlib import Path

import duckdb

from cleanbill.errors import LandingRefused
from cleanbill.fixed_width import read_rows
from cleanbill.foreign_text import BLOCK, FIELD_END, UNREADABLE, decode_to_utf8, open_foreign
from cleanbill.source_mapping import ForeignFile

LINES = """
        lines as (
            select row_number() over () as line_no, line
            from read_csv(
                $path, columns = {'line': 'VARCHAR'}, header = false, auto_detect = false, delim = '\x01',
                quote = '', escape = '', null_padding = false, strict_mode = false
            )
        )
"""


def read_records(
    connection: duckdb.DuckDBPyConnection, table: str, path: Path, file: ForeignFile, clean: Path
) -> list[str]:
    """Create `table` (line_no, lines, raw_text, problem, c1 … cn) of a foreign file; return its unmapped columns.

    c1 … cn follow `file.columns` and are text, null if empty. line_no is the line where the record begins; `lines`
    how many rows of the file the record counts for.

    Args:
        connection: the database of the landing.
        table: name of the new table.
        path: the foreign file.
        file: how it is to be read.
        clean: a file to write the clean lines to; it is removed.

    Raises:
        LandingRefused: the file cannot be read, its header is wrong, or it is no text.
    """
    try:
        if file.layout is not None:
            return _read_fixed_records(connection, table, path, file, clean)
        has_quotes = decode_to_utf8(path, file.encoding, file.delimiter, clean)
        return _read_csv_records(connection, table, path, clean, file, has_quotes and file.quoting == "standard")
    except duckdb.InvalidInputException as error:
        raise LandingRefused(
            "not_text",
            str(path),
            "lines of text of at most 2 MB",
            f"{type(error).__name__} while splitting it",
            "check that the file is the text file the mapping describes",
        ) from error
    finally:
        clean.unlink(missing_ok=True)


def _read_fixed_records(
    connection: duckdb.DuckDBPyConnection, table: str, path: Path, file: ForeignFile, clean: Path
) -> list[str]:
    """Python cuts the bytes, DuckDB takes the fields: problem, columns, raw text."""
    with open_foreign(path) as stream, clean.open("w", encoding="utf-8", newline="") as lines:
        for row in read_rows(stream, file.layout, file.encoding):
            columns = row.columns or [""] * len(file.columns)
            lines.write(FIELD_END.join([row.problem or "", *columns, row.raw_text]) + "\n")
    columns = ", ".join(f"nullif(fields[{number + 1}], '') as c{number}" for number in range(1, len(file.columns) + 1))
    connection.execute(
        f"""
        create table {table} as
        with {LINES},

        split as (select line_no, string_split(line, $field_end) as fields from lines)

        select line_no, 1 as lines, fields[-1] as raw_text, nullif(fields[1], '') as problem, {columns}
        from split
        order by line_no
        """,
        {"path": str(clean), "field_end": FIELD_END},
    )
    return []


def column_positions(path: Path, clean: Path, file: ForeignFile) -> tuple[dict[str, int], int, list[str]]:
    """Return where each mapped column stands (from 1), how many fields a record has, and the unmapped columns.

    Raises:
        InputFileError: a mapped column is not in the header, or is there twice.
    """
    if not file.header:
        return {name: number for number, name in enumerate(file.columns, 1)}, len(file.columns), []
    with clean.open(encoding="utf-8", newline="") as text:
        line = text.readline(BLOCK).rstrip("\n")
    quoting = csv.QUOTE_NONE if file.quoting == "none" else csv.QUOTE_MINIMAL
    try:
        header = next(csv.reader([line], delimiter=FIELD_END, quoting=quoting), [])
    except csv.Error:
        header = []  # a field beyond all bounds: no header
    header = [name.strip() for name in header]
    wrong = [name for name in file.columns if header.count(name) != 1]
    if wrong:
        raise LandingRefused(
            "bad_header",
            where=f"{path}, line 1",
            expected=f"a header with each of {', '.join(file.columns)} once",
            found=f"{', '.join(f'{name} {header.count(name)} times' for name in wrong)}",
            advice="check the delimiter and the column names in the mapping against the file",
        )
    positions = {name: header.index(name) + 1 for name in file.columns}
    return positions, len(header), [name for name in header if name not in positions]


# A line is a record of its own where there are no quotes.
LINES_AS_RECORDS = """
        records as (
            select line_no, 1 as swallowed, coalesce(line, '') as line
            from lines
        )
"""
# A line continues the record before it while a quote is open.
LINES_JOINED_TO_RECORDS = """
        counted as (
            select line_no, coalesce(line, '') as line, length(line) - length(replace(line, '"', '')) as quotes
            from lines
        ),

        continued as (
            select *, (coalesce(sum(quotes) over (order by line_no), 0) - coalesce(quotes, 0)) % 2 = 1 as inside_quotes
            from counted
        ),

        numbered as (
            select *, sum(if(inside_quotes, 0, 1)) over (order by line_no) as record_no
            from continued
        ),

        records as (
            select
                min(line_no) as line_no,
                count(*) as swallowed,
                string_agg(line, chr(10) order by line_no) as line
            from numbered
            group by record_no
        )
"""


def _read_csv_records(
    connection: duckdb.DuckDBPyConnection, table: str, path: Path, clean: Path, file: ForeignFile, has_quotes: bool
) -> list[str]:
    """Split clean lines into records and fields.

    Blank lines are no records. A quoted field may hold delimiters, doubled quotes and line ends (RFC 4180); a quote
    that stands wrong can swallow lines, so a record with `bad_quotes` counts as `lines` rows, any other as one.
    """
    positions, width, unmapped = column_positions(path, clean, file)
    parameters = {
        "path": str(clean),
        "first_line": 2 if file.header else 1,
        "field_end": FIELD_END,
        "delimiter": file.delimiter,
        "width": width,
        "unreadable": UNREADABLE,
    }
    if has_quotes:
        # One field at a time, quoted or not, each ended by a delimiter.
        parameters["field"] = rf'("(?:[^"]|"")*"|[^"{FIELD_END}]*){FIELD_END}'
    fields = ", ".join(f"fields[{positions[name]}] as f{number}" for number, name in enumerate(file.columns, 1))
    clean_fields = ", ".join(
        f"nullif({_unquoted(f'f{number}') if has_quotes else f'f{number}'}, '') as c{number}"
        for number in range(1, len(file.columns) + 1)
    )
    if has_quotes:
        is_quoted = """contains(line, '"')"""
        quoted = "regexp_extract_all(line || $field_end, $field, 1)"
        split = f"case when {is_quoted} then {quoted} else string_split(line, $field_end) end"
        is_badly_quoted = f"{is_quoted} and array_to_string(fields, $field_end) <> line"
    else:
        split, is_badly_quoted = "string_split(line, $field_end)", "false"
    statement = f"""
        create table {table} as
        with {LINES},

{LINES_JOINED_TO_RECORDS if has_quotes else LINES_AS_RECORDS},

        split as (
            select line_no, swallowed, line, {split} as fields
            from records
            where line_no >= $first_line and line <> ''
        ),

        judged as (
            select
                *,
                case
                    when contains(line, $unreadable) then 'invalid_bytes'
                    when {is_badly_quoted} then 'bad_quotes'
                    when len(fields) <> $width then 'wrong_field_count'
                end as problem
            from split
        ),

        named as (
            select line_no, if(problem = 'bad_quotes', swallowed, 1) as lines, line, problem, {fields}
            from judged
        )

        select line_no, lines, replace(line, $field_end, $delimiter) as raw_text, problem, {clean_fields}
        from named
        order by line_no
    """
    connection.execute(statement, parameters)
    return unmapped


def _unquoted(field: str) -> str:
    """Return the SQL of what stands in a field: without its quotes, and with the delimiters they protect."""
    inside = f"""replace(replace({field}[2:-2], '""', '"'), $field_end, $delimiter)"""
    return f"""case when {field} like '"%' then {inside} else {field} end"""
