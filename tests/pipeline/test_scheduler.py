"""The two DAGs under the real scheduler, on a month of a very small operator.

`dag.test()` runs serially and hides what this is about: runs asked for at once, by hand and by a backfill, never
interleave; a red gate stops a run without retries and a cleared run goes on; the month is billed once, when its last
day has passed; and days taken in one by one, in whatever order, leave the marts of one build of all of them.
"""

import gzip
import hashlib
import io
import json
import re
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import duckdb
import pytest
from cleanbill import airflow_runtime, run_lease
from cleanbill.airflow_runtime import DAILY_DAG, MONTHLY_DAG, AirflowRuntime, RunOutcome
from cleanbill.build import build_scratch
from cleanbill.errors import RunFailed
from cleanbill.settings import get_settings
from cleanbill.simulator import simulate
from rich.console import Console

from tests.replay import table_rows

pytestmark = [pytest.mark.scheduler, pytest.mark.slow]

FIRST_DAY, END_OF_RANGE, DAY_BEFORE, LAST_DAY = (date(2026, 2, day) for day in (1, 26, 27, 28))
LONGEST_TEST_SECONDS = 900
QUIET_SECONDS = 3  # several scheduler loops: enough for a run that should not start to show itself
MSISDN = re.compile(rb"(?=(1\d{10}))")


@pytest.fixture(autouse=True)
def _time_limit() -> Iterator[None]:
    def stop(*_: object) -> None:
        raise TimeoutError(f"the scheduler test took longer than {LONGEST_TEST_SECONDS} s")

    previous = signal.signal(signal.SIGALRM, stop)
    signal.alarm(LONGEST_TEST_SECONDS)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, previous)


def spoil_delivery(folder: Path) -> None:
    """Break two records of the events in `folder`: far over the limit of one in a hundred."""
    (data,) = folder.glob("*.csv.gz")
    (path,) = folder.glob("*.manifest.json")
    lines = gzip.decompress(data.read_bytes()).decode().splitlines()
    for number in (1, 2):
        fields = lines[number].split(",")
        lines[number] = ",".join([fields[0], "no number", *fields[2:]])
    write_delivery(data, path, json.loads(path.read_text()), "\n".join(lines) + "\n")


def resend_delivery(folder: Path, good: bytes) -> None:
    """Land delivery 2 with the good bytes."""
    (data,) = folder.glob("*.csv.gz")
    (path,) = folder.glob("*.manifest.json")
    manifest = json.loads(path.read_text()) | {"delivery": 2}
    second = data.with_name(data.name.replace(".csv.gz", "_d2.csv.gz"))
    write_delivery(
        second, path.with_name(path.name.replace(".manifest", "_d2.manifest")), manifest, gzip.decompress(good).decode()
    )


def write_delivery(data: Path, path: Path, manifest: dict[str, Any], text: str) -> None:
    content = gzip.compress(text.encode(), mtime=0)
    data.write_bytes(content)
    manifest["files"][0] |= {
        "name": data.name,
        "bytes": len(content),
        "sha256": hashlib.sha256(content).hexdigest(),
    }
    path.write_text(json.dumps(manifest))


def days(date_from: date, date_to: date) -> dict[str, str]:
    return {"from_date": date_from.isoformat(), "to_date": date_to.isoformat()}


def clear(runtime: AirflowRuntime, run_id: str, only_failed: bool) -> None:
    runtime.call("POST", f"/dags/{DAILY_DAG}/dagRuns/{run_id}/clear", {"dry_run": False, "only_failed": only_failed})


def backfill(runtime: AirflowRuntime, date_from: date, date_to: date) -> list[str]:
    """Start a backfill as production does, ten runs at once; returns the runs it made."""
    command = ["backfill", "create", "--dag-id", DAILY_DAG, "--max-active-runs", "10"]
    command += ["--from-date", date_from.isoformat(), "--to-date", (date_to + timedelta(days=1)).isoformat()]
    airflow = Path(sys.executable).with_name("airflow")
    made = subprocess.run([airflow, *command], env=runtime._environment, capture_output=True, text=True, check=False)
    assert made.returncode == 0, made.stderr[-2000:]
    found = runtime.call("GET", f"/dags/{DAILY_DAG}/dagRuns?run_type=backfill&limit=100")["dag_runs"]
    assert {run["partition_key"] for run in found} == {day.isoformat() for day in (date_from, date_to)}
    return [run["dag_run_id"] for run in found]


def wait_for_task(runtime: AirflowRuntime, run_id: str, task_id: str, state: str) -> None:
    while runtime.outcome(DAILY_DAG, run_id).tasks[task_id] != state:
        time.sleep(0.2)


def failure_text(runtime: AirflowRuntime, outcome: RunOutcome) -> str:
    with pytest.raises(RunFailed) as caught:
        runtime.raise_if_failed(outcome)
    return str(caught.value)


def task_spans(runtime: AirflowRuntime) -> list[tuple[str, str, int, str, str]]:
    """Return (run, task, try, start, end) of every task that ran, in order of start, from Airflow's database."""
    with sqlite3.connect(f"file:{runtime.database}?mode=ro", uri=True) as connection:
        return connection.execute(
            "select run_id, task_id, try_number, start_date, end_date from task_instance "
            "where try_number > 0 and start_date is not null order by start_date"
        ).fetchall()


def assert_serial(spans: list[tuple[str, str, int, str, str]], run_ids: list[str]) -> None:
    """Every task ends before the next begins, and a run's tasks stand together."""
    for before, after in pairwise(spans):
        assert before[4] <= after[3], (before, after)
    order = [span[0] for span in spans if span[0] in run_ids]
    assert order == sorted(order, key=order.index), order


def runs_of_month(runtime: AirflowRuntime, since: datetime) -> list[dict[str, Any]]:
    time.sleep(QUIET_SECONDS)
    return runtime.runs_since(MONTHLY_DAG, since)


def test_days_and_month_under_the_scheduler(cleanbill_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLEANBILL_RUN_WAIT_SECONDS", "3")
    simulate(cleanbill_home, FIRST_DAY, 1, subscribers=100, provinces=1, seed=3, resent_permille=0, malformed_percent=0)
    events = cleanbill_home / "landing" / "relation_events" / LAST_DAY.isoformat()
    (good,) = (path.read_bytes() for path in events.glob("*.csv.gz"))
    spoil_delivery(events)
    waivers = cleanbill_home / "waivers.csv"
    waivers.write_text(
        "extract,source,day,reason,requested_by,approved_by,expires_on\nsms_usage,gd,yesterday,none,a,b,2026-12-31\n"
    )
    since = datetime.now(UTC)

    with airflow_runtime.airflow_running(console=Console(file=io.StringIO())) as runtime:
        # A range of days, while a run of another Airflow is at work: it waits. Then it stops at a broken file.
        with run_lease.working(run_lease.lease_of(DAILY_DAG, "other", "build_marts", "elsewhere"), lambda _: False):
            first = runtime.trigger(DAILY_DAG, days(FIRST_DAY, END_OF_RANGE))
            wait_for_task(runtime, first, "ingest_extracts", "up_for_reschedule")
        run_lease.give_back(lambda holder: holder.run_id == "other")
        run = runtime.wait(DAILY_DAG, first, "range")
        assert run.state == "failed"
        assert run.tasks["build_staging"] == "failed"
        assert run.tasks["publish_marts"] == "upstream_failed"
        text = failure_text(runtime, run)
        assert "build_staging failed" in text
        assert "waivers.csv, line 2" in text
        assert {span[2] for span in task_spans(runtime)} == {1}  # waiting used up no try
        assert not (cleanbill_home / "marts" / "marts.duckdb").exists()

        # The file is corrected and the run goes on where it stopped, while a backfill asks for the days behind it.
        waivers.unlink()
        clear(runtime, first, only_failed=True)
        wait_for_task(runtime, first, "build_staging", "running")  # had another run its turn now, it were refused
        filled = backfill(runtime, DAY_BEFORE, LAST_DAY)
        run = runtime.wait(DAILY_DAG, first, "range")
        assert run.state == "success", failure_text(runtime, run)
        assert set(run.tasks.values()) == {"success"}
        assert {task: number for run_id, task, number, _, _ in task_spans(runtime) if run_id == first} == {
            task: 2 if task == "build_staging" else 1  # finished work was not done again
            for task in run.tasks
        }

        # The last day is red, and so is whatever run meets it before the source has resent it. No month fires.
        outcomes = {run_id: runtime.wait(DAILY_DAG, run_id, run_id) for run_id in filled}
        red = [run_id for run_id, run in outcomes.items() if run.state == "failed"]
        assert any(LAST_DAY.isoformat() in run_id for run_id in red), outcomes
        for run_id in red:
            assert outcomes[run_id].tasks["check_raw"] == "failed"
            text = failure_text(runtime, outcomes[run_id])
            assert "quarantine" in text
            assert (cleanbill_home / page_in(text)).is_file()
        assert_serial(task_spans(runtime), [first, *filled])
        assert {span[2] for span in task_spans(runtime) if span[0] in filled} == {1}
        assert as_of(cleanbill_home) < LAST_DAY
        assert runs_of_month(runtime, since) == []

        # The source resends the last day: the red runs start over, first the one that takes the resent day in.
        resend_delivery(events, good)
        for run_id in sorted(red, key=lambda run_id: LAST_DAY.isoformat() not in run_id):
            clear(runtime, run_id, only_failed=False)
            run = runtime.wait(DAILY_DAG, run_id, run_id)
            assert run.state == "success", failure_text(runtime, run)
        assert_serial(task_spans(runtime), [first, *filled])
        assert as_of(cleanbill_home) == LAST_DAY
        assert not (cleanbill_home / "warehouse" / "run_lease.json").exists()

        # All days have passed: the month fires, once, and stops at the draft.
        (fired,) = runs_of_month(runtime, since)
        assert fired["partition_key"] == "2026-02"
        run = runtime.wait(MONTHLY_DAG, fired["dag_run_id"], "month")
        assert run.state == "success", failure_text(runtime, run)
        assert run.tasks == {
            "prepare_month": "success",
            "check_export": "success",
            "draft_feed": "success",
            "approve_feed": "skipped",
            "seal_feed": "skipped",
            "publish_billed_charges": "skipped",
        }
        assert len(runs_of_month(runtime, since)) == 1
        assert (cleanbill_home / "warehouse" / "billing" / "2026-03" / "draft" / "manifest.json").exists()
        assert not (cleanbill_home / "exports" / "billing").exists()

        # Asked for by name and with approval: sealed. Once more: nothing new, and it says so.
        outcome = airflow_runtime.bill_month(date(2026, 3, 1), auto_approve=True)
        assert set(outcome.tasks.values()) == {"success"}
        success = cleanbill_home / "exports" / "billing" / "2026-03" / "v1" / "_SUCCESS"
        sealed = success.read_bytes()
        outcome = airflow_runtime.bill_month(date(2026, 3, 1), auto_approve=True)
        assert set(outcome.tasks.values()) == {"skipped"}
        assert success.read_bytes() == sealed
        assert [path.name for path in success.parent.parent.glob("v*")] == ["v1"]

        port = runtime.port
        listening = [line.split()[1] for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
        assert f"0100007F:{port:04X}" in listening
        assert f"00000000:{port:04X}" not in listening

    assert processes_of(cleanbill_home) == []
    assert table_rows(get_settings().warehouse) == table_rows(build_scratch(LAST_DAY))  # as if built at one go
    assert_none_of_the_numbers_in(
        numbers_in(cleanbill_home / "landing"), [cleanbill_home / "airflow", cleanbill_home / "reports"]
    )


def page_in(message: str) -> str:
    """Return the gate report a message names, relative to the data root."""
    return re.search(r"reports/gates/[\w-]+/index\.html", message)[0]


def as_of(home: Path) -> date:
    with duckdb.connect(str(home / "marts" / "marts.duckdb"), read_only=True) as marts:
        return marts.execute("select as_of from mart_info").fetchone()[0]


def processes_of(home: Path) -> list[str]:
    """Return the command lines of running processes that were started with this data root."""
    wanted = f"AIRFLOW_HOME={home / 'airflow'}".encode()
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if wanted in (folder / "environ").read_bytes().split(b"\0"):
                found.append((folder / "cmdline").read_text())
        except OSError:
            continue  # it ended, or it is another user's
    return found


def numbers_in(landing: Path) -> set[bytes]:
    """Return the subscribers' numbers that were delivered.

    The numbers themselves and not their shape: a hash written in hexadecimal may well hold eleven such digits.
    """
    found: set[bytes] = set()
    for path in landing.glob("relation_events/*/*.csv.gz"):
        found.update(re.findall(rb"(?<!\d)1\d{10}(?!\d)", gzip.decompress(path.read_bytes())))
    assert len(found) > 10
    return found


def assert_none_of_the_numbers_in(numbers: set[bytes], folders: list[Path]) -> None:
    scanned = 0
    for path in (path for folder in folders for path in folder.rglob("*") if path.is_file()):
        scanned += 1
        assert numbers.isdisjoint(MSISDN.findall(path.read_bytes())), path
    assert scanned > 10
