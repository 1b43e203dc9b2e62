"""`make bench`: simulates an operator, measures a day, a month and a bulk load, and the floor beside them.

Everything runs one after the other in one folder, which is removed at the end. The marts of the bulk load, of the
day-by-day warehouse and of the floor are compared row for row: other rows would be another job.

    python -m tests.bench [small|medium|large] [--folder data-bench]
"""

import argparse
import json
import os
import platform
import shutil
import sys
import time
from dataclasses import dataclass, field
from datetime import date, timedelta
from pathlib import Path

from tests.bench.compare import differences
from tests.bench.operate import PROJECT, Cost, run_days, run_month, run_python, total

FIRST_DAY = date(2026, 3, 1)
EARLY, LATE = 30, 180
LAST_DAY = date(2026, 8, 31)  # day 184, the end of a month
SIZES = {"small": 6_000, "medium": 60_000, "large": 200_000}
DAY_TARGET, BULK_TARGET = 2.5, 1.5


@dataclass
class Measured:
    """What one run of the bench found; costs by task."""

    rows_of_day: dict[int, int] = field(default_factory=dict)
    rows_of_bulk: int = 0
    days: dict[int, dict[str, Cost]] = field(default_factory=dict)
    month: dict[str, Cost] = field(default_factory=dict)
    bulk: dict[str, Cost] = field(default_factory=dict)
    floor: Cost = field(default_factory=Cost)
    gx_import: Cost = field(default_factory=Cost)
    dbt_start: Cost = field(default_factory=Cost)
    airflow_import: Cost = field(default_factory=Cost)


def day(number: int) -> date:
    """Return the business date of a day, counted from 1."""
    return FIRST_DAY + timedelta(days=number - 1)


def rows_up_to(landing: Path, last: date, first: date = FIRST_DAY) -> int:
    """Return the records that the manifests of some days announce."""
    return sum(
        file["rows"]
        for path in landing.glob("*/*/*.manifest.json")
        if str(first) <= path.parent.name <= str(last)
        for file in json.loads(path.read_bytes())["files"]
    )


def measure(folder: Path, subscribers: int) -> Measured:
    """Simulate an operator below `folder` and run everything; raise if any two results differ."""
    daily, bulk = folder / "daily", folder / "bulk"
    daily.mkdir(parents=True)
    say(f"simulating {subscribers:,} subscribers, {FIRST_DAY} to {LAST_DAY}")
    simulated = ["simulate", "--from", str(FIRST_DAY), "--to", str(LAST_DAY), "--subscribers", str(subscribers)]
    run_python(daily, "-c", "from cleanbill.cli import main; main()", *simulated)
    # Hard links: no bytes are copied, and neither run changes what landed.
    shutil.copytree(daily / "landing", bulk / "landing", copy_function=os.link)
    shutil.copy(daily / "expected_extracts.csv", bulk)
    found = Measured(rows_of_bulk=rows_up_to(bulk / "landing", day(LATE)))
    for number in (EARLY, LATE):
        found.rows_of_day[number] = rows_up_to(daily / "landing", day(number), day(number))

    say("start-up of the libraries")
    found.gx_import = run_python(daily, "-c", "import great_expectations")
    found.dbt_start = run_python(daily, "-m", "cleanbill.dbt_process", "--version")
    found.airflow_import = run_python(daily, "-c", "import airflow.sdk")

    say(f"bulk: {LATE} days, {found.rows_of_bulk:,} records in one range run")
    found.bulk = run_days(bulk, FIRST_DAY, day(LATE))
    say("the floor: the same job by hand")
    found.floor = run_python(
        folder / "bulk", "-m", "tests.bench.floor", str(bulk), str(day(LATE)), str(folder / "floor")
    )
    require_same(folder / "floor" / "marts.duckdb", bulk / "marts" / "marts.duckdb")

    before = 0
    for number in (EARLY, LATE):
        say(f"days {before + 1} to {number - 1}, then day {number} alone")
        run_days(daily, day(before + 1), day(number - 1))
        found.days[number] = run_days(daily, day(number), day(number))
        before = number
    require_same(folder / "floor" / "marts.duckdb", daily / "marts" / "marts.duckdb")

    last = (LAST_DAY - FIRST_DAY).days + 1
    say(f"days {LATE + 1} to {last - 1}, then the last day of the month and the feed of the next")
    run_days(daily, day(LATE + 1), day(last - 1))
    found.days[last] = run_days(daily, LAST_DAY, LAST_DAY)
    found.month = run_month(daily, LAST_DAY + timedelta(days=1))
    return found


def require_same(floor: Path, published: Path) -> None:
    """Stop unless both hold the same marts."""
    different = differences(floor, published)
    if different:
        raise RuntimeError("not the same job:\n" + "\n".join(different))


def report(found: Measured, subscribers: int, seconds: float) -> str:
    """Return the table that the README shows."""
    gates = [task for task in found.bulk if task.startswith("check_")]
    builds = [task for task in found.bulk if task.startswith("build_")]
    early, late, last = (total(costs.values()) for costs in found.days.values())
    bulk = total(found.bulk.values())
    late_tasks = found.days[LATE]
    late_models = total(late_tasks[task] for task in builds).models
    lines = [
        "| what | wall s | CPU s | peak MiB |",
        "|---|---:|---:|---:|",
        _row(f"day {EARLY} ({found.rows_of_day[EARLY]:,} records)", early),
        _row(f"day {LATE} ({found.rows_of_day[LATE]:,} records)", late),
        _row("… of it ingest", late_tasks["ingest_extracts"]),
        _row("… of it 3 gates", total(late_tasks[task] for task in gates)),
        _row(f"… of it 2 dbt builds (models {late_models:.1f} s)", total(late_tasks[task] for task in builds)),
        _row("… of it publish", late_tasks["publish_marts"]),
        _row("import of Great Expectations (once per gate)", found.gx_import),
        _row("start of dbt (once per build)", found.dbt_start),
        _row("import of Airflow's SDK (once per task; in no other line)", found.airflow_import),
        _row("last day of a month", last),
        _row("the month's feed", total(found.month.values())),
        _row(f"bulk of {LATE} days ({found.rows_of_bulk:,} records)", bulk),
        _row("… of it ingest", found.bulk["ingest_extracts"]),
        _row("… of it 3 gates", total(found.bulk[task] for task in gates)),
        _row("… of it 2 dbt builds", total(found.bulk[task] for task in builds)),
        _row("… of it publish", found.bulk["publish_marts"]),
        _row("the floor: the bulk by hand", found.floor),
        "",
        _ratio(f"day {LATE} / day {EARLY}", late, early, DAY_TARGET),
        _ratio("bulk / floor", bulk, found.floor, BULK_TARGET),
        "",
        f"{subscribers:,} subscribers, {date.today()}, {_machine()}, in {seconds / 60:.1f} min",
    ]
    return "\n".join(lines)


def _row(what: str, cost: Cost) -> str:
    return f"| {what} | {cost.wall:.1f} | {cost.cpu:.1f} | {cost.peak_bytes / 2**20:,.0f} |"


def _ratio(what: str, cost: Cost, other: Cost, target: float) -> str:
    return f"{what}: {cost.wall / other.wall:.2f} by the clock, {cost.cpu / other.cpu:.2f} in CPU (target {target})"


def _machine() -> str:
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    load = os.getloadavg()[0]
    return (
        f"{os.cpu_count()} cores, {platform.machine()}, {memory:.0f} GiB, Python {platform.python_version()}, "
        f"load {load:.1f} at the end"
    )


def say(line: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {line}", file=sys.stderr, flush=True)


def main() -> None:
    """Run the bench in a new folder and remove it."""
    parser = argparse.ArgumentParser(prog="make bench", description="Measure a day, a month and a bulk load.")
    parser.add_argument("size", nargs="?", default="medium", choices=SIZES)
    parser.add_argument("--folder", type=Path, default=PROJECT / "data-bench", help="where to work; must not exist")
    arguments = parser.parse_args()
    folder = arguments.folder.absolute()
    if folder.exists():
        sys.exit(f"error: {folder} is there: another bench runs, or one was killed; remove the folder and try again")
    os.environ["CLEANBILL_PSEUDONYM_KEY"] = "a key for the bench"
    started = time.perf_counter()
    try:
        found = measure(folder, SIZES[arguments.size])
        print(report(found, SIZES[arguments.size], time.perf_counter() - started))
    except (RuntimeError, KeyboardInterrupt) as error:
        sys.exit(f"error: {error or 'stopped'}")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
