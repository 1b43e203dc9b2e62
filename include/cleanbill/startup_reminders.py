"""The one-off reminder of the stock: every relation that was there before the start, once, in batches over two months.

One file per day of the two months; a subscriber's relations are all on one day, drawn from the pseudonym, so that the
split is the same whenever it is made. The files hold true numbers and are readable by their owner only; the folder
appears by one rename and is never written again.
"""

import csv
import gzip
import hashlib
import io
import json
import os
import shutil
import tempfile
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path

import duckdb

from cleanbill.control import open_warehouse
from cleanbill.errors import FeedError
from cleanbill.settings import Settings, get_settings

COLUMNS = ("batch_day", "msisdn", "sp_code", "service_code", "service_name", "monthly_fee_li", "how_to_cancel")
MANIFEST = "manifest.json"
SUCCESS = "_SUCCESS"
FILE_MODE, FOLDER_MODE = 0o600, 0o700

# Live at the end of the as-of date, ordered before the start; name and fee as the catalogue has them at that midnight.
STOCK_SQL = """
with state as (
    select as_of_date + 1 as midnight from control.absorbed_state
)

select
    spells.subscriber_id,
    spells.msisdn,
    spells.sp_code,
    spells.service_code,
    services.service_name,
    services.monthly_fee_li
from intermediate.int_spells as spells
cross join state
left join intermediate.int_service_versions as services
    on
        spells.sp_code = services.sp_code
        and spells.service_code = services.service_code
        and services.valid_from <= state.midnight
        and (services.valid_to is null or state.midnight < services.valid_to)
where
    spells.ordered_at < least($start, state.midnight)
    and (spells.ended_at is null or spells.ended_at >= state.midnight)
order by spells.msisdn, spells.sp_code, spells.service_code
"""


@dataclass(frozen=True)
class StartupReminders:
    """What was written: the folder, relations, subscribers, and whether it was there already."""

    folder: Path
    relations: int
    subscribers: int
    was_there: bool


def write_startup_reminders(start: date, settings: Settings | None = None) -> StartupReminders:
    """Write `exports/reminders/startup/<YYYY-MM>/` from the warehouse as it stands.

    Args:
        start: first day of the first of the two months; relations ordered before it are the stock.
        settings: the installation.

    Raises:
        FeedError: nothing was built yet, or another list of this start was written already.
        SettingsError: the pipeline is at work and keeps the warehouse locked.
    """
    settings = settings or get_settings()
    if not settings.warehouse.exists():
        raise _nothing_built()
    try:
        with open_warehouse(settings, read_only=True) as connection:
            policy = connection.execute(
                "select months, how_to_cancel from policy.policy_startup_reminder "
                "where valid_from <= $start and (valid_to is null or $start < valid_to)",
                {"start": start},
            ).fetchone()
            as_of = connection.execute("select as_of_date from control.absorbed_state").fetchone()
            stock = connection.execute(STOCK_SQL, {"start": start}).fetchall()
    except duckdb.CatalogException as error:
        raise _nothing_built() from error
    if policy is None or as_of is None:
        raise _nothing_built()
    days = _days(start, policy[0])
    batches: dict[date, list[tuple]] = {day: [] for day in days}
    for subscriber_id, *relation in stock:
        day = days[int(subscriber_id, 16) % len(days)]
        batches[day].append((day, *relation, policy[1]))
    header = {"as_of": f"{as_of[0]}", "start": f"{start}", "relations": len(stock)}
    header["subscribers"] = len({row[0] for row in stock})
    folder = settings.exports / "reminders" / "startup" / f"{start:%Y-%m}"
    was_there = _write(folder, header, batches)
    return StartupReminders(folder, len(stock), header["subscribers"], was_there)


def _nothing_built() -> FeedError:
    return FeedError(
        "warehouse",
        "a finished build",
        "none",
        "`cleanbill run --from DAY --to DAY` with the snapshot of day 0 builds it",
    )


def _days(start: date, months: int) -> list[date]:
    end = start
    for _ in range(months):
        end = (end + timedelta(days=31)).replace(day=1)
    return [start + timedelta(days=number) for number in range((end - start).days)]


def _write(folder: Path, header: dict, batches: dict[date, list[tuple]]) -> bool:
    """Write all files into a new folder and rename it; return True if the very same list was there already."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    unfinished = Path(tempfile.mkdtemp(prefix=".writing-", dir=folder.parent))
    try:
        entries = []
        for day, rows in batches.items():
            content = gzip.compress(_csv_text(rows).encode(), mtime=0)
            entry = {"name": f"reminders_{day:%Y%m%d}.csv.gz", "rows": len(rows), "bytes": len(content)}
            entries.append(entry | {"sha256": hashlib.sha256(content).hexdigest()})
            _put(unfinished / entry["name"], content)
        manifest = (json.dumps(header | {"files": entries}, indent=2, sort_keys=True) + "\n").encode()
        if (folder / MANIFEST).exists():
            if (folder / MANIFEST).read_bytes() == manifest:
                return True
            raise FeedError(
                where=str(folder),
                expected="no list of this start, or the same one",
                found="another one: the stock changed since it was written",
                advice="the reminder of the stock is sent once; send that list, or remove it if nobody has",
            )
        _put(unfinished / MANIFEST, manifest)
        _put(unfinished / SUCCESS, hashlib.sha256(manifest).hexdigest().encode() + b"\n")
        unfinished.chmod(FOLDER_MODE)
        unfinished.rename(folder)
        _flush(folder.parent)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return False


def _csv_text(rows: list[tuple]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([COLUMNS, *rows])
    return text.getvalue()


def _put(path: Path, content: bytes) -> None:
    with os.fdopen(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, FILE_MODE), "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _flush(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
