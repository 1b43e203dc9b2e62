"""The gate as a whole: what it records, what it refuses, what it shows and what it hides."""

import json
import shutil
from pathlib import Path

import duckdb
import pytest
from cleanbill import gates
from cleanbill.control import open_warehouse
from cleanbill.errors import GateFailed
from cleanbill.masking import mask_msisdn, mask_text
from cleanbill.settings import REPOSITORY, Settings, get_settings
from cleanbill.suites import SuiteError, load_suite

from tests.gate_warehouse import write_good_feed, write_good_warehouse

SUITE = """
name: numbers
meta:
  table: marts.numbers
  key: [number]
  advice: mend the numbers
expectations:
  - type: expect_column_values_to_be_between
    description: numbers are small
    severity: {first}
    kwargs: {{column: number, min_value: 0, max_value: 9}}
  - type: unexpected_rows_expectation
    description: no number is odd
    severity: {second}
    kwargs: {{unexpected_rows_query: "select number, msisdn, contact, note from marts.numbers where number % 2 = 1"}}
"""


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """An installation with a project folder of its own, whose expectations a test writes."""
    project = tmp_path / "project"
    (project / "expectations" / "marts").mkdir(parents=True)
    monkeypatch.setenv("CLEANBILL_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("CLEANBILL_PROJECT_ROOT", str(project))
    monkeypatch.setenv("CLEANBILL_PSEUDONYM_KEY", "test key")
    get_settings.cache_clear()
    yield get_settings()
    get_settings.cache_clear()


@pytest.fixture(scope="module")
def good_files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("good")
    warehouse, feed = folder / "cleanbill.duckdb", folder / "feed.duckdb"
    write_good_warehouse(warehouse)
    write_good_feed(warehouse, feed)
    return warehouse, feed


@pytest.fixture
def installation(settings: Settings, monkeypatch: pytest.MonkeyPatch, good_files: tuple[Path, Path]) -> Settings:
    """The good warehouse under the real suites."""
    monkeypatch.setenv("CLEANBILL_PROJECT_ROOT", str(REPOSITORY))
    get_settings.cache_clear()
    found = get_settings()
    found.warehouse_folder.mkdir(parents=True)
    shutil.copyfile(good_files[0], found.warehouse)
    return found


def _write_numbers(settings: Settings, values: list[int], first: str = "critical", second: str = "critical") -> None:
    with open_warehouse(settings) as connection:
        connection.execute("create schema if not exists marts")
        connection.execute(
            "create or replace table marts.numbers as "
            "select number, '13812345678' as msisdn, 'desk 13987654321' as contact, "
            "'called 8613712345678 twice' as note from (select unnest($values) as number)",
            {"values": values},
        )
    path = settings.expectations / "marts" / "numbers.yml"
    path.write_text(SUITE.format(first=first, second=second), encoding="utf-8")


def _records(settings: Settings) -> list[tuple]:
    with open_warehouse(settings, read_only=True) as connection:
        return connection.execute(
            "select run_id, stage, passed, critical_failures, warnings from control.gate_records order by all"
        ).fetchall()


@pytest.mark.parametrize(
    ("first", "second", "values", "passes", "warnings"),
    [
        ("critical", "critical", [2, 4], True, 0),
        ("critical", "critical", [2, 3], False, 0),
        ("critical", "warning", [2, 3], True, 1),
        ("warning", "critical", [2, 3], False, 0),
        ("warning", "warning", [2, 3], True, 1),
        ("critical", "warning", [12], False, 0),
        ("critical", "warning", [13], False, 1),
        ("warning", "critical", [13], False, 1),
        ("warning", "warning", [13], True, 2),
    ],
)
def test_criticals_stop_and_warnings_report(
    settings: Settings, first: str, second: str, values: list[int], passes: bool, warnings: int
) -> None:
    _write_numbers(settings, values, first, second)
    if passes:
        assert len(gates.check("marts", "run").warnings) == warnings
    else:
        with pytest.raises(GateFailed):
            gates.check("marts", "run")
    ((_, _, passed, critical_failures, recorded_warnings),) = _records(settings)
    assert (passed, critical_failures > 0, recorded_warnings) == (passes, not passes, warnings)


def test_the_message_says_what_where_how_many_and_what_to_do(settings: Settings) -> None:
    _write_numbers(settings, [3, 5, 8])
    with pytest.raises(GateFailed) as caught:
        gates.check("marts", "run 7")
    message = str(caught.value)
    for part in ("marts.numbers", "no number is odd", "2 such rows", "number=3", "mend the numbers", "index.html"):
        assert part in message
    assert "numbers are small" not in message


def test_no_number_of_a_subscriber_is_in_message_report_or_results(settings: Settings) -> None:
    _write_numbers(settings, [3])
    with pytest.raises(GateFailed) as caught:
        gates.check("marts", "run")
    with open_warehouse(settings, read_only=True) as connection:
        recorded = str(connection.execute("from control.gate_results").fetchall())
    report = (settings.reports / "gates" / "run" / "index.html").read_text(encoding="utf-8")
    for text in (str(caught.value), recorded, report):
        for number in ("13812345678", "13987654321", "13712345678"):
            assert number not in text
    assert "138****5678" in str(caught.value)
    assert "called 137****5678 twice" in report


def test_everything_is_recorded_and_a_second_check_of_the_run_replaces_it(settings: Settings) -> None:
    _write_numbers(settings, [3])
    with pytest.raises(GateFailed):
        gates.check("marts", "run")
    _write_numbers(settings, [2])
    report = gates.check("marts", "run")
    assert _records(settings) == [("run", "marts", True, 0, 0)]
    with open_warehouse(settings, read_only=True) as connection:
        rows = connection.execute(
            "select suite, expectation, severity, success, observed, expected, unexpected_rows "
            "from control.gate_results where run_id = 'run' and stage = 'marts' order by expectation"
        ).fetchall()
    assert rows == [
        ("numbers", "no number is odd", "critical", True, "0 such rows", "no such row", 0),
        ("numbers", "numbers are small", "critical", True, "0 of 1 rows", "0 <= number <= 9", 0),
    ]
    written = json.loads(report.path.read_text(encoding="utf-8"))
    assert written["passed"] is True
    assert [result["success"] for result in written["results"]] == [True, True]


def test_runs_do_not_touch_each_others_records(settings: Settings) -> None:
    _write_numbers(settings, [2])
    gates.check("marts", "first")
    gates.check("marts", "second")
    assert [record[0] for record in _records(settings)] == ["first", "second"]


def test_a_missing_table_is_critical_and_not_a_skip(settings: Settings) -> None:
    _write_numbers(settings, [2], "warning", "warning")
    with open_warehouse(settings) as connection:
        connection.execute("drop table marts.numbers")
    with pytest.raises(GateFailed, match=r"marts\.numbers.*table exists"):
        gates.check("marts", "run")


def test_a_missing_column_is_critical_even_for_a_warning(settings: Settings) -> None:
    _write_numbers(settings, [2], "warning", "warning")
    with open_warehouse(settings) as connection:
        connection.execute("alter table marts.numbers drop column contact")
    with pytest.raises(GateFailed, match="could not be evaluated"):
        gates.check("marts", "run")


def test_a_stage_without_suites_is_critical(settings: Settings) -> None:
    _write_numbers(settings, [2])
    (settings.expectations / "marts" / "numbers.yml").unlink()
    with pytest.raises(GateFailed, match="the stage has suites"):
        gates.check("marts", "run")


def test_a_missing_database_is_critical_and_recorded(settings: Settings) -> None:
    _write_numbers(settings, [2])
    with pytest.raises(GateFailed, match="the database exists"):
        gates.check("marts", "run", settings.home / "nowhere.duckdb")
    assert _records(settings) == [("run", "marts", False, 1, 0)]


def test_an_unknown_stage_is_refused(settings: Settings) -> None:
    with pytest.raises(GateFailed, match="a stage among"):
        gates.check("mart", "run")


@pytest.mark.parametrize(
    ("spoil", "found"),
    [
        (("name: numbers", "name: figures"), "figures"),
        (("table: marts.numbers", "table: numbers"), "meta.table"),
        (("severity: critical", "severity: high"), "severity"),
        (("expect_column_values_to_be_between", "expect_column_mean_to_be_between"), "a type among"),
        (("  advice: mend the numbers\n", ""), "meta.advice"),
        (("description: no number is odd", "description: numbers are small"), "twice"),
        (("expectations:", "expected:"), "at least one"),
        (("meta:", "meta: ["), "readable YAML"),
    ],
)
def test_a_suite_that_cannot_be_used_shuts_the_gate(settings: Settings, spoil: tuple[str, str], found: str) -> None:
    _write_numbers(settings, [2])
    path = settings.expectations / "marts" / "numbers.yml"
    path.write_text(path.read_text(encoding="utf-8").replace(*spoil), encoding="utf-8")
    with pytest.raises(SuiteError, match=found):
        load_suite(path, "marts")
    with pytest.raises(GateFailed, match="the suite is usable"):
        gates.check("marts", "run")


def test_the_database_is_free_after_the_gate_and_unchanged_by_it(settings: Settings) -> None:
    _write_numbers(settings, [2])
    with open_warehouse(settings, read_only=True) as connection:
        before = connection.execute("from marts.numbers").fetchall()
    gates.check("marts", "run")
    with duckdb.connect(str(settings.warehouse)) as connection:
        assert connection.execute("from marts.numbers").fetchall() == before


@pytest.mark.parametrize("run_id", ["../../escape", "a/b", ".hidden", "x" * 300, "run id", "行"])
def test_a_run_id_cannot_leave_the_report_folder(settings: Settings, run_id: str) -> None:
    _write_numbers(settings, [2])
    report = gates.check("marts", run_id)
    assert report.path.resolve().parent.parent == (settings.reports / "gates").resolve()


def test_an_airflow_run_id_stays_readable(settings: Settings) -> None:
    _write_numbers(settings, [2])
    run_id = "scheduled__2026-11-01T03:00:00+08:00"
    assert gates.check("marts", run_id).path.parent.name == run_id


class TestRequireGreen:
    """What stands between a gate and the step that uses its verdict."""

    def test_a_green_record_of_these_rows_is_enough(self, settings: Settings) -> None:
        _write_numbers(settings, [2])
        gates.check("marts", "run")
        with open_warehouse(settings, read_only=True) as connection:
            gates.require_green("marts", "run", connection, settings)

    @pytest.mark.parametrize(
        ("statement", "found"),
        [
            ("delete from control.gate_records", "none"),
            ("update control.gate_records set run_id = 'another'", "none"),
            ("update control.gate_records set stage = 'staging'", "none"),
            ("update control.gate_records set passed = false", "a red one"),
            ("update marts.numbers set number = 4", "rows that changed"),
            ("insert into marts.numbers from marts.numbers", "rows that changed"),
            ("delete from marts.numbers", "rows that changed"),
            ("drop table marts.numbers", "rows that changed"),
            ("create table marts.more as select 1 as one", "rows that changed"),
            ("insert into control.absorbed_state values ('2026-09-30', 'other')", "rows that changed"),
        ],
    )
    def test_every_way_round_it_is_refused(self, settings: Settings, statement: str, found: str) -> None:
        _write_numbers(settings, [2])
        gates.check("marts", "run")
        with open_warehouse(settings) as connection:
            connection.execute(statement)
        with open_warehouse(settings, read_only=True) as connection, pytest.raises(GateFailed, match=found):
            gates.require_green("marts", "run", connection, settings)

    def test_a_cleared_step_goes_on_behind_the_newest_verdict_on_the_rows_of_now(self, settings: Settings) -> None:
        """Whichever run judged them: between a red step and its clearing another run may have had its turn."""
        _write_numbers(settings, [2])
        with pytest.raises(GateFailed, match="none"):
            gates.require_green_state("marts")
        gates.check("marts", "first")
        gates.require_green_state("marts")
        _write_numbers(settings, [4])
        with pytest.raises(GateFailed, match="another run changed them"):
            gates.require_green_state("marts")
        gates.check("marts", "second")
        gates.require_green_state("marts")
        with open_warehouse(settings) as connection:
            connection.execute(
                "insert into control.gate_records select 'third', stage, false, 1, 0, state_digest, "
                "checked_at + interval 1 second from control.gate_records where run_id = 'second'"
            )
        with pytest.raises(GateFailed, match="a red one, of run third"):
            gates.require_green_state("marts")

    def test_the_gate_of_the_feed_is_about_the_frozen_file(
        self, installation: Settings, good_files: tuple[Path, Path]
    ) -> None:
        feed = installation.warehouse_folder / "feed.duckdb"
        shutil.copyfile(good_files[1], feed)
        gates.check("export", "bill", feed)
        with open_warehouse(installation, path=feed, read_only=True) as connection:
            gates.require_green("export", "bill", connection, installation)
        with duckdb.connect(str(feed)) as connection:
            connection.execute("update main.charges set fee_li = fee_li + 1")
        with (
            open_warehouse(installation, path=feed, read_only=True) as connection,
            pytest.raises(GateFailed, match="rows that changed"),
        ):
            gates.require_green("export", "bill", connection, installation)


@pytest.mark.parametrize("stage", ["raw", "staging", "marts"])
def test_the_real_suites_pass_the_good_warehouse(installation: Settings, stage: str) -> None:
    report = gates.check(stage, "run")
    assert report.passed
    assert [one.expectation for one in report.warnings] == (["no missing day is waived"] if stage == "marts" else [])


@pytest.mark.parametrize("stage", ["raw", "staging", "marts"])
def test_an_empty_warehouse_passes_no_gate(installation: Settings, stage: str) -> None:
    """Every table is there and holds nothing: no suite may be content with that."""
    with duckdb.connect(str(installation.warehouse)) as connection:
        tables = connection.execute(
            "select table_schema, table_name from information_schema.tables where table_type = 'BASE TABLE'"
        ).fetchall()
        for schema, table in tables:
            connection.execute(f"delete from {schema}.{table}")
    with pytest.raises(GateFailed):
        gates.check(stage, "run")


def test_marts_of_an_earlier_build_are_stale_when_a_delivery_came_since(installation: Settings) -> None:
    with duckdb.connect(str(installation.warehouse)) as connection:
        connection.execute(
            "insert into control.in_force by name select * replace ('gd' as source) from control.in_force "
            "where extract = 'refunds' and business_date = date '2026-09-20'"
        )
    with pytest.raises(GateFailed, match="took in every delivery in force"):
        gates.check("marts", "run")


@pytest.mark.parametrize(
    ("value", "masked"),
    [
        ("13800001234", "138****1234"),
        ("8613800001234", "138****1234"),
        ("008613800001234", "138****1234"),
        ("+8613800001234", "138****1234"),
        ("customer-4711", "c****"),
        ("", "****"),
    ],
)
def test_a_number_is_masked(value: str, masked: str) -> None:
    assert mask_msisdn(value) == masked


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("call 13800001234 now", "call 138****1234 now"),
        ("E13800001234x", "E138****1234x"),
        ("2026-10-01 00:00:00", "2026-10-01 00:00:00"),
        ("1234567890", "1234567890"),
        ("0123456789abcdef0123456789abcdef", "0123456789abcdef0123456789abcdef"),
    ],
)
def test_numbers_inside_a_text_are_masked(text: str, masked: str) -> None:
    assert mask_text(text) == masked
