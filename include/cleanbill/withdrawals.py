"""Deliveries an operator has taken back: `withdrawals.csv` of the data root.

A withdrawn delivery is as good as never sent: it never counts, the next lower accepted number counts instead, and
without one the day is missing. The list is declarative: taking a line out brings the delivery back. Two people
answer for each line.
"""

from dataclasses import dataclass
from datetime import date
from pathlib import Path

import duckdb

from cleanbill.contract import CONTRACTS
from cleanbill.deliveries import decide_in_force
from cleanbill.errors import InputFileError
from cleanbill.manifest import DeliveryKey
from cleanbill.reference_files import NOT_WRITTEN, ReferenceLine, append_line, read_lines
from cleanbill.settings import Settings

COLUMNS = ("extract", "source", "business_date", "delivery", "reason", "requested_by", "approved_by")


@dataclass(frozen=True)
class Withdrawal:
    """One line of the file."""

    key: DeliveryKey
    reason: str
    requested_by: str
    approved_by: str

    def fields(self) -> tuple[str, str, date, int, str, str, str]:
        """Return the values of COLUMNS."""
        key = self.key
        signed = (self.reason, self.requested_by, self.approved_by)
        return key.extract, key.source, key.business_date, key.delivery, *signed


def withdrawals_path(home: Path) -> Path:
    """Return where the file lies under a data root."""
    return home / "withdrawals.csv"


def read_withdrawals(home: Path) -> list[Withdrawal]:
    """Return the deliveries taken back, one a line; none if there is no file.

    Raises:
        InputFileError: the header or a line is wrong, or a delivery is named twice.
    """
    withdrawals: dict[DeliveryKey, Withdrawal] = {}
    for line in read_lines(withdrawals_path(home), COLUMNS) or []:
        withdrawal = _parse(line)
        if withdrawal.key in withdrawals:
            raise line.wrong("delivery", "a delivery that no line above withdraws")
        withdrawals[withdrawal.key] = withdrawal
    return list(withdrawals.values())


def _parse(line: ReferenceLine) -> Withdrawal:
    key = DeliveryKey(line.extract(), line.day("business_date"), line.source(), line.number_from_one("delivery"))
    return Withdrawal(key, line.free_text("reason"), *line.two_people())


def load_withdrawals(connection: duckdb.DuckDBPyConnection, home: Path) -> None:
    """Take the list into `control.withdrawals` and, if it changed, decide anew which deliveries are in force.

    Runs in the caller's transaction, if there is one.

    Raises:
        InputFileError: the file is wrong; nothing was changed.
    """
    listed = [withdrawal.fields() for withdrawal in read_withdrawals(home)]
    if sorted(connection.execute("from control.withdrawals").fetchall()) == sorted(listed):
        return
    connection.execute("delete from control.withdrawals")
    if listed:
        connection.executemany("insert into control.withdrawals values (?, ?, ?, ?, ?, ?, ?)", listed)
    decide_in_force(connection)


def withdraw(settings: Settings, withdrawal: Withdrawal) -> bool:
    """Add one line to `withdrawals.csv`; return False if the delivery is withdrawn already.

    It takes effect with the next run.

    Raises:
        InputFileError: nobody delivered that number, a field is empty, both people are one, or the file is wrong.
    """
    key = withdrawal.key
    values = dict(zip(COLUMNS, withdrawal.fields(), strict=True))
    path = withdrawals_path(settings.home)
    _parse(ReferenceLine(path, NOT_WRITTEN, {name: str(value) for name, value in values.items()}))
    manifest = settings.landing / key.extract / key.business_date.isoformat() / key.manifest_name
    if key.extract not in CONTRACTS or not manifest.is_file():
        raise InputFileError(
            where=str(key),
            expected="a delivery in landing/",
            found=f"no {manifest.name}",
            advice="name the extract, source, business date and number as its manifest does; nothing was written",
        )
    if any(one.key == key for one in read_withdrawals(settings.home)):
        return False
    append_line(path, COLUMNS, values)
    return True
