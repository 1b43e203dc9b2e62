"""Every assertion of dbt_project/tests passes good rows and finds bad ones (G1)."""

import re
from pathlib import Path

import duckdb
import pytest
from cleanbill.settings import REPOSITORY

FOLDER = REPOSITORY / "dbt_project" / "tests"
TABLES = """
create schema intermediate;
create table intermediate.int_affected_accounts as select '1' as msisdn, '900001' as sp_code;
create table intermediate.int_spells (
    subscription_id varchar, msisdn varchar, sp_code varchar, service_code varchar, ordered_at timestamp,
    ended_at timestamp
);
insert into intermediate.int_spells values
    ('a', '1', '900001', 'news', '2026-01-01', '2026-02-01'), ('b', '1', '900001', 'news', '2026-02-01', null),
    ('c', '1', '900001', 'rings', '2026-01-01', null);
create table intermediate.int_suspensions (
    subscription_id varchar, msisdn varchar, sp_code varchar, suspended_from timestamp, suspended_to timestamp
);
insert into intermediate.int_suspensions values
    ('a', '1', '900001', '2026-01-01', '2026-02-01'), ('b', '1', '900001', '2026-03-01', null);
"""
A_SECOND_EARLY = "timestamp '2025-12-31 23:59:59'"
A_SECOND_LATE = "timestamp '2026-02-01 00:00:01'"
BAD = {
    "assert_spells_of_a_relation_never_overlap": [
        f"update intermediate.int_spells set ended_at = {A_SECOND_LATE} where subscription_id = 'a'",
        "update intermediate.int_spells set ended_at = null where subscription_id = 'a'",
        "insert into intermediate.int_spells values ('d', '1', '900001', 'rings', '2026-05-01', '2026-05-02')",
    ],
    "assert_suspensions_lie_within_their_spell": [
        f"update intermediate.int_suspensions set suspended_from = {A_SECOND_EARLY} where subscription_id = 'a'",
        f"update intermediate.int_suspensions set suspended_to = {A_SECOND_LATE} where subscription_id = 'a'",
        "update intermediate.int_suspensions set suspended_to = null where subscription_id = 'a'",
        "update intermediate.int_suspensions set subscription_id = 'nobody' where subscription_id = 'b'",
    ],
}


def failing_rows(assertion: str, *statements: str) -> list[tuple]:
    sql = (FOLDER / f"{assertion}.sql").read_text(encoding="utf-8")
    sql = re.sub(r"\{\{ ref\('(\w+)'\) \}\}", r"intermediate.\1", sql)
    assert "{{" not in sql
    with duckdb.connect() as connection:
        connection.execute(TABLES)
        for statement in statements:
            connection.execute(statement)
        return connection.execute(sql).fetchall()


def test_every_assertion_has_bad_rows() -> None:
    assert {Path(path).stem for path in FOLDER.glob("*.sql")} == set(BAD)


@pytest.mark.parametrize("assertion", BAD)
def test_good_rows_pass(assertion: str) -> None:
    assert failing_rows(assertion) == []


@pytest.mark.parametrize(("assertion", "statement"), [(name, bad) for name, found in BAD.items() for bad in found])
def test_bad_rows_are_found(assertion: str, statement: str) -> None:
    assert failing_rows(assertion, statement)
