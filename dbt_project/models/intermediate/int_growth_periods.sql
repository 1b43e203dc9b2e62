-- Every day that growth is judged on, from the first delivery of order events to the as-of date: its position (days
-- since 1970), the parameters valid then, and its name if it is a known calendar day.

with context as (
    select as_of_date from {{ source('control', 'run_context') }}
),

starts as (
    select min(first_delivered_day) as first_day
    from {{ ref('int_extract_days') }}
    where extract = 'relation_events'
),

days as (
    select
        unnest(
            generate_series(starts.first_day::timestamp, context.as_of_date::timestamp, interval 1 day)
        )::date as day
    from starts
    cross join context
),

holidays as (
    select
        day,
        name
    from {{ ref('working_day_exceptions') }}
    where not is_working_day
),

final as (
    select
        days.day,
        {{ growth_position('days.day') }} as position,
        coalesce(any_value(extract_days.is_complete), false) as is_complete,
        any_value(
            case
                when holidays.day is not null then 'public holiday'
                when day(days.day) = 1 then '1st'
                when day(days.day) in (20, 21) then '20th or 21st'
            end
        ) as calendar_day,
        {{ growth_parameters() }}
    from days
    left join holidays on days.day = holidays.day
    left join {{ ref('int_extract_days') }} as extract_days
        on days.day = extract_days.day and extract_days.extract = 'relation_events'
    inner join {{ ref('policy_growth') }} as policy
        on policy.cadence = 'daily' and {{ is_valid_on('policy', 'days.day') }}
    group by days.day
)

select * from final
