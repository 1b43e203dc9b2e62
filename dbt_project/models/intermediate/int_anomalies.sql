-- Anomalies of the spells judged in this run: live at the end of the day of detection, no counted use by then,
-- and usage complete over the whole window (else nobody is called abnormal).

with context as (
    select as_of_date from {{ source('control', 'run_context') }}
),

windows as (
    select windows.*
    from {{ ref('int_anomaly_windows') }} as windows
    cross join context
    semi join {{ ref('int_anomaly_scope') }} as scope on windows.subscription_id = scope.subscription_id
    where windows.detected_on <= context.as_of_date
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

observed as (
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
),

days as (
    select * from {{ ref('int_extract_days') }}
),

complete as (
    select observed.*
    from observed
    inner join days as first_day on observed.extract = first_day.extract and observed.observed_from = first_day.day
    inner join days as last_day on observed.extract = last_day.extract and observed.detected_on = last_day.day
    where
        last_day.complete_days_so_far - first_day.complete_days_so_far + first_day.is_complete::integer
        = observed.detected_on - observed.observed_from + 1
        and (observed.first_used_at is null or observed.first_used_at >= observed.detected_at)
),

-- One class a spell: had the catalogue moved it between extracts, the earlier detection counts.
earliest as (
    select
        *,
        row_number() over (partition by subscription_id, anomaly_type order by detected_on, extract) as nth_detection
    from complete
),

final as (
    select
        earliest.subscription_id,
        earliest.subscriber_id,
        earliest.msisdn,
        earliest.sp_code,
        earliest.service_code,
        earliest.province,
        earliest.ordered_at,
        earliest.next_ordered_at,
        earliest.anomaly_type,
        earliest.observed_from,
        earliest.detected_on,
        earliest.report_to,
        case
            when least(earliest.first_used_at, earliest.ended_at)::date <= context.as_of_date
                then least(earliest.first_used_at, earliest.ended_at)::date
        end as resolved_on
    from earliest
    cross join context
    where earliest.nth_detection = 1
)

select * from final
