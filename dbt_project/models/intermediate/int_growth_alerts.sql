-- Alerts with the days they are about: from the day of the alert (of a slow rise: from the first day of its sum) to
-- the last day on which the service stayed abnormal without a break.

with growth as (
    select * from {{ ref('service_growth') }}
),

services as (
    select distinct
        sp_code,
        service_code
    from growth
    where is_alert
),

-- The days of services with alerts, each with the next day that ends a run.
judged as (
    select
        growth.*,
        min(case when growth.reason not in ('continues', 'incomplete day') then growth.day end) over (
            partition by growth.sp_code, growth.service_code
            order by growth.day
            rows between 1 following and unbounded following
        ) as next_calm_day,
        max(growth.day) over (partition by growth.sp_code, growth.service_code) as newest_day
    from growth
    semi join services on growth.sp_code = services.sp_code and growth.service_code = services.service_code
),

final as (
    select
        judged.sp_code,
        judged.service_code,
        judged.day,
        case when judged.reason = 'rise' then {{ add_days('judged.day', '1 - periods.ramp_periods') }} else judged.day end
            as first_day,
        coalesce(judged.next_calm_day - 1, judged.newest_day) as last_day,
        judged.reason,
        judged.direction,
        judged.new_orders,
        judged.expected,
        judged.expected_low,
        judged.expected_high,
        judged.ratio,
        judged.p_value,
        judged.q_value,
        judged.baseline_days,
        judged.rise_orders,
        judged.rise_expected,
        periods.window_periods
    from judged
    inner join {{ ref('int_growth_periods') }} as periods on judged.day = periods.day
    where judged.is_alert
)

select * from final
