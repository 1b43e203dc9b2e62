{{ config(materialized='view') }}
-- What the spells say at the midnights of the snapshots judged in this run: those that changed, for all relations, and
-- all of them for the affected accounts.

with affected as (
    select msisdn, sp_code from {{ ref('int_affected_accounts') }}
),

changed_dates as (
    select distinct business_date from {{ ref('changed_deliveries') }}
    where extract = 'relation_snapshot'
),

dates as (
    select distinct
        in_force.business_date as taken_on,
        in_force.business_date in (select business_date from changed_dates) as is_changed
    from {{ source('control', 'in_force') }} as in_force
    cross join {{ source('control', 'run_context') }} as context
    where in_force.extract = 'relation_snapshot' and in_force.business_date <= context.as_of_date
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
    where dates.is_changed or affected.msisdn is not null
    group by all
)

select * from final
