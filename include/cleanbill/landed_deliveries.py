"""From records on days to deliveries in landing/: staged, compared with what is there, renamed into place.

A day whose content is there already gets no new delivery; a day never loses records it has unless that is asked.
"""

# ruff: noqa: S608 - every identifier is numbered, a checked name or of the contract; every text is bound

import json
import os
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path

import duckdb

from cleanbill.contract import SCHEMA_VERSION
from cleanbill.errors import LandingRefused
from cleanbill.foreign_text import sha256_of
from cleanbill.land_summary import ExtractCount, LandSummary
from cleanbill.landed_rows import collect_records, header
from cleanbill.manifest import MANIFEST_SUFFIX, DeliveryKey, key_of_name
from cleanbill.settings import Settings
from cleanbill.source_mapping import SourceMapping

MADE_BY = "cleanbill land"


@dataclass(frozen=True)
class _Landed:
    """The data file of a delivery that is already in landing/."""

    key: DeliveryKey
    path: Path
    sha256: str
    rows: int
    made_from: list[dict[str, str]]


@dataclass(frozen=True)
class Provenance:
    """What a landing is made from: the originals and the mapping, each by name and sha256."""

    originals: list[dict[str, str]]
    mapping: dict[str, str]


@dataclass(frozen=True)
class NewDelivery:
    """A delivery that is to appear: the staged data file, and what it replaces."""

    key: DeliveryKey
    staged: Path
    rows: int
    replaced: _Landed | None


def stage_extract(
    connection: duckdb.DuckDBPyConnection,
    mapping: SourceMapping,
    extract: str,
    summary: LandSummary,
    settings: Settings,
    work: Path,
    only: set[tuple[str, date]] | None,
) -> tuple[ExtractCount, list[NewDelivery]]:
    """Write one file per day into the work folder and compare each with the newest delivery in landing/.

    With `only`, other (extract, day) stay as they are.
    """
    added_up = collect_records(connection, mapping, extract, summary)
    names = header(mapping, extract)
    rows_by_day: dict[date, int] = dict(
        connection.execute(f"select day, count(*) from out_{extract} group by day").fetchall()
    )
    length = (summary.last_day - summary.first_day).days + 1 if is_daily(mapping, extract) else 1
    days = [summary.first_day + timedelta(days=number) for number in range(length)]
    if only is not None:
        days = [day for day in days if (extract, day) in only]
    deliveries = []
    for day in days:
        staged = work / f"{extract}_{day:%Y%m%d}.csv"
        if day in rows_by_day:
            target = str(staged).replace("'", "''")
            connection.execute(
                f"copy (select {', '.join(names)} from out_{extract} where day = $day order by position) "
                f"to '{target}' (format csv, header, nullstr '')",
                {"day": day},
            )
        else:
            staged.write_text(",".join(names) + "\n", encoding="utf-8")
        newest = _newest_delivery(mapping, extract, day, settings)
        if newest is not None and _has_bytes_of(newest, staged):
            staged.unlink()
        else:
            key = DeliveryKey(extract, day, mapping.source, newest.key.delivery + 1 if newest is not None else 1)
            deliveries.append(NewDelivery(key, staged, rows_by_day.get(day, 0), newest))
    count = ExtractCount(
        extract=extract,
        records=sum(rows_by_day.get(day, 0) for day in days),
        added_up=added_up,
        days=len(days),
        days_without_rows=sum(day not in rows_by_day for day in days),
        written=len(deliveries),
        unchanged=len(days) - len(deliveries),
    )
    return count, deliveries


def is_daily(mapping: SourceMapping, extract: str) -> bool:
    return any(record.extract == extract and record.day != "first" for record in mapping.records)


def _newest_delivery(mapping: SourceMapping, extract: str, day: date, settings: Settings) -> _Landed | None:
    """Return the newest delivery of this source in landing/, which must be one that was made here.

    Raises:
        InputFileError: somebody else delivers under the name of this source.
    """
    folder = settings.landing / extract / day.isoformat()
    landed = []
    for path in sorted(folder.glob(f"*{MANIFEST_SUFFIX}")):
        key = key_of_name(extract, day, path.name)
        if key is not None and key.source == mapping.source:
            landed.append(_read_landed(path, key, settings))
    return max(landed, key=lambda one: one.key.delivery, default=None)


def _read_landed(path: Path, key: DeliveryKey, settings: Settings) -> _Landed:
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        if manifest["made_by"] == MADE_BY:
            (file,) = manifest["files"]
            made_from = [{"name": one["name"], "sha256": one["sha256"]} for one in manifest["made_from"]]
            return _Landed(key, path.parent / Path(file["name"]).name, file["sha256"], int(file["rows"]), made_from)
    except (ValueError, TypeError, KeyError):
        pass
    raise LandingRefused(
        "foreign_delivery",
        where=str(path.relative_to(settings.home)),
        expected=f"only deliveries made by {MADE_BY} for source {key.source}",
        found="a delivery somebody else wrote, or a manifest that was changed",
        advice="give the source of the mapping a name of its own; nothing was written",
    )


def _has_bytes_of(landed: _Landed, staged: Path) -> bool:
    return landed.sha256 == sha256_of(staged)


def check_nothing_is_lost(
    connection: duckdb.DuckDBPyConnection,
    mapping: SourceMapping,
    deliveries: list[NewDelivery],
    replace: bool,
    repaired_from: Provenance | None,
) -> None:
    """Refuse a landing that would replace a day by a delivery without some of that day's records.

    A repair changes records, so there it is their number that may not fall, and the day must have been made from
    the same originals: it could hold records of other files.
    """
    losing = []
    for delivery in deliveries:
        if replace or delivery.replaced is None:
            continue
        if repaired_from is not None:
            lost = delivery.replaced.rows - delivery.rows
            if delivery.replaced.made_from != repaired_from.originals:
                lost = delivery.replaced.rows
        elif delivery.replaced.path.exists():
            lost = _count_lost(connection, delivery.replaced.path, delivery.staged)
        else:
            lost = 0
        if lost > 0:
            losing.append(f"{lost} of {delivery.key.extract} {delivery.key.business_date}")
    if losing:
        raise LandingRefused(
            "would_lose_records",
            where=f"landing of source {mapping.source}",
            expected="no day to lose records it already has",
            found=f"{len(losing)} days that would: {', '.join(losing[:3])}{' …' if len(losing) > 3 else ''}",
            advice="leave those days out (--from, --to), or say --replace if the files correct them; "
            "nothing was written"
            if repaired_from is None
            else "another file made those days since: land that one again; replay the other days by --delivery; "
            "nothing was written",
        )


def _count_lost(connection: duckdb.DuckDBPyConnection, old: Path, new: Path) -> int:
    lines = (
        "(select line from read_csv({}, columns = {{'line': 'VARCHAR'}}, header = true, auto_detect = false, "
        "delim = '\x01', quote = '', escape = ''))"
    )
    return connection.execute(
        f"select count(*) from (from {lines.format('$old')} except all from {lines.format('$new')})",
        {"old": str(old), "new": str(new)},
    ).fetchone()[0]


def deliver(mapping: SourceMapping, delivery: NewDelivery, provenance: Provenance, settings: Settings) -> None:
    """Put one delivery into landing/: the data file first, its manifest last, each by rename."""
    key = delivery.key
    folder = settings.landing / key.extract / key.business_date.isoformat()
    folder.mkdir(parents=True, exist_ok=True)
    data = folder / f"{key.stem}.csv"
    manifest = {
        "extract": key.extract,
        "business_date": key.business_date.isoformat(),
        "source": key.source,
        "delivery": key.delivery,
        "schema_version": SCHEMA_VERSION,
        "identity": mapping.identity,
        "made_by": MADE_BY,
        "made_from": provenance.originals,
        "mapping": provenance.mapping,
        "files": [
            {
                "name": data.name,
                "rows": delivery.rows,
                "bytes": delivery.staged.stat().st_size,
                "sha256": sha256_of(delivery.staged),
            }
        ],
    }
    staged_manifest = delivery.staged.with_suffix(".json")
    staged_manifest.write_text(json.dumps(manifest, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    os.replace(delivery.staged, data)  # noqa: PTH105
    os.replace(staged_manifest, folder / key.manifest_name)  # noqa: PTH105
