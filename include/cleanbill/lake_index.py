"""The lake's own record of what its files are, so that a lost warehouse can be made anew without landing/.

Landing expires, the lake stays. `lake/deliveries.duckdb` repeats the tables of the warehouse that say which
deliveries were accepted and what each lake file must be. It is replaced by rename at the end of an ingest that
recorded anything (or after one that was killed before it got there), and read only when a warehouse knows of no
delivery at all.
"""

from datetime import date
from pathlib import Path

import duckdb

from cleanbill.control import open_warehouse
from cleanbill.deliveries import decide_in_force
from cleanbill.delivery_reader import move_into_place
from cleanbill.errors import DataDamaged, SettingsError
from cleanbill.settings import Settings

TABLES = ("deliveries", "delivery_files", "lake_files")


def index_path(settings: Settings) -> Path:
    """Return the file that repeats the record of deliveries beside the lake files."""
    return settings.lake / "deliveries.duckdb"


def mark_stale(settings: Settings) -> None:
    """Note that the warehouse is about to know more than the lake's record does."""
    _stale_mark(settings).touch()


def write_lake_index(settings: Settings, work: Path) -> None:
    """Write the record anew from the warehouse if it is stale; `work` is a folder on the lake's file system."""
    if index_path(settings).exists() and not _stale_mark(settings).exists():
        return
    fresh = work / "deliveries.duckdb"
    with open_warehouse(settings) as warehouse:
        warehouse.execute(f"attach '{_sql_text(fresh)}' as lake_index")
        for table in TABLES:
            warehouse.execute(f"create table lake_index.{table} as from control.{table} order by all")
        warehouse.execute("detach lake_index")
    move_into_place(fresh, index_path(settings))
    _stale_mark(settings).unlink(missing_ok=True)


def _stale_mark(settings: Settings) -> Path:
    return settings.lake / ".deliveries.stale"


def restore_from_lake(settings: Settings) -> int:
    """Fill a warehouse that knows nothing from the lake's record; return how many deliveries it knows then.

    Raises:
        DataDamaged: the record is damaged.
    """
    path = index_path(settings)
    with open_warehouse(settings) as warehouse:
        # Lake files too: those without rows are there before anything is accepted.
        known = any(warehouse.execute(f"from control.{table} limit 1").fetchone() for table in TABLES)
        if known or not path.exists():
            return 0
        try:
            warehouse.execute(f"attach '{_sql_text(path)}' as lake_index (read_only)")
            warehouse.begin()
            for table in TABLES:
                warehouse.execute(f"insert into control.{table} by name from lake_index.{table}")
            decide_in_force(warehouse)
            warehouse.commit()
            warehouse.execute("detach lake_index")
        except duckdb.Error as error:
            raise _damaged(path, error) from None
        return warehouse.execute("select count(*) from control.deliveries").fetchone()[0]


def newest_day_of_a_lost_warehouse(settings: Settings) -> date:
    """Return the newest business date the lake holds, for a rebuild.

    Raises:
        SettingsError: the warehouse is there and knows deliveries.
        DataDamaged: the warehouse is there and damaged, or the lake holds no sound record.
    """
    if settings.warehouse.exists():
        with open_warehouse(settings) as warehouse:
            (known,) = warehouse.execute("select count(*) from control.deliveries").fetchone()
        if known:
            raise SettingsError(
                str(settings.warehouse),
                "no warehouse (a rebuild makes a new one)",
                f"one that knows {known} deliveries",
                "if it is to be made anew, move it away; else `cleanbill run` goes on with it",
            )
    path = index_path(settings)
    if not path.exists():
        raise DataDamaged(
            str(path), "the record of what the lake holds", "no file", "restore it, or run the days again from landing/"
        )
    try:
        with duckdb.connect(str(path), read_only=True) as index:
            (newest,) = index.execute("select max(business_date) from deliveries").fetchone()
    except duckdb.Error as error:
        raise _damaged(path, error) from None
    return newest


def _damaged(path: Path, error: Exception) -> DataDamaged:
    return DataDamaged(
        str(path),
        "the record of what the lake holds",
        type(error).__name__,
        "restore it from a backup; without one delete it, and everything still in landing/ is read again",
    )


def _sql_text(path: Path) -> str:
    """Return a path as the inside of a SQL string (ATTACH takes no bound parameter)."""
    return str(path).replace("'", "''")
