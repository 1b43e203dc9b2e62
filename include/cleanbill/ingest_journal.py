"""What an ingest did: written to the warehouse as it goes, told in one summary at the end."""

import logging
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import date

from cleanbill.control import open_warehouse
from cleanbill.deliveries import ACCEPTED, OVER_LIMIT, REJECTED, DeliveryOutcome, read_duplicates, record
from cleanbill.errors import DeliveryRejected
from cleanbill.lake_index import mark_stale
from cleanbill.manifest import DeliveryKey, shown
from cleanbill.settings import Settings

logger = logging.getLogger(__name__)

# How much finished work a crash may cost at most.
RECORD_EVERY_DELIVERIES = 2_000
RECORD_EVERY_SECONDS = 30
SHOWN_LINES = 50


@dataclass
class IngestSummary:
    """What one ingest did.

    Attributes:
        accepted, rejected, over_limit: deliveries of this run by result; `rejected` counts unreadable manifests too.
        unchanged: deliveries found that were accepted before.
        duplicates: accepted deliveries that do not count because their bytes are in force elsewhere, one line each.
        rows_in, rows_loaded, rows_quarantined, rows_duplicate: of the accepted and over-limit deliveries.
        rejections: one line per rejected or held-back delivery: where, expected, found, what to do.
        extra_columns: `extract source` → names of columns that are not in the contract and were ignored.
        notes: what else is worth knowing.
    """

    date_from: date
    date_to: date
    accepted: int = 0
    rejected: int = 0
    over_limit: int = 0
    unchanged: int = 0
    rows_in: int = 0
    rows_loaded: int = 0
    rows_quarantined: int = 0
    rows_duplicate: int = 0
    duplicates: list[str] = field(default_factory=list)
    rejections: list[str] = field(default_factory=list)
    extra_columns: dict[str, set[str]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        lines = [
            f"Deliveries to {self.date_to}: {self.accepted} accepted, {self.rejected} rejected, "
            f"{self.over_limit} over the quarantine limit, {len(self.duplicates)} duplicates, "
            f"{self.unchanged} known before.",
            f"Rows: {self.rows_in} in = {self.rows_loaded} loaded + {self.rows_quarantined} quarantined "
            f"+ {self.rows_duplicate} dropped duplicates.",
        ]
        for title, entries in (
            ("Refused or held back", sorted(self.rejections)),
            ("Duplicate deliveries, not counted", sorted(self.duplicates)),
            (
                "Columns outside the contract, ignored",
                [f"{who}: {', '.join(sorted(names))}" for who, names in sorted(self.extra_columns.items())],
            ),
            ("Notes", sorted(self.notes)),
        ):
            if entries:
                lines.append(f"{title}:")
                lines += [f"  {entry}" for entry in entries[:SHOWN_LINES]]
                if len(entries) > SHOWN_LINES:
                    lines.append(f"  … and {len(entries) - SHOWN_LINES} more (control.deliveries has them all)")
        return "\n".join(lines)


class Journal:
    """Collects outcomes and writes them to the warehouse now and then; used by one thread."""

    def __init__(self, settings: Settings, summary: IngestSummary) -> None:
        self._settings = settings
        self._summary = summary
        self._waiting: list[DeliveryOutcome] = []
        self._done: set[DeliveryKey] = set()
        self._remade: set[DeliveryKey] = set()
        self._last_flush = time.monotonic()

    def report(self, error: DeliveryRejected) -> None:
        """Count a refusal that belongs to no delivery, or leaves an accepted one as it is."""
        self._summary.rejected += 1
        self._summary.rejections.append(f"[{error.code}] {error}")
        logger.warning("[%s] %s", error.code, error)

    def remake(self, key: DeliveryKey) -> None:
        """Announce that an accepted delivery is read again because its lake file is lost; it stays accepted."""
        self._remade.add(key)
        self.note(f"{key}: its lake file was lost; it is made anew from landing/")

    def note(self, text: str) -> None:
        self._summary.notes.append(text)

    def extra_columns(self, key: DeliveryKey, names: Iterable[str]) -> None:
        if names := {shown(name) for name in names}:
            self._summary.extra_columns.setdefault(f"{key.extract} {key.source}", set()).update(names)

    def add(self, outcome: DeliveryOutcome) -> None:
        summary = self._summary
        if outcome.status == ACCEPTED:
            summary.accepted += 1
        else:
            summary.rejected += outcome.status == REJECTED
            summary.over_limit += outcome.status == OVER_LIMIT
            summary.rejections.append(f"[{outcome.reason_code}] {outcome.reason}")
            logger.warning("[%s] %s", outcome.reason_code, outcome.reason)
        if outcome.status != REJECTED:
            summary.rows_in += outcome.rows_in
            summary.rows_loaded += outcome.rows_loaded
            summary.rows_quarantined += outcome.rows_quarantined
            summary.rows_duplicate += outcome.rows_duplicate
        if outcome.status == ACCEPTED or outcome.key not in self._remade:
            self._waiting.append(outcome)
        self.flush()

    def flush(self, final: bool = False) -> None:
        """Record what waits, if enough waits or at the end."""
        is_due = (
            len(self._waiting) >= RECORD_EVERY_DELIVERIES or time.monotonic() - self._last_flush > RECORD_EVERY_SECONDS
        )
        if not (final or is_due) or not (self._waiting or self._done):
            return
        mark_stale(self._settings)
        with open_warehouse(self._settings) as warehouse:
            record(warehouse, self._waiting)
            self._done.update(outcome.key for outcome in self._waiting)
            if final:
                self._summary.duplicates = [
                    f"{key}: same bytes as {original}, which is in force"
                    for key, original in read_duplicates(warehouse).items()
                    if key in self._done
                ]
        logger.info("recorded %d deliveries", len(self._waiting))
        self._waiting = []
        self._last_flush = time.monotonic()
