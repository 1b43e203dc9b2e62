"""Bring the records of a foreign text file into DuckDB, each with its line number and its raw text.

Python only turns bytes into clean UTF-8, block by block (DuckDB reads no GBK); splitting into records and fields
is SQL. A record that cannot be split keeps its place with a problem code, so that nothing is lost.

Another file format is another function beside `read_csv_records` that creates the same table.
"""

# ruff: noqa: S608 - every identifier is numbered, a checked name or of the contract; every text is bound

import csv
import gzip
import hashlib
import re
from pathlib import Path

import duckdb

from cleanbill.errors import InputFileError
from cleanbill.source_mapping import ForeignFile

BLOCK = 1 << 20
CODECS = {"utf-8": "utf-8-sig", "gbk": "gbk", "gb18030": "gb18030"}
UNREADABLE = "�"
# Characters no text record holds; DuckDB would split or cut the line at some of them.
CONTROL_CHARACTERS = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file's bytes in hex."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def decode_to_utf8(path: Path, encoding: str, target: Path) -> bool:
    """Write the text of `path` (gzip if it ends so) to `target` as UTF-8 with plain line ends; tell if it has quotes.

    Bytes that are not of the encoding, and control characters, become U+FFFD: the record that holds one is
    quarantined as `invalid_bytes` later.

    Raises:
        InputFileError: the file cannot be read, or its gzip stream is cut.
    """
    opener = gzip.open if path.suffix == ".gz" else open
    has_quotes = False
    try:
        with (
            opener(path, "rt", encoding=CODECS[encoding], errors="replace", newline=None) as text,
            target.open("w", encoding="utf-8", newline="") as clean,
        ):
            while block := text.read(BLOCK):
                has_quotes = has_quotes or '"' in block
                clean.write(CONTROL_CHARACTERS.sub(UNREADABLE, block))
    except (OSError, EOFError) as error:
        raise InputFileError(
            where=str(path),
            expected="a readable file",
            found=type(error).__name__ + (f" ({error.strerror})" if getattr(error, "strerror", None) else ""),
            advice="check the file and its permissions; a cut .gz has to be sent again",
        ) from error
    return has_quotes


def column_positions(path: Path, clean: Path, file: ForeignFile) -> tuple[dict[str, int], int, list[str]]:
    """Return where each mapped column stands (from 1), how many fields a record has, and the unmapped columns.

    Raises:
        InputFileError: a mapped column is not in the header, or is there twice.
    """
    if not file.header:
        return {name: number for number, name in enumerate(file.columns, 1)}, len(file.columns), []
    with clean.open(encoding="utf-8", newline="") as text:
        header = next(csv.reader([text.readline(BLOCK).rstrip("\n")], delimiter=file.delimiter), [])
    header = [name.strip() for name in header]
    wrong = [name for name in file.columns if header.count(name) != 1]
    if wrong:
        raise InputFileError(
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
            select line_no, 1 as swallowed, coalesce(line, '') as raw_text
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
                string_agg(line, chr(10) order by line_no) as raw_text
            from numbered
            group by record_no
        )
"""


def read_csv_records(
    connection: duckdb.DuckDBPyConnection, table: str, path: Path, clean: Path, file: ForeignFile, has_quotes: bool
) -> list[str]:
    """Create `table` (line_no, lines, raw_text, problem, c1 … cn); return the unmapped columns of the file.

    c1 … cn follow `file.columns` and are text, null if empty. line_no is the line where the record begins. Blank
    lines are no records. A quoted field may hold delimiters, doubled quotes and line ends (RFC 4180); a quote that
    stands wrong can swallow lines, so a record with `bad_quotes` counts as `lines` rows, any other as one.

    Raises:
        InputFileError: the header is wrong, or the file is no text that can be split into lines.
    """
    positions, width, unmapped = column_positions(path, clean, file)
    parameters = {
        "path": str(clean),
        "first_line": 2 if file.header else 1,
        "delimiter": file.delimiter,
        # One field at a time, quoted or not, each ended by a delimiter.
        "field": rf'("(?:[^"]|"")*"|[^"{re.escape(file.delimiter)}]*){re.escape(file.delimiter)}',
        "width": width,
        "unreadable": UNREADABLE,
    }
    fields = ", ".join(f"fields[{positions[name]}] as f{number}" for number, name in enumerate(file.columns, 1))
    clean_fields = ", ".join(
        f"""nullif(case when f{number} like '"%' then replace(f{number}[2:-2], '""', '"') else f{number} end, '')
            as c{number}"""
        for number in range(1, len(file.columns) + 1)
    )
    statement = f"""
        create table {table} as
        with lines as (
            select row_number() over () as line_no, line
            from read_csv(
                $path, columns = {{'line': 'VARCHAR'}}, header = false, auto_detect = false, delim = '\x01',
                quote = '', escape = '', null_padding = false, strict_mode = false
            )
        ),

{LINES_JOINED_TO_RECORDS if has_quotes else LINES_AS_RECORDS},

        split as (
            select
                line_no,
                swallowed,
                raw_text,
                case
                    when contains(raw_text, '"') then regexp_extract_all(raw_text || $delimiter, $field, 1)
                    else string_split(raw_text, $delimiter)
                end as fields
            from records
            where line_no >= $first_line and raw_text <> ''
        ),

        judged as (
            select
                *,
                case
                    when contains(raw_text, $unreadable) then 'invalid_bytes'
                    when contains(raw_text, '"') and array_to_string(fields, $delimiter) <> raw_text then 'bad_quotes'
                    when len(fields) <> $width then 'wrong_field_count'
                end as problem
            from split
        ),

        named as (
            select line_no, if(problem = 'bad_quotes', swallowed, 1) as lines, raw_text, problem, {fields}
            from judged
        )

        select line_no, lines, raw_text, problem, {clean_fields}
        from named
        order by line_no
    """
    try:
        connection.execute(statement, parameters)
    except duckdb.Error as error:
        raise InputFileError(
            where=str(path),
            expected="lines of text of at most 2 MB",
            found=f"{type(error).__name__} while splitting it",
            advice="check that the file is the text file the mapping describes",
        ) from error
    return unmapped
