{{ config(materialized='view') }}
-- What stands against the charge of a relation live at M-01 00:00, besides its own dates, line and SP.

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

-- Anomalies whose day of detection lies between the as-of date and the bill that is previewed.
to_become_abnormal as (
    select distinct
        live.billing_month,
        live.subscription_id
    from live
    inner join {{ ref('int_anomalies') }} as anomalies
        on live.subscription_id = anomalies.subscription_id and anomalies.detected_on < live.billing_month
    cross join {{ source('control', 'run_context') }} as context
    where anomalies.detected_on > context.as_of_date
),

silent as (
    select billing_month, subscription_id
    from {{ ref('int_silence') }}
    where verdict = 'silent'
),

final as (
    select billing_month, subscription_id, 'suspended' as mark from suspended
    union all
    select billing_month, subscription_id, 'test' from test_relations
    union all
    select billing_month, subscription_id, 'abnormal' from abnormal
    union all
    select billing_month, subscription_id, 'abnormal' from to_become_abnormal
    union all
    select billing_month, subscription_id, 'abnormal' from {{ ref('int_growth_marks') }}
    union all
    select billing_month, subscription_id, 'silent' from silent
)

select * from final
