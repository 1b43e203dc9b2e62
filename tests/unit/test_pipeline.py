"""What a task makes of its run: days, month, run id, failure record, retry."""

import errno
import json
import re
from datetime import date
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from cleanbill import pipeline
from cleanbill.errors import BillingBlocked, GateFailed, IngestFailed, SettingsError
from cleanbill.failure_records import read_failure, record_failure, safe_run_id
from cleanbill.pipeline import billing_month, business_days

OCTOBER = date(2026, 10, 1)
MSISDN = "13812345678"


@pytest.fixture(autouse=True)
def _a_data_root(cleanbill_home: Path) -> None:
    """Tasks take the lease of the data root."""


def perform(task: Any, **context: Any) -> None:
    """Run a task as Airflow does, with what it needs of its instance."""
    run_id = context["dag_run"].run_id
    instance = SimpleNamespace(dag_id="subscription_daily", run_id=run_id, task_id=task.__name__)
    task(ti=instance, **context)


def a_run(run_id: str = "manual__2026-11-22T04:00:00+00:00", partition_key: str | None = None) -> SimpleNamespace:
    return SimpleNamespace(run_id=run_id, partition_key=partition_key)


@pytest.mark.parametrize(
    ("params", "partition_key", "expected"),
    [
        ({}, "2026-10-01", (OCTOBER, OCTOBER)),
        ({"from_date": None, "to_date": None}, "2026-10-01", (OCTOBER, OCTOBER)),
        ({"from_date": "2026-10-01"}, None, (OCTOBER, OCTOBER)),
        ({"from_date": "2026-10-01", "to_date": "2026-10-01"}, None, (OCTOBER, OCTOBER)),
        ({"from_date": "2026-10-01", "to_date": "2026-10-31"}, None, (OCTOBER, date(2026, 10, 31))),
        ({"from_date": "2026-10-01", "to_date": "2026-10-02"}, "2026-10-09", (OCTOBER, date(2026, 10, 2))),
    ],
)
def test_the_days_of_a_run(params: dict[str, Any], partition_key: str | None, expected: tuple[date, date]) -> None:
    assert business_days(params, partition_key) == expected


@pytest.mark.parametrize(
    ("params", "partition_key"),
    [
        ({}, None),
        ({"from_date": "2026-10-02", "to_date": "2026-10-01"}, None),
        ({"from_date": "2026-02-30"}, None),
        ({}, "2026-10-01T03:00:00"),
        ({}, "20261001"),
        ({}, "../../x"),
    ],
)
def test_days_that_are_none_are_refused(params: dict[str, Any], partition_key: str | None) -> None:
    with pytest.raises(SettingsError):
        business_days(params, partition_key)


@pytest.mark.parametrize(
    ("params", "partition_key", "expected"),
    [
        ({"month": "2026-11"}, None, date(2026, 11, 1)),
        ({"month": "2026-11"}, "2026-01", date(2026, 11, 1)),
        ({}, "2026-10", date(2026, 11, 1)),
        ({}, "2026-12", date(2027, 1, 1)),
        ({}, "2027-01", date(2027, 2, 1)),
        ({}, "2027-02", date(2027, 3, 1)),
    ],
)
def test_the_days_of_a_month_bill_the_next(params: dict[str, Any], partition_key: str | None, expected: date) -> None:
    assert billing_month(params, partition_key) == expected


@pytest.mark.parametrize(("params", "partition_key"), [({}, None), ({}, "2026-10-01"), ({"month": "2026-13"}, None)])
def test_a_month_that_is_none_is_refused(params: dict[str, Any], partition_key: str | None) -> None:
    with pytest.raises(SettingsError):
        billing_month(params, partition_key)


@pytest.mark.parametrize("run_id", ["manual__2026-11-22T04:00:00+00:00", "../../etc/passwd", "a b;id", "..", "x" * 500])
def test_run_ids_become_safe_names(run_id: str) -> None:
    assert re.fullmatch(r"[A-Za-z0-9_-]{1,130}", safe_run_id(run_id))


def test_safe_run_ids_stay_apart() -> None:
    assert safe_run_id("plain_run-1") == "plain_run-1"
    assert safe_run_id("a:b") != safe_run_id("a.b")
    assert safe_run_id("x" * 500) != safe_run_id("x" * 501)


def test_gates_get_a_safe_run_id(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr("cleanbill.gates.check", lambda stage, run_id, database=None: asked.append((stage, run_id)))
    for task in (pipeline.check_raw, pipeline.check_staging, pipeline.check_marts):
        perform(task, dag_run=a_run("../x"), params={})
    assert asked == [(stage, safe_run_id("../x")) for stage in ("raw", "staging", "marts")]


@pytest.mark.parametrize(("task", "stage"), [("build_staging", "raw"), ("build_marts", "staging")])
def test_nothing_is_built_behind_a_gate_that_is_not_green(
    monkeypatch: pytest.MonkeyPatch, task: str, stage: str
) -> None:
    asked, built = [], []

    def refuse(stage: str) -> None:
        asked.append(stage)
        raise GateFailed("a", "b", "c", "d")

    monkeypatch.setattr(f"cleanbill.build.{task}", lambda: built.append(task))
    monkeypatch.setattr("cleanbill.gates.require_green_state", refuse)
    with pytest.raises(GateFailed):
        perform(getattr(pipeline, task), params={}, dag_run=a_run())
    assert (asked, built) == ([stage], [])


def test_no_task_puts_anything_into_xcom(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cleanbill.ingest.ingest", lambda first, last: f"summary with {MSISDN}")
    instance = SimpleNamespace(dag_id="subscription_daily", run_id="r", task_id="ingest_extracts")
    assert pipeline.ingest_extracts(params={}, dag_run=a_run(partition_key="2026-10-01"), ti=instance) is None


@pytest.mark.parametrize("kind", [OSError, ValueError, GateFailed])
def test_a_failure_shows_no_phone_number_and_keeps_its_kind(monkeypatch: pytest.MonkeyPatch, kind: type) -> None:
    def fail(first: date, last: date) -> None:
        if kind is GateFailed:
            raise GateFailed("raw", "no rows", f"1 row of {MSISDN}", "look")
        raise kind(f"cannot read the line {MSISDN},901001")

    monkeypatch.setattr("cleanbill.ingest.ingest", fail)
    with pytest.raises(kind) as caught:
        perform(pipeline.ingest_extracts, params={}, dag_run=a_run(partition_key="2026-10-01"))
    assert MSISDN not in str(caught.value)
    assert "138****5678" in str(caught.value)
    assert caught.value.__suppress_context__


def test_close_days_emits_one_key_per_day(monkeypatch: pytest.MonkeyPatch) -> None:
    from cleanbill.dag_defaults import CLOSED_DAYS

    emitted: list[str] = []
    events = {CLOSED_DAYS: SimpleNamespace(add_partitions=emitted.extend)}
    closed = [OCTOBER, date(2026, 10, 3)]
    monkeypatch.setattr("cleanbill.day_closing.close_complete_days", lambda run_id, first, last: closed)
    perform(pipeline.close_days, params={}, dag_run=a_run(partition_key="2026-10-03"), outlet_events=events)
    assert emitted == ["2026-10-01", "2026-10-03"]


def test_close_days_is_skipped_when_no_day_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    from airflow.sdk.exceptions import AirflowSkipException

    monkeypatch.setattr("cleanbill.day_closing.close_complete_days", lambda run_id, first, last: [])
    with pytest.raises(AirflowSkipException):
        perform(pipeline.close_days, params={}, dag_run=a_run(partition_key="2026-10-03"), outlet_events={})


@pytest.mark.parametrize(
    ("params", "partition_key", "is_history", "is_sealed", "is_unchanged", "skipped"),
    [
        ({}, "2026-10", False, False, False, None),
        ({}, "2026-10", True, False, False, "bill it by hand"),
        ({}, "2026-10", False, True, False, "`cleanbill bill 2026-11` bills what changed since"),
        ({"month": "2026-11"}, None, True, False, False, None),  # asked for by name: history is billed
        ({"month": "2026-11"}, None, False, True, False, None),  # and what is sealed is adjusted
        ({"month": "2026-11"}, None, False, True, True, "no charge line"),
    ],
)
def test_when_a_billing_run_ends_as_skipped(
    monkeypatch: pytest.MonkeyPatch,
    params: dict[str, Any],
    partition_key: str | None,
    is_history: bool,
    is_sealed: bool,
    is_unchanged: bool,
    skipped: str | None,
) -> None:
    from airflow.sdk.exceptions import AirflowSkipException

    prepared = []

    def prepare(month: date, run_id: str) -> SimpleNamespace:
        prepared.append(month)
        return SimpleNamespace(is_unchanged=is_unchanged, version=2, as_of=date(2026, 11, 5))

    monkeypatch.setattr("cleanbill.day_closing.is_history", lambda month: is_history)
    monkeypatch.setattr("cleanbill.billing_feed.prepare_month", prepare)
    monkeypatch.setattr("cleanbill.feed_versions.sealed_versions", lambda month: [1] if is_sealed else [])
    monkeypatch.setattr("cleanbill.publish.publish_billed_charges", lambda: False)
    if skipped:
        with pytest.raises(AirflowSkipException, match=skipped):
            perform(pipeline.prepare_month, params=params, dag_run=a_run(partition_key=partition_key))
    else:
        perform(pipeline.prepare_month, params=params, dag_run=a_run(partition_key=partition_key))
        assert prepared == [date(2026, 11, 1)]


@pytest.mark.parametrize("auto_approve", [True, False])
def test_only_auto_approve_approves(monkeypatch: pytest.MonkeyPatch, auto_approve: bool) -> None:
    from airflow.sdk.exceptions import AirflowSkipException

    approved = []
    monkeypatch.setattr(
        "cleanbill.billing_feed.approve_feed",
        lambda month, approver, auto, run_id: approved.append((month, approver, auto)),
    )
    params = {"month": "2026-11", "auto_approve": auto_approve}
    if auto_approve:
        perform(pipeline.approve_feed, params=params, dag_run=a_run())
        assert approved == [(date(2026, 11, 1), None, True)]
    else:
        with pytest.raises(AirflowSkipException):
            perform(pipeline.approve_feed, params=params, dag_run=a_run())
        assert approved == []


# --- failures ---------------------------------------------------------------------------------------------------


def fail_task(error: BaseException | None) -> None:
    task_instance = SimpleNamespace(dag_id="subscription_daily", run_id="manual__1", task_id="check_raw")
    record_failure({"exception": error, "task_instance": task_instance})


def test_a_failure_is_recorded_for_whoever_started_the_run(cleanbill_home: Path) -> None:
    fail_task(GateFailed("gate raw", "no rows", f"3 rows such as {MSISDN}", "have the source resend"))
    record = read_failure("subscription_daily", "manual__1")
    assert record.task_id == "check_raw"
    assert record.error == "GateFailed"
    assert record.deliberate
    assert "3 rows such as 138****5678" in record.message
    (path,) = (cleanbill_home / "reports" / "runs").rglob("*.json")
    assert MSISDN not in path.read_text()
    assert json.loads(path.read_text())["run_id"] == "manual__1"


def test_a_later_failure_of_the_run_replaces_the_record(cleanbill_home: Path) -> None:
    fail_task(GateFailed("a", "b", "c", "d"))
    fail_task(ValueError("new"))
    record = read_failure("subscription_daily", "manual__1")
    assert (record.error, record.message, record.deliberate) == ("ValueError", "new", False)


def test_a_run_without_a_record_has_none(cleanbill_home: Path) -> None:
    assert read_failure("subscription_daily", "manual__1") is None


@pytest.mark.parametrize(
    ("error", "action"),
    [
        (GateFailed("a", "b", "c", "d"), "fail"),
        (BillingBlocked("a", "b", "c", "d"), "fail"),
        (SettingsError("a", "b", "c", "d"), "fail"),
        (IngestFailed("a", "b", "c", "d"), "retry"),
        (OSError(errno.ENOSPC, "No space left on device"), "retry"),
        (MemoryError(), "retry"),
        (KeyError("a bug"), "fail"),
        (ValueError("a bug"), "fail"),
    ],
)
def test_only_what_may_pass_by_itself_is_tried_again(error: Exception, action: str) -> None:
    from cleanbill.dag_defaults import RETRY_POLICY

    assert RETRY_POLICY.evaluate(error, try_number=1, max_tries=2).action.value == action


@pytest.mark.parametrize(
    ("name", "action"), [("IOException", "retry"), ("OutOfMemoryException", "retry"), ("BinderException", "fail")]
)
def test_which_errors_of_the_database_are_tried_again(name: str, action: str) -> None:
    import duckdb
    from cleanbill.dag_defaults import RETRY_POLICY

    assert RETRY_POLICY.evaluate(getattr(duckdb, name)("x"), try_number=1, max_tries=2).action.value == action


def test_the_retry_policy_survives_serialisation() -> None:
    from airflow.sdk import ExceptionRetryPolicy
    from cleanbill.dag_defaults import RETRY_POLICY

    copy = ExceptionRetryPolicy.deserialize(RETRY_POLICY.serialize())
    assert copy.evaluate(GateFailed("a", "b", "c", "d"), 1, 2).action.value == "fail"
    assert copy.evaluate(OSError(), 1, 2).action.value == "retry"
