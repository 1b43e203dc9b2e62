"""A day and its bill, killed in every stage and each time done again, end as if nothing had happened (R2)."""

import hashlib
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import date, timedelta
from pathlib import Path

import pytest
from cleanbill.settings import REPOSITORY

from tests.conftest import TEST_KEY
from tests.crash.daily_chain import STAGES
from tests.crash.state import WITH_A_CLOCK
from tests.pipeline.conftest import data_root
from tests.replay import MODEL_SCHEMAS, Recording, table_rows

SEED = 20080815
RUN_TABLES = ("mart_info", "gate_results")  # when and by which run: not a matter of the data


def start(stage: str, home: Path, month: date) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "tests.crash.daily_chain", stage, f"{month:%Y-%m}"],
        cwd=REPOSITORY,
        env=os.environ | {"CLEANBILL_HOME": str(home), "CLEANBILL_PSEUDONYM_KEY": TEST_KEY},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )


def finish(stage: str, home: Path, month: date) -> None:
    process = start(stage, home, month)
    _, errors = process.communicate()
    assert process.returncode == 0, f"{stage}: {errors.decode()[-2000:]}"


def kill_when(is_time: Callable[[], bool], process: subprocess.Popen[bytes]) -> bool:
    """Kill the process and all it started at a moment; tell whether it was still alive."""
    while process.poll() is None and not is_time():
        time.sleep(0.005)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    return process.returncode == -signal.SIGKILL


def progress(stage: str, home: Path, rng: random.Random) -> Callable[[], bool]:
    """Return a question that becomes true at a random point of a stage, told by what the stage leaves on disk."""
    if stage == "ingest":
        number = rng.randrange(0, 200)
        return lambda: sum(1 for _ in (home / "lake").glob("*/20*/*.parquet")) >= number
    if stage.startswith("build"):
        log = home / "warehouse" / "dbt" / "logs" / "dbt.log"
        before = log.read_text().count(" OK ") if log.exists() else 0
        number = rng.randrange(1, 14 if stage == "build_staging" else 40)
        return lambda: log.exists() and log.read_text().count(" OK ") - before >= number
    seen: list[float] = []
    delay = rng.uniform(0, 0.4)
    sign = {"check_marts": "warehouse/cleanbill.duckdb", "publish": "marts/.publishing-*", "bill": "warehouse/billing"}

    def is_time() -> bool:
        if not seen and any(home.glob(sign[stage])):
            seen.append(time.monotonic())
        return bool(seen) and time.monotonic() - seen[0] > delay

    return is_time


def outcome(home: Path) -> dict[str, object]:
    """Return everything the stages leave behind: rows of every table, bytes of every file that has no clock in it."""
    found: dict[str, object] = dict(table_rows(home / "warehouse" / "cleanbill.duckdb", MODEL_SCHEMAS))
    control = table_rows(home / "warehouse" / "cleanbill.duckdb", ("control",))
    found |= {name: rows for name, rows in control.items() if "gate" not in name and "step_times" not in name}
    published = table_rows(home / "marts" / "marts.duckdb", ("main",))
    found |= {name: rows for name, rows in published.items() if not name.endswith(RUN_TABLES)}
    for path in sorted(home.rglob("*")):
        name = path.relative_to(home).as_posix()
        if name.startswith(("lake/", "quarantine/", "exports/", "marts/")) and path.is_file():
            is_timeless = not name.endswith(WITH_A_CLOCK)
            found[name] = hashlib.sha256(path.read_bytes()).hexdigest() if is_timeless else "there"
        elif name.startswith("warehouse/") and "/dbt" not in name:
            found[name] = "there"
    return found


@pytest.fixture(scope="module")
def month(built_home: Path) -> date:
    """Return the first month that can be billed from the days of the world."""
    first = min(date.fromisoformat(path.name) for path in (built_home / "landing").glob("*/20*"))
    return (first.replace(day=28) + timedelta(days=40)).replace(day=1)


@pytest.fixture(scope="module")
def undisturbed(
    built_home: Path, recording: Recording, month: date, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, object]]:
    """Return what the stages leave when nothing happens."""
    home = tmp_path_factory.mktemp("undisturbed") / "data"
    shutil.copytree(built_home / "landing", home / "landing")
    for path in built_home.iterdir():
        if path.is_file():
            shutil.copy(path, home)
    finish("ingest", home, month)
    with data_root(home):
        recording.build(month - timedelta(days=1))  # what dbt would do, faster (tests/pipeline/conftest.py)
    for stage in ("check_marts", "publish", "bill"):
        finish(stage, home, month)
    return outcome(home)


def one_killed_day(home: Path, built_home: Path, month: date, rng: random.Random, kills: int) -> int:
    shutil.copytree(built_home / "landing", home / "landing")
    for path in built_home.iterdir():
        if path.is_file():
            shutil.copy(path, home)
    killed = 0
    for stage in STAGES:
        for _ in range(kills):
            killed += kill_when(progress(stage, home, rng), start(stage, home, month))
        finish(stage, home, month)
    return killed


def test_a_day_killed_in_every_stage_ends_the_same(
    tmp_path: Path, built_home: Path, month: date, undisturbed: dict[str, object]
) -> None:
    print(f"seed {SEED}")
    home = tmp_path / "data"
    killed = one_killed_day(home, built_home, month, random.Random(SEED), kills=1)
    assert killed >= len(STAGES) - 2  # a stage may be faster than the chosen moment
    assert_same(outcome(home), undisturbed)


@pytest.mark.soak
def test_many_days_killed_again_and_again_end_the_same(
    tmp_path: Path, built_home: Path, month: date, undisturbed: dict[str, object]
) -> None:
    print(f"seed {SEED}")
    rng = random.Random(SEED)
    killed = 0
    for number in range(17):
        home = tmp_path / str(number)
        killed += one_killed_day(home, built_home, month, rng, kills=2)
        assert_same(outcome(home), undisturbed)
        shutil.rmtree(home)
    assert killed >= 150


def assert_same(found: dict[str, object], expected: dict[str, object]) -> None:
    assert sorted(found.keys() ^ expected.keys()) == []
    assert [name for name in expected if found[name] != expected[name]] == []
