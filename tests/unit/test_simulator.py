"""The simulator: reproducible, contract-true (checked with the standard library only), and its truth has every kind."""

import csv
import gzip
import hashlib
import json
import re
from collections import Counter
from datetime import date, datetime, timedelta
from pathlib import Path

import pytest
from cleanbill.errors import InputFileError, SettingsError
from cleanbill.settings import REPOSITORY
from cleanbill.simulator import PlantedRules, SimulationSummary, simulate

START = date(2026, 3, 1)
LAST = date(2026, 7, 31)
HEADERS = {
    "relation_events": "event_id,msisdn,sp_code,service_code,action,event_time,channel,confirmed_at,province,"
    "old_service_code",
    "sms_usage": "msisdn,sp_code,service_code,direction,sent_at,status,purpose,message_count,fee_li",
    "wap_usage": "msisdn,sp_code,service_code,accessed_at,status,hits,fee_li",
    "gprs_usage": "msisdn,apn,started_at,up_bytes,down_bytes",
    "service_catalogue": "sp_code,service_code,service_name,service_class,is_portal,billing_type,monthly_fee_li,status,"
    "valid_from,marketing_text",
    "service_providers": "sp_code,sp_name,province,status,contact",
    "sp_reports": "report_id,sp_code,service_code,msisdn,anomaly_type,reported_at",
    "sp_penalties": "penalty_id,sp_code,service_code,suspended_from,suspended_to,reason",
    "refunds": "refund_id,msisdn,sp_code,service_code,billing_month,amount_li,times,reason",
    "line_status": "msisdn,status,from_time,to_time",
}
TIME_AT = {"sms_usage": 4, "wap_usage": 3, "gprs_usage": 2, "relation_events": 5}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, SimulationSummary]:
    """Five months of one province: the shortest period in which browsing services can be silent."""
    home = tmp_path_factory.mktemp("world")
    return home, simulate(home, START, 5, subscribers=1500, provinces=1, seed=3, test_numbers=6, resent_permille=30)


def truth(home: Path, name: str) -> list[dict[str, str]]:
    with (home / "truth" / f"{name}.csv").open(encoding="utf-8", newline="") as text:
        return list(csv.DictReader(text))


def read_lines(path: Path) -> list[str]:
    raw = path.read_bytes()
    text = (gzip.decompress(raw) if path.suffix == ".gz" else raw).decode("utf-8")
    assert text.endswith("\n")
    return text[:-1].split("\n")


def delivered_lines(home: Path, extract: str) -> list[tuple[date, list[str]]]:
    """Return (business date, fields) of every line that counts: the highest delivery of each day and source."""
    newest: dict[tuple[str, str], dict] = {}
    for path in sorted((home / "landing" / extract).glob("*/*.manifest.json")):
        manifest = json.loads(path.read_text()) | {"folder": path.parent}
        key = (manifest["business_date"], manifest["source"])
        if key not in newest or newest[key]["delivery"] < manifest["delivery"]:
            newest[key] = manifest
    return [
        (date.fromisoformat(manifest["business_date"]), row)
        for manifest in newest.values()
        for file in manifest["files"]
        for row in csv.reader(read_lines(manifest["folder"] / file["name"])[1:])
    ]


def fingerprint(home: Path) -> dict[str, str]:
    return {
        str(path.relative_to(home)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(home.rglob("*"))
        if path.is_file()
    }


def moment(text: str) -> datetime | None:
    """Read a time as the contract writes it; None if it is none."""
    match = re.fullmatch(r"(\d{4})-?(\d\d)-?(\d\d) ?(\d\d):?(\d\d):?(\d\d)", text)
    if match is None:
        return None
    year, month, day, hour, minute, second = map(int, match.groups())
    try:
        return datetime(year, month, day) + timedelta(hours=hour, minutes=minute, seconds=second)
    except ValueError:
        return None


def test_equal_seeds_give_equal_bytes_whatever_the_threads(tmp_path):
    options = {"subscribers": 300, "provinces": 3}
    simulate(tmp_path / "one", START, 2, seed=5, threads=1, **options)
    simulate(tmp_path / "four", START, 2, seed=5, threads=4, **options)
    simulate(tmp_path / "other", START, 2, seed=6, **options)
    one, four, other = (fingerprint(tmp_path / name) for name in ("one", "four", "other"))
    assert one == four
    assert len(one) > 2000
    assert one["truth/planted_spells.csv"] != other["truth/planted_spells.csv"]


def test_every_delivery_keeps_the_contract(world):
    home, summary = world
    days = [START + timedelta(days=number) for number in range((LAST - START).days + 1)]
    seen, named, rows, resent, empty = set(), set(), Counter(), 0, 0
    for path in sorted((home / "landing").glob("*/*/*.manifest.json")):
        manifest = json.loads(path.read_text())
        extract, day, source, delivery = (manifest[key] for key in ("extract", "business_date", "source", "delivery"))
        stem = f"{extract}_{day.replace('-', '')}_{source}" + (f"_d{delivery}" if delivery > 1 else "")
        assert path.name == f"{stem}.manifest.json"
        assert path.parent == home / "landing" / extract / day
        assert manifest["schema_version"] == 1
        totals = dict.fromkeys(manifest.get("totals", {}), 0)
        for file in manifest["files"]:
            assert re.fullmatch(rf"{stem}(_\d{{3}})?\.csv(\.gz)?", file["name"])
            content = (path.parent / file["name"]).read_bytes()
            assert (len(content), hashlib.sha256(content).hexdigest()) == (file["bytes"], file["sha256"])
            lines = read_lines(path.parent / file["name"])
            assert lines[0] == HEADERS[extract]
            assert len(lines) - 1 == file["rows"]
            records = list(csv.DictReader(lines))
            for column in totals:
                totals[column] += sum(int(record[column]) for record in records)
            rows[extract] += file["rows"]
            named.add(path.parent / file["name"])
        assert totals == manifest.get("totals", {})
        seen.add((extract, source, date.fromisoformat(day)))
        resent += delivery == 2
        empty += sum(file["rows"] for file in manifest["files"]) == 0
    assert set((home / "landing").rglob("*.csv*")) == named, "no file without a manifest"
    with (home / "expected_extracts.csv").open() as text:
        expected = {(line["extract"], line["source"], day) for line in csv.DictReader(text) for day in days}
    assert seen == expected
    assert rows == Counter(summary.rows)
    assert resent > 3
    assert empty > 100, "days on which nothing happened are delivered too"


def test_a_resent_delivery_differs_from_the_one_it_replaces(world):
    home, _ = world
    resends = sorted((home / "landing").glob("*_usage/*/*_d2.manifest.json"))
    assert resends
    for path in resends:
        old = json.loads(path.with_name(path.name.replace("_d2", "")).read_text())
        new = json.loads(path.read_text())
        assert [file["sha256"] for file in old["files"]] != [file["sha256"] for file in new["files"]]


def test_events_and_use_of_every_kind(world):
    home, _ = world
    actions = Counter(row[4] for _, row in delivered_lines(home, "relation_events") if len(row) == 10)
    assert set(actions) == {
        *("order", "cancel", "suspend", "resume", "activate", "replace", "cancel_all", "suspend_all"),
    }
    confirmations = [
        (moment(row[7]) - moment(row[5])) if row[7] else None
        for _, row in delivered_lines(home, "relation_events")
        if len(row) == 10 and row[4] == "order" and moment(row[5])
    ]
    assert None in confirmations, "some never confirm"
    assert any(one and one > timedelta(days=1) for one in confirmations), "some confirm late"
    classes = Counter((row[3], row[5]) for _, row in delivered_lines(home, "service_catalogue"))
    assert {one for one, _ in classes} == {"sms", "mms", "wap", "portal", "ivr", "other"}
    assert {one for _, one in classes} == {"monthly", "per_use", "free"}
    messages = [row for _, row in delivered_lines(home, "sms_usage") if len(row) == 9]
    assert {"MT", "MO"} <= {row[3] for row in messages}
    assert {(row[5], row[6]) for row in messages} >= {
        *(("ok", "content"), ("failed", "content"), ("ok", "fee"), ("ok", "reminder"), ("ok", "test")),
    }
    assert {"stopped", "closed"} == {row[1] for _, row in delivered_lines(home, "line_status")}
    assert {"1", "2"} == {row[6] for _, row in delivered_lines(home, "refunds")}
    assert any(row[4] for _, row in delivered_lines(home, "sp_penalties"))


def test_use_comes_late_but_never_later_than_allowed(world):
    home, _ = world
    broken = Counter(row["kind"] for row in truth(home, "malformed_records"))
    lags = Counter()
    for extract, at in TIME_AT.items():
        for day, row in delivered_lines(home, extract):
            time = moment(row[at]) if len(row) > at else None
            if time is not None:
                assert time <= datetime.combine(day + timedelta(days=1), datetime.min.time())
                lags[(day - time.date()).days] += 1
    assert sum(count for lag, count in lags.items() if lag > 31) <= broken["too old"]
    assert lags[31] > 0
    assert 0.001 < sum(count for lag, count in lags.items() if 1 <= lag <= 31) / lags.total() < 0.01
    assert lags[-1] > 0, "24:00:00 of the business date is the next midnight"


def test_doubled_and_broken_records_are_rare(world):
    home, _ = world
    lines = doubled = 0
    for path in sorted((home / "landing").glob("*_usage/*/*.csv.gz")):
        records = read_lines(path)[1:]
        lines += len(records)
        doubled += len(records) - len(set(records))
    assert 0 < doubled / lines < 0.0005
    broken = truth(home, "malformed_records")
    assert len({row["kind"] for row in broken}) >= 3
    rows = Counter((extract, f"{day}") for extract in TIME_AT for day, _ in delivered_lines(home, extract))
    for delivery, count in Counter((row["extract"], row["business_date"]) for row in broken).items():
        assert count / rows[delivery] < 0.005


def test_the_truth_has_every_kind(world):
    home, summary = world
    assert all(rows > 0 for rows in summary.planted.values()), summary.planted
    anomalies = truth(home, "anomalies")
    for anomaly_type in ("never_accessed", "no_traffic"):
        resolved = [bool(row["resolved_on"]) for row in anomalies if row["anomaly_type"] == anomaly_type]
        assert True in resolved and False in resolved
    assert {row["report_status"] for row in anomalies} >= {"reported", "reported_late", "unreported"}
    silences = truth(home, "silences")
    assert {row["service_class"] for row in silences} == {"sms", "mms", "wap", "portal"}
    assert {row["mt_count"] for row in silences} == {"0", "1", "2", "3", ""}
    assert {row["wap_hits"] for row in silences} == {"0", ""}
    assert {row["reason"] for row in truth(home, "event_findings")} == {
        *("already_ordered", "not_ordered", "unknown_service", "conflicting_event"),
    }
    assert all(int(row["orders"]) > 2 for row in truth(home, "bursts"))
    test_numbers = list(csv.DictReader((home / "test_numbers.csv").open()))
    assert len(test_numbers) == 6
    assert {row["msisdn"] for row in test_numbers} & {row["msisdn"] for row in anomalies}


def test_the_tenure_has_both_sides_of_its_boundary(world):
    home, _ = world
    found = {
        (row["msisdn"], row["sp_code"], row["service_code"], row["ordered_at"]): row for row in never_accessed(home)
    }
    first_uses = Counter()
    for row in truth(home, "planted_spells"):
        if row["role"] != "late" or not row["first_use_at"]:
            continue
        ordered, used = (datetime.fromisoformat(row[column]) for column in ("ordered_at", "first_use_at"))
        days = (used.date() - ordered.date()).days
        anomaly = found.get((row["msisdn"], row["sp_code"], row["service_code"], row["ordered_at"]))
        first_uses[days, f"{used:%H:%M:%S}"] += 1
        assert (anomaly is None) == (days <= PlantedRules().tenure_days)
        if anomaly:
            assert anomaly["resolved_on"] == f"{used.date()}"
    assert first_uses[30, "23:59:59"] > 0
    assert first_uses[31, "00:00:00"] > 0


def never_accessed(home: Path) -> list[dict[str, str]]:
    return [row for row in truth(home, "anomalies") if row["anomaly_type"] == "never_accessed"]


def test_planted_spells_do_what_the_truth_says(world):
    """Count the MT of the borderline spells from the files: those with three are silent, those with four are not."""
    home, _ = world
    silent = {
        (row["msisdn"], row["sp_code"], row["service_code"], row["window_start"][:7]): int(row["mt_count"])
        for row in truth(home, "silences")
        if row["mt_count"]
    }
    counts: Counter = Counter()
    for row in {tuple(row) for _, row in delivered_lines(home, "sms_usage") if len(row) == 9}:
        if row[3] == "MT" and row[5:7] == ("ok", "content") and row[7].isdecimal() and moment(row[4]):
            counts[row[0], row[1], row[2], f"{moment(row[4]):%Y-%m}"] += int(row[7])
    checked = Counter()
    for row in truth(home, "planted_spells"):
        if row["role"] == "borderline" and row["kind"] == "regular" and not row["ended_at"]:
            relation = (row["msisdn"], row["sp_code"], row["service_code"])
            for month in ("2026-04", "2026-05", "2026-06", "2026-07"):
                if row["ordered_at"] < f"{month}-01" and (*relation, month) in counts and not row["first_traffic_at"]:
                    count = counts[(*relation, month)]
                    assert silent.get((*relation, month)) == (count if count <= 3 else None)
                    checked[count] += 1
    assert checked[3] > 0
    assert checked[4] > 0


def test_the_truth_is_planted_against_the_default_policy():
    seeds = REPOSITORY / "dbt_project" / "seeds"
    with (seeds / "policy_tenure.csv").open(encoding="utf-8") as text:
        assert {int(row["tenure_days"]) for row in csv.DictReader(text)} == {PlantedRules().tenure_days}
    with (seeds / "policy_silence.csv").open(encoding="utf-8") as text:
        rules = {(row["use_measure"], int(row["window_months"]), int(row["max_count"])) for row in csv.DictReader(text)}
    assert rules == {("messages", 1, PlantedRules().silent_messages), ("hits", PlantedRules().silent_months, 0)}


def test_the_same_world_is_not_written_twice_and_no_other_into_it(tmp_path):
    options = {"subscribers": 120, "provinces": ["bj"]}
    first = simulate(tmp_path, START, end=date(2026, 3, 3), seed=1, **options)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    again = simulate(tmp_path, START, end=date(2026, 3, 3), seed=1, **options)
    assert (first.unchanged, again.unchanged) == (False, True)
    assert (again.deliveries, again.rows, again.planted) == (first.deliveries, first.rows, first.planted)
    assert before == {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    with pytest.raises(InputFileError):
        simulate(tmp_path, START, end=date(2026, 3, 3), seed=2, **options)


def test_a_world_cut_short_is_finished(tmp_path):
    options = {"end": date(2026, 3, 3), "subscribers": 120, "provinces": ["bj"], "seed": 1}
    simulate(tmp_path / "whole", START, **options)
    simulate(tmp_path / "cut", START, **options)
    stamp = tmp_path / "cut" / "truth" / "world.json"
    counts = ("deliveries", "files", "rows", "planted")
    stamp.write_text(
        json.dumps({key: value for key, value in json.loads(stamp.read_text()).items() if key not in counts})
    )
    for path in (tmp_path / "cut" / "landing" / "sms_usage").rglob("*.manifest.json"):
        path.unlink()
    assert not simulate(tmp_path / "cut", START, **options).unchanged
    assert fingerprint(tmp_path / "cut") == fingerprint(tmp_path / "whole")


def test_foreign_deliveries_are_never_mixed_in(tmp_path):
    (tmp_path / "landing" / "sms_usage").mkdir(parents=True)
    with pytest.raises(InputFileError):
        simulate(tmp_path, START, 1, subscribers=120)


@pytest.mark.parametrize(
    "options",
    [
        {"months": None},
        {"months": 1, "end": LAST},
        {"months": 40},
        {"months": 1, "subscribers": 10},
        {"months": 1, "subscribers": 120, "test_numbers": 13},
        {"months": 1, "provinces": 0},
        {"months": 1, "provinces": 9},
        {"months": 1, "provinces": ["bj", "bj"]},
        {"months": 1, "provinces": ["hq"]},
        {"months": 1, "provinces": ["../bj"]},
        {"months": 1, "resent_permille": 1001},
        {"months": 1, "malformed_percent": -1},
    ],
)
def test_parameters_that_make_no_world_are_refused(tmp_path, options):
    months = options.pop("months")
    with pytest.raises(SettingsError):
        simulate(tmp_path, START, months, **options)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("start", "months", "last"),
    [
        (date(2026, 3, 1), 7, date(2026, 9, 30)),
        (date(2026, 12, 15), 1, date(2027, 1, 14)),
        (date(2026, 1, 31), 1, date(2026, 2, 28)),
    ],
)
def test_months_end_the_day_before(tmp_path, start, months, last):
    from cleanbill.simulator import _last_day

    assert _last_day(start, months, None) == last
