{{ config(materialized='view') }}
-- The whole months over which R4 and R5 judge a relation that was live and unsuspended in all of them.

with windows as (
    select
        live.*,
        policy.use_measure,
        policy.max_count,
        classes.usage_extract,
        {{ add_months('live.billing_month', '-policy.window_months') }} as window_start
    from {{ ref('int_live_relations') }} as live
    inner join {{ ref('policy_silence') }} as policy
        on live.service_class = policy.service_class and {{ is_valid_on('policy', 'live.billing_month') }}
    inner join {{ ref('service_classes') }} as classes on live.service_class = classes.service_class
),

final as (
    select windows.*
    from windows
    anti join {{ ref('int_suspensions') }} as suspensions
        on
            windows.subscription_id = suspensions.subscription_id
            and suspensions.suspended_from < windows.billing_month
            and (
                suspensions.suspended_to is null
                or suspensions.suspended_to > greatest(windows.window_start::timestamp, suspensions.suspended_from)
            )
    where windows.ordered_at <= windows.window_start
)

select * from final
