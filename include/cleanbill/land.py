"""Bring foreign files in: apply a source mapping and write deliveries the ingest can verify.

The originals are only read. Rows are transformed by SQL made from the mapping; each row of a foreign file ends in
at least one record, is skipped because no record wants it, repeats a row before it, or goes to
`quarantine/land/<source>/` with line, reason and raw text. Every day the source covers gets a delivery, also with
zero rows, so that a quiet day is not a missing one. Landing the same files again changes nothing.
"""

# ruff: noqa: S608 - every identifier is numbered, a checked name or of the contract; every text is bound

import fcntl
import json
import re
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import date
from pathlib import Path

import duckdb

from cleanbill.control_file import parse_day, read_control_row, verify_against
from cleanbill.errors import LandingRefused, StorageFailed
from cleanbill.expected_extracts import ExpectedPair, expect_also
from cleanbill.foreign_files import read_records
from cleanbill.foreign_text import sha256_of
from cleanbill.land_summary import LandSummary
from cleanbill.landed_deliveries import Provenance, check_nothing_is_lost, deliver, is_daily, stage_extract
from cleanbill.landed_rows import check_limit, count_file, count_oddities, judge_rows, write_refused
from cleanbill.landing_origins import Origin, forget_covered, mapping_reference, refused_folder, save_origin
from cleanbill.mapping_sql import record_statement, row_statement
from cleanbill.settings import Settings, get_settings
from cleanbill.source_mapping import FILE_DATE, SourceMapping, load_mapping
from cleanbill.storage_faults import FAULTS, any_fault

# A guard against one wild date that would open thousands of empty days; a longer history names its `period`.
LONGEST_GUESSED_PERIOD = 3660


@dataclass(frozen=True)
class Repair:
    """Which part of a landing is to be done again after its mapping was corrected.

    Attributes:
        source: whose landing it is.
        deliveries: (extract, day) whose records are wrong.
        lines: file of the mapping → lines that were refused; the days they belong to are done again.
        first_day, last_day: the days the landing covered; days that only now appear are done, too.
    """

    source: str
    deliveries: frozenset[tuple[str, date]]
    lines: dict[str, frozenset[int]]
    first_day: date
    last_day: date


@dataclass(frozen=True)
class _Original:
    """One foreign file that was found: where it is, and the day its name and its .verf say it is of."""

    path: Path
    day: date | None

    @property
    def name(self) -> str:
        return self.path.name.removesuffix(".gz")


@dataclass
class _Read:
    """What reading the originals told: sha256 and unmapped columns by file."""

    sha256: dict[str, str] = field(default_factory=dict)
    unmapped: dict[str, list[str]] = field(default_factory=dict)


def land(
    mapping: str | Path,
    files: str | Path | Iterable[str | Path],
    settings: Settings | None = None,
    date_from: date | None = None,
    date_to: date | None = None,
    replace: bool = False,
    repair: Repair | None = None,
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
        repair: land only what a corrected mapping changes (quarantine replay).

    Raises:
        LandingRefused: files or rows are not as they must be; nothing was written.
        InputFileError: the mapping is wrong; nothing was written.
        StorageFailed: the disk is full, or a file cannot be written; landing again goes on.
    """
    settings = settings or get_settings()
    checked = load_mapping(mapping)
    if repair is not None and checked.source != repair.source:
        raise LandingRefused(
            "other_source",
            where=str(checked.path),
            expected=f"the mapping of source {repair.source}",
            found=f"that of {checked.source}",
            advice="give the corrected mapping of the same source; nothing was written",
        )
    try:
        with _only_landing(settings), _work_folder(settings) as (work, connection):
            originals = _locate(checked, files)
            return _land(connection, checked, originals, settings, work, (date_from, date_to), replace, repair)
    except FAULTS as error:
        raise any_fault(error, settings.home, StorageFailed) from None


def _land(
    connection: duckdb.DuckDBPyConnection,
    mapping: SourceMapping,
    originals: dict[str, _Original],
    settings: Settings,
    work: Path,
    asked: tuple[date | None, date | None],
    replace: bool,
    repair: Repair | None,
) -> LandSummary:
    read = _read_files(connection, mapping, originals, work)
    for number, record in enumerate(mapping.records):
        if record.source_file is not None:
            statement = record_statement(mapping, number, record, originals[record.source_file].day)
            connection.execute(statement.sql, statement.parameters)
    first_day, last_day = _period(connection, mapping, originals, *asked)
    summary = LandSummary(mapping.source, mapping.path.name, first_day, last_day)
    for name, original in originals.items():
        summary.quarantine += judge_rows(connection, mapping, name, original.name, summary)
        count = count_file(connection, mapping, name, original.name, summary)
        summary.files.append(count.of(read.sha256[name], read.unmapped[name]))
    check_limit(mapping, summary)
    summary.oddities = count_oddities(connection, mapping, {name: one.name for name, one in originals.items()})
    only = None if repair is None else _to_repair(connection, mapping, repair)
    provenance = Provenance(
        [{"name": original.name, "sha256": read.sha256[name]} for name, original in originals.items()],
        {"name": mapping.path.name, "sha256": sha256_of(mapping.path)},
    )
    deliveries = []
    for extract in dict.fromkeys(record.extract for record in mapping.records):
        count, new = stage_extract(connection, mapping, extract, summary, settings, work, only)
        summary.extracts.append(count)
        deliveries += new
    check_nothing_is_lost(connection, mapping, deliveries, replace, provenance if repair else None)
    origin = Origin(
        source=mapping.source,
        mapping=mapping_reference(mapping.path),
        paths={name: str(original.path.absolute()) for name, original in originals.items()},
        sha256=read.sha256,
        date_from=asked[0],
        date_to=asked[1],
        first_day=first_day,
        last_day=last_day,
    )
    save_origin(origin, settings)
    for delivery in deliveries:
        deliver(mapping, delivery, provenance, settings)
    # Last: a replay that is killed before finds its rows still refused, and goes on.
    write_refused(connection, refused_folder(origin, settings), {name: one.name for name, one in originals.items()})
    forget_covered(origin, settings)
    summary.expected_extracts_changed = expect_also(settings.home, _expected_pairs(mapping, summary))
    _write_report(summary, settings, "replay" if repair is not None else "land")
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
            raise LandingRefused(
                "landing_at_work",
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


def _locate(mapping: SourceMapping, files: str | Path | Iterable[str | Path]) -> dict[str, _Original]:
    """Find each file the mapping names, by name, also gzipped; every one of them must be there, all of one day."""
    given = [Path(files)] if isinstance(files, str | Path) else [Path(file) for file in files]
    candidates = [file for path in given for file in (sorted(path.iterdir()) if path.is_dir() else [path])]
    located: dict[str, _Original] = {}
    for name, file in mapping.files.items():
        pattern = re.escape(file.name).replace(re.escape(FILE_DATE), "([0-9]{8})") + r"(\.gz)?"
        matches = [path for path in candidates if re.fullmatch(pattern, path.name, re.ASCII) and path.is_file()]
        if len(matches) != 1:
            raise LandingRefused(
                "file_ambiguous" if matches else "file_missing",
                where=f"{mapping.path}, key files.{name}.name",
                expected=f"one file {file.name} (or {file.name}.gz) among what was given",
                found=f"{len(matches)} of them in {', '.join(str(path) for path in given)}",
                advice="give the folder that holds all files of the mapping, or each file; files of several days one "
                "day at a time",
            )
        dates = [text for text in re.fullmatch(pattern, matches[0].name, re.ASCII).groups() if text and text[0] != "."]
        day = parse_day(dates[0]) if dates else None
        if dates and day is None:
            raise LandingRefused(
                "bad_file_date", str(matches[0]), "a day as YYYYMMDD in the name", dates[0], "correct the name"
            )
        located[name] = _Original(matches[0], day)
    _require_one_day({original.name: original.day for original in located.values()})
    return located


def _require_one_day(days: dict[str, date | None]) -> None:
    """Files of different days in one landing would declare each other's days as quiet."""
    told = {day for day in days.values() if day is not None}
    if len(told) > 1:
        raise LandingRefused(
            "date_differs",
            where=", ".join(days),
            expected="files of one day",
            found=", ".join(f"{name}: {day}" for name, day in days.items() if day),
            advice="land the files of each day together; if name and .verf differ, ask the sender which is right",
        )


def _read_files(
    connection: duckdb.DuckDBPyConnection, mapping: SourceMapping, originals: dict[str, _Original], work: Path
) -> _Read:
    """Verify every file, then make raw_<file> and row_<file> of each."""
    controls = {}
    for name, file in mapping.files.items():
        if file.verf is not None:
            controls[name] = read_control_row(originals[name].path, file.verf.delimiter)
    days = {original.name: original.day for original in originals.values()}
    _require_one_day(days | {f"{control.data_file} in its .verf": control.data_date for control in controls.values()})
    for name, control in controls.items():
        verify_against(originals[name].path, control, mapping.files[name].layout)
        originals[name] = _Original(originals[name].path, control.data_date)
    read = _Read()
    for name, file in mapping.files.items():
        path = originals[name].path
        read.unmapped[name] = read_records(connection, f"raw_{name}", path, file, work / f"{name}.utf8")
        statement = row_statement(mapping, name)
        connection.execute(statement.sql, statement.parameters)
        connection.execute(f"drop table raw_{name}")
        read.sha256[name] = sha256_of(path)
    return read


def _dated_records(mapping: SourceMapping) -> list[int]:
    return [number for number, record in enumerate(mapping.records) if record.day != "first"]


def _period(
    connection: duckdb.DuckDBPyConnection,
    mapping: SourceMapping,
    originals: dict[str, _Original],
    date_from: date | None,
    date_to: date | None,
) -> tuple[date, date]:
    """Return the days the landing covers: as asked, as the mapping says, or from the first to the last record."""
    first = date_from or (mapping.period and mapping.period.first)
    last = date_to or (mapping.period and mapping.period.last)
    if first is None or last is None:
        days = " union all ".join(
            f"select day from record_{number} where error is null" for number in _dated_records(mapping)
        )
        seen = connection.execute(f"select min(day), max(day) from ({days})").fetchone() if days else (None, None)
        # A file of no rows is of its day nevertheless.
        of_files = [
            originals[record.source_file].day
            for record in mapping.records
            if record.source_file and record.day == "file"
        ]
        told = [day for day in (*seen, *of_files) if day is not None]
        first, last = first or min(told, default=None), last or max(told, default=None)
    length = (last - first).days + 1 if first is not None and last is not None else 0
    if length < 1 or (mapping.period is None and length > LONGEST_GUESSED_PERIOD):
        raise LandingRefused(
            "no_period",
            where=f"{mapping.path}, key period",
            expected=f"records on 1 to {LONGEST_GUESSED_PERIOD:,} days, or the period the source covers",
            found=f"{first} to {last}",
            advice="look for wild dates in the files, then write period: {first: …, last: …} into the mapping",
        )
    return first, last


def _to_repair(connection: duckdb.DuckDBPyConnection, mapping: SourceMapping, repair: Repair) -> set[tuple[str, date]]:
    """Return (extract, day) to be delivered anew: as told, where refused lines belong now, and days that are new."""
    to_repair = set(repair.deliveries)
    for number, record in enumerate(mapping.records):
        lines = repair.lines.get(record.source_file or "", frozenset())
        days = connection.execute(
            f"""
            select distinct coalesce(day, $first_day)
            from record_{number}
            where
                error is null
                and (list_contains($lines, line_no) or day not between $first_day and $last_day)
            """,
            {"lines": sorted(lines), "first_day": repair.first_day, "last_day": repair.last_day},
        ).fetchall() if record.source_file is not None else []  # fmt: skip
        to_repair |= {(record.extract, day) for (day,) in days}
    return to_repair


def _expected_pairs(mapping: SourceMapping, summary: LandSummary) -> list[ExpectedPair]:
    """Daily extracts are expected on each day of the period; what is delivered once is optional.

    So a full file that is known only once (a price list in the mapping) never counts as missing afterwards,
    while a day of events or usage that does not come is.
    """
    return [
        ExpectedPair(count.extract, mapping.source, "daily", summary.first_day, summary.last_day)
        if is_daily(mapping, count.extract)
        else ExpectedPair(count.extract, mapping.source, "optional", summary.first_day, None)
        for count in summary.extracts
    ]


def _write_report(summary: LandSummary, settings: Settings, kind: str) -> None:
    """Keep the summary as JSON (counts and codes only, no values of the source)."""
    folder = settings.reports / kind
    folder.mkdir(parents=True, exist_ok=True)
    report = folder / f"{summary.source}_{summary.first_day:%Y%m%d}_{summary.last_day:%Y%m%d}.json"
    report.write_text(json.dumps(asdict(summary), default=str, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
