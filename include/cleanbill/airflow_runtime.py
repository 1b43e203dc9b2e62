"""A private Airflow for the command line and the demo: start, trigger, watch, stop.

Scheduler, DAG processor and API server under `CLEANBILL_HOME/airflow`: SQLite, LocalExecutor, loopback only, every
visitor admin. It is for one machine and one person; production is docker-compose.yml. DAG runs are real ones: the
same DAG files, pool, retries and events as in production. Only the clock is off: nothing runs that was not asked for.

These are the parts of `airflow standalone`, started one by one, because standalone serves task logs on all network
interfaces and starts a triggerer that nothing here needs.
"""

import contextlib
import ctypes
import fcntl
import functools
import importlib.metadata
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime
from pathlib import Path
from typing import IO, Any, NoReturn

from rich.console import Console
from rich.text import Text

from cleanbill import run_lease
from cleanbill.errors import RunFailed
from cleanbill.failure_records import read_failure
from cleanbill.run_display import RunOutcome, announced, run_display
from cleanbill.settings import Settings, get_settings

DAILY_DAG = "subscription_daily"
MONTHLY_DAG = "billing_monthly"
POOL = "warehouse"

START_SECONDS = 180  # a cold machine migrates and imports slowly
# How processes are asked to end, and how long each way is given (s). The longest wait is for a task under way.
STOP_SIGNALS = ((signal.SIGINT, 5), (signal.SIGTERM, 2), (signal.SIGKILL, 60))
POLL_SECONDS = 0.5
SILENT_SECONDS = 180
FIRING_SECONDS = 4  # the scheduler looks for complete months every loop (below 1 s)

# What stops an automatic billing run in an orderly way: inputs are missing, or the sealed version differs by now.
EXPECTED_BILLING_STOPS = {"BillingBlocked", "FeedError"}
FINISHED = {"success", "failed"}


# Loaded before any fork, for use between fork and exec.
_LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None
PR_SET_PDEATHSIG = 1

_LOOPBACK = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # a proxy of the user's is for elsewhere


class AirflowRuntime:
    """The private Airflow of this data root."""

    def __init__(self, settings: Settings | None = None, console: Console | None = None) -> None:
        self.settings = settings or get_settings()
        self.console = console or Console(stderr=True)
        self.home = self.settings.home / "airflow"
        self.port = _free_port()
        self._parts: dict[str, subprocess.Popen[bytes]] = {}
        self._lock: IO[str] | None = None

    # --- life ------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start and wait until scheduler, DAG processor and API answer and both DAGs are known.

        Runs that an interrupted command left unfinished are marked failed, so that they do not go on now.

        Raises:
            RunFailed: a part ended or did not become healthy in time; the message names the log.
        """
        self.settings.pseudonym_key_bytes()  # fail here, not in the fifth task
        self.home.mkdir(parents=True, exist_ok=True)
        self._take_lock()
        with announced(self.console, "Starting Airflow …"):
            self._migrate()
            self._spawn("api-server")
            self._spawn("scheduler", "--skip-serve-logs")
            self._spawn("dag-processor")
            self._wait_until_healthy()
            self._abandon_unfinished_runs()
            self._create_pool()

    def stop(self) -> None:
        """Stop all parts; no process is left behind, no run stays unfinished."""
        parts, self._parts = self._parts, {}
        try:
            if parts:
                with announced(self.console, "Stopping Airflow …"):
                    with contextlib.suppress(RunFailed, OSError, ValueError):
                        self._abandon_unfinished_runs()
                    _stop_all(list(parts.values()))
        finally:
            if self._lock is not None:
                self._lock.close()
                self._lock = None

    def _take_lock(self) -> None:
        """Wait until no other command uses the private Airflow of this data root."""
        self._lock = (self.home / "runtime.lock").open("w")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            with announced(self.console, "Waiting for another cleanbill command on this data root …"):
                fcntl.flock(self._lock, fcntl.LOCK_EX)

    def _spawn(self, *command: str) -> subprocess.Popen[bytes]:
        """Start one part of Airflow in a process group of its own, so that Ctrl-C reaches this program alone."""
        with self._log(command[0]).open("ab") as log:
            process = subprocess.Popen(  # noqa: S603
                [str(Path(sys.executable).parent / "airflow"), *command],
                cwd=self.home,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=_become_a_part,
                # Held by every process of the runtime: if this one is killed, the next command waits for the rest.
                pass_fds=() if self._lock is None else (self._lock.fileno(),),
            )
        self._parts[command[0]] = process
        return process

    def _log(self, part: str) -> Path:
        return self.home / f"{part}.log"

    def _migrate(self) -> None:
        """Create or upgrade the metadata database, once per Airflow version."""
        marker = self.home / "migrated"
        version = importlib.metadata.version("apache-airflow")
        if self.database.exists() and marker.exists() and marker.read_text() == version:
            return
        process = self._spawn("db", "migrate")
        if process.wait(START_SECONDS) != 0:
            self._fail_to_start("db")
        del self._parts["db"]
        marker.write_text(version)

    @property
    def database(self) -> Path:
        return self.home / "airflow.db"

    @property
    def logs(self) -> Path:
        return self.home / "logs"

    @functools.cached_property
    def _environment(self) -> dict[str, str]:
        secret = secrets.token_urlsafe(64)
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW")}
        return inherited | {
            "NO_PROXY": "127.0.0.1,localhost",
            "no_proxy": "127.0.0.1,localhost",
            "PYTHONUNBUFFERED": "1",
            "CLEANBILL_HOME": str(self.settings.home),
            "CLEANBILL_SCHEDULE_FROM": "2999-01-01",  # no run by the clock
            "AIRFLOW_HOME": str(self.home),
            "AIRFLOW__CORE__DAGS_FOLDER": str(self.settings.project_root / "dags"),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION": "False",
            "AIRFLOW__CORE__EXECUTOR": "LocalExecutor",
            # A worker stays busy a moment after its task has ended; more workers than pool slots hide that.
            "AIRFLOW__CORE__PARALLELISM": "3",
            "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "True",
            "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"http://127.0.0.1:{self.port}/execution/",
            "AIRFLOW__API__HOST": "127.0.0.1",
            "AIRFLOW__API__PORT": str(self.port),
            "AIRFLOW__API__BASE_URL": f"http://127.0.0.1:{self.port}",
            "AIRFLOW__API__WORKERS": "1",
            "AIRFLOW__API__SECRET_KEY": secret,
            "AIRFLOW__API_AUTH__JWT_SECRET": secret,
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{self.database}",
            "AIRFLOW__LOGGING__BASE_LOG_FOLDER": str(self.logs),
            "AIRFLOW__SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME": "0.3",
            "AIRFLOW__WORKERS__MIN_HEARTBEAT_INTERVAL": "1",  # also how soon the end of a task is noticed
            "AIRFLOW__DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": "3600",  # DAG files do not change during a command
            "AIRFLOW__DAG_PROCESSOR__REFRESH_INTERVAL": "3600",
            "AIRFLOW__DAG_PROCESSOR__STALE_DAG_THRESHOLD": "7200",
            "AIRFLOW__DAG_PROCESSOR__PARSING_PROCESSES": "1",
            "SCARF_ANALYTICS": "false",
            "DO_NOT_TRACK": "1",
        }

    def _wait_until_healthy(self) -> None:
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            self._assert_alive(self._fail_to_start)
            with contextlib.suppress(OSError, ValueError, RunFailed):
                known = {dag["dag_id"] for dag in self.call("GET", "/dags")["dags"]}
                health = self.call("GET", "/monitor/health")
                self._warm_task_api()
                if {DAILY_DAG, MONTHLY_DAG} <= known and health["scheduler"]["status"] == "healthy":
                    return
            time.sleep(POLL_SECONDS)
        self._fail_to_start("scheduler")

    def _warm_task_api(self) -> None:
        """Have the API server build the routes tasks talk to while the scheduler is still starting."""
        url = f"http://127.0.0.1:{self.port}/execution/health"
        with contextlib.suppress(urllib.error.HTTPError), _LOOPBACK.open(url, timeout=60):
            pass

    def _fail_to_start(self, part: str) -> NoReturn:
        log = self._log(part)
        self.stop()
        raise RunFailed(
            where=f"airflow {part}",
            expected=f"healthy within {START_SECONDS} s",
            found=f"not so; last lines of its log:\n{_tail(log)}",
            advice=f"read {log}; to begin anew remove {self.home}",
        )

    def _assert_alive(self, fail: Callable[[str], NoReturn]) -> None:
        for part, process in self._parts.items():
            if process.poll() is not None:
                fail(part)

    def _abandon_unfinished_runs(self) -> None:
        for dag_id in (DAILY_DAG, MONTHLY_DAG):
            for run in self.call("GET", f"/dags/{dag_id}/dagRuns?state=running&state=queued&limit=100")["dag_runs"]:
                quoted = urllib.parse.quote(run["dag_run_id"], safe="")
                self.call("PATCH", f"/dags/{dag_id}/dagRuns/{quoted}", {"state": "failed", "note": "interrupted"})
        run_lease.give_back(lambda holder: holder.orchestrator == str(self.logs), self.settings)

    def _create_pool(self) -> None:
        with contextlib.suppress(RunFailed):  # it exists from an earlier command
            self.call(
                "POST",
                "/pools",
                {"name": POOL, "slots": 1, "description": "one process at a time opens the warehouse"},
            )
        found = self.call("GET", f"/pools/{POOL}")
        if found["slots"] != 1:
            self.call("PATCH", f"/pools/{POOL}", {"slots": 1})

    # --- what it is asked --------------------------------------------------------------------------------------

    def call(self, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        """Call Airflow's REST API and return the answer.

        Raises:
            RunFailed: the API refused the request.
            OSError: the API does not answer.
        """
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}/api/v2{path}",
            data=None if body is None else json.dumps(body).encode(),
            headers={"Content-Type": "application/json"},
            method=method,
        )
        try:
            with _LOOPBACK.open(request, timeout=60) as response:
                return json.loads(response.read() or b"{}")
        except urllib.error.HTTPError as error:
            raise RunFailed(
                where=f"Airflow API, {method} {path}",
                expected="success",
                found=f"HTTP {error.code}: {error.read()[:500].decode(errors='replace')}",
                advice="check the parameters of the run",
            ) from error

    def trigger(self, dag_id: str, conf: dict[str, Any]) -> str:
        """Start a DAG run with parameters `conf`; return its id."""
        body = {"conf": conf, "logical_date": None}
        return self.call("POST", f"/dags/{dag_id}/dagRuns", body)["dag_run_id"]

    def outcome(self, dag_id: str, run_id: str) -> RunOutcome:
        """Return the present state of a run and its tasks."""
        quoted = urllib.parse.quote(run_id, safe="")
        run = self.call("GET", f"/dags/{dag_id}/dagRuns/{quoted}")
        tasks = self.call("GET", f"/dags/{dag_id}/dagRuns/{quoted}/taskInstances")["task_instances"]
        return RunOutcome(dag_id, run_id, run["state"], {task["task_id"]: task["state"] or "waiting" for task in tasks})

    def runs_since(self, dag_id: str, moment: datetime) -> list[dict[str, Any]]:
        """Return the runs of a DAG created at or after `moment`."""
        query = urllib.parse.urlencode({"run_after_gte": moment.isoformat(), "order_by": "run_after", "limit": 100})
        return self.call("GET", f"/dags/{dag_id}/dagRuns?{query}")["dag_runs"]

    def wait(self, dag_id: str, run_id: str, label: str) -> RunOutcome:
        """Wait for a run to end, showing how many of its tasks are done and which one is at work.

        Raises:
            RunFailed: a part of Airflow ended, or its API was silent for SILENT_SECONDS.
        """
        answered = time.monotonic()
        with run_display(self.console, label) as show:
            while True:
                self._assert_alive(self._fail_midway)
                try:
                    now = self.outcome(dag_id, run_id)
                except OSError:  # a busy machine; the parts themselves are alive
                    if time.monotonic() - answered > SILENT_SECONDS:
                        self._fail_midway("api-server")
                else:
                    answered = time.monotonic()
                    show(now)
                    if now.state in FINISHED:
                        return now
                time.sleep(POLL_SECONDS)

    def _fail_midway(self, part: str) -> NoReturn:
        raise RunFailed(
            where=f"airflow {part}",
            expected="running until the run has ended",
            found=f"ended by itself; last lines of its log:\n{_tail(self._log(part))}",
            advice=f"read {self._log(part)} and repeat the command: finished work is kept",
        )

    def raise_if_failed(self, outcome: RunOutcome) -> None:
        """Turn a red run into the message of the task that failed.

        Raises:
            RunFailed: the run ended red.
        """
        if outcome.state == "success":
            return
        failed = [task for task, state in outcome.tasks.items() if state == "failed"]
        record = read_failure(outcome.dag_id, outcome.run_id, self.settings)
        logs = self.logs / f"dag_id={outcome.dag_id}" / f"run_id={outcome.run_id}"
        if record is None:
            found = f"{', '.join(failed) or 'no task'} ended without a message (killed?)"
        else:
            found = (
                f"{record.task_id} failed: {record.message}"
                if record.deliberate
                else (f"{record.task_id} failed with {record.error}: {record.message}")
            )
        raise RunFailed(
            where=f"{outcome.dag_id}, run {outcome.run_id}",
            expected="every task green",
            found=found,
            advice=f"correct the cause and repeat the command; full logs: {logs}",
        )


# --- one runtime per command ---------------------------------------------------------------------------------

_running: AirflowRuntime | None = None


@contextlib.contextmanager
def airflow_running(settings: Settings | None = None, console: Console | None = None) -> Iterator[AirflowRuntime]:
    """Give the private Airflow: the one an outer `with` started, else a new one that is stopped at the end."""
    global _running
    if _running is not None:
        yield _running
        return
    runtime = AirflowRuntime(settings, console)
    try:
        runtime.start()
        _running = runtime
        yield runtime
    finally:
        _running = None
        runtime.stop()


def run_daily(date_from: date, date_to: date) -> None:
    """Run `subscription_daily` for a range of days, then wait for the billing runs it set off.

    Raises:
        RunFailed: the daily run ended red, or a billing run broke. A billing run that found its month not billable
            yet is shown, not raised: the days themselves are loaded and published.
    """
    with airflow_running() as runtime:
        moment = datetime.now(UTC)
        run_id = runtime.trigger(DAILY_DAG, {"from_date": date_from.isoformat(), "to_date": date_to.isoformat()})
        runtime.raise_if_failed(runtime.wait(DAILY_DAG, run_id, f"days {date_from} … {date_to}"))
        _follow_billing_runs(runtime, moment)


def bill_month(month: date, auto_approve: bool) -> RunOutcome:
    """Run `billing_monthly` for month M and return how its tasks ended (all skipped: nothing new to bill).

    Raises:
        RunFailed: the run ended red; the message is that of the failing task.
    """
    with airflow_running() as runtime:
        run_id = runtime.trigger(MONTHLY_DAG, {"month": f"{month:%Y-%m}", "auto_approve": auto_approve})
        outcome = runtime.wait(MONTHLY_DAG, run_id, f"bill {month:%Y-%m}")
        runtime.raise_if_failed(outcome)
        return outcome


def _follow_billing_runs(runtime: AirflowRuntime, moment: datetime) -> None:
    seen: set[str] = set()
    quiet_since = time.monotonic()
    while time.monotonic() - quiet_since < FIRING_SECONDS:
        for run in runtime.runs_since(MONTHLY_DAG, moment):
            if run["dag_run_id"] in seen:
                continue
            seen.add(run["dag_run_id"])
            outcome = runtime.wait(MONTHLY_DAG, run["dag_run_id"], f"billing after {run['partition_key']}")
            _report_billing_run(runtime, outcome)
            quiet_since = time.monotonic()
        time.sleep(POLL_SECONDS)


def _report_billing_run(runtime: AirflowRuntime, outcome: RunOutcome) -> None:
    try:
        runtime.raise_if_failed(outcome)
    except RunFailed as error:
        record = read_failure(outcome.dag_id, outcome.run_id, runtime.settings)
        if record is None or record.error not in EXPECTED_BILLING_STOPS:
            raise
        runtime.console.print(Text.assemble(("Not billed: ", "yellow"), error.found), soft_wrap=True)


# --- processes -------------------------------------------------------------------------------------------------


def _become_a_part() -> None:
    """Make a new process end on SIGINT, whatever its parent ignores, and on the death of its parent (Linux)."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if _LIBC is not None:
        _LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def _stop_all(processes: list[subprocess.Popen[bytes]]) -> None:
    """Ask every process to end, then end whatever is left of its group; returns when nothing is left.

    Somebody who presses Ctrl-C again while this waits gets the next, ruder way at once.
    """
    for kind, seconds in STOP_SIGNALS:
        with contextlib.suppress(KeyboardInterrupt):
            _signal_and_wait(processes, kind, seconds)


def _signal_and_wait(processes: list[subprocess.Popen[bytes]], kind: signal.Signals, seconds: float) -> None:
    alive = [process for process in processes if _group_alive(process)]
    for process in alive:
        with contextlib.suppress(ProcessLookupError):
            if kind is signal.SIGINT:
                process.send_signal(kind)  # the parent alone: it ends its workers in order
            else:
                os.killpg(process.pid, kind)
    deadline = time.monotonic() + seconds
    while any(_group_alive(process) for process in alive) and time.monotonic() < deadline:
        time.sleep(0.05)


def _group_alive(process: subprocess.Popen[bytes]) -> bool:
    process.poll()  # reaps it, else its group stays visible
    try:
        os.killpg(process.pid, 0)
    except ProcessLookupError:
        return False
    return True


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _tail(path: Path, lines: int = 15) -> str:
    if not path.exists():
        return "(no log)"
    return "\n".join(path.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:])
