"""The gates: after every stage its expectation suites decide whether anything downstream may run.

The suites run with Great Expectations inside DuckDB, on the database opened read-only. Great Expectations only
decides; counts and masked examples come from our own SQL, so that no report holds a subscriber's number.
A gate cannot be passed by what is absent: a missing database, table, suite or stage is a critical failure, and
so is an expectation that could not be evaluated.
"""

import json
import logging
import os
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import duckdb

from cleanbill import gate_report
from cleanbill.control import open_warehouse
from cleanbill.digests import tables_digest
from cleanbill.errors import GateFailed
from cleanbill.gate_evidence import expected_text, masked_examples
from cleanbill.lean_import import put_off_unused
from cleanbill.masking import mask_text
from cleanbill.settings import Settings, get_settings
from cleanbill.suites import ROWS_QUERY, STAGES, Suite, SuiteError, load_suite, suite_paths

log = logging.getLogger(__name__)

LOCAL_TIME = ZoneInfo("Asia/Shanghai")
MAX_FAILURES_IN_MESSAGE = 5
# No raw values leave Great Expectations: counts only.
RESULT_FORMAT = {"result_format": "BASIC", "partial_unexpected_count": 0}
# What a stage's verdict is about: control tables by name, other schemas whole.
STATE_CONTROL_TABLES = {
    "raw": ("deliveries", "delivery_files", "in_force"),
    "staging": ("in_force", "run_context"),
    "marts": ("absorbed", "absorbed_state"),
    "export": (),
}
STATE_SCHEMAS = {"raw": None, "staging": None, "marts": "marts", "export": "main"}


@dataclass(frozen=True)
class GateResult:
    """The verdict on one expectation of one suite."""

    stage: str
    suite: str
    table: str
    expectation: str
    severity: str
    success: bool
    observed: str
    expected: str
    unexpected_rows: int | None
    advice: str
    examples: tuple[dict[str, str | None], ...] = ()
    evaluated: bool = True

    @property
    def is_critical_failure(self) -> bool:
        """A failed critical expectation, or one of any severity that could not even be evaluated."""
        return not self.success and (self.severity == "critical" or not self.evaluated)


@dataclass(frozen=True)
class GateReport:
    """The verdict of a stage's gate; `path` is the JSON report that holds every result."""

    stage: str
    run_id: str
    database: str
    state_digest: str | None
    checked_at: datetime
    seconds: float
    results: tuple[GateResult, ...]
    path: Path

    @property
    def critical_failures(self) -> tuple[GateResult, ...]:
        return tuple(result for result in self.results if result.is_critical_failure)

    @property
    def warnings(self) -> tuple[GateResult, ...]:
        return tuple(result for result in self.results if not result.success and not result.is_critical_failure)

    @property
    def passed(self) -> bool:
        return bool(self.results) and not self.critical_failures


def check(stage: str, run_id: str, database: Path | None = None) -> GateReport:
    """Run the gate of a stage and record its verdict, green or red.

    Every result goes to `control.gate_results` of the warehouse (rows of the same run and stage are replaced), to
    `reports/gates/<run_id>/<stage>.json`, and onto the run's page `index.html` beside it.

    Args:
        stage: raw, staging, marts or export.
        run_id: the orchestrator's run; part of the report's path.
        database: the DuckDB file to check, by default the warehouse (a scratch build, or the frozen feed).

    Returns:
        The report, if no critical expectation failed; its `warnings` are to be shown.

    Raises:
        GateFailed: at least one critical expectation failed, or something to be checked is absent.
    """
    settings = get_settings()
    started = time.perf_counter()
    if stage not in STAGES:
        raise GateFailed("gate", f"a stage among {', '.join(STAGES)}", repr(stage[:40]), "correct the call")
    target = database or settings.warehouse
    state, results = _validate(stage, target, settings)
    report = GateReport(
        stage=stage,
        run_id=run_id,
        database=_relative(target, settings),
        state_digest=state,
        checked_at=datetime.now(LOCAL_TIME).replace(tzinfo=None, microsecond=0),
        seconds=round(time.perf_counter() - started, 3),
        results=tuple(results),
        path=settings.reports / "gates" / gate_report.folder_name(run_id) / f"{stage}.json",
    )
    _write_report(report)
    with open_warehouse(settings) as connection:
        _record(report, connection)
        try:
            page = gate_report.write_pages(report.path.parent, run_id, connection, settings)
        finally:  # the verdict comes first, whatever becomes of the page
            if not report.passed:
                raise _gate_failed(report, settings)
    log.info("Gate %s is green (%d warnings); report: %s", stage, len(report.warnings), page)
    return report


def require_green(stage: str, run_id: str, connection: duckdb.DuckDBPyConnection, settings: Settings) -> None:
    """Refuse to go on unless the gate of this stage passed in this run, for exactly the rows that stand there now.

    Args:
        stage: the stage whose result is about to be used.
        run_id: the run that is about to use it.
        connection: the database whose state was checked; for the warehouse the record is read from it too,
            for another file (the frozen feed) from the warehouse.
        settings: the installation.

    Raises:
        GateFailed: no record, a red one, or one that belongs to other rows.
    """
    record = _read_record(stage, run_id, connection, settings)
    where = f"gate {stage} of run {run_id}"
    advice = f"run the check of stage {stage} again after the step before it, then this step"
    if record is None:
        raise GateFailed(where, "a recorded verdict", "none", advice)
    passed, recorded_state = record
    if not passed:
        raise GateFailed(where, "a green verdict", "a red one", advice)
    state = state_digest(stage, connection)
    if recorded_state != state:
        raise GateFailed(where, "the rows that were checked", "rows that changed after the check", advice)


def require_green_state(stage: str) -> None:
    """Refuse to go on unless the newest verdict on exactly the rows that stand there now, of whichever run, is green.

    For a step in the middle of a run, which may have been cleared after another run had its turn.

    Raises:
        GateFailed: nobody judged these rows, or the newest verdict on them is red.
    """
    with open_warehouse(read_only=True) as connection:
        newest = connection.execute(
            """
            select run_id, passed
            from control.gate_records
            where stage = $stage and state_digest = $state
            order by checked_at desc, run_id desc
            limit 1
            """,
            {"stage": stage, "state": state_digest(stage, connection)},
        ).fetchone()
    if newest is None or not newest[1]:
        raise GateFailed(
            where=f"gate {stage}",
            expected="a green verdict on the rows that stand there now",
            found=f"a red one, of run {newest[0]}" if newest else "none: another run changed them since",
            advice=f"clear the run from the step before the check of stage {stage} on",
        )


def _read_record(
    stage: str, run_id: str, connection: duckdb.DuckDBPyConnection, settings: Settings
) -> tuple[bool, str | None] | None:
    query = "select passed, state_digest from control.gate_records where run_id = $run_id and stage = $stage"
    values = {"run_id": run_id, "stage": stage}
    if stage != "export":
        return connection.execute(query, values).fetchone()
    with open_warehouse(settings, read_only=True) as warehouse:
        return warehouse.execute(query, values).fetchone()


def _validate(stage: str, target: Path, settings: Settings) -> tuple[str | None, list[GateResult]]:
    results: list[GateResult] = []
    suites: list[Suite] = []
    paths = suite_paths(settings.expectations, stage)
    if not paths:
        results.append(
            _absent(stage, stage, "-", "the stage has suites", "no file", f"restore expectations/{stage}/*.yml")
        )
    for path in paths:
        try:
            suites.append(load_suite(path, stage))
        except SuiteError as error:
            results.append(
                _absent(stage, path.stem, "-", f"the suite is usable: {error.expected}", error.found, error.advice)
            )
    if not target.exists():
        found = f"no file {_relative(target, settings)}"
        results.append(_absent(stage, stage, "-", "the database exists", found, "run the step before this gate"))
        return None, results
    with open_warehouse(settings, path=target, read_only=True) as connection:
        present = _present_tables(connection)
        for suite in suites:
            if (suite.schema, suite.table) not in present:
                advice = "run the step that builds it, then this gate again"
                results.append(_absent(stage, suite.name, suite.qualified_table, "the table exists", "none", advice))
        suites = [suite for suite in suites if (suite.schema, suite.table) in present]
        results.extend(run_suites(suites, connection))
        return state_digest(stage, connection), results


def run_suites(suites: Iterable[Suite], connection: duckdb.DuckDBPyConnection) -> list[GateResult]:
    """Run suites, whose tables exist, on an open database and return the verdict on each expectation."""
    suites = list(suites)
    if not suites:
        return []
    from cleanbill import duckdb_dialect

    results: list[GateResult] = []
    with duckdb_dialect.lend(connection) as url:
        context = _quiet_context()
        source = context.data_sources.add_sql(name="gate", connection_string=url, create_temp_table=False)
        for suite in suites:
            # A query asset: table assets lose their schema in some metrics of this dialect.
            asset = source.add_query_asset(name=suite.name, query=f"select * from {suite.qualified_table}")  # noqa: S608
            batch = asset.add_batch_definition_whole_table(suite.name).get_batch()
            validation = batch.validate(_as_gx_suite(suite), result_format=RESULT_FORMAT)
            verdicts = {
                verdict.expectation_config.description: verdict
                for verdict in validation.results
                if verdict.expectation_config is not None
            }
            judged = [_judge(suite, position, verdicts, connection) for position in range(len(suite.expectations))]
            _require_agreement(suite, validation.get_max_severity_failure(), judged)
            results.extend(judged)
    return results


def _quiet_context() -> Any:
    """Return a context in memory that reports to nobody, draws nothing and leaves no folder behind."""
    os.environ["GX_ANALYTICS_ENABLED"] = "false"
    put_off_unused()
    import great_expectations
    from great_expectations.data_context.types.base import DataContextConfig, InMemoryStoreBackendDefaults

    return great_expectations.get_context(
        mode="ephemeral",
        project_config=DataContextConfig(
            store_backend_defaults=InMemoryStoreBackendDefaults(init_temp_docs_sites=False),
            analytics_enabled=False,
            progress_bars={"globally": False},
        ),
    )


def _as_gx_suite(suite: Suite) -> Any:
    import great_expectations

    return great_expectations.ExpectationSuite(
        name=suite.name,
        expectations=[
            {
                "type": expectation.type,
                "description": expectation.description,
                "severity": expectation.severity,
                "kwargs": _as_gx_kwargs(expectation.kwargs),
            }
            for expectation in suite.expectations
        ],
    )


def _as_gx_kwargs(kwargs: dict[str, Any]) -> dict[str, Any]:
    """Return a query as Great Expectations wants it, so that suites can hold SQL that runs as it is pasted.

    It formats the query, so the braces of a regular expression are doubled; and it prints a warning for a query
    that names its tables instead of `{batch}`, so the batch is named in a comment.
    """
    if "unexpected_rows_query" not in kwargs:
        return kwargs
    query = kwargs["unexpected_rows_query"].replace("{", "{{").replace("}", "}}")
    return kwargs | {"unexpected_rows_query": f"{query}\n/* {{batch}} */"}


def _judge(
    suite: Suite, position: int, verdicts: dict[str | None, Any], connection: duckdb.DuckDBPyConnection
) -> GateResult:
    expectation = suite.expectations[position]
    verdict = verdicts.get(expectation.description)
    reason = "no verdict" if verdict is None else _error_text(verdict)
    success = verdict is not None and reason is None and bool(verdict.success)
    examples: list[dict[str, str | None]] = []
    if reason is not None:
        observed, rows = f"could not be evaluated: {reason}", None
    else:
        observed, rows = _observed(expectation.type, verdict.result)
        if not success:
            examples = masked_examples(connection, suite, expectation)
    return GateResult(
        stage=suite.stage,
        suite=suite.name,
        table=suite.qualified_table,
        expectation=expectation.description,
        severity=expectation.severity,
        success=success,
        observed=observed,
        expected=expected_text(expectation),
        unexpected_rows=rows,
        advice=expectation.advice,
        examples=tuple(examples),
        evaluated=reason is None,
    )


def _observed(kind: str, result: dict[str, Any]) -> tuple[str, int | None]:
    if kind == ROWS_QUERY:
        rows = int(result["observed_value"])
        return f"{rows} such row{'' if rows == 1 else 's'}", rows
    if "unexpected_count" in result:
        rows = int(result["unexpected_count"] or 0)  # nothing is reported of an empty table
        return f"{rows} of {result['element_count']} rows", rows
    observed = result["observed_value"]
    if isinstance(observed, list):
        return "columns " + ", ".join(str(name) for name in observed), None
    return f"{observed} rows", None


def _error_text(verdict: Any) -> str | None:
    """Return why an expectation could not be evaluated (first line, masked), or None if it was."""
    information = verdict.exception_info or {}
    entries = [information] if "raised_exception" in information else list(information.values())
    for entry in entries:
        if isinstance(entry, dict) and entry.get("raised_exception"):
            lines = str(entry.get("exception_message") or "unknown error").strip().splitlines()
            return mask_text(lines[0])[:200]
    return None


def _require_agreement(suite: Suite, worst: Any, judged: list[GateResult]) -> None:
    """Our reading of the results must agree with Great Expectations' own; else the gate is not to be trusted."""
    is_red = str(getattr(worst, "value", worst)) == "critical"
    if is_red != any(not result.success and result.severity == "critical" for result in judged):
        raise GateFailed(
            where=f"gate {suite.stage}, suite {suite.name}",
            expected="the severity of the results to be what Great Expectations reports",
            found=f"{worst}",
            advice="report this: results and suite were not matched",
        )


def _absent(stage: str, suite: str, table: str, expectation: str, found: str, advice: str) -> GateResult:
    return GateResult(
        stage=stage,
        suite=suite,
        table=table,
        expectation=expectation,
        severity="critical",
        success=False,
        observed=found,
        expected="present",
        unexpected_rows=None,
        advice=advice,
        evaluated=False,
    )


def _present_tables(connection: duckdb.DuckDBPyConnection) -> set[tuple[str, str]]:
    rows = connection.execute(
        "select table_schema, table_name from information_schema.tables where table_catalog = current_database()"
    ).fetchall()
    return set(rows)


def state_digest(stage: str, connection: duckdb.DuckDBPyConnection) -> str:
    """Return the digest of the rows a stage's verdict is about, as they stand in this database now."""
    schema = STATE_SCHEMAS[stage]
    tables = [("control", table) for table in STATE_CONTROL_TABLES[stage]]
    tables += [found for found in _present_tables(connection) if found[0] == schema]
    return tables_digest(connection, tables)


def _write_report(report: GateReport) -> None:
    document = {
        "stage": report.stage,
        "run_id": report.run_id,
        "passed": report.passed,
        "database": report.database,
        "state_digest": report.state_digest,
        "checked_at": report.checked_at.isoformat(sep=" "),
        "seconds": report.seconds,
        "critical_failures": len(report.critical_failures),
        "warnings": len(report.warnings),
        "results": [asdict(result) for result in report.results],
    }
    report.path.parent.mkdir(parents=True, exist_ok=True)
    temporary = report.path.with_suffix(".tmp")
    temporary.write_text(json.dumps(document, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")
    temporary.replace(report.path)


def _record(report: GateReport, connection: duckdb.DuckDBPyConnection) -> None:
    connection.execute("begin")
    for table in ("gate_results", "gate_records"):
        connection.execute(
            f"delete from control.{table} where run_id = $run_id and stage = $stage",  # noqa: S608 - two fixed names
            {"run_id": report.run_id, "stage": report.stage},
        )
    connection.executemany(
        """
        insert into control.gate_results by position
        values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
        """,
        [
            [
                report.run_id,
                result.stage,
                result.suite,
                result.expectation,
                result.severity,
                result.success,
                result.observed,
                result.expected,
                result.unexpected_rows,
                result.advice,
                report.checked_at,
            ]
            for result in report.results
        ],
    )
    connection.execute(
        "insert into control.gate_records by position values (?, ?, ?, ?, ?, ?, ?)",
        [
            report.run_id,
            report.stage,
            report.passed,
            len(report.critical_failures),
            len(report.warnings),
            report.state_digest,
            report.checked_at,
        ],
    )
    connection.execute("commit")


def _gate_failed(report: GateReport, settings: Settings) -> GateFailed:
    failures = report.critical_failures
    shown = failures[:MAX_FAILURES_IN_MESSAGE]
    found = "; ".join(
        f"[{number}] {result.table} ({result.suite}): NOT '{result.expectation}', found {result.observed}"
        + _examples_text(result)
        for number, result in enumerate(shown, start=1)
    )
    if len(failures) > len(shown):
        others = "; ".join(f"{result.table} '{result.expectation}'" for result in failures[len(shown) :])
        found += f"; and {len(failures) - len(shown)} more: {others}"
    advices = list(dict.fromkeys(result.advice for result in shown))
    return GateFailed(
        where=f"gate {report.stage} of run {report.run_id} ({report.database})",
        expected=f"all critical expectations of expectations/{report.stage}/ to hold",
        found=f"{len(failures)} broken: {found or 'no result at all'}",
        advice=" / ".join([*advices, f"every result is in {_relative(report.path.with_name('index.html'), settings)}"]),
    )


def _examples_text(result: GateResult) -> str:
    if not result.examples:
        return ""
    rows = (
        "{" + ", ".join(f"{name}={value if value is not None else 'null'}" for name, value in example.items()) + "}"
        for example in result.examples
    )
    return ", for example " + " ".join(rows)


def _relative(path: Path, settings: Settings) -> str:
    return path.relative_to(settings.home).as_posix() if path.is_relative_to(settings.home) else path.as_posix()
