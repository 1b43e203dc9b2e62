"""# billing_monthly: the billing feed of month M

**Purpose.** Freezes the billing rows of M as of the last day of M-1, checks them and writes the feed version for
the billing system: draft, approved, sealed. A month that is sealed gets an adjustment: what changed since, as of now.

**Schedule.** Once, when the last day of M-1 is closed (all its deliveries in force, all gates green). By hand:
`month` = M; that alone adjusts a sealed month. Months that were over before their days were loaded, months sealed
already, and adjustments without a changed charge line end as skipped.

**Triage.**
- `prepare_month` red: the message lists the missing or undecided extract, source and day. Get the delivery (or enter
  a waiver), let `subscription_daily` take it in, clear the task.
- `check_export` red: nothing was exported. The message names expectation, rows and evidence.
- `approve_feed` skipped: the draft waits for approval; it is not visible in `exports/`.
- `seal_feed` red: disk or permissions of `exports/`; clear the task, the version appears in one rename or not at all.
- `publish_billed_charges` red: the version is released; clear the task, analysts see it then.
- A warning `billing feed: …` in a log: the billing system rejected a version, or did not answer in time.
- No run on the 1st: a day of M-1 is not closed; `cleanbill status` shows which.
"""

from airflow.sdk import (
    DAG,
    MonthWindow,
    Param,
    PartitionedAssetTimetable,
    RollupMapper,
    StartOfMonthMapper,
    chain,
    task,
)
from cleanbill import dag_defaults, pipeline

MONTH = {"type": ["null", "string"], "pattern": pipeline.MONTH_PATTERN, "maxLength": 7}

with DAG(
    dag_id="billing_monthly",
    doc_md=__doc__,
    schedule=PartitionedAssetTimetable(
        assets=dag_defaults.CLOSED_DAYS,
        default_partition_mapper=RollupMapper(
            upstream_mapper=StartOfMonthMapper(input_format=dag_defaults.DAY_FORMAT), window=MonthWindow()
        ),
    ),
    catchup=False,
    max_active_runs=1,
    default_args=dag_defaults.TASK_DEFAULTS,
    params={
        "month": Param(None, description="month M to bill (YYYY-MM); empty: the month after the closed one", **MONTH),
        "auto_approve": Param(False, type="boolean", description="seal without a second person (demos only)"),
    },
    tags=["cleanbill"],
):
    chain(
        task(pipeline.prepare_month)(),
        task(pipeline.check_export)(),
        task(pipeline.draft_feed)(),
        task(pipeline.approve_feed)(),
        task(pipeline.seal_feed)(),
        task(pipeline.publish_billed_charges)(),
    )
