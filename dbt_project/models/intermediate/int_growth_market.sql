{{ config(
    materialized='incremental',
    pre_hook="{{ delete_rows('position in (select position from ' ~ ref('int_growth_days') ~ ')') }}",
) }}
-- What all services did together on each day.

with final as (
    {{ growth_market(ref('int_growth_baselines'), ref('int_growth_days')) }}
)

select * from final
