"""Abnormal growth (R3) of any file of counts, by the SQL that makes `service_growth` (macros/growth_*.sql).

A file holds one row for each series and time: columns `series` (optional: one series), a time (`time`, `day`, `week`,
`date` or `timestamp`) and a count (`count`, `observed`, `value` or `new_orders`), optionally a label. Several readings
within a period are summed. A period nobody reports is incomplete; one that only some series lack counts 0 for them.
"""

from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import duckdb
import jinja2

from cleanbill.errors import InputFileError
from cleanbill.query import QueryResult
from cleanbill.settings import get_settings

MACRO_FILES = ("growth_baseline.sql", "growth_scores.sql", "growth_decisions.sql")
CADENCES = ("daily", "weekly", "hourly")
TIME_COLUMNS = ("time", "day", "week", "date", "timestamp")
COUNT_COLUMNS = ("count", "observed", "value", "new_orders")
LABEL_COLUMNS = ("is_outbreak", "is_anomaly", "label")
RESULT_COLUMNS = (
    "series",
    "time",
    "observed",
    "expected",
    "expected_low",
    "expected_high",
    "ratio",
    "p_value",
    "q_value",
    "is_alert",
    "direction",
    "baseline_periods",
    "reason",
)


@dataclass(frozen=True)
class Verdicts:
    """The judgement of every series and period, in the order of series and time."""

    columns: tuple[str, ...]
    rows: list[tuple]

    def dicts(self) -> list[dict]:
        return [dict(zip(self.columns, row, strict=True)) for row in self.rows]


def judge_file(path: Path, cadence: str, is_two_sided: bool | None = None) -> Verdicts:
    """Judge a CSV file of counts.

    Args:
        path: the file.
        cadence: daily, weekly or hourly; finer readings are summed.
        is_two_sided: also look for falls; None: as the policy row of the cadence says.

    Raises:
        InputFileError: the file is not there, lacks a column, or holds a wrong time or count.
    """
    if not path.is_file():
        raise InputFileError(str(path), "a CSV file of counts", "no such file", "name an existing file")
    with duckdb.connect() as connection:
        _read(connection, path, cadence)
        return judge(connection, cadence, is_two_sided)


def judge(connection: duckdb.DuckDBPyConnection, cadence: str, is_two_sided: bool | None = None) -> Verdicts:
    """Judge the table `readings` (series, position, count, readings) of a connection; see `_read`."""
    macros = growth_macros()
    create_policy(connection)
    connection.execute(
        "create or replace temp table bounds as select min(position) as first, max(position) as last from readings"
    )
    connection.execute(
        f"""
        create or replace temp table periods as
        select spine.position, parameters.*
        from (select unnest(range(first, last + 1)) as position from bounds) as spine
        cross join (
            select {macros.growth_parameters()} from policy_growth where cadence = $cadence and valid_to is null
        ) as parameters
        """,  # noqa: S608 - SQL of our own macros
        {"cadence": cadence},
    )
    if is_two_sided is not None:
        connection.execute(
            "update periods set alert_p = alert_p / (1 + is_two_sided) * $sides, is_two_sided = $sides - 1",
            {"sides": 1 + is_two_sided},
        )
    connection.execute(SERIES)
    connection.execute("create or replace temp table wanted as select position from periods")
    connection.execute("create or replace temp table calendar (position bigint, calendar_day varchar)")
    for table, sql in (
        ("baselines", macros.growth_baselines("series", "periods")),
        ("market", macros.growth_market("baselines", "periods")),
        ("scores", macros.growth_scores("baselines", "market", "periods", "calendar")),
        ("decisions", macros.growth_decisions("scores", "periods", "wanted")),
    ):
        connection.execute(f"create or replace temp table {table} as {sql}")
    is_numbered = connection.execute("select bool_and(try_cast(moment as bigint) is not null) from readings").fetchone()
    unread = "decisions.position::varchar" if is_numbered[0] else START_OF_PERIOD[cadence]
    answer = connection.execute(VERDICTS.replace("{unread}", unread))
    return Verdicts(tuple(column[0] for column in answer.description), answer.fetchall())


# What a period nobody read is called: its start.
START_OF_PERIOD = {
    "daily": "strftime(date '1970-01-01' + decisions.position::integer, '%Y-%m-%d')",
    "weekly": "strftime(date '1970-01-05' + (7 * decisions.position)::integer, '%Y-%m-%d')",
    "hourly": "strftime(timestamp '1970-01-01' + to_hours(decisions.position), '%Y-%m-%d %H:00:00')",
}

SERIES = """
create or replace temp table series as
with parameters as (
    select any_value(window_periods + guard_periods) as reach from periods
),

starts as (
    select series, min(position) as first_position, median(readings) as usual_readings
    from readings
    group by series
),

known as (
    select distinct position from readings
),

grid as (
    select
        starts.series,
        starts.first_position as start_position,
        spine.position,
        case
            when known.position is null then null
            when readings.readings < starts.usual_readings then null
            else coalesce(readings.count, 0)
        end as count
    from starts
    cross join (
        select unnest(range(bounds.first - (select reach from parameters), bounds.last + 1)) as position from bounds
    ) as spine
    left join known on spine.position = known.position
    left join readings on starts.series = readings.series and spine.position = readings.position
)

select
    series,
    any_value(start_position) as start_position,
    min(position) as first_position,
    list(count::double order by position) as counts
from grid
group by series
"""

VERDICTS = """
select
    decisions.series,
    decisions.position,
    coalesce(readings.moment, moments.moment, {unread}) as time,
    coalesce(readings.count, 0) as observed,
    decisions.expected,
    decisions.expected_low,
    decisions.expected_high,
    decisions.ratio,
    decisions.p_value,
    decisions.q_value,
    decisions.is_alert,
    decisions.direction,
    decisions.baseline_periods,
    decisions.reason,
    readings.is_labelled
from decisions
left join readings on decisions.series = readings.series and decisions.position = readings.position
left join (select position, min(moment) as moment from readings group by position) as moments
    on decisions.position = moments.position
inner join (select series, min(position) as first_position from readings group by series) as starts
    on decisions.series = starts.series and decisions.position >= starts.first_position
order by decisions.series, decisions.position
"""


def as_query_result(verdicts: Verdicts, is_all: bool = False) -> QueryResult:
    """Choose the columns for people; by default only alerts, what continues them and incomplete periods."""
    rows = [
        tuple(_shown(row[column]) for column in RESULT_COLUMNS)
        for row in verdicts.dicts()
        if is_all or row["is_alert"] or row["reason"] in ("continues", "incomplete day")
    ]
    return QueryResult(list(RESULT_COLUMNS), rows, False)


def _shown(value: object) -> object:
    if not isinstance(value, float):
        return value
    return float(f"{value:.3g}") if abs(value) < 1 else round(value, 1)


def growth_macros() -> ModuleType:
    """Load the macros of the dbt project: the one place where the method is written."""
    folder = get_settings().dbt_project / "macros"
    environment = jinja2.Environment(autoescape=False)  # noqa: S701 - SQL, no HTML
    return environment.from_string(
        "\n".join((folder / name).read_text(encoding="utf-8") for name in MACRO_FILES)
    ).module


def create_policy(connection: duckdb.DuckDBPyConnection) -> None:
    """Load the seed of growth parameters into a temporary table."""
    connection.execute(
        "create or replace temp table policy_growth as from read_csv($path, header = true, "
        "types = {'value': 'double', 'valid_from': 'date', 'valid_to': 'date'})",
        {"path": str(get_settings().dbt_project / "seeds" / "policy_growth.csv")},
    )


def _read(connection: duckdb.DuckDBPyConnection, path: Path, cadence: str) -> None:
    """Read a file into the table `readings`: one row for each series and period, with how many readings it sums."""
    try:
        connection.execute(
            "create temp table lines as from read_csv($path, header = true, all_varchar = true)", {"path": str(path)}
        )
    except duckdb.Error as error:
        raise InputFileError(str(path), "a CSV file with a header", str(error).splitlines()[0], "repair it") from error
    found = [row[0] for row in connection.execute("describe lines").fetchall()]
    time = _column(path, found, TIME_COLUMNS, "a time")
    count = _column(path, found, COUNT_COLUMNS, "a count")
    label = next((name for name in LABEL_COLUMNS if name in found), None)
    bad = connection.execute(
        f"""
        select {_quoted(time)}, {_quoted(count)} from lines
        where {_position(time, cadence)} is null or not coalesce(try_cast({_quoted(count)} as double) >= 0, false)
        limit 1
        """  # noqa: S608 - names of the file's own header, quoted
    ).fetchone()
    if bad:
        raise InputFileError(
            str(path),
            "a time (YYYY-MM-DD, YYYY-MM-DD HH:MM:SS or a whole number) and a count of 0 or more in every line",
            f"{time} {bad[0]!r}, {count} {bad[1]!r}",
            "repair the line",
        )
    is_labelled = f"bool_or(lower({_quoted(label)}) in ('1', '1.0', 'true', 't', 'yes'))" if label else "null::boolean"
    connection.execute(
        f"""
        create or replace temp table readings as
        select
            {_quoted("series") if "series" in found else "'all'"} as series,
            {_position(time, cadence)} as position,
            min({_quoted(time)}) as moment,
            sum(try_cast({_quoted(count)} as double)) as count,
            count(*) as readings,
            {is_labelled} as is_labelled
        from lines
        group by all
        """  # noqa: S608
    )
    if connection.execute("select count(*) from readings").fetchone() == (0,):
        raise InputFileError(str(path), "at least one line of counts", "none", "name a file that holds some")


def _column(path: Path, found: list[str], names: tuple[str, ...], what: str) -> str:
    for name in names:
        if name in found:
            return name
    raise InputFileError(str(path), f"a column with {what} ({', '.join(names)})", ", ".join(found), "rename the column")


def _position(column: str, cadence: str) -> str:
    """SQL of the number of the period a time lies in; whole numbers are periods already."""
    moment = f"try_cast({_quoted(column)} as timestamp)"
    number = {
        "daily": f"date_diff('day', timestamp '1970-01-01', {moment})",
        "weekly": f"floor(date_diff('day', timestamp '1970-01-05', {moment}) / 7)::bigint",
        "hourly": f"date_diff('hour', timestamp '1970-01-01', {moment})",
    }[cadence]
    return f"coalesce(try_cast({_quoted(column)} as bigint), {number})"


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
