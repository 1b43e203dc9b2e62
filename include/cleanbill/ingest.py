"""From landing/ to lake/: verify each delivery, parse it, keep what is right, show what is not.

A delivery is accepted whole, held back or refused; what became of it is recorded in the warehouse in the same
transaction that decides anew which deliveries are in force. Files appear by rename before they are recorded, so a
run that is killed leaves nothing that counts, and the next one does the same work again.
"""

import fcntl
import hashlib
import shutil
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from datetime import date
from pathlib import Path

import duckdb

from cleanbill.contract import CONTRACTS
from cleanbill.control import LOCK_WAIT_SECONDS, open_warehouse
from cleanbill.deliveries import ACCEPTED, REJECTED, DeliveryOutcome, KnownDelivery, read_known_deliveries
from cleanbill.delivery_reader import Candidate, move_into_place, read_batch
from cleanbill.errors import DeliveryRejected, IngestFailed
from cleanbill.ingest_journal import IngestSummary, Journal
from cleanbill.ingest_policy import IngestPolicy, read_ingest_policy
from cleanbill.lake_index import restore_from_lake, write_lake_index
from cleanbill.manifest import DeliveryKey, find_manifests, parse_manifest, read_manifest_bytes
from cleanbill.record_parser import write_empty_lake_file
from cleanbill.settings import Settings, get_settings
from cleanbill.step_times import INGEST, note_step
from cleanbill.storage_faults import FAULTS, any_fault
from cleanbill.withdrawals import load_withdrawals

WORK_FOLDER = ".ingest"
# Many small deliveries share one set of SQL statements; a large one has its own.
BATCH_DELIVERIES = 200
BATCH_ROWS = 500_000


def ingest(date_from: date, date_to: date, settings: Settings | None = None) -> IngestSummary:
    """Take in every delivery of business dates up to `date_to` that is not accepted yet.

    Late and resent deliveries of any age come in too, and refused ones are tried again, so `date_from` only names
    the run; nothing depends on it.

    Raises:
        IngestFailed: the disk is full, a file cannot be written, or another ingest does not end.
        InputFileError: the policy seed or the list of withdrawals is wrong.
    """
    settings = settings or get_settings()
    summary = IngestSummary(date_from, date_to)
    started = time.monotonic()
    try:
        with _only_ingest(settings), _work_folder(settings) as work, _parser_database(settings, work) as database:
            policy = read_ingest_policy(settings.dbt_project)
            if restored := restore_from_lake(settings):
                summary.notes.append(f"the warehouse was empty: {restored} deliveries are known again from the lake")
            with open_warehouse(settings) as warehouse:
                load_withdrawals(warehouse, settings.home)
                known = read_known_deliveries(warehouse)
                _write_empty_lake_files(settings, database, work, warehouse)
            journal = Journal(settings, summary)
            candidates = _select_candidates(settings, policy, known, summary, journal)
            _run_batches(settings, database, work, _batches(candidates), journal)
            journal.flush(final=True)
            write_lake_index(settings, work)
            if summary.rows_in:
                with open_warehouse(settings) as warehouse:
                    note_step(warehouse, INGEST, False, summary.rows_in, time.monotonic() - started)
    except FAULTS as error:
        raise any_fault(error, settings.home, IngestFailed) from None
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
            # Else whether a Parquet column is written as nullable depends on the other deliveries of the batch: the
            # same delivery must always become the same bytes.
            "disabled_optimizers": "statistics_propagation",
        },
    )
    try:
        yield connection
    finally:
        connection.close()


def _write_empty_lake_files(
    settings: Settings, database: duckdb.DuckDBPyConnection, work: Path, warehouse: duckdb.DuckDBPyConnection
) -> None:
    """Make sure that each extract has a sound lake file of no rows, so that a list of its files is never empty."""
    known = dict(
        warehouse.execute(
            "select lake_path, sha256 from control.lake_files where ends_with(lake_path, '/empty.parquet')"
        ).fetchall()
    )
    for extract, contract in CONTRACTS.items():
        lake_path = f"lake/{extract}/empty.parquet"
        target = settings.home / lake_path
        if target.exists() and hashlib.sha256(target.read_bytes()).hexdigest() == known.get(lake_path):
            continue
        temporary = work / f"{extract}.empty"
        write_empty_lake_file(database, contract, temporary)
        digest = hashlib.sha256(temporary.read_bytes()).hexdigest()
        move_into_place(temporary, target)
        warehouse.execute(
            "insert or replace into control.lake_files values ($path, $digest)", {"path": lake_path, "digest": digest}
        )


# --- choosing and reading --------------------------------------------------------------------------------------


def _select_candidates(
    settings: Settings,
    policy: IngestPolicy,
    known: dict[DeliveryKey, KnownDelivery],
    summary: IngestSummary,
    journal: Journal,
) -> list[Candidate]:
    """Return the deliveries to read; manifests that are wrong go straight to the journal."""
    candidates = []
    for found in find_manifests(settings.landing, summary.date_to):
        if isinstance(found, DeliveryRejected):
            journal.report(found)
            continue
        manifest_sha256 = ""
        before = known.get(found.key) if found.key else None
        is_accepted = before is not None and before.status == ACCEPTED
        try:
            content, manifest_sha256 = read_manifest_bytes(settings.landing, found)
            if is_accepted:
                if before.manifest_sha256 != manifest_sha256:
                    raise DeliveryRejected(
                        "delivery_changed",
                        found.path,
                        f"the accepted manifest, sha256 {before.manifest_sha256}",
                        manifest_sha256,
                        "send the new content as the next delivery number; the accepted one stays",
                    )
                if before.lake_path is None or (settings.home / before.lake_path).exists():
                    summary.unchanged += 1
                    continue
                journal.remake(found.key)
            manifest = parse_manifest(found, content)
            rule = policy.rule(manifest.key.extract, manifest.key.source, manifest.key.business_date)
            candidates.append(Candidate(found, manifest, manifest_sha256, rule))
        except DeliveryRejected as error:
            if found.key is None or is_accepted:
                journal.report(error)
            else:
                journal.add(
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


def _batches(candidates: list[Candidate]) -> Iterator[list[Candidate]]:
    """Group deliveries of one extract up to the batch limits."""
    batch: list[Candidate] = []
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


def _run_batches(
    settings: Settings,
    database: duckdb.DuckDBPyConnection,
    work: Path,
    batches: Iterable[list[Candidate]],
    journal: Journal,
) -> None:
    """Read batches side by side; results are recorded here, by one thread."""
    with ThreadPoolExecutor(max_workers=settings.threads) as pool:
        futures = [
            pool.submit(read_batch, settings, database, work / f"batch{number}", batch)
            for number, batch in enumerate(batches)
        ]
        try:
            for future in as_completed(futures):
                for result in future.result():
                    journal.extra_columns(result.outcome.key, result.extra_columns)
                    for note in result.notes:
                        journal.note(note)
                    journal.add(result.outcome)
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise
