"""The analyst's cage: what it answers, what it refuses, what it stops."""

import time
from datetime import date, datetime
from decimal import Decimal

import duckdb
import pytest
from cleanbill import query as query_module
from cleanbill.errors import QueryRefused
from cleanbill.query import query, require_select
from cleanbill.settings import get_settings


@pytest.fixture(scope="module")
def marts(tmp_path_factory):
    path = tmp_path_factory.mktemp("marts") / "marts.duckdb"
    with duckdb.connect(str(path)) as connection:
        connection.execute(
            "create table subscriptions as select i as id, 'sp' || (i % 3) as sp_code, date '2026-10-01' as day, "
            "timestamp '2026-10-01 10:00:00' as seen_at, 1.50::decimal(9, 2) as share, true as flag, "
            "null::date as gone from range(100) as t(i)"
        )
    path.chmod(0o440)
    return path


ANSWERED = [
    ("select count(*) from subscriptions", [(100,)]),
    ("from subscriptions select id limit 1", [(0,)]),
    ("select count(*) from main.subscriptions;", [(100,)]),
    ("select count(*) from marts.main.subscriptions -- a comment; with a semicolon", [(100,)]),
    ("with few as (select * from subscriptions where id < 3) select sum(id)::bigint from few", [(3,)]),
    ("select 1 union all select 2 order by 1", [(1,), (2,)]),
    ("select table_name from information_schema.tables", [("subscriptions",)]),
    ("select i from range(2) as t(i)", [(0,), (1,)]),
    (
        "select day, seen_at, share, flag, gone from subscriptions limit 1",
        [(date(2026, 10, 1), datetime(2026, 10, 1, 10), Decimal("1.50"), True, None)],
    ),
    ("select sp_code, count(*) from subscriptions group by all having count(*) > 33", [("sp0", 34)]),
    ("select id from subscriptions qualify row_number() over (order by id desc) = 1", [(99,)]),
    ("select ';' || 'drop table x'", [(";drop table x",)]),
]


@pytest.mark.parametrize(("sql", "rows"), ANSWERED)
def test_one_select_is_answered(marts, sql, rows):
    assert query(sql, database=marts).rows == rows


# One wall is enough to refuse it; which one is tested below.
HOSTILE = [
    "select * from read_csv('/etc/passwd')",
    "select * from read_csv_auto('/etc/passwd')",
    "select * from '/etc/passwd'",
    "from '/etc/passwd'",
    'select * from "/etc/passwd"',
    "select * from read_text('/etc/passwd')",
    "select * from read_blob('/etc/passwd')",
    "select * from read_json('/etc/passwd')",
    "select * from read_parquet('x.parquet')",
    "select * from parquet_metadata('x.parquet')",
    "select * from glob('/etc/*')",
    "select * from sniff_csv('/etc/passwd')",
    "select content from read_text('/proc/self/environ')",
    "copy subscriptions to '/tmp/stolen.csv'",
    "copy (select 1) to '/tmp/stolen.csv'",
    "copy subscriptions from '/etc/passwd'",
    "export database '/tmp/stolen'",
    "import database '/tmp/stolen'",
    "attach '/tmp/other.duckdb' as other",
    "attach ':memory:' as other",
    "detach marts",
    "use memory",
    "install httpfs",
    "load httpfs",
    "force install spatial from 'http://example.invalid'",
    "set memory_limit = '100GB'",
    "set enable_external_access = true",
    "set lock_configuration = false",
    "reset memory_limit",
    "pragma database_list",
    "pragma memory_limit='100GB'",
    "create table stolen as select * from subscriptions",
    "create temp table stolen as select 1",
    "create view stolen as select 1",
    "create macro stolen() as 1",
    "create secret stolen (type s3)",
    "insert into subscriptions select * from subscriptions",
    "update subscriptions set id = 1",
    "delete from subscriptions",
    "truncate subscriptions",
    "drop table subscriptions",
    "alter table subscriptions add column x int",
    "merge into subscriptions using subscriptions as s on true when matched then delete",
    "with gone as (delete from subscriptions returning *) select * from gone",
    "vacuum",
    "checkpoint",
    "begin",
    "call pragma_version()",
    "prepare x as select 1",
    "execute x",
    "explain analyze select 1",
    "describe subscriptions",
    "show tables",
    "select 1; select 2",
    "select 1; drop table subscriptions",
    "",
    "   ;",
    "selec 1",
    "select getenv('CLEANBILL_PSEUDONYM_KEY')",
    "select system.main.getenv('HOME')",
    "select current_setting('memory_limit')",
    "select getvariable('pseudonym_inner')",
    "from duckdb_secrets()",
    "from duckdb_settings()",
    "select * from duckdb_tables",
    "select * from pragma_database_list",
    "select * from sqlite_master",
    "select * from pg_catalog.pg_settings",
    "select * from query('select 1')",
    "select * from query_table('subscriptions')",
    "select * from other.main.subscriptions",
    "select * from json_execute_serialized_sql(json_serialize_sql('select 1'))",
    "select * from sqlite_scan('/tmp/x.db', 'x')",
    "select * from postgres_scan('host=127.0.0.1', 'public', 'x')",
    "select * from subscriptions into outfile '/tmp/x'",
    "select * into stolen from subscriptions",
    "select * from nowhere",
    "select no_such_column from subscriptions",
    "select 1 /* ",
    "select $1",
]


@pytest.mark.parametrize("sql", HOSTILE)
def test_hostile_text_is_refused(marts, sql):
    with pytest.raises(QueryRefused, match="What to do"):
        query(sql, database=marts)


# The second wall alone: what the engine itself refuses although it is one SELECT.
ENGINE_REFUSES = [
    "select * from read_csv('/etc/passwd')",
    "select * from '/etc/passwd'",
    "select * from read_text('/proc/self/environ')",
    "select * from glob('/etc/*')",
    "select * from read_parquet('x.parquet')",
    "select 1; drop table subscriptions",
    "copy subscriptions to '/tmp/stolen.csv'",
    "set memory_limit = '100GB'",
    "attach ':memory:' as other",
    "create temp table stolen as select 1",
    "install httpfs",
    "select getenv('HOME')",
]


@pytest.mark.parametrize("sql", ENGINE_REFUSES)
def test_the_engine_refuses_what_the_parser_would_miss(marts, monkeypatch, sql):
    monkeypatch.setattr(query_module, "require_select", lambda text: text)
    with pytest.raises(QueryRefused, match="What to do"):
        query(sql, database=marts)


BOMBS = [
    "with recursive bomb as (select 1 as i union all select i + 1 from bomb) select count(*) from bomb",
    "select count(*) from range(1000000000) as a(i), range(1000000000) as b(i)",
    "select sum(a.id * b.id * c.id * d.id * e.id * f.id) from subscriptions a, subscriptions b, subscriptions c, "
    "subscriptions d, subscriptions e, subscriptions f",
    "select list(i) from range(1000000000) as t(i)",
    "select repeat('x', 1000000000) from range(50)",
    "select count(*) from (select repeat('x', 100000000) || i as text from range(500) as t(i) order by text)",
    "select * from subscriptions a, subscriptions b, subscriptions c, subscriptions d, subscriptions e order by all",
]


@pytest.mark.parametrize("sql", BOMBS)
def test_bombs_are_stopped_in_time_and_memory(marts, sql):
    started = time.monotonic()
    with pytest.raises(QueryRefused, match="stopped"):
        query(sql, database=marts, seconds=2, memory_mb=200)
    assert time.monotonic() - started < 2 + query_module.GRACE_SECONDS + 3


def test_rows_beyond_the_limit_are_left_out_and_said(marts):
    assert query("select id from subscriptions", database=marts, max_rows=100).is_cut is False
    cut = query("select id from subscriptions", database=marts, max_rows=99)
    assert (len(cut.rows), cut.is_cut) == (99, True)


def test_the_environment_does_not_reach_the_cage(marts, monkeypatch):
    monkeypatch.setenv("CLEANBILL_PSEUDONYM_KEY", "canary-key")
    monkeypatch.setattr(query_module, "require_select", lambda text: text)
    for sql in ("select getenv('CLEANBILL_PSEUDONYM_KEY')", "select * from read_text('/proc/self/environ')"):
        with pytest.raises(QueryRefused) as caught:
            query(sql, database=marts)
        assert "canary-key" not in str(caught.value)


def test_the_published_file_stays_as_it_is(marts):
    def state():
        return marts.read_bytes(), marts.stat().st_mtime_ns, sorted(path.name for path in marts.parent.iterdir())

    before = state()
    query("select count(*) from subscriptions", database=marts)
    assert state() == before


def test_without_published_marts_it_says_how_to_get_them(tmp_path, monkeypatch):
    monkeypatch.setenv("CLEANBILL_HOME", str(tmp_path))
    get_settings.cache_clear()
    with pytest.raises(QueryRefused, match="cleanbill run"):
        query("select 1")
    get_settings.cache_clear()


def test_the_proof_needs_no_database():
    assert require_select("select 1;") == "select 1;"
