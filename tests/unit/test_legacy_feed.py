"""The feed as fixed-width GBK: what stands where, that it reads back as the CSV, and that nothing is bent to fit."""

import csv
import gzip
import hashlib
import io
import json
from datetime import date
from pathlib import Path

import pytest
from cleanbill import billing_feed
from cleanbill.control import open_warehouse
from cleanbill.control_file import read_control_row, verify_against
from cleanbill.errors import FeedError
from cleanbill.legacy_feed import export_legacy, legacy_layouts, read_legacy, write_legacy
from cleanbill.settings import Settings, get_settings
from cleanbill.verify import verify

from tests.feed_warehouse import make_warehouse, pseudonym_of

MONTH = date(2026, 11, 1)
CHARGES = "msisdn,sp_code,service_code,subscription_id,billing_month,fee_li,charge_time"
ADJUSTMENTS = f"{CHARGES},previous_li,new_li,delta_li,reason"


def charge(number: int, msisdn: str | None = None, **changes: str) -> str:
    fields = {
        "msisdn": msisdn or f"1380000{number:04d}",
        "sp_code": "901001",
        "service_code": "RING" if number % 2 else "A.b-_12345",
        "subscription_id": hashlib.md5(str(number).encode()).hexdigest(),  # noqa: S324
        "billing_month": "2026-11-01",
        "fee_li": str(number * 1000),
        "charge_time": "2026-11-01 00:00:00",
    }
    return ",".join((fields | changes).values())


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path / "home")


def seal(settings: Settings, files: dict[str, list[str]], version: int = 1, header: str | None = None) -> Path:
    """Write a sealed version as billing_feed leaves it, without the files the legacy writer does not read."""
    folder = settings.exports / "billing" / "2026-11" / f"v{version}"
    folder.mkdir(parents=True)
    entries = []
    for name, lines in files.items():
        columns = header or (ADJUSTMENTS if name.startswith("adjustments") else CHARGES)
        content = "".join(f"{line}\n" for line in [columns, *lines]).encode()
        content = gzip.compress(content, mtime=0) if name.endswith(".gz") else content
        (folder / name).write_bytes(content)
        sha256 = hashlib.sha256(content).hexdigest()
        entries.append({"name": name, "rows": len(lines), "bytes": len(content), "sha256": sha256, "fee_li": 0})
    manifest = {"as_of": "2026-10-31", "billing_month": "2026-11", "files": entries, "version": version}
    manifest |= {"digests": {}, "dispositions": {}, "waivers": []}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    (folder / "_SUCCESS").write_text(hashlib.sha256((folder / "manifest.json").read_bytes()).hexdigest() + "\n")
    return folder


def csv_rows(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(gzip.decompress(path.read_bytes()).decode())))


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_charges_stand_byte_by_byte_where_the_layout_says(settings: Settings):
    seal(settings, {"charges_202611_bj_001.csv.gz": [charge(7)]})
    folder = export_legacy(MONTH, settings=settings)
    assert folder == settings.exports / "legacy" / "2026-11" / "v1"
    row = (folder / "charges_202611_bj_001.dat").read_bytes()
    assert len(row) == 162 and row.endswith(b"\n")
    assert row[:64] == b"13800000007".ljust(64)
    assert row[64:70] == b"901001"
    assert row[70:80] == b"RING      "
    assert row[112:122] == b"2026-11-01"
    assert row[122:142] == b"7000".rjust(20)
    assert row[142:161] == b"2026-11-01 00:00:00"
    assert (folder / "charges_202611_bj_001.verf").read_bytes() == (
        b"charges_202611_bj_001.dat|20261031|20261101000000|162|1|162\n"
    )


@pytest.mark.parametrize("kind", ["charges", "adjustments"])
def test_what_is_written_reads_back_as_the_csv_feed(settings: Settings, kind: str):
    extra = {
        "charges": ["", "", ""],
        "adjustments": [",5000,0,-5000,late_cancel", ",0,9223372036854775807,9223372036854775807,x", ",0,0,0,y"],
    }[kind]
    names = [f"{kind}_202611_{part}.csv.gz" for part in ("bj_001", "bj_002", "北京_001")]
    files = {
        name: [charge(number, "a:b-c_1.d" * 7 if number == 2 else None) + extra[number] for number in range(3)]
        for name in names
    }
    files |= {f"{kind}_202611_gd_001.csv.gz": [], "settlement_202611.csv": ["x"], "exclusions_202611.csv.gz": ["y"]}
    sealed = seal(settings, files, version=2)
    folder = export_legacy(MONTH, 2, settings)
    assert sorted(path.stem for path in folder.glob("*.dat")) == sorted(
        name[: -len(".csv.gz")] for name in [*names, f"{kind}_202611_gd_001.csv.gz"]
    )
    for data in sorted(folder.glob("*.dat")):
        assert list(read_legacy(data)) == csv_rows(sealed / f"{data.stem}.csv.gz")
        control = read_control_row(data, "|")
        verify_against(data, control, legacy_layouts()[kind].layout)
        assert control.records == len(csv_rows(sealed / f"{data.stem}.csv.gz"))


def test_writing_again_changes_nothing_and_a_changed_file_is_named(settings: Settings):
    seal(settings, {"charges_202611_bj_001.csv.gz": [charge(1), charge(2)]})
    folder = export_legacy(MONTH, settings=settings)
    before = contents(folder)
    export_legacy(MONTH, settings=settings)
    assert contents(folder) == before
    other = write_legacy(settings.exports / "billing/2026-11/v1", settings.home / "elsewhere" / "v1")
    assert contents(other) == before
    path = folder / "charges_202611_bj_001.dat"
    path.write_bytes(path.read_bytes().replace(b"1000", b"9000"))
    with pytest.raises(FeedError, match="byte by byte"):
        export_legacy(MONTH, settings=settings)


def test_a_month_without_charges_is_an_empty_folder(settings: Settings):
    seal(settings, {"settlement_202611.csv": []})
    assert list(export_legacy(MONTH, settings=settings).iterdir()) == []


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (charge(1, sp_code="9010011"), ["row 1, column sp_code", "7 bytes"]),
        (charge(1, service_code="铃声铃声铃声"), ["row 1, column service_code", "12 bytes"]),
        (charge(1, service_code="R𠮷"), ["row 1, column service_code", "a character gbk cannot write"]),
        (charge(1, service_code="RING "), ["row 1, column service_code", "a blank at its edge"]),
        (charge(1, service_code="R\tG"), ["row 1, column service_code", "control character"]),
    ],
)
def test_what_does_not_fit_is_refused_and_nothing_appears(settings: Settings, line: str, said: list[str]):
    seal(settings, {"charges_202611_bj_001.csv.gz": [line], "charges_202611_gd_001.csv.gz": [charge(2)]})
    with pytest.raises(FeedError) as caught:
        export_legacy(MONTH, settings=settings)
    assert [words for words in said if words not in str(caught.value)] == []
    assert "1380000" not in str(caught.value)
    assert list((settings.exports / "legacy" / "2026-11").iterdir()) == []


def test_a_service_code_of_exactly_the_place_fits(settings: Settings):
    seal(settings, {"charges_202611_bj_001.csv.gz": [charge(2, service_code="铃声铃声铃")]})
    (row,) = read_legacy(export_legacy(MONTH, settings=settings) / "charges_202611_bj_001.dat")
    assert row["service_code"] == "铃声铃声铃"


def test_a_version_that_is_missing_damaged_or_of_other_columns_is_refused(settings: Settings):
    with pytest.raises(FeedError, match="a sealed version"):
        export_legacy(MONTH, settings=settings)
    sealed = seal(settings, {"charges_202611_bj_001.csv.gz": [charge(1)]})
    (sealed / "charges_202611_bj_001.csv.gz").write_bytes(gzip.compress(b"x"))
    with pytest.raises(FeedError, match="sha256"):
        export_legacy(MONTH, settings=settings)
    seal(settings, {"charges_202611_bj_001.csv.gz": [charge(1) + ",x"]}, version=2, header=f"{CHARGES},colour")
    with pytest.raises(FeedError, match=r"found .*colour"):
        export_legacy(MONTH, 2, settings)
    assert not list(settings.exports.glob("legacy/*/*"))


def test_the_layouts_have_a_place_for_each_column_and_none_twice():
    for kind, columns in (("charges", CHARGES), ("adjustments", ADJUSTMENTS)):
        layout = legacy_layouts()[kind].layout
        assert list(layout.positions) == columns.split(",")
        taken = [byte for place in layout.slices for byte in range(place.start, place.stop)]
        assert taken == list(range(layout.width))


@pytest.fixture
def released(cleanbill_home: Path) -> Settings:
    """Return a data root with version 1 of a month sealed, and an adjustment of it as version 2."""
    make_warehouse()

    def release() -> None:
        billing_feed.prepare_month(MONTH)
        billing_feed.draft_feed(MONTH)
        billing_feed.approve_feed(MONTH, "Li Lei")
        billing_feed.seal_feed(MONTH)

    release()
    with open_warehouse(get_settings()) as warehouse:
        warehouse.execute(
            "update marts.billing_dispositions set disposition = 'silent', reason = 'silent_user', charged_li = 0 "
            f"where subscription_id = '{pseudonym_of(1)}'"
        )
    release()
    return get_settings()


def test_charges_and_adjustments_of_the_real_feed_read_back(released: Settings):
    for version, kind in ((1, "charges"), (2, "adjustments")):
        sealed = released.exports / "billing" / "2026-11" / f"v{version}"
        folder = export_legacy(MONTH, version)
        names = sorted(path.name.removesuffix(".csv.gz") for path in sealed.glob(f"{kind}_*.csv.gz"))
        assert names and sorted(path.stem for path in folder.glob("*.dat")) == names
        for data in folder.glob("*.dat"):
            assert list(read_legacy(data)) == csv_rows(sealed / f"{data.stem}.csv.gz")
            verify_against(data, read_control_row(data, "|"), legacy_layouts()[kind].layout)
    assert verify().findings == []
