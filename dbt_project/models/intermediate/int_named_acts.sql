{{ config(materialized='view') }}
-- What events and snapshots do to the relations they name.

with events as (
    select * from {{ ref('int_relation_events') }}
    where is_effective
),

openings as (
    select * from {{ ref('int_snapshot_openings') }}
),

final as (
    select
        msisdn,
        sp_code,
        service_code,
        event_time as acted_at,
        event_time as judged_at,
        event_id,
        1 as part,
        case action
            when 'order' then 'open'
            when 'cancel' then 'close'
            when 'suspend' then 'suspend'
            else 'resume'
        end as act
    from events
    where action in ('order', 'cancel', 'suspend', 'resume', 'activate')
    union all
    select msisdn, sp_code, old_service_code, event_time, event_time as judged_at, event_id, 1, 'close' from events
    where action = 'replace'
    union all
    select msisdn, sp_code, service_code, event_time, event_time as judged_at, event_id, 2, 'open' from events
    where action = 'replace'
    union all
    select msisdn, sp_code, service_code, ordered_at, taken_at, '', 0, 'open' from openings
    union all
    select msisdn, sp_code, service_code, ordered_at, taken_at, '', 1, 'suspend' from openings
    where status = 'suspended'
)

select * from final
