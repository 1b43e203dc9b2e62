-- Events of the affected accounts; of several with one event_id the first delivered counts.

with affected as (
    select * from {{ ref('int_affected_accounts') }}
),

touched_ids as (
    select distinct events.event_id
    from {{ ref('stg_relation_events') }} as events
    semi join affected on events.msisdn = affected.msisdn and events.sp_code = affected.sp_code
),

candidates as (
    select events.*
    from {{ ref('stg_relation_events') }} as events
    semi join touched_ids on events.event_id = touched_ids.event_id
),

described as (
    select
        *,
        row(
            msisdn, sp_code, service_code, action, event_time, channel, confirmed_at, province, old_service_code
        ) as content
    from candidates
),

compared as (
    select
        *,
        row_number() over first_delivered as nth_of_same_id,
        content is distinct from first_value(content) over first_delivered as differs_from_first
    from described
    window first_delivered as (partition by event_id order by business_date, source, file_name, line_no)
),

conflicts as (
    select
        *,
        differs_from_first
        and row_number() over (
            partition by event_id, differs_from_first order by nth_of_same_id
        ) = 1 as is_first_conflict
    from compared
),

final as (
    select
        conflicts.event_id,
        conflicts.msisdn,
        conflicts.sp_code,
        conflicts.service_code,
        conflicts.action,
        conflicts.event_time,
        conflicts.channel,
        conflicts.confirmed_at,
        conflicts.province,
        conflicts.old_service_code,
        conflicts.business_date,
        conflicts.source,
        conflicts.nth_of_same_id = 1 as is_effective,
        conflicts.is_first_conflict
    from conflicts
    semi join affected on conflicts.msisdn = affected.msisdn and conflicts.sp_code = affected.sp_code
)

select * from final
