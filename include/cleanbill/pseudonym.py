"""Keyed pseudonyms: HMAC-SHA256 (RFC 2104), in Python and as DuckDB session variables.

Why keyed: the numbers of a whole country can be enumerated in minutes, so a plain hash hides nobody.
"""

import hashlib
import hmac
from typing import Any

HEX_DIGITS = 32  # 3-marts: the first 32 hex digits
BLOCK_SIZE = 64  # of SHA-256, in bytes


def pseudonym(text: str, key: bytes) -> str:
    """Return the pseudonym of `text`: the first 32 hex digits of HMAC-SHA256(key, UTF-8 text)."""
    return hmac.new(key, text.encode("utf-8"), hashlib.sha256).hexdigest()[:HEX_DIGITS]


def pseudonym_sql(text: str) -> str:
    """Return the SQL of `pseudonym(text, key)` on a connection whose key variables are set (the dbt macro is the same).

    Args:
        text: a column name.
    """
    return (
        "left(sha256(getvariable('pseudonym_outer') || unhex(sha256("
        f"getvariable('pseudonym_inner') || encode({text})))), {HEX_DIGITS})"
    )


def set_key_variables(connection: Any, key: bytes) -> None:
    """Set `pseudonym_inner` and `pseudonym_outer` on a DuckDB connection for the dbt macro `pseudonym`.

    SQL: left(sha256(outer || unhex(sha256(inner || encode(text)))), 32) equals `pseudonym(text, key)`.
    """
    block = (hashlib.sha256(key).digest() if len(key) > BLOCK_SIZE else key).ljust(BLOCK_SIZE, b"\0")
    connection.execute("set variable pseudonym_inner = $1", [bytes(byte ^ 0x36 for byte in block)])
    connection.execute("set variable pseudonym_outer = $1", [bytes(byte ^ 0x5C for byte in block)])
