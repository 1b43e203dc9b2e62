{{ config(materialized='view') }}
-- First counted use of the kind that counts, for the windows of the spells judged in this run (up to the as-of date;
-- while the next bill is previewed: up to that bill).

with horizon as (
    select last_day from {{ ref('int_horizon') }}
),

windows as (
    select windows.*
    from {{ ref('int_anomaly_windows') }} as windows
    cross join horizon
    semi join {{ ref('int_anomaly_scope') }} as scope on windows.subscription_id = scope.subscription_id
    where windows.detected_on <= horizon.last_day
),

used as (
    select
        subscription_id,
        min(first_message_at) as first_message_at,
        min(first_hit_at) as first_hit_at
    from {{ ref('int_spell_usage') }}
    where subscription_id in (select subscription_id from windows)
    group by subscription_id
),

browsed as (
    select
        subscription_id,
        min(first_traffic_at) as first_traffic_at
    from {{ ref('int_spell_traffic') }}
    where subscription_id in (select subscription_id from windows)
    group by subscription_id
),

final as (
    select
        windows.*,
        case windows.measure
            when 'messages' then used.first_message_at
            when 'hits' then used.first_hit_at
            else browsed.first_traffic_at
        end as first_used_at
    from windows
    left join used on windows.subscription_id = used.subscription_id
    left join browsed on windows.subscription_id = browsed.subscription_id
)

select * from final
