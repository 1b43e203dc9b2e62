{{ config(
    materialized='incremental',
    pre_hook=[
        "{{ set_usage_paths('sms_paths', 'sms_usage', ref('int_affected_usage_months')) }}",
        "{{ set_usage_paths('wap_paths', 'wap_usage', ref('int_affected_usage_months')) }}",
        "{{ delete_rows('(msisdn, sp_code, month) in (select msisdn, sp_code, month from ' ~ ref('int_affected_usage_months') ~ ')') }}",
    ],
) }}
-- depends_on: {{ ref('int_affected_usage_months') }}
-- depends_on: {{ ref('policy_ingest') }}
-- depends_on: {{ ref('stg_sms_usage') }}
-- depends_on: {{ ref('stg_wap_usage') }}
-- Counted use by spell and month. Use in no spell has a null subscription_id: it counts for nobody and is reported.

with records as (
    select
        msisdn,
        sp_code,
        service_code,
        sent_at as used_at,
        case when direction = 'MT' then message_count else 0 end as mt_count,
        case when direction = 'MO' then message_count else 0 end as mo_count,
        0 as wap_hits
    from {{ usage_rows('sms_usage', 'sms_paths') }}
    where status = 'ok' and purpose = 'content' and message_count > 0
    union all
    select msisdn, sp_code, service_code, accessed_at, 0, 0, hits
    from {{ usage_rows('wap_usage', 'wap_paths') }}
    where status = 'ok' and hits > 0
),

counted as (
    select records.*
    from records
    anti join {{ source('control', 'test_numbers') }} as test_numbers
        on
            records.msisdn = test_numbers.msisdn
            and records.used_at >= test_numbers.valid_from
            and (test_numbers.valid_to is null or records.used_at < test_numbers.valid_to)
    {% if is_incremental() -%}
    semi join {{ ref('int_affected_usage_months') }} as affected
        on
            records.msisdn = affected.msisdn
            and records.sp_code = affected.sp_code
            and {{ month_of('records.used_at') }} = affected.month
    {%- endif %}
),

attributed as (
    select counted.*, spells.subscription_id
    from counted
    left join {{ ref('int_spells') }} as spells
        on
            counted.msisdn = spells.msisdn
            and counted.sp_code = spells.sp_code
            and counted.service_code = spells.service_code
            and counted.used_at >= spells.ordered_at
            and counted.used_at < coalesce(spells.ended_at, timestamp 'infinity')
),

final as (
    select
        subscription_id,
        msisdn,
        sp_code,
        service_code,
        {{ month_of('used_at') }} as month,
        sum(mt_count)::bigint as mt_count,
        sum(mo_count)::bigint as mo_count,
        sum(wap_hits)::bigint as wap_hits,
        {{ count_days_of_month('used_at') }} as active_days,
        min(used_at) filter (where mt_count + mo_count > 0) as first_message_at,
        min(used_at) filter (where wap_hits > 0) as first_hit_at,
        max(used_at)::date as last_used_on
    from attributed
    group by subscription_id, msisdn, sp_code, service_code, {{ month_of('used_at') }}
)

select * from final
