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
    union all
    select events.event_id, 'not_ordered'
    from events
    left join acts on events.event_id = acts.event_id
    where events.is_effective and events.action in ('cancel_all', 'suspend_all')
    group by events.event_id
    having not coalesce(bool_or(acts.was_open), false)
),

-- not in the catalogue at the end of the event's day
unknown as (
    select
        events.event_id,
        'unknown_service' as reason
    from events
    anti join {{ ref('int_service_versions') }} as services
        on
            events.sp_code = services.sp_code
            and events.service_code = services.service_code
            and {{ is_valid_on('services', 'events.event_time::date + 1') }}
    where events.is_effective and events.service_code is not null
),

reasons as (
    select distinct * from ineffective
    union all
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
    where events.is_conflicting
)

select * from final
