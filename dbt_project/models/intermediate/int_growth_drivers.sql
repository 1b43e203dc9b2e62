-- What drove an alert: of each dimension the value whose orders on the alert's days differ most from its usual ones,
-- with its share of the orders of those days.

with alerts as (
    select * from {{ ref('int_growth_alerts') }}
),

orders as (
    select
        alerts.sp_code,
        alerts.service_code,
        alerts.day,
        alerts.direction,
        (alerts.last_day - alerts.first_day + 1) / alerts.window_periods as usual_share,
        spells.ordered_at >= alerts.first_day as is_inside,
        coalesce(spells.channel, 'unknown') as channel,
        coalesce(spells.province, 'unknown') as province,
        lpad(hour(spells.ordered_at)::varchar, 2, '0') as hour_of_day
    from alerts
    inner join {{ ref('int_spells') }} as spells
        on
            alerts.sp_code = spells.sp_code
            and alerts.service_code = spells.service_code
            and spells.ordered_at >= {{ add_days('alerts.first_day', '-alerts.window_periods') }}
            and spells.ordered_at < {{ end_of('alerts.last_day') }}
),

valued as (
    select *, 'channel' as dimension, channel as value from orders
    union all
    select *, 'province', province from orders
    union all
    select *, 'hour', hour_of_day from orders
),

counted as (
    select
        sp_code,
        service_code,
        day,
        direction,
        dimension,
        value,
        count(*) filter (where is_inside) as orders,
        count(*) filter (where is_inside) - count(*) filter (where not is_inside) * any_value(usual_share) as excess
    from valued
    group by sp_code, service_code, day, direction, dimension, value
),

ranked as (
    select
        *,
        sum(orders) over (partition by sp_code, service_code, day, dimension) as all_orders,
        row_number() over (
            partition by sp_code, service_code, day, dimension
            order by case when direction = 'down' then excess else -excess end, value
        ) as nth_driver
    from counted
),

final as (
    select
        sp_code,
        service_code,
        day,
        dimension,
        value,
        round(100 * orders / greatest(all_orders, 1))::integer as percent
    from ranked
    where nth_driver = 1
)

select * from final
