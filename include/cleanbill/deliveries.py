"""The record of deliveries in the warehouse, and which of them count.

What is in force is a pure function of the accepted deliveries and of those withdrawn: neither the order nor the time
of their arrival matters.
"""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field, fields
from datetime import date

import duckdb

from cleanbill.contract import CONTRACTS
from cleanbill.manifest import DeliveryKey

ACCEPTED = "accepted"
REJECTED = "rejected"
OVER_LIMIT = "over_limit"


@dataclass(frozen=True)
class FileOutcome:
    """What became of one data file; a row of `control.delivery_files`."""

    file_name: str
    bytes: int
    sha256: str
    rows_in: int
    rows_loaded: int
    rows_quarantined: int
    rows_duplicate: int


@dataclass(frozen=True)
class DeliveryOutcome:
    """What became of one delivery; a row of `control.deliveries` with its files."""

    key: DeliveryKey
    manifest_path: str
    manifest_sha256: str
    identity: str
    status: str
    reason_code: str | None = None
    reason: str | None = None
    rows_in: int = 0
    lake_path: str | None = None
    quarantine_path: str | None = None
    content_digest: str | None = None
    lake_sha256: str | None = None
    files: tuple[FileOutcome, ...] = field(default=())

    @property
    def rows_loaded(self) -> int:
        return sum(file.rows_loaded for file in self.files)

    @property
    def rows_quarantined(self) -> int:
        return sum(file.rows_quarantined for file in self.files)

    @property
    def rows_duplicate(self) -> int:
        return sum(file.rows_duplicate for file in self.files)


@dataclass(frozen=True)
class KnownDelivery:
    """What the warehouse already knows of a delivery number."""

    manifest_sha256: str
    status: str
    lake_path: str | None


def read_known_deliveries(connection: duckdb.DuckDBPyConnection) -> dict[DeliveryKey, KnownDelivery]:
    """Return every recorded delivery."""
    rows = connection.execute(
        "select extract, business_date, source, delivery, manifest_sha256, status, lake_path from control.deliveries"
    ).fetchall()
    return {DeliveryKey(*row[:4]): KnownDelivery(*row[4:]) for row in rows}


def read_duplicates(connection: duckdb.DuckDBPyConnection) -> dict[DeliveryKey, str]:
    """Return the accepted deliveries that do not count because their bytes are in force elsewhere, and where."""
    rows = connection.execute(
        "select extract, business_date, source, delivery, duplicate_of from control.deliveries "
        "where duplicate_of is not null order by all"
    ).fetchall()
    return {DeliveryKey(*row[:4]): row[4] for row in rows}


_DELIVERY_TYPES = {
    "extract": "varchar",
    "business_date": "date",
    "source": "varchar",
    "delivery": "integer",
    "manifest_path": "varchar",
    "manifest_sha256": "varchar",
    "identity": "varchar",
    "status": "varchar",
    "reason_code": "varchar",
    "reason": "varchar",
    "rows_in": "bigint",
    "rows_loaded": "bigint",
    "rows_quarantined": "bigint",
    "rows_duplicate": "bigint",
    "lake_path": "varchar",
    "quarantine_path": "varchar",
    "content_digest": "varchar",
}
_KEY = ("extract", "business_date", "source", "delivery")
_FILE_TYPES = {name: _DELIVERY_TYPES[name] for name in _KEY} | {
    "file_name": "varchar",
    "bytes": "bigint",
    "sha256": "varchar",
    "rows_in": "bigint",
    "rows_loaded": "bigint",
    "rows_quarantined": "bigint",
    "rows_duplicate": "bigint",
}


def record(connection: duckdb.DuckDBPyConnection, outcomes: Iterable[DeliveryOutcome]) -> None:
    """Record outcomes and decide anew what is in force, in one transaction.

    An accepted delivery is never replaced by other content: its number is handed in again only when its lake file
    was lost and has been made anew.
    """
    outcomes = list(outcomes)
    deliveries = [
        (*_key_values(outcome.key), *(getattr(outcome, name) for name in list(_DELIVERY_TYPES)[len(_KEY) :]))
        for outcome in outcomes
    ]
    files = [
        (*_key_values(outcome.key), *(getattr(file, item.name) for item in fields(FileOutcome)))
        for outcome in outcomes
        for file in outcome.files
    ]
    connection.begin()
    try:
        keys = _rows_sql({name: _DELIVERY_TYPES[name] for name in _KEY})
        connection.execute(
            f"delete from control.delivery_files where (extract, business_date, source, delivery) in ({keys})",  # noqa: S608
            _columns(dict.fromkeys(_KEY, ""), deliveries),
        )
        _insert(connection, "control.deliveries", _DELIVERY_TYPES, deliveries)
        _insert(connection, "control.delivery_files", _FILE_TYPES, files)
        lake_files = [(outcome.lake_path, outcome.lake_sha256) for outcome in outcomes if outcome.lake_sha256]
        _insert(connection, "control.lake_files", {"lake_path": "varchar", "sha256": "varchar"}, lake_files)
        decide_in_force(connection)
        connection.commit()
    except BaseException:
        connection.rollback()
        raise


def _key_values(key: DeliveryKey) -> tuple[str, date, str, int]:
    return key.extract, key.business_date, key.source, key.delivery


def _rows_sql(types: dict[str, str]) -> str:
    return "select " + ", ".join(f"unnest(${name})::{sql_type} as {name}" for name, sql_type in types.items())


def _columns(types: dict[str, str], rows: list[tuple]) -> dict[str, list]:
    return {name: [row[place] for row in rows] for place, name in enumerate(types)}


def _insert(connection: duckdb.DuckDBPyConnection, table: str, types: dict[str, str], rows: list[tuple]) -> None:
    if rows:
        connection.execute(
            f"insert or replace into {table} ({', '.join(types)}) {_rows_sql(types)}",
            _columns(types, rows),
        )


# What can count: accepted and not taken back by `withdrawals.csv`.
_COUNTABLE = """
    select deliveries.*
    from control.deliveries as deliveries
    anti join control.withdrawals as withdrawals
        on
            deliveries.extract = withdrawals.extract
            and deliveries.business_date = withdrawals.business_date
            and deliveries.source = withdrawals.source
            and deliveries.delivery = withdrawals.delivery
    where deliveries.status = 'accepted'
"""


def decide_in_force(connection: duckdb.DuckDBPyConnection) -> None:
    """Rewrite `control.in_force` and the duplicate marks of `control.deliveries`, in the caller's transaction.

    Per (extract, business_date, source) the highest accepted delivery counts that is not withdrawn. For extracts
    whose files may not come twice, a delivery is passed over if one of its files, with rows in it, is in force under
    another date or source; keys are decided in the order (business_date, source), so the earliest keeps the bytes.
    """
    chosen, duplicate_of = _walk_shared_files(connection)
    connection.execute(
        "create or replace temp table walked as select unnest($extract)::varchar as extract, "
        "unnest($business_date)::date as business_date, unnest($source)::varchar as source, "
        "unnest($delivery)::integer as delivery",
        {name: [key[place] for key in chosen] for place, name in enumerate(_KEY)},
    )
    connection.execute(
        "create or replace temp table refused as select unnest($extract)::varchar as extract, "
        "unnest($business_date)::date as business_date, unnest($source)::varchar as source, "
        "unnest($delivery)::integer as delivery, unnest($original)::varchar as original",
        {name: [key[place] for key in duplicate_of] for place, name in enumerate(_KEY)}
        | {"original": list(duplicate_of.values())},
    )
    connection.execute(
        """
        update control.deliveries set duplicate_of = null
        where duplicate_of is not null
            and (extract, business_date, source, delivery)
                not in (select (extract, business_date, source, delivery) from refused)
        """
    )
    connection.execute(
        """
        update control.deliveries set duplicate_of = refused.original
        from refused
        where deliveries.extract = refused.extract and deliveries.business_date = refused.business_date
            and deliveries.source = refused.source and deliveries.delivery = refused.delivery
            and deliveries.duplicate_of is distinct from refused.original
        """
    )
    connection.execute("delete from control.in_force")
    connection.execute(
        f"""
        insert into control.in_force
        with countable as ({_COUNTABLE}),
        highest as (
            select extract, business_date, source, max(delivery) as delivery
            from countable
            where (extract, business_date, source) not in
                (select (extract, business_date, source) from refused)
            group by all
        )
        select
            extract, business_date, source, delivery, manifest_sha256, rows_in, rows_loaded, rows_quarantined,
            rows_duplicate, lake_path, content_digest
        from control.deliveries
        join (from highest union from walked) using (extract, business_date, source, delivery)
        """  # noqa: S608 - the constant above
    )
    connection.execute("drop table walked")
    connection.execute("drop table refused")


def _walk_shared_files(
    connection: duckdb.DuckDBPyConnection,
) -> tuple[list[tuple], dict[tuple, str]]:
    """Decide the keys that share a file with another key; all others need no walk.

    Returns:
        The chosen delivery per key that had a delivery refused, and the refused deliveries with their original.
    """
    rows = connection.execute(
        f"""
        with countable as ({_COUNTABLE}),
        files as (
            select extract, business_date, source, delivery, sha256
            from control.delivery_files
            join countable using (extract, business_date, source, delivery)
            where delivery_files.rows_in > 0 and extract in (select unnest($extracts))
        ),
        shared as (
            select extract, sha256 from files group by all having count(distinct (business_date, source)) > 1
        ),
        touched as (select distinct extract, business_date, source from files join shared using (extract, sha256))
        select
            countable.extract, countable.business_date, countable.source, countable.delivery,
            list(files.sha256) filter (where files.sha256 is not null)
        from countable
        join touched using (extract, business_date, source)
        left join files using (extract, business_date, source, delivery)
        group by all
        order by countable.extract, countable.business_date, countable.source, countable.delivery desc
        """,  # noqa: S608 - the constant above
        {"extracts": [contract.extract for contract in CONTRACTS.values() if contract.refuses_known_bytes]},
    ).fetchall()
    versions: dict[tuple, list[tuple[int, list[str]]]] = defaultdict(list)
    for extract, business_date, source, delivery, digests in rows:
        versions[extract, business_date, source].append((delivery, digests or []))
    owner: dict[tuple[str, str], tuple] = {}
    chosen, duplicate_of = [], {}
    for key, candidates in versions.items():
        refused_here = {}
        for delivery, digests in candidates:
            original = next((owner[key[0], digest] for digest in digests if (key[0], digest) in owner), None)
            if original is None:
                owner.update({(key[0], digest): (*key, delivery) for digest in digests})
                if refused_here:
                    chosen.append((*key, delivery))
                break
            refused_here[*key, delivery] = str(DeliveryKey(*original))
        duplicate_of.update(refused_here)
    return chosen, duplicate_of
