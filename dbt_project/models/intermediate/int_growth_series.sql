-- The counts of each service as one list, as far back as the days judged in this run look; incomplete days are null.

with periods as (
    select * from {{ ref('int_growth_periods') }}
),

bounds as (
    select
        min(position) - max(window_periods + guard_periods) as first_position,
        max(position) as last_position
    from {{ ref('int_growth_days') }}
),

positions as (
    select unnest(range(first_position, last_position + 1)) as position
    from bounds
),

counts as (
    select
        {{ growth_position('day') }} as position,
        sp_code,
        service_code,
        new_orders
    from {{ ref('int_growth_counts') }}
),

final as (
    select
        services.series,
        any_value(services.start_position) as start_position,
        min(positions.position) as first_position,
        list(
            case when periods.is_complete then coalesce(counts.new_orders, 0)::double end order by positions.position
        ) as counts
    from {{ ref('int_growth_services') }} as services
    cross join positions
    left join periods on positions.position = periods.position
    left join counts
        on
            services.sp_code = counts.sp_code
            and services.service_code = counts.service_code
            and positions.position = counts.position
    group by services.series
)

select * from final
