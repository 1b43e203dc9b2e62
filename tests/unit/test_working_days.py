"""The working-day seed against its generator and against a second, independent calendar."""

import csv
from datetime import date, timedelta

import chinese_calendar
import pytest
from cleanbill import working_days

# Days on which the two libraries disagree: day -> (what the seed says, reason).
KNOWN_DIFFERENCES = {
    date(2005, 12, 31): (
        True,
        "notice 国办发明电〔2005〕35号 moved this Saturday to January 2006 and orders it worked; chinese_calendar has "
        "the day off but not the day worked for it (its open issue 125)",
    ),
}


def seed_rows() -> dict[date, bool]:
    with working_days.seed_path().open(encoding="utf-8", newline="") as lines:
        return {date.fromisoformat(row["day"]): row["is_working_day"] == "true" for row in csv.DictReader(lines)}


def test_committed_seed_is_what_the_generator_writes():
    committed = working_days.seed_path().read_text(encoding="utf-8")
    assert committed == working_days.render_seed(working_days.working_day_exceptions())


def test_seed_holds_exceptions_only_and_each_day_once():
    text = working_days.seed_path().read_text(encoding="utf-8").splitlines()
    rows = seed_rows()
    assert text[0] == "day,is_working_day,name"
    assert len(rows) == len(text) - 1
    assert all(is_working_day != (day.weekday() < 5) for day, is_working_day in rows.items())


def test_every_published_day_agrees_with_the_second_calendar():
    rows = seed_rows()
    differences = {}
    day = date(2004, 1, 1)
    while day <= date(2026, 12, 31):
        ours = rows.get(day, day.weekday() < 5)
        if ours != chinese_calendar.is_workday(day):
            differences[day] = ours
        day += timedelta(days=1)
    assert differences == {day: ours for day, (ours, _) in KNOWN_DIFFERENCES.items()}


@pytest.mark.parametrize(
    ("day", "is_working_day"),
    [
        (date(2006, 5, 1), False),  # Labour Day week of the year of the notice
        (date(2006, 4, 29), True),  # … and the Saturday worked for it
        (date(2026, 10, 1), False),
        (date(2026, 10, 10), True),
    ],
)
def test_well_known_days(day: date, is_working_day: bool):
    assert seed_rows()[day] is is_working_day


def test_an_override_wins_over_the_library(monkeypatch: pytest.MonkeyPatch):
    plain_monday = date(2026, 3, 2)
    monkeypatch.setattr(working_days, "OVERRIDES", {plain_monday: (False, "Test day off", "test")})
    assert (plain_monday, False, "Test day off") in working_days.working_day_exceptions(2026, 2026)
