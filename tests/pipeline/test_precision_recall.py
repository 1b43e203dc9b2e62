"""Precision and recall of anomalies and silence against the simulator's truth are 1.0.

The truth is what was planted, so both directions matter: every planted spell is found, with its dates and counts,
and nobody else is accused, in spite of re-orders, suspensions, line stops, test numbers, doubled and broken records,
late files and resends.
"""

import csv
import shutil
from collections.abc import Iterator
from datetime import date, timedelta
from pathlib import Path

import duckdb
import pytest
from cleanbill.ingest import ingest
from cleanbill.pseudonym import pseudonym
from cleanbill.settings import get_settings
from cleanbill.simulator import simulate

from tests.conftest import TEST_KEY
from tests.pipeline.conftest import data_root
from tests.replay import Recording

START = date(2026, 3, 1)
# The shortest period in which a browsing service can be silent in two billing months.
LAST = date(2026, 8, 31)
MIDDLE = date(2026, 6, 10)

SPELL = "found.subscriber_id, found.sp_code, found.service_code, strftime(spell.ordered_at, '%Y-%m-%d %H:%M:%S')"
QUERIES = {
    "anomalies": f"""
        select
            {SPELL}, anomaly_type, observed_from::varchar, detected_on::varchar, coalesce(resolved_on::varchar, ''),
            report_status, coalesce(strftime(reported_at, '%Y-%m-%d %H:%M:%S'), '')
        from marts.anomalous_subscriptions found join marts.subscriptions spell using (subscription_id)
    """,
    "silences": f"""
        select
            {SPELL}, verdict, billing_month::varchar, service_class, window_start::varchar,
            coalesce(mt_count::varchar, ''), coalesce(wap_hits::varchar, '')
        from marts.silent_subscriptions found join marts.subscriptions spell using (subscription_id)
    """,
    "event_findings": """
        select
            event_id, reason, subscriber_id, sp_code, service_code, action,
            strftime(event_time, '%Y-%m-%d %H:%M:%S'), business_date::varchar, source
        from marts.relation_event_findings
    """,
    "malformed_records": """
        select extract, day::varchar, source, rows_quarantined::varchar
        from marts.extract_completeness where rows_quarantined > 0
    """,
}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write six months of one province, with many resends and every larger delivery holding a broken record."""
    home = tmp_path_factory.mktemp("simulated")
    simulate(
        home,
        START,
        end=LAST,
        subscribers=1500,
        provinces=1,
        seed=8,
        test_numbers=6,
        resent_permille=25,
        malformed_percent=100,
    )
    return home


@pytest.fixture(scope="module")
def marts(world: Path, recording: Recording) -> Iterator[duckdb.DuckDBPyConnection]:
    """Load everything at once and build; give the warehouse."""
    with data_root(world):
        ingest(START, LAST)
        assert recording.build() == LAST
        connection = duckdb.connect(str(get_settings().warehouse), read_only=True)
        yield connection
        connection.close()


def truth(world: Path, name: str) -> list[dict[str, str]]:
    with (world / "truth" / f"{name}.csv").open(encoding="utf-8", newline="") as text:
        rows = list(csv.DictReader(text))
    for row in rows:
        if "msisdn" in row:
            row["subscriber_id"] = pseudonym(row["msisdn"], TEST_KEY.encode())
    return rows


def spell_of(row: dict[str, str]) -> tuple[str, ...]:
    return row["subscriber_id"], row["sp_code"], row["service_code"], row["ordered_at"]


def expected_anomalies(world: Path) -> dict[tuple, tuple]:
    """Return what each anomaly must look like; an empty report status is decided by the working days alone."""
    return {
        (*spell_of(row), row["anomaly_type"]): (
            *(row["observed_from"], row["detected_on"], row["resolved_on"], row["report_status"], row["reported_at"]),
        )
        for row in truth(world, "anomalies")
    }


def assert_anomalies(connection: duckdb.DuckDBPyConnection, world: Path) -> None:
    wanted = expected_anomalies(world)
    got = {row[:5]: row[5:] for row in connection.execute(QUERIES["anomalies"]).fetchall()}
    assert got.keys() - wanted.keys() == set(), "precision"
    assert wanted.keys() - got.keys() == set(), "recall"
    undecided = {key for key, values in wanted.items() if not values[3]}
    assert len(undecided) < len(wanted) / 3
    for key, values in wanted.items():
        status = got[key][3] if key in undecided else values[3]
        assert got[key] == (*values[:3], status, values[4])
        assert status in ("reported", "reported_late", "unreported", "pending")


def assert_silences(connection: duckdb.DuckDBPyConnection, world: Path) -> None:
    wanted = {
        (
            *(*spell_of(row), "silent", row["billing_month"], row["service_class"]),
            *(row["window_start"], row["mt_count"], row["wap_hits"]),
        )
        for row in truth(world, "silences")
    }
    got = set(connection.execute(QUERIES["silences"]).fetchall())
    assert got - wanted == set(), "precision"
    assert wanted - got == set(), "recall"


def test_every_planted_anomaly_is_found_and_nobody_else_is_accused(marts, world):
    assert_anomalies(marts, world)
    kinds = {(key[4], bool(values[2])) for key, values in expected_anomalies(world).items()}
    assert len(kinds) == 4, "both types, resolved and not"


def test_every_planted_silence_is_found_and_nobody_else_is_called_silent(marts, world):
    assert_silences(marts, world)
    assert {row["service_class"] for row in truth(world, "silences")} == {"sms", "mms", "wap", "portal"}


def test_every_planted_odd_event_is_found_and_no_other(marts, world):
    wanted = {
        (
            *(row["event_id"], row["reason"], row["subscriber_id"], row["sp_code"], row["service_code"]),
            *(row["action"], row["event_time"], row["business_date"], row["source"]),
        )
        for row in truth(world, "event_findings")
    }
    assert set(marts.execute(QUERIES["event_findings"]).fetchall()) == wanted
    assert len({row[1] for row in wanted}) == 4


def test_every_broken_record_is_in_quarantine_and_no_other(marts, world):
    wanted = {(row["extract"], row["business_date"], row["source"], "1") for row in truth(world, "malformed_records")}
    assert wanted
    assert set(marts.execute(QUERIES["malformed_records"]).fetchall()) == wanted


def test_late_files_and_resends_end_at_the_same_truth(world, recording, tmp_path):
    """Play the period in two steps; what arrives late is not there in the first."""
    # Resends of days long before the middle come behind it too: what was absorbed is replaced.
    late = {
        (row["extract"], row["business_date"], row["source"], row["delivery"])
        for row in truth(world, "arrivals")
        if date.fromisoformat(row["business_date"]) <= MIDDLE
        and (row["delivery"] == "2" or date.fromisoformat(row["arrives_on"]) > MIDDLE)
    }
    assert late
    with data_root(tmp_path / "data") as home:
        shutil.copytree(world / "landing", home / "landing")
        shutil.copy(world / "expected_extracts.csv", home)
        shutil.copy(world / "test_numbers.csv", home)
        held = {}
        for extract, day, source, delivery in late:
            suffix = f"_d{delivery}" if delivery != "1" else ""
            manifest = (
                home / "landing" / extract / day / f"{extract}_{day.replace('-', '')}_{source}{suffix}.manifest.json"
            )
            held[manifest] = manifest.read_bytes()
            manifest.unlink()
        ingest(START, MIDDLE)
        assert recording.build() <= MIDDLE
        for manifest, content in held.items():
            manifest.write_bytes(content)
        ingest(MIDDLE + timedelta(days=1), LAST)
        assert recording.build() == LAST
        with duckdb.connect(str(get_settings().warehouse), read_only=True) as connection:
            assert_anomalies(connection, world)
            assert_silences(connection, world)
