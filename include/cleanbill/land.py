"""Bring foreign files in: apply a source mapping and write deliveries the ingest can verify.

The originals are only read. Rows are transformed by SQL made from the mapping; each row of a foreign file ends in
at least one record, is skipped because no record wants it, repeats a row before it, or goes to
`quarantine/land/<source>/` with line, reason and raw text. Every day the source covers gets a delivery, also with
zero rows, so that a quiet day is not a missing one. Landing the same files again changes nothing.
"""

# ruff: noqa: S608 - every identifier is numbered, a checked name or of the contract; every text is bound

import fcntl
import json
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import date, timedelta
from pathlib import Path

import duckdb

from cleanbill.contract import CONTRACTS, SCHEMA_VERSION
from cleanbill.errors import InputFileError
from cleanbill.expected_extracts import ExpectedPair, expect_also
from cleanbill.foreign_files import decode_to_utf8, read_csv_records, sha256_of
from cleanbill.manifest import MANIFEST_SUFFIX, DeliveryKey, key_of_name
from cleanbill.mapping_sql import Statement, file_terms, record_statement, row_statement, test_of
from cleanbill.settings import Settings, get_settings
from cleanbill.source_mapping import Record, SourceMapping, load_mapping

MADE_BY = "cleanbill land"
# A guard against one wild date that would open thousands of empty days; a longer history names its `period`.
LONGEST_GUESSED_PERIOD = 3660
FULL_FILE_KEYS = {"service_catalogue": ("sp_code", "service_code", "valid_from"), "service_providers": ("sp_code",)}


@dataclass(frozen=True)
class FileCount:
    """Where the rows of one foreign file went: rows = placed + skipped + duplicates + quarantined."""

    file: str
    sha256: str
    rows: int
    placed: int
    skipped: int
    duplicates: int
    quarantined: int
    unmapped_columns: list[str]


@dataclass(frozen=True)
class ExtractCount:
    """What one extract received: records over days, and how many of its deliveries are new."""

    extract: str
    records: int
    added_up: int
    days: int
    days_without_rows: int
    written: int
    unchanged: int


@dataclass(frozen=True)
class QuarantineCount:
    """Rows of one file with one reason; `column` is the contract column that could not be made."""

    file: str
    reason: str
    column: str
    rows: int


@dataclass(frozen=True)
class OddityCount:
    """Rows of one file that are odd but not refused."""

    what: str
    file: str
    rows: int
    of: int


@dataclass
class LandSummary:
    """What a landing did and what is odd about what it landed."""

    source: str
    mapping: str
    first_day: date
    last_day: date
    files: list[FileCount] = field(default_factory=list)
    extracts: list[ExtractCount] = field(default_factory=list)
    quarantine: list[QuarantineCount] = field(default_factory=list)
    oddities: list[OddityCount] = field(default_factory=list)
    expected_extracts_changed: bool = False

    @property
    def deliveries_written(self) -> int:
        return sum(count.written for count in self.extracts)

    def render(self) -> str:
        """Return the summary as text for a terminal."""
        lines = [f"source {self.source}, days {self.first_day} to {self.last_day} (mapping {self.mapping})", ""]
        lines.append("rows of each file: in = placed + skipped + duplicates + quarantined")
        for file in self.files:
            lines.append(
                f"  {file.file}: {file.rows:,} = {file.placed:,} + {file.skipped:,} + {file.duplicates:,} "
                f"+ {file.quarantined:,}"
            )
            if file.unmapped_columns:
                lines.append(f"    columns not used: {', '.join(file.unmapped_columns)}")
        lines += ["", "deliveries"]
        for extract in self.extracts:
            added_up = f", {extract.added_up:,} rows added to the count of another" if extract.added_up else ""
            lines.append(
                f"  {extract.extract}: {extract.records:,} records on {extract.days:,} days "
                f"({extract.days_without_rows:,} without rows{added_up}); "
                f"{extract.written:,} written, {extract.unchanged:,} unchanged"
            )
        if self.quarantine:
            lines += ["", f"in quarantine (quarantine/land/{self.source}/)"]
            lines += [f"  {count.file}: {count.rows:,} rows {count.reason} {count.column}" for count in self.quarantine]
        found = [odd for odd in self.oddities if odd.rows]
        if found:
            lines += ["", "odd, but not refused"]
            lines += [f"  {odd.file}: {odd.rows:,} of {odd.of:,} rows: {odd.what}" for odd in found]
        if len(found) < len(self.oddities):
            lines += ["", "looked for and not found"]
            lines += [f"  {odd.file}: {odd.what}" for odd in self.oddities if not odd.rows]
        return "\n".join(lines)


@dataclass(frozen=True)
class _Landed:
    """The data file of a delivery that is already in landing/."""

    key: DeliveryKey
    path: Path
    sha256: str


@dataclass(frozen=True)
class _Delivery:
    """A delivery that is to appear: the staged data file, and what it replaces."""

    key: DeliveryKey
    staged: Path
    rows: int
    replaced: _Landed | None


def land(
    mapping: str | Path,
    files: str | Path | Iterable[str | Path],
    settings: Settings | None = None,
    date_from: date | None = None,
    date_to: date | None = None,
    replace: bool = False,
) -> LandSummary:
    """Bring the files of one foreign source into landing/ as verified deliveries.

    Args:
        mapping: path of a mapping, or the name of a built-in one.
        files: a folder that holds the files the mapping names, or the files themselves.
        settings: which data root; the environment's by default.
        date_from, date_to: land only these business dates, and treat days without rows between them as quiet.
        replace: let a new delivery of a day leave out records of the delivery before it. Without it such a
            landing is refused, because the end of one monthly file often holds a few rows of the next month's
            first day, and they would replace that whole day.

    Raises:
        InputFileError: mapping, file or rows are not as they must be; nothing was written.
    """
    settings = settings or get_settings()
    checked = load_mapping(mapping)
    located = _locate(checked, files)
    with _only_landing(settings), _work_folder(settings) as (work, connection):
        file_counts = _read_files(connection, checked, located, work)
        for number, record in enumerate(checked.records):
            if record.source_file is not None:
                statement = record_statement(checked, number, record)
                connection.execute(statement.sql, statement.parameters)
        first_day, last_day = _period(connection, checked, date_from, date_to)
        quarantine = [_judge_rows(connection, checked, name) for name in checked.files]
        summary = LandSummary(checked.source, checked.path.name, first_day, last_day)
        summary.files = [_count_file(connection, checked, name, *file_counts[name]) for name in checked.files]
        summary.quarantine = [count for counts in quarantine for count in counts]
        _check_limit(checked, summary)
        summary.oddities = _count_oddities(connection, checked)
        deliveries: list[_Delivery] = []
        for extract in dict.fromkeys(record.extract for record in checked.records):
            count, new = _stage_extract(connection, checked, extract, summary, settings, work)
            summary.extracts.append(count)
            deliveries += new
        if not replace:
            _check_nothing_is_lost(connection, checked, deliveries)
        _write_quarantine(connection, checked, settings)
        originals = [{"name": file.file, "sha256": file.sha256} for file in summary.files]
        for delivery in deliveries:
            _deliver(checked, delivery, originals, settings)
        summary.expected_extracts_changed = expect_also(settings.home, _expected_pairs(checked, summary))
    _write_report(summary, settings)
    return summary


@contextmanager
def _only_landing(settings: Settings) -> Iterator[None]:
    """Let one landing at a time work on a data root; the lock dies with its process."""
    settings.warehouse_folder.mkdir(parents=True, exist_ok=True)
    path = settings.warehouse_folder / "land.lock"
    with path.open("a") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputFileError(
                where=str(settings.home),
                expected="to be the only landing",
                found="another one at work",
                advice="wait until it has ended, then run again; nothing was written",
            ) from None
        yield


@contextmanager
def _work_folder(settings: Settings) -> Iterator[tuple[Path, duckdb.DuckDBPyConnection]]:
    """Yield a folder beside the deliveries (so that they appear by rename) and a database in it.

    What a killed landing left there is removed; ingest looks into no folder that begins with a dot.
    """
    work = settings.landing / ".land"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    config = {
        "threads": settings.threads,
        "memory_limit": settings.memory_limit,
        "autoinstall_known_extensions": False,
        "temp_directory": str(work / "spill"),
    }
    connection = duckdb.connect(str(work / "land.duckdb"), config=config)
    try:
        yield work, connection
    finally:
        connection.close()
        shutil.rmtree(work, ignore_errors=True)


def _locate(mapping: SourceMapping, files: str | Path | Iterable[str | Path]) -> dict[str, Path]:
    """Find each file the mapping names, by name, also gzipped; every one of them must be there."""
    given = [Path(files)] if isinstance(files, str | Path) else [Path(file) for file in files]
    candidates = [file for path in given for file in (sorted(path.iterdir()) if path.is_dir() else [path])]
    located = {}
    for name, file in mapping.files.items():
        matches = [path for path in candidates if path.name in (file.name, f"{file.name}.gz") and path.is_file()]
        if len(matches) != 1:
            raise InputFileError(
                where=f"{mapping.path}, key files.{name}.name",
                expected=f"one file {file.name} (or {file.name}.gz) among what was given",
                found=f"{len(matches)} of them in {', '.join(str(path) for path in given)}",
                advice="give the folder that holds all files of the mapping, or each file",
            )
        located[name] = matches[0]
    return located


def _read_files(
    connection: duckdb.DuckDBPyConnection, mapping: SourceMapping, located: dict[str, Path], work: Path
) -> dict[str, tuple[str, list[str]]]:
    """Make raw_<file> and row_<file> of each file; return sha256 and unmapped columns by file."""
    read = {}
    for name, file in mapping.files.items():
        clean = work / f"{name}.utf8"
        has_quotes = decode_to_utf8(located[name], file.encoding, clean)
        unmapped = read_csv_records(connection, f"raw_{name}", located[name], clean, file, has_quotes)
        clean.unlink()
        statement = row_statement(mapping, name)
        connection.execute(statement.sql, statement.parameters)
        connection.execute(f"drop table raw_{name}")
        read[name] = (sha256_of(located[name]), unmapped)
    return read


def _dated_records(mapping: SourceMapping) -> list[int]:
    return [number for number, record in enumerate(mapping.records) if record.day != "first"]


def _period(
    connection: duckdb.DuckDBPyConnection, mapping: SourceMapping, date_from: date | None, date_to: date | None
) -> tuple[date, date]:
    """Return the days the landing covers: as asked, as the mapping says, or from the first to the last record."""
    first = date_from or (mapping.period and mapping.period.first)
    last = date_to or (mapping.period and mapping.period.last)
    if first is None or last is None:
        days = " union all ".join(
            f"select day from record_{number} where error is null" for number in _dated_records(mapping)
        )
        seen = connection.execute(f"select min(day), max(day) from ({days})").fetchone() if days else (None, None)
        first, last = first or seen[0], last or seen[1]
    length = (last - first).days + 1 if first is not None and last is not None else 0
    if length < 1 or (mapping.period is None and length > LONGEST_GUESSED_PERIOD):
        raise InputFileError(
            where=f"{mapping.path}, key period",
            expected=f"records on 1 to {LONGEST_GUESSED_PERIOD:,} days, or the period the source covers",
            found=f"{first} to {last}",
            advice="look for wild dates in the files, then write period: {first: …, last: …} into the mapping",
        )
    return first, last


def _judge_rows(connection: duckdb.DuckDBPyConnection, mapping: SourceMapping, name: str) -> list[QuarantineCount]:
    """Make bad_<file> (line_no, lines, reason, contract_column): rows that cannot become their records."""
    parameters: dict[str, object] = {}
    judgements = [
        f"select line_no, lines, problem as reason, '' as contract_column, 0 as rank from row_{name} "
        "where problem is not null and problem <> 'duplicate'"
    ]
    for number, record in enumerate(mapping.records):
        if record.source_file != name:
            continue
        judgements.append(
            f"select line_no, 1, split_part(error, ' ', 1), split_part(error, ' ', 2), {number + 1} "
            f"from record_{number} where error is not null"
        )
        if mapping.period is not None and record.day != "first":
            parameters |= {"first": mapping.period.first, "last": mapping.period.last}
            judgements.append(
                f"select line_no, 1, 'outside_period', 'business_date', {number + 1} "
                f"from record_{number} where error is null and day not between $first and $last"
            )
    connection.execute(
        f"""
        create table bad_{name} as
        select
            line_no,
            max(lines) as lines,
            min_by(reason, rank) as reason,
            min_by(contract_column, rank) as contract_column
        from ({" union all ".join(judgements)})
        group by line_no
        """,
        parameters,
    )
    counted = connection.execute(
        f"select reason, contract_column, sum(lines)::bigint from bad_{name} group by all order by 3 desc, 1, 2"
    ).fetchall()
    return [QuarantineCount(mapping.files[name].name, *row) for row in counted]


def _count_file(
    connection: duckdb.DuckDBPyConnection, mapping: SourceMapping, name: str, sha256: str, unmapped: list[str]
) -> FileCount:
    """Count where each row of a file went, each way by a query of its own, and hold them against each other.

    Raises:
        InputFileError: the counts do not add up (a defect of this program: nothing is written).
    """
    of_file = [number for number, record in enumerate(mapping.records) if record.source_file == name]
    placed = " union ".join(f"select line_no from record_{number}" for number in of_file) or (
        "select null::bigint as line_no where false"
    )
    rows, duplicates = connection.execute(
        f"select coalesce(sum(lines), 0)::bigint, count(*) filter (where problem = 'duplicate') from row_{name}"
    ).fetchone()
    (quarantined,) = connection.execute(f"select coalesce(sum(lines), 0)::bigint from bad_{name}").fetchone()
    (in_records,) = connection.execute(
        f"select count(*) from ({placed}) where line_no not in (select line_no from bad_{name})"
    ).fetchone()
    (skipped,) = connection.execute(
        f"""
        select count(*) from row_{name}
        where problem is null and line_no not in ({placed}) and line_no not in (select line_no from bad_{name})
        """
    ).fetchone()
    if rows != in_records + skipped + duplicates + quarantined:
        raise InputFileError(
            where=mapping.files[name].name,
            expected=f"{rows} rows = placed + skipped + duplicates + quarantined",
            found=f"{in_records} + {skipped} + {duplicates} + {quarantined}",
            advice="this is a defect of cleanbill land: report it with the mapping; nothing was written",
        )
    file_name = mapping.files[name].name
    return FileCount(file_name, sha256, rows, in_records, skipped, duplicates, quarantined, unmapped)


def _check_limit(mapping: SourceMapping, summary: LandSummary) -> None:
    """Refuse to land a file most of whose rows would be left behind: the mapping or the file is wrong."""
    for file in summary.files:
        if file.quarantined * 100 > mapping.quarantine_limit_percent * file.rows:
            reasons = "; ".join(
                f"{count.rows} {count.reason} {count.column}".strip()
                for count in summary.quarantine
                if count.file == file.file
            )
            raise InputFileError(
                where=file.file,
                expected=f"at most {mapping.quarantine_limit_percent} % of {file.rows} rows to be refused "
                f"(quarantine_limit_percent of {mapping.path.name})",
                found=f"{file.quarantined}: {reasons}",
                advice="complete the mapping (codes, formats), or have the file sent again; nothing was written",
            )


def _count_oddities(connection: duckdb.DuckDBPyConnection, mapping: SourceMapping) -> list[OddityCount]:
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
        counts.append(OddityCount(oddity.what, mapping.files[oddity.source_file].name, odd, rows))
    return counts


def _header(mapping: SourceMapping, extract: str) -> list[str]:
    """Return the columns of the extract's files: the contract's, without an optional one nobody fills."""
    records = [record for record in mapping.records if record.extract == extract]
    used = {name for record in records for names in [record.columns, *(record.rows or [])] for name in names}
    return [column.name for column in CONTRACTS[extract].columns if not column.may_be_absent or column.name in used]


def _collect_records(
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
            {", ".join(_header(mapping, extract))}
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
        raise InputFileError(
            where=f"{mapping.path}, records of {extract}",
            expected=f"one row for each {keys}",
            found=f"{row[-1]} different rows for {', '.join(str(value) for value in row[:-1])}",
            advice="let the code tell apart what has different names or fees; nothing was written",
        )


def _stage_extract(
    connection: duckdb.DuckDBPyConnection,
    mapping: SourceMapping,
    extract: str,
    summary: LandSummary,
    settings: Settings,
    work: Path,
) -> tuple[ExtractCount, list[_Delivery]]:
    """Write one file per day into the work folder and compare each with the newest delivery in landing/."""
    added_up = _collect_records(connection, mapping, extract, summary)
    header = _header(mapping, extract)
    rows_by_day: dict[date, int] = dict(
        connection.execute(f"select day, count(*) from out_{extract} group by day").fetchall()
    )
    length = (summary.last_day - summary.first_day).days + 1 if _is_daily(mapping, extract) else 1
    days = [summary.first_day + timedelta(days=number) for number in range(length)]
    deliveries = []
    for day in days:
        staged = work / f"{extract}_{day:%Y%m%d}.csv"
        if day in rows_by_day:
            target = str(staged).replace("'", "''")
            connection.execute(
                f"copy (select {', '.join(header)} from out_{extract} where day = $day order by position) "
                f"to '{target}' (format csv, header, nullstr '')",
                {"day": day},
            )
        else:
            staged.write_text(",".join(header) + "\n", encoding="utf-8")
        newest = _newest_delivery(mapping, extract, day, settings)
        if newest is not None and _has_bytes_of(newest, staged):
            staged.unlink()
        else:
            key = DeliveryKey(extract, day, mapping.source, newest.key.delivery + 1 if newest is not None else 1)
            deliveries.append(_Delivery(key, staged, rows_by_day.get(day, 0), newest))
    count = ExtractCount(
        extract=extract,
        records=sum(rows_by_day.values()),
        added_up=added_up,
        days=len(days),
        days_without_rows=len(days) - len(rows_by_day),
        written=len(deliveries),
        unchanged=len(days) - len(deliveries),
    )
    return count, deliveries


def _is_daily(mapping: SourceMapping, extract: str) -> bool:
    return any(record.extract == extract and record.day != "first" for record in mapping.records)


def _newest_delivery(mapping: SourceMapping, extract: str, day: date, settings: Settings) -> _Landed | None:
    """Return the newest delivery of this source in landing/, which must be one that was made here.

    Raises:
        InputFileError: somebody else delivers under the name of this source.
    """
    folder = settings.landing / extract / day.isoformat()
    landed = []
    for path in sorted(folder.glob(f"*{MANIFEST_SUFFIX}")):
        key = key_of_name(extract, day, path.name)
        if key is not None and key.source == mapping.source:
            manifest = json.loads(path.read_text(encoding="utf-8"))
            if manifest.get("made_by") != MADE_BY:
                raise InputFileError(
                    where=str(path.relative_to(settings.home)),
                    expected=f"only deliveries made by {MADE_BY} for source {mapping.source}",
                    found="a delivery somebody else wrote",
                    advice="give the source of the mapping a name of its own; nothing was written",
                )
            landed.append(_Landed(key, folder / manifest["files"][0]["name"], manifest["files"][0]["sha256"]))
    return max(landed, key=lambda one: one.key.delivery, default=None)


def _has_bytes_of(landed: _Landed, staged: Path) -> bool:
    return landed.sha256 == sha256_of(staged)


def _check_nothing_is_lost(
    connection: duckdb.DuckDBPyConnection, mapping: SourceMapping, deliveries: list[_Delivery]
) -> None:
    """Refuse a landing that would replace a day by a delivery without some of that day's records."""
    losing = []
    for delivery in deliveries:
        if delivery.replaced is None or not delivery.replaced.path.exists():
            continue
        lines = (
            "(select line from read_csv({}, columns = {{'line': 'VARCHAR'}}, header = true, auto_detect = false, "
            "delim = '\x01', quote = '', escape = ''))"
        )
        (lost,) = connection.execute(
            f"select count(*) from (from {lines.format('$old')} except all from {lines.format('$new')})",
            {"old": str(delivery.replaced.path), "new": str(delivery.staged)},
        ).fetchone()
        if lost:
            losing.append(f"{lost} of {delivery.key.extract} {delivery.key.business_date}")
    if losing:
        raise InputFileError(
            where=f"landing of source {mapping.source}",
            expected="no day to lose records it already has",
            found=f"{len(losing)} days that would: {', '.join(losing[:3])}{' …' if len(losing) > 3 else ''}",
            advice="leave those days out (date_from, date_to), or say replace if the files correct them; "
            "nothing was written",
        )


def _write_quarantine(connection: duckdb.DuckDBPyConnection, mapping: SourceMapping, settings: Settings) -> None:
    """Write the refused rows of each file, with line, reason, contract column and raw text."""
    folder = settings.quarantine / "land" / mapping.source
    for name, file in mapping.files.items():
        target = folder / f"{file.name}.rejected.csv"
        (rows,) = connection.execute(f"select count(*) from bad_{name}").fetchone()
        if rows == 0:
            target.unlink(missing_ok=True)
            continue
        folder.mkdir(parents=True, exist_ok=True)
        staged = folder / f".{target.name}"
        path = str(staged).replace("'", "''")
        connection.execute(
            f"copy (select $file as file, line_no, reason, contract_column, raw_text "
            f"from bad_{name} join row_{name} using (line_no) order by line_no) to '{path}' (format csv, header)",
            {"file": file.name},
        )
        os.replace(staged, target)  # noqa: PTH105 (the rename that makes it visible)


def _deliver(mapping: SourceMapping, delivery: _Delivery, originals: list[dict[str, str]], settings: Settings) -> None:
    """Put one delivery into landing/: the data file first, its manifest last, each by rename."""
    key = delivery.key
    folder = settings.landing / key.extract / key.business_date.isoformat()
    folder.mkdir(parents=True, exist_ok=True)
    data = folder / f"{key.stem}.csv"
    manifest = {
        "extract": key.extract,
        "business_date": key.business_date.isoformat(),
        "source": key.source,
        "delivery": key.delivery,
        "schema_version": SCHEMA_VERSION,
        "identity": mapping.identity,
        "made_by": MADE_BY,
        "made_from": originals,
        "files": [
            {
                "name": data.name,
                "rows": delivery.rows,
                "bytes": delivery.staged.stat().st_size,
                "sha256": sha256_of(delivery.staged),
            }
        ],
    }
    staged_manifest = delivery.staged.with_suffix(".json")
    staged_manifest.write_text(json.dumps(manifest, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    os.replace(delivery.staged, data)  # noqa: PTH105
    os.replace(staged_manifest, folder / key.manifest_name)  # noqa: PTH105


def _expected_pairs(mapping: SourceMapping, summary: LandSummary) -> list[ExpectedPair]:
    """Daily extracts are expected on each day of the period; what is delivered once is optional.

    So a full file that is known only once (a price list in the mapping) never counts as missing afterwards,
    while a day of events or usage that does not come is.
    """
    return [
        ExpectedPair(count.extract, mapping.source, "daily", summary.first_day, summary.last_day)
        if _is_daily(mapping, count.extract)
        else ExpectedPair(count.extract, mapping.source, "optional", summary.first_day, None)
        for count in summary.extracts
    ]


def _write_report(summary: LandSummary, settings: Settings) -> None:
    """Keep the summary as JSON (counts and codes only, no values of the source)."""
    folder = settings.reports / "land"
    folder.mkdir(parents=True, exist_ok=True)
    report = folder / f"{summary.source}_{summary.first_day:%Y%m%d}_{summary.last_day:%Y%m%d}.json"
    report.write_text(json.dumps(asdict(summary), default=str, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
