"""Deliveries taken back: what counts instead, both ways, and what an operator is told."""

from datetime import date
from pathlib import Path

import pytest
from cleanbill.control import open_warehouse
from cleanbill.errors import InputFileError
from cleanbill.ingest import ingest
from cleanbill.manifest import DeliveryKey
from cleanbill.settings import get_settings
from cleanbill.status import read_status
from cleanbill.withdrawals import Withdrawal, withdraw, withdrawals_path

from tests.delivery_writer import DeliveryWriter

DAY = date(2026, 10, 1)
LINE = "{},900001,ring,MT,2026-10-01 10:00:00,ok,content,1,100"


def deliver(number: int, msisdn: str, day: str = "2026-10-01", source: str = "bj") -> None:
    DeliveryWriter(get_settings().home, day=day, source=source, delivery=number).add([LINE.format(msisdn)]).write()


def in_force() -> dict[tuple[str, str], int]:
    ingest(DAY, DAY.replace(day=31))
    with open_warehouse(get_settings()) as connection:
        rows = connection.execute("select business_date, source, delivery from control.in_force").fetchall()
    return {(f"{day:%d}", source): delivery for day, source, delivery in rows}


def take_back(number: int, day: date = DAY, source: str = "bj", by: str = "Bob") -> bool:
    key = DeliveryKey("sms_usage", day, source, number)
    return withdraw(get_settings(), Withdrawal(key, "wrong file", "Ann", by))


@pytest.fixture(autouse=True)
def _home(cleanbill_home: Path) -> None:
    pass


def test_the_next_lower_number_counts_then_none_and_back_again() -> None:
    for number in (1, 2, 3):
        deliver(number, f"1380013800{number}")
    assert in_force() == {("01", "bj"): 3}
    assert take_back(3)
    assert in_force() == {("01", "bj"): 2}
    assert take_back(1)
    assert in_force() == {("01", "bj"): 2}
    assert take_back(2)
    assert not take_back(2)
    assert in_force() == {}
    assert [one.effect for one in read_status().withdrawn] == ["the day is missing"] * 3
    path = withdrawals_path(get_settings().home)
    path.write_text("\n".join(path.read_text().splitlines()[:2]) + "\n")
    assert in_force() == {("01", "bj"): 2}
    (shown,) = read_status().withdrawn
    assert (shown.effect, shown.requested_by, shown.approved_by) == ("delivery 2 counts", "Ann", "Bob")
    path.unlink()
    assert in_force() == {("01", "bj"): 3}


def test_bytes_that_were_taken_back_are_free_for_another_day() -> None:
    """The file of the 2nd was sent as that of the 1st; the 1st is taken back, so the 2nd is no duplicate any more."""
    deliver(1, "13800138001", "2026-10-02")
    folder = get_settings().home / "landing" / "sms_usage"
    content = (folder / "2026-10-02" / "sms_usage_20261002_bj.csv").read_bytes()
    DeliveryWriter(get_settings().home, day="2026-10-01").add_bytes(content, 1).write()
    assert in_force() == {("01", "bj"): 1}
    take_back(1)
    assert in_force() == {("02", "bj"): 1}
    withdrawals_path(get_settings().home).unlink()
    assert in_force() == {("01", "bj"): 1}


def test_a_withdrawal_may_come_before_its_delivery_is_read() -> None:
    deliver(1, "13800138001")
    deliver(2, "13800138002")
    take_back(2)
    assert in_force() == {("01", "bj"): 1}


def test_a_withdrawn_delivery_is_no_longer_told_as_refused() -> None:
    DeliveryWriter(get_settings().home).add(["no,record"]).write()
    assert in_force() == {}
    assert [one.status for one in read_status().refused] == ["over_limit"]
    take_back(1)
    assert in_force() == {}
    assert read_status().refused == []


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"number": 2}, "a delivery in landing/"),
        ({"source": "gd"}, "a delivery in landing/"),
        ({"source": "../bj"}, "withdrawals.csv, source"),
        ({"by": "ANN"}, "a second person"),
        ({"by": " "}, "withdrawals.csv, approved_by"),
    ],
)
def test_what_cannot_be_taken_back_writes_nothing(change: dict[str, object], said: str) -> None:
    deliver(1, "13800138001")
    with pytest.raises(InputFileError, match=said):
        take_back(**{"number": 1} | change)
    assert not withdrawals_path(get_settings().home).exists()


def test_a_delivery_named_twice_is_a_mistake() -> None:
    deliver(1, "13800138001")
    take_back(1)
    path = withdrawals_path(get_settings().home)
    path.write_text(path.read_text() + path.read_text().splitlines()[1] + "\n")
    with pytest.raises(InputFileError, match="line 3"):
        in_force()
