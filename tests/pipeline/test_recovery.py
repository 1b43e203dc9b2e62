"""What is lost comes back the same, and what is damaged is found before it is used (R4, R6)."""

import random
import shutil
from collections.abc import Iterator
from datetime import date, timedelta
from pathlib import Path

import duckdb
import pytest
from cleanbill import billing_feed
from cleanbill.control import open_warehouse
from cleanbill.errors import DataDamaged, SettingsError
from cleanbill.ingest import IngestSummary, ingest
from cleanbill.lake_index import newest_day_of_a_lost_warehouse
from cleanbill.settings import get_settings

from tests.delivery_writer import DeliveryWriter
from tests.pipeline.conftest import data_root
from tests.replay import Recording, table_rows

SEED = 20060901


def run() -> IngestSummary:
    return ingest(date.min, date.max)


@pytest.fixture
def home(built_home: Path, tmp_path: Path) -> Iterator[Path]:
    """Give a copy of the built world of its own."""
    shutil.copytree(built_home, tmp_path / "data")
    with data_root(tmp_path / "data") as copied:
        yield copied


def marts() -> dict[str, list[tuple]]:
    return table_rows(get_settings().warehouse)


def first_month_to_bill() -> date:
    with open_warehouse(read_only=True) as connection:
        (first,) = connection.execute("select min(business_date) from control.in_force").fetchone()
    return (first.replace(day=28) + timedelta(days=40)).replace(day=1)


def sealed_feed(recording: Recording, month: date) -> str:
    """Bill a month from a fresh build and return the text of `_SUCCESS`."""
    recording.build(month - timedelta(days=1))
    with pytest.MonkeyPatch.context() as patch:
        # Whether the random world may be billed is another test's question.
        patch.setattr("cleanbill.feed_snapshot.require_inputs", lambda *_: None)
        patch.setattr("cleanbill.feed_snapshot.require_unblocked", lambda *_: None)
        billing_feed.prepare_month(month)
    billing_feed.draft_feed(month)
    billing_feed.approve_feed(month, "Li Lei")
    return (billing_feed.seal_feed(month) / "_SUCCESS").read_text()


def test_a_lost_warehouse_comes_back_from_the_lake_alone(home: Path, recording: Recording) -> None:
    before = marts()
    month = first_month_to_bill()
    sealed = sealed_feed(recording, month)
    recording.build()
    tables = {name: rows for name, rows in table_rows(get_settings().warehouse, ("control",)).items() if "lake" in name}
    shutil.rmtree(home / "warehouse")
    shutil.rmtree(home / "landing")
    shutil.rmtree(home / "exports")
    last = newest_day_of_a_lost_warehouse(get_settings())
    summary = ingest(last, last)
    assert any("known again from the lake" in note for note in summary.notes)
    recording.build()
    assert marts() == before
    found = table_rows(get_settings().warehouse, ("control",))
    assert {name: found[name] for name in tables} == tables
    assert sealed_feed(recording, month) == sealed


def test_a_lost_warehouse_and_lake_come_back_from_landing(home: Path, recording: Recording) -> None:
    before = marts()
    control = table_rows(get_settings().warehouse, ("control",))
    shutil.rmtree(home / "warehouse")
    shutil.rmtree(home / "lake")
    run()
    recording.build()
    assert marts() == before
    found = table_rows(get_settings().warehouse, ("control",))
    for table in ("deliveries", "delivery_files", "in_force", "lake_files", "absorbed"):
        assert found[f"control.{table}"] == control[f"control.{table}"], table


def test_a_rebuild_asks_for_a_lost_warehouse_and_a_sound_record(home: Path) -> None:
    with pytest.raises(SettingsError, match="move it away"):
        newest_day_of_a_lost_warehouse(get_settings())
    get_settings().warehouse.unlink()
    index = home / "lake" / "deliveries.duckdb"
    content = bytearray(index.read_bytes())
    content[: len(content) // 2] = bytes(len(content) // 2)
    index.write_bytes(content)
    for act in (run, lambda: newest_day_of_a_lost_warehouse(get_settings())):
        with pytest.raises(DataDamaged, match="delete it, and everything still in landing/ is read again"):
            act()
    index.unlink()
    with pytest.raises(DataDamaged, match="no file"):
        newest_day_of_a_lost_warehouse(get_settings())
    assert run().accepted > 0


def flip_bit(path: Path, rng: random.Random) -> None:
    content = bytearray(path.read_bytes())
    content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    path.write_bytes(content)


@pytest.mark.parametrize("count", [4, pytest.param(200, marks=pytest.mark.soak)])
def test_a_flipped_bit_in_the_lake_stops_the_build_and_can_be_repaired(
    home: Path, recording: Recording, count: int
) -> None:
    print(f"seed {SEED}")
    rng = random.Random(SEED)
    before = marts()
    # Without the check two of three flips read as other values. (A full file equal to that of the day before, and what
    # lies after the as-of date, is not read.)
    with open_warehouse(read_only=True) as connection:
        paths = connection.execute(
            "select lake_path from control.absorbed where lake_path is not null "
            "and extract not in ('service_catalogue', 'service_providers') order by all"
        ).fetchall()
    for _ in range(count):
        get_settings().warehouse.unlink()
        run()
        damaged = home / rng.choice(paths)[0]
        flip_bit(damaged, rng)
        with pytest.raises(duckdb.Error, match=f"damaged lake file {damaged.relative_to(home)}: delete it"):
            recording.build()
        damaged.unlink()
        summary = run()
        assert summary.accepted == 1
        assert any("made anew from landing" in note for note in summary.notes)
    recording.build()
    assert marts() == before


def test_a_file_damaged_after_it_was_taken_in_is_found_when_it_is_read_again(home: Path, recording: Recording) -> None:
    """A late record of use makes the build read the month's other files again."""
    with open_warehouse(read_only=True) as connection:
        lake_path, day, msisdn, sp_code, service_code = connection.execute(
            "select lake_path, month_days.business_date, usage.msisdn, usage.sp_code, usage.service_code "
            "from control.in_force as month_days, intermediate.int_spell_usage as usage "
            "where extract = 'sms_usage' and lake_path is not null and usage.mt_count > 0 "
            "and date_trunc('month', month_days.business_date) = usage.month and usage.subscription_id is not null "
            "order by all limit 1"
        ).fetchone()
    flip_bit(home / lake_path, random.Random(SEED))
    DeliveryWriter(home, day=str(day), source="late").add(
        [f"{msisdn},{sp_code},{service_code},MT,{day} 10:00:00,ok,content,1,100"]
    ).write()
    run()
    with pytest.raises(duckdb.Error, match=f"damaged lake file {lake_path}"):
        recording.build()


def test_a_lake_file_that_cannot_be_made_anew_leaves_its_delivery_accepted(home: Path) -> None:
    with open_warehouse(read_only=True) as connection:
        key = "extract, business_date, source, delivery, lake_path"
        extract, day, source, _, lake_path = connection.execute(
            f"select {key} from control.in_force where lake_path is not null order by all limit 1"
        ).fetchone()
    (home / lake_path).unlink()
    for data in (home / "landing" / extract / str(day)).glob(f"*_{source}*.csv*"):
        data.unlink()
    summary = run()
    assert any("file_missing" in line for line in summary.rejections)
    with open_warehouse(read_only=True) as connection:
        statuses = connection.execute(
            "select distinct status from control.deliveries where lake_path = $path", {"path": lake_path}
        ).fetchall()
    assert statuses == [("accepted",)]


def test_a_damaged_warehouse_is_named_with_the_way_out(home: Path, recording: Recording) -> None:
    before = marts()
    path = get_settings().warehouse
    sound = path.read_bytes()
    for damaged in (sound[:1] + bytes([sound[1] ^ 1]) + sound[2:], sound[: len(sound) // 2], b"", b"rubbish" * 2000):
        path.write_bytes(damaged)
        for act in (run, lambda: newest_day_of_a_lost_warehouse(get_settings())):
            with pytest.raises(DataDamaged, match=r"cleanbill\.duckdb: expected .* `cleanbill rebuild`"):
                act()
    path.rename(path.with_name("damaged.duckdb"))
    last = newest_day_of_a_lost_warehouse(get_settings())
    ingest(last, last)
    recording.build()
    assert marts() == before


@pytest.mark.parametrize("name", ["warehouse/cleanbill.duckdb", "lake/deliveries.duckdb"])
def test_a_flipped_bit_in_a_database_is_never_read_as_another_value(home: Path, name: str) -> None:
    path = home / name
    sound = path.read_bytes()
    schemas = ("control", "marts", "main", "staging", "intermediate")
    expected = table_rows(path, schemas)
    rng = random.Random(SEED)
    found = 0
    for _ in range(20):
        flip_bit(path, rng)
        try:
            assert table_rows(path, schemas) == expected, "a flipped bit was read as another value"
        except duckdb.Error:
            found += 1
        path.write_bytes(sound)
    assert found > 0
