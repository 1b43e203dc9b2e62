"""The demonstration: seven simulated months through the real DAGs, one month billed, and what came out of it.

Everything goes the way it goes in production, but for two things that are said where they happen: the key of the
pseudonyms is a public one, and the feed is released without a second person.
"""

import os
import platform
import time
from datetime import date, timedelta

from rich.console import Console
from rich.text import Text

from cleanbill import billing_feed, terminal_views
from cleanbill.feed_files import read_manifest
from cleanbill.publish import publish_billed_charges
from cleanbill.query import query
from cleanbill.settings import Settings, get_settings

KEY_VARIABLES = ("CLEANBILL_PSEUDONYM_KEY", "CLEANBILL_PSEUDONYM_KEY_FILE")
DEMO_KEY = "demo only: this key is public, never use it for real subscribers"
FIRST_DAY = date(2026, 3, 1)
BILLED_MONTH = date(2026, 10, 1)
SUBSCRIBERS = 24_000
PROVINCES = 3
SEED = 1

QUESTIONS = (
    (
        "What SPs still owe a report for, by kind of anomaly",
        "select sp_code, anomaly_type, count(*) as anomalies, min(due_on) as oldest_due from anomalous_subscriptions "
        "where report_status = 'unreported' group by all order by anomalies desc limit 5",
    ),
    (
        "What the operator pays the SPs (li)",
        "select sp_code, gross_li, stopped_li + closed_li as lines_li, abnormal_li, silent_li, refunds_li, other_li, "
        "to_settle_li, sp_share_li from sp_settlement where billing_month = '2026-10-01' order by sp_code limit 5",
    ),
)


def run_demo() -> None:
    """Simulate, run, bill and show; done again it finds its work done and shows the same."""
    settings = _with_key()
    started = time.monotonic()
    last_day = BILLED_MONTH - timedelta(days=1)
    usage_rows = _simulate(settings, last_day)
    _run_and_bill(last_day)
    seconds = time.monotonic() - started
    _show_results(settings)
    days = (last_day - FIRST_DAY).days + 1
    machine = f"{os.cpu_count()} cores ({platform.machine()}, Python {platform.python_version()})"
    _say(f"\n{usage_rows:,} usage rows, {days} days, {PROVINCES} provinces in {seconds:.0f} s on {machine}")


def _with_key() -> Settings:
    if not any(os.environ.get(name) for name in KEY_VARIABLES):
        os.environ[KEY_VARIABLES[0]] = DEMO_KEY
        get_settings.cache_clear()
        _say(f"{KEY_VARIABLES[0]} is not set: the demo takes a public one ({DEMO_KEY!r})", "yellow")
    return get_settings()


def _simulate(settings: Settings, last_day: date) -> int:
    from cleanbill.simulator import simulate

    with Console().status("simulating an operator") as status:
        summary = simulate(
            settings.home,
            FIRST_DAY,
            end=last_day,
            subscribers=SUBSCRIBERS,
            provinces=PROVINCES,
            seed=SEED,
            threads=settings.threads,
            progress=lambda line: status.update(f"simulating an operator: {line}"),
        )
    _say(f"{summary.deliveries:,} deliveries with {sum(summary.rows.values()):,} rows: {summary.landing}")
    return sum(rows for extract, rows in summary.rows.items() if extract.endswith("_usage"))


def _run_and_bill(last_day: date) -> None:
    """Run the days; their last one sets off the month's own run, whose draft is then released."""
    from cleanbill import airflow_runtime

    with airflow_runtime.airflow_running():
        airflow_runtime.run_daily(FIRST_DAY, last_day)
        if billing_feed.draft_folder(BILLED_MONTH).exists():
            billing_feed.approve_feed(BILLED_MONTH, approver=None, auto=True)
            billing_feed.seal_feed(BILLED_MONTH)
            publish_billed_charges()
        elif not billing_feed.sealed_folder(BILLED_MONTH).exists():
            airflow_runtime.bill_month(BILLED_MONTH, auto_approve=True)


def _say(text: str, style: str = "") -> None:
    """Print one line; a long one is not broken, so that it can be copied."""
    Console().print(Text(text, style=style), soft_wrap=True)


def _show_results(settings: Settings) -> None:
    sealed = billing_feed.sealed_folder(BILLED_MONTH, settings=settings)
    manifest, manifest_sha256 = read_manifest(sealed)
    dispositions = manifest["dispositions"]
    terminal_views.show(
        terminal_views.table(
            f"\nWhat became of every relation live on {BILLED_MONTH} 00:00",
            ["disposition", "relations", "fee (li)"],
            [(code, sums["count"], sums["fee_li"]) for code, sums in dispositions.items()]
            + [("all", *(sum(sums[part] for sums in dispositions.values()) for part in ("count", "fee_li")))],
        )
    )
    for title, sql in QUESTIONS:
        _say(f"\n{title}", "bold")
        _say(f'cleanbill query "{sql}"', "dim")
        terminal_views.show(terminal_views.query_view(query(sql)))
    (subscription_id,) = query(
        "select min(subscription_id) from billing_dispositions "
        "where billing_month = '2026-10-01' and disposition = 'silent'"
    ).rows[0]
    _say("\nWhy was one of them not charged?", "bold")
    _say(f"cleanbill explain {subscription_id} {BILLED_MONTH:%Y-%m}", "dim")
    _say(f"\nThe feed of {BILLED_MONTH:%Y-%m}: {sealed}", "bold")
    _say(f"_SUCCESS: {manifest_sha256}")
