{{ config(materialized='view') }}
-- Every day on which a pair is expected, up to the as-of date (while the next bill is previewed: up to that bill).

with horizon as (
    select last_day from {{ ref('int_horizon') }}
),

final as (
    select distinct
        pairs.extract,
        pairs.source,
        unnest(generate_series(
            pairs.valid_from::timestamp,
            least(coalesce(pairs.valid_to, horizon.last_day), horizon.last_day)::timestamp,
            interval 1 day
        ))::date as day
    from {{ source('control', 'expected_pairs') }} as pairs
    cross join horizon
    where pairs.schedule = 'daily'
)

select * from final
