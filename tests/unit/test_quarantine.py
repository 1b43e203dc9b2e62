"""The quarantine: what is listed, and that a replay repairs exactly what its mapping broke."""

import json
from datetime import date
from pathlib import Path

import pytest
from cleanbill.control import open_warehouse
from cleanbill.errors import InputFileError
from cleanbill.ingest import ingest
from cleanbill.land import land
from cleanbill.quarantine import Selection, read_quarantine
from cleanbill.quarantine_replay import replay
from cleanbill.settings import Settings

from tests.delivery_writer import DeliveryWriter, policy_root

MAPPING = """
source: acme
description: orders with codes
identity: msisdn
consent: as_delivered
quarantine_limit_percent: 50
files:
  orders:
    name: orders.txt
    delimiter: "|"
    columns: [id, phone, product, kind, at]
    key: [id]
records:
  - extract: relation_events
    from: orders
    columns:
      event_id: id
      msisdn: PHONE
      sp_code: {constant: "100001"}
      service_code: product
      action: {column: kind, codes: CODES}
      event_time: {column: at, time: ["%Y%m%d%H%M%S"]}
      confirmed_at: {constant: ""}
"""
RIGHT = '{"1": order, "2": suspend, "4": cancel}'
LACKING = '{"1": order, "4": cancel}'
LAST = date(2026, 11, 9)


def written_mapping(path: Path, codes: str = RIGHT, phone: str = "{column: phone, strip_leading_zeros: true}") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(MAPPING.replace("CODES", codes).replace("PHONE", phone), encoding="utf-8")
    return path


class Operator:
    """A data root with one foreign source of nine days, and what ingest made of it."""

    def __init__(self, folder: Path, max_quarantined_percent: str = "100") -> None:
        project = policy_root(folder / "project", max_quarantined_percent=max_quarantined_percent)
        self.settings = Settings(home=folder / "home", project_root=project, threads=1)
        self.folder = folder
        self.mapping = folder / "acme.yml"
        self.original = folder / "foreign" / "orders.txt"
        self.original.parent.mkdir(parents=True)
        rows = ["id|phone|product|kind|at"]
        for day in range(1, 10):
            for number in range(4):
                kind = "2" if day in (3, 4, 8) and number == 1 else "14"[number == 3]
                phone = f"1380000000{number}" if day != 5 or number else "013800000000"
                rows.append(f"e{day}-{number}|{phone}|RING|{kind}|202611{day:02d}10{number:02d}00")
        self.original.write_text("\n".join(rows) + "\n", encoding="utf-8")

    def land(self, **options) -> None:
        land(self.mapping, self.original.parent, self.settings, **options)

    def ingest(self) -> None:
        ingest(LAST, LAST, self.settings)

    def in_force(self) -> list[tuple]:
        """Return the rows that count, without where they come from."""
        with open_warehouse(self.settings, read_only=True) as warehouse:
            paths = [path for (path,) in warehouse.execute(
                "select lake_path from control.in_force where lake_path is not null"
            ).fetchall()]  # fmt: skip
            return warehouse.execute(
                "select * exclude (delivery, file_name, line_no) from read_parquet($paths) order by all",
                {"paths": paths},
            ).fetchall()

    def deliveries(self) -> dict[str, int]:
        """Return the highest delivery of each day in landing/."""
        highest: dict[str, int] = {}
        for path in sorted(self.settings.landing.glob("*/*/*.manifest.json")):
            manifest = json.loads(path.read_text())
            day = manifest["business_date"]
            highest[day] = max(manifest["delivery"], highest.get(day, 0))
        return highest

    def bytes(self) -> dict[str, bytes]:
        return {
            str(path.relative_to(self.settings.home)): path.read_bytes()
            for path in sorted(self.settings.landing.rglob("*"))
            if path.is_file()
        }


@pytest.fixture
def operator(tmp_path: Path) -> Operator:
    return Operator(tmp_path / "operator")


@pytest.fixture(scope="module")
def right_from_the_start(tmp_path_factory: pytest.TempPathFactory) -> list[tuple]:
    """What counts if the mapping was right from the start."""
    operator = Operator(tmp_path_factory.mktemp("right"))
    written_mapping(operator.mapping)
    operator.land()
    operator.ingest()
    assert read_quarantine(settings=operator.settings) == []
    return operator.in_force()


def test_a_replay_touches_the_deliveries_of_the_missing_code_and_no_other(
    operator: Operator, right_from_the_start: list
):
    written_mapping(operator.mapping, LACKING)
    operator.land()
    operator.ingest()
    entries = read_quarantine(settings=operator.settings)
    listed = {(one.stage, one.reason, one.extract, one.source, one.day, one.rows) for one in entries}
    assert listed == {("landing", "bad_code", "relation_events", "acme", date(2026, 11, day), 1) for day in (3, 4, 8)}
    assert operator.in_force() != right_from_the_start

    written_mapping(operator.mapping)
    before = operator.bytes()
    result = replay(["bad_code"], settings=operator.settings)
    assert (result.unrepaired, result.retried, result.to_resend) == ([], [], [])
    assert {day for day, number in operator.deliveries().items() if number == 2} == {
        "2026-11-03",
        "2026-11-04",
        "2026-11-08",
    }
    assert set(operator.deliveries().values()) == {1, 2}
    after = operator.bytes()
    assert {name: after[name] for name in before if ".origins" not in name} == {
        name: content for name, content in before.items() if ".origins" not in name
    }
    operator.ingest()
    assert operator.in_force() == right_from_the_start
    assert read_quarantine(settings=operator.settings) == []

    # Again: nothing is left to do, and nothing is done.
    assert replay(["bad_code"], settings=operator.settings).render() == "nothing in quarantine for these reasons"
    assert operator.bytes() == after


def test_a_replay_before_the_mapping_is_corrected_writes_nothing(operator: Operator):
    written_mapping(operator.mapping, LACKING)
    operator.land()
    before = operator.bytes()
    result = replay(["bad_code"], settings=operator.settings)
    assert [summary.deliveries_written for summary in result.landed] == [0]
    assert operator.bytes() == before


def test_only_the_asked_reason_is_replayed(operator: Operator, right_from_the_start: list):
    """The corrected mapping would change day 5 too; nobody asked for it."""
    written_mapping(operator.mapping, LACKING, phone="phone")
    operator.land()
    operator.ingest()
    assert [(one.stage, one.reason, one.day.day) for one in read_quarantine(settings=operator.settings)] == [
        ("landing", "bad_code", 3),
        ("landing", "bad_code", 4),
        ("landing", "bad_code", 8),
        ("ingest", "bad_msisdn", 5),
    ]
    written_mapping(operator.mapping)
    replay(["bad_code"], settings=operator.settings)
    assert operator.deliveries()["2026-11-05"] == 1
    replay(["bad_msisdn"], settings=operator.settings)
    assert operator.deliveries() == {f"2026-11-0{day}": 2 if day in (3, 4, 5, 8) else 1 for day in range(1, 10)}
    operator.ingest()
    assert operator.in_force() == right_from_the_start


def test_records_that_ingest_refused_are_replayed_from_the_original(operator: Operator, right_from_the_start: list):
    written_mapping(operator.mapping, phone="phone")
    operator.land()
    operator.ingest()
    (entry,) = read_quarantine(settings=operator.settings)
    assert (entry.stage, entry.reason, entry.day, entry.rows) == ("ingest", "bad_msisdn", date(2026, 11, 5), 1)
    assert "138000000" not in entry.example and "013****00" in entry.example
    written_mapping(operator.mapping)
    result = replay(["bad_msisdn"], settings=operator.settings)
    assert [(count.written, count.unchanged) for count in result.landed[0].extracts] == [(1, 0)]
    assert operator.deliveries()["2026-11-05"] == 2
    operator.ingest()
    assert read_quarantine(settings=operator.settings) == []
    assert len(operator.in_force()) == len(right_from_the_start)


def test_a_named_delivery_is_replayed_alone(operator: Operator):
    written_mapping(operator.mapping, LACKING)
    operator.land()
    operator.ingest()
    written_mapping(operator.mapping)
    replay(deliveries=["relation_events_20261104_acme"], settings=operator.settings)
    assert {day for day, number in operator.deliveries().items() if number == 2} == {"2026-11-04"}
    with pytest.raises(InputFileError, match="none of that name"):
        replay(deliveries=["relation_events_20261104_acme_d9"], settings=operator.settings)


@pytest.mark.parametrize(("what", "code"), [("gone", "original_gone"), ("changed", "original_changed")])
def test_without_the_original_nothing_is_replayed(operator: Operator, what: str, code: str):
    written_mapping(operator.mapping, LACKING)
    operator.land()
    written_mapping(operator.mapping)
    before = operator.bytes()
    if what == "gone":
        operator.original.unlink()
    else:
        operator.original.write_bytes(operator.original.read_bytes() + b"\n")
    (line,) = replay(["bad_code"], settings=operator.settings).unrepaired
    assert f"[{code}]" in line
    assert operator.bytes() == before


def test_a_moved_mapping_is_given_and_one_of_another_source_changes_nothing(operator: Operator, tmp_path: Path):
    written_mapping(operator.mapping, LACKING)
    operator.land()
    operator.mapping.unlink()
    (line,) = replay(["bad_code"], settings=operator.settings).unrepaired
    assert "acme.yml" in line
    other = written_mapping(tmp_path / "other.yml")
    other.write_text(other.read_text().replace("source: acme", "source: other"))
    assert replay(["bad_code"], mapping=other, settings=operator.settings).landed == []
    moved = written_mapping(tmp_path / "elsewhere" / "acme.yml")
    assert replay(["bad_code"], mapping=moved, settings=operator.settings).landed[0].deliveries_written == 3


def test_a_day_that_another_file_made_since_is_not_replayed(operator: Operator):
    """Replaying day 3 from the first file would lose what the second file brought."""
    written_mapping(operator.mapping, LACKING)
    operator.land()
    rows = operator.original.read_text().splitlines()
    second = operator.folder / "second" / "orders.txt"
    second.parent.mkdir()
    second.write_text("\n".join([rows[0], *rows[9:13], "x|13800000009|RING|1|20261103120000"]) + "\n")
    land(operator.mapping, second.parent, operator.settings)
    assert operator.deliveries()["2026-11-03"] == 2
    written_mapping(operator.mapping)
    before = operator.bytes()
    result = replay(["bad_code"], settings=operator.settings)
    assert [line.partition("[")[2].partition("]")[0] for line in result.unrepaired] == ["would_lose_records"]
    # The second file is its own landing, and is repaired: day 3 with all it has.
    assert {name for name in operator.bytes() if name not in before and ".csv" in name} == {
        "landing/relation_events/2026-11-03/relation_events_20261103_acme_d3.csv"
    }


def test_a_later_landing_of_the_same_days_takes_over_what_was_refused(operator: Operator):
    """A file that grows is landed again; rows refused then are not counted twice."""
    written_mapping(operator.mapping, LACKING)
    rows = operator.original.read_text().splitlines()
    operator.original.write_text("\n".join(rows[:17]) + "\n")
    operator.land()
    assert [one.day.day for one in read_quarantine(settings=operator.settings)] == [3, 4]
    operator.original.write_text("\n".join(rows) + "\n")
    operator.land()
    assert [one.day.day for one in read_quarantine(settings=operator.settings)] == [3, 4, 8]
    operator.original.write_text("\n".join([rows[0], *(row.replace("202611", "202612") for row in rows[9:13])]) + "\n")
    operator.land()
    assert [(one.day.month, one.day.day) for one in read_quarantine(settings=operator.settings)] == [
        (11, 3),
        (11, 4),
        (11, 8),
        (12, 3),
    ]


def test_a_sources_own_delivery_says_who_must_send_what(operator: Operator):
    good = "13800000001,901001,RING,MT,2026-11-02 10:00:00,ok,content,1,100"
    DeliveryWriter(operator.settings.home, day="2026-11-02").add([good, good.replace("ok", "okay")]).write()
    operator.ingest()
    result = replay(["bad_code"], settings=operator.settings)
    assert result.to_resend == ["source bj: sms_usage 2026-11-02 as delivery 2 (1 bad_code of 2 rows)"]
    assert result.landed == []
    named = replay(deliveries=["sms_usage_20261102_bj"], settings=operator.settings)
    assert named.to_resend == ["source bj: sms_usage 2026-11-02 as delivery 2"]


def test_deliveries_over_the_limit_or_rejected_are_tried_again_by_the_next_run(tmp_path: Path):
    operator = Operator(tmp_path, max_quarantined_percent="10")
    good = "13800000001,901001,RING,MT,2026-11-02 10:00:00,ok,content,1,100"
    DeliveryWriter(operator.settings.home, day="2026-11-02").add([good, good.replace("ok", "okay")]).write()
    DeliveryWriter(operator.settings.home, day="2026-11-03").add([good]).write()
    next(operator.settings.landing.glob("sms_usage/2026-11-03/*.csv")).write_text("cut")
    operator.ingest()
    found = {(one.stage, one.reason, one.day, one.rows) for one in read_quarantine(settings=operator.settings)}
    assert found == {
        ("ingest", "bad_code", date(2026, 11, 2), 1),
        ("delivery", "over_limit", date(2026, 11, 2), 2),
        ("delivery", "bytes_differ", date(2026, 11, 3), 1),
    }
    result = replay(["over_limit", "bytes_differ"], settings=operator.settings)
    assert result.to_resend == [] and len(result.retried) == 2
    assert "cleanbill run --from 2026-11-02 --to 2026-11-02" in result.retried[0]
    policy = operator.settings.dbt_project / "seeds" / "policy_ingest.csv"
    policy.write_text(policy.read_text().replace(",10,", ",50,"))
    operator.ingest()
    assert {one.reason for one in read_quarantine(settings=operator.settings)} == {"bad_code", "bytes_differ"}


def test_what_a_later_delivery_replaced_is_history(operator: Operator):
    good = "13800000001,901001,RING,MT,2026-11-02 10:00:00,ok,content,1,100"
    DeliveryWriter(operator.settings.home, day="2026-11-02").add([good.replace("ok", "okay")]).write()
    operator.ingest()
    assert len(read_quarantine(settings=operator.settings)) == 1
    DeliveryWriter(operator.settings.home, day="2026-11-02", delivery=2).add([good]).write()
    operator.ingest()
    assert read_quarantine(settings=operator.settings) == []


@pytest.mark.parametrize(
    ("selection", "days"),
    [
        (Selection(), [3, 4, 8]),
        (Selection(frozenset({"bad_code"}), "relation_events", "acme"), [3, 4, 8]),
        (Selection(first=date(2026, 11, 4)), [4, 8]),
        (Selection(last=date(2026, 11, 4)), [3, 4]),
        (Selection(frozenset({"bad_time"})), []),
        (Selection(extract="sms_usage"), []),
        (Selection(source="bj"), []),
    ],
)
def test_the_list_is_chosen_by_reason_extract_source_and_day(
    landed_once: Settings, selection: Selection, days: list[int]
):
    assert [one.day.day for one in read_quarantine(selection, landed_once)] == days


@pytest.fixture(scope="module")
def landed_once(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    operator = Operator(tmp_path_factory.mktemp("landed"))
    written_mapping(operator.mapping, LACKING)
    operator.land()
    return operator.settings


def test_a_reason_that_is_none_is_named(operator: Operator):
    for ask in (
        lambda: read_quarantine(Selection(frozenset({"bad_cod"})), operator.settings),
        lambda: replay(["bad_cod"], settings=operator.settings),
    ):
        with pytest.raises(InputFileError, match=r"bad_code, .*found bad_cod\."):
            ask()


def test_no_number_is_shown_whatever_its_form(operator: Operator):
    written_mapping(operator.mapping, LACKING)
    text = operator.original.read_text()
    forms = [
        "138 0000 0001",
        "138-0000-0001",
        "+8613800000001",
        "０１３８０００００００１",
        "1380000000",
        "(138)00000001",
    ]
    for number, form in enumerate(forms, 1):
        text += f"f{number}|{form}|RING|9|202611{number:02d}120000\n"
    operator.original.write_text(text, encoding="utf-8")
    operator.land()
    shown = " ".join(one.example for one in read_quarantine(settings=operator.settings))
    assert "0000" not in shown.replace("****", "") and "００００" not in shown


def test_a_killed_replay_leaves_what_a_second_one_ends(
    operator: Operator, monkeypatch: pytest.MonkeyPatch, right_from_the_start
):
    from cleanbill import land as landing

    written_mapping(operator.mapping, LACKING)
    operator.land()
    operator.ingest()
    written_mapping(operator.mapping)
    done = []

    def deliver_one(mapping, delivery, provenance, settings, real=landing.deliver):
        if done:
            raise KeyboardInterrupt
        done.append(delivery)
        real(mapping, delivery, provenance, settings)

    with monkeypatch.context() as patched:
        patched.setattr(landing, "deliver", deliver_one)
        with pytest.raises(KeyboardInterrupt):
            replay(["bad_code"], settings=operator.settings)
    assert sorted(operator.deliveries().values()) == [1] * 8 + [2]
    replay(["bad_code"], settings=operator.settings)
    operator.ingest()
    assert operator.in_force() == right_from_the_start
