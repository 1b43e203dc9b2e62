{{ config(materialized='view') }}
-- What the spells say at the midnights of the snapshots judged in this run: new ones for all relations, and all of
-- them for the affected accounts.

with affected as (
    select msisdn, sp_code from {{ ref('int_affected_accounts') }}
),

dates as (
    select * from {{ ref('int_snapshot_dates') }}
),

final as (
    select
        dates.taken_on,
        spells.*,
        coalesce(bool_or({{ holds_at('suspensions.suspended_from', 'suspensions.suspended_to', 'dates.taken_on') }}), false)
            as is_suspended
    from dates
    inner join {{ ref('int_spells') }} as spells on {{ holds_at('spells.ordered_at', 'spells.ended_at', 'dates.taken_on') }}
    left join affected on spells.msisdn = affected.msisdn and spells.sp_code = affected.sp_code
    left join {{ ref('int_suspensions') }} as suspensions on spells.subscription_id = suspensions.subscription_id
    where dates.is_new or affected.msisdn is not null
    group by all
)

select * from final
