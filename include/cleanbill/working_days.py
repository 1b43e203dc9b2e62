"""Freeze China's official working days into a policy seed.

The rule of three working days (R9) counts by the State Council's calendar: some weekdays are holidays, some
weekend days are made up for. The library `holidays` knows both, but a library upgrade must never move a
deadline that was already reported, so the days are frozen into `dbt_project/seeds/working_day_exceptions.csv`
and reviewed like any other policy change: `python -m cleanbill.working_days`, then look at the diff.
"""

import csv
import io
from datetime import date, timedelta
from pathlib import Path

from cleanbill.settings import get_settings

FIRST_YEAR = 2004
LAST_PUBLISHED_YEAR = 2026  # the State Council publishes a year's calendar in the November before it
COLUMNS = ("day", "is_working_day", "name")
MAKE_UP_NAME = "Make-up working day"

# Days on which the library is wrong, against the official notice: day -> (is_working_day, name, reason).
# Empty as of holidays 0.109; a correction goes here and not by hand into the seed.
OVERRIDES: dict[date, tuple[bool, str, str]] = {}


def working_day_exceptions(
    first_year: int = FIRST_YEAR, last_year: int = LAST_PUBLISHED_YEAR
) -> list[tuple[date, bool, str]]:
    """Return the days on which the calendar differs from plain Monday-Friday, in order of day.

    Each row is (day, is_working_day, name): a weekday that is a public holiday (False) or a weekend day that is
    worked to make up for one (True).
    """
    import holidays

    calendar = holidays.China(years=range(first_year, last_year + 1), language="en_US")
    exceptions = []
    day = date(first_year, 1, 1)
    while day.year <= last_year:
        is_weekday = day.weekday() < 5
        is_working_day = calendar.is_working_day(day)
        name = calendar.get(day) or MAKE_UP_NAME
        if day in OVERRIDES:
            is_working_day, name, _ = OVERRIDES[day]
        if is_working_day != is_weekday:
            exceptions.append((day, is_working_day, name))
        day += timedelta(days=1)
    return exceptions


def render_seed(exceptions: list[tuple[date, bool, str]]) -> str:
    """Return the text of the seed file for these exceptions (CSV with header, one line per day)."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for day, is_working_day, name in exceptions:
        writer.writerow((day.isoformat(), str(is_working_day).lower(), name))
    return text.getvalue()


def seed_path() -> Path:
    """Return where the committed seed lies."""
    return get_settings().dbt_project / "seeds" / "working_day_exceptions.csv"


def main() -> None:
    """Write the seed anew; the difference is for a person to review and commit."""
    exceptions = working_day_exceptions()
    seed_path().write_text(render_seed(exceptions), encoding="utf-8")
    print(f"{seed_path()}: {len(exceptions)} days that are not as Monday-Friday says")


if __name__ == "__main__":
    main()
