"""# subscription_daily: one business date (or a range) from extracts to published marts

**Purpose.** Takes in what the sources delivered, builds the marts and publishes them to the analysts. Nothing is
published unless every gate is green; what was published before stays.

**Schedule.** 03:00 Asia/Shanghai for the day before (partition key = business date). By hand: `from_date`, and
`to_date` for a range of days in one run; or `airflow backfill create`, one run a day. Repeating a day changes nothing.
Runs wait for one another: a task in `up_for_reschedule` waits until the run at work has ended.

**Triage.**
- `ingest_extracts` red: the message names the file. Rejected deliveries do not turn it red: see `cleanbill status`.
- `check_*` red: the message names expectation, rows, evidence under `reports/gates/` and what to do. Retrying is no
  use; have the source resend (next delivery number) or correct the policy row, then clear from `ingest_extracts`.
- `build_*` red: dbt's own message is in the log. A lock or memory error was already tried again. Cleared after another
  run had its turn, it may ask for a verdict on the rows of now: clear from `ingest_extracts` on.
- `publish_marts` red: readers still have the last version. Free disk space, clear the task.
- `close_days` skipped: the day is not complete. Harmless now; `billing_monthly` waits for the late delivery.
"""

from airflow.sdk import DAG, CronPartitionTimetable, Param, chain, task
from cleanbill import dag_defaults, pipeline

DAY = {"type": ["null", "string"], "format": "date", "pattern": pipeline.DAY_PATTERN, "maxLength": 10}

with DAG(
    dag_id="subscription_daily",
    doc_md=__doc__,
    schedule=CronPartitionTimetable(
        "0 3 * * *", timezone=dag_defaults.TIME_ZONE, run_offset=-1, key_format=dag_defaults.DAY_FORMAT
    ),
    start_date=dag_defaults.SCHEDULE_FROM,
    catchup=False,
    max_active_runs=1,
    default_args=dag_defaults.TASK_DEFAULTS,
    params={
        "from_date": Param(None, description="first business date; empty: the run's own day", **DAY),
        "to_date": Param(None, description="last business date; empty: one day", **DAY),
    },
    tags=["cleanbill"],
):
    chain(
        task(pipeline.ingest_extracts)(),
        task(pipeline.check_raw)(),
        task(pipeline.build_staging)(),
        task(pipeline.check_staging)(),
        task(pipeline.build_marts)(),
        task(pipeline.check_marts)(),
        task(pipeline.publish_marts)(),
        task(pipeline.close_days, outlets=[dag_defaults.CLOSED_DAYS])(),
    )
