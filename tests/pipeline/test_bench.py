"""The bench's own promises: the floor does the same job, and the table says what was measured."""

from datetime import date
from pathlib import Path

import pytest
from cleanbill.ingest import ingest
from cleanbill.settings import get_settings
from cleanbill.simulator import simulate

from tests.bench import floor
from tests.bench.__main__ import EARLY, LATE, Measured, report
from tests.bench.compare import differences
from tests.bench.operate import Cost, run_python, total
from tests.bench.task import DAY_TASKS, MONTH_TASKS
from tests.conftest import TEST_KEY
from tests.pipeline.conftest import data_root
from tests.replay import Recording

FIRST, LAST = date(2026, 3, 1), date(2026, 5, 10)


def test_the_floor_does_the_same_job(recording: Recording, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Row for row equal, and a row that differs is named."""
    monkeypatch.setenv("CLEANBILL_PSEUDONYM_KEY", TEST_KEY)
    with data_root(tmp_path / "home") as home:
        simulate(home, FIRST, end=LAST, subscribers=400, provinces=2, seed=5, malformed_percent=100)
        ingest(FIRST, LAST)
        recording.build()
        floor.main(home, str(LAST), tmp_path / "floor")
        published = tmp_path / "floor" / "marts.duckdb"
        assert differences(published, get_settings().warehouse, "marts") == []
        with floor.duckdb.connect(str(published)) as connection:
            for table in floor.MARTS:
                (rows,) = connection.execute(f"select count(*) from {table}").fetchone()
                assert rows, f"{table} is empty: nothing was compared"
            connection.execute("update billing_dispositions set charged_li = charged_li + 1 where rowid = 0")
        (line,) = differences(published, get_settings().warehouse, "marts")
        assert line.startswith("billing_dispositions")


def test_the_floor_refuses_a_file_that_is_not_what_its_manifest_says(tmp_path: Path) -> None:
    simulate(tmp_path, FIRST, end=FIRST, subscribers=200, provinces=1)
    victim = next((tmp_path / "landing" / "sms_usage").glob("*/*.csv*"))
    victim.write_bytes(victim.read_bytes()[:-1] + b"?")
    with pytest.raises(SystemExit, match="not the bytes of its manifest"):
        floor.main(tmp_path, str(FIRST), tmp_path / "floor")


def test_a_process_is_measured_with_its_memory_and_fails_aloud(tmp_path: Path) -> None:
    cost = run_python(tmp_path, "-c", "block = b'x' * 100_000_000; sum(range(1_000_000))")
    assert cost.wall > 0 and cost.cpu > 0 and 100_000_000 < cost.peak_bytes < 1_000_000_000
    with pytest.raises(RuntimeError, match="no such day"):
        run_python(tmp_path, "-c", "raise SystemExit('no such day')")


def test_costs_add_up_and_the_table_tells_them() -> None:
    one = Cost(wall=1.0, cpu=2.0, peak_bytes=50 * 2**20, models=0.5)
    assert total([one, one]) == Cost(wall=2.0, cpu=4.0, peak_bytes=50 * 2**20, models=1.0)
    tasks = dict.fromkeys(DAY_TASKS, one)
    doubled = dict.fromkeys(DAY_TASKS, one + one)
    found = Measured(
        rows_of_day={EARLY: 1000, LATE: 2000},
        rows_of_bulk=99_000,
        days={EARLY: tasks, LATE: doubled, 184: tasks},
        month=dict.fromkeys(MONTH_TASKS, one),
        bulk=tasks,
        floor=total([one] * 5),
        gx_import=one,
        dbt_start=one,
        airflow_import=one,
    )
    text = report(found, 600, 60.0)
    assert "| day 180 (2,000 records) | 14.0 | 28.0 | 50 |" in text
    assert "day 180 / day 30: 2.00 by the clock, 2.00 in CPU (target 2.5)" in text
    assert "bulk / floor: 1.40 by the clock, 1.40 in CPU (target 1.5)" in text
