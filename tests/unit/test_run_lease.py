"""The lease: one run at a time works on the warehouse, whatever happens to the one before."""

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from cleanbill import run_lease, run_turns
from cleanbill.run_lease import Lease, LeaseTaken, lease_of, working
from cleanbill.settings import get_settings

HERE = "/airflow/logs"


def of(run_id: str, task_id: str = "build_staging", dag_id: str = "subscription_daily", where: str = HERE) -> Lease:
    return lease_of(dag_id, run_id, task_id, where)


def goes_on(_: Lease) -> bool:
    return False


def has_ended(_: Lease) -> bool:
    return True


def holder(home: Path) -> str | None:
    path = home / "warehouse" / "run_lease.json"
    return json.loads(path.read_text())["run_id"] if path.exists() else None


def work(lease: Lease, ended: Any = goes_on, **more: Any) -> None:
    with working(lease, ended, **more):
        pass


def test_a_run_keeps_the_lease_between_its_tasks_and_gives_it_back_with_the_last(cleanbill_home: Path) -> None:
    work(of("a", "ingest_extracts"))
    assert holder(cleanbill_home) == "a"
    with pytest.raises(LeaseTaken, match=r"run a of subscription_daily, task ingest_extracts"):
        work(of("b"))
    work(of("a", "check_raw"))
    work(of("a", "close_days"), ends_run=True)
    assert holder(cleanbill_home) is None
    work(of("b"))
    assert holder(cleanbill_home) == "b"


@pytest.mark.parametrize(
    "other", [of("b"), of("a", dag_id="billing_monthly"), of("a", where="/another/airflow")], ids=["run", "dag", "home"]
)
@pytest.mark.usefixtures("cleanbill_home")
def test_a_run_is_known_by_id_dag_and_airflow(other: Lease) -> None:
    work(of("a"))
    with pytest.raises(LeaseTaken):
        work(other)


def test_while_a_task_works_not_even_its_own_run_starts_another(cleanbill_home: Path) -> None:
    with working(of("a"), goes_on):
        for late in (of("a"), of("b")):
            with pytest.raises(LeaseTaken, match="at work"):
                work(late, has_ended)
    assert holder(cleanbill_home) == "a"


def test_a_run_that_airflow_says_has_ended_loses_it(cleanbill_home: Path) -> None:
    work(of("a"))
    work(of("b"), has_ended)
    assert holder(cleanbill_home) == "b"


@pytest.mark.parametrize(("idle", "is_free"), [(-2, False), (+2, True)])
def test_a_run_nobody_of_which_has_worked_for_long_loses_it(
    cleanbill_home: Path, monkeypatch: pytest.MonkeyPatch, idle: int, is_free: bool
) -> None:
    work(of("a"))
    now = time.time()
    monkeypatch.setattr(run_lease.time, "time", lambda: now + run_lease.STALE_SECONDS + idle)
    if is_free:
        work(of("b"))
    else:
        with pytest.raises(LeaseTaken):
            work(of("b"))
    assert holder(cleanbill_home) == ("b" if is_free else "a")


def test_the_time_counts_from_the_end_of_the_last_task(cleanbill_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = time.time()
    with working(of("a"), goes_on):
        monkeypatch.setattr(run_lease.time, "time", lambda: now + 10 * run_lease.STALE_SECONDS)
    with pytest.raises(LeaseTaken):
        work(of("b"))
    assert holder(cleanbill_home) == "a"


def test_a_failed_task_keeps_it_until_the_run_has_failed(cleanbill_home: Path) -> None:
    with pytest.raises(ValueError, match="a bug"), working(of("a", "close_days"), goes_on, ends_run=True):
        raise ValueError("a bug")  # it may be tried again
    assert holder(cleanbill_home) == "a"
    run_lease.give_back(of("b").is_of)
    assert holder(cleanbill_home) == "a"
    run_lease.give_back(of("a").is_of)
    assert holder(cleanbill_home) is None


def test_it_is_not_given_back_under_the_hands_of_who_works(cleanbill_home: Path) -> None:
    with working(of("a"), goes_on):
        run_lease.give_back(has_ended)
        assert holder(cleanbill_home) == "a"


@pytest.mark.parametrize("content", ["", "{", "[]", '{"run_id": "a"}', '{"dag_id": 1, "more": 2}'])
def test_a_damaged_file_stops_nobody(cleanbill_home: Path, content: str) -> None:
    (cleanbill_home / "warehouse").mkdir()
    (cleanbill_home / "warehouse" / "run_lease.json").write_text(content)
    work(of("b"))
    assert holder(cleanbill_home) == "b"


TASK = """
import subprocess, sys, time
from cleanbill.run_lease import lease_of, working, handed_on
with working(lease_of("subscription_daily", "a", "build_marts", "/airflow/logs"), lambda holder: False):
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], pass_fds=handed_on())
    print(child.pid, flush=True)
    time.sleep(60)
"""


@pytest.fixture
def killed_task(cleanbill_home: Path) -> Iterator[int]:
    """Kill a task in the middle of its work; gives the id of the process it had started, which lives on."""
    task = subprocess.Popen([sys.executable, "-c", TASK], stdout=subprocess.PIPE, text=True)
    child = int(task.stdout.readline())
    task.kill()
    task.wait()
    yield child
    subprocess.run(["kill", "-9", str(child)], check=False, capture_output=True)


def test_a_killed_task_blocks_only_while_what_it_started_works(killed_task: int, cleanbill_home: Path) -> None:
    with pytest.raises(LeaseTaken, match="at work"):
        work(of("b"), has_ended)
    subprocess.run(["kill", "-9", str(killed_task)], check=True)
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline and holder(cleanbill_home) != "b":
        try:
            work(of("b"), has_ended)
        except LeaseTaken:
            time.sleep(0.05)
    assert holder(cleanbill_home) == "b"


# --- in the terms of Airflow ------------------------------------------------------------------------------------


def instance(run_id: str, states: dict[str, str] | None = None) -> SimpleNamespace:
    """Give a task instance that knows the states of runs; of an unknown one it raises, as Airflow does."""
    return SimpleNamespace(
        dag_id="subscription_daily",
        run_id=run_id,
        task_id="check_raw",
        get_dagrun_state=lambda dag_id, run_id: (states or {})[run_id],
    )


def turn_of(run_id: str, states: dict[str, str] | None = None, error: Exception | None = None, ends: bool = False):
    with run_turns.turn({"ti": instance(run_id, states)}, ends):
        if error is not None:
            raise error


def test_a_task_waits_by_being_rescheduled(cleanbill_home: Path) -> None:
    from airflow.sdk.exceptions import AirflowRescheduleException

    turn_of("a")
    with pytest.raises(AirflowRescheduleException) as caught:
        turn_of("b", {"a": "running"})
    low, high = (share * get_settings().run_wait_seconds for share in run_turns.WAIT_SPREAD)
    assert low - 2 <= (caught.value.reschedule_date - datetime.now(UTC)).total_seconds() <= high
    assert holder(cleanbill_home) == "a"


@pytest.mark.parametrize("state", ["success", "failed", "queued"])
def test_a_run_that_is_not_running_blocks_nobody(cleanbill_home: Path, state: str) -> None:
    turn_of("a")
    turn_of("b", {"a": state})
    assert holder(cleanbill_home) == "b"


def test_a_run_airflow_does_not_know_blocks_until_it_is_stale(cleanbill_home: Path) -> None:
    from airflow.sdk.exceptions import AirflowRescheduleException

    turn_of("a")
    with pytest.raises(AirflowRescheduleException):
        turn_of("b", {})
    assert holder(cleanbill_home) == "a"


def test_a_skipped_task_ends_its_run(cleanbill_home: Path) -> None:
    from airflow.sdk.exceptions import AirflowSkipException

    with pytest.raises(AirflowSkipException):
        turn_of("a", error=AirflowSkipException("nothing to do"))
    assert holder(cleanbill_home) is None


def test_a_failure_that_is_final_gives_it_back(cleanbill_home: Path) -> None:
    with pytest.raises(OSError, match="disk full"):
        turn_of("a", error=OSError("disk full"))
    assert holder(cleanbill_home) == "a"
    run_turns.give_back_after_failure({"ti": instance("a")})
    assert holder(cleanbill_home) is None
