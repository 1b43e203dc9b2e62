"""One task of a DAG as a process of its own, as Airflow runs it, without Airflow around it.

python -m tests.bench.task <task> <run id> '<parameters as JSON>'
"""

import json
import sys
from types import SimpleNamespace
from typing import Any

from cleanbill import pipeline

DAY_TASKS = (
    "ingest_extracts",
    "check_raw",
    "build_staging",
    "check_staging",
    "build_marts",
    "check_marts",
    "publish_marts",
)
MONTH_TASKS = ("prepare_month", "check_export", "draft_feed", "approve_feed", "seal_feed")


def run_task(task: str, run_id: str, params: dict[str, Any]) -> None:
    """Call the callable of a task with what it reads of Airflow's context."""
    dag_run = SimpleNamespace(run_id=run_id, partition_key=None, dag_id="bench", conf={})
    getattr(pipeline, task)(params=params, dag_run=dag_run, run_id=run_id)


if __name__ == "__main__":
    run_task(sys.argv[1], sys.argv[2], json.loads(sys.argv[3]))
