{{ config(
    materialized='incremental',
    pre_hook="{{ delete_rows('day in (select day from ' ~ ref('int_growth_days') ~ ')') }}",
) }}

with decisions as (
    {{ growth_decisions(ref('int_growth_scores'), ref('int_growth_periods'), ref('int_growth_days')) }}
),

services as (
    select * from {{ ref('int_growth_services') }}
),

counts as (
    select * from {{ ref('int_growth_counts') }}
),

final as (
    select
        services.sp_code,
        services.service_code,
        {{ growth_day('decisions.position') }} as day,
        coalesce(counts.new_orders, 0) as new_orders,
        round(decisions.expected, 2) as expected,
        round(decisions.ratio, 3) as ratio,
        {{ growth_shown('decisions.p_value') }} as p_value,
        {{ growth_shown('decisions.q_value') }} as q_value,
        decisions.is_alert,
        decisions.direction,
        decisions.baseline_periods::integer as baseline_days,
        decisions.reason,
        round(decisions.expected_low, 1) as expected_low,
        round(decisions.expected_high, 1) as expected_high,
        decisions.ramp_observed::bigint as rise_orders,
        round(decisions.ramp_expected, 2) as rise_expected
    from decisions
    inner join services on decisions.series = services.series
    left join counts
        on
            services.sp_code = counts.sp_code
            and services.service_code = counts.service_code
            and {{ growth_day('decisions.position') }} = counts.day
)

select * from final
