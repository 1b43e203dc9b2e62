"""What a manifest may say, and that nothing it says leads out of its folder."""

import json
import os
import sys
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from cleanbill.control import open_warehouse
from cleanbill.errors import DeliveryRejected
from cleanbill.ingest import IngestSummary, ingest
from cleanbill.manifest import FoundManifest, is_source_name, key_of_name, parse_manifest
from cleanbill.reason_codes import DELIVERY_CODES

from tests.delivery_writer import DeliveryWriter

DAY = date(2026, 10, 1)
LINE = "13800000001,900001,SVC1,MT,2026-10-01 10:00:00,ok,content,2,100"


def run() -> IngestSummary:
    return ingest(DAY, date(2026, 10, 31))


def recorded() -> list[tuple]:
    with open_warehouse() as warehouse:
        return warehouse.execute(
            "select extract, business_date, source, delivery, status, reason_code from control.deliveries order by all"
        ).fetchall()


def code_of(summary: IngestSummary) -> str:
    assert summary.accepted == 0
    assert len(summary.rejections) == 1, summary.rejections
    code = summary.rejections[0].split("]")[0].lstrip("[")
    assert code in DELIVERY_CODES
    return code


def file_entry(**changes: Any) -> list[dict]:
    entry = {"name": "sms_usage_20261001_bj.csv", "rows": 1, "bytes": 10, "sha256": "0" * 64}
    entry.update(changes)
    return [{name: value for name, value in entry.items() if value is not None}]


FIELD_CASES = [
    ({"extract": None}, "bad_manifest_field", "extract"),
    ({"extract": 7}, "bad_manifest_field", "extract"),
    ({"extract": "wap_usage"}, "manifest_mismatch", "extract"),
    ({"business_date": None}, "bad_manifest_field", "business_date"),
    ({"business_date": "2026-10-02"}, "manifest_mismatch", "business_date"),
    ({"business_date": "20261001"}, "manifest_mismatch", "business_date"),
    ({"source": None}, "bad_manifest_field", "source"),
    ({"source": "sh"}, "manifest_mismatch", "source"),
    ({"source": "../bj"}, "manifest_mismatch", "source"),
    ({"delivery": None}, "bad_manifest_field", "delivery"),
    ({"delivery": 2}, "manifest_mismatch", "delivery"),
    ({"delivery": 0}, "bad_manifest_field", "delivery"),
    ({"delivery": -1}, "bad_manifest_field", "delivery"),
    ({"delivery": "1"}, "bad_manifest_field", "delivery"),
    ({"delivery": True}, "bad_manifest_field", "delivery"),
    ({"delivery": 1.0}, "bad_manifest_field", "delivery"),
    ({"schema_version": None}, "bad_manifest_field", "schema_version"),
    ({"schema_version": 0}, "unknown_schema_version", "schema_version 1"),
    ({"schema_version": 2}, "unknown_schema_version", "schema_version 1"),
    ({"schema_version": "1"}, "bad_manifest_field", "schema_version"),
    ({"files": None}, "bad_manifest_field", "files"),
    ({"files": {}}, "bad_manifest_field", "files"),
    ({"files": ["a"]}, "bad_manifest_field", "files[0]"),
    ({"files": file_entry() * 2}, "bad_manifest_field", "twice"),
    ({"files": file_entry(rows=None)}, "bad_manifest_field", "files[0].rows"),
    ({"files": file_entry(rows=-1)}, "bad_manifest_field", "files[0].rows"),
    ({"files": file_entry(rows=2**63)}, "bad_manifest_field", "files[0].rows"),
    ({"files": file_entry(bytes=None)}, "bad_manifest_field", "files[0].bytes"),
    ({"files": file_entry(bytes="10")}, "bad_manifest_field", "files[0].bytes"),
    ({"files": file_entry(sha256=None)}, "bad_manifest_field", "files[0].sha256"),
    ({"files": file_entry(sha256="0" * 63)}, "bad_manifest_field", "files[0].sha256"),
    ({"files": file_entry(sha256="g" * 64)}, "bad_manifest_field", "files[0].sha256"),
    ({"files": file_entry(name=None)}, "bad_manifest_field", "files[0].name"),
    ({"totals": []}, "bad_manifest_field", "totals"),
    ({"totals": {"message_count": "2"}}, "bad_manifest_field", "totals.message_count"),
    ({"totals": {"message_count": 2.0}}, "bad_manifest_field", "totals.message_count"),
    ({"totals": {"msisdn": 2}}, "bad_manifest_field", "message_count, fee_li"),
    ({"totals": {"no_such": 2}}, "bad_manifest_field", "no_such"),
    ({"identity": "name"}, "bad_manifest_field", "identity"),
]


def found(name: str = "sms_usage_20261001_bj.manifest.json") -> FoundManifest:
    return FoundManifest("sms_usage", DAY, name, key_of_name("sms_usage", DAY, name))


@pytest.mark.parametrize(("changes", "code", "told"), FIELD_CASES, ids=[str(case[0])[:60] for case in FIELD_CASES])
def test_wrong_field_is_named(tmp_path: Path, changes: dict, code: str, told: str) -> None:
    fields = DeliveryWriter(tmp_path).add([LINE]).manifest() | changes
    content = {name: value for name, value in fields.items() if value is not None}
    with pytest.raises(DeliveryRejected) as refusal:
        parse_manifest(found(), json.dumps(content).encode())
    assert refusal.value.code == code
    assert code in DELIVERY_CODES
    assert told in str(refusal.value)


def test_wrong_manifest_is_recorded_under_its_name(cleanbill_home: Path) -> None:
    writer = DeliveryWriter(cleanbill_home).add([LINE])
    writer.changes = {"source": "sh"}
    writer.write()
    assert code_of(run()) == "manifest_mismatch"
    assert recorded() == [("sms_usage", DAY, "bj", 1, "rejected", "manifest_mismatch")]


TEXT_CASES = [
    b"",
    b"{",
    b"[]",
    b"null",
    b"7",
    b'{"extract": "sms_usage", "extract": "sms_usage"}',
    b'{"rows": NaN}',
    b'{"rows": Infinity}',
    b"\xff\xfe{\x00}\x00",
    b'{"a": "\xb1\xb1"}',
    b"[" * 100_000,
    b'{"delivery": ' + b"9" * 10_000 + b"}",
]


@pytest.mark.parametrize("content", TEXT_CASES, ids=range(len(TEXT_CASES)))
def test_text_that_is_no_json_object_is_refused(content: bytes) -> None:
    with pytest.raises(DeliveryRejected) as refusal:
        parse_manifest(found(), content)
    assert refusal.value.code == "manifest_not_json"


def test_manifest_that_is_no_json_is_recorded_by_its_name(cleanbill_home: Path) -> None:
    DeliveryWriter(cleanbill_home).add([LINE]).write().write_bytes(b"{")
    assert code_of(run()) == "manifest_not_json"
    assert recorded() == [("sms_usage", DAY, "bj", 1, "rejected", "manifest_not_json")]


def test_manifest_with_byte_order_mark_and_unknown_fields_is_read(cleanbill_home: Path) -> None:
    writer = DeliveryWriter(cleanbill_home).add([LINE])
    writer.changes = {"made_at": "2026-10-02T00:00:00", "totals": {}}
    path = writer.write()
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert run().accepted == 1


@pytest.mark.parametrize(
    ("name", "source", "delivery"),
    [
        ("sms_usage_20261001_bj.manifest.json", "bj", 1),
        ("sms_usage_20261001_bj_d2.manifest.json", "bj", 2),
        ("sms_usage_20261001_bj_d10.manifest.json", "bj", 10),
        ("sms_usage_20261001_north_west.manifest.json", "north_west", 1),
        ("sms_usage_20261001_BJ-2.manifest.json", "BJ-2", 1),
        ("sms_usage_20261001_a_b_d3.manifest.json", "a_b", 3),
    ],
)
def test_name_speaks_of_source_and_delivery(name: str, source: str, delivery: int) -> None:
    key = key_of_name("sms_usage", DAY, name)
    assert key is not None
    assert (key.source, key.delivery, key.manifest_name) == (source, delivery, name)


@pytest.mark.parametrize(
    "name",
    [
        "sms_usage_20261001_bj_d1.manifest.json",
        "sms_usage_20261001_bj_d0.manifest.json",
        "sms_usage_20261001_bj_d02.manifest.json",
        "sms_usage_20261001_bj_d1000000.manifest.json",
        "sms_usage_20261001_.manifest.json",
        "sms_usage_20261002_bj.manifest.json",
        "wap_usage_20261001_bj.manifest.json",
        "sms_usage_20261001_b j.manifest.json",
        "sms_usage_20261001_b.j.manifest.json",
        "sms_usage_20261001_北京.manifest.json",
        "sms_usage_20261001_bj\n.manifest.json",
        "sms_usage_20261001_-bj.manifest.json",
        "manifest.manifest.json",
    ],
)
def test_other_names_speak_of_nothing(name: str) -> None:
    assert key_of_name("sms_usage", DAY, name) is None


def test_manifest_whose_name_says_nothing_is_reported_not_recorded(cleanbill_home: Path) -> None:
    path = DeliveryWriter(cleanbill_home).add([LINE]).write()
    path.rename(path.with_name("sms_usage_20261001_bj_d1.manifest.json"))
    assert code_of(run()) == "bad_manifest_name"
    assert recorded() == []


@pytest.mark.parametrize(
    "name",
    [
        b"sms_usage_20261001_\xff.manifest.json",
        b"sms_usage_20261001_\n\x1b[31m.manifest.json",
        b"\xe5\x8c.manifest.json",
    ],
)
def test_manifest_of_an_unprintable_name_is_reported_in_plain_text(cleanbill_home: Path, name: bytes) -> None:
    path = DeliveryWriter(cleanbill_home).add([LINE]).write()
    path.rename(path.parent / os.fsdecode(name))
    summary = run()
    assert code_of(summary) == "bad_manifest_name"
    str(summary).encode()
    assert summary.rejections[0].isprintable()


def test_source_names() -> None:
    assert all(is_source_name(name) for name in ("bj", "B1", "north-west", "north_west", "a_1", "a_01", "a" * 40))
    assert not any(is_source_name(name) for name in ("", "a" * 41, "_a", "a_d2", "a_1_d2", "a/b", "a.b", "..", "ａ"))


UNSAFE_NAMES = [
    "../sms_usage_20261001_bj.csv",
    "../../secret.csv",
    "/etc/passwd",
    "//etc/passwd",
    "./sms_usage_20261001_bj.csv",
    "sub/sms_usage_20261001_bj.csv",
    "..\\sms_usage_20261001_bj.csv",
    "C:\\sms_usage_20261001_bj.csv",
    "\\\\host\\share\\a.csv",
    "sms_usage_20261001_bj.csv\x00",
    "sms_usage_20261001_bj\x00.csv",
    "sms_usage_20261001_bj.csv\n",
    "sms_usage_20261001_bj\r.csv",
    "\x1b[31msms_usage_20261001_bj.csv",
    "-sms_usage_20261001_bj.csv",
    "--help",
    "~/sms_usage_20261001_bj.csv",
    "~root",
    ".",
    "..",
    ".hidden.csv",
    "...",
    "sms_usage_20261001_bj/../../../x.csv",
    "%2e%2e/x.csv",
    "file:///etc/passwd",
    "http://localhost/x.csv",
    "s3://bucket/x.csv",
    "/proc/self/environ",
    "/dev/stdin",
    "sms_usage_20261001_bj_001.csv/",
]
FOREIGN_NAMES = [
    "",
    " ",
    "x.csv",
    "passwd",
    "sms_usage_20261001_bj",
    "sms_usage_20261001_bj.txt",
    "sms_usage_20261001_bj.csv.zip",
    "sms_usage_20261001_bj.csv.gz.gz",
    "sms_usage_20261001_bj.CSV",
    "SMS_USAGE_20261001_BJ.csv",
    "sms_usage_20261001_bj .csv",
    " sms_usage_20261001_bj.csv",
    "sms_usage_20261001_bj.csv ",
    "sms_usage_20261001_bj_1.csv",
    "sms_usage_20261001_bj_01.csv",
    "sms_usage_20261001_bj_0000001.csv",
    "sms_usage_20261001_bj_a01.csv",
    "sms_usage_20261001_bj_d1.csv",
    "sms_usage_20261001_bj_d2.csv",
    "sms_usage_20261001_sh.csv",
    "sms_usage_20261002_bj.csv",
    "wap_usage_20261001_bj.csv",
    "sms_usage_20261001_bj.manifest.json",
    "*.csv",
    "sms_usage_20261001_b?.csv",
    "sms_usage_20261001_[b]j.csv",
    "sms_usage_20261001_bj‮.csv".replace("‮", "é"),
    "ѕms_usage_20261001_bj.csv",
    "sms_usage_20261001_bj．csv",
    "sms_usage_20261001_bj_００１.csv",
    "a" * 5000 + ".csv",
    "$(id).csv",
    "a;b.csv",
    "';drop table x;--.csv",
]


def test_no_file_name_escapes(cleanbill_home: Path, tmp_path: Path) -> None:
    """I8: hostile names are refused, and no file outside landing, lake and warehouse is opened for them."""
    (tmp_path / "secret.csv").write_text("secret")
    for number, name in enumerate(UNSAFE_NAMES + FOREIGN_NAMES):
        writer = DeliveryWriter(cleanbill_home, source=f"s{number}").add([LINE])
        # The pattern follows the source of the delivery.
        writer.changes = {"files": file_entry(name=name.replace("_bj", f"_s{number}"))}
        writer.write()
    opened: list[str] = []
    watching = True

    def watch(event: str, arguments: tuple) -> None:
        if watching and event == "open" and isinstance(arguments[0], str):
            opened.append(arguments[0])

    sys.addaudithook(watch)
    try:
        summary = run()
    finally:
        watching = False
    assert summary.accepted == 0
    codes = [row[5] for row in recorded()]
    assert len(codes) == len(UNSAFE_NAMES) + len(FOREIGN_NAMES) >= 60
    assert set(codes) == {"unsafe_name", "bad_file_name"}
    by_source = {row[2]: row[5] for row in recorded()}
    assert [by_source[f"s{number}"] for number in range(len(UNSAFE_NAMES))] == ["unsafe_name"] * len(UNSAFE_NAMES)
    known = ("policy_ingest.csv", "withdrawals.csv")
    assert not [name for name in opened if name.endswith((".csv", ".gz")) and not name.endswith(known)]
    assert not [name for name in opened if "secret" in name or "/etc/" in name or name.startswith("/proc/")]
    assert all("\n" not in line and "\x1b" not in line for line in summary.rejections)


def make_symlink(path: Path) -> None:
    path.rename(path.with_suffix(".real"))
    path.symlink_to(path.with_suffix(".real"))


def make_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def make_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


@pytest.mark.parametrize(
    ("spoil", "code"),
    [
        (make_symlink, "unsafe_file"),
        (make_folder, "unsafe_file"),
        (make_pipe, "unsafe_file"),
        (Path.unlink, "file_missing"),
    ],
)
def test_only_plain_files_are_read(cleanbill_home: Path, spoil: Any, code: str) -> None:
    spoil(DeliveryWriter(cleanbill_home).add([LINE]).write().with_name("sms_usage_20261001_bj.csv"))
    assert code_of(run()) == code


@pytest.mark.parametrize("spoil", [make_symlink, make_folder, make_pipe])
def test_only_plain_manifests_are_read(cleanbill_home: Path, spoil: Any) -> None:
    spoil(DeliveryWriter(cleanbill_home).add([LINE]).write())
    assert code_of(run()) == "unsafe_file"


def test_dangling_symlink_is_refused(cleanbill_home: Path) -> None:
    manifest = DeliveryWriter(cleanbill_home).add([LINE]).write()
    data = manifest.with_name("sms_usage_20261001_bj.csv")
    data.unlink()
    data.symlink_to("/nowhere")
    assert code_of(run()) == "unsafe_file"


@pytest.mark.parametrize("level", ["extract", "day"])
def test_linked_folders_are_not_followed(cleanbill_home: Path, tmp_path: Path, level: str) -> None:
    manifest = DeliveryWriter(cleanbill_home).add([LINE]).write()
    folder = manifest.parent if level == "day" else manifest.parent.parent
    elsewhere = tmp_path / "elsewhere"
    folder.rename(elsewhere)
    folder.symlink_to(elsewhere)
    assert code_of(run()) == "unsafe_file"


def test_landing_itself_may_be_a_link(cleanbill_home: Path, tmp_path: Path) -> None:
    DeliveryWriter(cleanbill_home).add([LINE]).write()
    (cleanbill_home / "landing").rename(tmp_path / "drop")
    (cleanbill_home / "landing").symlink_to(tmp_path / "drop")
    assert run().accepted == 1


def test_folders_of_nothing_known_are_reported(cleanbill_home: Path) -> None:
    manifest = DeliveryWriter(cleanbill_home).add([LINE]).write()
    (cleanbill_home / "landing" / "mail_usage").mkdir()
    assert run().rejections == []
    manifest.parent.rename(cleanbill_home / "landing" / "mail_usage" / "2026-10-01")
    assert code_of(run()) == "unknown_extract"


@pytest.mark.parametrize("name", ["20261001", "2026-1-1", "2026-02-30", "old"])
def test_folders_that_are_no_date_are_reported(cleanbill_home: Path, name: str) -> None:
    manifest = DeliveryWriter(cleanbill_home).add([LINE]).write()
    manifest.parent.rename(manifest.parent.with_name(name))
    assert code_of(run()) == "bad_folder"


def test_what_is_in_transfer_is_invisible(cleanbill_home: Path) -> None:
    manifest = DeliveryWriter(cleanbill_home).add([LINE]).write()
    manifest.rename(manifest.with_name("." + manifest.name))
    summary = run()
    assert (summary.accepted, summary.rejections) == (0, [])
    manifest.with_name("." + manifest.name).rename(manifest.with_name(manifest.name + ".part"))
    assert run().rejections == []


def test_an_uppercase_digest_is_the_same_digest(cleanbill_home: Path) -> None:
    path = DeliveryWriter(cleanbill_home).add([LINE]).write()
    fields = json.loads(path.read_text())
    fields["files"][0]["sha256"] = fields["files"][0]["sha256"].upper()
    path.write_text(json.dumps(fields))
    assert run().accepted == 1


def test_files_come_in_the_order_of_their_names() -> None:
    files = [file_entry(name=f"sms_usage_20261001_bj_00{number}.csv")[0] for number in (3, 1, 2)]
    content = {
        "extract": "sms_usage",
        "business_date": "2026-10-01",
        "source": "bj",
        "delivery": 1,
        "schema_version": 1,
        "files": files,
    }
    manifest = parse_manifest(found(), json.dumps(content).encode())
    assert [file.name[-7:-4] for file in manifest.files] == ["001", "002", "003"]
    assert manifest.rows == 3
