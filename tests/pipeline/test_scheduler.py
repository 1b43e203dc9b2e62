"""The two DAGs under the real scheduler, on a month of a very small operator.

`dag.test()` runs serially and hides what this is about: two runs asked for at once never interleave, a red gate
stops a run without retries and a cleared run goes on, and the month is billed once, when its last day has passed.
"""

import gzip
import hashlib
import io
import json
import re
import signal
import sqlite3
import time
from collections.abc import Iterator
from datetime import UTC, date, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import duckdb
import pytest
from cleanbill import airflow_runtime
from cleanbill.airflow_runtime import DAILY_DAG, MONTHLY_DAG, AirflowRuntime, RunOutcome
from cleanbill.errors import RunFailed
from cleanbill.simulator import simulate
from rich.console import Console

pytestmark = [pytest.mark.scheduler, pytest.mark.slow]

FIRST_DAY, DAY_BEFORE, LAST_DAY = date(2026, 2, 1), date(2026, 2, 27), date(2026, 2, 28)
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


def test_days_and_month_under_the_scheduler(cleanbill_home: Path) -> None:
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
        # Two runs at once, a range of days and the last day: one after the other. Both stop where they should, the
        # first at a broken reference file, the second at a red gate, at the first try.
        first = runtime.trigger(DAILY_DAG, days(FIRST_DAY, DAY_BEFORE))
        second = runtime.trigger(DAILY_DAG, days(LAST_DAY, LAST_DAY))
        for run_id, task, words in (
            (first, "build_staging", "waivers.csv, line 2"),
            (second, "check_raw", "quarantine"),
        ):
            run = runtime.wait(DAILY_DAG, run_id, run_id)
            assert run.state == "failed"
            assert run.tasks[task] == "failed"
            assert run.tasks["publish_marts"] == "upstream_failed"
            text = failure_text(runtime, run)
            assert f"{task} failed" in text
            assert words in text
        spans = task_spans(runtime)
        assert_serial(spans, [first, second])
        assert {span[2] for span in spans} == {1}
        assert not (cleanbill_home / "marts" / "marts.duckdb").exists()

        # The file is corrected: the first run goes on where it stopped. The month lacks its last day.
        waivers.unlink()
        clear(runtime, first, only_failed=True)
        run = runtime.wait(DAILY_DAG, first, "range")
        assert run.state == "success", failure_text(runtime, run)
        assert set(run.tasks.values()) == {"success"}
        assert {task: number for run_id, task, number, _, _ in task_spans(runtime) if run_id == first} == {
            task: 2 if task == "build_staging" else 1  # finished work was not done again
            for task in run.tasks
        }
        assert as_of(cleanbill_home) == DAY_BEFORE
        assert runs_of_month(runtime, since) == []

        # The source resends the last day: its run starts over.
        resend_delivery(events, good)
        clear(runtime, second, only_failed=False)
        run = runtime.wait(DAILY_DAG, second, "last day")
        assert run.state == "success", failure_text(runtime, run)
        assert_serial(task_spans(runtime), [])
        assert as_of(cleanbill_home) == LAST_DAY

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
    assert_none_of_the_numbers_in(
        numbers_in(cleanbill_home / "landing"), [cleanbill_home / "airflow", cleanbill_home / "reports"]
    )


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
