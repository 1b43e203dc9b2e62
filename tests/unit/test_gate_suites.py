"""Every expectation of every suite lets the good warehouse through and rejects a spoiled one."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import duckdb
import pytest
from cleanbill import gates
from cleanbill.settings import REPOSITORY
from cleanbill.suites import STAGES, Expectation, Suite, load_suite, suite_paths

from tests.gate_warehouse import write_good_feed, write_good_warehouse
from tests.spoiled_warehouses import SPOILED, spoil_by_rule, spoiling_statement

FOLDER = REPOSITORY / "expectations"
SUITES = [load_suite(path, stage) for stage in STAGES for path in suite_paths(FOLDER, stage)]
# Suite: (critical, warning) expectations. Written out, so that one that is deleted, with its bad fixture, or that no
# longer stops anything, is missed.
GATED_TABLES = {
    "raw": {
        "deliveries": (7, 2),
        "delivery_files": (5, 0),
        "in_force": (3, 1),
    },
    "staging": {
        "changed_deliveries": (3, 0),
        "run_context": (2, 0),
        "stg_gprs_usage": (8, 0),
        "stg_line_status": (5, 1),
        "stg_refunds": (8, 1),
        "stg_relation_events": (11, 0),
        "stg_relation_snapshot": (6, 1),
        "stg_service_catalogue": (7, 0),
        "stg_service_providers": (4, 0),
        "stg_sms_usage": (11, 0),
        "stg_sp_penalties": (4, 1),
        "stg_sp_reports": (7, 0),
        "stg_wap_usage": (9, 0),
    },
    "marts": {
        "absorbed_state": (3, 0),
        "anomalous_subscriptions": (7, 0),
        "billed_charges": (3, 0),
        "billing_dispositions": (11, 0),
        "billing_preview": (4, 0),
        "billing_preview_stops": (1, 0),
        "dim_service": (6, 0),
        "dim_service_provider": (2, 0),
        "extract_completeness": (3, 1),
        "relation_event_findings": (3, 0),
        "service_growth": (5, 0),
        "service_growth_alerts": (3, 0),
        "service_growth_relations": (2, 0),
        "silent_subscriptions": (5, 0),
        "sp_settlement": (4, 0),
        "subscription_usage_monthly": (4, 0),
        "subscriptions": (9, 1),
        "usage_outside_spells": (2, 0),
    },
    "export": {
        "adjustments": (5, 0),
        "charges": (7, 0),
        "dispositions": (3, 0),
        "exclusions": (5, 0),
        "inputs": (4, 0),
        "settlement": (3, 0),
    },
}
# The good warehouse has a day that two people waived; that is told every time.
LOUD = ("extract_completeness", "no missing day is waived")


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("good")
    warehouse, feed = folder / "cleanbill.duckdb", folder / "feed.duckdb"
    write_good_warehouse(warehouse)
    write_good_feed(warehouse, feed)
    return {stage: feed if stage == "export" else warehouse for stage in STAGES}


def test_the_gates_are_those_agreed() -> None:
    found = {stage: {suite.name: _severities(suite) for suite in SUITES if suite.stage == stage} for stage in STAGES}
    assert found == GATED_TABLES


def _severities(suite: Suite) -> tuple[int, int]:
    severities = [expectation.severity for expectation in suite.expectations]
    return severities.count("critical"), severities.count("warning")


@pytest.mark.parametrize("stage", STAGES)
def test_every_query_has_a_bad_fixture_and_every_bad_fixture_a_query(stage: str) -> None:
    queries = {
        (suite.name, expectation.description)
        for suite in SUITES
        for expectation in suite.expectations
        if suite.stage == stage and spoil_by_rule(suite, expectation) is None
    }
    assert queries == set(SPOILED[stage])


@pytest.mark.parametrize("stage", STAGES)
def test_the_good_warehouse_passes_and_tells_only_of_its_waiver(stage: str, good: dict[str, Path]) -> None:
    suites = [suite for suite in SUITES if suite.stage == stage]
    with duckdb.connect(str(good[stage]), read_only=True) as connection:
        results = gates.run_suites(suites, connection)
    loud = [LOUD] if stage == "marts" else []
    assert [(result.suite, result.expectation) for result in results if not result.success] == loud
    assert len(results) == sum(len(suite.expectations) for suite in suites)


@pytest.mark.parametrize(
    ("suite", "expectation"),
    [
        pytest.param(suite, expectation, id=f"{suite.stage}-{suite.name}-{position}")
        for suite in SUITES
        for position, expectation in enumerate(suite.expectations)
    ],
)
def test_a_spoiled_warehouse_is_rejected(
    suite: Suite, expectation: Expectation, good: dict[str, Path], tmp_path: Path
) -> None:
    """By the very expectation it was spoiled for, with its row count, and without a number in the examples."""
    spoiled = tmp_path / "spoiled.duckdb"
    shutil.copyfile(good[suite.stage], spoiled)
    with duckdb.connect(str(spoiled)) as connection:
        connection.execute(spoiling_statement(suite, expectation))
    with duckdb.connect(str(spoiled), read_only=True) as connection:
        results = gates.run_suites([_only(suite, expectation)], connection)
    assert [(result.expectation, result.success, result.evaluated) for result in results] == [
        (expectation.description, False, True)
    ]
    assert "13800000" not in repr(results)
    if results[0].unexpected_rows is not None:
        assert results[0].unexpected_rows > 0
        assert len(results[0].examples) > 0


def test_a_warehouse_without_a_waived_day_says_nothing_of_waivers(good: dict[str, Path], tmp_path: Path) -> None:
    quiet = tmp_path / "quiet.duckdb"
    shutil.copyfile(good["marts"], quiet)
    with duckdb.connect(str(quiet)) as connection:
        connection.execute("update marts.extract_completeness set status = 'missing' where status = 'waived'")
    (suite,) = (one for one in SUITES if (one.stage, one.name) == ("marts", LOUD[0]))
    (expectation,) = (one for one in suite.expectations if one.description == LOUD[1])
    with duckdb.connect(str(quiet), read_only=True) as connection:
        (result,) = gates.run_suites([_only(suite, expectation)], connection)
    assert result.success


def _only(suite: Suite, expectation: Expectation) -> Suite:
    return Suite(
        stage=suite.stage,
        name=suite.name,
        path=suite.path,
        schema=suite.schema,
        table=suite.table,
        key=suite.key,
        notes=suite.notes,
        expectations=(expectation,),
    )


@pytest.fixture(scope="module", autouse=True)
def _one_great_expectations_context() -> Iterator[None]:
    """Importing Great Expectations takes seconds: once for all cases of this module."""
    import great_expectations  # noqa: F401

    yield
