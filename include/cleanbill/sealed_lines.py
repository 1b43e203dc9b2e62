"""Read back what sealed versions billed, line by line: charges of version 1, adjustments of the later ones."""

import re
from typing import Any

import duckdb

from cleanbill.feed_files import ADJUSTMENT_COLUMNS, CHARGE_COLUMNS
from cleanbill.feed_versions import SealedVersion

LINE_FILE = re.compile(r"(charges|adjustments)_[0-9]{6}_(.+)_[0-9]{3,}\.csv\.gz")
KINDS = {
    "charges": (CHARGE_COLUMNS, "fee_li", "fee_li"),
    "adjustments": (ADJUSTMENT_COLUMNS, "new_li", "delta_li"),
}
SEALED_LINES_DDL = """
create or replace temp table sealed_lines (
    version integer,
    province_part varchar,               -- the province as it stands in the file name
    msisdn varchar,
    sp_code varchar,
    service_code varchar,
    subscription_id varchar,
    charged_li bigint,                   -- what the line is charged from this version on
    delta_li bigint                      -- what this version added to it
)
"""


def line_files(manifest: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the entries of a manifest that are files of charge or adjustment lines."""
    return [entry for entry in manifest["files"] if LINE_FILE.fullmatch(entry["name"])]


def total_li(manifest: dict[str, Any]) -> int:
    """Return what a version adds to the bill of its month, as its manifest states it."""
    return sum(entry["fee_li"] for entry in line_files(manifest))


def load_sealed_lines(
    connection: duckdb.DuckDBPyConnection, versions: list[tuple[SealedVersion, dict[str, Any]]]
) -> None:
    """Read the lines of some verified versions (with their manifests) into the temporary table `sealed_lines`."""
    connection.execute(SEALED_LINES_DDL)
    for sealed, manifest in versions:
        for entry in line_files(manifest):
            kind, province_part = LINE_FILE.fullmatch(entry["name"]).groups()
            columns, charged, delta = KINDS[kind]
            types = ", ".join(f"'{column}': 'varchar'" for column in columns)
            connection.execute(
                f"""
                insert into sealed_lines
                select
                    $version, $province_part, msisdn, sp_code, service_code, subscription_id,
                    cast({charged} as bigint), cast({delta} as bigint)
                from read_csv(
                    $path, columns = {{{types}}}, header = true, auto_detect = false, delim = ',', quote = '',
                    escape = '', compression = 'gzip'
                )
                """,  # noqa: S608 - columns are constants
                {"version": sealed.version, "province_part": province_part, "path": str(sealed.folder / entry["name"])},
            )
