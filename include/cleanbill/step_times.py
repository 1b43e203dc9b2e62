"""How long the steps of a run took and how many rows they moved: what `cleanbill plan` judges the next run by."""

from dataclasses import dataclass
from datetime import datetime
from zoneinfo import ZoneInfo

import duckdb

INGEST = "ingest"
BUILD_STAGING = "build_staging"
BUILD_MARTS = "build_marts"
RUNS_LOOKED_AT = 10
LOCAL_TIME = ZoneInfo("Asia/Shanghai")


@dataclass(frozen=True)
class Expectation:
    """The seconds a step may take, from the fastest and slowest fit of `runs` earlier ones; None: never ran so."""

    seconds: float | None
    runs: int


def note_step(connection: duckdb.DuckDBPyConnection, step: str, is_full: bool, rows: int, seconds: float) -> None:
    """Remember one finished step."""
    connection.execute(
        "insert into control.step_times values ($step, $is_full, $rows, $seconds, $now)",
        {
            "step": step,
            "is_full": is_full,
            "rows": rows,
            "seconds": seconds,
            "now": datetime.now(LOCAL_TIME).replace(tzinfo=None),
        },
    )


def expected_seconds(connection: duckdb.DuckDBPyConnection, step: str, is_full: bool, rows: int) -> Expectation:
    """Estimate a step from the newest runs of its kind: a straight line through rows and seconds, never below the
    shortest run when there are as many rows as it had; with rows all alike, the mean."""
    slope, intercept, mean, shortest, runs = connection.execute(
        """
        select regr_slope(seconds, rows), regr_intercept(seconds, rows), avg(seconds), min(seconds), count(*)
        from (
            from control.step_times
            where step = $step and is_full = $is_full
            order by finished_at desc
            limit $runs
        )
        """,
        {"step": step, "is_full": is_full, "runs": RUNS_LOOKED_AT},
    ).fetchone()
    if not runs:
        return Expectation(None, 0)
    is_line = slope is not None and intercept is not None and slope > 0
    fitted = intercept + slope * rows if is_line else mean
    return Expectation(round(max(fitted, min(shortest, mean)), 1), runs)
