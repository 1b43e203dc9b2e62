-- Findings on the events of the affected accounts: one row per event and reason.

with events as (
    select * from {{ ref('int_relation_events') }}
),

acts as (
    select * from {{ ref('int_relation_acts') }}
    where event_id <> ''
),

ineffective as (
    select
        event_id,
        'already_ordered' as reason
    from acts
    where act = 'open' and was_open
    union all
    select event_id, 'not_ordered'
    from acts
    where act <> 'open' and not was_open and not is_broadcast
),

-- not in the catalogue at the end of the event's day
named as (
    select event_id, event_time, sp_code, service_code from events
    where is_effective and service_code is not null
    union all
    select event_id, event_time, sp_code, old_service_code from events
    where is_effective and action = 'replace'
),

unknown as (
    select
        named.event_id,
        'unknown_service' as reason
    from named
    anti join {{ ref('int_service_versions') }} as services
        on
            named.sp_code = services.sp_code
            and named.service_code = services.service_code
            and {{ is_valid_on('services', 'named.event_time::date + 1') }}
),

reasons as (
    select * from ineffective
    union
    select * from unknown
),

final as (
    select
        events.*,
        reasons.reason
    from events
    inner join reasons on events.event_id = reasons.event_id
    where events.is_effective
    union all
    select
        events.*,
        'conflicting_event'
    from events
    where events.is_first_conflict
)

select * from final
