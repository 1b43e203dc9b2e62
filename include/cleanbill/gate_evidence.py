"""The rows behind a failed expectation: counted and shown by our own SQL, masked.

Great Expectations would put raw values (phone numbers) into its results; here it only decides.
"""

from dataclasses import dataclass
from typing import Any

import duckdb

from cleanbill.digests import quoted
from cleanbill.masking import mask_msisdn, mask_text
from cleanbill.suites import (
    BETWEEN,
    COLUMN_SET,
    COMPOUND_UNIQUE,
    IN_SET,
    NOT_NULL,
    ROW_COUNT,
    ROWS_QUERY,
    UNIQUE,
    Expectation,
    Suite,
)

MAX_EXAMPLES = 3
MAX_VALUE_LENGTH = 60
MASKED_COLUMNS = frozenset({"msisdn", "contact", "raw_text"})


@dataclass(frozen=True)
class FailingRows:
    """A query that returns the rows an expectation objects to, with its bound values."""

    sql: str
    values: dict[str, Any]


def failing_rows(suite: Suite, expectation: Expectation) -> FailingRows | None:
    """Return the query of the rows that break an expectation; None if it does not speak of rows."""
    kwargs = expectation.kwargs
    if expectation.type == ROWS_QUERY:
        return FailingRows(kwargs["unexpected_rows_query"], {})
    if expectation.type in (ROW_COUNT, COLUMN_SET):
        return None
    columns = list(kwargs.get("column_list") or [kwargs["column"]])
    table = f"{quoted(suite.schema)}.{quoted(suite.table)}"
    shown = ", ".join(quoted(name) for name in dict.fromkeys([*suite.key, *columns]))
    named = ", ".join(quoted(name) for name in columns)
    if expectation.type in (UNIQUE, COMPOUND_UNIQUE):
        any_null = " or ".join(f"{quoted(name)} is null" for name in columns)
        return FailingRows(
            f"select {shown} from {table} where not ({any_null}) qualify count(*) over (partition by {named}) > 1",  # noqa: S608 - names from the suite
            {},
        )
    if expectation.type == NOT_NULL:
        return FailingRows(f"select {shown} from {table} where {named} is null", {})  # noqa: S608
    if expectation.type == IN_SET:
        allowed = [str(value) for value in kwargs["value_set"]]
        return FailingRows(
            f"select {shown} from {table} where not list_contains($allowed, cast({named} as varchar))",  # noqa: S608
            {"allowed": allowed},
        )
    if expectation.type == BETWEEN:
        bounds = {name: kwargs[name] for name in ("min_value", "max_value") if kwargs.get(name) is not None}
        signs = {"min_value": "<", "max_value": ">"}
        outside = " or ".join(f"{named} {signs[name]} ${name}" for name in bounds)
        return FailingRows(f"select {shown} from {table} where {outside}", bounds)  # noqa: S608
    raise NotImplementedError(expectation.type)


def masked_examples(
    connection: duckdb.DuckDBPyConnection, suite: Suite, expectation: Expectation
) -> list[dict[str, str | None]]:
    """Return up to three rows that break an expectation, as text, with every MSISDN masked."""
    rows = failing_rows(suite, expectation)
    if rows is None:
        return []
    cursor = connection.execute(f"select * from ({rows.sql}) limit {MAX_EXAMPLES}", rows.values or None)  # noqa: S608
    columns = [column[0] for column in cursor.description]
    return [{name: _shown(name, value) for name, value in zip(columns, row, strict=True)} for row in cursor.fetchall()]


def expected_text(expectation: Expectation) -> str:
    """Return in words what an expectation asks for."""
    kwargs = expectation.kwargs
    if expectation.type == ROWS_QUERY:
        return "no such row"
    if expectation.type == ROW_COUNT:
        return _bounds_text("rows", kwargs)
    if expectation.type == COLUMN_SET:
        return "columns " + ", ".join(kwargs["column_set"])
    if expectation.type == COMPOUND_UNIQUE:
        return f"unique ({', '.join(kwargs['column_list'])})"
    column = kwargs["column"]
    if expectation.type == UNIQUE:
        return f"unique ({column})"
    if expectation.type == NOT_NULL:
        return f"{column} never null"
    if expectation.type == IN_SET:
        return f"{column} in ({', '.join(str(value) for value in kwargs['value_set'])})"
    return _bounds_text(column, kwargs)


def _bounds_text(subject: str, kwargs: dict[str, Any]) -> str:
    low, high = kwargs.get("min_value"), kwargs.get("max_value")
    if low is not None and high is not None:
        return f"{low} <= {subject} <= {high}"
    return f"{subject} >= {low}" if low is not None else f"{subject} <= {high}"


def _shown(column: str, value: Any) -> str | None:
    if value is None:
        return None
    text = str(value)
    text = mask_msisdn(text) if column in MASKED_COLUMNS else mask_text(text)
    return text if len(text) <= MAX_VALUE_LENGTH else text[: MAX_VALUE_LENGTH - 1] + "…"
