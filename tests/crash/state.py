"""Everything a stage leaves behind, as values that can be compared; read without cleanbill."""

import hashlib
from pathlib import Path

import duckdb


def ingest_state(home: Path) -> dict[str, object]:
    """Return the recorded deliveries, the content of lake and quarantine, and the name of every other file.

    Names of leftovers (temporary files, locks that are held) make two states differ.
    """
    state: dict[str, object] = {}
    for database in (home / "warehouse" / "cleanbill.duckdb", home / "lake" / "deliveries.duckdb"):
        with duckdb.connect(str(database), read_only=True) as connection:
            names = connection.execute(
                "select table_schema, table_name from information_schema.tables order by all"
            ).fetchall()
            for schema, name in names:
                rows = connection.execute(f'from "{schema}"."{name}" order by all').fetchall()
                state[name if schema == "control" else f"{database.name} {name}"] = rows
    for path in sorted(home.rglob("*")):
        name = str(path.relative_to(home))
        if path.is_file() and not name.startswith("landing/"):
            is_plain = path.suffix in (".parquet", ".csv")
            state[name] = hashlib.sha256(path.read_bytes()).hexdigest() if is_plain else "there"
    return state
