"""R3 on series whose truth is known: exact tails, planted events, calm markets, odd files, the picture."""

from datetime import date, timedelta
from pathlib import Path
from xml.etree import ElementTree

import duckdb
import numpy as np
import pytest
from cleanbill.errors import InputFileError
from cleanbill.growth_picture import growth_svg
from cleanbill.growth_series import growth_macros, judge_file

from tests.growth import proof
from tests.growth.simulation import MISSING, OUTAGE, SURGE, judged, without_anomaly

FIRST = date(2026, 1, 1)


@pytest.fixture(scope="module")
def calm() -> list[dict]:
    """A market of 60 services without an anomaly."""
    return judged(without_anomaly(60, 150, seed=3), (MISSING,)).dicts()


def write_series(path: Path, series: dict[str, list], skip: tuple[int, ...] = ()) -> Path:
    lines = ["series,day,new_orders"]
    for name, counts in series.items():
        lines += [f"{name},{FIRST + timedelta(n)},{count}" for n, count in enumerate(counts) if n not in skip]
    path.write_text("\n".join(lines) + "\n")
    return path


def poisson(mean: float, days: int, seed: int) -> list[int]:
    return np.random.default_rng(seed).poisson(mean, days).tolist()


def reasons(path: Path, **options: object) -> dict[tuple[str, int], str]:
    rows = judge_file(path, "daily", **options).dicts()
    return {(row["series"], (date.fromisoformat(row["time"]) - FIRST).days): row["reason"] for row in rows}


@pytest.mark.parametrize(("mean", "dispersion"), [(3, 1.0001), (10, 1.5), (50, 3), (1000, 10)])
def test_tails_are_those_of_scipy(mean: float, dispersion: float) -> None:
    """Wilson-Hilferty is never far off, and on the careful side, where alerts are decided (p of 1e-2 to 1e-4)."""
    from scipy import stats

    exact = stats.nbinom(mean / (dispersion - 1), 1 / dispersion)
    macros = growth_macros()
    for p in (1e-2, 1e-3, 1e-4):
        count = float(exact.isf(p) + 1)
        given = f"(select {count} as n, {mean} as m, {dispersion} as d)"
        sql = f"select {macros.growth_pearson('n', 'm', 'd', '-0.5')} as z from {given}"
        sql = f"select {macros.growth_tail('z', macros.growth_tail_point('z'))} from ({sql})"
        ratio = duckdb.execute(sql).fetchone()[0] / exact.sf(count - 1)
        assert 0.97 < ratio < 1.9


def test_the_normal_tail_is_exact_to_six_digits() -> None:
    from scipy import stats

    macros = growth_macros()
    for z in (-5.0, -1.0, 0.0, 0.5, 3.0902, 8.0):
        found = duckdb.execute(
            f"select {macros.growth_tail('z', macros.growth_tail_point('z'))} from (select {z} as z)"
        )
        assert found.fetchone()[0] == pytest.approx(stats.norm.sf(z), rel=1e-6)


def test_a_calm_market_raises_no_alarm(calm: list[dict]) -> None:
    """Weekdays, calendar days, a holiday week, a surge, an outage: at most 2 alerts in 1,000 service-days."""
    tested = [row for row in calm if row["expected"] is not None]
    assert len(tested) > 6000
    assert sum(row["is_alert"] for row in tested) <= len(tested) / 500
    assert not [row for row in tested if row["position"] in SURGE and row["is_alert"]]


@pytest.mark.parametrize("day", [OUTAGE, MISSING])
def test_an_incomplete_day_is_said_to_be_one(calm: list[dict], day: int) -> None:
    assert {row["reason"] for row in calm if row["position"] == day} == {"incomplete day"}


def test_a_burst_is_one_alert_and_the_day_after_continues(tmp_path: Path) -> None:
    counts = poisson(20, 90, 1)
    counts[80:83] = [90, 95, 88]
    found = reasons(write_series(tmp_path / "counts.csv", {"a": counts}))
    assert [found["a", day] for day in (79, 80, 81, 82)] == ["as expected", "burst", "continues", "continues"]
    assert sum(reason in ("burst", "rise", "drop") for reason in found.values()) == 1


def test_a_slow_rise_is_found(tmp_path: Path) -> None:
    counts = poisson(12, 100, 2)
    rising = np.random.default_rng(5).poisson(12 * np.linspace(1, 3, 21)).tolist()
    counts[70:91] = rising
    found = reasons(write_series(tmp_path / "counts.csv", {"a": counts}), is_two_sided=False)
    assert any(found["a", day] in ("rise", "burst") for day in range(72, 91))


def test_a_fall_is_an_alert_only_where_it_is_asked_for(tmp_path: Path) -> None:
    counts = poisson(60, 90, 3)
    counts[80] = 20
    path = write_series(tmp_path / "counts.csv", {"a": counts})
    assert reasons(path)["a", 80] == "drop"
    assert reasons(path, is_two_sided=False)["a", 80] == "as expected"


@pytest.mark.parametrize(("extra", "reason"), [(4, "as expected"), (6, "burst")])
def test_what_is_too_small_is_no_alert(tmp_path: Path, extra: int, reason: str) -> None:
    counts = [0] * 90
    counts[80] = extra
    assert reasons(write_series(tmp_path / "counts.csv", {"a": counts}))["a", 80] == reason


@pytest.mark.parametrize(("day", "reason"), [(29, "no baseline"), (30, "burst")])
def test_28_days_make_a_baseline(tmp_path: Path, day: int, reason: str) -> None:
    counts = poisson(20, 60, 4)
    counts[day] = 200
    assert reasons(write_series(tmp_path / "counts.csv", {"a": counts}))["a", day] == reason


def test_an_old_burst_does_not_hide_a_new_one(tmp_path: Path) -> None:
    counts = poisson(20, 90, 6)
    counts[60:65], counts[80] = [300, 280, 310, 290, 305], 70
    assert reasons(write_series(tmp_path / "counts.csv", {"a": counts}))["a", 80] == "burst"


def test_days_before_do_not_depend_on_days_after(tmp_path: Path) -> None:
    counts = poisson(20, 90, 7)
    whole = judge_file(write_series(tmp_path / "whole.csv", {"a": counts}), "daily").rows
    part = judge_file(write_series(tmp_path / "part.csv", {"a": counts[:70]}), "daily").rows
    assert whole[: len(part)] == part


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", "a time"),
        ("day,other\n2026-01-01,1\n", "a count"),
        ("series,count\na,1\n", "a time"),
        ("day,count\n2026-01-01,-1\n", "-1"),
        ("day,count\nsoon,1\n", "soon"),
        ("day,count\n", "none"),
    ],
)
def test_a_wrong_file_is_refused_with_what_was_found(tmp_path: Path, text: str, found: str) -> None:
    path = tmp_path / "counts.csv"
    path.write_text(text)
    with pytest.raises(InputFileError, match=found):
        judge_file(path, "daily")


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputFileError, match="no such file"):
        judge_file(tmp_path / "none.csv", "daily")


def test_the_labelled_data_is_met() -> None:
    """Runs where the third-party data is; the numbers are those asked for."""
    growth = proof.DATA / "growth"
    if not growth.is_dir():
        pytest.skip("third-party data is not there")
    found, windows, false, calm = proof.taxi(growth / "nyc_taxi.csv", growth / "nyc_taxi_windows.json")
    assert (found, windows) == (5, 5)
    assert false / calm <= 0.015
    found, outbreaks, false, calm = proof.outbreaks(growth / "outbreaks.csv")
    assert (found, outbreaks) == (4, 4)
    assert false / calm <= 0.01


def test_the_picture_is_whole_and_inert() -> None:
    rows = [
        {
            "day": FIRST + timedelta(n),
            "new_orders": 10 + 40 * (n == 5),
            "expected": None if n < 2 else 10.0,
            "expected_low": None if n < 2 else 2.0,
            "expected_high": None if n < 2 else 22.0,
            "reason": "burst" if n == 5 else "incomplete day" if n == 3 else "as expected",
        }
        for n in range(9)
    ]
    text = growth_svg("<script>", FIRST + timedelta(5), rows, {FIRST + timedelta(4): 1.1, FIRST + timedelta(5): 0.9})
    tags = [element.tag.split("}")[1] for element in ElementTree.fromstring(text).iter()]  # noqa: S314 - our own
    assert tags.count("polygon") == 1
    assert tags.count("circle") == 2
    assert "script" not in tags
