{{ config(
    materialized='incremental',
    pre_hook="{{ delete_rows('(subscriber_id, sp_code) in (select subscriber_id, sp_code from ' ~ ref('int_affected_accounts') ~ ')') }}",
) }}

with context as (
    select {{ end_of('as_of_date') }} as as_of from {{ source('control', 'run_context') }}
),

spells as (
    select spells.*
    from {{ ref('int_spells') }} as spells
    semi join {{ ref('int_affected_accounts') }} as affected
        on spells.msisdn = affected.msisdn and spells.sp_code = affected.sp_code
),

suspended as (
    select distinct suspensions.subscription_id
    from {{ ref('int_suspensions') }} as suspensions
    cross join context
    where {{ holds_at('suspensions.suspended_from', 'suspensions.suspended_to', 'context.as_of') }}
),

final as (
    select
        spells.subscription_id,
        spells.subscriber_id,
        {{ masked('spells.msisdn') }} as msisdn_masked,
        spells.sp_code,
        spells.service_code,
        spells.province,
        spells.channel,
        spells.first_ordered_at,
        spells.ordered_at,
        spells.ended_at,
        spells.end_reason,
        case
            when spells.ended_at < context.as_of then 'ended'
            when suspended.subscription_id is not null then 'suspended'
            else 'active'
        end as status,
        spells.confirmed_at,
        spells.first_billable_month
    from spells
    cross join context
    left join suspended on spells.subscription_id = suspended.subscription_id
)

select * from final
