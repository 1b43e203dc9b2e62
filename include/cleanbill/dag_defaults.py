"""What all DAGs have in common: owner, pool, retries, failure record, the asset that links day and month.

Retries are spent only where a second try can help: a lost lock, a full disk or pipe, too little memory, a worker
that died. A red gate, a rejected input or a mistake in the code stays red until somebody looks.
"""

from datetime import UTC, datetime, time, timedelta
from typing import Any

from airflow.sdk import Asset, ExceptionRetryPolicy, RetryAction, RetryRule

from cleanbill.failure_records import record_failure
from cleanbill.run_turns import give_back_after_failure
from cleanbill.settings import get_settings

POOL = "warehouse"  # one slot: the pipeline's processes open the warehouse one after the other
TIME_ZONE = "Asia/Shanghai"
DAY_FORMAT = "%Y-%m-%d"

RETRY_POLICY = ExceptionRetryPolicy(
    rules=[
        RetryRule(
            "cleanbill.errors.StorageFailed", RetryAction.RETRY, reason="disk, memory or lock: may pass by itself"
        ),
        RetryRule("cleanbill.errors.CleanbillError", RetryAction.FAIL, reason="raised on purpose: needs a person"),
        RetryRule(
            ["builtins.OSError", "builtins.MemoryError", "duckdb.IOException", "duckdb.OutOfMemoryException"],
            RetryAction.RETRY,
            reason="lock, disk or memory: may pass by itself",
        ),
    ],
    default=RetryAction.FAIL,
)

TASK_DEFAULTS: dict[str, Any] = {
    "owner": "cleanbill",
    "pool": POOL,
    "retries": 2,
    "retry_delay": timedelta(seconds=30),
    "retry_policy": RETRY_POLICY,
    "on_failure_callback": [record_failure, give_back_after_failure],
    "weight_rule": "upstream",  # the next task of the run at work goes before the first one of another run
}

# One event per business date whose data passed every gate and is complete or waived.
CLOSED_DAYS = Asset(name="closed_days", uri="cleanbill://marts/closed-days")

# The clock starts no run before this instant; manual and range runs are free of it.
SCHEDULE_FROM = datetime.combine(get_settings().schedule_from, time(), tzinfo=UTC)
