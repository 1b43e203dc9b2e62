"""Versions after the first: what they hold, when there is one, what they refuse, and that a kill does no harm."""

import gzip
import json
import shutil
from datetime import date
from pathlib import Path

import duckdb
import pytest
from cleanbill import billing_feed, feed_files, ledger, publish
from cleanbill.control import open_warehouse
from cleanbill.errors import BillingBlocked, FeedError
from cleanbill.feed_versions import sealed_versions
from cleanbill.pseudonym import pseudonym
from cleanbill.settings import get_settings
from cleanbill.verify import verify

from tests.feed_warehouse import AS_OF, LINES, MONTH, add_delivery, make_warehouse, msisdn_of, pseudonym_of

HEADER = (
    "msisdn,sp_code,service_code,subscription_id,billing_month,fee_li,charge_time,previous_li,new_li,delta_li,reason"
)
KEY = "test key"


def use_home(monkeypatch, home: Path) -> None:
    monkeypatch.setenv("CLEANBILL_HOME", str(home))
    monkeypatch.setenv("CLEANBILL_PSEUDONYM_KEY", KEY)
    get_settings.cache_clear()


@pytest.fixture(scope="module")
def sealed_once(tmp_path_factory):
    """A data root whose November is sealed as version 1, copied for each test."""
    root = tmp_path_factory.mktemp("sealed") / "home"
    with pytest.MonkeyPatch.context() as monkeypatch:
        use_home(monkeypatch, root)
        make_warehouse()
        release()
    get_settings.cache_clear()
    return root


@pytest.fixture
def home(tmp_path, monkeypatch, sealed_once):
    root = tmp_path / "home"
    shutil.copytree(sealed_once, root)
    use_home(monkeypatch, root)
    yield root
    get_settings.cache_clear()


def release() -> Path:
    billing_feed.prepare_month(MONTH)
    billing_feed.draft_feed(MONTH)
    billing_feed.approve_feed(MONTH, "Li Lei")
    return billing_feed.seal_feed(MONTH)


def change(*statements: str) -> None:
    with open_warehouse(get_settings()) as connection:
        for statement in statements:
            connection.execute(statement)


def bill(number: int, disposition: str, reason: str, fee_li: int) -> str:
    charged = fee_li if disposition == "billed" else 0
    return (
        f"update marts.billing_dispositions set disposition = '{disposition}', reason = '{reason}', "
        f"fee_li = {fee_li}, charged_li = {charged} where subscription_id = '{pseudonym_of(number)}'"
    )


def forget(number: int) -> tuple[str, str]:
    return (
        f"delete from marts.billing_dispositions where subscription_id = '{pseudonym_of(number)}'",
        f"delete from intermediate.int_spells where subscription_id = '{pseudonym_of(number)}'",
    )


def lines_of(folder: Path) -> dict[str, list[str]]:
    return {
        path.name: gzip.decompress(path.read_bytes()).decode().splitlines()
        for path in sorted(folder.glob("adjustments_*.csv.gz"))
    }


def line(number: int, previous: int, new: int, reason: str) -> str:
    return (
        f"{msisdn_of(number)},900001,MF{number % 3},{pseudonym_of(number)},2026-11-01,{new - previous},"
        f"2026-11-01 00:00:00,{previous},{new},{new - previous},{reason}"
    )


CHANGES = (
    bill(0, "silent", "silent_user", 5000),  # was charged 5000
    bill(1, "billed", "chargeable", 9000),  # was 8000
    *forget(2),  # was 3000, its order was never delivered after all
    f"delete from marts.billing_dispositions where subscription_id = '{pseudonym_of(3)}'",  # ended before the month
    bill(8, "billed", "chargeable", 5000),  # was suspended, in sh
)


def test_a_later_version_holds_what_changed_and_nothing_else(home):
    change(*CHANGES)
    folder = release()
    assert folder.name == "v2"
    assert sorted(path.name for path in folder.iterdir()) == [
        "_SUCCESS",
        "adjustments_202611_bj_001.csv.gz",
        "adjustments_202611_sh_001.csv.gz",
        "adjustments_202611_unknown_001.csv.gz",
        "approval.json",
        "inputs.csv.gz",
        "manifest.json",
    ]
    assert lines_of(folder) == {
        "adjustments_202611_bj_001.csv.gz": [
            HEADER,
            line(2, 3000, 0, "no_such_order"),
            line(1, 8000, 9000, "fee_changed"),
            line(0, 5000, 0, "silent"),
        ],
        "adjustments_202611_sh_001.csv.gz": [HEADER, line(8, 0, 5000, "charged_now")],
        "adjustments_202611_unknown_001.csv.gz": [HEADER, line(3, 2000, 0, "not_live")],
    }
    manifest = json.loads((folder / "manifest.json").read_text())
    assert (manifest["version"], manifest["as_of"]) == (2, AS_OF.isoformat())
    assert {file["name"]: file["fee_li"] for file in manifest["files"]} == {
        "adjustments_202611_bj_001.csv.gz": -7000,
        "adjustments_202611_sh_001.csv.gz": 5000,
        "adjustments_202611_unknown_001.csv.gz": -2000,
        "inputs.csv.gz": 0,
    }
    assert manifest["dispositions"]["billed"] == {"count": 3, "fee_li": 9000 + 1000 + 5000}
    first = feed_files.read_manifest(billing_feed.sealed_folder(MONTH))[1]
    assert manifest["adjusts"] == [{"manifest_sha256": first, "version": 1}]
    assert verify().findings == []


def test_version_3_adjusts_the_sum_of_both(home):
    change(*CHANGES)
    release()
    change(bill(0, "billed", "chargeable", 5000), bill(1, "billed", "chargeable", 8000))
    assert lines_of(release()) == {
        "adjustments_202611_bj_001.csv.gz": [
            HEADER,
            line(1, 9000, 8000, "fee_changed"),
            line(0, 0, 5000, "charged_now"),
        ]
    }
    assert [sealed.version for sealed in sealed_versions(MONTH)] == [1, 2, 3]
    assert verify().findings == []


def test_a_line_stays_with_the_province_that_was_charged(home):
    change(
        bill(0, "billed", "chargeable", 6000),
        f"update marts.billing_dispositions set province = 'gd' where subscription_id = '{pseudonym_of(0)}'",
    )
    assert list(lines_of(release())) == ["adjustments_202611_bj_001.csv.gz"]


def test_a_new_file_begins_at_the_row_limit(home, monkeypatch):
    monkeypatch.setenv("CLEANBILL_FEED_ROWS_PER_FILE", "2")
    get_settings.cache_clear()
    change(*CHANGES)
    assert {name: len(lines) - 1 for name, lines in lines_of(release()).items()} == {
        "adjustments_202611_bj_001.csv.gz": 2,
        "adjustments_202611_bj_002.csv.gz": 1,
        "adjustments_202611_sh_001.csv.gz": 1,
        "adjustments_202611_unknown_001.csv.gz": 1,
    }


def test_the_same_changes_give_the_same_bytes(home, tmp_path, monkeypatch):
    change(*CHANGES)
    copied = tmp_path / "copy"
    shutil.copytree(home, copied)
    first = {path.name: path.read_bytes() for path in release().iterdir() if path.name != "approval.json"}
    use_home(monkeypatch, copied)
    monkeypatch.setenv("CLEANBILL_THREADS", "4")
    get_settings.cache_clear()
    change("create or replace table marts.billing_dispositions as from marts.billing_dispositions order by hash(rowid)")
    assert {path.name: path.read_bytes() for path in release().iterdir() if path.name != "approval.json"} == first


# When there is one


def test_other_inputs_without_another_line_make_no_version(home, monkeypatch):
    add_delivery("relation_events", date(2026, 10, 15), "bj", delivery=2)
    scratch = home / "scratch.duckdb"
    shutil.copy(get_settings().warehouse, scratch)
    monkeypatch.setattr(billing_feed, "build_scratch", lambda as_of: scratch)
    prepared = billing_feed.prepare_month(MONTH)
    assert (prepared.is_unchanged, prepared.version, prepared.built_from) == (True, 2, "scratch")
    assert [entry["action"] for entry in ledger.entries()][-1] == "unchanged"


def test_a_draft_of_what_is_no_longer_so_is_thrown_away(home):
    change(bill(0, "billed", "chargeable", 6000))
    billing_feed.prepare_month(MONTH)
    billing_feed.draft_feed(MONTH)
    billing_feed.approve_feed(MONTH, "Li Lei")
    change(bill(0, "billed", "chargeable", 5000))
    assert billing_feed.prepare_month(MONTH).is_unchanged
    assert not billing_feed.approved_folder(MONTH).exists()
    assert "approval_withdrawn" in [entry["action"] for entry in ledger.entries()]
    assert [sealed.version for sealed in sealed_versions(MONTH)] == [1]


def test_the_as_of_date_is_the_newest_complete_one_and_never_goes_back(home, monkeypatch):
    asked = []

    def scratch(as_of):
        asked.append(as_of)
        target = home / "scratch.duckdb"
        shutil.copy(get_settings().warehouse, target)
        return target

    monkeypatch.setattr(billing_feed, "build_scratch", scratch)
    change(bill(0, "billed", "chargeable", 6000))
    for day in (1, 2, 3):
        add_delivery("relation_events", date(2026, 11, day), "bj")
    add_delivery("relation_events", date(2026, 11, 4), "gd")  # bj is missing on the 4th
    manifest = json.loads((release() / "manifest.json").read_text())
    assert (asked, manifest["as_of"]) == ([date(2026, 11, 3)], "2026-11-03")
    change("delete from control.in_force where business_date > date '2026-10-31'")
    change(bill(0, "billed", "chargeable", 7000))
    assert billing_feed.prepare_month(MONTH).as_of == date(2026, 11, 3)


def test_what_stops_a_bill_stops_its_adjustment(home):
    change(
        *CHANGES,
        "insert into intermediate.int_billing_blockers values "
        "('2026-11-01', 'missing_day', 'line_status', 'gd', '2026-10-03', null)",
    )
    with pytest.raises(BillingBlocked, match="line_status of gd: 2026-10-03"):
        billing_feed.prepare_month(MONTH)


# What is refused


def draft_of_version_2() -> None:
    change(bill(0, "billed", "chargeable", 6000))
    billing_feed.prepare_month(MONTH)
    billing_feed.draft_feed(MONTH)


def test_a_draft_made_on_other_versions_is_not_released(home, tmp_path):
    draft_of_version_2()
    kept = tmp_path / "kept"
    shutil.copytree(billing_feed.draft_folder(MONTH), kept)
    billing_feed.approve_feed(MONTH, "Li Lei")
    billing_feed.seal_feed(MONTH)
    shutil.copytree(kept, billing_feed.draft_folder(MONTH))
    with pytest.raises(FeedError, match="expected version 3, made on top of the sealed v2; found version 2"):
        billing_feed.approve_feed(MONTH, "Li Lei")


def test_what_was_frozen_before_another_version_was_sealed_is_not_drafted(home):
    draft_of_version_2()
    billing_feed.approve_feed(MONTH, "Li Lei")
    billing_feed.seal_feed(MONTH)
    with pytest.raises(FeedError, match="version 2 was frozen, and version 2 is sealed by now"):
        billing_feed.draft_feed(MONTH)


def test_an_adjustment_needs_a_second_person_too(home):
    draft_of_version_2()
    with pytest.raises(FeedError, match="waits for approval"):
        billing_feed.seal_feed(MONTH)
    approved = billing_feed.approve_feed(MONTH, None, auto=True)
    approval = json.loads((approved / "approval.json").read_text())
    assert (approval["version"], approval["is_automatic"]) == (2, True)
    assert billing_feed.seal_feed(MONTH).name == "v2"
    assert [entry["action"] for entry in ledger.entries()] == ["approved", "sealed", "auto_approved", "sealed"]


def test_an_approval_that_was_changed_is_not_sealed(home):
    draft_of_version_2()
    path = billing_feed.approve_feed(MONTH, "Li Lei") / "approval.json"
    path.write_text(path.read_text().replace("Li Lei", "Han Meimei"))
    with pytest.raises(FeedError, match="expected the approval of the ledger, line 3; found another one"):
        billing_feed.seal_feed(MONTH)


def test_ids_of_another_key_are_not_compared(home, monkeypatch):
    monkeypatch.setenv("CLEANBILL_PSEUDONYM_KEY", "another key")
    get_settings.cache_clear()
    with pytest.raises(FeedError, match="another key"):
        billing_feed.prepare_month(MONTH)


def test_a_removed_version_is_missed(home):
    change(bill(0, "billed", "chargeable", 6000))
    release()
    shutil.rmtree(billing_feed.sealed_folder(MONTH, 1))
    with pytest.raises(FeedError, match="every version up to v2"):
        billing_feed.prepare_month(MONTH)


@pytest.mark.parametrize(
    ("column", "value"),
    [("msisdn", "=1+1"), ("reason", "because"), ("delta_li", None), ("service_code", "@cmd"), ("previous_li", -1)],
)
def test_a_field_that_is_no_code_or_number_is_refused(home, column, value):
    change(*CHANGES)
    database = billing_feed.prepare_month(MONTH).database
    with duckdb.connect(str(database)) as connection:
        connection.execute(f"update adjustments set {column} = $value", {"value": value})
    with pytest.raises(FeedError, match=rf"adjustments\.{column}: expected"):
        billing_feed.draft_feed(MONTH)


# billed_charges


def billed() -> list[tuple]:
    with open_warehouse(get_settings(), read_only=True) as connection:
        return connection.execute(
            "select version, subscription_id, charged_li, delta_li from control.billed_lines order by all"
        ).fetchall()


def test_billed_charges_follow_the_sealed_versions_and_survive_the_warehouse(home):
    change(*CHANGES)
    release()
    publish.publish_billed_charges()
    first = [(1, pseudonym_of(n), LINES[n][2], LINES[n][2]) for n in range(5)]
    second = [
        (2, pseudonym_of(n), new, new - old)
        for n, old, new in ((0, 5000, 0), (1, 8000, 9000), (2, 3000, 0), (3, 2000, 0), (8, 0, 5000))
    ]
    assert billed() == sorted(first + second)
    with open_warehouse(get_settings(), read_only=True) as connection:
        ids, days = connection.execute(
            "select list(distinct subscriber_id order by subscriber_id), list(distinct sealed_on) "
            "from control.billed_lines where version = 1"
        ).fetchone()
    assert ids == sorted(pseudonym(msisdn_of(n), KEY.encode()) for n in range(5))
    approved_at = json.loads((billing_feed.sealed_folder(MONTH) / "approval.json").read_text())["approved_at"]
    assert [day.isoformat() for day in days] == [approved_at[:10]]
    before = billed()
    get_settings().warehouse.unlink()
    publish.publish_billed_charges()
    assert billed() == before


def test_a_version_is_taken_in_once(home, monkeypatch):
    publish.publish_billed_charges()
    monkeypatch.setattr(feed_files, "verify_version", lambda folder: pytest.fail("read again"))
    publish.publish_billed_charges()


def test_a_version_that_is_gone_is_not_shown_any_more(home):
    publish.publish_billed_charges()
    shutil.rmtree(billing_feed.sealed_folder(MONTH))
    publish.publish_billed_charges()
    assert billed() == []


def test_another_manifest_than_the_one_taken_in_is_refused(home):
    publish.publish_billed_charges()
    path = billing_feed.sealed_folder(MONTH) / "manifest.json"
    path.write_text(path.read_text().replace("before_data_start", "before_data_begin"))
    with pytest.raises(FeedError, match="that was taken in when it was sealed"):
        publish.publish_billed_charges()
