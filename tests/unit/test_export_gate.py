"""G2: no draft for the billing system unless the export gate judged exactly these rows, in this run, green."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import duckdb
import pytest
from cleanbill import billing_feed, gates
from cleanbill.control import open_warehouse
from cleanbill.errors import CleanbillError, GateFailed
from cleanbill.settings import get_settings

from tests.feed_warehouse import MONTH, make_warehouse
from tests.pipeline.conftest import data_root

RUN = "billing run"


@pytest.fixture(scope="module")
def judged_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data root with a frozen month and a green verdict of the run."""
    with data_root(tmp_path_factory.mktemp("judged") / "data") as home:
        make_warehouse()
        billing_feed.prepare_month(MONTH)
        assert gates.check("export", RUN, billing_feed.feed_database(MONTH)).passed
    return home


@pytest.fixture
def judged(judged_home: Path, tmp_path: Path) -> Iterator[None]:
    with data_root(tmp_path / "data") as home:
        shutil.copytree(judged_home, home, dirs_exist_ok=True)
        yield


def test_the_verdict_of_the_run_on_these_rows_opens_the_gate(judged):
    assert billing_feed.draft_feed(MONTH, run_id=RUN).is_dir()


@pytest.mark.parametrize(
    "statement",
    [
        "delete from control.gate_records",
        "update control.gate_records set run_id = 'another run'",
        "update control.gate_records set stage = 'marts'",
        "update control.gate_records set passed = false",
        "update control.gate_records set state_digest = null",
        "update control.gate_records set state_digest = repeat('0', 64)",
    ],
)
def test_a_record_that_is_not_this_green_one_opens_nothing(judged, statement):
    with open_warehouse(get_settings()) as connection:
        connection.execute(statement)
    assert_refused(GateFailed)


@pytest.mark.parametrize(
    "statement",
    [
        "update main.charges set fee_li = fee_li + 1 where sp_code = (select min(sp_code) from main.charges)",
        "delete from main.charges where subscription_id = (select min(subscription_id) from main.charges)",
        "insert into main.charges from main.charges limit 1",
        "update main.settlement set status = 'held'",
        "update main.inputs set delivery = 2",
        "drop table main.exclusions",
    ],
)
def test_rows_changed_after_the_verdict_are_not_drafted(judged, statement):
    with duckdb.connect(str(billing_feed.feed_database(MONTH))) as connection:
        connection.execute(statement)
    assert_refused(GateFailed)


def test_a_month_frozen_again_needs_a_verdict_again(judged):
    with open_warehouse(get_settings()) as connection:
        connection.execute(
            "update marts.billing_dispositions set charged_li = 0, disposition = 'silent', reason = 'silent_user' "
            "where subscription_id = (select min(subscription_id) from marts.billing_dispositions "
            "where disposition = 'billed')"
        )
    billing_feed.prepare_month(MONTH)
    assert_refused(GateFailed)


def test_without_the_frozen_rows_there_is_nothing_to_draft(judged):
    billing_feed.feed_database(MONTH).unlink()
    assert_refused(CleanbillError)


def assert_refused(error: type[CleanbillError]) -> None:
    with pytest.raises(error):
        billing_feed.draft_feed(MONTH, run_id=RUN)
    assert not billing_feed.draft_folder(MONTH).exists()
    assert not (get_settings().exports / "billing").exists()
