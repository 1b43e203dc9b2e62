"""Reads deliveries of one extract: verify all bytes, spool clean lines, parse them in DuckDB, judge, write.

Every number of a delivery is held against its manifest before anything of it appears in the lake.
"""

import hashlib
import os
import shutil
from dataclasses import dataclass, replace
from pathlib import Path

import duckdb

from cleanbill.contract import CONTRACTS, Contract
from cleanbill.deliveries import ACCEPTED, OVER_LIMIT, REJECTED, DeliveryOutcome, FileOutcome
from cleanbill.errors import DeliveryRejected
from cleanbill.ingest_policy import IngestRule
from cleanbill.manifest import DeliveryKey, FoundManifest, Manifest, open_landed
from cleanbill.record_parser import ColumnTotal, FileCounts, FileNames, ParsedBatch, ParserInput
from cleanbill.settings import Settings
from cleanbill.spool import SpooledFile, spool_lines, verify_bytes
from cleanbill.storage_faults import FAULTS

NO_RECORDS = FileCounts(records=0, blank=0, quarantined=0, duplicates=0)
NO_RECORDS_DIGEST = "0"


@dataclass(frozen=True)
class Candidate:
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


@dataclass(frozen=True)
class DeliveryResult:
    """What became of one delivery, with what is worth telling beside it."""

    outcome: DeliveryOutcome
    extra_columns: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Staged:
    """A delivery whose files are verified and spooled."""

    candidate: Candidate
    files: tuple[SpooledFile, ...]


def read_batch(
    settings: Settings, database: duckdb.DuckDBPyConnection, work: Path, batch: list[Candidate]
) -> list[DeliveryResult]:
    """Verify, spool and parse deliveries of one extract; return what became of each."""
    work.mkdir()
    cursor = database.cursor()
    results: list[DeliveryResult] = []
    staged: list[_Staged] = []
    try:
        for number, candidate in enumerate(batch):
            try:
                staged.append(_stage(settings, candidate, work, number))
            except DeliveryRejected as error:
                _remove_outputs(settings, candidate.manifest.key)
                results.append(DeliveryResult(candidate.rejected(error)))
        try:
            results += _parse(settings, cursor, work, staged)
        except FAULTS:
            raise
        except duckdb.Error:
            # Nothing a file holds should get here. If it does, it must cost one delivery, not the run.
            results += [result for item in staged for result in _parse_alone(settings, cursor, work, item)]
    finally:
        cursor.close()
        shutil.rmtree(work, ignore_errors=True)
    return results


def _parse_alone(
    settings: Settings, cursor: duckdb.DuckDBPyConnection, work: Path, staged: _Staged
) -> list[DeliveryResult]:
    try:
        return _parse(settings, cursor, work, [staged])
    except FAULTS:
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
        return [DeliveryResult(candidate.rejected(refusal))]


def _stage(settings: Settings, candidate: Candidate, work: Path, number: int) -> _Staged:
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


def _where(candidate: Candidate, file_name: str) -> str:
    return "/".join(("landing", *candidate.found.folder, file_name))


def _parse(
    settings: Settings, cursor: duckdb.DuckDBPyConnection, work: Path, staged: list[_Staged]
) -> list[DeliveryResult]:
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
            results.append(DeliveryResult(candidate.rejected(error)))
            continue
        outcome = _write(settings, parsed, work, delivery_no, candidate, names[delivery_no], files)
        if candidate.contract.is_full_file and outcome.status == ACCEPTED:
            outcome = replace(outcome, content_digest=digests.get(delivery_no, NO_RECORDS_DIGEST))
        results.append(DeliveryResult(outcome, _extra_columns(item), tuple(notes)))
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


def _judge_rows(candidate: Candidate, file: SpooledFile, counts: FileCounts) -> tuple[FileOutcome, bool]:
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


def _check_total(candidate: Candidate, column: str, counted: ColumnTotal) -> list[str]:
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
    candidate: Candidate,
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
        move_into_place(temporary, quarantine_file)
        outcome = replace(outcome, quarantine_path=str(quarantine_file.relative_to(settings.home)))
    else:
        quarantine_file.unlink(missing_ok=True)
    if outcome.status == ACCEPTED and outcome.rows_loaded:
        temporary = work / f"{delivery_no}.lake"
        parsed.write_records(delivery_no, key, names, temporary)
        with temporary.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
        move_into_place(temporary, lake_file)
        outcome = replace(outcome, lake_path=str(lake_file.relative_to(settings.home)), lake_sha256=digest)
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


def move_into_place(temporary: Path, target: Path) -> None:
    """Rename a finished file to its final name; its content is on disk before its name is."""
    with temporary.open("rb") as stream:
        os.fsync(stream.fileno())
    temporary.chmod(0o640)
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary.replace(target)
