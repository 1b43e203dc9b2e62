"""Verification and the answers of the billing system: whatever is altered is found and named."""

import gzip
import hashlib
import json
import os
import random
import shutil
from datetime import date, datetime, timedelta
from pathlib import Path

import duckdb
import pytest
from cleanbill import acknowledgements, billing_feed, feed_files, ledger, publish, startup_reminders
from cleanbill.billed_charges import absorb_sealed
from cleanbill.control import open_warehouse
from cleanbill.errors import FeedError
from cleanbill.legacy_feed import export_legacy
from cleanbill.settings import get_settings
from cleanbill.status import read_status
from cleanbill.verify import verify

from tests.feed_warehouse import MONTH, make_warehouse
from tests.unit.test_adjustment_versions import CHANGES, change, release, use_home

FLIPS = 200


@pytest.fixture(scope="module")
def released_once(tmp_path_factory):
    """A data root with two sealed versions, an answer to the first, and published billed charges."""
    root = tmp_path_factory.mktemp("released") / "home"
    with pytest.MonkeyPatch.context() as monkeypatch:
        use_home(monkeypatch, root)
        make_warehouse()
        release()
        answer(root, "ack.json", 1)
        change(*CHANGES)
        release()
        acknowledgements.record_news()
        write_published()
        export_legacy(MONTH, 2)
        row = (MONTH, "13900009999", "901001", "NEWS", "News", 5000, "text 0000 to 10086")
        startup_reminders._write(root / "exports/reminders/startup/2026-11", {"start": "2026-11-01"}, {MONTH: [row]})
    get_settings.cache_clear()
    return root


@pytest.fixture
def home(tmp_path, monkeypatch, released_once):
    root = tmp_path / "home"
    shutil.copytree(released_once, root)
    use_home(monkeypatch, root)
    yield root
    get_settings.cache_clear()


def write_published() -> None:
    settings = get_settings()
    settings.marts.mkdir()
    with open_warehouse(settings) as connection:
        absorb_sealed(connection, settings)
        connection.execute(f"attach '{settings.published_marts}' as published")
        connection.execute("create table published.billed_charges as from control.billed_lines")


def answer(home: Path, name: str, version: int, **more: object) -> Path:
    folder = home / "exports" / "billing" / "2026-11"
    manifest = (folder / f"v{version}" / "manifest.json").read_bytes()
    path = folder / "acks" / name
    path.write_text(
        json.dumps({"version": version, "manifest_sha256": hashlib.sha256(manifest).hexdigest()} | more) + "\n"
    )
    return path


def problems() -> list[tuple[str, str]]:
    return [(finding.path, finding.text) for finding in verify().findings]


def test_what_was_released_is_whole(home):
    result = verify()
    assert result.findings == []
    assert (result.versions, result.files, result.lines) == (2, 6 + 4, 5 + 11 + 2 + 3 + 5 + 3)
    assert result.ledger_entries == len(ledger.entries()) == 5
    assert verify(MONTH).findings == []
    assert [finding.text for finding in verify(date(2026, 12, 1)).findings] == ["nothing was released for this month"]


def test_any_flipped_bit_is_found_and_its_file_named(home):
    rng = random.Random(11)
    files = sorted(path for path in (home / "exports").rglob("*") if path.is_file())
    assert len(files) == 2 * 3 + 6 + 4 + 1 + 2 + 3 * 2 + 3  # … legacy pairs of version 2, a list of reminders
    for number in range(FLIPS):
        path = files[number % len(files)]
        good = path.read_bytes()
        flipped = bytearray(good)
        at = rng.randrange(len(good))
        flipped[at] ^= 1 << rng.randrange(8)
        path.write_bytes(flipped)
        found = problems()
        assert str(path.relative_to(home)) in [name for name, _ in found], (path, at, found)
        path.write_bytes(good)
    assert problems() == []


def test_missing_and_added_files_are_named(home):
    folder = home / "exports" / "billing" / "2026-11"
    (folder / "v1" / "charges_202611_bj_001.csv.gz").unlink()
    (folder / "v2" / "charges_202611_bj_001.csv.gz").write_bytes(b"x")
    (folder / "v7.bak").mkdir()
    (folder / "v2" / "approval.json").unlink()
    (folder / "v1" / "_SUCCESS").unlink()
    assert {name.removeprefix("exports/billing/2026-11/") for name, _ in problems()} == {
        "v1/charges_202611_bj_001.csv.gz",
        "v2/charges_202611_bj_001.csv.gz",
        "v7.bak",
        "v2/approval.json",
        "v1/_SUCCESS",
    }


def test_added_and_removed_copies_are_named(home):
    exports = home / "exports"
    (exports / "legacy/2026-11/v2/charges.dat").write_bytes(b"")
    (exports / "legacy/2026-11/v2/adjustments_202611_bj_001.verf").unlink()
    (exports / "reminders/startup/2026-11/_SUCCESS").unlink()
    assert {name for name, _ in problems()} == {
        "exports/legacy/2026-11/v2/charges.dat",
        "exports/legacy/2026-11/v2/adjustments_202611_bj_001.verf",
        "exports/reminders/startup/2026-11",
    }


def test_a_release_stopped_before_its_rename_is_nothing_wrong(home):
    (home / "exports" / "billing" / "2026-12" / "acks").mkdir(parents=True)
    assert problems() == []
    assert [finding.text for finding in verify(date(2026, 12, 1)).findings] == ["nothing was released for this month"]


def test_names_others_chose_are_shown_without_numbers_and_look_alikes_of_versions_are_found(home):
    folder = home / "exports" / "billing" / "2026-11"
    (folder / "acks" / "13900009998.json").write_text("{}")
    Path(os.fsdecode(os.fsencode(folder / "acks") + b"/\xff\n.json")).write_text("{}")
    (folder / "v2" / "13900009998.csv").write_text("")
    for name in ("1", "v01"):
        (folder / name).mkdir()
    names = [name.removeprefix("exports/billing/2026-11/") for name, _ in problems()]
    assert names == ["1", "v01", "v2/139****9998.csv", "acks/139****9998.json", "acks/\ufffd\ufffd.json"]


@pytest.mark.parametrize("content", [b"[]", b"{}", b'{"files": [1]}', b"[" * 100_000, b"\xff", b""])
@pytest.mark.parametrize("name", ["manifest.json", "_SUCCESS", "approval.json"])
def test_whatever_stands_in_a_file_of_a_version_is_named(home, name, content):
    (home / "exports" / "billing" / "2026-11" / "v1" / name).write_bytes(content)
    assert f"exports/billing/2026-11/v1/{name}" in [path for path, _ in problems()]
    read = feed_files.read_approval if name == "approval.json" else feed_files.verify_version
    with pytest.raises(FeedError, match=name):
        read(billing_feed.sealed_folder(MONTH, 1))


def test_nothing_is_adjusted_on_top_of_a_version_the_ledger_does_not_know(home):
    """Manifest and _SUCCESS changed together fit each other; the ledger says what was sealed."""
    folder = billing_feed.sealed_folder(MONTH, 2)
    manifest = (folder / "manifest.json").read_text().replace('"as_of": "2026-10-31"', '"as_of": "2026-10-30"')
    (folder / "manifest.json").write_text(manifest)
    (folder / "_SUCCESS").write_text(hashlib.sha256(manifest.encode()).hexdigest() + "\n")
    with pytest.raises(FeedError, match="the manifest that was sealed"):
        billing_feed.prepare_month(MONTH)


@pytest.mark.parametrize("version", [1, 2])
def test_a_removed_version_is_named(home, version):
    shutil.rmtree(home / "exports" / "billing" / "2026-11" / f"v{version}")
    assert (f"exports/billing/2026-11/v{version}") in [name for name, _ in problems()]


def test_a_version_sealed_by_nobody_is_found_even_if_it_is_whole(home):
    """Whoever writes a version that fits in itself, with manifest and _SUCCESS, has no line in the ledger."""
    folder = home / "exports" / "billing" / "2026-11"
    shutil.copytree(folder / "v2", folder / "v3")
    found = [text for name, text in problems() if name == "exports/billing/2026-11/v3"]
    assert any("no line of the ledger" in text for text in found)


def test_a_version_rewritten_with_its_manifest_is_found(home):
    """Fees, manifest, _SUCCESS and approval changed together still differ from the ledger."""
    folder = home / "exports" / "billing" / "2026-11" / "v1"
    path = folder / "charges_202611_bj_001.csv.gz"
    before = hashlib.sha256((folder / "manifest.json").read_bytes()).hexdigest()
    content = gzip.compress(gzip.decompress(path.read_bytes()).replace(b",5000,", b",4000,"), mtime=0)
    path.write_bytes(content)
    manifest = json.loads((folder / "manifest.json").read_text())
    for file in manifest["files"]:
        if file["name"] == path.name:
            file |= {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest(), "fee_li": 15000}
    (folder / "manifest.json").write_text(json.dumps(manifest, sort_keys=True, indent=2) + "\n")
    after = hashlib.sha256((folder / "manifest.json").read_bytes()).hexdigest()
    (folder / "_SUCCESS").write_text(after + "\n")
    (folder / "approval.json").write_text((folder / "approval.json").read_text().replace(before, after))
    names = [name for name, _ in problems()]
    assert "exports/billing/2026-11/v1/manifest.json" in names
    assert "exports/billing/2026-11/v1/approval.json" in names


def test_a_ledger_written_anew_without_its_end_is_found_by_the_approvals(home):
    """The head was forged too: only the approval of version 2 still knows how long the ledger was."""
    path = home / "exports" / ledger.LEDGER
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:1]))
    ledger._write_head(1, json.loads(lines[0])["hash"], None, get_settings())
    found = problems()
    assert ("exports/ledger.jsonl", "line 2 is not the one that v2/approval.json was anchored at") in found


def test_other_published_charges_than_the_released_ones_are_found(home):
    with duckdb.connect(str(get_settings().published_marts)) as connection:
        connection.execute(
            "update billed_charges set charged_li = charged_li + 1 where version = 1 and charged_li = 1000"
        )
    (problem,) = problems()
    assert problem == ("marts/marts.duckdb", "billed_charges of 2026-11 lacks 1 released lines and has 1 others")


@pytest.mark.parametrize("key", [None, "another key"])
def test_without_the_key_of_the_month_all_but_subscriber_ids_is_compared(home, monkeypatch, key):
    monkeypatch.delenv("CLEANBILL_PSEUDONYM_KEY")
    if key is not None:
        monkeypatch.setenv("CLEANBILL_PSEUDONYM_KEY", key)
    get_settings.cache_clear()
    result = verify()
    assert result.findings == []
    assert [note.startswith("subscriber ids in billed_charges of 2026-11") for note in result.notes] == [True]
    with duckdb.connect(str(get_settings().published_marts)) as connection:
        connection.execute("update billed_charges set charged_li = 1001 where version = 1 and charged_li = 1000")
    assert [name for name, _ in problems()] == ["marts/marts.duckdb"]


def test_a_damaged_published_file_is_named(home):
    get_settings().published_marts.write_bytes(b"no database at all")
    assert [name for name, _ in problems()] == ["marts/marts.duckdb"]


def test_a_changed_landing_manifest_behind_a_bill_is_named(home):
    folder = home / "landing" / "relation_events" / "2026-10-15"
    folder.mkdir(parents=True)
    (folder / "relation_events_20261015_bj.manifest.json").write_text("{}")
    assert {name for name, _ in problems()} == {
        "landing/relation_events/2026-10-15/relation_events_20261015_bj.manifest.json"
    }


# Answers of the billing system


def entries_of(*actions: str) -> list[dict]:
    return [entry for entry in ledger.entries() if entry["action"] in actions]


def test_an_answer_is_recorded_once(home):
    assert [entry["object"]["version"] for entry in entries_of("acknowledged")] == [1]
    answer(home, "ack.json", 2)  # takes the place of the answer to version 1
    acknowledgements.record_news()
    acknowledgements.record_news()
    assert [entry["object"]["version"] for entry in entries_of("acknowledged")] == [1, 2]
    assert problems() == []


def test_a_rejection_is_an_alarm_and_masks_numbers(home):
    answer(home, "reject_v2.json", 2, reason="line 3: 13900009998\nis not ours")
    assert acknowledgements.record_news() == [
        "2026-11 v2 was rejected by the billing system: line 3: 139****9998 is not ours"
    ]
    assert [entry["result"] for entry in entries_of("rejected")] == ["alarm"]
    get_settings().published_marts.unlink()
    assert read_status().alarms == acknowledgements.alarms(get_settings())
    assert "13900009998" not in (home / "exports" / "ledger.jsonl").read_text()


@pytest.mark.parametrize(("days", "alarm"), [(3, False), (4, True)])
def test_no_answer_in_time_is_an_alarm_once(home, days, alarm):
    approved = json.loads((billing_feed.sealed_folder(MONTH, 2) / "approval.json").read_text())["approved_at"]
    today = datetime.fromisoformat(approved).date() + timedelta(days=days)
    for _ in range(2):
        found = acknowledgements.record_news(today=today)
    assert [line.startswith("2026-11 v2 was not answered by") for line in found] == [True] * alarm
    assert len(entries_of("answer_overdue")) == alarm
    answer(home, "ack_v2.json", 2)
    assert acknowledgements.record_news(today=today) == []


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "expected JSON, found something else"),
        (b"[" * 5000, "expected JSON, found something else"),
        (b"\xff\xfe", "expected JSON, found something else"),
        (b"[]", "expected a JSON object, found list"),
        (b'{"version": true}', "expected version, one of 1, 2, found True"),
        (b'{"version": "1"}', "expected version, one of 1, 2, found '1'"),
        (b'{"version": 9}', "expected version, one of 1, 2, found 9"),
        (b'{"version": 1}', "found None"),
        (b'{"version": 1, "manifest_sha256": "13812345678"}', "found '138****5678'"),
        (b" " * 70_000, "expected at most 65536 bytes, found more"),
    ],
)
def test_a_file_that_is_no_answer_is_one_clear_line(home, content, problem):
    (home / "exports" / "billing" / "2026-11" / "acks" / "ack.json").write_bytes(content)
    for _ in range(2):
        (line,) = acknowledgements.record_news()
    assert line.startswith("2026-11 acks/ack.json: expected")
    assert problem in line
    assert len(entries_of("answer_unreadable")) == 1


def test_links_pipes_and_other_names_are_not_read(home, tmp_path):
    folder = home / "exports" / "billing" / "2026-11" / "acks"
    secret = tmp_path / "secret"
    secret.write_text("secret")
    (folder / "reject.json").symlink_to(secret)
    os.mkfifo(folder / "ack_v2.json")
    (folder / "ack_v1.json").mkdir()
    (folder / "ack_v3\n.json").write_text("{}")
    (folder / "ack.json.tmp").write_text("half")
    lines = acknowledgements.alarms(get_settings())
    assert len(lines) == 4
    assert all("\n" not in line and "secret" not in line for line in lines)
    acknowledgements.record_news()


def test_an_answer_may_not_contradict_its_name_or_lack_its_reason(home):
    answer(home, "ack_v1.json", 2)
    answer(home, "reject.json", 2)
    assert acknowledgements.alarms(get_settings()) == [
        "2026-11 acks/ack_v1.json: expected version 1, as in the file's name, found 2",
        "2026-11 acks/reject.json: expected reason, why it was rejected, found none",
    ]


def test_publishing_brings_the_published_table_up_to_date(home):
    """The other tables of the published file stay as they are."""
    with duckdb.connect(str(get_settings().published_marts)) as connection:
        connection.execute("delete from billed_charges where version = 2")
        connection.execute(
            "create table mart_info as select date '2026-10-31' as as_of, now()::timestamp as published_at"
        )
        connection.execute("create table kept as select 1 as one")
        connection.execute("comment on column kept.one is 'a description'")
    assert publish.publish_billed_charges() is True
    with duckdb.connect(str(get_settings().published_marts), read_only=True) as connection:
        assert connection.execute("select one from kept").fetchall() == [(1,)]
        assert connection.execute("select as_of from mart_info").fetchall() == [(date(2026, 10, 31),)]
        assert connection.execute("select comment from duckdb_columns() where table_name = 'kept'").fetchall() == [
            ("a description",)
        ]
    assert problems() == []
    assert publish.publish_billed_charges() is False
