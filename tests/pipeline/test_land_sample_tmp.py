"""A third party's data set from its own files to a draft bill, checked against its files read in plain Python."""

import csv
import gzip
from collections import Counter
from datetime import date, timedelta
from pathlib import Path

import duckdb
import pytest
from cleanbill import billing_feed, gates
from cleanbill.build import build_marts, build_staging
from cleanbill.ingest import ingest
from cleanbill.land import land
from cleanbill.settings import get_settings

REPOSITORY = Path(__file__).resolve().parents[2]
ORIGINAL = REPOSITORY / "nowhere"
SAMPLE = REPOSITORY / "tests" / "fixtures" / "ravenstack"
MONTH = date(2025, 1, 1)


class Ravenstack:
    """The foreign files, read without cleanbill."""

    def __init__(self, folder: Path) -> None:
        self.subscriptions = {row["subscription_id"]: row for row in self._rows(folder / "subscriptions.csv")}
        self.usages = self._rows(folder / "feature_usage.csv")

    @staticmethod
    def _rows(path: Path) -> list[dict[str, str]]:
        with path.open(encoding="utf-8", newline="") as text:
            return list(csv.DictReader(text))

    @staticmethod
    def end_of(row: dict[str, str]) -> str:
        """The midnight that ends the last day, as a day; far away if open."""
        return str(date.fromisoformat(row["end_date"]) + timedelta(days=1)) if row["end_date"] else "9999-12-31"

    def live_at(self, first: str) -> list[dict[str, str]]:
        return [row for row in self.subscriptions.values() if row["start_date"] < first and self.end_of(row) >= first]

    def is_inside(self, use: dict[str, str]) -> bool:
        row = self.subscriptions[use["subscription_id"]]
        return row["start_date"] <= use["usage_date"] < self.end_of(row)


@pytest.mark.slow
def test_ravenstack_runs_to_marts_and_a_draft_bill(cleanbill_home: Path):
    folder = ORIGINAL if ORIGINAL.is_dir() else SAMPLE
    truth = Ravenstack(folder)
    summary = land("ravenstack", folder)
    ingest(summary.first_day, summary.last_day)
    gates.check("raw", "land")
    assert build_staging() == date(2024, 12, 31)
    gates.check("staging", "land")
    build_marts()
    gates.check("marts", "land")
    prepared = billing_feed.prepare_month(MONTH)
    gates.check("export", "land", prepared.database)
    draft = billing_feed.draft_feed(MONTH, "land")

    with duckdb.connect(str(get_settings().warehouse), read_only=True) as marts:
        spells = marts.execute("select ordered_at::date, count(*) from marts.subscriptions group by all").fetchall()
        fees = marts.execute(
            "select billing_month, sum(fee_li) from marts.billing_dispositions group by all"
        ).fetchall()
        (inside,) = marts.execute("select sum(wap_hits) from marts.subscription_usage_monthly").fetchone()
        (outside,) = marts.execute("select sum(wap_hits) from marts.usage_outside_spells").fetchone()
        (findings,) = marts.execute("select count(*) from marts.relation_event_findings").fetchone()

    # No subscription is lost or swallowed by another one.
    started = Counter(row["start_date"] for row in truth.subscriptions.values())
    assert {str(day): count for day, count in spells} == started
    assert findings == 0
    # Each month's fees are the source's own, to the cent.
    assert len(fees) == 24
    for month, fee_li in fees:
        assert fee_li == 1000 * sum(int(row["mrr_amount"]) for row in truth.live_at(str(month)))
    # Use inside a subscription counts for it; the rest counts for nobody and is shown.
    assert inside == sum(int(use["usage_count"]) for use in truth.usages if truth.is_inside(use))
    assert outside == sum(int(use["usage_count"]) for use in truth.usages if not truth.is_inside(use))
    if folder == ORIGINAL:
        assert sum(not truth.is_inside(use) for use in truth.usages) == 19432

    charged = []
    for path in sorted(draft.glob("charges_*.csv.gz")):
        with gzip.open(path, "rt", encoding="utf-8", newline="") as text:
            charged += list(csv.DictReader(text))
    live = {row["subscription_id"]: row for row in truth.live_at(str(MONTH))}
    assert charged
    for line in charged:
        row = live[line["msisdn"]]
        assert int(line["fee_li"]) == 1000 * int(row["mrr_amount"]) > 0
        assert row["is_trial"] == "False"
        # R6: who ordered on 21 December or later is still in the trial on 1 January.
        assert row["start_date"] < "2024-12-21"
