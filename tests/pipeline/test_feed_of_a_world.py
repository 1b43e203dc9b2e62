"""The feed of a real build against the oracle, and the explanation of its lines against the delivered files."""

import gzip
from datetime import date, timedelta
from itertools import count
from pathlib import Path

import pytest
from cleanbill import billing_feed, build
from cleanbill.control import open_warehouse
from cleanbill.day_ranges import as_ranges, in_words
from cleanbill.errors import BillingBlocked
from cleanbill.explain import _Explainer, explain
from cleanbill.ingest import ingest
from cleanbill.settings import get_settings
from cleanbill.status import read_status

from tests.compare import assert_feed_equal
from tests.conftest import TEST_KEY
from tests.oracle.feed import first_feed
from tests.worlds import World, write_world

FIRST_SEED = 14
BILLED, BLOCKED = date(2026, 6, 1), date(2026, 7, 1)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A world whose June can be billed and whose July cannot, built as of the last of May."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setenv("CLEANBILL_PSEUDONYM_KEY", TEST_KEY)
        made = next(
            found for seed in count(FIRST_SEED) if (found := fitting_world(seed, tmp_path_factory.mktemp("world")))
        )
        monkeypatch.setenv("CLEANBILL_HOME", str(made.home))
        get_settings.cache_clear()
        ingest(made.first_day, made.last_day)
        build.build_staging(BILLED - timedelta(days=1))
        build.build_marts()
        yield made
    get_settings.cache_clear()


def fitting_world(seed: int, folder: Path) -> World | None:
    """Return the world of a seed if the oracle finds holes that stop July only, and charges in June."""
    made = write_world(seed, folder / "data", months=3, start=date(2026, 4, 1), subscribers=40, snapshots=True)
    billed, blocked = (first_feed(made.home, TEST_KEY, month) for month in (BILLED, BLOCKED))
    fits = blocked.blockers and not billed.blockers and billed.charges and len(billed.dispositions) > 4
    return made if fits else None


def test_the_warehouse_and_a_scratch_build_give_the_feed_of_the_oracle(world, monkeypatch):
    assert billing_feed.prepare_month(BILLED).built_from == "warehouse"
    draft = billing_feed.draft_feed(BILLED)
    assert_feed_equal(world.home, draft, BILLED)
    content = {path.name: path.read_bytes() for path in draft.iterdir()}
    monkeypatch.setattr("cleanbill.feed_snapshot.warehouse_serves", lambda *_: False)
    assert billing_feed.prepare_month(BILLED).built_from == "scratch"
    draft = billing_feed.draft_feed(BILLED)
    assert {path.name: path.read_bytes() for path in draft.iterdir()} == content
    assert not list((get_settings().warehouse_folder / "scratch").glob("*.duckdb"))


def test_holes_block_the_month_the_oracle_blocks_and_are_named(world):
    feed = first_feed(world.home, TEST_KEY, BLOCKED)
    with pytest.raises(BillingBlocked) as caught:
        billing_feed.prepare_month(BLOCKED)
    named = caught.value.found
    wanted: dict[tuple, set] = {}
    for _, extract, source, day in feed.blockers:
        wanted.setdefault((extract, source), set()).add(day)
    for (extract, source), days in wanted.items():
        assert f"{extract} of {source}: {in_words(as_ranges(days))}" in named
    assert named.count(" of ") == len(wanted)
    assert not billing_feed.draft_folder(BLOCKED).exists()


def test_decisions_are_explained_down_to_the_delivered_line(world):
    month = BILLED
    with open_warehouse(get_settings(), read_only=True) as connection:
        decisions = connection.execute(
            """
            select disposition, min(subscription_id), min(reason)
            from marts.billing_dispositions
            where billing_month = $month
            group by disposition
            """,
            {"month": month},
        ).fetchall()
        numbers = dict(connection.execute("select subscription_id, msisdn from intermediate.int_spells").fetchall())
    assert len(decisions) >= 4
    seen = set()
    for disposition, subscription_id, _ in decisions:
        explanation = explain(subscription_id, month)
        assert explanation.as_of == month - timedelta(days=1)
        assert explanation.decision["disposition"] == disposition
        answers = [rule.answer for rule in explanation.rules]
        decided = [rule.disposition for rule in explanation.rules].index(disposition)
        assert answers == ["no"] * decided + ["yes"] + ["not asked"] * (len(answers) - decided - 1)
        assert {row.table for row in explanation.policy} >= {"policy_trial", "policy_consent", "policy_suspension"}
        assert numbers[subscription_id] not in repr(explanation)
        for line in explanation.lines:
            path = get_settings().landing / line.extract / str(line.business_date) / line.file_name
            raw = path.read_bytes()
            text = (gzip.decompress(raw) if path.suffix == ".gz" else raw).decode("utf-8-sig")
            if line.extract == "relation_events" and '"' not in text:
                event_id = line.content.split(",")[0].removeprefix("event_id ")
                assert event_id in text.splitlines()[line.line_no - 1]
                seen.add(event_id)
    assert seen, "no line was looked up"


def test_the_waivers_behind_a_decision_are_named(world):
    """Of the judged window and of every bill's extracts; not after M-01, before the window, expired, or delivered."""
    as_of = BILLED - timedelta(days=1)
    with open_warehouse(get_settings()) as connection:
        connection.begin()
        subscription_id, extract, start = connection.execute(
            "select subscription_id, usage_extract, window_start from intermediate.int_silence "
            "where billing_month = $1 order by all limit 1",
            [BILLED],
        ).fetchone()
        days = {
            "in the window": (extract, start, as_of, "waived"),
            "its last day": (extract, as_of, BILLED, "waived"),
            "events long ago": ("relation_events", date(2026, 4, 2), as_of, "waived"),
            "before the window": (extract, start - timedelta(days=1), as_of, "waived"),
            "after the bill": (extract, BILLED, as_of, "waived"),
            "expired": (extract, start + timedelta(days=1), as_of - timedelta(days=1), "missing"),
            "no part of a bill": ("sp_reports", start, as_of, "waived"),
        }
        for reason, (of, day, expires_on, status) in days.items():
            key = [of, "zz", day]
            connection.execute(
                "insert into control.waivers values ($1, $2, $3, $4, 'A', 'B', $5)", [*key, reason, expires_on]
            )
            connection.execute(
                "insert into marts.extract_completeness by name "
                "select $1 as extract, $2 as source, $3 as day, $4 as status",
                [*key, status],
            )
        waivers = _Explainer(connection, subscription_id, BILLED).explain().waivers
        connection.rollback()
    assert {waiver["reason"] for waiver in waivers} == {"in the window", "its last day", "events long ago"}
    assert {(waiver["requested_by"], waiver["approved_by"]) for waiver in waivers} == {("A", "B")}


def test_a_relation_without_a_decision_says_why(world):
    month = BILLED
    with open_warehouse(get_settings(), read_only=True) as connection:
        late, ended = (
            connection.execute(
                f"select min(subscription_id) from intermediate.int_spells where {condition}", {"month": month}
            ).fetchone()[0]
            for condition in ("ordered_at >= $month - interval 20 day", "ended_at < $month - interval 31 day")
        )
    assert "not judged yet" in explain(late, (month + timedelta(days=31)).replace(day=1)).no_decision
    assert "ended before it" in explain(ended, month).no_decision
    assert "ordered on or after it" in explain(late, date(2026, 4, 1)).no_decision


def test_status_counts_what_was_delivered(world):
    status = read_status()
    assert status.as_of == BILLED - timedelta(days=1)
    assert {pair.extract for pair in status.delivered} >= {"relation_events", "sms_usage", "service_catalogue"}
