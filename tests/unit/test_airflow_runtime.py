"""The private Airflow's own parts, without Airflow: processes, failure texts, progress, settings of the children."""

import io
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from cleanbill import airflow_runtime
from cleanbill.airflow_runtime import AirflowRuntime
from cleanbill.errors import RunFailed, SettingsError
from cleanbill.failure_records import FailureRecord, write_failure
from cleanbill.run_display import RunOutcome, run_display
from rich.console import Console

# Starts a child that ignores every polite signal, as it does itself, and says when both are ready.
STUBBORN = """
import os, signal, sys, time
for kind in (signal.SIGINT, signal.SIGTERM):
    signal.signal(kind, signal.SIG_IGN)
if os.fork():
    print("ready", flush=True)
time.sleep(600)
"""
POLITE = "import sys, time\nprint('ready', flush=True)\ntime.sleep(600)"


def start(code: str) -> subprocess.Popen[bytes]:
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        preexec_fn=airflow_runtime._become_a_part,
    )
    assert process.stdout.readline() == b"ready\n"
    return process


def group_exists(process: subprocess.Popen[bytes]) -> bool:
    try:
        os.killpg(process.pid, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.fixture
def _short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    waits = ((signal.SIGINT, 0.5), (signal.SIGTERM, 0.5), (signal.SIGKILL, 10))
    monkeypatch.setattr(airflow_runtime, "STOP_SIGNALS", waits)


@pytest.mark.usefixtures("_short_waits")
def test_stopping_leaves_no_process_even_of_stubborn_ones() -> None:
    processes = [start(STUBBORN), start(POLITE)]
    airflow_runtime._stop_all(processes)
    for process in processes:
        assert not group_exists(process)
    assert processes[0].returncode == -signal.SIGKILL
    assert processes[1].returncode not in (None, -signal.SIGKILL)


@pytest.mark.usefixtures("_short_waits")
def test_stopping_what_has_ended_already_is_quiet() -> None:
    process = start(POLITE)
    process.kill()
    process.wait()
    airflow_runtime._stop_all([process])


def test_a_second_ctrl_c_is_ruder_and_still_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    process = start(STUBBORN)
    real, calls = airflow_runtime._signal_and_wait, []

    def interrupted(processes: list[subprocess.Popen[bytes]], kind: signal.Signals, seconds: float) -> None:
        calls.append(kind)
        if kind is not signal.SIGKILL:
            raise KeyboardInterrupt
        real(processes, kind, seconds)

    monkeypatch.setattr(airflow_runtime, "_signal_and_wait", interrupted)
    airflow_runtime._stop_all([process])
    assert calls == [signal.SIGINT, signal.SIGTERM, signal.SIGKILL]
    assert not group_exists(process)


@pytest.mark.skipif(sys.platform != "linux", reason="the death of a parent is told on Linux only")
def test_parts_end_when_this_program_is_killed(tmp_path: Path) -> None:
    parent = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import subprocess, sys, time\n"
            "from cleanbill import airflow_runtime\n"
            "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'], "
            "start_new_session=True, preexec_fn=airflow_runtime._become_a_part)\n"
            "print(child.pid, flush=True)\ntime.sleep(600)",
        ],
        stdout=subprocess.PIPE,
    )
    child = int(parent.stdout.readline())
    parent.kill()
    parent.wait()
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline and Path(f"/proc/{child}").exists():
        time.sleep(0.05)
    assert not Path(f"/proc/{child}").exists()


# --- what the children are told -----------------------------------------------------------------------------------


def test_the_private_airflow_is_closed_and_does_nothing_by_the_clock(cleanbill_home: Path) -> None:
    environment = AirflowRuntime()._environment
    assert environment["AIRFLOW__API__HOST"] == "127.0.0.1"
    assert environment["AIRFLOW__CORE__LOAD_EXAMPLES"] == "False"
    assert environment["AIRFLOW_HOME"] == str(cleanbill_home / "airflow")
    assert environment["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"] == f"sqlite:///{cleanbill_home}/airflow/airflow.db"
    assert date.fromisoformat(environment["CLEANBILL_SCHEDULE_FROM"]).year > 2900
    assert len(environment["AIRFLOW__API_AUTH__JWT_SECRET"]) >= 64
    assert (
        AirflowRuntime()._environment["AIRFLOW__API_AUTH__JWT_SECRET"] != environment["AIRFLOW__API_AUTH__JWT_SECRET"]
    )


def test_a_proxy_or_another_airflow_of_the_user_does_not_interfere(
    cleanbill_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW__CORE__EXECUTOR", "CeleryExecutor")
    monkeypatch.setenv("AIRFLOW__CORE__PLUGINS_FOLDER", "/elsewhere")
    monkeypatch.setenv("AIRFLOW_CONN_ELSEWHERE", "x")
    monkeypatch.setenv("HTTP_PROXY", "http://proxy.invalid:3128")
    environment = AirflowRuntime()._environment
    assert environment["AIRFLOW__CORE__EXECUTOR"] == "LocalExecutor"
    assert not {"AIRFLOW__CORE__PLUGINS_FOLDER", "AIRFLOW_CONN_ELSEWHERE"} & set(environment)
    assert "127.0.0.1" in environment["no_proxy"]
    assert "127.0.0.1" in environment["NO_PROXY"]


def test_without_a_key_nothing_is_started(cleanbill_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from cleanbill.settings import get_settings

    monkeypatch.delenv("CLEANBILL_PSEUDONYM_KEY")
    get_settings.cache_clear()
    with pytest.raises(SettingsError):
        AirflowRuntime().start()
    assert not (cleanbill_home / "airflow").exists()


@pytest.fixture
def starts(monkeypatch: pytest.MonkeyPatch, cleanbill_home: Path) -> Iterator[list[str]]:
    events: list[str] = []
    monkeypatch.setattr(AirflowRuntime, "start", lambda self: events.append("start"))
    monkeypatch.setattr(AirflowRuntime, "stop", lambda self: events.append("stop"))
    yield events


def test_an_inner_use_takes_the_runtime_of_the_outer_one(starts: list[str]) -> None:
    with airflow_runtime.airflow_running() as outer:
        with airflow_runtime.airflow_running() as inner:
            assert inner is outer
        assert starts == ["start"]
    assert starts == ["start", "stop"]


@pytest.mark.parametrize("error", [RunFailed("a", "b", "c", "d"), KeyboardInterrupt()])
def test_the_runtime_is_stopped_whatever_happens(starts: list[str], error: BaseException) -> None:
    with pytest.raises(type(error)), airflow_runtime.airflow_running():
        raise error
    assert starts == ["start", "stop"]


# --- failures -----------------------------------------------------------------------------------------------------


def failed_run(dag_id: str = "subscription_daily") -> RunOutcome:
    return RunOutcome(dag_id, "manual__1", "failed", {"ingest_extracts": "success", "check_raw": "failed"})


def record(message: str, deliberate: bool, error: str = "GateFailed", dag_id: str = "subscription_daily") -> None:
    write_failure(FailureRecord(dag_id, "manual__1", "check_raw", error, message, deliberate))


def failure_text(outcome: RunOutcome) -> str:
    with pytest.raises(RunFailed) as caught:
        AirflowRuntime().raise_if_failed(outcome)
    return str(caught.value)


@pytest.mark.usefixtures("cleanbill_home")
def test_a_red_run_tells_what_the_task_said() -> None:
    record("gate raw: expected no rows; found 3", deliberate=True)
    text = failure_text(failed_run())
    assert "check_raw failed: gate raw: expected no rows; found 3" in text
    assert "GateFailed" not in text


@pytest.mark.usefixtures("cleanbill_home")
def test_an_unforeseen_error_is_named_by_its_kind() -> None:
    record("no such column", deliberate=False, error="KeyError")
    assert "check_raw failed with KeyError: no such column" in failure_text(failed_run())


@pytest.mark.usefixtures("cleanbill_home")
def test_a_killed_task_is_named_too() -> None:
    assert "check_raw ended without a message" in failure_text(failed_run())


@pytest.mark.usefixtures("cleanbill_home")
def test_a_green_run_raises_nothing() -> None:
    AirflowRuntime().raise_if_failed(RunOutcome("subscription_daily", "manual__1", "success", {}))


@pytest.mark.usefixtures("cleanbill_home")
@pytest.mark.parametrize(
    ("error", "raised"), [("BillingBlocked", False), ("FeedError", False), ("GateFailed", True), ("KeyError", True)]
)
def test_an_automatic_billing_run_that_cannot_bill_yet_does_not_fail_the_days(error: str, raised: bool) -> None:
    record("day missing", deliberate=True, error=error, dag_id="billing_monthly")
    console = Console(file=io.StringIO(), width=200)
    runtime = AirflowRuntime(console=console)
    if raised:
        with pytest.raises(RunFailed):
            airflow_runtime._report_billing_run(runtime, failed_run("billing_monthly"))
    else:
        airflow_runtime._report_billing_run(runtime, failed_run("billing_monthly"))
        assert "Not billed: check_raw failed: day missing" in console.file.getvalue()


# --- waiting and progress -----------------------------------------------------------------------------------------


@pytest.mark.usefixtures("cleanbill_home")
def test_a_silent_api_is_borne_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(airflow_runtime, "POLL_SECONDS", 0)
    answers: list[Any] = [OSError("timed out"), OSError("refused"), RunOutcome("d", "r", "success", {"a": "success"})]

    def outcome(self: AirflowRuntime, dag_id: str, run_id: str) -> RunOutcome:
        answer = answers.pop(0)
        if isinstance(answer, OSError):
            raise answer
        return answer

    monkeypatch.setattr(AirflowRuntime, "outcome", outcome)
    runtime = AirflowRuntime(console=Console(file=io.StringIO()))
    assert runtime.wait("d", "r", "label").state == "success"
    answers[:] = [OSError("timed out")] * 3
    monkeypatch.setattr(airflow_runtime, "SILENT_SECONDS", -1)
    with pytest.raises(RunFailed):
        runtime.wait("d", "r", "label")


@pytest.mark.usefixtures("cleanbill_home")
def test_a_part_that_dies_ends_the_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    runtime = AirflowRuntime(console=Console(file=io.StringIO()))
    process = start(POLITE)
    runtime._parts["scheduler"] = process
    process.kill()
    process.wait()
    with pytest.raises(RunFailed, match="airflow scheduler"):
        runtime.wait("d", "r", "label")


def test_progress_without_a_terminal_is_one_line_per_finished_task() -> None:
    console = Console(file=io.StringIO(), width=200)
    with run_display(console, "days") as show:
        show(RunOutcome("d", "r", "running", {"a": "running", "b": "waiting"}))
        show(RunOutcome("d", "r", "running", {"a": "success", "b": "running"}))
        show(RunOutcome("d", "r", "running", {"a": "success", "b": "running"}))
        show(RunOutcome("d", "r", "failed", {"a": "success", "b": "failed"}))
    assert console.file.getvalue().splitlines() == ["days: 1/2 a success", "days: 2/2 b failed"]


def test_progress_on_a_terminal_names_the_task_at_work() -> None:
    console = Console(file=io.StringIO(), width=200, force_terminal=True)
    with run_display(console, "days") as show:
        show(RunOutcome("d", "r", "running", {"a": "success", "b": "up_for_retry"}))
    text = console.file.getvalue()
    assert "1/2 tasks" in text
    assert "b (will be tried again)" in text


@pytest.mark.parametrize(
    ("tasks", "expected"),
    [
        ({"a": "skipped", "b": "skipped"}, "nothing to do"),
        ({"a": "success", "b": "skipped"}, "success"),
        ({"a": "success", "b": "scheduled"}, "waiting"),
        ({"a": "up_for_reschedule", "b": "waiting"}, "waiting for another run"),
        ({}, "waiting"),
    ],
)
def test_what_a_run_is_at(tasks: dict[str, str], expected: str) -> None:
    assert RunOutcome("d", "r", "success", tasks).at == expected
