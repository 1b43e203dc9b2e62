{{ config(pre_hook=[
    "{{ set_changed_paths('new_events', 'relation_events') }}",
    "{{ set_changed_paths('old_events', 'relation_events', 'old_path') }}",
    "{{ set_changed_paths('new_snapshots', 'relation_snapshot') }}",
    "{{ set_changed_paths('old_snapshots', 'relation_snapshot', 'old_path') }}",
]) }}
-- depends_on: {{ ref('changed_deliveries') }}
-- What changed for an account (subscriber at one SP) and since when. All events of an account are judged together,
-- because cancel_all, suspend_all and replace cross its relations.

with changed_events as (
    select event_id, msisdn, sp_code, event_time from {{ lake_rows('new_events') }}
    union all
    select event_id, msisdn, sp_code, event_time from {{ lake_rows('old_events') }}
),

-- The first of several events with one id counts: a change of one touches the others.
namesakes as (
    select events.msisdn, events.sp_code, events.event_time
    from {{ ref('stg_relation_events') }} as events
    semi join changed_events on events.event_id = changed_events.event_id
),

-- An act at the midnight after the absorbed as-of date was known but did not count yet.
held_over as (
    select events.msisdn, events.sp_code, events.event_time
    from {{ ref('stg_relation_events') }} as events
    inner join {{ source('control', 'run_context') }} as context
        on events.event_time >= {{ end_of('context.previous_as_of_date') }}
),

of_changed_services as (
    select events.msisdn, events.sp_code, events.event_time
    from {{ ref('stg_relation_events') }} as events
    inner join {{ ref('int_service_changes') }} as services
        on
            events.sp_code = services.sp_code
            and services.service_code in (events.service_code, events.old_service_code)
    where events.event_time >= services.since - interval 1 day
),

changed_snapshots as (
    select msisdn, sp_code, least(ordered_at, first_ordered_at) as since from {{ lake_rows('new_snapshots') }}
    union all
    select msisdn, sp_code, least(ordered_at, first_ordered_at) as since from {{ lake_rows('old_snapshots') }}
),

final as (
    select msisdn, sp_code, event_time as since from changed_events
    union all
    select msisdn, sp_code, event_time from namesakes
    union all
    select msisdn, sp_code, event_time from held_over
    union all
    select msisdn, sp_code, event_time from of_changed_services
    union all
    select msisdn, sp_code, since from changed_snapshots
)

select * from final
