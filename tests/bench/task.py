"""The work of one task of a DAG as a process of its own, without the Airflow that starts it.

python -m tests.bench.task <task> <run id> <first day> <last day>      (of the month's tasks: its first day, twice)
"""

import sys
from collections.abc import Callable
from datetime import date

from cleanbill import billing_feed, build, gates, publish
from cleanbill.ingest import ingest

DAY_TASKS: dict[str, Callable[[str, date, date], object]] = {
    "ingest_extracts": lambda run_id, first, last: ingest(first, last),
    "check_raw": lambda run_id, first, last: gates.check("raw", run_id),
    "build_staging": lambda run_id, first, last: build.build_staging(),
    "check_staging": lambda run_id, first, last: gates.check("staging", run_id),
    "build_marts": lambda run_id, first, last: build.build_marts(),
    "check_marts": lambda run_id, first, last: gates.check("marts", run_id),
    "publish_marts": lambda run_id, first, last: publish.publish_marts(run_id),
}
MONTH_TASKS: dict[str, Callable[[str, date, date], object]] = {
    "prepare_month": lambda run_id, month, _: billing_feed.prepare_month(month, run_id),
    "check_export": lambda run_id, month, _: gates.check("export", run_id, billing_feed.feed_database(month)),
    "draft_feed": lambda run_id, month, _: billing_feed.draft_feed(month, run_id),
    "approve_feed": lambda run_id, month, _: billing_feed.approve_feed(month, approver=None, auto=True),
    "seal_feed": lambda run_id, month, _: billing_feed.seal_feed(month),
}

if __name__ == "__main__":
    task, run_id, first, last = sys.argv[1:]
    (DAY_TASKS | MONTH_TASKS)[task](run_id, date.fromisoformat(first), date.fromisoformat(last))
