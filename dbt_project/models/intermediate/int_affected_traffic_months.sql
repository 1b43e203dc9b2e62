-- (Subscriber, month) whose traffic is looked up anew.

with final as (
    select * from {{ ref('int_traffic_changes') }}
    union
    select msisdn, month from {{ ref('int_affected_months') }}
)

select * from final
