"""Publishing: only what a green gate checked, all of it or nothing, while readers read."""

import hashlib
import multiprocessing
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import duckdb
import pytest
import yaml
from cleanbill import gates, publish
from cleanbill.control import open_warehouse
from cleanbill.errors import GateFailed
from cleanbill.published_tables import PUBLISHED_MARTS, RUN_TABLE_COMMENTS
from cleanbill.settings import REPOSITORY, Settings, get_settings

from tests.gate_warehouse import write_good_warehouse

SPELL = "md5('spell1')"
# Three marts and the run's own table must tell one story: every publication of the reader test moves the fee and
# the name of the as-of date's run together.
ONE_STORY = """
select
    (select sum(fee_li) from billing_dispositions where subscription_id = md5('spell1')),
    (select sum(gross_li) from sp_settlement),
    (select string_agg(distinct province) from subscriptions),
    (select count(*) from mart_info)
"""


@pytest.fixture(scope="module")
def good_warehouse(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("good") / "cleanbill.duckdb"
    write_good_warehouse(path)
    return path


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, good_warehouse: Path) -> Iterator[Settings]:
    monkeypatch.setenv("CLEANBILL_HOME", str(tmp_path))
    monkeypatch.setenv("CLEANBILL_PSEUDONYM_KEY", "test key")
    get_settings.cache_clear()
    found = get_settings()
    found.warehouse_folder.mkdir(parents=True)
    shutil.copyfile(good_warehouse, found.warehouse)
    yield found
    get_settings.cache_clear()


def _record_green(settings: Settings, run_id: str) -> None:
    """Record the verdict as the gate would (its suites are proven elsewhere and take seconds)."""
    with open_warehouse(settings) as connection:
        connection.execute(
            "insert or replace into control.gate_records by position "
            "values ($run_id, 'marts', true, 0, 1, $state, '2026-10-01 04:00:00')",
            {"run_id": run_id, "state": gates.state_digest("marts", connection)},
        )
        connection.execute(
            "insert into control.gate_results by position values "
            "($run_id, 'marts', 'subscriptions', 'a warning', 'warning', false, '1 such row', 'no such row', 1, '', "
            "'2026-10-01')",
            {"run_id": run_id},
        )


def _change(settings: Settings, statement: str) -> None:
    with open_warehouse(settings) as connection:
        connection.execute(statement)


def _files(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


def _query(settings: Settings, sql: str) -> list[tuple]:
    with duckdb.connect(str(settings.published_marts), read_only=True) as connection:
        return connection.execute(sql).fetchall()


def test_the_published_tables_are_the_marts_row_for_row(settings: Settings) -> None:
    _record_green(settings, "run")
    publication = publish.publish_marts("run")
    for table in PUBLISHED_MARTS:
        columns = ", ".join(table.columns)
        with open_warehouse(settings, read_only=True) as connection:
            expected = connection.execute(f"select {columns} from marts.{table.name} order by all").fetchall()
        assert _query(settings, f"from {table.name} order by all") == expected
        parquet = settings.marts / "parquet" / table.name / f"{table.name}.parquet"
        assert duckdb.sql(f"select {columns} from '{parquet}' order by all").fetchall() == expected
        assert publication.rows[table.name] == len(expected)
    tables = {name for (name,) in _query(settings, "select table_name from information_schema.tables")}
    assert tables == {table.name for table in PUBLISHED_MARTS} | {"gate_results", "mart_info"}


def test_no_true_number_is_in_any_published_file(settings: Settings) -> None:
    _record_green(settings, "run")
    publish.publish_marts("run")
    for path in settings.marts.rglob("*"):
        assert not path.is_file() or b"13800000001" not in path.read_bytes()


def test_mart_info_and_gate_results_say_what_the_marts_are(settings: Settings) -> None:
    _record_green(settings, "run")
    publish.publish_marts("run")
    ((as_of, deliveries, policy, version, published_at, red_gates, waived),) = _query(settings, "from mart_info")
    assert str(as_of) == "2026-09-30"
    assert len(deliveries) == len(policy) == 64
    assert version.startswith("0.1.0+")
    assert published_at is not None
    assert red_gates == "marts/subscriptions: a warning"
    assert waived == "wap_usage/bj/2026-07-15"
    assert _query(settings, "from gate_results") == [
        ("marts", "subscriptions", "a warning", False, "1 such row", "no such row")
    ]


def test_the_digest_of_deliveries_follows_deliveries_within_the_as_of_date_only(settings: Settings) -> None:
    def digest() -> str:
        _record_green(settings, "run")
        publish.publish_marts("run")
        return _query(settings, "select deliveries_digest from mart_info")[0][0]

    before = digest()
    _change(
        settings,
        "insert into control.in_force by name select * replace (date '2026-10-01' as business_date) "
        "from control.in_force where extract = 'refunds' and business_date = date '2026-09-20'",
    )
    assert digest() == before
    _change(settings, "update control.in_force set manifest_sha256 = 'x' where business_date = date '2026-09-30'")
    assert digest() != before


def test_the_digest_of_policy_follows_policy_and_test_numbers(settings: Settings) -> None:
    def digest() -> str:
        _record_green(settings, "run")
        publish.publish_marts("run")
        return _query(settings, "select policy_digest from mart_info")[0][0]

    seen = [digest()]
    _change(settings, "update policy.policy_consent set is_required = false")
    seen.append(digest())
    _change(settings, "insert into control.test_numbers values ('13800000001', '2026-01-01', null)")
    seen.append(digest())
    _change(settings, "insert into control.expected_pairs values ('sms_usage', 'bj', 'daily', '2026-05-01', null)")
    seen.append(digest())
    assert len(set(seen)) == 4
    assert digest() == seen[-1]


@pytest.mark.parametrize(
    ("statement", "found"),
    [
        ("delete from control.gate_records", "none"),
        ("update control.gate_records set passed = false", "a red one"),
        ("update control.gate_records set run_id = 'yesterday' where run_id = 'second'", "none"),
        ("update marts.billing_dispositions set charged_li = charged_li + 1", "rows that changed"),
        ("update control.absorbed_state set as_of_date = date '2026-09-29'", "rows that changed"),
    ],
)
def test_without_a_green_gate_for_these_rows_what_was_published_stays_byte_for_byte(
    settings: Settings, statement: str, found: str
) -> None:
    _record_green(settings, "first")
    publish.publish_marts("first")
    before = _files(settings.marts)
    _record_green(settings, "second")
    _change(settings, statement)
    with pytest.raises(GateFailed, match=found):
        publish.publish_marts("second")
    assert _files(settings.marts) == before


def test_a_red_gate_leaves_the_published_marts_as_they_were(settings: Settings) -> None:
    """The whole way: publish, spoil the warehouse, check with the real suites, try to publish."""
    gates.check("marts", "first")
    publish.publish_marts("first")
    before = _files(settings.marts)
    _change(
        settings, f"update marts.billing_dispositions set fee_li = 0, charged_li = 0 where subscription_id = {SPELL}"
    )
    with pytest.raises(GateFailed, match="the fees of all dispositions"):
        gates.check("marts", "second")
    with pytest.raises(GateFailed, match="a red one"):
        publish.publish_marts("second")
    assert _files(settings.marts) == before


@pytest.mark.parametrize("step", ["_write_mart_info", "_write_changed_parquet", "_keep_version", "_flush"])
def test_a_failure_in_the_middle_leaves_the_old_files_and_no_leftovers(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    _record_green(settings, "first")
    publish.publish_marts("first")
    before = _files(settings.marts)
    _change(settings, "update marts.subscriptions set province = 'sd'")
    _record_green(settings, "second")

    def fail(*_arguments: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(publish, step, fail)
    with pytest.raises(OSError, match="No space left"):
        publish.publish_marts("second")
    assert _files(settings.marts) == before
    monkeypatch.undo()
    monkeypatch.setenv("CLEANBILL_HOME", str(settings.home))
    publish.publish_marts("second")
    assert _query(settings, "select distinct province from subscriptions") == [("sd",)]


def test_what_a_killed_publication_left_is_removed(settings: Settings) -> None:
    leftover = settings.marts / ".publishing-killed"
    leftover.mkdir(parents=True)
    (leftover / "marts.duckdb").write_bytes(b"half")
    _record_green(settings, "run")
    publish.publish_marts("run")
    assert not leftover.exists()


def test_parquet_is_rewritten_only_when_its_table_changed(settings: Settings) -> None:
    _record_green(settings, "first")
    assert len(publish.publish_marts("first").rewritten_parquet) == len(PUBLISHED_MARTS) + 2
    _change(settings, "update marts.subscriptions set province = 'sd'")
    _record_green(settings, "second")
    rewritten = set(publish.publish_marts("second").rewritten_parquet)
    assert {"subscriptions"} <= rewritten <= {"subscriptions", "mart_info", "gate_results"}
    (settings.marts / "parquet" / "dim_service" / "dim_service.parquet").unlink()
    assert "dim_service" in publish.publish_marts("second").rewritten_parquet


def test_equal_rows_give_equal_parquet_whatever_their_order_in_the_warehouse(settings: Settings) -> None:
    _record_green(settings, "first")
    publish.publish_marts("first")
    folder = settings.marts / "parquet"
    before = {name: digest for name, digest in _files(folder).items() if "/" in name and "mart_info" not in name}
    for table in ("subscriptions", "billing_dispositions", "extract_completeness"):
        _change(settings, f"create or replace table marts.{table} as from marts.{table} order by hash({table})")
    shutil.rmtree(folder)
    _record_green(settings, "second")
    publish.publish_marts("second")
    after = {name: digest for name, digest in _files(folder).items() if "/" in name and "mart_info" not in name}
    assert after == before


def test_descriptions_of_the_warehouse_are_carried_along(settings: Settings) -> None:
    _change(settings, "comment on table marts.subscriptions is 'Spells. It''s one row per spell.'")
    _change(settings, "comment on column marts.subscriptions.status is 'active, suspended or ended'")
    _record_green(settings, "run")
    publish.publish_marts("run")
    tables = dict(_query(settings, "select table_name, comment from duckdb_tables()"))
    assert tables["subscriptions"] == "Spells. It's one row per spell."
    assert tables["mart_info"] == RUN_TABLE_COMMENTS["mart_info"][""]
    columns = dict(
        _query(settings, "select column_name, comment from duckdb_columns() where table_name = 'subscriptions'")
    )
    assert columns["status"] == "active, suspended or ended"


def test_the_file_is_written_for_old_readers(settings: Settings) -> None:
    """Read by DuckDB 1.1.3 when tried by hand; here its own statement of the format must do."""
    _record_green(settings, "run")
    publish.publish_marts("run")
    ((tags,),) = _query(settings, "select tags from duckdb_databases() where database_name = 'marts'")
    assert tags["storage_version"].startswith("v1.0.0")
    assert not settings.published_marts.with_name("marts.duckdb.wal").exists()


def test_the_last_versions_are_kept(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLEANBILL_KEPT_PUBLICATIONS", "2")
    get_settings.cache_clear()
    for run in ("a", "b", "c"):
        _record_green(settings, run)
        publish.publish_marts(run)
    names = sorted(path.name for path in (settings.marts / "versions").iterdir())
    assert names == ["v000002.duckdb", "v000003.duckdb"]
    newest = (settings.marts / "versions" / "v000003.duckdb").read_bytes()
    assert newest == settings.published_marts.read_bytes()


def _read_until_told(path: str, stop: object, found: object) -> None:
    """Open, query and close in a loop, as an analyst's tool does; report every story and every error."""
    seen: set[tuple] = set()
    errors: list[str] = []
    reads = 0
    while not stop.is_set() or reads == 0:
        try:
            with duckdb.connect(path, read_only=True) as connection:
                seen.add(connection.execute(ONE_STORY).fetchone())
        except duckdb.Error as error:
            errors.append(str(error))
        reads += 1
    found.put((seen, errors, reads))


def test_readers_never_meet_an_error_or_a_mixture(settings: Settings) -> None:
    stories = set()
    _record_green(settings, "start")
    publish.publish_marts("start")
    stories.add(_query(settings, ONE_STORY)[0])
    context = multiprocessing.get_context("spawn")
    stop, found = context.Event(), context.Queue()
    readers = [
        context.Process(target=_read_until_told, args=(str(settings.published_marts), stop, found)) for _ in range(2)
    ]
    for reader in readers:
        reader.start()
    held = duckdb.connect(str(settings.published_marts), read_only=True)  # and one who never lets go
    try:
        for number in range(8):
            _change(
                settings,
                f"update marts.billing_dispositions set fee_li = {number} where subscription_id = {SPELL};"
                f"update marts.sp_settlement set gross_li = {number};"
                f"update marts.subscriptions set province = 'p{number}'",
            )
            _record_green(settings, f"run {number}")
            publish.publish_marts(f"run {number}")
            stories.add((3 * number, 5 * number, f"p{number}", 1))
        time.sleep(0.2)
        assert held.execute(ONE_STORY).fetchone() in stories
    finally:
        stop.set()
        reports = [found.get(timeout=60) for _ in readers]
        for reader in readers:
            reader.join(timeout=60)
        held.close()
    for seen, errors, reads in reports:
        assert errors == []
        assert reads > 0
        assert seen <= stories


def test_the_allow_list_is_the_contract_of_the_models() -> None:
    """Every published column is a column dbt enforces, in the same order."""
    described = {}
    for path in sorted((REPOSITORY / "dbt_project" / "models" / "marts").glob("*.yml")):
        for model in yaml.safe_load(path.read_text(encoding="utf-8")).get("models", []):
            described[model["name"]] = tuple(column["name"] for column in model.get("columns", []))
    assert {table.name: table.columns for table in PUBLISHED_MARTS} == described
