"""`cleanbill plan` promises what the run after it does: the deliveries exactly, the months at least."""

import random
import shutil
from datetime import date
from pathlib import Path

import pytest
from cleanbill.control import open_warehouse
from cleanbill.errors import SettingsError
from cleanbill.ingest import ingest
from cleanbill.plan import Plan, make_plan
from cleanbill.settings import get_settings

from tests.oracle.test_oracle import Hand
from tests.pipeline.conftest import data_root
from tests.pipeline.test_incremental import deliver, units_of
from tests.replay import Recording, table_rows
from tests.worlds import write_world

ALL_DAYS = (date(1990, 1, 1), date(2100, 1, 1))


def keep_promise(plan: Plan, recording: Recording, before: list[tuple]) -> list[tuple]:
    """Run what was planned; return the bills after it."""
    ingest(*ALL_DAYS)
    assert recording.build() == plan.as_of
    with open_warehouse(get_settings(), read_only=True) as connection:
        changed = connection.execute(
            "select extract, business_date, source, old_delivery, new_delivery from staging.changed_deliveries"
        ).fetchall()
        (previous,) = connection.execute("select previous_as_of_date from control.run_context").fetchone()
    assert (previous is None) is bool(plan.full_because)
    if previous is not None:
        planned = [(c.extract, c.business_date, c.source, c.old_delivery, c.new_delivery) for c in plan.changes]
        assert sorted(changed, key=str) == sorted(planned, key=str)
    after = table_rows(get_settings().warehouse)["marts.billing_dispositions"]
    touched = {row[0] for row in set(before) ^ set(after)}
    if touched:
        assert plan.reach.first_month <= min(touched)
        assert max(touched) <= max(plan.reach.last_month, plan.previous_as_of or plan.as_of)
    return after


@pytest.mark.parametrize("seed", [61])
def test_the_run_keeps_what_the_plan_promised(recording: Recording, tmp_path: Path, seed: int) -> None:
    world = tmp_path / "world"
    write_world(seed, world, months=1, start=date(2026, 4, 1), subscribers=15)
    units = units_of(world)
    rng = random.Random(seed)
    first = [unit for unit in units if unit.day < "2026-04-22" and rng.random() < 0.97 and not unit.is_resend]
    rest = [unit for unit in units if unit not in first]
    with data_root(tmp_path / "home") as home:
        for path in world.iterdir():
            if path.is_file():
                shutil.copy(path, home / path.name)
        before: list[tuple] = []
        for number, batch in enumerate((first, rest[: len(rest) // 2], rest[len(rest) // 2 :], [])):
            deliver(batch, world, home)
            if number == 3:
                taken_back = rng.choice([unit for unit in units if unit.is_resend])
                fields = taken_back.manifest.name.removesuffix(".manifest.json").rsplit("_", 3)
                (home / "withdrawals.csv").write_text(
                    "extract,source,business_date,delivery,reason,requested_by,approved_by\n"
                    f"{fields[0]},{fields[2]},{taken_back.day},{fields[3][1:]},x,a,b\n"
                )
            files = sorted(path for path in home.rglob("*") if path.is_file())
            plan = make_plan()
            assert sorted(path for path in home.rglob("*") if path.is_file()) == files
            before = keep_promise(plan, recording, before)
        again = make_plan()
        assert (again.changes, again.full_because, again.reach.first_month) == ([], [], None)


def test_why_everything_is_built_anew(recording: Recording, tmp_path: Path) -> None:
    with data_root(tmp_path / "home") as home:
        assert "as-of date" in make_plan().cannot
        Hand(home, "2026-03-01", "2026-03-10").event("1", "order", "2026-03-05 10:00:00").write()
        assert make_plan().full_because == ["nothing was built before"]
        ingest(*ALL_DAYS)
        recording.build()
        (home / "test_numbers.csv").write_text("msisdn,valid_from,valid_to\n13800138000,2026-01-01,\n")
        assert make_plan().full_because == ["the list of test numbers changed"]
        (home / "test_numbers.csv").unlink()
        recording.build(as_of=date(2100, 1, 1))
        assert any("moves back" in reason for reason in make_plan().full_because)


def test_a_plan_waits_for_no_pipeline(cleanbill_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def locked(*_: object, **__: object) -> None:
        raise SettingsError("warehouse", "the lock", "another process", "wait")

    with open_warehouse(get_settings()):
        pass
    monkeypatch.setattr("cleanbill.plan.LOCK_WAIT_SECONDS", 0.1)
    original = open_warehouse

    def only_rehearsals(settings: object, **options: object) -> object:
        return locked() if options.get("read_only") else original(settings, **options)

    monkeypatch.setattr("cleanbill.plan.open_warehouse", only_rehearsals)
    with pytest.raises(SettingsError, match="at work"):
        make_plan()
    assert not list((cleanbill_home / "warehouse").glob(".plan-*"))
