{{ config(
    materialized='incremental',
    pre_hook="{{ delete_rows(judged_bills()) }}",
) }}
-- depends_on: {{ ref('int_billing_months') }}
-- depends_on: {{ ref('int_affected_bills') }}
-- R4, R5: verdict silent or unknown of spells that were live and unsuspended in the whole window before M-01.

with judged as (
    select * from {{ ref('int_silence_windows') }}
),

counted as (
    select
        judged.billing_month,
        judged.subscription_id,
        coalesce(sum(usage.mt_count), 0)::bigint as mt_count,
        coalesce(sum(usage.wap_hits), 0)::bigint as wap_hits
    from judged
    left join {{ ref('int_spell_usage') }} as usage
        on
            judged.subscription_id = usage.subscription_id
            and usage.month >= judged.window_start
            and usage.month < judged.billing_month
    group by judged.billing_month, judged.subscription_id
),

days as (
    select * from {{ ref('int_extract_days') }}
),

-- The data of an extract starts with its first delivery; of one that never came, where it was to come.
starts as (
    select
        extract,
        coalesce(min(first_delivered_day), min(day)) as first_day
    from days
    group by extract
),

final as (
    select
        judged.subscription_id,
        judged.subscriber_id,
        judged.sp_code,
        judged.service_code,
        judged.service_class,
        judged.billing_month,
        judged.window_start,
        case when judged.use_measure = 'messages' then counted.mt_count end as mt_count,
        case when judged.use_measure = 'hits' then counted.wap_hits end as wap_hits,
        case
            when starts.first_day is null or judged.window_start < starts.first_day then 'unknown'
            when
                last_day.complete_days_so_far - first_day.complete_days_so_far + first_day.is_complete::integer
                = judged.billing_month - judged.window_start then 'silent'
            else 'unknown'
        end as verdict,
        coalesce(judged.window_start < starts.first_day, true) as before_data_start,
        judged.usage_extract
    from judged
    inner join counted
        on judged.billing_month = counted.billing_month and judged.subscription_id = counted.subscription_id
    left join starts on judged.usage_extract = starts.extract
    left join days as first_day on judged.usage_extract = first_day.extract and judged.window_start = first_day.day
    left join days as last_day on judged.usage_extract = last_day.extract and judged.billing_month - 1 = last_day.day
    where case judged.use_measure when 'messages' then counted.mt_count else counted.wap_hits end <= judged.max_count
)

select * from final
