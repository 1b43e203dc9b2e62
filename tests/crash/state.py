"""Everything a stage leaves behind, as values that can be compared; read without cleanbill."""

import hashlib
from pathlib import Path

import duckdb

# Files of marts/ and exports/ that say when, by whom or in which run: not a matter of the data.
WITH_A_CLOCK = (
    *("approval.json", "ledger.jsonl", "ledger.head", ".duckdb", "digests.json"),
    *("mart_info.parquet", "gate_results.parquet"),
)


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
                if name == "step_times":
                    continue  # it is a clock
                rows = connection.execute(f'from "{schema}"."{name}" order by all').fetchall()
                state[name if schema == "control" else f"{database.name} {name}"] = rows
    return state | files_state(home, ("lake/", "quarantine/", "warehouse/"), ("duckdb", ".lock"))


def files_state(home: Path, folders: tuple[str, ...], with_a_clock: tuple[str, ...]) -> dict[str, object]:
    """Return the sha256 of every file below some folders; of files with a clock in them, only that they are there."""
    state: dict[str, object] = {}
    for path in sorted(home.rglob("*")):
        name = path.relative_to(home).as_posix()
        if path.is_file() and name.startswith(folders):
            has_clock = name.endswith(with_a_clock) if with_a_clock else False
            state[name] = "there" if has_clock else hashlib.sha256(path.read_bytes()).hexdigest()
    return state
