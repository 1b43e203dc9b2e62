"""What is kept out, and why: rows refused at landing, records refused by ingest, deliveries refused whole.

Reads quarantine/ and the record of deliveries; changes nothing. A record of a delivery that a later one replaced is
history and not shown.
"""

# ruff: noqa: S608 - every text is bound

from collections.abc import Collection
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import duckdb

from cleanbill.control import open_warehouse
from cleanbill.deliveries import ACCEPTED
from cleanbill.errors import InputFileError
from cleanbill.landing_origins import REFUSED_SUFFIX
from cleanbill.manifest import DeliveryKey
from cleanbill.masking import mask_line
from cleanbill.reason_codes import DELIVERY_CODES, FOREIGN_ROW_CODES, RECORD_CODES
from cleanbill.settings import Settings, get_settings

LOCK_WAIT_SECONDS = 2.0
LONGEST_EXAMPLE = 100
LANDING, INGEST, DELIVERY = "landing", "ingest", "delivery"


@dataclass(frozen=True)
class Selection:
    """What of the quarantine is asked for; empty or None means all. Rows of unknown day belong to every day."""

    reasons: frozenset[str] = frozenset()
    extract: str | None = None
    source: str | None = None
    first: date | None = None
    last: date | None = None

    def takes(self, entry: "QuarantineEntry") -> bool:
        return (
            (not self.reasons or entry.reason in self.reasons)
            and self.extract in (None, entry.extract)
            and self.source in (None, entry.source)
            and (entry.day is None or (self.first or entry.day) <= entry.day <= (self.last or entry.day))
        )


@dataclass(frozen=True)
class QuarantineEntry:
    """Rows that are kept out for one reason.

    Attributes:
        stage: `landing` (rows of a foreign file), `ingest` (records of a delivery) or `delivery` (refused whole).
        extract, day: None where a row of a foreign file does not tell.
        key: the delivery; None at landing.
        file: where the rows stand: the foreign file, or the file of the delivery.
        rows: how many.
        line: the first of them; None for a whole delivery.
        example: that line, numbers masked; or why the delivery was refused.
    """

    stage: str
    reason: str
    extract: str | None
    source: str
    day: date | None
    key: DeliveryKey | None
    file: str
    rows: int
    line: int | None
    example: str


@dataclass(frozen=True)
class HeldDelivery:
    """A recorded delivery that counts, or that waits because it was refused."""

    key: DeliveryKey
    status: str
    reason_code: str | None
    reason: str | None
    rows_in: int
    rows_quarantined: int
    quarantine_path: str | None
    manifest_path: str


def read_quarantine(selection: Selection | None = None, settings: Settings | None = None) -> list[QuarantineEntry]:
    """Return what is kept out, largest first within a stage.

    Raises:
        InputFileError: a reason is no reason code.
        SettingsError: the pipeline holds the warehouse.
    """
    settings = settings or get_settings()
    selection = selection or Selection()
    known = RECORD_CODES.keys() | FOREIGN_ROW_CODES.keys() | DELIVERY_CODES.keys()
    if unknown := sorted(selection.reasons - known):
        raise InputFileError(
            where="--reason",
            expected=f"reason codes: {', '.join(sorted(known))}",
            found=", ".join(unknown)[:120],
            advice="cleanbill quarantine list shows the codes that occur",
        )
    deliveries = read_held_deliveries(settings)
    with duckdb.connect(":memory:", config={"autoinstall_known_extensions": False}) as connection:
        entries = [
            *_read_refused_rows(connection, settings),
            *_read_refused_records(connection, deliveries, settings),
            *_refused_deliveries(deliveries),
        ]
    chosen = [entry for entry in entries if selection.takes(entry)]
    stages = (LANDING, INGEST, DELIVERY)
    return sorted(chosen, key=lambda one: (stages.index(one.stage), -one.rows, one.reason, str(one.day), one.file))


def read_held_deliveries(settings: Settings) -> list[HeldDelivery]:
    """Return each recorded delivery that is in force, or newer than what is in force and refused."""
    if not settings.warehouse.exists():
        return []
    with open_warehouse(settings, read_only=True, wait_seconds=LOCK_WAIT_SECONDS) as connection:
        rows = connection.execute(
            """
            select
                deliveries.extract, deliveries.business_date, deliveries.source, deliveries.delivery,
                deliveries.status, deliveries.reason_code, deliveries.reason, deliveries.rows_in,
                deliveries.rows_quarantined, deliveries.quarantine_path, deliveries.manifest_path
            from control.deliveries
            left join control.in_force using (extract, business_date, source)
            where
                deliveries.delivery = in_force.delivery
                or (deliveries.status <> $accepted and deliveries.delivery > coalesce(in_force.delivery, 0))
            order by all
            """,
            {"accepted": ACCEPTED},
        ).fetchall()
    return [HeldDelivery(DeliveryKey(*row[:4]), *row[4:]) for row in rows]


def refused_lines(path: Path, reasons: Collection[str]) -> frozenset[int]:
    """Return the lines of a foreign file that a landing refused for one of these reasons."""
    if not path.exists():
        return frozenset()
    with duckdb.connect(":memory:", config={"autoinstall_known_extensions": False}) as connection:
        rows = connection.execute(
            f"select line_no::bigint from ({_CSV}) where list_contains($reasons, reason)",
            {"paths": [str(path)], "reasons": sorted(reasons)},
        ).fetchall()
    return frozenset(line for (line,) in rows)


# Both kinds of quarantine files: header, RFC 4180, all text.
_CSV = (
    "from read_csv($paths, header = true, all_varchar = true, filename = true, union_by_name = true, "
    "delim = ',', quote = '\"', escape = '\"', max_line_size = 20000000)"
)


def _read_refused_rows(connection: duckdb.DuckDBPyConnection, settings: Settings) -> list[QuarantineEntry]:
    paths = sorted((settings.quarantine / "land").glob(f"*/*/*{REFUSED_SUFFIX}"))
    if not paths:
        return []
    rows = connection.execute(
        f"""
        select
            reason, nullif(extract, ''), filename, nullif(business_date, '')::date, count(*), min(line_no::bigint),
            arg_min(raw_text, line_no::bigint), any_value(file)
        from ({_CSV})
        group by all
        """,
        {"paths": [str(path) for path in paths]},
    ).fetchall()
    return [
        QuarantineEntry(
            LANDING, reason, extract, Path(path).parents[1].name, day, None, file, count, line, _example(raw)
        )
        for reason, extract, path, day, count, line, raw, file in rows
    ]


def _read_refused_records(
    connection: duckdb.DuckDBPyConnection, deliveries: list[HeldDelivery], settings: Settings
) -> list[QuarantineEntry]:
    keys = {
        str(settings.home / one.quarantine_path): one.key
        for one in deliveries
        if one.quarantine_path and (settings.home / one.quarantine_path).exists()
    }
    if not keys:
        return []
    rows = connection.execute(
        f"""
        select filename, reason_code, "file", count(*), min(line::bigint), arg_min(raw, line::bigint)
        from ({_CSV})
        group by all
        """,
        {"paths": list(keys)},
    ).fetchall()
    return [
        QuarantineEntry(
            INGEST, reason, key.extract, key.source, key.business_date, key, file, count, line, _example(raw)
        )
        for path, reason, file, count, line, raw in rows
        for key in [keys[path]]
    ]


def _refused_deliveries(deliveries: list[HeldDelivery]) -> list[QuarantineEntry]:
    return [
        QuarantineEntry(
            stage=DELIVERY,
            reason=one.reason_code or one.status,
            extract=one.key.extract,
            source=one.key.source,
            day=one.key.business_date,
            key=one.key,
            file=Path(one.manifest_path).name,
            rows=one.rows_in,
            line=None,
            example=mask_line(one.reason or "")[: 2 * LONGEST_EXAMPLE],
        )
        for one in deliveries
        if one.status != ACCEPTED
    ]


def _example(raw: str | None) -> str:
    text = mask_line(raw or "")
    return text if len(text) <= LONGEST_EXAMPLE else text[:LONGEST_EXAMPLE] + "…"
