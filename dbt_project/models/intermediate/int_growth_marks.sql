{{ config(materialized='view') }}
-- Relations whose charge stands back because they were ordered within a growth alert before M-01 (R3). Off by default.

with final as (
    select
        live.billing_month,
        live.subscription_id
    from {{ ref('int_live_relations') }} as live
    inner join {{ ref('service_growth_relations') }} as relations
        on live.subscription_id = relations.subscription_id and relations.alert_day < live.billing_month
    inner join {{ ref('policy_growth') }} as policy
        on
            policy.cadence = 'daily'
            and policy.parameter = 'blocks_billing'
            and policy.value = 1
            and {{ is_valid_on('policy', 'live.billing_month') }}
)

select * from final
