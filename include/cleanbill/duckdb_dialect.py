"""The one repair that lets Great Expectations run its checks inside DuckDB.

Great Expectations 1.24 has no DuckDB data source; it reaches DuckDB through SQLAlchemy and duckdb-engine 0.17.
There every expectation fails with `list index out of range`: Great Expectations gives the connection back before
it fetches, SQLAlchemy then rolls back, and in DuckDB a rollback discards the open result. A gate only reads, so
it needs no transactions at all: this dialect makes begin, commit and rollback do nothing.

It also borrows a connection that cleanbill has opened (read-only, with the limits and the lock waiting of
`control.open_warehouse`) instead of opening one itself, so that nothing is left open after a gate.

`tests/unit/test_duckdb_dialect.py` tells when duckdb-engine or Great Expectations makes the repair needless.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

import duckdb
from duckdb_engine import ConnectionWrapper, Dialect
from sqlalchemy.dialects import registry

DRIVER = "cleanbill"
URL = f"duckdb+{DRIVER}://"


class BorrowedConnectionDialect(Dialect):
    """duckdb-engine's dialect without transactions, over a connection that its owner opened and closes."""

    driver = DRIVER
    supports_statement_cache = False
    lender: ClassVar[duckdb.DuckDBPyConnection | None] = None
    lent: ClassVar[list[duckdb.DuckDBPyConnection]] = []

    def connect(self, *_arguments: Any, **_options: Any) -> ConnectionWrapper:
        """Return a second handle on the lent database; what the URL says is not looked at."""
        if BorrowedConnectionDialect.lender is None:
            raise RuntimeError("no DuckDB connection is lent: use duckdb_dialect.lend()")
        handle = BorrowedConnectionDialect.lender.cursor()
        BorrowedConnectionDialect.lent.append(handle)
        return ConnectionWrapper(handle)

    def do_begin(self, _connection: Any) -> None:
        """Begin nothing: each statement reads on its own."""

    def do_commit(self, _connection: Any) -> None:
        """Commit nothing: there is nothing written."""

    def do_rollback(self, _connection: Any) -> None:
        """Roll nothing back: it would discard the result that is about to be read."""


registry.register(f"duckdb.{DRIVER}", __name__, BorrowedConnectionDialect.__name__)


@contextmanager
def lend(connection: duckdb.DuckDBPyConnection) -> Iterator[str]:
    """Lend an open connection to SQLAlchemy; yields the URL under which it is reached.

    All handles are closed at the end, so that the database file is free once its owner closes the connection.
    """
    BorrowedConnectionDialect.lender = connection
    try:
        yield URL
    finally:
        BorrowedConnectionDialect.lender = None
        while BorrowedConnectionDialect.lent:
            BorrowedConnectionDialect.lent.pop().close()
