"""Settings that cannot be used say which variable, and never show a key."""

from pathlib import Path

import pytest
from cleanbill.errors import InputFileError, SettingsError
from cleanbill.expected_extracts import read_expected_pairs
from cleanbill.settings import get_settings, parse_month


@pytest.mark.parametrize("month", ["1901-01", "2026-11", "9998-12"])
def test_months_are_taken(month: str) -> None:
    assert f"{parse_month(month):%Y-%m}" == month


@pytest.mark.parametrize(
    "month", ["1900-12", "9999-01", "0000-01", "2026-13", "2026-1", "2026-11-01", "２０２６-11", ""]
)
def test_other_texts_are_no_months(month: str) -> None:
    with pytest.raises(SettingsError, match="billing month"):
        parse_month(month)


def test_no_key_means_no_start(cleanbill_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLEANBILL_PSEUDONYM_KEY", "")
    get_settings.cache_clear()
    with pytest.raises(SettingsError, match="CLEANBILL_PSEUDONYM_KEY"):
        get_settings().pseudonym_key_bytes()


def test_a_key_file_is_read_or_named(cleanbill_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CLEANBILL_PSEUDONYM_KEY")
    path = cleanbill_home / "key"
    monkeypatch.setenv("CLEANBILL_PSEUDONYM_KEY_FILE", str(path))
    get_settings.cache_clear()
    with pytest.raises(SettingsError, match="CLEANBILL_PSEUDONYM_KEY_FILE"):
        get_settings().pseudonym_key_bytes()
    path.write_bytes(b"secret\n")
    assert get_settings().pseudonym_key_bytes() == b"secret"


def test_a_wrong_number_names_its_variable(cleanbill_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLEANBILL_THREADS", "zero")
    get_settings.cache_clear()
    with pytest.raises(SettingsError, match="CLEANBILL_THREADS"):
        get_settings()


@pytest.mark.parametrize("source", ["bj", "bj-01", "bj_01", "east_hq"])
def test_every_source_a_manifest_may_name_can_be_expected(tmp_path: Path, source: str) -> None:
    header = "extract,source,schedule,valid_from,valid_to\n"
    (tmp_path / "expected_extracts.csv").write_text(f"{header}sms_usage,{source},daily,2026-01-01,\n")
    assert [pair.source for pair in read_expected_pairs(tmp_path)] == [source]
    (tmp_path / "expected_extracts.csv").write_text(f"{header}sms_usage,{source}/..,daily,2026-01-01,\n")
    with pytest.raises(InputFileError, match="line 2"):
        read_expected_pairs(tmp_path)
