"""Freeze what one billing month needs out of a build into `warehouse/billing/<YYYY-MM>/feed.duckdb`.

The frozen file is the only thing the export gate and the feed writer look at: what was checked is what is written,
whatever the warehouse does meanwhile. It holds true MSISDNs and is readable by its owner only.
"""

import os
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import duckdb

from cleanbill.adjustments import freeze_adjustments
from cleanbill.build import inputs_digest, newest_complete_date
from cleanbill.control import WAREHOUSE_STORAGE_VERSION, open_warehouse
from cleanbill.day_ranges import as_ranges, in_words
from cleanbill.digests import deliveries_digest, policy_digest
from cleanbill.errors import BillingBlocked, FeedError
from cleanbill.feed_versions import SealedVersion
from cleanbill.reference_inputs import load_reference_inputs
from cleanbill.settings import Settings

CHARGES_SQL = """
create table feed.main.charges as
select
    spells.msisdn,
    dispositions.sp_code,
    dispositions.service_code,
    dispositions.subscription_id,
    dispositions.province,
    dispositions.billing_month,
    dispositions.charged_li as fee_li,
    cast(dispositions.billing_month as timestamp) as charge_time
from marts.billing_dispositions as dispositions
inner join intermediate.int_spells as spells on dispositions.subscription_id = spells.subscription_id
where dispositions.billing_month = $month and dispositions.disposition = 'billed'
order by spells.msisdn, dispositions.sp_code, dispositions.service_code, dispositions.subscription_id
"""

EXCLUSIONS_SQL = """
create table feed.main.exclusions as
select
    spells.msisdn,
    dispositions.sp_code,
    dispositions.service_code,
    dispositions.subscription_id,
    dispositions.billing_month,
    dispositions.fee_li,
    dispositions.disposition,
    dispositions.reason
from marts.billing_dispositions as dispositions
inner join intermediate.int_spells as spells on dispositions.subscription_id = spells.subscription_id
where dispositions.billing_month = $month and dispositions.disposition <> 'billed'
order by spells.msisdn, dispositions.sp_code, dispositions.service_code, dispositions.subscription_id
"""

SETTLEMENT_SQL = """
create table feed.main.settlement as
select
    sp_code,
    billing_month,
    gross_li,
    errors_li,
    audited_li,
    stopped_li,
    closed_li,
    abnormal_li,
    silent_li,
    price_per_message_li,
    refunds_li,
    penalties_li,
    double_refunds_li,
    other_li,
    to_settle_li,
    operator_share_li,
    sp_share_li,
    status,
    hold_reason
from marts.sp_settlement
where billing_month = $month
order by sp_code
"""

# Deliveries after A do not exist; what is in force up to A never depends on later ones.
INPUTS_SQL = """
select
    extract,
    business_date as date,
    source,
    delivery,
    manifest_sha256 as sha256
from control.in_force
where business_date <= $as_of
order by extract, business_date, source
"""

DISPOSITIONS_SQL = """
create table feed.main.dispositions as
select
    billing_month,
    subscription_id,
    subscriber_id,
    sp_code,
    service_code,
    province,
    disposition,
    reason,
    fee_li,
    charged_li
from marts.billing_dispositions
where billing_month = $month
order by subscription_id
"""

# The waivers that count at A: a waived day after A is no business of this bill.
WAIVERS_SQL = """
select distinct
    extract,
    source,
    day,
    reason,
    requested_by,
    approved_by,
    expires_on
from control.waivers
where day <= $as_of and expires_on >= $as_of
order by all
"""

EXPECTED_PAIRS_SQL = """
select
    extract,
    source,
    schedule,
    valid_from,
    case when valid_to < $as_of then valid_to end as valid_to
from control.expected_pairs
where valid_from <= $as_of
order by all
"""

DIFFERING_DELIVERIES_SQL = """
with in_force as (
    select extract, business_date, source, delivery, lake_path from control.in_force where business_date <= $as_of
),

absorbed as (
    select extract, business_date, source, delivery, lake_path from control.absorbed
)

select count(*)
from (
    (select * from in_force except select * from absorbed)
    union all
    (select * from absorbed except select * from in_force)
) as differing
"""

FEED_INFO_SQL = """
create table feed.main.feed_info as
select
    cast($month as date) as billing_month,
    cast($version as integer) as version,
    cast($as_of as date) as as_of,
    cast($base_as_of as date) as base_as_of,
    cast($inputs_digest as varchar) as inputs_digest,
    cast($policy_digest as varchar) as policy_digest,
    (
        select count(*)
        from intermediate.int_silence
        where billing_month = $month and verdict = 'unknown' and before_data_start
    ) as before_data_start,
    exists (
        select 1
        from control.deliveries
        where identity = 'opaque' and status = 'accepted' and business_date <= $as_of
    ) or exists (
        select 1 from feed.main.billed_before where not regexp_full_match(msisdn, '1[0-9]{10}')
    ) as has_opaque_identities
"""


@dataclass(frozen=True)
class FrozenMonth:
    """What a freeze wrote: charges, their sum in li, exclusions, adjustments and their sum in li."""

    charges: int
    charged_li: int
    exclusions: int
    adjustments: int
    adjusted_li: int


def billing_as_of(month: date) -> date:
    """Return A of version 1 of billing month M: the last day of M−1."""
    return month - timedelta(days=1)


def adjustment_as_of(connection: duckdb.DuckDBPyConnection, settings: Settings, base_as_of: date) -> date:
    """Return A of the next version: the newest date on which every expected pair is delivered, by what is known now.

    It never goes behind the as-of date of the last sealed version. Nothing is written.
    """
    connection.execute("begin")
    try:
        load_reference_inputs(connection, settings)
        newest = newest_complete_date(connection)
    finally:
        connection.execute("rollback")
    return base_as_of if newest is None else max(base_as_of, newest)


def warehouse_serves(connection: duckdb.DuckDBPyConnection, as_of: date, settings: Settings) -> bool:
    """Tell whether the warehouse, open for writing, holds the finished build at `as_of` of everything as it is now.

    False when nothing was built, at another as-of, when a build was begun and not ended, and when deliveries within
    `as_of`, policy, models, the key or a reference file changed since. Nothing is written.
    """
    state = connection.execute("select as_of_date, inputs_digest from control.absorbed_state").fetchone()
    if state is None or state[0] != as_of:
        return False
    if connection.execute("select count(*) from control.build_under_way").fetchone()[0]:
        return False
    built_with = _reference_rows(connection, as_of)
    connection.execute("begin")
    try:
        load_reference_inputs(connection, settings)
        differing = connection.execute(DIFFERING_DELIVERIES_SQL, {"as_of": as_of}).fetchone()[0]
        is_same = not differing and _reference_rows(connection, as_of) == built_with
        return is_same and inputs_digest(connection, settings, as_of) == state[1]
    finally:
        connection.execute("rollback")


def _reference_rows(connection: duckdb.DuckDBPyConnection, as_of: date) -> list[list[tuple]]:
    """Return expected pairs and waivers as far as they matter at `as_of` (test numbers are in the inputs digest)."""
    return [connection.execute(query, {"as_of": as_of}).fetchall() for query in (EXPECTED_PAIRS_SQL, WAIVERS_SQL)]


def require_inputs(connection: duckdb.DuckDBPyConnection, month: date) -> None:
    """Refuse a month for which nothing at all was delivered, before a build is spent on it.

    Raises:
        BillingBlocked: no delivery in force has a business date in M−1.
    """
    as_of = billing_as_of(month)
    newest = connection.execute(
        "select max(business_date) from control.in_force where business_date <= $as_of", {"as_of": as_of}
    ).fetchone()[0]
    if newest is not None and newest >= as_of.replace(day=1):
        return
    raise BillingBlocked(
        where=f"billing month {month:%Y-%m}",
        expected=f"deliveries in force for the days up to {as_of}",
        found=f"none newer than {newest}" if newest else "none at all",
        advice=f"land the extracts of {as_of:%Y-%m}, then `cleanbill run --from {as_of:%Y-%m}-01 --to {as_of}`",
    )


def freeze_month(
    source: Path | None,
    target: Path,
    month: date,
    settings: Settings,
    as_of: date,
    base: list[tuple[SealedVersion, dict[str, Any]]],
) -> FrozenMonth:
    """Copy the rows of billing month M from a build into the new file `target` (mode 0600, flushed to disk).

    Args:
        source: a scratch build, or None for the warehouse itself.
        target: file to write; must not exist.
        month: first day of M.
        settings: the installation.
        as_of: the as-of date the build was made for.
        base: the sealed versions of the month, with their manifests; the frozen month is the next one.

    Raises:
        BillingBlocked: the build names missing days or undecided silences that are not waived.
        FeedError: a disposition has no spell, so a charge would be lost.
    """
    with open_warehouse(settings, path=source, read_only=True) as connection:
        require_unblocked(connection, month)
        connection.execute(
            f"attach $target as feed (read_write, storage_version '{WAREHOUSE_STORAGE_VERSION}')",
            {"target": str(target)},
        )
        connection.execute(CHARGES_SQL, {"month": month})
        connection.execute(EXCLUSIONS_SQL, {"month": month})
        connection.execute(SETTLEMENT_SQL, {"month": month})
        connection.execute(DISPOSITIONS_SQL, {"month": month})
        connection.execute("create table feed.main.inputs as " + INPUTS_SQL, {"as_of": as_of})
        connection.execute("create table feed.main.waivers as " + WAIVERS_SQL, {"as_of": as_of})
        adjustments, adjusted_li = freeze_adjustments(connection, base, month)
        connection.execute(
            FEED_INFO_SQL,
            {
                "month": month,
                "version": len(base) + 1,
                "as_of": as_of,
                "base_as_of": base[-1][1]["as_of"] if base else None,
                "inputs_digest": deliveries_digest(connection, as_of),
                "policy_digest": policy_digest(connection, settings, as_of),
            },
        )
        charges, charged_li, exclusions = _count_frozen(connection, month)
        connection.execute("checkpoint feed")
        connection.execute("detach feed")
    target.chmod(0o600)
    _flush(target)
    return FrozenMonth(charges, charged_li, exclusions, adjustments, adjusted_li)


def _count_frozen(connection: duckdb.DuckDBPyConnection, month: date) -> tuple[int, int, int]:
    """Return the number of charges, their sum in li and the number of exclusions."""
    charges, charged_li = connection.execute(
        "select count(*), coalesce(sum(fee_li), 0)::hugeint from feed.main.charges"
    ).fetchone()
    exclusions = connection.execute("select count(*) from feed.main.exclusions").fetchone()[0]
    live, expected_li = connection.execute(
        "select count(*), coalesce(sum(charged_li), 0)::hugeint from feed.main.dispositions"
    ).fetchone()
    if charges + exclusions != live or charged_li != expected_li:
        raise FeedError(
            where=f"billing month {month:%Y-%m}",
            expected=f"one charge or exclusion for each of {live} dispositions, {expected_li} li in all",
            found=f"{charges} charges + {exclusions} exclusions, {charged_li} li",
            advice="the build is inconsistent (a disposition without its spell): rebuild the warehouse",
        )
    return charges, int(charged_li), exclusions


def require_unblocked(connection: duckdb.DuckDBPyConnection, month: date) -> None:
    """Stop the month while a day it needs is missing or a silence that matters is undecided (waived ones are not here).

    Raises:
        BillingBlocked: names every missing extract, source and day, and counts the undecided silences.
    """
    blockers = connection.execute(
        """
        select blocker, extract, source, day, relations
        from intermediate.int_billing_blockers
        where billing_month = $month
        order by blocker, extract, source, day
        """,
        {"month": month},
    ).fetchall()
    if not blockers:
        return
    days: dict[tuple[str, str], set[date]] = {}
    for _, extract, source, day, _ in blockers:
        if extract is not None and day is not None:
            days.setdefault((extract, source or "any source"), set()).add(day)
    parts = [
        f"{extract} of {source}: {in_words(as_ranges(missing))}" for (extract, source), missing in sorted(days.items())
    ]
    unknown = _count_unknown_silences(connection, month)
    if unknown:
        parts.append(f"{unknown} relations whose silence is unknown")
    raise BillingBlocked(
        where=f"billing month {month:%Y-%m}",
        expected=f"every day it needs up to {billing_as_of(month)} delivered or waived, and no undecided silence",
        found="missing " + "; ".join(parts),
        advice=(
            "land the missing deliveries and run their days, or waive them in waivers.csv "
            f"(reason, two names, expiry); then `cleanbill bill {month:%Y-%m}` again"
        ),
    )


def _count_unknown_silences(connection: duckdb.DuckDBPyConnection, month: date) -> int:
    """Count the relations whose silence a blocking day leaves undecided (days that are waived block nothing)."""
    return connection.execute(
        """
        select count(*)
        from intermediate.int_silence as silence
        semi join intermediate.int_billing_blockers as blockers
            on
                silence.billing_month = blockers.billing_month
                and blockers.blocker = 'unknown_usage'
                and silence.usage_extract = blockers.extract
                and blockers.day >= silence.window_start
                and blockers.day < silence.billing_month
        where silence.billing_month = $month and silence.verdict = 'unknown' and not silence.before_data_start
        """,
        {"month": month},
    ).fetchone()[0]


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
