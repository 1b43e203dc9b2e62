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

final as (
    select
        compared.event_id,
        compared.msisdn,
        compared.sp_code,
        compared.service_code,
        compared.action,
        compared.event_time,
        compared.channel,
        compared.confirmed_at,
        compared.province,
        compared.old_service_code,
        compared.business_date,
        compared.source,
        compared.nth_of_same_id = 1 as is_effective,
        compared.differs_from_first as is_conflicting
    from compared
    semi join affected on compared.msisdn = affected.msisdn and compared.sp_code = affected.sp_code
)

select * from final
