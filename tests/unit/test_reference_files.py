"""The files of the data root that people write by hand: each is right as a whole, or named with its line."""

import subprocess
import sys
from datetime import date
from pathlib import Path

import duckdb
import pytest
from cleanbill.control import CONTROL_DDL
from cleanbill.errors import InputFileError
from cleanbill.reference_files import append_line, read_lines
from cleanbill.reference_inputs import load_reference_inputs
from cleanbill.settings import get_settings

CONNECTION = duckdb.connect(":memory:")
CONNECTION.execute(CONTROL_DDL)
HEADERS = {
    "waivers.csv": "extract,source,day,reason,requested_by,approved_by,expires_on",
    "test_numbers.csv": "msisdn,valid_from,valid_to",
    "expected_extracts.csv": "extract,source,schedule,valid_from,valid_to",
    "withdrawals.csv": "extract,source,business_date,delivery,reason,requested_by,approved_by",
}
GOOD_LINES = {
    "waivers.csv": "sms_usage,bj,2026-10-07,switch burnt,Ann,Bob,2026-12-31",
    "test_numbers.csv": "13800138000,2026-01-01,",
    "expected_extracts.csv": "sms_usage,bj,daily,2026-01-01,",
    "withdrawals.csv": "sms_usage,bj,2026-10-07,2,wrong file,Ann,Bob",
}


def load(home: Path, table: str = "waivers") -> list[tuple]:
    load_reference_inputs(CONNECTION, get_settings())
    return CONNECTION.execute(f"from control.{table}").fetchall()


@pytest.mark.parametrize("name", HEADERS)
@pytest.mark.parametrize("lines", [[], ["GOOD"]])
def test_a_right_file_is_read_with_and_without_lines(cleanbill_home: Path, name: str, lines: list[str]) -> None:
    text = "\ufeff" + "\r\n".join([HEADERS[name], *[GOOD_LINES[name] for _ in lines], ",,", ""])
    (cleanbill_home / name).write_text(text, encoding="utf-8", newline="")
    table = {"expected_extracts.csv": "expected_pairs"}.get(name, name.removesuffix(".csv"))
    assert len(load(cleanbill_home, table)) == len(lines)


@pytest.mark.parametrize("name", HEADERS)
@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"a,b,c\n",
        b"{header},{first}\n",  # a column twice
        "{header}\n\u63d0,\u63d0\n".encode("gb18030"),
        "{header}\n".encode("utf-16"),
        b'{header}\n"open',
        b"{header}\n{good},and,more\n",
        b"{header}\n\x00{good}\n",
    ],
)
def test_a_wrong_file_is_named_even_without_lines(cleanbill_home: Path, name: str, content: bytes) -> None:
    for mark, text in (("header", HEADERS[name]), ("first", HEADERS[name].split(",")[0]), ("good", GOOD_LINES[name])):
        content = content.replace(b"{%s}" % mark.encode(), text.encode())
    (cleanbill_home / name).write_bytes(content)
    with pytest.raises(InputFileError, match=name.replace(".", r"\.")):
        load(cleanbill_home)


def test_a_file_that_cannot_be_read_is_named(cleanbill_home: Path) -> None:
    (cleanbill_home / "waivers.csv").mkdir()
    with pytest.raises(InputFileError, match=r"waivers\.csv"):
        load(cleanbill_home)


@pytest.mark.parametrize(
    ("wrong", "column"),
    [
        ("sms_usag,bj,2026-10-07,burnt,Ann,Bob,2026-12-31", "extract"),
        ("sms_usage,b j,2026-10-07,burnt,Ann,Bob,2026-12-31", "source"),
        ("sms_usage,bj,20261007,burnt,Ann,Bob,2026-12-31", "day"),
        ("sms_usage,bj,2026-10-07,,Ann,Bob,2026-12-31", "reason"),
        ("sms_usage,bj,2026-10-07,burnt,,Bob,2026-12-31", "requested_by"),
        ("sms_usage,bj,2026-10-07,burnt,Ann,,2026-12-31", "approved_by"),
        ("sms_usage,bj,2026-10-07,burnt,Ann,Ann,2026-12-31", "approved_by"),
        ("sms_usage,bj,2026-10-07,burnt,Ann Lee,\uff41nn lee ,2026-12-31", "approved_by"),
        ("sms_usage,bj,2026-10-07,burnt,Ann,Bob,", "expires_on"),
        ("sms_usage,bj,2026-10-07,burnt,Ann,Bob", "expires_on"),
        ("sms_usage,bj,2026-10-07,burnt,Ann,Bob,2026-02-30", "expires_on"),
    ],
)
def test_a_waiver_not_signed_in_full_is_refused(cleanbill_home: Path, wrong: str, column: str) -> None:
    """G4: reason, two different people and an expiry; without one of them nothing is waived and nothing is built."""
    text = f"{HEADERS['waivers.csv']}\n{GOOD_LINES['waivers.csv']}\n{wrong}\n"
    (cleanbill_home / "waivers.csv").write_text(text, encoding="utf-8")
    with pytest.raises(InputFileError, match=f"line 3, column {column}"):
        load(cleanbill_home)


def test_days_that_can_hold_nothing_are_a_mistake(cleanbill_home: Path) -> None:
    header = HEADERS["expected_extracts.csv"]
    (cleanbill_home / "expected_extracts.csv").write_text(f"{header}\nsms_usage,bj,daily,2026-05-02,2026-05-01\n")
    with pytest.raises(InputFileError, match="valid_to"):
        load(cleanbill_home)
    (cleanbill_home / "expected_extracts.csv").write_text(f"{header}\nsms_usage,bj,daily,2026-05-02,2026-05-02\n")
    assert load(cleanbill_home, "expected_pairs")[0][3:] == (date(2026, 5, 2), date(2026, 5, 2))


def test_a_wrong_test_number_is_not_shown(cleanbill_home: Path) -> None:
    (cleanbill_home / "test_numbers.csv").write_text("msisdn,valid_from,valid_to\n138001380001,2026-01-01,\n")
    with pytest.raises(InputFileError) as caught:
        load(cleanbill_home)
    assert "138" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("test_numbers.csv", "13800138001,2026-01-01,\n"),  # the header was forgotten
        ("test_numbers.csv", "msisdn,valid_from,valid_to\n2026-01-01,13800138001,\n"),
        ("test_numbers.csv", "valid_from,msisdn,valid_to\n8613800138001,2026-01-01,\n"),
        ("waivers.csv", HEADERS["waivers.csv"] + "\nsms_usage,bj,2026-10-07,see 13800138001,A,B,2026-12-31\n"),
        ("waivers.csv", HEADERS["waivers.csv"] + "\nsms_usage,bj,2026-10-07,lost,13800138001,B,2026-12-31\n"),
    ],
)
def test_a_number_at_a_wrong_place_is_refused_and_not_shown(cleanbill_home: Path, name: str, content: str) -> None:
    (cleanbill_home / name).write_text(content)
    with pytest.raises(InputFileError, match=name) as caught:
        load(cleanbill_home)
    assert "13800138001" not in str(caught.value)


def test_a_line_is_added_and_all_other_bytes_stay(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    before = "\ufeffnote,b,a\r\n'',2,1".encode()
    path.write_bytes(before)
    append_line(path, ("a", "b"), {"a": 'say "x", y', "b": date(2026, 1, 1)})
    assert path.read_bytes() == before + b'\n,2026-01-01,"say ""x"", y"\n'
    assert [line.text("a") for line in read_lines(path, ("a", "b"))] == ["1", 'say "x", y']
    assert [path.name for path in tmp_path.iterdir()] == ["x.csv"]


def test_programs_that_add_at_the_same_time_lose_no_line(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from cleanbill.reference_files import append_line\n"
        "for n in range(50): append_line(Path(sys.argv[1]), ('a',), {'a': sys.argv[2] + str(n)})"
    )
    path = tmp_path / "x.csv"
    writers = [subprocess.Popen([sys.executable, "-c", code, str(path), who]) for who in ("left", "right")]
    assert [writer.wait() for writer in writers] == [0, 0]
    expected = {f"{who}{number}" for who in ("left", "right") for number in range(50)}
    assert {line.text("a") for line in read_lines(path, ("a",))} == expected
