"""The process in which an analyst's SELECT runs: no files, no network, no environment, bounded memory and time.

Started by `cleanbill.query` with a JSON request on standard input; answers with JSON on standard output. A process of
its own, because a text function can ask for memory that DuckDB's limit does not count: the system refuses it here, and
only this process ends. Imports nothing of cleanbill, so that it starts fast.
"""

import json
import resource
import sys
import threading
from typing import Any

import duckdb

NATIVE_TYPES = (bool, int, float, str, type(None))


def answer(request: dict[str, Any]) -> dict[str, Any]:
    """Run one statement and return columns, types and up to `max_rows` rows, or the class and text of the error."""
    connection = duckdb.connect(
        request["database"],
        read_only=True,
        config={
            "threads": request["threads"],
            "memory_limit": f"{request['memory_mb']}MB",
            "autoinstall_known_extensions": False,
            "autoload_known_extensions": False,
            "allow_community_extensions": False,
        },
    )
    # In this order: without a temporary folder nothing spills, then no file is reachable, then nothing can be changed.
    for setting in ("temp_directory = ''", "enable_external_access = false", "lock_configuration = true"):
        connection.execute(f"set {setting}")
    statements = connection.extract_statements(request["sql"])
    if len(statements) != 1 or statements[0].type != duckdb.StatementType.SELECT:
        return {"error": "NotOneSelect", "text": "the engine reads this text as something else than one SELECT"}
    timer = threading.Timer(request["seconds"], connection.interrupt)
    timer.start()
    try:
        cursor = connection.execute(statements[0])
        columns = [column[0] for column in cursor.description]
        types = [str(column[1]) for column in cursor.description]
        rows = cursor.fetchmany(request["max_rows"] + 1)
    finally:
        timer.cancel()
        connection.close()
    return {
        "columns": columns,
        "types": types,
        "rows": [[_plain(value) for value in row] for row in rows[: request["max_rows"]]],
        "is_cut": len(rows) > request["max_rows"],
    }


def _plain(value: Any) -> Any:
    return value if isinstance(value, NATIVE_TYPES) else str(value)


def main() -> None:
    """Limit this process, answer one request, end."""
    request = json.load(sys.stdin)
    limit = request["process_mb"] * 1024 * 1024
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))  # not one byte reaches any file
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    try:
        result = answer(request)
    except (duckdb.Error, MemoryError, RuntimeError) as error:
        result = {"error": type(error).__name__, "text": str(error)}
    json.dump(result, sys.stdout, ensure_ascii=True)


if __name__ == "__main__":
    main()
