"""The hand-written expectation suites: `expectations/<stage>/<table>.yml`, one per gated table.

A suite is a Great Expectations suite as it stands; what cleanbill adds lies in `meta`:

- suite: `table` (schema.table), `key` (columns that identify a row in examples), `advice` (what to do);
- expectation: `description` (the sentence that must hold; required, unique in its suite), `severity`
  (critical stops, warning reports), `notes` (why), `meta.advice` (what to do, if it differs from the suite's).
"""

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from cleanbill.errors import CleanbillError

STAGES = ("raw", "staging", "marts", "export")
SEVERITIES = ("critical", "warning")
TABLE_PATTERN = re.compile(r"([a-z][a-z0-9_]*)\.([a-z][a-z0-9_]*)")

ROWS_QUERY = "unexpected_rows_expectation"
ROW_COUNT = "expect_table_row_count_to_be_between"
COLUMN_SET = "expect_table_columns_to_match_set"
NOT_NULL = "expect_column_values_to_not_be_null"
UNIQUE = "expect_column_values_to_be_unique"
COMPOUND_UNIQUE = "expect_compound_columns_to_be_unique"
IN_SET = "expect_column_values_to_be_in_set"
BETWEEN = "expect_column_values_to_be_between"
# Those that Great Expectations runs inside DuckDB and for which the gate can show the rows that fail.
SUPPORTED_TYPES = frozenset({ROWS_QUERY, ROW_COUNT, COLUMN_SET, NOT_NULL, UNIQUE, COMPOUND_UNIQUE, IN_SET, BETWEEN})


class SuiteError(CleanbillError):
    """A suite file cannot be used; its gate stays shut."""


@dataclass(frozen=True)
class Expectation:
    """One sentence that must hold for a table."""

    type: str
    description: str
    severity: str
    advice: str
    notes: str
    kwargs: dict[str, Any]


@dataclass(frozen=True)
class Suite:
    """What must hold for one table at one stage border."""

    stage: str
    name: str
    path: Path
    schema: str
    table: str
    key: tuple[str, ...]
    notes: str
    expectations: tuple[Expectation, ...] = field(default_factory=tuple)

    @property
    def qualified_table(self) -> str:
        return f"{self.schema}.{self.table}"


def suite_paths(folder: Path, stage: str) -> list[Path]:
    """Return the suite files of a stage, sorted by name."""
    return sorted((folder / stage).glob("*.yml"))


def load_suite(path: Path, stage: str) -> Suite:
    """Read one suite file.

    Raises:
        SuiteError: it is not YAML, misses a field, or names an expectation the gate cannot run inside DuckDB.
    """
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as error:
        raise _unusable(path, "a readable YAML file", type(error).__name__) from error
    if not isinstance(document, dict):
        raise _unusable(path, "a mapping with name, meta and expectations", type(document).__name__)
    meta = document.get("meta") or {}
    table = TABLE_PATTERN.fullmatch(str(meta.get("table", "")))
    if table is None:
        raise _unusable(path, "meta.table as schema.table", repr(meta.get("table")))
    if document.get("name") != path.stem or table.group(2) != path.stem:
        raise _unusable(path, f"name and table {path.stem}", f"{document.get('name')!r} and {table.group(2)!r}")
    written = document.get("expectations")
    if not isinstance(written, list) or not written:
        raise _unusable(path, "at least one expectation", repr(written))
    expectations = tuple(_load_expectation(path, meta, entry) for entry in written)
    descriptions = [expectation.description for expectation in expectations]
    if len(set(descriptions)) != len(descriptions):
        raise _unusable(path, "a description of its own for each expectation", "the same one twice")
    return Suite(
        stage=stage,
        name=path.stem,
        path=path,
        schema=table.group(1),
        table=table.group(2),
        key=tuple(meta.get("key") or ()),
        notes=str(document.get("notes") or ""),
        expectations=expectations,
    )


def _load_expectation(path: Path, meta: dict[str, Any], entry: Any) -> Expectation:
    if not isinstance(entry, dict):
        raise _unusable(path, "a mapping for each expectation", type(entry).__name__)
    kind, description, severity = entry.get("type"), entry.get("description"), entry.get("severity")
    if kind not in SUPPORTED_TYPES:
        raise _unusable(path, f"a type among {', '.join(sorted(SUPPORTED_TYPES))}", repr(kind))
    if not isinstance(description, str) or not description.strip():
        raise _unusable(path, f"a description of {kind}", repr(description))
    if severity not in SEVERITIES:
        raise _unusable(path, f"severity critical or warning for '{description}'", repr(severity))
    advice = (entry.get("meta") or {}).get("advice") or meta.get("advice")
    if not advice:
        raise _unusable(path, f"meta.advice for '{description}'", "none")
    return Expectation(
        type=kind,
        description=description.strip(),
        severity=severity,
        advice=" ".join(str(advice).split()),
        notes=str(entry.get("notes") or ""),
        kwargs=dict(entry.get("kwargs") or {}),
    )


def _unusable(path: Path, expected: str, found: str) -> SuiteError:
    return SuiteError(
        where=f"expectations/{path.parent.name}/{path.name}",
        expected=expected,
        found=found,
        advice="correct the suite; a gate with a suite that cannot be read stays shut",
    )
