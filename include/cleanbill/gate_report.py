"""The gate report: one HTML page per run that needs nothing but itself, and a list of the newest runs.

`reports/gates/<run>/index.html` is written anew after every gate of the run, green or red, from the JSON reports of
its stages and the recorded verdicts of earlier runs. The pages are inert: no script, nothing from a network, every
value escaped, cut and masked in one place (`_inert`).
"""

import hashlib
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import duckdb
import jinja2
import markupsafe

from cleanbill.day_ranges import as_ranges, in_words
from cleanbill.masking import mask_text
from cleanbill.settings import Settings
from cleanbill.suites import STAGES

RUN_ID_PATTERN = re.compile(r"[A-Za-z0-9_=][A-Za-z0-9_=.:+-]{0,199}")
TREND_RUNS = 30  # values in a trend line
LISTED_RUNS = 100  # runs on the list; older pages stay where they are
LISTED_ROWS = 50  # refused deliveries, waivers, missing days
LONGEST_VALUE = 600
TREND_WIDTH, TREND_HEIGHT = 96, 18
# The meta element keeps even a page with a hole in it from loading or running anything.
CONTENT_SECURITY_POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"

# The newest runs of each stage, and no older row of the results is read.
TREND_SQL = """
with newest as (
    select run_id, checked_at, row_number() over (order by checked_at desc, run_id desc) as age
    from control.gate_records
    where stage = $stage
    qualify age <= $runs
)
select
    results.suite,
    results.expectation,
    list(coalesce(results.unexpected_rows, try_cast(regexp_extract(results.observed, '^[0-9]+') as bigint))
        order by newest.age desc) as observed_values,
    list(results.success order by newest.age desc) as successes
from control.gate_results as results
inner join newest on results.run_id = newest.run_id
where results.stage = $stage and results.checked_at >= (select min(checked_at) from newest)
group by results.suite, results.expectation
"""

DELIVERED_SQL = """
select
    extract, count(distinct source), min(business_date), max(business_date), count(*),
    sum(rows_loaded)::bigint, sum(rows_quarantined)::bigint, sum(rows_duplicate)::bigint
from control.in_force
group by extract
order by extract
"""

REFUSED_SQL = """
select
    deliveries.extract, deliveries.business_date, deliveries.source, deliveries.delivery, deliveries.status,
    coalesce(deliveries.reason, deliveries.reason_code)
from control.deliveries as deliveries
anti join control.withdrawals as withdrawals using (extract, business_date, source, delivery)
left join control.in_force as in_force using (extract, business_date, source)
where deliveries.status <> 'accepted' and coalesce(in_force.delivery, 0) < deliveries.delivery
order by deliveries.business_date desc, deliveries.extract, deliveries.source
"""

WITHDRAWN_SQL = """
select
    withdrawals.extract, withdrawals.business_date, withdrawals.source, withdrawals.delivery, withdrawals.reason,
    withdrawals.requested_by, withdrawals.approved_by
from control.withdrawals as withdrawals
order by withdrawals.business_date desc, withdrawals.extract, withdrawals.source
"""

WAIVERS_SQL = """
select
    waivers.extract, waivers.source, waivers.day, waivers.reason, waivers.requested_by, waivers.approved_by,
    waivers.expires_on, waivers.expires_on >= context.as_of_date as is_in_effect
from control.waivers as waivers
left join control.run_context as context on true
order by waivers.day desc, waivers.extract, waivers.source
"""

MISSING_SQL = """
select extract, source, list(day order by day)
from marts.extract_completeness
where status = 'missing'
group by extract, source
order by extract, source
"""

RUNS_SQL = """
select
    run_id,
    max(checked_at) as checked_at,
    bool_and(passed) as passed,
    sum(critical_failures)::bigint as critical_failures,
    sum(warnings)::bigint as warnings,
    list(stage order by list_position($stages, stage)) as stages
from control.gate_records
group by run_id
order by checked_at desc, run_id desc
limit $runs
"""


@dataclass(frozen=True)
class Trend:
    """What an expectation observed in the newest runs, oldest first, as the points of a line."""

    points: str
    failures: tuple[tuple[float, float], ...]
    words: str


def write_pages(folder: Path, run_id: str, connection: duckdb.DuckDBPyConnection, settings: Settings) -> Path:
    """Write the page of a run and the list of runs, each by one rename.

    Args:
        folder: the run's folder, which holds the JSON reports of its stages.
        run_id: the run.
        connection: the warehouse, with the verdicts of this run recorded.
        settings: the installation.

    Returns:
        The page of the run.
    """
    reports = [path for path in (folder / f"{stage}.json" for stage in STAGES) if path.exists()]
    stages = [json.loads(path.read_text(encoding="utf-8")) for path in reports]
    for stage in stages:
        _add_trends(stage, connection)
    page = folder / "index.html"
    values = {
        "run_id": run_id,
        "stages": stages,
        "not_run": [stage for stage in STAGES if stage not in {found["stage"] for found in stages}],
        "broken": [result for stage in stages for result in stage["results"] if not result["success"]],
        "as_of": connection.execute("select max(as_of_date) from control.run_context").fetchone()[0],
        "delivered": connection.execute(DELIVERED_SQL).fetchall(),
        "missing": _missing(connection),
        "refused": connection.execute(REFUSED_SQL).fetchmany(LISTED_ROWS),
        "withdrawn": connection.execute(WITHDRAWN_SQL).fetchmany(LISTED_ROWS),
        "waivers": connection.execute(WAIVERS_SQL).fetchmany(LISTED_ROWS),
        "trend_runs": TREND_RUNS,
        "trend_size": (TREND_WIDTH, TREND_HEIGHT),
    }
    _write(page, "gate_run.html.j2", values)
    runs = connection.execute(RUNS_SQL, {"stages": list(STAGES), "runs": LISTED_RUNS}).fetchall()
    listed = [(*run, _link(settings.reports / "gates", run[0])) for run in runs]
    _write(settings.reports / "gates" / "index.html", "gate_runs.html.j2", {"runs": listed})
    return page


def folder_name(run_id: str) -> str:
    """Return a folder name for a run id; one with other characters than ids have is cut and marked by a digest."""
    if RUN_ID_PATTERN.fullmatch(run_id):
        return run_id
    digest = hashlib.sha256(run_id.encode()).hexdigest()[:12]
    return re.sub(r"[^A-Za-z0-9_=:+-]", "_", run_id)[:100] + "_" + digest


def _link(root: Path, run_id: str) -> str | None:
    """Return the relative address of a run's page (a colon in it must not look like a scheme), None if it is gone."""
    name = folder_name(run_id)
    return f"./{quote(name)}/index.html" if (root / name / "index.html").exists() else None


def _add_trends(stage: dict[str, Any], connection: duckdb.DuckDBPyConnection) -> None:
    rows = connection.execute(TREND_SQL, {"stage": stage["stage"], "runs": TREND_RUNS}).fetchall()
    trends = {(suite, expectation): _trend(values, successes) for suite, expectation, values, successes in rows}
    for result in stage["results"]:
        result["trend"] = trends.get((result["suite"], result["expectation"]))
    stage["suites"] = list(dict.fromkeys(result["suite"] for result in stage["results"]))


def _trend(values: list[int | None], successes: list[bool]) -> Trend | None:
    """Return the line through the values; None if there are fewer than two."""
    known = [(value, success) for value, success in zip(values, successes, strict=True) if value is not None]
    if len(known) < 2:
        return None
    low, high = min(value for value, _ in known), max(value for value, _ in known)
    step = TREND_WIDTH / (len(known) - 1)
    scale = (TREND_HEIGHT - 4) / (high - low) if high > low else 0.0
    places = [
        (round(index * step, 1), round(TREND_HEIGHT - 2 - (value - low) * scale, 1))
        for index, (value, _) in enumerate(known)
    ]
    return Trend(
        points=" ".join(f"{x},{y}" for x, y in places),
        failures=tuple(place for place, (_, success) in zip(places, known, strict=True) if not success),
        words=f"{len(known)} runs: {low:,} to {high:,}, now {known[-1][0]:,}",
    )


def _missing(connection: duckdb.DuckDBPyConnection) -> list[tuple[str, str, int, str]] | None:
    """Return the expected days neither delivered nor waived, as the last build saw them; None before the first."""
    found = connection.execute(
        "select 1 from information_schema.tables where table_schema = 'marts' and table_name = 'extract_completeness'"
    ).fetchone()
    if found is None:
        return None
    rows = connection.execute(MISSING_SQL).fetchmany(LISTED_ROWS)
    return [(extract, source, len(days), in_words(as_ranges(days))) for extract, source, days in rows]


def _inert(value: Any) -> Any:
    """Return what may be shown of a value: no phone number, no control or direction mark, of bounded length."""
    if value is None:
        return "–"
    if isinstance(value, markupsafe.Markup):  # what a macro of the template wrote, of values that went through here
        return value
    if not isinstance(value, str):
        return f"{value:,}" if type(value) is int else value
    text = "".join(character if character.isprintable() else "\ufffd" for character in mask_text(value))
    return text if len(text) <= LONGEST_VALUE else text[: LONGEST_VALUE - 1] + "…"


def _write(path: Path, template: str, values: dict[str, Any]) -> None:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).with_name("report_templates")),
        autoescape=True,
        finalize=_inert,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    text = environment.get_template(template).render(policy=CONTENT_SECURITY_POLICY, **values)
    temporary = path.with_suffix(".tmp")  # one gate at a time: what a killed one left is written over
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)
