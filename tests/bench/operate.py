"""Runs processes and measures what each costs: wall clock, CPU of it and its children, peak memory."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from tests.bench.task import DAY_TASKS, MONTH_TASKS

PROJECT = Path(__file__).resolve().parents[2]
LONGEST_EXCERPT = 3000  # characters of a failed process's output


@dataclass(frozen=True)
class Cost:
    """What a process cost, its children included.

    Attributes:
        wall: seconds on the clock.
        cpu: seconds of all cores, user and system.
        peak_bytes: largest resident memory of any one process.
        models: seconds of dbt's own models, tests and seeds, if it built any.
    """

    wall: float = 0.0
    cpu: float = 0.0
    peak_bytes: int = 0
    models: float = 0.0

    def __add__(self, other: "Cost") -> "Cost":
        return Cost(
            self.wall + other.wall,
            self.cpu + other.cpu,
            max(self.peak_bytes, other.peak_bytes),
            self.models + other.models,
        )


def total(costs: Iterable[Cost]) -> Cost:
    """Return the cost of processes that ran one after the other."""
    return sum(costs, Cost())


def run_measured(command: list[str], home: Path) -> Cost:
    """Run a process on a data root to its end.

    Raises:
        RuntimeError: it failed; the message ends with what it printed.
    """
    environment = os.environ | {
        "CLEANBILL_HOME": str(home),
        "PYTHONPATH": os.pathsep.join([str(PROJECT / "include"), str(PROJECT)]),
    }
    log = home / "bench.log"
    started = time.perf_counter()
    with log.open("w") as output:
        process = subprocess.Popen(command, cwd=PROJECT, env=environment, stdout=output, stderr=subprocess.STDOUT)
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    wall = time.perf_counter() - started
    if process.returncode:
        excerpt = log.read_text(errors="replace")[-LONGEST_EXCERPT:]
        raise RuntimeError(f"{' '.join(command)} ended with {process.returncode}:\n{excerpt}")
    return Cost(wall, used.ru_utime + used.ru_stime, used.ru_maxrss * 1024)


def run_days(home: Path, first: date, last: date) -> dict[str, Cost]:
    """Run the tasks of the day's DAG for a range of business dates; return what each cost."""
    costs = {}
    for task in DAY_TASKS:
        cost = _run_task(home, task, f"bench_{last}", first, last)
        if task.startswith("build_"):
            cost += Cost(models=_seconds_of_models(home))
        costs[task] = cost
    return costs


def run_month(home: Path, month: date) -> dict[str, Cost]:
    """Run the tasks of the month's DAG, approved unattended; return what each cost."""
    return {task: _run_task(home, task, f"bench_{month:%Y-%m}", month, month) for task in MONTH_TASKS}


def run_python(home: Path, *arguments: str) -> Cost:
    """Run the interpreter of this process."""
    return run_measured([sys.executable, *arguments], home)


def _run_task(home: Path, task: str, run_id: str, first: date, last: date) -> Cost:
    return run_python(home, "-m", "tests.bench.task", task, run_id, str(first), str(last))


def _seconds_of_models(home: Path) -> float:
    results = json.loads((home / "warehouse" / "dbt" / "target" / "run_results.json").read_text())["results"]
    return sum(result["execution_time"] for result in results)
