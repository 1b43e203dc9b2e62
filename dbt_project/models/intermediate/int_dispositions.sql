-- The one decision: why a relation live at M-01 00:00 is or is not charged for month M. The first case that
-- matches counts.

with live as (
    select * from {{ ref('int_live_relations') }}
),

suspended as (
    select distinct
        live.billing_month,
        live.subscription_id
    from live
    inner join {{ ref('int_suspensions') }} as suspensions
        on
            live.subscription_id = suspensions.subscription_id
            and {{ holds_at('suspensions.suspended_from', 'suspensions.suspended_to', 'live.billing_month') }}
),

-- A number is a test number at M-01 if it was one the day before.
test_relations as (
    select distinct
        live.billing_month,
        live.subscription_id
    from live
    inner join {{ source('control', 'test_numbers') }} as test_numbers
        on live.msisdn = test_numbers.msisdn and {{ is_valid_on('test_numbers', 'live.billing_month - 1') }}
),

abnormal as (
    select distinct
        live.billing_month,
        live.subscription_id
    from live
    inner join {{ ref('anomalous_subscriptions') }} as anomalies
        on
            live.subscription_id = anomalies.subscription_id
            and anomalies.detected_on < live.billing_month
            and (anomalies.resolved_on is null or anomalies.resolved_on >= live.billing_month)
),

silent as (
    select billing_month, subscription_id
    from {{ ref('int_silence') }}
    where verdict = 'silent'
),

consent as (
    select * from {{ ref('policy_consent') }}
),

final as (
    select
        live.billing_month,
        live.subscription_id,
        live.subscriber_id,
        live.sp_code,
        live.service_code,
        live.province,
        case
            when not live.is_in_catalogue then 'unknown_service'
            when live.billing_type <> 'monthly' or live.monthly_fee_li = 0 then 'free_service'
            when test_relations.subscription_id is not null then 'test'
            when suspended.subscription_id is not null then 'suspended'
            when live.billing_month < live.first_billable_month then 'trial'
            when
                coalesce(consent.is_required, true)
                and (live.confirmed_at is null or live.confirmed_at >= live.billing_month) then 'unconsented'
            when line_stops.reason is not null then 'line_stopped'
            when service_suspensions.sp_code is not null then 'sp_suspended'
            when abnormal.subscription_id is not null then 'abnormal'
            when silent.subscription_id is not null then 'silent'
            else 'billed'
        end as disposition,
        line_stops.reason as stop_reason,
        coalesce(live.monthly_fee_li, 0) as fee_li
    from live
    left join suspended
        on live.billing_month = suspended.billing_month and live.subscription_id = suspended.subscription_id
    left join test_relations
        on live.billing_month = test_relations.billing_month and live.subscription_id = test_relations.subscription_id
    left join abnormal
        on live.billing_month = abnormal.billing_month and live.subscription_id = abnormal.subscription_id
    left join silent
        on live.billing_month = silent.billing_month and live.subscription_id = silent.subscription_id
    left join {{ ref('int_line_stops') }} as line_stops
        on live.billing_month = line_stops.billing_month and live.msisdn = line_stops.msisdn
    left join {{ ref('int_service_suspensions') }} as service_suspensions
        on
            live.billing_month = service_suspensions.billing_month
            and live.sp_code = service_suspensions.sp_code
            and live.service_code = service_suspensions.service_code
    left join consent on {{ is_valid_on('consent', 'live.ordered_at::date') }}
)

select * from final
