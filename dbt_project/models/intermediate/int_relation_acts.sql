-- What the events do to each relation, in order: one row per act (open, close, suspend, resume) of a relation.
-- `part` orders the acts of one event: a replace closes the old relation before it opens the new one. A snapshot
-- speaks for its midnight: its acts date from the order but follow everything that happened before it was taken.

with events as (
    select * from {{ ref('int_relation_events') }}
    where is_effective
),

named_acts as (
    select * from {{ ref('int_named_acts') }}
),

relations as (
    select distinct
        msisdn,
        sp_code,
        service_code
    from named_acts
    where act = 'open'
),

acts as (
    select *, false as is_broadcast from named_acts
    union all
    select
        events.msisdn,
        events.sp_code,
        relations.service_code,
        events.event_time,
        events.event_time as judged_at,
        events.event_id,
        1,
        case events.action when 'cancel_all' then 'close' else 'suspend' end,
        true
    from events
    inner join relations on events.msisdn = relations.msisdn and events.sp_code = relations.sp_code
    where events.action in ('cancel_all', 'suspend_all')
),

-- A relation is open after its last open or close act if that was an open.
judged as (
    select
        *,
        coalesce(
            lag(case when act in ('open', 'close') then act end ignore nulls) over in_order = 'open',
            false
        ) as was_open
    from acts
    window in_order as (partition by msisdn, sp_code, service_code order by judged_at, event_id, part)
),

final as (
    select
        *,
        act in ('open', 'close') and was_open = (act = 'close') as changes_spell,
        last_value(case when act = 'open' and not was_open then event_id end ignore nulls) over (
            partition by msisdn, sp_code, service_code
            order by judged_at, event_id, part rows between unbounded preceding and current row
        ) as opening_event_id
    from judged
)

select * from final
