{{ config(materialized='view') }}
-- New orders of a service by day: spells by the day they were ordered.

with final as (
    select
        sp_code,
        service_code,
        ordered_at::date as day,
        count(*) as new_orders
    from {{ ref('int_spells') }}
    group by sp_code, service_code, ordered_at::date
)

select * from final
