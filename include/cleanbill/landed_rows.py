"""From the rows of foreign files to the records of an extract: judged, counted, placed on days (all in SQL).

Each row ends in at least one record, is skipped because no record wants it, repeats a row before it, is refused
with a reason, or belongs to none of the asked days; each of these is counted by a query of its own.
"""

# ruff: noqa: S608 - every identifier is numbered, a checked name or of the contract; every text is bound

import os
from pathlib import Path

import duckdb

from cleanbill.contract import CONTRACTS
from cleanbill.errors import LandingRefused
from cleanbill.land_summary import FileCount, LandSummary, OddityCount, QuarantineCount
from cleanbill.landing_origins import REFUSED_SUFFIX
from cleanbill.mapping_sql import Statement, file_terms, test_of
from cleanbill.source_mapping import Record, SourceMapping

FULL_FILE_KEYS = {"service_catalogue": ("sp_code", "service_code", "valid_from"), "service_providers": ("sp_code",)}


def judge_rows(
    connection: duckdb.DuckDBPyConnection, mapping: SourceMapping, name: str, file_name: str, summary: LandSummary
) -> list[QuarantineCount]:
    """Make bad_<file> of the rows that cannot become their records.

    Columns: line_no, lines, reason, contract_column, extract, day (the last two null where they are not known). A row
    of a day nobody asked for is not judged.
    """
    parameters: dict[str, object] = {}
    judgements = [
        "select line_no, lines, problem as reason, '' as contract_column, null as extract, null::date as day, "
        f"0 as rank from row_{name} where problem is not null and problem <> 'duplicate'"
    ]
    for number, record in enumerate(mapping.records):
        if record.source_file != name:
            continue
        parameters |= {f"extract{number}": record.extract, "first_day": summary.first_day, "last_day": summary.last_day}
        judgements.append(
            f"select line_no, 1, split_part(error, ' ', 1), split_part(error, ' ', 2), $extract{number}, day, "
            f"{number + 1} from record_{number} "
            "where error is not null and (day is null or day between $first_day and $last_day)"
        )
        if mapping.period is not None and record.day != "first":
            parameters |= {"first": mapping.period.first, "last": mapping.period.last}
            judgements.append(
                f"select line_no, 1, 'outside_period', 'business_date', $extract{number}, day, {number + 1} "
                f"from record_{number} where day not between $first and $last"
            )
    connection.execute(
        f"""
        create table bad_{name} as
        select line_no, lines, reason, contract_column, extract, day
        from ({" union all ".join(judgements)})
        qualify row_number() over (partition by line_no order by rank) = 1
        """,
        parameters,
    )
    counted = connection.execute(
        f"""
        select reason, contract_column, sum(lines)::bigint, min(line_no)
        from bad_{name} group by all order by 3 desc, 1, 2
        """
    ).fetchall()
    return [QuarantineCount(file_name, *row) for row in counted]


def count_file(
    connection: duckdb.DuckDBPyConnection, mapping: SourceMapping, name: str, file_name: str, summary: LandSummary
) -> FileCount:
    """Count where each row of a file went, each way by a query of its own, and hold them against each other.

    Raises:
        LandingRefused: the counts do not add up (a defect of this program: nothing is written).
    """
    of_file = [number for number, record in enumerate(mapping.records) if record.source_file == name]
    wanted = " union all ".join(f"select line_no, day from record_{number}" for number in of_file) or (
        "select null::bigint as line_no, null::date as day where false"
    )
    rows, duplicates = connection.execute(
        f"select coalesce(sum(lines), 0)::bigint, count(*) filter (where problem = 'duplicate') from row_{name}"
    ).fetchone()
    (quarantined,) = connection.execute(f"select coalesce(sum(lines), 0)::bigint from bad_{name}").fetchone()
    placed, left_out = connection.execute(
        f"""
        select count(*) filter (where is_placed), count(*) filter (where not is_placed)
        from (
            select line_no, bool_or(day is null or day between $first and $last) as is_placed
            from ({wanted})
            where line_no not in (select line_no from bad_{name})
            group by line_no
        )
        """,
        {"first": summary.first_day, "last": summary.last_day},
    ).fetchone()
    (skipped,) = connection.execute(
        f"""
        select count(*) from row_{name}
        where
            problem is null
            and line_no not in (select line_no from ({wanted}))
            and line_no not in (select line_no from bad_{name})
        """
    ).fetchone()
    if rows != placed + skipped + duplicates + quarantined + left_out:
        raise LandingRefused(
            "counts_differ",
            where=file_name,
            expected=f"{rows} rows = placed + skipped + duplicates + quarantined + left out",
            found=f"{placed} + {skipped} + {duplicates} + {quarantined} + {left_out}",
            advice="this is a defect of cleanbill land: report it with the mapping; nothing was written",
        )
    return FileCount(file_name, rows, placed, skipped, duplicates, quarantined, left_out)


def check_limit(mapping: SourceMapping, summary: LandSummary) -> None:
    """Refuse to land a file most of whose rows would be left behind: the mapping or the file is wrong."""
    for file in summary.files:
        if file.quarantined * 100 > mapping.quarantine_limit_percent * file.rows:
            reasons = "; ".join(
                " ".join(filter(None, (f"{count.rows} {count.reason}", count.column, f"(first in line {count.line})")))
                for count in summary.quarantine
                if count.file == file.file
            )
            raise LandingRefused(
                "over_limit",
                where=file.file,
                expected=f"at most {mapping.quarantine_limit_percent} % of {file.rows} rows to be refused "
                f"(quarantine_limit_percent of {mapping.path.name})",
                found=f"{file.quarantined}: {reasons}",
                advice="complete the mapping (codes, formats), or have the file sent again; nothing was written",
            )


def count_oddities(
    connection: duckdb.DuckDBPyConnection, mapping: SourceMapping, file_names: dict[str, str]
) -> list[OddityCount]:
    """Count what is odd but not refused."""
    counts = []
    for oddity in mapping.oddities:
        statement = Statement()
        terms = file_terms(mapping, oddity.source_file)
        tests = " and ".join(test_of(statement, condition, terms).text for condition in oddity.when)
        statement.sql = f"""
            select count(*) filter (where {tests}), count(*)
            from row_{oddity.source_file}
            where problem is null
        """
        odd, rows = connection.execute(statement.sql, statement.parameters).fetchone()
        counts.append(OddityCount(oddity.what, file_names[oddity.source_file], odd, rows))
    return counts


def header(mapping: SourceMapping, extract: str) -> list[str]:
    """Return the columns of the extract's files: the contract's, without an optional one nobody fills."""
    records = [record for record in mapping.records if record.extract == extract]
    used = {name for record in records for names in [record.columns, *(record.rows or [])] for name in names}
    return [column.name for column in CONTRACTS[extract].columns if not column.may_be_absent or column.name in used]


def collect_records(
    connection: duckdb.DuckDBPyConnection, mapping: SourceMapping, extract: str, summary: LandSummary
) -> int:
    """Make out_<extract> (day, position, contract columns) of all its records; return how many rows were added up."""
    columns = [column.name for column in CONTRACTS[extract].columns]
    file_order = list(mapping.files)
    parts, added_up = [], 0
    for number, record in enumerate(mapping.records):
        if record.extract != extract:
            continue
        if record.rows is not None:
            _place_constant_rows(connection, number, record, columns, summary)
            file_no = -1
        else:
            rows = _place_rows(connection, number, record, columns, summary)
            file_no = file_order.index(str(record.source_file))
            if record.add_up is not None:
                (groups,) = connection.execute(f"select count(*) from placed_{number}").fetchone()
                added_up += rows - groups
        parts.append(f"select *, {file_no} as file_no, {number} as record_no from placed_{number}")
    connection.execute(
        f"""
        create table out_{extract} as
        select
            day,
            row_number() over (order by day, file_no, line_no, record_no) as position,
            {", ".join(header(mapping, extract))}
        from ({" union all ".join(parts)})
        order by position
        """
    )
    _check_full_file(connection, mapping, extract)
    return added_up


def _place_constant_rows(
    connection: duckdb.DuckDBPyConnection, number: int, record: Record, columns: list[str], summary: LandSummary
) -> None:
    """Make placed_<number> of the rows the mapping itself holds; they are delivered on the first day."""
    statement = Statement()
    first = statement.bind(summary.first_day)
    rows = [
        ", ".join(
            [f"{first}::date", str(line), *(f"{statement.bind(row.get(name) or None)}::varchar" for name in columns)]
        )
        for line, row in enumerate(record.rows or [])
    ]
    statement.sql = f"""
        create table placed_{number} as
        select * from (values {", ".join(f"({row})" for row in rows)}) as rows (day, line_no, {", ".join(columns)})
    """
    connection.execute(statement.sql, statement.parameters)


def _place_rows(
    connection: duckdb.DuckDBPyConnection, number: int, record: Record, columns: list[str], summary: LandSummary
) -> int:
    """Make placed_<number> (day, line_no, contract columns) of one kind of record; return the rows it is made of."""
    values = {name: f"v{position}" for position, name in enumerate(columns, 1)}
    group = ""
    line_no = "line_no"
    if record.add_up is not None:
        grouped = [value for name, value in values.items() if name != record.add_up]
        values[record.add_up] = f"sum({values[record.add_up]}::bigint)::varchar"
        line_no, group = "min(line_no)", f"group by placed_day, {', '.join(grouped)}"
    elif record.distinct:
        line_no, group = "min(line_no)", f"group by placed_day, {', '.join(values.values())}"
    selected = f"""
        select * replace (coalesce(day, $first) as day), coalesce(day, $first) as placed_day
        from record_{number} anti join bad_{record.source_file} using (line_no)
        where day is null or day between $first and $last
    """
    days = {"first": summary.first_day, "last": summary.last_day}
    named_values = ", ".join(f"{value} as {name}" for name, value in values.items())
    connection.execute(
        f"""
        create table placed_{number} as
        select placed_day as day, {line_no} as line_no, {named_values}
        from ({selected})
        {group}
        """,
        days,
    )
    return connection.execute(f"select count(*) from ({selected})", days).fetchone()[0]


def _check_full_file(connection: duckdb.DuckDBPyConnection, mapping: SourceMapping, extract: str) -> None:
    """A full file says one thing about each service or provider; rows that contradict each other are refused."""
    if extract not in FULL_FILE_KEYS:
        return
    keys = ", ".join(FULL_FILE_KEYS[extract])
    row = connection.execute(
        f"select {keys}, count(*) from out_{extract} group by {keys} having count(*) > 1 order by all limit 1"
    ).fetchone()
    if row is not None:
        raise LandingRefused(
            "contradicting_rows",
            where=f"{mapping.path}, records of {extract}",
            expected=f"one row for each {keys}",
            found=f"{row[-1]} different rows for {', '.join(str(value) for value in row[:-1])}",
            advice="let the code tell apart what has different names or fees; nothing was written",
        )


def write_refused(connection: duckdb.DuckDBPyConnection, folder: Path, file_names: dict[str, str]) -> None:
    """Write the refused rows of each file: where, why, of what, and the raw text."""
    for name, file_name in file_names.items():
        target = folder / f"{file_name}{REFUSED_SUFFIX}"
        (rows,) = connection.execute(f"select count(*) from bad_{name}").fetchone()
        if rows == 0:
            target.unlink(missing_ok=True)
            continue
        folder.mkdir(parents=True, exist_ok=True)
        staged = folder / f".{target.name}"
        path = str(staged).replace("'", "''")
        connection.execute(
            f"copy (select $file as file, line_no, reason, contract_column, extract, day as business_date, raw_text "
            f"from bad_{name} join row_{name} using (line_no) order by line_no) to '{path}' (format csv, header)",
            {"file": file_name},
        )
        os.replace(staged, target)  # noqa: PTH105 (the rename that makes it visible)
