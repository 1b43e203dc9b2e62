"""The DAG files keep the rules of the house, and Airflow accepts them."""

import ast
from pathlib import Path

import pytest
from airflow.sdk import DAG
from airflow.sdk.exceptions import ParamValidationError
from cleanbill.settings import REPOSITORY

FOLDER = REPOSITORY / "dags"
FILES = sorted(FOLDER.glob("*.py"))
TASKS = {
    "subscription_daily": [
        "ingest_extracts",
        "check_raw",
        "build_staging",
        "check_staging",
        "build_marts",
        "check_marts",
        "publish_marts",
        "close_days",
    ],
    "billing_monthly": [
        "prepare_month",
        "check_export",
        "draft_feed",
        "approve_feed",
        "seal_feed",
        "publish_billed_charges",
    ],
}
LONGEST_FILE = 60
MOST_TASKS = 8

# What somebody may type or inject where a date or a month belongs.
NOT_DATES = [
    "2026-13-01",
    "2026-02-30",
    "2026-1-1",
    "20261001",
    "2026-W40-4",
    "2026-10-01T00:00:00",
    "2026-10-01\n",
    " 2026-10-01",
    "２０２６-10-01",
    "2026-10-01'; drop table x; --",
    "../../etc/passwd",
    "$(id)",
    "{{ ds }}",
    "",
    20261001,
    ["2026-10-01"],
]
NOT_MONTHS = [
    "2026-13",
    "2026-00",
    "2026-1",
    "202611",
    "2026-11-01",
    "2026-11\n",
    "２０２６-11",
    "2026-11/../..",
    "2026-11;id",
    "{{ ds }}",
    "",
    202611,
]


@pytest.fixture(scope="module")
def dags() -> dict[str, DAG]:
    from airflow.dag_processing.dagbag import DagBag

    bag = DagBag(dag_folder=str(FOLDER), load_op_links=False)
    assert bag.import_errors == {}
    return dict(bag.dags)


def test_there_are_exactly_these_dags(dags: dict[str, DAG]) -> None:
    assert set(dags) == set(TASKS)
    assert {path.stem for path in FILES} == set(TASKS)


@pytest.mark.parametrize("dag_id", TASKS)
def test_tasks_run_one_after_the_other_in_this_order(dags: dict[str, DAG], dag_id: str) -> None:
    dag = dags[dag_id]
    assert set(dag.task_ids) == set(TASKS[dag_id])
    assert len(dag.task_ids) <= MOST_TASKS
    for before, after in zip(TASKS[dag_id], TASKS[dag_id][1:], strict=False):
        assert dag.get_task(before).downstream_task_ids == {after}


@pytest.mark.parametrize("dag_id", TASKS)
def test_every_task_shares_the_defaults(dags: dict[str, DAG], dag_id: str) -> None:
    from cleanbill import dag_defaults

    assert dag_defaults.POOL == "warehouse"
    for task in dags[dag_id].tasks:
        assert task.pool == "warehouse"
        assert task.retries == 2
        assert task.owner == "cleanbill"
        assert task.retry_policy is dag_defaults.RETRY_POLICY
        assert task.on_failure_callback == [dag_defaults.record_failure, dag_defaults.give_back_after_failure]


@pytest.mark.parametrize("dag_id", TASKS)
def test_runs_never_overlap_and_nothing_is_caught_up(dags: dict[str, DAG], dag_id: str) -> None:
    assert dags[dag_id].max_active_runs == 1
    assert dags[dag_id].catchup is False


@pytest.mark.parametrize("dag_id", TASKS)
def test_documentation_tells_purpose_schedule_and_triage_of_every_task(dags: dict[str, DAG], dag_id: str) -> None:
    doc = dags[dag_id].doc_md
    for heading in ("**Purpose.**", "**Schedule.**", "**Triage.**"):
        assert heading in doc
    triage = doc.split("**Triage.**")[1]
    for task_id in TASKS[dag_id]:
        verb = task_id.split("_")[0]
        assert task_id in triage or f"{verb}_*" in triage or task_id == "draft_feed", task_id


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_dag_file_is_short_and_only_declares(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= LONGEST_FILE
    tree = ast.parse(text)
    imported = {
        name.split(".")[0] if name.startswith("cleanbill") else name
        for node in ast.walk(tree)
        for name in (
            [node.module]
            if isinstance(node, ast.ImportFrom)
            else [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else []
        )
    }
    assert imported <= {"airflow.sdk", "cleanbill"}
    decisions = (ast.If, ast.IfExp, ast.For, ast.While, ast.FunctionDef, ast.Lambda, ast.Match, ast.Try)
    assert not [node for node in ast.walk(tree) if isinstance(node, decisions)]
    assert "select " not in text.lower()
    assert "globals()" not in text


@pytest.mark.parametrize("value", NOT_DATES)
@pytest.mark.parametrize("name", ["from_date", "to_date"])
def test_parameters_that_are_no_dates_are_refused(dags: dict[str, DAG], name: str, value: object) -> None:
    with pytest.raises(ParamValidationError):
        dags["subscription_daily"].params.get_param(name).resolve(value)


@pytest.mark.parametrize("value", NOT_MONTHS)
def test_parameters_that_are_no_months_are_refused(dags: dict[str, DAG], value: object) -> None:
    with pytest.raises(ParamValidationError):
        dags["billing_monthly"].params.get_param("month").resolve(value)


@pytest.mark.parametrize("value", ["yes", 1, None])
def test_auto_approve_is_a_boolean(dags: dict[str, DAG], value: object) -> None:
    with pytest.raises(ParamValidationError):
        dags["billing_monthly"].params.get_param("auto_approve").resolve(value)


def test_parameters_that_are_dates_and_months_pass(dags: dict[str, DAG]) -> None:
    day = dags["subscription_daily"].params.get_param("from_date")
    assert day.resolve("2028-02-29") == "2028-02-29"
    assert day.resolve(None) is None
    assert dags["billing_monthly"].params.get_param("month").resolve("2026-11") == "2026-11"
    assert dags["billing_monthly"].params.get_param("auto_approve").resolve(True) is True


def test_the_clock_runs_the_day_before_at_three_in_shanghai(dags: dict[str, DAG]) -> None:
    from airflow.serialization.serialized_objects import DagSerialization
    from airflow.timetables.base import TimeRestriction
    from pendulum import datetime

    serialized = DagSerialization.from_dict(DagSerialization.to_dict(dags["subscription_daily"]))
    first = serialized.timetable.next_dagrun_info_v2(
        last_dagrun_info=None,
        restriction=TimeRestriction(earliest=datetime(2026, 10, 1), latest=None, catchup=True),
    )
    assert first.run_after == datetime(2026, 10, 1, 19)  # 2 October 03:00 in Shanghai
    assert first.partition_key == "2026-10-01"


def test_the_month_waits_for_every_day_of_the_month_before(dags: dict[str, DAG]) -> None:
    from airflow.serialization.serialized_objects import DagSerialization

    serialized = DagSerialization.from_dict(DagSerialization.to_dict(dags["billing_monthly"]))
    mapper = serialized.timetable.get_partition_mapper(name="closed_days", uri="cleanbill://marts/closed-days")
    assert mapper.to_downstream("2028-02-29") == "2028-02"
    needed = mapper.to_upstream("2028-02")
    assert len(needed) == 29
    assert {"2028-02-01", "2028-02-29"} <= needed
