-- One row for every extract and day from its first expected or delivered day to the as-of date. While the next bill is
-- previewed the days up to it follow, as if each expected delivery will come.

with context as (
    select as_of_date from {{ source('control', 'run_context') }}
),

deliveries as (
    select in_force.*
    from {{ source('control', 'in_force') }} as in_force
    cross join context
    where in_force.business_date <= context.as_of_date
),

expected as (
    select * from {{ ref('int_expected_days') }}
),

expected_days as (
    select
        expected.extract,
        expected.day,
        bool_and(deliveries.delivery is not null or expected.day > context.as_of_date) as is_complete
    from expected
    cross join context
    left join deliveries
        on
            expected.extract = deliveries.extract
            and expected.source = deliveries.source
            and expected.day = deliveries.business_date
    group by expected.extract, expected.day
),

starts as (
    select
        extract,
        min(business_date) as first_day
    from deliveries
    group by extract
),

bounds as (
    select
        extract,
        min(day) as first_day
    from (
        select extract, first_day as day from starts
        union all
        select extract, day from expected_days
    ) as known_days
    group by extract
),

spine as (
    select
        bounds.extract,
        unnest(generate_series(bounds.first_day::timestamp, horizon.last_day::timestamp, interval 1 day))::date as day
    from bounds
    cross join {{ ref('int_horizon') }} as horizon
),

final as (
    select
        spine.extract,
        spine.day,
        coalesce(expected_days.is_complete, false) as is_complete,
        sum(case when expected_days.is_complete then 1 else 0 end) over (
            partition by spine.extract order by spine.day
        )::bigint as complete_days_so_far,
        starts.first_day as first_delivered_day
    from spine
    left join expected_days on spine.extract = expected_days.extract and spine.day = expected_days.day
    left join starts on spine.extract = starts.extract
)

select * from final
