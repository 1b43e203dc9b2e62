-- Every working day of the published calendar and, Monday to Friday, beyond it, numbered in order.

with context as (
    select as_of_date from {{ source('control', 'run_context') }}
),

calendar as (
    select * from {{ ref('working_calendar') }}
),

exceptions as (
    select * from {{ ref('working_day_exceptions') }}
),

bounds as (
    select
        least(
            calendar.published_from,
            coalesce((select min(ordered_at)::date from {{ ref('int_spells') }}), calendar.published_from)
        ) as first_day,
        greatest(calendar.published_until, context.as_of_date) + interval 1 year as last_day
    from calendar
    cross join context
),

days as (
    select unnest(generate_series(first_day::timestamp, last_day::timestamp, interval 1 day))::date as day
    from bounds
),

judged as (
    select
        days.day,
        coalesce(exceptions.is_working_day, isodow(days.day) <= 5) as is_working_day,
        days.day not between calendar.published_from and calendar.published_until as is_estimated
    from days
    cross join calendar
    left join exceptions on days.day = exceptions.day
),

final as (
    select
        day,
        is_working_day,
        is_estimated,
        sum(case when is_working_day then 1 else 0 end) over (order by day)::bigint as working_days_so_far
    from judged
)

select * from final
