"""Foreign formats: each good sample lands and is taken in, each broken one ends exactly as it says."""

import csv
import gzip
import io
import random
import tracemalloc
from datetime import date
from pathlib import Path

import pytest
from cleanbill import foreign_text
from cleanbill.errors import CleanbillError, LandingRefused, StorageFailed
from cleanbill.fixed_width import FixedLayout, read_rows
from cleanbill.ingest import ingest
from cleanbill.land import LandSummary, land
from cleanbill.reason_codes import FOREIGN_ROW_CODES, LANDING_CODES, RECORD_CODES
from cleanbill.settings import Settings
from cleanbill.source_mapping import BUILT_IN, load_mapping

from tests.delivery_writer import policy_root
from tests.foreign_samples import FORMATS, BrokenSample, broken_samples, expected_of, put_sample
from tests.oracle.foreign import read_orders

DAY = date(2026, 11, 1)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path / "home", project_root=policy_root(tmp_path / "project"), threads=1)


def refused_rows(settings: Settings, source: str) -> dict[str, list[list]]:
    found = {}
    for path in sorted((settings.quarantine / "land" / source).glob("*/*.rejected.csv")):
        with path.open(encoding="utf-8", newline="") as text:
            found[path.name.removesuffix(".rejected.csv")] = [
                [int(row["line_no"]), row["reason"], row["contract_column"]] for row in csv.DictReader(text)
            ]
    return found


def rows_add_up(summary: LandSummary) -> bool:
    return all(
        file.rows == file.placed + file.skipped + file.duplicates + file.quarantined + file.left_out
        for file in summary.files
    )


def records(settings: Settings, extract: str, source: str) -> list[dict]:
    path = settings.landing / extract / "2026-11-01" / f"{extract}_20261101_{source}.csv"
    with path.open(encoding="utf-8", newline="") as text:
        return list(csv.DictReader(text))


@pytest.mark.parametrize("name", FORMATS)
def test_good_samples_land_and_are_taken_in(tmp_path: Path, settings: Settings, name: str):
    expected = expected_of(name)
    summary = land(name, put_sample(tmp_path / "files", name), settings)
    assert {file.file: file.rows for file in summary.files} == expected["rows"]
    assert {file.file: file.placed for file in summary.files} == expected["rows"]
    assert {count.extract: count.records for count in summary.extracts} == expected["records"]
    assert [str(summary.first_day), str(summary.last_day)] == [expected["days"][0], expected["days"][-1]]
    unused = [column for file in summary.files for column in file.unmapped_columns]
    assert unused == expected.get("unused_columns", [])
    taken = ingest(DAY, DAY, settings)
    assert (taken.rejected, taken.over_limit, taken.rows_quarantined, taken.rows_duplicate) == (0, 0, 0, 0)
    assert taken.rows_loaded == sum(expected["records"].values())
    # Landing again, after all that: nothing new.
    assert land(name, tmp_path / "files", settings).deliveries_written == 0


def test_conflicting_codes_mean_what_their_platform_says(tmp_path: Path, settings: Settings):
    actions = {}
    for name in ("platform-a", "platform-b"):
        land(name, put_sample(tmp_path / name, name), settings)
        actions[name] = [record["action"] for record in records(settings, "relation_events", name)]
    assert actions["platform-a"][6:9] == ["suspend", "resume", "cancel"]  # ActionID 2, 3, 4
    assert [actions["platform-b"][row] for row in (2, 5, 6, 7)] == [
        "cancel",
        "replace",
        "suspend",
        "activate",
    ]  # 2 5 4 3


def test_amounts_numbers_and_times_are_exact(tmp_path: Path, settings: Settings):
    for name in ("platform-b", "boss-fixed", "partner-d", "platform-a", "lines-e"):
        land(name, put_sample(tmp_path / name, name), settings)
    refunds = [record["amount_li"] for record in records(settings, "refunds", "platform-b")]
    assert refunds == ["5000", "5000", "100", "12345", "8000", "3000", "1000000", "1", "2500", "7000", "6600", "9990"]
    wap = records(settings, "wap_usage", "partner-d")
    assert [record["fee_li"] for record in wap[:3]] == ["0", "50", "100"]
    assert wap[11]["accessed_at"] == "2026-11-01 24:00:00"
    assert {record["msisdn"] for record in wap} <= {
        f"{prefix}138000000{n}" for prefix in ("", "86") for n in range(40, 60)
    }
    events = records(settings, "relation_events", "boss-fixed")
    assert [(one["event_id"][-3:], one["action"]) for one in events if one["event_id"].startswith("S00000000010")] == [
        ("0-1", "order"),
        ("0-2", "cancel"),
    ]
    assert [one["event_time"] for one in events if one["action"] == "cancel"] == [
        "2026-11-01 12:00:00",
        "2026-11-01 24:00:00",
    ]
    assert records(settings, "relation_events", "platform-a")[11]["event_time"] == "2026-11-01 24:00:00"
    lines = records(settings, "line_status", "lines-e")
    assert [record["to_time"] for record in lines[:2]] == ["2026-11-01 01:30:00", ""]
    assert [record["status"] for record in lines[3:6]] == ["stopped", "closed", "stopped"]


@pytest.mark.parametrize("sample", broken_samples(), ids=str)
def test_broken_samples_end_as_they_say(tmp_path: Path, settings: Settings, sample: BrokenSample):
    files = put_sample(tmp_path / "files", sample)
    before = {path.name: path.read_bytes() for path in files.iterdir()}
    if sample.refused:
        with pytest.raises(LandingRefused) as caught:
            land(sample.format, files, settings)
        assert caught.value.code == sample.refused["code"]
        assert caught.value.code in LANDING_CODES
        message = str(caught.value)
        assert message.startswith(f"[{caught.value.code}] ")
        assert [words for words in sample.refused["says"] if str(words) not in message] == []
        assert "What to do: " in message
        assert not list(settings.landing.glob("[!.]*"))
        assert not settings.quarantine.exists()
    else:
        summary = land(sample.format, files, settings)
        assert rows_add_up(summary)
        expected = {}
        if sample.refused_rows:
            expected = {sample.file or summary.files[0].file: sample.refused_rows}
            if len(summary.files) > 1 and not sample.file:
                expected = {next(file.file for file in summary.files if file.quarantined): sample.refused_rows}
        assert refused_rows(settings, sample.format) == expected
        assert {code for _, code, _ in sample.refused_rows} <= RECORD_CODES.keys() | FOREIGN_ROW_CODES.keys()
        for line, code, column in sample.refused_rows:
            assert f"1 rows {code} {column}".rstrip() + f", first in line {line}" in summary.render()
        taken = ingest(DAY, DAY, settings)
        assert (taken.rejected, taken.rows_quarantined) == (0, len(sample.ingest))
        found = []
        for path in sorted(settings.quarantine.glob("*/2026-11-01/*.csv")):
            with path.open(encoding="utf-8", newline="") as text:
                found += [[path.parts[-3], int(row["line"]), row["reason_code"]] for row in csv.DictReader(text)]
        assert found == sample.ingest
    assert {path.name: path.read_bytes() for path in files.iterdir()} == before


@pytest.mark.parametrize("block", [1, 2, 3, 5, 64])
@pytest.mark.parametrize(
    ("encoding", "delimiter"), [("gb18030", "|+|"), ("gbk", "||"), ("utf-8", "\x01"), ("utf-8", ";")]
)
def test_where_a_block_ends_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block: int, encoding: str, delimiter: str
):
    """A delimiter, a character or a line end may lie across two blocks."""
    lines = [["停机", "", "a|b"], ["亅|", "+|", "x"], ["", "", ""], ["|", "㐂" if encoding == "gb18030" else "q", "z"]]
    text = "\r\n".join(delimiter.join(fields) for fields in lines)
    path, clean = tmp_path / "foreign.txt", tmp_path / "clean"
    path.write_bytes(text.encode(encoding))
    monkeypatch.setattr(foreign_text, "BLOCK", block)
    assert foreign_text.decode_to_utf8(path, encoding, delimiter, clean) is False
    # As Python itself splits the whole text, from left to right.
    assert [line.split("\x1f") for line in clean.read_text(encoding="utf-8").split("\n")] == [
        line.split(delimiter) for line in text.split("\r\n")
    ]


def test_a_gzip_bomb_is_refused_within_bounds(tmp_path: Path, settings: Settings):
    files = put_sample(tmp_path / "files", "lines-e")
    (files / "lines_20261101.txt").unlink()
    with gzip.open(files / "lines_20261101.txt.gz", "wb") as stream:
        for _ in range(64):
            stream.write(b"0" * (1 << 20))
    with pytest.raises(LandingRefused, match="too_large"):
        land("lines-e", files, settings)
    assert sum(path.stat().st_size for path in settings.home.rglob("*") if path.is_file()) < 100_000


def test_a_row_of_another_length_costs_itself_where_rows_have_line_ends(tmp_path: Path):
    layout = FixedLayout(row_length=7, line_end="crlf", positions={"a": "1-2", "b": "3-5"})
    content = b"ab123\r\nab12\r\nab1234\r\n\r\n" + "中12 ".encode("gbk") + b"\r\nab123"
    rows = list(read_rows(io.BytesIO(content), layout, "gbk"))
    assert [row.problem for row in rows] == [None, *["wrong_row_length"] * 3, None, None]
    assert [row.columns for row in rows if not row.problem] == [["ab", "123"], ["中", "12"], ["ab", "123"]]
    counted = FixedLayout(row_length=5, line_end="none", positions={"a": "1-2", "b": "3-5"})
    rows = list(read_rows(io.BytesIO(b"ab123cd456e"), counted, "gbk"))
    assert [row.problem for row in rows] == [None, None, "wrong_row_length"]


def test_a_full_disk_or_a_folder_that_cannot_be_written_stops_with_one_line(tmp_path: Path, settings: Settings):
    files = put_sample(tmp_path / "files", "lines-e")
    settings.home.mkdir()
    settings.landing.write_text("no folder")
    with pytest.raises(StorageFailed, match="What to do: check permissions"):
        land("lines-e", files, settings)
    settings.landing.unlink()
    assert land("lines-e", files, settings).deliveries_written == 1


def mutate(content: bytes, chance: random.Random) -> bytes:
    """Return the bytes changed as bad lines, disks and people change them."""
    data = bytearray(content)
    for _ in range(chance.choice((1, 1, 2, 5))):
        place, kind = chance.randrange(len(data) + 1), chance.randrange(8)
        if kind == 0:
            data[place : place + 1] = bytes([chance.randrange(256)])
        elif kind == 1:
            del data[place : place + chance.choice((1, 2, 40, 4000))]
        elif kind == 2:
            data[place:place] = bytes(chance.randrange(256) for _ in range(chance.choice((1, 3, 20))))
        elif kind == 3:
            data[place:place] = chance.choice(
                (b'"', b"\n", b"\r", b"|", b"\t", b";", b"\x00", b"\x1f", b"\x81", b"\xff")
            )
        elif kind == 4:
            lines = bytes(data).splitlines(keepends=True)
            if lines:
                lines.insert(chance.randrange(len(lines)), chance.choice(lines))
            data = bytearray(b"".join(lines))
        elif kind == 5:
            lines = bytes(data).splitlines(keepends=True)
            chance.shuffle(lines)
            data = bytearray(b"".join(lines))
        elif kind == 6:
            data[place:place] = data[: chance.randrange(200)]
        else:
            data = data.replace(b"1", chance.choice((b"9", b"", b"11", "一".encode("gbk"))), chance.choice((1, 3)))
    return bytes(data)


def count_mutants(tmp_path: Path, settings: Settings, mutants: int, seed: int) -> tuple[int, int]:
    """Land that many mutants of the samples; return how many landed and how many were refused.

    Each is refused with a code, or lands with its rows adding up and what landed readable by ingest in full.
    """
    chance = random.Random(seed)
    landed = refused = 0
    for number in range(mutants):
        name = FORMATS[number % len(FORMATS)]
        files = put_sample(tmp_path / f"files{number}", name)
        victim = chance.choice(sorted(files.iterdir()))
        victim.write_bytes(mutate(victim.read_bytes(), chance))
        one = settings.model_copy(update={"home": tmp_path / f"home{number}"})
        try:
            summary = land(name, files, one)
        except CleanbillError as error:
            assert isinstance(error, LandingRefused) and error.code in LANDING_CODES, (name, number, error)
            refused += 1
            continue
        landed += 1
        assert rows_add_up(summary)
        by_file = {file.file: file.quarantined for file in summary.files if file.quarantined}
        assert by_file.keys() == refused_rows(one, name).keys()
        if number % 10 == 0:
            taken = ingest(DAY, summary.last_day, one)
            assert taken.rejected == 0, (name, number, taken.rejections)
            assert taken.rows_in == sum(count.records for count in summary.extracts)
    return landed, refused


def count_differences(tmp_path: Path, settings: Settings, mutants: int, seed: int) -> list[int]:
    """Return the mutants of platform A's orders that landed otherwise than an independent reading says."""
    chance = random.Random(seed)
    mapping = tmp_path / "lenient.yml"
    text = (BUILT_IN / "platform-a.yml").read_text(encoding="utf-8")
    mapping.write_text(text.replace("quarantine_limit_percent: 10", "quarantine_limit_percent: 100"), encoding="utf-8")
    different = []
    for number in range(mutants):
        files = put_sample(tmp_path / f"orders{number}", "platform-a")
        path = files / "ordersync_20261101.txt"
        path.write_bytes(mutate(path.read_bytes(), chance))
        one = settings.model_copy(update={"home": tmp_path / f"root{number}"})
        summary = land(mapping, files, one)
        expected = read_orders(path.read_bytes())
        found = [list(record.values()) for record in records(one, "relation_events", "platform-a")]
        refused = {line: code for line, code, _ in refused_rows(one, "platform-a").get(path.name, [])}
        if (found, refused, summary.files[0].duplicates) != (expected.records, expected.refused, expected.repeats):
            different.append(number)
    return different


def test_mutants_land_as_an_independent_reading_says(tmp_path: Path, settings: Settings):
    assert count_differences(tmp_path, settings, 25, seed=11) == []


@pytest.mark.soak
def test_many_mutants_land_as_an_independent_reading_says(tmp_path: Path, settings: Settings):
    assert count_differences(tmp_path, settings, 300, seed=13) == []


def test_mutants_of_the_samples_never_end_in_a_traceback(tmp_path: Path, settings: Settings):
    landed, refused = count_mutants(tmp_path, settings, 60, seed=5)
    assert landed > 10 and refused > 10


@pytest.mark.soak
def test_many_mutants_of_the_samples_never_end_in_a_traceback(tmp_path: Path, settings: Settings):
    count_mutants(tmp_path, settings, 300, seed=7)


def test_a_long_fixed_width_file_needs_little_memory(tmp_path: Path, settings: Settings):
    """The rows pass one by one; DuckDB may use what its limit says."""
    files = put_sample(tmp_path / "files", "boss-fixed")
    path = files / "SUBSCR_20261101.dat"
    path.write_bytes(path.read_bytes() * 2000)
    file = load_mapping("boss-fixed").files["subscriptions"]
    tracemalloc.start()
    with path.open("rb") as stream:
        assert sum(row.problem is None for row in read_rows(stream, file.layout, file.encoding)) == 24_000
    assert tracemalloc.get_traced_memory()[1] < 1_000_000
    tracemalloc.stop()
