"""Compare what the pipeline made with the oracle, row for row, and say readably where they differ."""

import csv
import gzip
import json
import math
import os
from datetime import date, datetime
from pathlib import Path

import duckdb

from tests.oracle.feed import CHARGE_COLUMNS, EXCLUSION_COLUMNS, Feed, first_feed
from tests.oracle.landing import Landing
from tests.oracle.marts import COLUMNS, GRAIN, Oracle

SHOWN = 8  # differing rows shown per table and kind


def read_table(connection: duckdb.DuckDBPyConnection, table: str) -> tuple[list, list] | None:
    """Return (columns, rows) of a mart, from schema `marts` of a warehouse or `main` of a published file."""
    found = connection.execute(
        "select table_schema from information_schema.tables "
        "where table_name = ? and table_schema in ('marts', 'main') and table_catalog = current_database() "
        "order by table_schema = 'main' limit 1",
        [table],
    ).fetchone()
    if found is None:
        return None
    result = connection.execute(f'select * from "{found[0]}"."{table}"')
    return [column[0] for column in result.description], result.fetchall()


def differences(table: str, expected: list, columns: list, actual: list) -> list:
    """Return readable lines: wrong columns, missing rows, extra rows, rows of one grain that differ."""
    if columns != COLUMNS[table]:
        return [f"{table}: expected columns {COLUMNS[table]}, found {columns}"]
    key_at = [COLUMNS[table].index(column) for column in GRAIN[table]]
    lines = []
    wanted, got = {}, {}
    for name, rows, by_key in (("oracle", expected, wanted), ("mart", actual, got)):
        for row in rows:
            key = tuple(row[index] for index in key_at)
            if key in by_key:
                lines.append(f"{table}: {name} has two rows of grain {show(GRAIN[table], key)}")
            by_key[key] = row
    for title, keys, rows in (
        ("missing in the mart", wanted.keys() - got.keys(), wanted),
        ("not in the oracle", got.keys() - wanted.keys(), got),
    ):
        if keys:
            lines.append(f"{table}: {len(keys)} rows {title} (oracle {len(wanted)}, mart {len(got)})")
            lines += [f"    {show(COLUMNS[table], rows[key])}" for key in sorted(keys, key=sortable)[:SHOWN]]
    changed = [key for key in wanted.keys() & got.keys() if not same(wanted[key], got[key])]
    if changed:
        lines.append(f"{table}: {len(changed)} rows differ")
        for key in sorted(changed, key=sortable)[:SHOWN]:
            pairs = zip(COLUMNS[table], wanted[key], got[key], strict=True)
            cells = [
                f"{column}: oracle {plain(left)!r}, mart {plain(right)!r}"
                for column, left, right in pairs
                if not same((left,), (right,))
            ]
            lines.append(f"    {show(GRAIN[table], key)} -> {'; '.join(cells)}")
    return lines


def same(left: tuple, right: tuple) -> bool:
    """Compare values and their kinds: a date is no timestamp, a whole number no boolean, text or decimal.

    Measures (never money) may differ in the digits that rounding hides.
    """
    return all(
        type(one) is type(other) and (one == other or (isinstance(one, float) and is_close(one, other)))
        for one, other in zip(left, right, strict=True)
    )


def is_close(left: float, right: float) -> bool:
    return math.isclose(left, right, rel_tol=0.01, abs_tol=0.06)


def sortable(key: tuple) -> list:
    return [(value is None, str(value)) for value in key]


def plain(value: object) -> object:
    return str(value) if isinstance(value, (date, datetime)) else value


def show(columns: list, row: tuple) -> str:
    return ", ".join(f"{column}={plain(value)}" for column, value in zip(columns, row, strict=True))


def pseudonym_key() -> str:
    """Return the key under test."""
    return os.environ["CLEANBILL_PSEUDONYM_KEY"]


def compare_marts(oracle: Oracle, database: Path, tables: list | None = None) -> list:
    """Return the differences of every mart (a mart absent from the file is one, except sp_settlement)."""
    lines = []
    connection = duckdb.connect(str(database), read_only=True)
    try:
        for table in tables or COLUMNS:
            found = read_table(connection, table)
            if found is None:
                if table != "sp_settlement":
                    lines.append(f"{table}: not in {database.name}")
                continue
            lines += differences(table, oracle.tables[table], *found)
    finally:
        connection.close()
    return lines


def assert_marts_equal(
    home: Path, database: Path, as_of: date | None = None, tables: list | None = None, landing: Landing | None = None
) -> Oracle:
    """Fail with a readable list unless every mart equals the oracle's; return the oracle.

    Args:
        home: data root with landing/ and the reference files.
        database: warehouse or published DuckDB file.
        as_of: as-of date the marts were built for; None: the default of the contract.
        tables: only these marts.
        landing: deliveries already read by the oracle's reader.
    """
    oracle = Oracle(home, pseudonym_key(), as_of, landing)
    lines = compare_marts(oracle, database, tables)
    assert not lines, f"marts differ from the oracle at as-of {oracle.as_of}:\n" + "\n".join(lines)
    return oracle


def read_csv(path: Path) -> tuple[list, list]:
    """Return (header, rows of text) of a plain or gzipped CSV file."""
    raw = path.read_bytes()
    text = (gzip.decompress(raw) if path.suffix == ".gz" else raw).decode("utf-8")
    rows = [tuple(row) for row in csv.reader(text.splitlines())]
    return list(rows[0]), rows[1:]


def compare_feed(feed: Feed, folder: Path) -> list:
    """Return the differences between a feed folder (draft, approved or sealed) and the oracle's feed."""
    lines = []
    month = folder_month(folder)
    charges: dict = {}
    for path in sorted(folder.glob("charges_*.csv.gz")):
        province = path.name.removeprefix(f"charges_{month}_").rsplit("_", 1)[0]
        header, rows = read_csv(path)
        if header != CHARGE_COLUMNS:
            lines.append(f"{path.name}: expected columns {CHARGE_COLUMNS}, found {header}")
        charges.setdefault(province, []).extend(rows)
    for province in sorted(charges.keys() | feed.charges.keys()):
        lines += compare_lines(f"charges {province}", feed.charges.get(province, []), charges.get(province, []))
    header, rows = read_csv(folder / f"exclusions_{month}.csv.gz")
    if header != EXCLUSION_COLUMNS:
        lines.append(f"exclusions: expected columns {EXCLUSION_COLUMNS}, found {header}")
    lines += compare_lines("exclusions", feed.exclusions, rows)
    header, rows = read_csv(folder / f"settlement_{month}.csv")
    expected = sorted(tuple(str(plain("" if row[c] is None else row[c])) for c in header) for row in feed.settlement)
    lines += compare_lines("settlement", expected, sorted(rows))
    _, rows = read_csv(folder / "inputs.csv.gz")
    lines += compare_lines("inputs", feed.inputs, sorted(rows, key=lambda row: row[:3]))
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    if manifest["as_of"] != feed.as_of.isoformat():
        lines.append(f"manifest: expected as_of {feed.as_of}, found {manifest['as_of']}")
    found = {code: (one["count"], one["fee_li"]) for code, one in manifest["dispositions"].items() if one["count"] > 0}
    if found != feed.dispositions:
        lines.append(f"manifest: expected dispositions {feed.dispositions}, found {found}")
    return lines


def folder_month(folder: Path) -> str:
    """Return YYYYMM, taken from the name of the exclusions file."""
    names = sorted(path.name for path in folder.glob("exclusions_*.csv.gz"))
    assert names, f"{folder}: no exclusions file"
    return names[0].removeprefix("exclusions_").removesuffix(".csv.gz")


def compare_lines(title: str, expected: list, actual: list) -> list:
    """Compare two ordered lists of rows of text."""
    if expected == actual:
        return []
    lines = [f"{title}: oracle {len(expected)} rows, feed {len(actual)} rows"]
    lines += [f"    missing: {row}" for row in sorted(set(expected) - set(actual))[:SHOWN]]
    lines += [f"    extra:   {row}" for row in sorted(set(actual) - set(expected))[:SHOWN]]
    if set(expected) == set(actual):
        lines.append("    same rows, other order or number")
    return lines


def assert_feed_equal(home: Path, folder: Path, month: date, landing: Landing | None = None) -> Feed:
    """Fail with a readable list unless the feed folder of a month equals the oracle's v1; return the oracle's."""
    feed = first_feed(home, pseudonym_key(), month, landing)
    lines = compare_feed(feed, folder)
    assert not lines, f"feed of {month:%Y-%m} differs from the oracle:\n" + "\n".join(lines)
    return feed
