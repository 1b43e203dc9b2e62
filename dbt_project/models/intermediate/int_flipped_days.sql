-- Days within the absorbed as-of date whose completeness changed (a late delivery arrived or one was withdrawn).

with context as (
    select previous_as_of_date from {{ source('control', 'run_context') }}
),

days as (
    select * from {{ ref('int_extract_days') }}
),

absorbed as (
    select * from {{ source('control', 'absorbed_usage_days') }}
),

final as (
    select
        coalesce(days.extract, absorbed.extract) as extract,
        coalesce(days.day, absorbed.day) as day
    from days
    full join absorbed on days.extract = absorbed.extract and days.day = absorbed.day
    cross join context
    where
        coalesce(days.day, absorbed.day) <= context.previous_as_of_date
        and coalesce(days.is_complete, false) <> coalesce(absorbed.is_complete, false)
)

select * from final
