{{ config(materialized='view') }}
-- The acts that open or close a spell, each with the one that follows.

with final as (
    select
        msisdn,
        sp_code,
        service_code,
        act,
        event_id,
        acted_at as ordered_at,
        lead(event_id) over in_order as closing_event_id,
        lead(acted_at) over in_order as ended_at,
        lead(acted_at, 2) over in_order as next_ordered_at
    from {{ ref('int_relation_acts') }}
    where changes_spell
    window in_order as (partition by msisdn, sp_code, service_code order by judged_at, event_id, part)
)

select * from final
