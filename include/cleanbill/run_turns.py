"""The run lease in the terms of Airflow: a task that finds another run at work is rescheduled, without a try used up.

Rescheduling frees the slot of the pool at once. The wait (`CLEANBILL_RUN_WAIT_SECONDS`) is long against the start of a
task, so that the runs that wait cost the run at work little.
"""

import contextlib
import logging
import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

from cleanbill import run_lease
from cleanbill.run_lease import Lease, LeaseTaken
from cleanbill.settings import get_settings

WAIT_SPREAD = (0.7, 1.3)  # of the setting: runs that wait do not all ask at once

log = logging.getLogger(__name__)


@contextlib.contextmanager
def turn(context: dict[str, Any], ends_run: bool) -> Iterator[None]:
    """Work as this task of its run, alone.

    Raises:
        AirflowRescheduleException: another run is at work; Airflow starts the task again later.
    """
    from airflow.sdk.exceptions import AirflowRescheduleException, AirflowSkipException

    instance = context["ti"]
    wanted = run_lease.lease_of(instance.dag_id, instance.run_id, instance.task_id, _orchestrator())
    try:
        with run_lease.working(wanted, lambda holder: _has_ended(holder, wanted, instance), ends_run=ends_run):
            yield
    except LeaseTaken as taken:
        seconds = get_settings().run_wait_seconds * random.uniform(*WAIT_SPREAD)  # noqa: S311 - jitter, no secret
        log.info("Waits for its turn: %s. Asks again in %d s.", taken.found, seconds)
        raise AirflowRescheduleException(datetime.now(UTC) + timedelta(seconds=seconds)) from None
    except AirflowSkipException:
        run_lease.give_back(wanted.is_of)  # the tasks after it are skipped with it
        raise


def give_back_after_failure(context: dict[str, Any]) -> None:
    """Free the lease of a run that ends red; an `on_failure_callback` of every task."""
    instance = context["ti"]
    failed = run_lease.lease_of(instance.dag_id, instance.run_id, instance.task_id, _orchestrator())
    run_lease.give_back(failed.is_of)


def _has_ended(holder: Lease, wanted: Lease, instance: Any) -> bool:
    """Tell whether the run that holds the lease is over, as far as this Airflow knows it."""
    if holder.orchestrator != wanted.orchestrator:
        return False
    try:
        return instance.get_dagrun_state(holder.dag_id, holder.run_id) != "running"
    except Exception:  # the run was deleted, or the API is busy: then only time tells
        log.warning("Airflow does not say how run %s of %s is", holder.run_id, holder.dag_id, exc_info=True)
        return False


def _orchestrator() -> str:
    """Return what tells this Airflow from another one on the same data root: where it writes its logs."""
    from airflow.sdk.configuration import conf

    return conf.get("logging", "base_log_folder")
