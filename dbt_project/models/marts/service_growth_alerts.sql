with alerts as (
    select * from {{ ref('int_growth_alerts') }}
),

drivers as (
    select
        sp_code,
        service_code,
        day,
        {%- for dimension in ['channel', 'province', 'hour'] %}
        max(value) filter (where dimension = '{{ dimension }}') as main_{{ dimension }},
        max(percent) filter (where dimension = '{{ dimension }}') as main_{{ dimension }}_percent{{ ',' if not loop.last }}
        {%- endfor %}
    from {{ ref('int_growth_drivers') }}
    group by sp_code, service_code, day
),

final as (
    select
        alerts.sp_code,
        alerts.service_code,
        alerts.day,
        alerts.first_day,
        alerts.last_day,
        alerts.reason,
        alerts.direction,
        alerts.new_orders,
        alerts.expected,
        alerts.expected_low,
        alerts.expected_high,
        alerts.ratio,
        alerts.p_value,
        alerts.q_value,
        alerts.baseline_days,
        evidence.orders,
        drivers.main_channel,
        drivers.main_channel_percent,
        drivers.main_province,
        drivers.main_province_percent,
        drivers.main_hour::integer as main_hour,
        drivers.main_hour_percent,
        evidence.unconfirmed_percent,
        evidence.never_used_percent,
        {{ growth_sentence('alerts', 'drivers', 'evidence') }} as explanation
    from alerts
    inner join {{ ref('int_growth_evidence') }} as evidence
        on
            alerts.sp_code = evidence.sp_code
            and alerts.service_code = evidence.service_code
            and alerts.day = evidence.day
    left join drivers
        on
            alerts.sp_code = drivers.sp_code
            and alerts.service_code = drivers.service_code
            and alerts.day = drivers.day
)

select * from final
