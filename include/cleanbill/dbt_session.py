"""dbt-duckdb plugin: hands the pseudonym key to every DuckDB session of a dbt run.

The key becomes two session variables, the inner and the outer pad of HMAC-SHA256 (RFC 2104), so that it is
never part of SQL text, compiled artefacts or logs. The macro `pseudonym` uses them.
"""

from typing import Any

from dbt.adapters.duckdb.plugins import BasePlugin

from cleanbill.pseudonym import set_key_variables
from cleanbill.settings import get_settings


class Plugin(BasePlugin):
    """Found by dbt-duckdb under this name."""

    def configure_cursor(self, cursor: Any) -> None:
        """Set the key variables on each copy of the connection (variables do not pass to copies)."""
        set_key_variables(cursor, get_settings().pseudonym_key_bytes())
