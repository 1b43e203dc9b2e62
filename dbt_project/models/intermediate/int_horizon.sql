{{ config(materialized='view') }}
-- The last day that is looked at: the as-of date, or the day before the bill that is previewed.

with final as (
    select greatest(context.as_of_date, max(preview.billing_month) - 1) as last_day
    from {{ source('control', 'run_context') }} as context
    left join {{ ref('int_preview_month') }} as preview on true
    group by context.as_of_date
)

select * from final
