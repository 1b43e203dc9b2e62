-- Anomalies of the spells judged in this run: live at the end of the day of detection, no counted use by then,
-- and usage complete over the whole window (else nobody is called abnormal). Those with a day of detection after the
-- as-of date are to come if nothing changes; only the preview of the next bill reads them.

with context as (
    select as_of_date from {{ source('control', 'run_context') }}
),

observed as (
    select * from {{ ref('int_anomaly_uses') }}
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
