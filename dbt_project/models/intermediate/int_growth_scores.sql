{{ config(
    materialized='incremental',
    pre_hook="{{ delete_rows('position in (select position from ' ~ ref('int_growth_days') ~ ')') }}",
) }}
-- How far each service lies from its expectation on each day.

with calendar as (
    select
        position,
        calendar_day
    from {{ ref('int_growth_periods') }}
    where calendar_day is not null
),

final as (
    {{ growth_scores(ref('int_growth_baselines'), ref('int_growth_market'), ref('int_growth_days'), 'calendar') }}
)

select * from final
