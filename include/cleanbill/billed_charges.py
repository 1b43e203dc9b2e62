"""What was really billed, version by version: the lines of the sealed feeds in `exports/`, taken in once each.

The source is what the billing system got, not what the warehouse would bill today; so it survives the loss of the
warehouse, and a version that was sealed never changes here.
"""

from datetime import date
from typing import Any

import duckdb

from cleanbill import feed_files, sealed_lines
from cleanbill.errors import FeedError
from cleanbill.feed_versions import SealedVersion, released_months, sealed_versions
from cleanbill.pseudonym import pseudonym_sql, set_key_variables
from cleanbill.settings import Settings

LINES_SQL = f"""
insert into control.billed_lines
select
    $month,
    version,
    subscription_id,
    {pseudonym_sql("msisdn")},
    sp_code,
    service_code,
    charged_li,
    delta_li,
    $sealed_on
from sealed_lines
order by subscription_id
"""  # noqa: S608 - a constant


def absorb_sealed(connection: duckdb.DuckDBPyConnection, settings: Settings) -> int:
    """Bring `control.billed_lines` in line with `exports/`: new versions in, removed ones out; return how many changed.

    Only versions not taken in yet are read, so the cost does not follow history.

    Args:
        connection: the warehouse, open for writing, outside a transaction.
        settings: the installation; its key makes the subscriber ids.

    Raises:
        FeedError: a version is damaged, or is not the one taken in before.
    """
    sealed = {
        (one.month, one.version): one for month in released_months(settings) for one in sealed_versions(month, settings)
    }
    known = {
        (month, version): (manifest_sha256, key_digest)
        for month, version, manifest_sha256, key_digest in connection.execute(
            "select billing_month, version, manifest_sha256, key_digest from control.billed_versions"
        ).fetchall()
    }
    key_digest = feed_files.key_digest(settings)
    gone = [one for one in known if one not in sealed or known[one][1] != key_digest]
    for month, version in gone:
        _forget(connection, month, version)
    new = [sealed[one] for one in sorted(sealed) if one not in known or one in gone]
    for one in sealed:
        if one in known and one not in gone:
            _require_the_same(sealed[one], known[one][0])
    for one in new:
        _absorb(connection, one, settings)
    return len(gone) + len(new)


def _forget(connection: duckdb.DuckDBPyConnection, month: date, version: int) -> None:
    connection.execute("begin")
    for table in ("billed_lines", "billed_versions"):
        connection.execute(
            f"delete from control.{table} where billing_month = $month and version = $version",  # noqa: S608 - two names
            {"month": month, "version": version},
        )
    connection.execute("commit")


def _require_the_same(sealed: SealedVersion, manifest_sha256: str) -> None:
    _, found = feed_files.read_manifest(sealed.folder)
    if found != manifest_sha256:
        raise FeedError(
            where=str(sealed.folder / feed_files.MANIFEST),
            expected=f"the manifest with sha256 {manifest_sha256} that was taken in when it was sealed",
            found=f"sha256 {found}",
            advice=feed_files.DAMAGED,
        )


def _absorb(connection: duckdb.DuckDBPyConnection, sealed: SealedVersion, settings: Settings) -> None:
    manifest, manifest_sha256 = feed_files.verify_version(sealed.folder)
    sealed_on = approval_day(feed_files.read_approval(sealed.folder), sealed)
    set_key_variables(connection, settings.pseudonym_key_bytes())
    sealed_lines.load_sealed_lines(connection, [(sealed, manifest)])
    lines, delta_li = connection.execute(
        "select count(*), coalesce(sum(delta_li), 0)::hugeint from sealed_lines"
    ).fetchone()
    if int(delta_li) != sealed_lines.total_li(manifest):
        raise FeedError(
            where=str(sealed.folder),
            expected=f"lines that add up to {sealed_lines.total_li(manifest)} li, as its manifest says",
            found=f"{int(delta_li)} li",
            advice=feed_files.DAMAGED,
        )
    connection.execute("begin")
    connection.execute(LINES_SQL, {"month": sealed.month, "sealed_on": sealed_on})
    connection.execute(
        "insert into control.billed_versions values ($1, $2, $3, $4, $5, $6, $7)",
        [
            sealed.month,
            sealed.version,
            manifest_sha256,
            feed_files.key_digest(settings),
            lines,
            int(delta_li),
            sealed_on,
        ],
    )
    connection.execute("commit")
    connection.execute("drop table sealed_lines")


def approval_day(approval: dict[str, Any], sealed: SealedVersion) -> date:
    """Return the day of a version's approval (Asia/Shanghai), the date under which analysts see it.

    Raises:
        FeedError: the approval has no such day.
    """
    try:
        return date.fromisoformat(str(approval["approved_at"])[:10])
    except ValueError as error:
        raise FeedError(
            where=str(sealed.folder / feed_files.APPROVAL),
            expected="approved_at as an ISO 8601 time",
            found=repr(approval["approved_at"])[:60],
            advice=feed_files.DAMAGED,
        ) from error
