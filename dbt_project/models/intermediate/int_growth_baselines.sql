{{ config(
    materialized='incremental',
    pre_hook="{{ delete_rows('position in (select position from ' ~ ref('int_growth_days') ~ ')') }}",
) }}
-- What each service would count on each day, from its own past.

with final as (
    {{ growth_baselines(ref('int_growth_series'), ref('int_growth_days')) }}
)

select * from final
