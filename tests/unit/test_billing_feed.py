"""The monthly billing feed: exact content, states, refusals, reproducibility, kills."""

import gzip
import hashlib
import json
import os
import shutil
import stat
import subprocess
import sys
from datetime import date, datetime
from pathlib import Path

import duckdb
import pytest
from cleanbill import billing_feed, feed_files, gates, ledger
from cleanbill.control import open_warehouse
from cleanbill.errors import BillingBlocked, FeedError, GateFailed
from cleanbill.settings import REPOSITORY, get_settings
from cleanbill.verify import verify

from tests.feed_warehouse import AS_OF, LINES, MONTH, add_delivery, make_warehouse, msisdn_of, pseudonym_of

CHARGE_HEADER = "msisdn,sp_code,service_code,subscription_id,billing_month,fee_li,charge_time"
EXCLUSION_HEADER = "msisdn,sp_code,service_code,subscription_id,billing_month,fee_li,disposition,reason"


def use_home(monkeypatch, home: Path) -> None:
    monkeypatch.setenv("CLEANBILL_HOME", str(home))
    monkeypatch.setenv("CLEANBILL_PSEUDONYM_KEY", "test key")
    get_settings.cache_clear()


@pytest.fixture
def home(tmp_path, monkeypatch):
    use_home(monkeypatch, tmp_path / "home")
    yield tmp_path / "home"
    get_settings.cache_clear()


@pytest.fixture(scope="module")
def built_once(tmp_path_factory):
    """A data root with the hand-made warehouse, copied for each test (writing it takes longer than the tests)."""
    root = tmp_path_factory.mktemp("built") / "home"
    with pytest.MonkeyPatch.context() as monkeypatch:
        use_home(monkeypatch, root)
        make_warehouse()
    get_settings.cache_clear()
    return root


@pytest.fixture
def warehouse(built_once, home):
    shutil.copytree(built_once, home)


def draft() -> Path:
    billing_feed.prepare_month(MONTH)
    return billing_feed.draft_feed(MONTH)


def seal() -> Path:
    draft()
    billing_feed.approve_feed(MONTH, "Li Lei")
    return billing_feed.seal_feed(MONTH)


def bytes_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != "approval.json"}


def lines_of(path: Path) -> list[str]:
    content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    assert content.endswith(b"\n")
    assert b"\r" not in content
    return content.decode("ascii").splitlines()


def change_warehouse(*statements: str) -> None:
    with open_warehouse(get_settings()) as connection:
        for statement in statements:
            connection.execute(statement)


# Content


def test_the_frozen_month_has_the_rows_of_its_month_only(warehouse):
    change_warehouse(
        "insert into marts.billing_dispositions "
        "select date '2026-10-01', * exclude (billing_month) from marts.billing_dispositions"
    )
    prepared = billing_feed.prepare_month(MONTH)
    assert (prepared.as_of, prepared.built_from, prepared.is_unchanged) == (AS_OF, "warehouse", False)
    assert (prepared.charges, prepared.charged_li, prepared.exclusions) == (5, 19000, 11)
    with duckdb.connect(str(prepared.database), read_only=True) as connection:
        tables = {
            table: [column[0] for column in connection.execute(f"select * from {table}").description]
            for table in ("charges", "exclusions", "settlement", "inputs", "dispositions")
        }
        assert connection.execute("select distinct billing_month from dispositions").fetchall() == [(MONTH,)]
    assert tables["charges"] == [
        "msisdn",
        "sp_code",
        "service_code",
        "subscription_id",
        "province",
        "billing_month",
        "fee_li",
        "charge_time",
    ]
    assert tables["exclusions"] == EXCLUSION_HEADER.split(",")
    assert tables["settlement"] == list(feed_files.SETTLEMENT_COLUMNS)
    assert tables["inputs"] == ["extract", "date", "source", "delivery", "sha256"]
    assert tables["dispositions"][-2:] == ["fee_li", "charged_li"]


def test_files_of_a_draft_are_exactly_those_of_the_contract(warehouse):
    folder = draft()
    assert sorted(path.name for path in folder.iterdir()) == [
        "charges_202611_a%2Fb%20北_001.csv.gz",
        "charges_202611_bj_001.csv.gz",
        "charges_202611_unknown_001.csv.gz",
        "exclusions_202611.csv.gz",
        "inputs.csv.gz",
        "manifest.json",
        "settlement_202611.csv",
    ]


def test_charge_lines_are_exact_and_sorted(warehouse):
    folder = draft()
    assert lines_of(folder / "charges_202611_bj_001.csv.gz") == [
        CHARGE_HEADER,
        *(
            f"{msisdn_of(n)},900001,MF{n % 3},{pseudonym_of(n)},2026-11-01,{LINES[n][2]},2026-11-01 00:00:00"
            for n in (2, 1, 0)
        ),
    ]
    assert lines_of(folder / "charges_202611_unknown_001.csv.gz")[1].startswith(f"{msisdn_of(3)},900001,MF0,")


def test_exclusions_name_every_live_relation_not_charged(warehouse):
    lines = lines_of(draft() / "exclusions_202611.csv.gz")
    assert lines[0] == EXCLUSION_HEADER
    assert lines[1:] == [
        f"{msisdn_of(n)},900001,MF{n % 3},{pseudonym_of(n)},2026-11-01,{LINES[n][2]},{LINES[n][0]},{LINES[n][1]}"
        for n in range(len(LINES) - 1, 4, -1)
    ]


def test_settlement_and_inputs_are_exact(warehouse):
    add_delivery("relation_events", date(2026, 11, 1), "bj")  # after A: does not exist for this bill
    folder = draft()
    assert lines_of(folder / "settlement_202611.csv") == [
        ",".join(feed_files.SETTLEMENT_COLUMNS),
        "900000,2026-11-01,0,0,0,0,0,0,0,0,5,0,0,0,-5,-1,-4,held,sp_suspended",
        "900001,2026-11-01,46000,0,46000,5000,7000,5000,5000,0,100,0,0,5000,18900,2835,16065,payable,",
    ]
    sha256 = [
        hashlib.sha256(f"relation_events {day} bj 1".encode()).hexdigest()
        for day in ("2026-10-01", "2026-10-15", "2026-10-31")
    ]
    assert lines_of(folder / "inputs.csv.gz") == [
        "extract,date,source,delivery,sha256",
        f"relation_events,2026-10-01,bj,1,{sha256[0]}",
        f"relation_events,2026-10-15,bj,1,{sha256[1]}",
        f"relation_events,2026-10-31,bj,1,{sha256[2]}",
    ]


def write_waivers(home: Path, *days: str) -> None:
    home.mkdir(exist_ok=True)
    lines = [f"sms_usage,bj,{day},switch down,Li Lei,Han Meimei,2026-12-31" for day in days]
    header = "extract,source,day,reason,requested_by,approved_by,expires_on"
    (home / "waivers.csv").write_text("\n".join([header, *lines]) + "\n")


def test_manifest_counts_and_sums(home):
    write_waivers(home, "2026-10-07", "2026-11-07")
    make_warehouse()
    folder = draft()
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["as_of"] == "2026-10-31"
    assert manifest["billing_month"] == "2026-11"
    assert manifest["version"] == 1
    assert manifest["before_data_start"] == 1
    assert [waiver["day"] for waiver in manifest["waivers"]] == ["2026-10-07"]
    assert manifest["dispositions"]["billed"] == {"count": 5, "fee_li": 19000}
    assert manifest["dispositions"]["line_stopped"] == {"count": 2, "fee_li": 12000}
    assert sum(entry["count"] for entry in manifest["dispositions"].values()) == len(LINES)
    files = {entry["name"]: entry for entry in manifest["files"]}
    assert set(files) == {path.name for path in folder.iterdir()} - {"manifest.json"}
    for name, entry in files.items():
        content = (folder / name).read_bytes()
        assert entry["bytes"] == len(content)
        assert entry["sha256"] == hashlib.sha256(content).hexdigest()
        assert entry["rows"] == len(lines_of(folder / name)) - 1
    assert files["charges_202611_bj_001.csv.gz"]["fee_li"] == 16000
    assert files["exclusions_202611.csv.gz"]["fee_li"] == sum(line[2] for line in LINES[5:])
    inputs = "".join(line + "\n" for line in lines_of(folder / "inputs.csv.gz")[1:])
    assert manifest["digests"]["inputs"] == hashlib.sha256(inputs.encode()).hexdigest()


@pytest.mark.parametrize(("rows_per_file", "sizes"), [(1, [1, 1, 1]), (2, [2, 1]), (3, [3]), (4, [3])])
def test_a_new_file_begins_at_the_row_limit(warehouse, monkeypatch, rows_per_file, sizes):
    monkeypatch.setenv("CLEANBILL_FEED_ROWS_PER_FILE", str(rows_per_file))
    get_settings.cache_clear()
    folder = draft()
    names = sorted(folder.glob("charges_202611_bj_*"))
    assert [path.name for path in names] == [f"charges_202611_bj_{n:03d}.csv.gz" for n in range(1, len(sizes) + 1)]
    assert [len(lines_of(path)) - 1 for path in names] == sizes
    numbers = [line.split(",")[0] for path in names for line in lines_of(path)[1:]]
    assert numbers == sorted(numbers)


def test_files_longer_than_a_batch_keep_every_row(home, monkeypatch):
    monkeypatch.setattr(feed_files, "LINES_PER_BATCH", 7)
    monkeypatch.setenv("CLEANBILL_FEED_ROWS_PER_FILE", "20")
    get_settings.cache_clear()
    make_warehouse([("billed", "chargeable", 1, "bj")] * 45)
    folder = draft()
    assert [len(lines_of(path)) - 1 for path in sorted(folder.glob("charges_*"))] == [20, 20, 5]


def test_a_month_without_charges_has_a_feed_without_charge_files(home):
    make_warehouse([("trial", "in_trial", 5000, "bj")])
    folder = draft()
    assert not list(folder.glob("charges_*"))
    assert json.loads((folder / "manifest.json").read_text())["dispositions"]["billed"] == {"count": 0, "fee_li": 0}


@pytest.mark.parametrize(
    ("province", "shown"),
    [
        ("bj", "bj"),
        ("../../etc", "..%2F..%2Fetc"),
        ("北京", "北京"),
        ("100%", "100%25"),
        ("a\u3000b", "a%E3%80%80b"),
        ("\u202egd", "%E2%80%AEgd"),
        ("a b", "a%20b"),
        ("=1+1", "%3D1%2B1"),
        ("x" * 120, "x" * 120),
    ],
)
def test_province_in_a_file_name(province, shown):
    assert feed_files.province_in_file_name(province) == shown


def test_long_provinces_stay_apart_and_fit_a_file_name():
    names = {feed_files.province_in_file_name("北" * length) for length in (50, 51, 500)}
    assert len(names) == 3
    assert max(len(name.encode()) for name in names) < 200


# Reproducibility


@pytest.mark.parametrize("threads", ["1", "2", "4"])
def test_bytes_do_not_depend_on_threads_or_row_order(warehouse, monkeypatch, threads):
    reference = bytes_of(draft())
    monkeypatch.setenv("CLEANBILL_THREADS", threads)
    get_settings.cache_clear()
    for table in ("marts.billing_dispositions", "intermediate.int_spells", "marts.sp_settlement", "control.in_force"):
        change_warehouse(f"create or replace table {table} as select * from {table} order by hash(rowid + 7)")
    assert bytes_of(draft()) == reference


def test_gzip_carries_no_time_and_no_name(warehouse):
    header = (draft() / "inputs.csv.gz").read_bytes()[:10]
    assert header[:3] == b"\x1f\x8b\x08"
    assert header[3] == 0  # no flags: no name, no comment
    assert header[4:8] == b"\0\0\0\0"


def test_the_same_month_twice_gives_the_same_draft(warehouse):
    first = bytes_of(draft())
    assert bytes_of(draft()) == first


# States


def test_a_draft_is_restricted_and_nothing_is_exported(warehouse, home):
    folder = draft()
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {0o600}
    assert stat.S_IMODE(billing_feed.feed_database(MONTH).stat().st_mode) == 0o600
    assert stat.S_IMODE(folder.parent.stat().st_mode) == 0o700
    assert not (home / "exports").exists()


def test_sealing_releases_the_approved_folder(warehouse, home):
    folder = seal()
    assert folder == home / "exports" / "billing" / "2026-11" / "v1"
    manifest_sha256 = hashlib.sha256((folder / "manifest.json").read_bytes()).hexdigest()
    assert (folder / "_SUCCESS").read_text() == manifest_sha256 + "\n"
    approval = json.loads((folder / "approval.json").read_text())
    assert (approval["approved_by"], approval["is_automatic"]) == ("Li Lei", False)
    assert approval["manifest_sha256"] == manifest_sha256
    assert {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {0o640}
    assert not billing_feed.draft_folder(MONTH).exists()
    assert not billing_feed.approved_folder(MONTH).exists()


def test_unattended_approval_says_so(warehouse):
    draft()
    approval = json.loads((billing_feed.approve_feed(MONTH, None, auto=True) / "approval.json").read_text())
    assert approval["is_automatic"] is True
    assert approval["approved_by"] is None
    assert "--auto-approve" in approval["note"]


@pytest.mark.parametrize("name", [None, "", "  ", "x" * 81, "Li\nLei", "Li 13800138000"])
def test_a_release_needs_a_name(warehouse, name):
    draft()
    with pytest.raises(FeedError, match="--approver"):
        billing_feed.approve_feed(MONTH, name)


def test_steps_may_be_repeated(warehouse):
    draft()
    first = billing_feed.approve_feed(MONTH, "Li Lei")
    approval = (first / "approval.json").read_bytes()
    assert billing_feed.approve_feed(MONTH, "Li Lei") == first
    assert (first / "approval.json").read_bytes() == approval
    sealed = billing_feed.seal_feed(MONTH)
    assert billing_feed.seal_feed(MONTH) == sealed


def test_an_approval_survives_the_same_draft_and_no_other(warehouse):
    draft()
    approved = billing_feed.approve_feed(MONTH, "Li Lei")
    assert draft() == approved
    change_warehouse("update marts.billing_dispositions set fee_li = 1, charged_li = 1 where fee_li = 8000")
    assert draft() == billing_feed.draft_folder(MONTH)
    assert not approved.exists()
    with pytest.raises(FeedError, match="waits for approval"):
        billing_feed.seal_feed(MONTH)


def test_without_a_draft_nothing_is_approved_or_sealed(warehouse):
    with pytest.raises(FeedError, match="expected the frozen month"):
        billing_feed.draft_feed(MONTH)
    with pytest.raises(FeedError, match="a draft to approve"):
        billing_feed.approve_feed(MONTH, "Li Lei")
    with pytest.raises(FeedError, match="an approved feed"):
        billing_feed.seal_feed(MONTH)


def test_a_stale_draft_is_not_released(warehouse):
    draft()
    add_delivery("relation_events", date(2026, 10, 15), "bj", delivery=2)
    with pytest.raises(FeedError, match="came or were replaced after"):
        billing_feed.approve_feed(MONTH, "Li Lei")


def test_a_delivery_after_a_does_not_make_a_draft_stale(warehouse):
    draft()
    add_delivery("relation_events", date(2026, 11, 1), "bj")
    assert billing_feed.approve_feed(MONTH, "Li Lei").exists()


@pytest.mark.parametrize("name", ["charges_202611_bj_001.csv.gz", "settlement_202611.csv", "inputs.csv.gz"])
def test_a_changed_file_stops_approval_and_sealing(warehouse, name):
    path = draft() / name
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(FeedError, match=name):
        billing_feed.approve_feed(MONTH, "Li Lei")
    draft()
    path = billing_feed.approve_feed(MONTH, "Li Lei") / name
    path.write_bytes(content)
    with pytest.raises(FeedError, match=name):
        billing_feed.seal_feed(MONTH)


def test_a_changed_manifest_is_not_what_was_approved(warehouse, home):
    draft()
    path = billing_feed.approve_feed(MONTH, "Li Lei") / "manifest.json"
    path.write_text(path.read_text().replace('"version": 1', '"version": 2'))
    with pytest.raises(FeedError, match="changed after its approval"):
        billing_feed.seal_feed(MONTH)
    assert not (home / "exports" / "billing" / "2026-11" / "v1").exists()


@pytest.mark.parametrize("change", ["missing", "superfluous"])
def test_files_must_be_exactly_those_of_the_manifest(warehouse, change):
    folder = draft()
    if change == "missing":
        (folder / "settlement_202611.csv").unlink()
    else:
        (folder / "charges_202611_bj_002.csv.gz").write_bytes(b"")
    with pytest.raises(FeedError, match="exactly the files"):
        billing_feed.approve_feed(MONTH, "Li Lei")


# Blocked and unchanged


def test_missing_days_and_undecided_silence_are_all_named(warehouse):
    change_warehouse(
        "insert into intermediate.int_billing_blockers values "
        "('2026-11-01', 'missing_day', 'line_status', 'gd', '2026-10-03', null), "
        "('2026-11-01', 'unknown_usage', 'sms_usage', 'bj', '2026-10-07', 2), "
        "('2026-11-01', 'unknown_usage', 'sms_usage', 'bj', '2026-10-08', 2), "
        "('2026-11-01', 'unknown_usage', 'sms_usage', 'bj', '2026-10-10', 2), "
        "('2026-10-01', 'missing_day', 'refunds', 'bj', '2026-09-10', null)",
        "insert into intermediate.int_silence values "
        "('a', '2026-11-01', 'unknown', false, 'sms_usage', '2026-10-10'), "
        "('b', '2026-11-01', 'unknown', false, 'sms_usage', '2026-10-01'), "
        "('waived', '2026-11-01', 'unknown', false, 'sms_usage', '2026-10-11'), "
        "('other extract', '2026-11-01', 'unknown', false, 'wap_usage', '2026-10-01'), "
        "('decided', '2026-11-01', 'silent', false, 'sms_usage', '2026-10-01')",
    )
    with pytest.raises(BillingBlocked) as caught:
        billing_feed.prepare_month(MONTH)
    message = str(caught.value)
    assert "line_status of gd: 2026-10-03;" in message
    assert "sms_usage of bj: 2026-10-07…2026-10-08, 2026-10-10;" in message
    assert "2 relations whose silence is unknown" in message
    assert "refunds" not in message
    assert not billing_feed.feed_database(MONTH).exists()


def test_a_month_without_deliveries_is_blocked_before_a_build(warehouse):
    with pytest.raises(BillingBlocked, match="none newer than 2026-10-31"):
        billing_feed.prepare_month(date(2027, 1, 1))
    with pytest.raises(BillingBlocked, match="none at all"):
        billing_feed.prepare_month(date(2020, 1, 1))


def test_an_unchanged_sealed_month_is_reported_as_unchanged(warehouse):
    sealed = bytes_of(seal())
    assert billing_feed.prepare_month(MONTH).is_unchanged is True
    assert bytes_of(billing_feed.sealed_folder(MONTH)) == sealed
    with pytest.raises(FeedError, match="no adjustment: every line is what the 1 sealed versions add up to"):
        billing_feed.draft_feed(MONTH)


def test_a_damaged_sealed_version_is_named(warehouse):
    path = seal() / "settlement_202611.csv"
    path.write_bytes(path.read_bytes().replace(b"payable", b"Payable"))
    with pytest.raises(FeedError, match="settlement_202611"):
        billing_feed.prepare_month(MONTH)


# Which build


@pytest.mark.parametrize(
    "change",
    [
        "update control.absorbed_state set as_of_date = date '2026-11-30'",
        "delete from control.absorbed_state",
        "update control.in_force set delivery = 2 where business_date = date '2026-10-15'",
        "delete from control.in_force where business_date = date '2026-10-15'",
        "delete from control.absorbed where business_date = date '2026-10-15'",
        "insert into control.build_under_way values (date '2026-11-01')",
        "update control.absorbed_state set inputs_digest = 'other policy, key or test numbers'",
    ],
)
def test_any_other_state_of_the_warehouse_asks_for_a_scratch_build(warehouse, monkeypatch, change):
    asked = []
    monkeypatch.setattr(billing_feed, "build_scratch", lambda as_of: asked.append(as_of))
    change_warehouse(change)
    assert billing_feed.prepare_month(MONTH).built_from == "scratch"
    assert asked == [AS_OF]


@pytest.mark.parametrize(("day", "built_from"), [("2026-10-31", "scratch"), ("2026-11-01", "warehouse")])
def test_a_new_waiver_counts_from_the_next_bill_on(warehouse, home, monkeypatch, day, built_from):
    monkeypatch.setattr(billing_feed, "build_scratch", lambda as_of: None)
    write_waivers(home, day)
    assert billing_feed.prepare_month(MONTH).built_from == built_from
    with open_warehouse(get_settings()) as connection:
        assert connection.execute("select count(*) from control.waivers").fetchone() == (0,)


def test_the_warehouse_serves_when_only_later_days_came(warehouse):
    add_delivery("gprs_usage", date(2026, 11, 1), "new-source")
    add_delivery("relation_events", date(2026, 11, 1), "bj")
    assert billing_feed.prepare_month(MONTH).built_from == "warehouse"


# Gates of the build


@pytest.fixture
def checks(monkeypatch):
    asked = []
    monkeypatch.setattr(gates, "check", lambda stage, run_id, database=None: asked.append((stage, run_id, database)))
    return asked


def record_verdict(passed: bool, second: int) -> None:
    with open_warehouse(get_settings()) as connection:
        connection.execute(
            "insert into control.gate_records by position values ($1, 'marts', $2, 0, 0, $3, $4)",
            [f"run {second}", passed, gates.state_digest("marts", connection), datetime(2026, 11, 1, 3, 0, second)],
        )


def test_marts_that_were_never_judged_are_judged_before_they_are_billed(warehouse, checks):
    billing_feed.prepare_month(MONTH, "billing run")
    assert checks == [("marts", "billing run", None)]


def test_marts_with_a_green_verdict_are_not_judged_again(warehouse, checks):
    record_verdict(passed=True, second=1)
    billing_feed.prepare_month(MONTH, "billing run")
    assert checks == []


def test_the_newest_verdict_on_these_very_marts_counts(warehouse, checks):
    record_verdict(passed=True, second=1)
    record_verdict(passed=False, second=2)
    billing_feed.prepare_month(MONTH, "billing run")
    assert len(checks) == 1
    record_verdict(passed=True, second=3)
    change_warehouse("update marts.billing_dispositions set reason = 'other'")
    billing_feed.prepare_month(MONTH, "billing run")
    assert len(checks) == 2


def test_a_scratch_build_is_judged(warehouse, checks, monkeypatch, tmp_path):
    scratch = tmp_path / "scratch.duckdb"
    shutil.copy(get_settings().warehouse, scratch)
    monkeypatch.setattr(billing_feed, "build_scratch", lambda as_of: scratch)
    change_warehouse("delete from control.absorbed_state")
    billing_feed.prepare_month(MONTH, "billing run")
    assert checks == [("staging", "billing run", scratch), ("marts", "billing run", scratch)]
    assert not scratch.exists()


def test_a_red_gate_leaves_nothing_to_bill(warehouse, monkeypatch):
    def red(stage, run_id, database=None):
        raise GateFailed("gate marts", "all to hold", "1 broken", "look")

    monkeypatch.setattr(gates, "check", red)
    with pytest.raises(GateFailed):
        billing_feed.prepare_month(MONTH, "billing run")
    assert not billing_feed.feed_database(MONTH).exists()


# Machine feed: refused, never altered


@pytest.mark.parametrize(
    ("table", "column", "value"),
    [
        ("charges", "msisdn", "=1+1"),
        ("charges", "msisdn", "8613900009999"),
        ("charges", "msisdn", "23900009999"),
        ("charges", "msisdn", "1390000999"),
        ("charges", "msisdn", "A-12"),
        ("charges", "msisdn", "13900009999\n"),
        ("charges", "sp_code", "90000"),
        ("charges", "sp_code", "+90001"),
        ("charges", "service_code", "@cmd"),
        ("charges", "service_code", "a,b"),
        ("charges", "service_code", 'a"b'),
        ("charges", "service_code", "\u00a0=1"),
        ("charges", "service_code", "MF\n1"),
        ("charges", "service_code", "-1"),
        ("charges", "service_code", None),
        ("charges", "service_code", "ABCDEFGHIJK"),
        ("charges", "fee_li", -1),
        ("charges", "fee_li", None),
        ("charges", "charge_time", "2026-11-01 00:00:01"),
        ("charges", "billing_month", "2026-12-01"),
        ("exclusions", "msisdn", "=1"),
        ("exclusions", "disposition", "billed"),
        ("exclusions", "reason", "=HYPERLINK()"),
        ("settlement", "hold_reason", "=1"),
        ("settlement", "status", "Held"),
        ("settlement", "to_settle_li", None),
        ("inputs", "source", "b,j"),
        ("inputs", "sha256", "0"),
    ],
)
def test_a_field_that_is_no_code_or_number_is_refused(warehouse, table, column, value):
    database = billing_feed.prepare_month(MONTH).database
    with duckdb.connect(str(database)) as connection:
        connection.execute(f"update {table} set {column} = $value", {"value": value})
    with pytest.raises(FeedError, match=rf"{table}\.{column}: expected") as caught:
        billing_feed.draft_feed(MONTH)
    assert "1390000999" not in str(caught.value)
    assert not billing_feed.draft_folder(MONTH).exists()


def test_opaque_ids_pass_only_when_a_source_declared_them(warehouse):
    change_warehouse("update intermediate.int_spells set msisdn = 'A-' || left(subscription_id, 6)")
    billing_feed.prepare_month(MONTH)
    with pytest.raises(FeedError, match="msisdn"):
        billing_feed.draft_feed(MONTH)
    change_warehouse("update control.deliveries set identity = 'opaque'")
    billing_feed.prepare_month(MONTH)
    assert lines_of(billing_feed.draft_feed(MONTH) / "charges_202611_unknown_001.csv.gz")[1].startswith("A-")


def test_a_disposition_without_its_spell_is_not_lost_silently(warehouse):
    change_warehouse("delete from intermediate.int_spells where province is null")
    with pytest.raises(FeedError, match=r"one charge or exclusion for each of 16 dispositions"):
        billing_feed.prepare_month(MONTH)


def test_the_gate_of_the_run_is_asked_for(warehouse):
    billing_feed.prepare_month(MONTH)
    with pytest.raises(GateFailed, match="a recorded verdict"):
        billing_feed.draft_feed(MONTH, run_id="run without a gate")


# Kills

KILLED_AT_STEP = """
import os, sys
from cleanbill import billing_feed, feed_files, gates
from tests.feed_warehouse import MONTH

WATCHED = {"open", "os.rename", "os.mkdir", "os.rmdir", "os.remove", "os.chmod", "shutil.rmtree", "os.scandir"}

def bill():
    if billing_feed.prepare_month(MONTH).is_unchanged:
        return
    billing_feed.draft_feed(MONTH)
    billing_feed.approve_feed(MONTH, "Li Lei")
    billing_feed.seal_feed(MONTH)

def stop_at(step):
    seen = 0
    def hook(event, arguments):
        nonlocal seen
        if event in WATCHED and "home" in str(arguments):
            seen += 1
            if seen == step:
                os._exit(9)
    sys.addaudithook(hook)

step, stride, version = 0, int(sys.argv[1]), int(sys.argv[2])
while True:
    step += stride
    child = os.fork()
    if child == 0:
        stop_at(step)
        bill()
        os._exit(0)
    _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    sealed = billing_feed.sealed_folder(MONTH, version)
    if sealed.exists():
        feed_files.verify_version(sealed)
        assert (sealed / "_SUCCESS").exists(), "a version without its last file"
        assert (sealed / "approval.json").exists()
    if sealed.exists() and code == 0:
        break
    print(step, code, "sealed" if sealed.exists() else "-", flush=True)
    assert code in (0, 9), code
"""


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("stride", [pytest.param(1, marks=pytest.mark.soak), 7])
def test_killed_at_every_step_in_turn_it_ends_with_the_same_version(tmp_path, monkeypatch, stride, version):
    """Each try is killed some file operations later than the last, on what the tries before left behind."""
    results = {}
    for name in ("undisturbed", "killed"):
        home = tmp_path / f"home-{name}"
        use_home(monkeypatch, home)
        make_warehouse()
        if version == 2:
            seal()
            change_warehouse("update marts.billing_dispositions set fee_li = 9, charged_li = 9 where fee_li = 8000")
        if name == "undisturbed":
            seal()
        else:
            finished = subprocess.run(
                [sys.executable, "-c", KILLED_AT_STEP, str(stride), str(version)],
                cwd=REPOSITORY,
                env=os.environ | {"PYTHONPATH": os.pathsep.join(map(str, (REPOSITORY, REPOSITORY / "include")))},
                capture_output=True,
                text=True,
                timeout=600,
                check=False,
            )
            assert finished.returncode == 0, finished.stdout + finished.stderr
            kills = [line for line in finished.stdout.splitlines() if " 9 " in line]
            assert len(kills) * stride >= 60, finished.stdout
            assert [entry["action"] for entry in ledger.entries()].count("sealed") == version
            assert verify().findings == []
        results[name] = bytes_of(billing_feed.sealed_folder(MONTH, version))
    get_settings.cache_clear()
    assert results["killed"] == results["undisturbed"]
