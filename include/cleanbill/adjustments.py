"""What a later version of a billed month consists of: the billing rows now minus the sum of the earlier versions."""

from datetime import date
from typing import Any

import duckdb

from cleanbill.feed_files import province_in_file_name
from cleanbill.feed_versions import SealedVersion
from cleanbill.sealed_lines import load_sealed_lines

BILLED_BEFORE_SQL = """
create table feed.main.billed_before as
select
    subscription_id,
    any_value(msisdn) as msisdn,
    any_value(sp_code) as sp_code,
    any_value(service_code) as service_code,
    min_by(province_part, version) as province_part,
    sum(delta_li)::bigint as previous_li
from sealed_lines
group by subscription_id
"""

# The same subscription_id is the same spell: number, SP and service are part of it. A line goes to the province that
# was charged first, so that whoever charged it can correct it. The reason is what the line is now.
ADJUSTMENTS_SQL = """
create table feed.main.adjustments as
with lines as (
    select
        subscription_id,
        coalesce(charges.msisdn, billed_before.msisdn) as msisdn,
        coalesce(charges.sp_code, billed_before.sp_code) as sp_code,
        coalesce(charges.service_code, billed_before.service_code) as service_code,
        coalesce(billed_before.province_part, provinces.part) as province_part,
        coalesce(billed_before.previous_li, 0) as previous_li,
        coalesce(charges.fee_li, 0) as new_li
    from feed.main.charges as charges
    left join province_parts as provinces on coalesce(charges.province, 'unknown') = provinces.province
    full join feed.main.billed_before as billed_before using (subscription_id)
)

select
    lines.msisdn,
    lines.sp_code,
    lines.service_code,
    lines.subscription_id,
    lines.province_part,
    cast($month as date) as billing_month,
    lines.new_li - lines.previous_li as fee_li,
    cast($month as timestamp) as charge_time,
    lines.previous_li,
    lines.new_li,
    lines.new_li - lines.previous_li as delta_li,
    case
        when lines.new_li > 0 and lines.previous_li > 0 then 'fee_changed'
        when lines.new_li > 0 then 'charged_now'
        when dispositions.subscription_id is not null then dispositions.disposition
        when spells.subscription_id is not null then 'not_live'
        else 'no_such_order'
    end as reason
from lines
left join feed.main.dispositions as dispositions using (subscription_id)
left join intermediate.int_spells as spells using (subscription_id)
where $has_base and lines.new_li <> lines.previous_li
order by lines.msisdn, lines.sp_code, lines.service_code, lines.subscription_id
"""


def freeze_adjustments(
    connection: duckdb.DuckDBPyConnection, base: list[tuple[SealedVersion, dict[str, Any]]], month: date
) -> tuple[int, int]:
    """Write `billed_before` and `adjustments` of the attached frozen file (empty before version 1).

    Args:
        connection: a build, with the frozen file attached as `feed` and its charges and dispositions written.
        base: the sealed versions with their manifests.
        month: first day of M.

    Returns:
        The number of adjustment lines and the sum of their deltas in li.
    """
    load_sealed_lines(connection, base)
    connection.execute(BILLED_BEFORE_SQL)
    provinces = connection.execute(
        "select distinct coalesce(province, 'unknown') from feed.main.charges order by all"
    ).fetchall()
    connection.execute("create or replace temp table province_parts (province varchar, part varchar)")
    if provinces:
        connection.executemany(
            "insert into province_parts values (?, ?)",
            [(province, province_in_file_name(province)) for (province,) in provinces],
        )
    connection.execute(ADJUSTMENTS_SQL, {"month": month, "has_base": bool(base)})
    lines, delta_li = connection.execute(
        "select count(*), coalesce(sum(delta_li), 0)::hugeint from feed.main.adjustments"
    ).fetchone()
    return lines, int(delta_li)
