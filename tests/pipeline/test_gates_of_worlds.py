"""The gates raise no false alarm: whatever boundaries a contract-true world sits on, however its deliveries come.

A gate that is red without need stops the day for everybody; each critical expectation must therefore follow from
the rules alone. The dirt of these worlds (refused, repeated and missing deliveries, odd intervals) may only warn.
"""

import random
from datetime import date
from pathlib import Path

import duckdb
import pytest
from cleanbill import billing_feed, gates
from cleanbill.errors import GateFailed
from cleanbill.ingest import ingest
from cleanbill.publish import publish_marts
from cleanbill.settings import get_settings

from tests.pipeline.test_incremental import copy_reference_files, data_root, deliver, new_world, units_of
from tests.replay import Recording

ALL_DAYS = (date(1990, 1, 1), date(2100, 1, 1))
BATCHES = 4


@pytest.mark.parametrize("seed", [71, 72, 73])
def test_no_gate_is_red_while_a_world_arrives_in_shuffled_batches(
    recording: Recording, tmp_path: Path, seed: int
) -> None:
    world = new_world(tmp_path / "world", seed, months=3)
    units = units_of(world)
    random.Random(seed).shuffle(units)
    with data_root(tmp_path / "home") as home:
        copy_reference_files(world, home)
        for number in range(BATCHES):
            deliver(units[number::BATCHES], world, home)
            ingest(*ALL_DAYS)
            gates.check("raw", f"batch {number}")
            recording.build(as_of=_newest_day(home))
            gates.check("staging", f"batch {number}")
            gates.check("marts", f"batch {number}")
            publish_marts(f"batch {number}")


def test_the_gate_of_the_feed_is_green_for_a_complete_month(recording: Recording, tmp_path: Path) -> None:
    with data_root(tmp_path / "home") as home:
        new_world(home, seed=74, months=3, holes="none", start=date(2026, 4, 1))
        ingest(*ALL_DAYS)
        recording.build(as_of=date(2026, 6, 30))
        prepared = billing_feed.prepare_month(date(2026, 7, 1))
        assert prepared.built_from == "warehouse"
        assert gates.check("export", "bill", prepared.database).warnings == ()
        assert prepared.charges > 0


@pytest.mark.parametrize(
    ("statement", "sentence"),
    [
        ("delete from intermediate.int_spell_usage where hash(msisdn) % 2 = 0", "counted use that this build took in"),
        ("delete from marts.subscriptions where hash(subscription_id) % 5 = 0", "the spells of the mart"),
        ("update marts.billing_dispositions set fee_li = fee_li + 1 where fee_li > 0", "fees of all dispositions"),
        ("drop view marts.silent_subscriptions", "the table exists"),
    ],
)
def test_damage_to_a_real_build_is_seen(recording: Recording, tmp_path: Path, statement: str, sentence: str) -> None:
    with data_root(tmp_path / "home") as home:
        new_world(home, seed=75, months=2, holes="none")
        ingest(*ALL_DAYS)
        recording.build()
        with duckdb.connect(str(get_settings().warehouse)) as connection:
            connection.execute(statement)
        with pytest.raises(GateFailed, match=sentence):
            gates.check("marts", "run")


def _newest_day(home: Path) -> date:
    with duckdb.connect(str(home / "warehouse" / "cleanbill.duckdb"), read_only=True) as connection:
        return connection.execute("select max(business_date) from control.in_force").fetchone()[0]
