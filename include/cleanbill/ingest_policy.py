"""What a source is allowed when it delivers: how late a record may be, how many may be broken.

The numbers live in the seed `policy_ingest.csv`, effective-dated like every policy; ingest reads the file itself
because it runs before dbt.
"""

import csv
from dataclasses import dataclass
from datetime import date
from decimal import Decimal, InvalidOperation
from pathlib import Path

from cleanbill.contract import CONTRACTS
from cleanbill.errors import InputFileError
from cleanbill.manifest import parse_iso_date, shown

SEED = Path("seeds") / "policy_ingest.csv"
ANY = "*"
_COLUMNS = (
    "source",
    "extract",
    "max_lateness_days",
    "max_quarantined_percent",
    "valid_from",
    "valid_to",
    "reason",
    "origin",
)


@dataclass(frozen=True)
class IngestRule:
    """One row of the policy; valid on days valid_from ≤ day < valid_to.

    Attributes:
        source: a source, or `*` for every source.
        extract: an extract, or `*` for every extract.
        max_lateness_days: a record may be this many days older than its business date begins.
        max_quarantined_percent: a larger share of quarantined records holds a delivery back.
    """

    source: str
    extract: str
    max_lateness_days: int
    max_quarantined_percent: Decimal
    valid_from: date
    valid_to: date | None

    def is_exceeded_by(self, quarantined: int, rows: int) -> bool:
        """Tell whether so many quarantined records are more than the allowed share of the rows."""
        return quarantined * 100 > self.max_quarantined_percent * rows


class IngestPolicy:
    """The rules of the seed; the most specific one that is valid decides."""

    def __init__(self, rules: list[IngestRule], where: str) -> None:
        self._rules = rules
        self._where = where

    def rule(self, extract: str, source: str, business_date: date) -> IngestRule:
        """Return the rule for a delivery: source and extract named, then source, then extract, then any.

        Raises:
            InputFileError: no row covers the delivery.
        """
        fitting = [
            rule
            for rule in self._rules
            if rule.source in (ANY, source)
            and rule.extract in (ANY, extract)
            and rule.valid_from <= business_date
            and (rule.valid_to is None or business_date < rule.valid_to)
        ]
        if not fitting:
            raise InputFileError(
                where=self._where,
                expected=f"a row valid on {business_date} for {extract} of {source}",
                found="none",
                advice="add a row with source * and extract * that is valid for all days",
            )
        return max(fitting, key=lambda rule: (rule.source != ANY, rule.extract != ANY, rule.valid_from))


def read_ingest_policy(dbt_project: Path) -> IngestPolicy:
    """Read the seed `policy_ingest.csv`.

    Raises:
        InputFileError: the file is missing or a row is wrong; the message names the line.
    """
    path = dbt_project / SEED
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            reader = csv.DictReader(stream, strict=True)
            if tuple(reader.fieldnames or ()) != _COLUMNS:
                raise _wrong(path, 1, "columns " + ", ".join(_COLUMNS), shown(", ".join(reader.fieldnames or ())))
            rules = [_read_rule(path, reader.line_num, row) for row in reader]
    except FileNotFoundError:
        raise InputFileError(str(path), "the policy seed", "no file", "restore it from the repository") from None
    return IngestPolicy(rules, str(path))


def _read_rule(path: Path, line: int, row: dict[str, str]) -> IngestRule:
    if row["extract"] != ANY and row["extract"] not in CONTRACTS:
        raise _wrong(path, line, "an extract or *", shown(row["extract"]))
    try:
        days, percent = int(row["max_lateness_days"]), Decimal(row["max_quarantined_percent"])
    except (ValueError, TypeError, InvalidOperation):
        raise _wrong(path, line, "numbers for days and percent", shown(dict(row))) from None
    valid_from = parse_iso_date(row["valid_from"])
    valid_to = parse_iso_date(row["valid_to"]) if row["valid_to"] else None
    if valid_from is None or (row["valid_to"] and valid_to is None):
        raise _wrong(path, line, "days written YYYY-MM-DD", shown(dict(row)))
    if days < 0 or not 0 <= percent <= 100:
        raise _wrong(path, line, "days from 0 and percent from 0 to 100", shown(dict(row)))
    return IngestRule(row["source"], row["extract"], days, percent, valid_from, valid_to)


def _wrong(path: Path, line: int, expected: str, found: str) -> InputFileError:
    return InputFileError(f"{path} line {line}", expected, found, "correct the row of the seed")
