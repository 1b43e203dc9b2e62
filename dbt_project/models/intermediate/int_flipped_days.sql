-- Days whose completeness is not what the last build knew (a late delivery arrived, one was withdrawn) or, while it
-- previewed the next bill, took for granted.

with context as (
    select previous_as_of_date from {{ source('control', 'run_context') }}
),

days as (
    select * from {{ ref('int_extract_days') }}
),

absorbed as (
    select * from {{ source('control', 'absorbed_usage_days') }}
),

known_until as (
    select greatest(context.previous_as_of_date, max(absorbed.day)) as last_day
    from context
    left join absorbed on true
    group by context.previous_as_of_date
),

final as (
    select
        coalesce(days.extract, absorbed.extract) as extract,
        coalesce(days.day, absorbed.day) as day
    from days
    full join absorbed on days.extract = absorbed.extract and days.day = absorbed.day
    cross join known_until
    where
        coalesce(days.day, absorbed.day) <= known_until.last_day
        and coalesce(days.is_complete, false) <> coalesce(absorbed.is_complete, false)
)

select * from final
