"""Which business dates are closed: every expected delivery of the day is in force, or its absence is waived.

The month's DAG waits for the closing events of all days of the month before it bills, so a day with a missing
delivery holds the bill back until the delivery arrives late or somebody waives it, and never longer.
"""

from datetime import date, timedelta

import duckdb

from cleanbill.control import open_warehouse

CLOSED_DAYS_DDL = """
create table if not exists control.closed_days (
    day date primary key,
    run_id varchar not null              -- the run that closed it first: its retry emits the day again
)
"""

COMPLETE_DAYS = """
select day
from marts.extract_completeness
where expected
group by day
having bool_and(status <> 'missing')
"""


def close_complete_days(run_id: str, date_from: date, date_to: date) -> list[date]:
    """Return the days whose closing a run has to announce, in order.

    These are the complete days of the run's range (announced again by every run of that range) and the days that
    became complete since the last run: late deliveries, repairs, waivers. Repeating the call for the same run gives
    the same days, so a task killed after the first call loses none. Days that would only set off the bill of a month
    that is history are left out.
    """
    with open_warehouse() as connection:
        connection.execute(CLOSED_DAYS_DDL)
        connection.execute(
            f"insert into control.closed_days select day, $run_id from ({COMPLETE_DAYS}) on conflict do nothing",  # noqa: S608
            {"run_id": run_id},
        )
        rows = connection.execute(
            f"""
            select complete.day
            from ({COMPLETE_DAYS}) as complete
            inner join control.closed_days as closed on complete.day = closed.day
            where complete.day between $date_from and $date_to or closed.run_id = $run_id
            order by complete.day
            """,  # noqa: S608
            {"run_id": run_id, "date_from": date_from, "date_to": date_to},
        ).fetchall()
        as_of = _as_of(connection)
    return [day for (day,) in rows if not _is_over(_next_month(day), as_of)]


def is_history(month: date) -> bool:
    """Tell whether month M is over already by the data: the warehouse's as-of is M's last day or later.

    Loading a year of old days must not bill a year of old months; a month whose last missing delivery came late,
    but within the month, is billed.
    """
    with open_warehouse() as connection:
        return _is_over(month, _as_of(connection))


def _as_of(connection: duckdb.DuckDBPyConnection) -> date | None:
    return connection.execute("select max(as_of_date) from control.absorbed_state").fetchone()[0]


def _is_over(month: date, as_of: date | None) -> bool:
    return as_of is not None and as_of >= _next_month(month) - timedelta(days=1)


def _next_month(day: date) -> date:
    return (day.replace(day=1) + timedelta(days=31)).replace(day=1)
