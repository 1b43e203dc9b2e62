"""From landing/ to lake/: verify each delivery, parse it, keep what is right, show what is not.

A delivery is accepted whole, held back or refused; what became of it is recorded in the warehouse in the same
transaction that decides anew which deliveries are in force. Files appear by rename before they are recorded, so a
run that is killed leaves nothing that counts, and the next one does the same work again.
"""

import errno
import fcntl
import logging
import os
import shutil
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import date
from pathlib import Path

import duckdb

from cleanbill.contract import CONTRACTS, Contract
from cleanbill.control import LOCK_WAIT_SECONDS, open_warehouse
from cleanbill.deliveries import (
    ACCEPTED,
    OVER_LIMIT,
    REJECTED,
    DeliveryOutcome,
    FileOutcome,
    KnownDelivery,
    read_duplicates,
    read_known_deliveries,
    record,
)
from cleanbill.errors import DeliveryRejected, IngestFailed
from cleanbill.ingest_policy import IngestPolicy, IngestRule, read_ingest_policy
from cleanbill.manifest import (
    DeliveryKey,
    FoundManifest,
    Manifest,
    find_manifests,
    open_landed,
    parse_manifest,
    read_manifest_bytes,
    shown,
)
from cleanbill.record_parser import ColumnTotal, FileCounts, FileNames, ParsedBatch, ParserInput, write_empty_lake_file
from cleanbill.settings import Settings, get_settings
from cleanbill.spool import SpooledFile, spool_lines, verify_bytes

logger = logging.getLogger(__name__)

WORK_FOLDER = ".ingest"
# Many small deliveries share one set of SQL statements; a large one has its own.
BATCH_DELIVERIES = 200
BATCH_ROWS = 500_000
# How much finished work a crash may cost at most.
RECORD_EVERY_DELIVERIES = 2_000
RECORD_EVERY_SECONDS = 30
SHOWN_LINES = 50

# Faults of the machine, not of a file: they stop the run. Their texts may quote data and are not passed on.
SYSTEM_FAULTS = (
    OSError,
    duckdb.IOException,
    duckdb.OutOfMemoryException,
    duckdb.FatalException,
    duckdb.InternalException,
    duckdb.InterruptException,
)

NO_RECORDS = FileCounts(records=0, blank=0, quarantined=0, duplicates=0)
NO_RECORDS_DIGEST = "0"


@dataclass
class IngestSummary:
    """What one ingest did.

    Attributes:
        accepted, rejected, over_limit: deliveries of this run by result; `rejected` counts unreadable manifests too.
        unchanged: deliveries found that were accepted before.
        duplicates: accepted deliveries that do not count because their bytes are in force elsewhere, one line each.
        rows_in, rows_loaded, rows_quarantined, rows_duplicate: of the accepted and over-limit deliveries.
        rejections: one line per rejected or held-back delivery: where, expected, found, what to do.
        extra_columns: `extract source` → names of columns that are not in the contract and were ignored.
        notes: what else is worth knowing.
    """

    date_from: date
    date_to: date
    accepted: int = 0
    rejected: int = 0
    over_limit: int = 0
    unchanged: int = 0
    rows_in: int = 0
    rows_loaded: int = 0
    rows_quarantined: int = 0
    rows_duplicate: int = 0
    duplicates: list[str] = field(default_factory=list)
    rejections: list[str] = field(default_factory=list)
    extra_columns: dict[str, set[str]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        lines = [
            f"Deliveries to {self.date_to}: {self.accepted} accepted, {self.rejected} rejected, "
            f"{self.over_limit} over the quarantine limit, {len(self.duplicates)} duplicates, "
            f"{self.unchanged} known before.",
            f"Rows: {self.rows_in} in = {self.rows_loaded} loaded + {self.rows_quarantined} quarantined "
            f"+ {self.rows_duplicate} dropped duplicates.",
        ]
        for title, entries in (
            ("Refused or held back", sorted(self.rejections)),
            ("Duplicate deliveries, not counted", sorted(self.duplicates)),
            (
                "Columns outside the contract, ignored",
                [f"{who}: {', '.join(sorted(names))}" for who, names in sorted(self.extra_columns.items())],
            ),
            ("Notes", sorted(self.notes)),
        ):
            if entries:
                lines.append(f"{title}:")
                lines += [f"  {entry}" for entry in entries[:SHOWN_LINES]]
                if len(entries) > SHOWN_LINES:
                    lines.append(f"  … and {len(entries) - SHOWN_LINES} more (control.deliveries has them all)")
        return "\n".join(lines)


def ingest(date_from: date, date_to: date, settings: Settings | None = None) -> IngestSummary:
    """Take in every delivery of business dates up to `date_to` that is not accepted yet.

    Late and resent deliveries of any age come in too, and refused ones are tried again, so `date_from` only names
    the run; nothing depends on it.

    Raises:
        IngestFailed: the disk is full, a file cannot be written, or another ingest does not end.
        InputFileError: the policy seed is wrong.
    """
    settings = settings or get_settings()
    summary = IngestSummary(date_from, date_to)
    try:
        with _only_ingest(settings), _work_folder(settings) as work, _parser_database(settings, work) as database:
            _write_empty_lake_files(settings, database, work)
            policy = read_ingest_policy(settings.dbt_project)
            with open_warehouse(settings) as warehouse:
                known = read_known_deliveries(warehouse)
            recorder = _Recorder(settings, summary)
            candidates = _select_candidates(settings, policy, known, summary, recorder)
            _run_batches(settings, database, work, _batches(candidates), recorder)
            recorder.flush(final=True)
    except SYSTEM_FAULTS as error:
        raise _system_failure(settings, error) from None
    return summary


# --- around the work -------------------------------------------------------------------------------------------


@contextmanager
def _only_ingest(settings: Settings) -> Iterator[None]:
    """Let one ingest at a time work on a data root; the lock dies with its process."""
    settings.warehouse_folder.mkdir(parents=True, exist_ok=True)
    path = settings.warehouse_folder / "ingest.lock"
    with path.open("a") as stream:
        deadline = time.monotonic() + LOCK_WAIT_SECONDS
        while True:
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise IngestFailed(
                        str(path),
                        "to be the only ingest",
                        f"another one held the lock for {LOCK_WAIT_SECONDS} s",
                        "wait until it has ended, then run again",
                    ) from None
                time.sleep(0.2)
        yield


@contextmanager
def _work_folder(settings: Settings) -> Iterator[Path]:
    """Yield an empty folder on the lake's file system; what a killed run left in it is removed."""
    work = settings.lake / WORK_FOLDER
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    try:
        yield work
    finally:
        shutil.rmtree(work, ignore_errors=True)


@contextmanager
def _parser_database(settings: Settings, work: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    """Yield a database in memory to parse in; the warehouse stays closed meanwhile."""
    connection = duckdb.connect(
        ":memory:",
        config={
            "threads": settings.threads,
            "memory_limit": settings.memory_limit,
            "temp_directory": str(work / "spill"),
            "autoinstall_known_extensions": False,
        },
    )
    try:
        yield connection
    finally:
        connection.close()


def _write_empty_lake_files(settings: Settings, database: duckdb.DuckDBPyConnection, work: Path) -> None:
    """Make sure that each extract has a lake file of no rows, so that a list of its files is never empty."""
    for extract, contract in CONTRACTS.items():
        target = settings.lake / extract / "empty.parquet"
        if not target.exists():
            temporary = work / f"{extract}.empty"
            write_empty_lake_file(database, contract, temporary)
            _move_into_place(temporary, target)


def _move_into_place(temporary: Path, target: Path) -> None:
    """Rename a finished file to its final name; its content is on disk before its name is."""
    with temporary.open("rb") as stream:
        os.fsync(stream.fileno())
    temporary.chmod(0o640)
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary.replace(target)


def _system_failure(settings: Settings, error: Exception) -> IngestFailed:
    # The text of a DuckDB error may quote data: only its kind is told.
    is_full = getattr(error, "errno", None) == errno.ENOSPC or "space" in str(error).lower()
    if is_full:
        free = shutil.disk_usage(settings.home).free
        return IngestFailed(
            str(settings.home), "room to write", f"a full disk ({free} bytes free)", "free some space, then run again"
        )
    found = f"{error.strerror}: {error.filename}" if isinstance(error, OSError) and error.strerror else None
    return IngestFailed(
        str(settings.home),
        "files that can be read and written",
        found or type(error).__name__,
        "check permissions, disk and memory limit (CLEANBILL_MEMORY_LIMIT), then run again",
    )


# --- choosing --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Candidate:
    """A delivery whose manifest is right and whose files are to be read."""

    found: FoundManifest
    manifest: Manifest
    manifest_sha256: str
    rule: IngestRule

    @property
    def contract(self) -> Contract:
        return CONTRACTS[self.manifest.key.extract]

    def outcome(self, status: str) -> DeliveryOutcome:
        return DeliveryOutcome(
            key=self.manifest.key,
            manifest_path=self.found.path,
            manifest_sha256=self.manifest_sha256,
            identity=self.manifest.identity,
            status=status,
            rows_in=self.manifest.rows,
        )

    def rejected(self, error: DeliveryRejected) -> DeliveryOutcome:
        return replace(self.outcome(REJECTED), reason_code=error.code, reason=str(error))


def _select_candidates(
    settings: Settings,
    policy: IngestPolicy,
    known: dict[DeliveryKey, KnownDelivery],
    summary: IngestSummary,
    recorder: "_Recorder",
) -> list[_Candidate]:
    """Return the deliveries to read; manifests that are wrong go straight to the recorder."""
    candidates = []
    for found in find_manifests(settings.landing, summary.date_to):
        if isinstance(found, DeliveryRejected):
            recorder.report(found)
            continue
        manifest_sha256 = ""
        before = known.get(found.key) if found.key else None
        try:
            content, manifest_sha256 = read_manifest_bytes(settings.landing, found)
            if before and before.status == ACCEPTED:
                if before.manifest_sha256 == manifest_sha256:
                    summary.unchanged += 1
                    continue
                raise DeliveryRejected(
                    "delivery_changed",
                    found.path,
                    f"the accepted manifest, sha256 {before.manifest_sha256}",
                    manifest_sha256,
                    "send the new content as the next delivery number; the accepted one stays",
                )
            manifest = parse_manifest(found, content)
            rule = policy.rule(manifest.key.extract, manifest.key.source, manifest.key.business_date)
            candidates.append(_Candidate(found, manifest, manifest_sha256, rule))
        except DeliveryRejected as error:
            if found.key is None or (before and before.status == ACCEPTED):
                recorder.report(error)
            else:
                recorder.add(
                    DeliveryOutcome(
                        key=found.key,
                        manifest_path=found.path,
                        manifest_sha256=manifest_sha256,
                        identity="msisdn",
                        status=REJECTED,
                        reason_code=error.code,
                        reason=str(error),
                    )
                )
    return candidates


def _batches(candidates: list[_Candidate]) -> Iterator[list[_Candidate]]:
    """Group deliveries of one extract up to the batch limits."""
    batch: list[_Candidate] = []
    rows = 0
    for candidate in sorted(candidates, key=lambda item: item.manifest.key):
        is_full = len(batch) >= BATCH_DELIVERIES or rows + candidate.manifest.rows > BATCH_ROWS
        if batch and (is_full or batch[0].manifest.key.extract != candidate.manifest.key.extract):
            yield batch
            batch, rows = [], 0
        batch.append(candidate)
        rows += candidate.manifest.rows
    if batch:
        yield batch


# --- recording -------------------------------------------------------------------------------------------------


class _Recorder:
    """Collects outcomes and writes them to the warehouse now and then; used by one thread."""

    def __init__(self, settings: Settings, summary: IngestSummary) -> None:
        self._settings = settings
        self._summary = summary
        self._waiting: list[DeliveryOutcome] = []
        self._done: set[DeliveryKey] = set()
        self._last_flush = time.monotonic()

    def report(self, error: DeliveryRejected) -> None:
        """Count a refusal that belongs to no delivery, or leaves an accepted one as it is."""
        self._summary.rejected += 1
        self._summary.rejections.append(f"[{error.code}] {error}")
        logger.warning("[%s] %s", error.code, error)

    def note(self, text: str) -> None:
        self._summary.notes.append(text)

    def extra_columns(self, key: DeliveryKey, names: Iterable[str]) -> None:
        if names := {shown(name) for name in names}:
            self._summary.extra_columns.setdefault(f"{key.extract} {key.source}", set()).update(names)

    def add(self, outcome: DeliveryOutcome) -> None:
        summary = self._summary
        if outcome.status == ACCEPTED:
            summary.accepted += 1
        else:
            summary.rejected += outcome.status == REJECTED
            summary.over_limit += outcome.status == OVER_LIMIT
            summary.rejections.append(f"[{outcome.reason_code}] {outcome.reason}")
            logger.warning("[%s] %s", outcome.reason_code, outcome.reason)
        if outcome.status != REJECTED:
            summary.rows_in += outcome.rows_in
            summary.rows_loaded += outcome.rows_loaded
            summary.rows_quarantined += outcome.rows_quarantined
            summary.rows_duplicate += outcome.rows_duplicate
        self._waiting.append(outcome)
        self.flush()

    def flush(self, final: bool = False) -> None:
        """Record what waits, if enough waits or at the end."""
        is_due = (
            len(self._waiting) >= RECORD_EVERY_DELIVERIES or time.monotonic() - self._last_flush > RECORD_EVERY_SECONDS
        )
        if not (final or is_due) or not (self._waiting or self._done):
            return
        with open_warehouse(self._settings) as warehouse:
            record(warehouse, self._waiting)
            self._done.update(outcome.key for outcome in self._waiting)
            if final:
                self._summary.duplicates = [
                    f"{key}: same bytes as {original}, which is in force"
                    for key, original in read_duplicates(warehouse).items()
                    if key in self._done
                ]
        logger.info("recorded %d deliveries", len(self._waiting))
        self._waiting = []
        self._last_flush = time.monotonic()


# --- reading ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Result:
    outcome: DeliveryOutcome
    extra_columns: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Staged:
    """A delivery whose files are verified and spooled."""

    candidate: _Candidate
    files: tuple[SpooledFile, ...]


def _run_batches(
    settings: Settings,
    database: duckdb.DuckDBPyConnection,
    work: Path,
    batches: Iterable[list[_Candidate]],
    recorder: _Recorder,
) -> None:
    """Read batches side by side; results are recorded here, by one thread."""
    with ThreadPoolExecutor(max_workers=settings.threads) as pool:
        futures = [
            pool.submit(_read_batch, settings, database, work / f"batch{number}", batch)
            for number, batch in enumerate(batches)
        ]
        try:
            for future in as_completed(futures):
                for result in future.result():
                    recorder.extra_columns(result.outcome.key, result.extra_columns)
                    for note in result.notes:
                        recorder.note(note)
                    recorder.add(result.outcome)
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise


def _read_batch(
    settings: Settings, database: duckdb.DuckDBPyConnection, work: Path, batch: list[_Candidate]
) -> list[_Result]:
    """Verify, spool and parse deliveries of one extract; return what became of each."""
    work.mkdir()
    cursor = database.cursor()
    results: list[_Result] = []
    staged: list[_Staged] = []
    try:
        for number, candidate in enumerate(batch):
            try:
                staged.append(_stage(settings, candidate, work, number))
            except DeliveryRejected as error:
                _remove_outputs(settings, candidate.manifest.key)
                results.append(_Result(candidate.rejected(error)))
        try:
            results += _parse(settings, cursor, work, staged)
        except SYSTEM_FAULTS:
            raise
        except duckdb.Error:
            # Nothing a file holds should get here. If it does, it must cost one delivery, not the run.
            results += [result for item in staged for result in _parse_alone(settings, cursor, work, item)]
    finally:
        cursor.close()
        shutil.rmtree(work, ignore_errors=True)
    return results


def _parse_alone(settings: Settings, cursor: duckdb.DuckDBPyConnection, work: Path, staged: _Staged) -> list[_Result]:
    try:
        return _parse(settings, cursor, work, [staged])
    except SYSTEM_FAULTS:
        raise
    except duckdb.Error as error:
        candidate = staged.candidate
        _remove_outputs(settings, candidate.manifest.key)
        refusal = DeliveryRejected(
            "parser_failed",
            candidate.found.path,
            "files that can be parsed",
            type(error).__name__,
            "send the files again as the next delivery; if it happens again, report it with the files",
        )
        return [_Result(candidate.rejected(refusal))]


def _stage(settings: Settings, candidate: _Candidate, work: Path, number: int) -> _Staged:
    """Verify every file of a delivery, and only then unpack them."""
    folder, files = candidate.found.folder, candidate.manifest.files
    for file in files:
        with open_landed(settings.landing, *folder, file.name) as descriptor:
            verify_bytes(descriptor, file, _where(candidate, file.name))
    spooled = []
    for place, file in enumerate(files):
        target = work / f"{number}_{place}.txt"
        with open_landed(settings.landing, *folder, file.name) as descriptor:
            spooled.append(spool_lines(descriptor, file, _where(candidate, file.name), candidate.contract, target))
    return _Staged(candidate, tuple(spooled))


def _where(candidate: _Candidate, file_name: str) -> str:
    return "/".join(("landing", *candidate.found.folder, file_name))


def _parse(settings: Settings, cursor: duckdb.DuckDBPyConnection, work: Path, staged: list[_Staged]) -> list[_Result]:
    """Parse the staged deliveries of one extract together, judge each, write what is accepted."""
    if not staged:
        return []
    parsed = ParsedBatch(cursor, staged[0].candidate.contract)
    names, inputs = _number_files(staged)
    parsed.parse(inputs)
    judged = _judge_files(parsed, staged, names)
    totals = {
        column: parsed.totals(column) for column in {name for item in staged for name in item.candidate.manifest.totals}
    }
    digests = parsed.content_digests() if staged[0].candidate.contract.is_full_file else {}
    results = []
    for delivery_no, item in enumerate(staged):
        candidate = item.candidate
        try:
            files = judged[delivery_no]
            if isinstance(files, DeliveryRejected):
                raise files
            notes = [
                note
                for column in candidate.manifest.totals
                for note in _check_total(candidate, column, totals[column].get(delivery_no, ColumnTotal(0, 0)))
            ]
        except DeliveryRejected as error:
            _remove_outputs(settings, candidate.manifest.key)
            results.append(_Result(candidate.rejected(error)))
            continue
        outcome = _write(settings, parsed, work, delivery_no, candidate, names[delivery_no], files)
        if candidate.contract.is_full_file and outcome.status == ACCEPTED:
            outcome = replace(outcome, content_digest=digests.get(delivery_no, NO_RECORDS_DIGEST))
        results.append(_Result(outcome, _extra_columns(item), tuple(notes)))
    parsed.drop()
    return results


def _number_files(staged: list[_Staged]) -> tuple[list[FileNames], list[ParserInput]]:
    """Number the files of a batch through; return the names per delivery and what the parser is to read."""
    names, inputs = [], []
    file_no = 0
    for delivery_no, item in enumerate(staged):
        names.append(FileNames(file_no, [file.file.name for file in item.files]))
        for file in item.files:
            if file.path is not None:
                inputs.append(
                    ParserInput(
                        delivery_no=delivery_no,
                        file_no=file_no,
                        spooled=file,
                        business_date=item.candidate.manifest.key.business_date,
                        max_lateness_days=item.candidate.rule.max_lateness_days,
                        is_opaque=item.candidate.manifest.identity == "opaque",
                    )
                )
            file_no += 1
    return names, inputs


def _judge_files(
    parsed: ParsedBatch, staged: list[_Staged], names: list[FileNames]
) -> list[tuple[FileOutcome, ...] | DeliveryRejected]:
    """Hold the records of every file against its manifest; return per delivery the file counts or the refusal."""
    counts = parsed.counts()
    judged: list[tuple[FileOutcome, ...] | DeliveryRejected] = []
    with_ignored_blanks = []
    for item, file_names in zip(staged, names, strict=True):
        outcomes = []
        try:
            for file_no, file in enumerate(item.files, start=file_names.first_file_no):
                outcome, are_blanks_ignored = _judge_rows(item.candidate, file, counts.get(file_no, NO_RECORDS))
                outcomes.append(outcome)
                if are_blanks_ignored:
                    with_ignored_blanks.append(file_no)
            judged.append(tuple(outcomes))
        except DeliveryRejected as error:
            judged.append(error)
    if with_ignored_blanks:
        parsed.drop_blank_lines(with_ignored_blanks)
    return judged


def _judge_rows(candidate: _Candidate, file: SpooledFile, counts: FileCounts) -> tuple[FileOutcome, bool]:
    """Hold the records of one file against its manifest.

    Returns:
        The counts of the file, and whether it has blank lines that are no records. The manifest tells: some
        programs count a blank line, others neither write nor see it.

    Raises:
        DeliveryRejected: `rows_differ`.
    """
    announced = file.file.rows
    records = counts.records - counts.blank
    if announced not in (records, counts.records):
        raise DeliveryRejected(
            "rows_differ",
            _where(candidate, file.file.name),
            f"{announced} records",
            f"{records} records" + (f" and {counts.blank} blank lines" if counts.blank else ""),
            "send the complete file as the next delivery",
        )
    are_blanks_ignored = counts.blank > 0 and announced == records
    quarantined = counts.quarantined + announced - records
    outcome = FileOutcome(
        file_name=file.file.name,
        bytes=file.file.bytes,
        sha256=file.file.sha256,
        rows_in=announced,
        rows_loaded=records - counts.quarantined - counts.duplicates,
        rows_quarantined=quarantined,
        rows_duplicate=counts.duplicates,
    )
    return outcome, are_blanks_ignored


def _check_total(candidate: _Candidate, column: str, counted: ColumnTotal) -> list[str]:
    """Hold a control total against the sum over all records, dropped duplicates included.

    A quarantined record adds its number if that can be read. Where numbers cannot be read, what they were is
    unknown: then the total may be more than the sum of the others, never less.

    Returns:
        A note if the total could not be checked exactly.

    Raises:
        DeliveryRejected: `total_differs`.
    """
    announced = candidate.manifest.totals[column]
    if announced == counted.total:
        return []
    if counted.unreadable and announced > counted.total:
        return [
            f"{candidate.manifest.key}: total of {column} is {announced}, the readable records sum to "
            f"{counted.total}; {counted.unreadable} quarantined records cannot be read there"
        ]
    raise DeliveryRejected(
        "total_differs",
        f"{candidate.found.path} field totals.{column}",
        str(announced),
        str(counted.total),
        "find out whether records or total are wrong, send the next delivery",
    )


def _extra_columns(item: _Staged) -> tuple[str, ...]:
    known = {column.name for column in item.candidate.contract.columns}
    return tuple(sorted({name for file in item.files for name in file.header if name not in known}))


def _write(
    settings: Settings,
    parsed: ParsedBatch,
    work: Path,
    delivery_no: int,
    candidate: _Candidate,
    names: FileNames,
    files: tuple[FileOutcome, ...],
) -> DeliveryOutcome:
    """Write lake and quarantine file of a delivery and return its outcome."""
    key = candidate.manifest.key
    outcome = replace(candidate.outcome(ACCEPTED), files=files)
    lake_file, quarantine_file = _output_files(settings, key)
    if candidate.rule.is_exceeded_by(outcome.rows_quarantined, outcome.rows_in):
        outcome = replace(
            outcome,
            status=OVER_LIMIT,
            reason_code="over_limit",
            reason=str(
                DeliveryRejected(
                    "over_limit",
                    candidate.found.path,
                    f"at most {candidate.rule.max_quarantined_percent} % of the records in quarantine",
                    f"{outcome.rows_quarantined} of {outcome.rows_in}",
                    f"read {quarantine_file.relative_to(settings.home)}, have the source send a better delivery",
                )
            ),
        )
    if outcome.rows_quarantined:
        temporary = work / f"{delivery_no}.csv"
        parsed.write_quarantine(delivery_no, names, temporary)
        _move_into_place(temporary, quarantine_file)
        outcome = replace(outcome, quarantine_path=str(quarantine_file.relative_to(settings.home)))
    else:
        quarantine_file.unlink(missing_ok=True)
    if outcome.status == ACCEPTED and outcome.rows_loaded:
        temporary = work / f"{delivery_no}.lake"
        parsed.write_records(delivery_no, key, names, temporary)
        _move_into_place(temporary, lake_file)
        outcome = replace(outcome, lake_path=str(lake_file.relative_to(settings.home)))
    else:
        lake_file.unlink(missing_ok=True)
    return outcome


def _output_files(settings: Settings, key: DeliveryKey) -> tuple[Path, Path]:
    name = f"{key.source}.d{key.delivery}"
    folder = Path(key.extract) / key.business_date.isoformat()
    return settings.lake / folder / f"{name}.parquet", settings.quarantine / folder / f"{name}.csv"


def _remove_outputs(settings: Settings, key: DeliveryKey) -> None:
    """Remove what a killed or earlier run wrote for a delivery that is not accepted."""
    for path in _output_files(settings, key):
        path.unlink(missing_ok=True)
