"""Which days a run announces as closed, at the boundaries of completeness, waivers and history."""

from datetime import date, timedelta
from pathlib import Path

import pytest
from cleanbill.control import open_warehouse
from cleanbill.day_closing import close_complete_days, is_history

FIRST = date(2026, 10, 1)
DAY = timedelta(days=1)


def write_completeness(
    as_of: date,
    missing: set[tuple[str, date]],
    sources: tuple[str, ...] = ("bj", "gd"),
    waived: set[tuple[str, date]] = frozenset(),
) -> None:
    """Make a warehouse whose marts say what was delivered since FIRST, as of a day."""
    with open_warehouse() as connection:
        connection.execute("create schema if not exists marts")
        connection.execute(
            "create or replace table marts.extract_completeness "
            "(extract varchar, source varchar, day date, expected boolean, status varchar)"
        )
        for number in range((as_of - FIRST).days + 1):
            for source in sources:
                day = FIRST + number * DAY
                status = "waived" if (source, day) in waived else "missing"
                connection.execute(
                    "insert into marts.extract_completeness values ('sms_usage', $source, $day, true, $status)",
                    {"source": source, "day": day, "status": status if (source, day) in missing else "delivered"},
                )
        for table in ("absorbed_state", "run_context"):
            connection.execute(f"delete from control.{table}")
        connection.execute("insert into control.absorbed_state values ($as_of, 'digest')", {"as_of": as_of})
        connection.execute("insert into control.run_context values ($as_of, null, 'digest')", {"as_of": as_of})


def days(*numbers: int) -> list[date]:
    return [FIRST.replace(day=number) for number in numbers]


@pytest.fixture(autouse=True)
def _home(cleanbill_home: Path) -> None:
    pass


def test_a_complete_day_is_announced_and_a_missing_source_holds_it_back() -> None:
    write_completeness(date(2026, 10, 3), {("gd", date(2026, 10, 2))})
    assert close_complete_days("run-1", FIRST, date(2026, 10, 3)) == days(1, 3)


def test_days_outside_the_range_are_announced_once_by_the_run_that_closed_them() -> None:
    write_completeness(date(2026, 10, 3), {("gd", date(2026, 10, 2))})
    assert close_complete_days("run-1", FIRST, date(2026, 10, 3)) == days(1, 3)
    write_completeness(date(2026, 10, 4), set())
    fourth = date(2026, 10, 4)
    assert close_complete_days("run-2", fourth, fourth) == days(2, 4)
    assert close_complete_days("run-2", fourth, fourth) == days(2, 4)  # its retry loses nothing
    assert close_complete_days("run-3", fourth, fourth) == days(4)


def test_a_run_of_a_range_announces_all_its_days_again() -> None:
    write_completeness(date(2026, 10, 3), set())
    assert close_complete_days("run-1", FIRST, date(2026, 10, 3)) == days(1, 2, 3)
    assert close_complete_days("run-2", FIRST, date(2026, 10, 3)) == days(1, 2, 3)


def test_a_waived_day_is_closed_and_a_waiver_of_one_source_does_not_excuse_another() -> None:
    second, third = date(2026, 10, 2), date(2026, 10, 3)
    missing = {("gd", FIRST), ("bj", FIRST), ("gd", second)}
    write_completeness(third, missing, waived={("gd", FIRST), ("gd", second)})
    assert close_complete_days("run-1", FIRST, third) == days(2, 3)


def test_an_optional_delivery_that_is_not_expected_decides_nothing() -> None:
    write_completeness(FIRST, set())
    with open_warehouse() as connection:
        connection.execute(
            "insert into marts.extract_completeness values ('relation_snapshot', 'bj', $day, false, 'delivered')",
            {"day": date(2026, 9, 30)},
        )
    assert close_complete_days("run-1", date(2026, 9, 30), FIRST) == days(1)


@pytest.mark.parametrize(
    ("as_of", "announced"),
    [
        (date(2026, 10, 31), True),
        (date(2026, 11, 29), True),
        (date(2026, 11, 30), False),  # November, which these days would bill, is over
        (date(2026, 12, 1), False),
    ],
)
def test_days_that_could_only_bill_history_are_not_announced(as_of: date, announced: bool) -> None:
    write_completeness(as_of, set())
    assert (date(2026, 10, 31) in close_complete_days("run-1", FIRST, as_of)) is announced
    assert is_history(date(2026, 11, 1)) is not announced


def test_nothing_is_history_before_the_first_build() -> None:
    assert is_history(date(2026, 11, 1)) is False
