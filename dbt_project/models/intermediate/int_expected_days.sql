{{ config(materialized='view') }}
-- Every day on which a pair is expected, up to the as-of date.

with context as (
    select as_of_date from {{ source('control', 'run_context') }}
),

final as (
    select distinct
        pairs.extract,
        pairs.source,
        unnest(generate_series(
            pairs.valid_from::timestamp,
            least(coalesce(pairs.valid_to, context.as_of_date), context.as_of_date)::timestamp,
            interval 1 day
        ))::date as day
    from {{ source('control', 'expected_pairs') }} as pairs
    cross join context
    where pairs.schedule = 'daily'
)

select * from final
