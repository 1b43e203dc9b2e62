-- (Account, month) whose sums of use are made anew.

with final as (
    select * from {{ ref('int_usage_changes') }}
    union
    select * from {{ ref('int_affected_months') }}
)

select * from final
