"""The command line: commands parse, call one function and show its answer; heavy imports stand inside them."""

import os
import signal
import sys
from datetime import date, datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from cleanbill import __version__
from cleanbill.errors import CleanbillError
from cleanbill.settings import parse_month

USAGE_ERROR = 2
FAILED = 1
INTERRUPTED = 130
DAY_FORMAT = ["%Y-%m-%d"]

app = typer.Typer(
    name="cleanbill",
    help="Check every order relation before it is billed: extracts in, marts out, a gated billing feed.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def _month(text: str) -> date:
    try:
        return parse_month(text)
    except CleanbillError as error:
        raise typer.BadParameter(f"expected {error.expected}, found {error.found}") from error


Month = Annotated[date, typer.Argument(metavar="MONTH", parser=_month, help="Billing month, YYYY-MM.")]
FirstDay = Annotated[datetime, typer.Option("--from", formats=DAY_FORMAT, help="First business date.")]
LastDay = Annotated[datetime, typer.Option("--to", formats=DAY_FORMAT, help="Last business date.")]


def _version(is_asked: bool) -> None:
    if is_asked:
        typer.echo(f"cleanbill {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    pass


@app.command()
def simulate(
    first: FirstDay,
    months: Annotated[int | None, typer.Option(min=1, help="Length in months (or give --to).")] = None,
    last: Annotated[
        datetime | None, typer.Option("--to", formats=DAY_FORMAT, help="Last business date, instead of --months.")
    ] = None,
    subscribers: Annotated[int, typer.Option(help="Phone numbers.")] = 24_000,
    provinces: Annotated[str, typer.Option(help="How many, or their source names: bj,gd,sh.")] = "3",
    seed: Annotated[int, typer.Option(help="Another seed, another world; the same gives the same bytes.")] = 1,
    test_numbers: Annotated[int, typer.Option(help="How many of the subscribers are test numbers.")] = 0,
) -> None:
    """Write the deliveries of a plausible operator into landing/, and the truth about them into truth/."""
    from cleanbill.settings import get_settings
    from cleanbill.simulator import simulate as simulate_operator

    if (months is None) == (last is None):
        raise typer.BadParameter("give either --months or --to")
    settings = get_settings()
    summary = simulate_operator(
        settings.home,
        first.date(),
        months,
        end=last.date() if last else None,
        subscribers=subscribers,
        provinces=int(provinces) if provinces.isdecimal() else provinces.split(","),
        seed=seed,
        test_numbers=test_numbers,
        threads=settings.threads,
        progress=lambda line: typer.echo(line, err=True),
    )
    written = "already there" if summary.unchanged else "written"
    typer.echo(
        f"{summary.deliveries:,} deliveries, {summary.files:,} files of {summary.first_day} to {summary.last_day} "
        f"{written}: {summary.landing}"
    )
    for extract, rows in sorted(summary.rows.items()):
        typer.echo(f"  {extract}: {rows:,} rows")
    typer.echo(f"truth: {summary.truth}")
    typer.echo(f"next: cleanbill run --from {summary.first_day} --to {summary.last_day}")


@app.command()
def land(
    mapping: Annotated[str, typer.Argument(help="A source mapping (YAML), or the name of a built-in one.")],
    files: Annotated[list[Path], typer.Argument(exists=True, help="The foreign files, or the folder that holds them.")],
    first: Annotated[
        datetime | None, typer.Option("--from", formats=DAY_FORMAT, help="Land only from this business date on.")
    ] = None,
    last: Annotated[
        datetime | None, typer.Option("--to", formats=DAY_FORMAT, help="Land only up to this business date.")
    ] = None,
    replace: Annotated[
        bool, typer.Option("--replace", help="Let a new delivery of a day leave out records of the one before.")
    ] = False,
) -> None:
    """Bring foreign files in through a source mapping, as verified deliveries; the originals are only read."""
    from cleanbill.land import land as land_files

    typer.echo(
        land_files(
            mapping,
            files[0] if len(files) == 1 else files,
            date_from=first.date() if first else None,
            date_to=last.date() if last else None,
            replace=replace,
        ).render()
    )


quarantine_app = typer.Typer(no_args_is_help=True, help="Show what is kept out and why; replay what was repaired.")
app.add_typer(quarantine_app, name="quarantine")
Reasons = Annotated[list[str] | None, typer.Option("--reason", help="A reason code; may be given again.")]


@quarantine_app.command("list")
def list_quarantine(
    reasons: Reasons = None,
    extract: Annotated[str | None, typer.Option(help="Of this extract only.")] = None,
    source: Annotated[str | None, typer.Option(help="Of this source only.")] = None,
    first: Annotated[datetime | None, typer.Option("--from", formats=DAY_FORMAT, help="First business date.")] = None,
    last: Annotated[datetime | None, typer.Option("--to", formats=DAY_FORMAT, help="Last business date.")] = None,
    max_rows: Annotated[int, typer.Option(min=1, help="Lines shown at most.")] = 50,
) -> None:
    """List rows refused at landing, records refused by ingest and deliveries refused whole, with one example each."""
    from cleanbill import terminal_views
    from cleanbill.quarantine import Selection, read_quarantine

    days = (first.date() if first else None, last.date() if last else None)
    entries = read_quarantine(Selection(frozenset(reasons or ()), extract, source, *days))
    terminal_views.show(terminal_views.quarantine_view(entries, max_rows))


@quarantine_app.command("replay")
def replay_quarantine(
    reasons: Reasons = None,
    deliveries: Annotated[
        list[str] | None, typer.Option("--delivery", help="A delivery by its name in landing/; may be given again.")
    ] = None,
    mapping: Annotated[
        Path | None, typer.Option(exists=True, dir_okay=False, help="The corrected mapping, if it was moved.")
    ] = None,
) -> None:
    """Land again only the deliveries that hold such records, after their mapping was corrected."""
    from cleanbill.quarantine_replay import replay

    if not reasons and not deliveries:
        raise typer.BadParameter("give --reason or --delivery")
    result = replay(reasons or (), deliveries or (), mapping)
    typer.echo(result.render())
    if result.unrepaired:
        raise typer.Exit(FAILED)


@app.command()
def run(first: FirstDay, last: LastDay) -> None:
    """Take in, check, build and publish a range of days: one real run of the DAG subscription_daily."""
    if first > last:
        raise typer.BadParameter("--from is after --to")
    from cleanbill.airflow_runtime import run_daily

    run_daily(first.date(), last.date())


@app.command()
def rebuild() -> None:
    """Make a lost warehouse anew from the lake alone, check and publish it: one real run of subscription_daily."""
    from cleanbill.airflow_runtime import run_daily
    from cleanbill.lake_index import newest_day_of_a_lost_warehouse
    from cleanbill.settings import get_settings

    newest = newest_day_of_a_lost_warehouse(get_settings())
    run_daily(newest, newest)


@app.command()
def bill(
    month: Month,
    auto_approve: Annotated[
        bool, typer.Option("--auto-approve", help="Release unattended (demos); approval.json says so.")
    ] = False,
    approver: Annotated[
        str | None, typer.Option(help="Release the draft that waits, as this person; a second person's act.")
    ] = None,
) -> None:
    """Bill a month: one real run of the DAG billing_monthly, which ends with a draft that waits for approval."""
    if auto_approve and approver is not None:
        raise typer.BadParameter("--auto-approve and --approver exclude each other")
    from cleanbill import billing_feed
    from cleanbill.feed_versions import sealed_versions

    if approver is not None:
        from cleanbill.publish import publish_billed_charges

        billing_feed.approve_feed(month, approver)
        typer.echo(f"sealed: {billing_feed.seal_feed(month)}")
        publish_billed_charges()
        return
    from cleanbill.airflow_runtime import bill_month

    before = len(sealed_versions(month))
    bill_month(month, auto_approve)
    sealed, draft = sealed_versions(month), billing_feed.draft_folder(month)
    if len(sealed) > before:
        typer.echo(f"sealed: {sealed[-1].folder}")
    elif draft.exists():
        kind = f"draft of the adjustment v{before + 1}" if before else "draft"
        typer.echo(f"{kind} (nothing is exported yet): {draft}")
        typer.echo(f"to release it, a second person runs: cleanbill bill {month:%Y-%m} --approver NAME")
    elif sealed:
        typer.echo(f"unchanged, sealed already: {sealed[-1].folder}")


@app.command()
def verify(
    month: Annotated[
        date | None, typer.Argument(metavar="[MONTH]", parser=_month, help="Only this billing month, YYYY-MM.")
    ] = None,
) -> None:
    """Check what was released, byte by byte: ledger, approvals, manifests, files, sums, billed_charges."""
    from cleanbill.verify import verify as verify_released

    result = verify_released(month)
    for finding in result.findings:
        typer.echo(f"{finding.path}: {finding.text}")
    for note in result.notes:
        typer.echo(f"note: {note}")
    typer.echo(
        f"{len(result.findings) or 'nothing'} wrong: {result.versions:,} sealed versions, {result.files:,} files, "
        f"{result.lines:,} lines, {result.ledger_entries:,} ledger entries"
    )
    if result.findings:
        raise typer.Exit(FAILED)


@app.command("export-legacy")
def export_legacy(
    month: Month,
    version: Annotated[int, typer.Option(min=1, help="Which sealed version of the month.")] = 1,
) -> None:
    """Write a sealed feed version once more as fixed-width GBK .dat with .verf, for old billing systems."""
    from cleanbill.legacy_feed import export_legacy as export

    folder = export(month, version)
    typer.echo(f"{len(list(folder.glob('*.dat')))} .dat files, each with its .verf: {folder}")


@app.command()
def query(
    sql: Annotated[str, typer.Argument(metavar="SQL", help="One SELECT on the published marts.")],
    max_rows: Annotated[int, typer.Option(min=1, help="Rows shown at most.")] = 1000,
    seconds: Annotated[float, typer.Option(min=0.1, help="Time after which it is stopped.")] = 60.0,
    as_csv: Annotated[bool, typer.Option("--csv", help="Write CSV instead of a table.")] = False,
) -> None:
    """Ask the published marts: one SELECT, read-only, caged."""
    from cleanbill import terminal_views
    from cleanbill.query import query as ask

    result = ask(sql, max_rows=max_rows, seconds=seconds)
    if as_csv:
        terminal_views.write_csv(result, sys.stdout)
    else:
        terminal_views.show(terminal_views.query_view(result))


class Cadence(StrEnum):
    """Periods in which counts are judged."""

    daily = "daily"
    weekly = "weekly"
    hourly = "hourly"


@app.command()
def growth(
    file: Annotated[Path, typer.Argument(help="CSV of counts: [series,] time, count [, label].")],
    cadence: Annotated[Cadence, typer.Option(help="Periods to judge; finer readings are summed.")] = Cadence.daily,
    is_two_sided: Annotated[
        bool | None, typer.Option("--two-sided/--upward", help="Also look for falls (default: by the policy row).")
    ] = None,
    is_all: Annotated[bool, typer.Option("--all", help="Show every period, not only odd ones.")] = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Write CSV instead of a table.")] = False,
) -> None:
    """Judge any file of counts for abnormal growth, by the rules and parameters of service_growth."""
    from cleanbill import terminal_views
    from cleanbill.growth_series import as_query_result, judge_file

    verdicts = judge_file(file, cadence.value, is_two_sided)
    result = as_query_result(verdicts, is_all)
    if as_csv:
        terminal_views.write_csv(result, sys.stdout)
    else:
        terminal_views.show(terminal_views.query_view(result))


@app.command("growth-picture")
def growth_picture(
    sp_code: Annotated[str, typer.Argument(metavar="SP", help="Service provider, 6 digits.")],
    service_code: Annotated[str, typer.Argument(metavar="SERVICE", help="Service of that SP.")],
    day: Annotated[datetime, typer.Argument(metavar="DAY", formats=DAY_FORMAT, help="A day, as in service_growth.")],
) -> None:
    """Draw what a service counted around a day, its usual range and its SP's other services, as SVG in reports/."""
    from cleanbill.growth_picture import draw_growth

    typer.echo(draw_growth(sp_code, service_code, day.date()))


@app.command()
def explain(
    subscription_id: Annotated[str, typer.Argument(metavar="SUBSCRIPTION_ID", help="32 hex digits, as in the marts.")],
    month: Month,
) -> None:
    """Explain why a subscription is or is not charged for a month, down to the lines of the deliveries."""
    from cleanbill import terminal_views
    from cleanbill.explain import explain as explain_decision

    terminal_views.show(terminal_views.explanation_view(explain_decision(subscription_id, month)))


@app.command()
def status() -> None:
    """Show what is delivered, missing, gated, published and exported."""
    from cleanbill import terminal_views
    from cleanbill.status import read_status

    terminal_views.show(terminal_views.status_view(read_status()))


@app.command("startup-reminders")
def startup_reminders(
    start: Annotated[
        date, typer.Option("--from", metavar="MONTH", parser=_month, help="First of the two months, YYYY-MM.")
    ],
) -> None:
    """Write the one-off reminder of the stock: each relation live now and ordered before MONTH, over two months."""
    from cleanbill.startup_reminders import write_startup_reminders

    written = write_startup_reminders(start)
    state = "there already" if written.was_there else "written"
    typer.echo(f"{written.relations:,} relations of {written.subscribers:,} subscribers, {state}: {written.folder}")


@app.command()
def plan(
    last: Annotated[
        datetime | None, typer.Option("--to", formats=DAY_FORMAT, help="Last business date to take in; else all.")
    ] = None,
) -> None:
    """Show what the next run will change, judge anew and cost, before it runs; nothing is changed."""
    from cleanbill import terminal_views
    from cleanbill.plan import make_plan
    from cleanbill.plan_view import plan_view

    terminal_views.show(plan_view(make_plan(last.date() if last else None)))


@app.command()
def withdraw(
    extract: Annotated[str, typer.Argument(help="Extract of the delivery, for example sms_usage.")],
    source: Annotated[str, typer.Argument(help="Its source.")],
    business_date: Annotated[datetime, typer.Argument(formats=DAY_FORMAT, metavar="DAY", help="Its business date.")],
    delivery: Annotated[int, typer.Argument(min=1, help="Its delivery number.")],
    reason: Annotated[str, typer.Option(help="Why it must not count.")],
    requested_by: Annotated[str, typer.Option(help="Who asks for it.")],
    approved_by: Annotated[str, typer.Option(help="Who approves it: a second person.")],
) -> None:
    """Take a delivery back: one line more in withdrawals.csv, in effect with the next run; removing it undoes it."""
    from cleanbill.manifest import DeliveryKey
    from cleanbill.settings import get_settings
    from cleanbill.withdrawals import Withdrawal
    from cleanbill.withdrawals import withdraw as take_back

    key = DeliveryKey(extract, business_date.date(), source, delivery)
    is_new = take_back(get_settings(), Withdrawal(key, reason, requested_by, approved_by))
    typer.echo(f"{'withdrawn' if is_new else 'withdrawn already'}: {key}")
    typer.echo("it takes effect with the next `cleanbill run`; `cleanbill plan` shows what that will change")


@app.command()
def demo() -> None:
    """Simulate seven months, run them through the real DAGs, bill one month unattended, and show what came out."""
    from cleanbill.demo import run_demo

    run_demo()


def main() -> None:
    """Run one command; an error made on purpose is one line on standard error, never a traceback."""
    for kind in (signal.SIGINT, signal.SIGTERM):  # so that a stop cleans up like Ctrl-C
        signal.signal(kind, signal.default_int_handler)
    os.umask(0o027)
    try:
        app(prog_name="cleanbill")
    except CleanbillError as error:
        _end(str(error))
    except Exception as error:
        if str(error) == "Query interrupted":  # how DuckDB hands on a stop
            sys.exit(INTERRUPTED)
        if os.environ.get("CLEANBILL_DEBUG"):
            raise
        from cleanbill.masking import mask_text
        from cleanbill.settings import get_settings
        from cleanbill.storage_faults import storage_failure

        if explained := storage_failure(error, get_settings().home):
            _end(str(explained))
        text = mask_text(" ".join(str(error).split()))[:300]
        _end(f"unexpected {type(error).__name__}: {text}. What to do: repeat with CLEANBILL_DEBUG=1 and report it")


def _end(text: str) -> None:
    print(f"cleanbill: {text}", file=sys.stderr)
    sys.exit(FAILED)


if __name__ == "__main__":
    main()
