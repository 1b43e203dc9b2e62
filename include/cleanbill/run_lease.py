"""The run lease: at most one run at a time works on the warehouse, and a run is not interrupted by another.

A run is several tasks, each a process of its own, and what one task leaves behind (which deliveries a build began
with, what a gate judged) is for the next task of the same run. The pool of one slot keeps two tasks apart, not two
runs: a backfill starts many runs at once. So the first task of a run takes the lease, its last one gives it back,
and a task that finds it taken ends at once to be tried again later.

Two files of `warehouse/`: `run.lock` is locked by the operating system while a task works (and by what it started,
so a killed task is not overtaken by its own dbt), `run_lease.json` names the run the warehouse belongs to between
its tasks. A run that ended without giving it back, as a killed one does, loses it: as soon as Airflow says that the
run is not running, or when nobody of it has worked for `STALE_SECONDS`.
"""

import contextlib
import fcntl
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from cleanbill.errors import CleanbillError
from cleanbill.settings import Settings, get_settings

# Longer than Airflow takes to notice that a worker died (300 s) and to try its task again (30 s).
STALE_SECONDS = 900

_locked: list[int] = []  # the descriptor of run.lock while this process works


class LeaseTaken(CleanbillError):
    """Another run is at work; the task is to be tried again later."""


@dataclass(frozen=True)
class Lease:
    """Whose turn it is: the run, its newest task, and when that last began or ended (seconds since the epoch)."""

    dag_id: str
    run_id: str
    task_id: str
    orchestrator: str  # which Airflow knows the run: there may be two on one data root
    seen_at: float

    def is_of(self, other: "Lease") -> bool:
        """Tell whether both speak of the same run."""
        return self.run_key == other.run_key

    @property
    def run_key(self) -> tuple[str, str, str]:
        return self.orchestrator, self.dag_id, self.run_id


@contextlib.contextmanager
def working(
    wanted: Lease, has_ended: Callable[[Lease], bool], settings: Settings | None = None, ends_run: bool = False
) -> Iterator[None]:
    """Work as a task of a run, alone; the lease stays with the run afterwards, unless `ends_run`.

    Args:
        wanted: run and task that are about to work.
        has_ended: asked about the run that holds the lease while none of its tasks works; True frees the lease.
        settings: the installation.
        ends_run: this is the run's last task; when it has ended well, the lease is given back.

    Raises:
        LeaseTaken: another run holds the lease. Nothing was done, nothing was waited for.
    """
    settings = settings or get_settings()
    settings.warehouse_folder.mkdir(parents=True, exist_ok=True)
    with (settings.warehouse_folder / "run.lock").open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise _taken(_read(settings), "a task of it is at work") from None
        holder = _read(settings)
        if holder is not None and not holder.is_of(wanted) and not _is_stale(holder) and not has_ended(holder):
            raise _taken(holder, "it is between two of its tasks")
        _write(wanted, settings)
        _locked.append(lock.fileno())
        try:
            yield
            if ends_run:
                _path(settings).unlink(missing_ok=True)
        finally:
            _locked.remove(lock.fileno())
            with contextlib.suppress(OSError):  # the error of the task itself is the one to show
                if _path(settings).exists():
                    _write(_now(wanted), settings)


def give_back(ended: Callable[[Lease], bool], settings: Settings | None = None) -> None:
    """Free the lease if it is of a run that has ended without its last task: failed, skipped, abandoned."""
    settings = settings or get_settings()
    if not _path(settings).exists():
        return
    with (settings.warehouse_folder / "run.lock").open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return  # somebody works, so the lease is theirs by now
        holder = _read(settings)
        if holder is not None and ended(holder):
            _path(settings).unlink(missing_ok=True)


def handed_on() -> tuple[int, ...]:
    """Return the descriptors a child process has to keep, so that the lock lasts while it works for a dead parent."""
    return tuple(_locked)


def lease_of(dag_id: str, run_id: str, task_id: str, orchestrator: str) -> Lease:
    """Return what a task of a run asks for, now."""
    return Lease(dag_id, run_id, task_id, orchestrator, time.time())


def _now(lease: Lease) -> Lease:
    return lease_of(lease.dag_id, lease.run_id, lease.task_id, lease.orchestrator)


def _is_stale(holder: Lease) -> bool:
    return abs(time.time() - holder.seen_at) > STALE_SECONDS  # also when the clock was set back


def _path(settings: Settings) -> Path:
    return settings.warehouse_folder / "run_lease.json"


def _read(settings: Settings) -> Lease | None:
    """Return who holds the lease; a file that cannot be read holds nothing (it is written by one rename)."""
    try:
        return Lease(**json.loads(_path(settings).read_text(encoding="utf-8")))
    except (FileNotFoundError, ValueError, TypeError):
        return None


def _write(lease: Lease, settings: Settings) -> None:
    temporary = _path(settings).with_suffix(".tmp")  # the lock is held: nobody else writes it
    temporary.write_text(json.dumps(asdict(lease)), encoding="utf-8")
    temporary.replace(_path(settings))


def _taken(holder: Lease | None, found: str) -> LeaseTaken:
    name = f"run {holder.run_id} of {holder.dag_id}, task {holder.task_id}" if holder else "another run"
    return LeaseTaken(
        where="run lease of the warehouse",
        expected="no other run at work",
        found=f"{name}: {found}",
        advice="wait: the task is tried again by itself when that run has ended",
    )
