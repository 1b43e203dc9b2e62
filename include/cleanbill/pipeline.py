"""What each task of the two DAGs does, in the terms of Airflow: run, params, partition key, skip.

The work itself is in the modules named by the imports; they are imported inside the functions, because every task
is its own process and pays only for what it uses.
"""

import contextlib
import functools
import logging
import re
from collections.abc import Callable
from datetime import date, timedelta
from pathlib import Path
from typing import Any

from cleanbill import run_turns
from cleanbill.errors import SettingsError
from cleanbill.failure_records import safe_run_id
from cleanbill.masking import mask_text
from cleanbill.settings import get_settings, parse_month
from cleanbill.storage_faults import storage_failure

DAY_PATTERN = "^[0-9]{4}-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])$"
MONTH_PATTERN = "^[0-9]{4}-(0[1-9]|1[0-2])$"


def _task(step: Callable[..., Any] | None = None, *, takes_turn: bool = True, ends_run: bool = False) -> Any:
    """Return the callable of a task: no result goes to XCom, no phone number into the log of a failure.

    Args:
        step: what the task does, called with the whole context.
        takes_turn: it works on the warehouse, so it waits for the run at work (see `run_lease`).
        ends_run: after it the run needs the warehouse no more.
    """
    if step is None:
        return functools.partial(_task, takes_turn=takes_turn, ends_run=ends_run)

    @functools.wraps(step)
    def run(**context: Any) -> None:
        try:
            with run_turns.turn(context, ends_run) if takes_turn else contextlib.nullcontext():
                step(**context)
        except Exception as error:
            if fault := storage_failure(error, get_settings().home):
                raise fault from None
            masked = mask_text(str(error))
            if masked == str(error):
                raise
            raise _same_kind(error, masked) from None

    del run.__wrapped__  # Airflow reads the signature: every step takes the whole context
    return run


def _same_kind(error: Exception, message: str) -> Exception:
    """Return an error of the same class with another text (retry rules look at the class)."""
    return type(error).__new__(type(error), message)  # not called: __init__ of our own errors takes other arguments


# --- the day ---------------------------------------------------------------------------------------------------


def business_days(params: dict[str, Any], partition_key: str | None) -> tuple[date, date]:
    """Return the first and last business date of a run.

    A run started by the clock has a partition key (one day); a run started by a person has `from_date` and, for a
    range, `to_date`.

    Raises:
        SettingsError: neither is given, a date is not YYYY-MM-DD, or the range is empty.
    """
    first = params.get("from_date") or partition_key
    last = params.get("to_date") or first
    if not first:
        raise SettingsError(
            where="subscription_daily, parameters",
            expected="from_date (and to_date for a range), or a partition key",
            found="neither",
            advice="trigger again with from_date, for example 2026-10-01",
        )
    date_from, date_to = _parse_day(first), _parse_day(last)
    if date_from > date_to:
        raise SettingsError(
            where="subscription_daily, parameters",
            expected="from_date <= to_date",
            found=f"{date_from} > {date_to}",
            advice="trigger again with the dates exchanged",
        )
    return date_from, date_to


def _parse_day(text: str) -> date:
    if re.fullmatch(DAY_PATTERN.strip("^$"), text):
        try:
            return date.fromisoformat(text)
        except ValueError:
            pass
    raise SettingsError(
        where="business date", expected="YYYY-MM-DD", found=repr(text[:40]), advice="write for example 2026-10-01"
    )


@_task
def ingest_extracts(params: dict[str, Any], dag_run: Any, **_: Any) -> None:
    """Take in every delivery up to the last day of the run that is not taken in yet."""
    from cleanbill.ingest import ingest

    ingest(*business_days(params, dag_run.partition_key))


@_task
def check_raw(dag_run: Any, **_: Any) -> None:
    """Gate after ingest: conservation per file, quarantine limits."""
    _check("raw", dag_run)


@_task
def build_staging(**_: Any) -> None:
    """Decide the as-of date and build the staging models, of deliveries whose gate is green as they stand now."""
    from cleanbill.build import build_staging as build
    from cleanbill.gates import require_green_state

    require_green_state("raw")
    build()


@_task
def check_staging(dag_run: Any, **_: Any) -> None:
    """Gate on the staging models."""
    _check("staging", dag_run)


@_task
def build_marts(**_: Any) -> None:
    """Build the intermediate models and the marts, of staging models whose gate is green as they stand now."""
    from cleanbill.build import build_marts as build
    from cleanbill.gates import require_green_state

    require_green_state("staging")
    build()


@_task
def check_marts(dag_run: Any, **_: Any) -> None:
    """Gate before anybody sees the marts."""
    _check("marts", dag_run)


@_task
def publish_marts(dag_run: Any, **_: Any) -> None:
    """Replace the analysts' file in one step."""
    from cleanbill.publish import publish_marts as publish

    publish(safe_run_id(dag_run.run_id))
    _watch_answers()


@_task(ends_run=True)
def close_days(params: dict[str, Any], dag_run: Any, outlet_events: Any, **_: Any) -> None:
    """Emit one event per business date that is now complete (or waived); skipped when there is none.

    Besides the days of the run these are earlier days that a late delivery or a waiver closed. `billing_monthly`
    waits for the events of all days of a month.
    """
    from airflow.sdk.exceptions import AirflowSkipException

    from cleanbill.dag_defaults import CLOSED_DAYS
    from cleanbill.day_closing import close_complete_days

    days = close_complete_days(safe_run_id(dag_run.run_id), *business_days(params, dag_run.partition_key))
    if not days:
        raise AirflowSkipException("no day of this run is complete: the missing deliveries are in `cleanbill status`")
    outlet_events[CLOSED_DAYS].add_partitions([day.isoformat() for day in days])


def _check(stage: str, dag_run: Any, database: Path | None = None) -> None:
    from cleanbill.gates import check

    check(stage, safe_run_id(dag_run.run_id), database=database)


# --- the month -------------------------------------------------------------------------------------------------


def billing_month(params: dict[str, Any], partition_key: str | None) -> date:
    """Return the first day of the month M to bill: the parameter, or the month after the one whose days closed.

    Raises:
        SettingsError: neither is given or one is not YYYY-MM.
    """
    if params.get("month"):
        return parse_month(params["month"])
    if partition_key:
        return (parse_month(partition_key) + timedelta(days=31)).replace(day=1)
    raise SettingsError(
        where="billing_monthly, parameters",
        expected="month",
        found="nothing",
        advice="trigger again with the month to bill, for example 2026-11",
    )


@_task
def prepare_month(params: dict[str, Any], dag_run: Any, **_: Any) -> None:
    """Freeze what the feed of the month is made of; skipped when there is nothing to bill anew."""
    from airflow.sdk.exceptions import AirflowSkipException

    from cleanbill import billing_feed
    from cleanbill.day_closing import is_history
    from cleanbill.feed_versions import sealed_versions
    from cleanbill.publish import publish_billed_charges

    month = billing_month(params, dag_run.partition_key)
    if not params.get("month"):
        if is_history(month):
            raise AirflowSkipException(f"{month:%Y-%m} was over before its days were loaded: bill it by hand if wanted")
        if sealed_versions(month):
            raise AirflowSkipException(
                f"{month:%Y-%m} is sealed: `cleanbill bill {month:%Y-%m}` bills what changed since, as an adjustment"
            )
    prepared = billing_feed.prepare_month(month, safe_run_id(dag_run.run_id))
    if prepared.is_unchanged:
        publish_billed_charges()  # if the run that sealed it did not come to it
        raise AirflowSkipException(
            f"no charge line of {month:%Y-%m} differs from its {prepared.version - 1} sealed versions"
            f" as of {prepared.as_of}: no new version"
        )


@_task
def check_export(params: dict[str, Any], dag_run: Any, **_: Any) -> None:
    """Gate before the feed is written."""
    from cleanbill import billing_feed

    _check("export", dag_run, billing_feed.feed_database(billing_month(params, dag_run.partition_key)))


@_task(ends_run=True)
def draft_feed(params: dict[str, Any], dag_run: Any, **_: Any) -> None:
    """Write the draft of the version, not visible to the billing system."""
    from cleanbill import billing_feed

    billing_feed.draft_feed(billing_month(params, dag_run.partition_key), safe_run_id(dag_run.run_id))


@_task(takes_turn=False)
def approve_feed(params: dict[str, Any], dag_run: Any, **_: Any) -> None:
    """Approve the draft in the name of an unattended run; without `auto_approve` the draft waits for a person."""
    from airflow.sdk.exceptions import AirflowSkipException

    from cleanbill import billing_feed

    month = billing_month(params, dag_run.partition_key)
    if not params.get("auto_approve"):
        raise AirflowSkipException(f"the draft of {month:%Y-%m} waits for approval")
    billing_feed.approve_feed(month, approver=None, auto=True, run_id=safe_run_id(dag_run.run_id))


@_task(takes_turn=False)
def seal_feed(params: dict[str, Any], dag_run: Any, **_: Any) -> None:
    """Show the approved version to the billing system by one rename."""
    from cleanbill import billing_feed

    billing_feed.seal_feed(billing_month(params, dag_run.partition_key), safe_run_id(dag_run.run_id))


@_task(takes_turn=False)
def publish_billed_charges(**_: Any) -> None:
    """Show the sealed version to the analysts, in the table billed_charges alone."""
    from cleanbill.publish import publish_billed_charges as publish

    publish()
    _watch_answers()


def _watch_answers() -> None:
    """Write answers of the billing system into the ledger; alarms are warnings here, never a reason to stop."""
    from cleanbill.acknowledgements import record_news
    from cleanbill.errors import CleanbillError

    try:
        alarms = record_news()
    except CleanbillError as error:
        alarms = [str(error)]
    for alarm in alarms:
        logging.getLogger(__name__).warning("billing feed: %s", mask_text(alarm))
