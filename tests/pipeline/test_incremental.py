"""The law of the marts: a pure function of what is in force, however and in whatever order it came (I1, I2).

Every state is compared row for row with the oracle, which knows nothing of builds: so bulk = day by day =
shuffled = repeated = full rebuild follows.
"""

import json
import random
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path

import pytest
from cleanbill.errors import BuildFailed
from cleanbill.ingest import ingest
from cleanbill.settings import get_settings

from tests.compare import assert_marts_equal
from tests.oracle.test_oracle import Hand
from tests.pipeline.conftest import data_root
from tests.replay import Recording, table_rows
from tests.worlds import write_world

ALL_DAYS = (date(1990, 1, 1), date(2100, 1, 1))
SHUFFLED_SEEDS = (11, 12)
BULK_SEEDS = (21, 23, 24, 26)


@dataclass(frozen=True)
class Unit:
    """One delivery of a world: its manifest and its data files."""

    day: str
    manifest: Path
    files: tuple[Path, ...]

    @property
    def is_resend(self) -> bool:
        return "_d" in self.manifest.name.removesuffix(".manifest.json").split("_", 3)[-1]


def units_of(world: Path) -> list[Unit]:
    units = []
    for manifest in sorted((world / "landing").glob("*/*/*.manifest.json")):
        try:
            names = [file["name"] for file in json.loads(manifest.read_text())["files"]]
        except (ValueError, KeyError, TypeError):
            names = []
        files = tuple(path for path in (manifest.parent / name for name in names) if path.is_file())
        units.append(Unit(manifest.parent.name, manifest, files))
    return units


def deliver(units: Iterable[Unit], world: Path, home: Path) -> None:
    """Copy deliveries of a world into the landing folder of a data root, data files first."""
    for unit in units:
        folder = home / unit.manifest.parent.relative_to(world)
        folder.mkdir(parents=True, exist_ok=True)
        for path in (*unit.files, unit.manifest):
            shutil.copy(path, folder / path.name)


def new_world(folder: Path, seed: int, **options: object) -> Path:
    write_world(seed, folder, **options)
    return folder


def copy_reference_files(world: Path, home: Path) -> None:
    for path in world.iterdir():
        if path.is_file():
            shutil.copy(path, home / path.name)


def assert_equal(home: Path) -> None:
    """Hold every mart, and the undecided silence that stops the billing of each month, against the oracle."""
    warehouse = home / "warehouse" / "cleanbill.duckdb"
    oracle = assert_marts_equal(home, warehouse)
    found = table_rows(warehouse, ("intermediate",))["intermediate.int_billing_blockers"]
    expected = {
        (month, *blocker)
        for month, blockers in oracle.blockers.items()
        for blocker in blockers
        if month <= oracle.as_of + timedelta(days=1)
    }
    assert {row[:5] for row in found if row[1] == "unknown_usage" and row[0] <= oracle.as_of + timedelta(days=1)} == {
        row for row in expected if row[1] == "unknown_usage"
    }


@pytest.mark.parametrize("seed", BULK_SEEDS)
def test_bulk_equals_oracle(recording: Recording, tmp_path: Path, seed: int) -> None:
    with data_root(tmp_path / "home") as home:
        new_world(home, seed)
        ingest(*ALL_DAYS)
        recording.build()
        assert_equal(home)


def test_day_by_day_equals_oracle_every_week(recording: Recording, tmp_path: Path) -> None:
    world = new_world(tmp_path / "world", seed=31, months=2, subscribers=15, holes="none")
    by_day: dict[str, list[Unit]] = {}
    for unit in units_of(world):
        by_day.setdefault(unit.day, []).append(unit)
    with data_root(tmp_path / "home") as home:
        copy_reference_files(world, home)
        for number, day in enumerate(sorted(by_day)):
            deliver(by_day[day], world, home)
            ingest(*ALL_DAYS)
            recording.build()
            if number % 7 == 6 or number == len(by_day) - 1:
                assert_equal(home)


@pytest.mark.parametrize("seed", SHUFFLED_SEEDS)
def test_shuffled_batches_equal_oracle_after_each(recording: Recording, tmp_path: Path, seed: int) -> None:
    """Days arrive shuffled, resends and every twentieth delivery at any later time."""
    world = new_world(tmp_path / "world", seed, months=3)
    units = units_of(world)
    rng = random.Random(seed)
    days = sorted({unit.day for unit in units})
    rng.shuffle(days)
    arrival = {day: number for number, day in enumerate(days)}
    units.sort(
        key=lambda unit: arrival[unit.day] + (rng.randrange(len(days)) if unit.is_resend or rng.random() < 0.05 else 0)
    )
    with data_root(tmp_path / "home") as home:
        copy_reference_files(world, home)
        taken, step = 0, len(units) // 6 + 1
        while taken < len(units):
            deliver(units[taken : taken + step], world, home)
            taken += step
            ingest(*ALL_DAYS)
            try:
                recording.build()
            except BuildFailed as error:
                assert "as-of date" in str(error), "only the lack of any complete day may stop a build here"
                continue
            assert_equal(home)


def test_repeating_changes_nothing(recording: Recording, tmp_path: Path) -> None:
    """I1: the same deliveries again, a second build, and a full rebuild leave the same rows."""
    with data_root(tmp_path / "home") as home:
        world = new_world(tmp_path / "world", seed=41, months=2)
        copy_reference_files(world, home)
        deliver(units_of(world), world, home)
        ingest(*ALL_DAYS)
        recording.build()
        first = table_rows(get_settings().warehouse)
        deliver(units_of(world), world, home)
        ingest(*ALL_DAYS)
        recording.build()
        assert table_rows(get_settings().warehouse) == first
        recording.build(as_of=date.fromisoformat(max(unit.day for unit in units_of(world))).replace(day=2))
        recording.build()
        assert table_rows(get_settings().warehouse) == first


def test_a_changed_policy_input_makes_a_full_build(recording: Recording, tmp_path: Path) -> None:
    """Test numbers enter every row: a new list must reach months that no delivery touches."""
    with data_root(tmp_path / "home") as home:
        new_world(home, seed=42, months=2, test_numbers=False)
        ingest(*ALL_DAYS)
        recording.build()
        before = table_rows(get_settings().warehouse)["marts.billing_dispositions"]
        with (home / "test_numbers.csv").open("w") as file:
            file.write("msisdn,valid_from,valid_to\n")
            file.writelines(f"{number},2000-01-01,\n" for number in numbers_in(home))
        recording.build()
        after = table_rows(get_settings().warehouse)["marts.billing_dispositions"]
        assert before != after
        assert_equal(home)


def test_a_resent_catalogue_reaches_the_service_a_replace_names(recording: Recording, tmp_path: Path) -> None:
    """The catalogue loses S1 on the day a replace cancelled it: the event becomes a finding, without a full build."""
    with data_root(tmp_path / "home") as home:
        hand = Hand(home, "2026-03-01", "2026-03-20").event("1", "order", "2026-03-05 10:00:00")
        hand.event("2", "replace", "2026-03-10 10:00:00", "W1", old_service_code="S1").write()
        ingest(*ALL_DAYS)
        recording.build()
        assert_equal(home)
        hand.deliver("service_catalogue", date(2026, 3, 10), [hand.service("W1", "wap")], delivery=2)
        ingest(*ALL_DAYS)
        recording.build()
        findings = table_rows(get_settings().warehouse)["marts.relation_event_findings"]
        assert [row[0] for row in findings if row[-1] == "unknown_service"] == ["2"]
        assert_equal(home)


def test_a_day_on_which_nobody_was_expected_to_deliver_stops_the_bill(recording: Recording, tmp_path: Path) -> None:
    with data_root(tmp_path / "home") as home:
        hand = Hand(home, "2026-03-01", "2026-04-30").event("1", "order", "2026-03-01 00:00:00")
        hand.message("2026-03-05 00:00:00", 1).write()
        (home / "expected_extracts.csv").write_text(
            "extract,source,schedule,valid_from,valid_to\nrelation_events,bj,daily,2026-03-01,\n"
            "sms_usage,bj,daily,2026-03-01,2026-04-29\n"
        )
        ingest(*ALL_DAYS)
        recording.build()
        blockers = table_rows(get_settings().warehouse, ("intermediate",))["intermediate.int_billing_blockers"]
        assert (date(2026, 5, 1), "unknown_usage", "sms_usage", None, date(2026, 4, 30), 1) in blockers
        assert_equal(home)


def test_usage_that_was_to_come_and_never_came_stops_the_bill(recording: Recording, tmp_path: Path) -> None:
    """From the first month that lies whole behind the day it was to begin."""
    with data_root(tmp_path / "home") as home:
        hand = Hand(home, "2026-03-01", "2026-04-30").event("1", "order", "2026-03-01 00:00:00")
        hand.missing = {("sms_usage", hand.first + timedelta(days=number)) for number in range(61)}
        hand.write()
        (home / "expected_extracts.csv").write_text(
            "extract,source,schedule,valid_from,valid_to\nrelation_events,bj,daily,2026-03-01,\n"
            "sms_usage,bj,daily,2026-04-01,\n"
        )
        ingest(*ALL_DAYS)
        recording.build(as_of=hand.last)
        assert_marts_equal(home, get_settings().warehouse, hand.last)
        blockers = table_rows(get_settings().warehouse, ("intermediate",))["intermediate.int_billing_blockers"]
        assert {row[:4] for row in blockers} == {(date(2026, 5, 1), "unknown_usage", "sms_usage", "bj")}
        assert len(blockers) == 30


USAGE_OF = {"sms_usage": "S1", "wap_usage": "W1"}


@pytest.mark.parametrize(
    "extract", ["relation_events", "service_catalogue", "line_status", "sp_penalties", "refunds", *USAGE_OF]
)
def test_one_missing_day_stops_the_bill(recording: Recording, tmp_path: Path, extract: str) -> None:
    """G3: the marts are built, the window is unknown, the month is blocked by that day, until two people waive it."""
    with data_root(tmp_path / "home") as home:
        hand = Hand(home, "2026-03-01", "2026-07-31").event(
            "1", "order", "2026-03-01 00:00:00", USAGE_OF.get(extract, "S1")
        )
        pairs = ["relation_events", "service_catalogue", "line_status", "sp_penalties", "refunds", *USAGE_OF]
        (home / "expected_extracts.csv").write_text(
            "extract,source,schedule,valid_from,valid_to\n"
            + "".join(f"{pair},bj,daily,2026-03-01,\n" for pair in pairs)
        )
        for other in ("line_status", "sp_penalties", "refunds"):
            hand.rows.setdefault((other, hand.first), [])
        hand.missing.add((extract, date(2026, 7, 9)))
        hand.write()
        ingest(*ALL_DAYS)
        recording.build()
        assert_equal(home)
        tables = table_rows(get_settings().warehouse, ("marts", "intermediate"))
        blockers = [row for row in tables["intermediate.int_billing_blockers"] if row[0] == date(2026, 8, 1)]
        assert {row[2:5] for row in blockers} == {(extract, "bj", date(2026, 7, 9))}
        if extract in USAGE_OF:
            assert ("unknown",) in {row[-1:] for row in tables["marts.silent_subscriptions"]}
        (home / "waivers.csv").write_text(
            "extract,source,day,reason,requested_by,approved_by,expires_on\n"
            f"{extract},bj,2026-07-09,switch burnt,ann,bob,2026-12-31\n"
        )
        recording.build()
        assert not table_rows(get_settings().warehouse, ("intermediate",))["intermediate.int_billing_blockers"]


@pytest.mark.parametrize("extract", ["gprs_usage", "service_providers", "sp_reports"])
def test_one_missing_day_of_the_others_makes_nobody_abnormal_and_stops_nothing(
    recording: Recording, tmp_path: Path, extract: str
) -> None:
    """G3 for the extracts the bill can do without: with the day somebody is abnormal, without it nobody is."""
    for is_missing in (False, True):
        with data_root(tmp_path / f"home-{is_missing}") as home:
            hand = Hand(home, "2026-03-01", "2026-04-30").event("1", "order", "2026-03-01 00:00:00", "W1")
            pairs = ["relation_events", "service_catalogue", "wap_usage", extract]
            (home / "expected_extracts.csv").write_text(
                "extract,source,schedule,valid_from,valid_to\n"
                + "".join(f"{pair},bj,daily,2026-03-01,\n" for pair in dict.fromkeys(pairs))
            )
            hand.rows.setdefault((extract, hand.first), [])
            if is_missing:
                hand.missing.add((extract, date(2026, 3, 9)))
            hand.write()
            ingest(*ALL_DAYS)
            recording.build()
            assert_equal(home)
            tables = table_rows(get_settings().warehouse, ("marts", "intermediate"))
            kinds = {row[4] for row in tables["marts.anomalous_subscriptions"]}
            without_traffic = {"no_traffic"} if extract == "gprs_usage" and not is_missing else set()
            assert kinds == {"never_accessed"} | without_traffic
            assert not tables["intermediate.int_billing_blockers"]
            missing = [row for row in tables["marts.extract_completeness"] if row[3] and not row[4]]
            assert [row[:3] for row in missing] == ([(extract, "bj", date(2026, 3, 9))] if is_missing else [])


def numbers_in(home: Path) -> list[str]:
    """Return the numbers that have spells."""
    rows = table_rows(home / "warehouse" / "cleanbill.duckdb", ("intermediate",))["intermediate.int_spells"]
    return sorted({row[2] for row in rows})[:5]
