"""The dialect that carries the repair for Great Expectations on DuckDB, and the sign that it is no longer needed."""

from pathlib import Path

import duckdb
import pytest
from cleanbill import duckdb_dialect


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("dialect") / "numbers.duckdb"
    with duckdb.connect(str(path)) as connection:
        connection.execute("create schema staging")
        connection.execute("create table staging.numbers as select unnest([1, 2, 2, null]) as number")
    return path


def _validate(url: str, options: dict) -> tuple[bool, int | None, str]:
    """Count nulls of one column through Great Expectations; returns success, count and the error if there was one."""
    import great_expectations

    context = great_expectations.get_context(mode="ephemeral")
    context.variables.progress_bars = {"globally": False}
    source = context.data_sources.add_sql(name="s", connection_string=url, create_temp_table=False, kwargs=options)
    asset = source.add_query_asset(name="numbers", query="select * from staging.numbers")
    expectation = great_expectations.expectations.ExpectColumnValuesToNotBeNull(column="number")
    result = asset.add_batch_definition_whole_table("all").get_batch().validate(expectation)
    return bool(result.success), result.result.get("unexpected_count"), str(result.exception_info)


def test_expectations_run_inside_duckdb_over_a_read_only_connection(database: Path) -> None:
    with duckdb.connect(str(database), read_only=True) as connection, duckdb_dialect.lend(connection) as url:
        assert _validate(url, {})[:2] == (False, 1)


def test_nothing_stays_open_after_the_connection_is_given_back(database: Path) -> None:
    """A handle left open would keep the next step of the pipeline from writing."""
    with duckdb.connect(str(database), read_only=True) as connection, duckdb_dialect.lend(connection) as url:
        _validate(url, {})
    with duckdb.connect(str(database)) as connection:  # another configuration: refused while any handle is open
        connection.execute("create or replace table staging.proof as select 1 as one")


def test_no_connection_is_made_when_none_is_lent() -> None:
    import sqlalchemy

    with pytest.raises(RuntimeError, match="lend"):
        sqlalchemy.create_engine(duckdb_dialect.URL).connect()


def test_the_repair_is_still_needed(database: Path) -> None:
    """If this fails, duckdb-engine or Great Expectations works by itself: delete the repair, keep the lending."""
    success, _, error = _validate(f"duckdb:///{database}", {"connect_args": {"read_only": True}})
    assert not success
    assert "list index out of range" in error
