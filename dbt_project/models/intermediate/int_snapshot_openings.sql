-- Relations of the affected accounts that a snapshot opens: no event before its midnight and no earlier snapshot
-- names them.

with affected as (
    select * from {{ ref('int_affected_accounts') }}
),

snapshots as (
    select
        snapshots.*,
        row_number() over (
            partition by snapshots.msisdn, snapshots.sp_code, snapshots.service_code
            order by snapshots.business_date, snapshots.source, snapshots.file_name, snapshots.line_no
        ) as nth_naming
    from {{ ref('stg_relation_snapshot') }} as snapshots
    semi join affected on snapshots.msisdn = affected.msisdn and snapshots.sp_code = affected.sp_code
),

events as (
    select * from {{ ref('int_relation_events') }}
    where is_effective
),

-- An event names a relation by its service, or by the service it replaces; "all" of an SP names none.
named as (
    select msisdn, sp_code, service_code, event_time from events
    where service_code is not null
    union all
    select msisdn, sp_code, old_service_code, event_time from events
    where action = 'replace'
),

first_named as (
    select
        msisdn,
        sp_code,
        service_code,
        min(event_time) as first_event_at
    from named
    group by msisdn, sp_code, service_code
),

final as (
    select
        snapshots.msisdn,
        snapshots.sp_code,
        snapshots.service_code,
        snapshots.status,
        least(snapshots.first_ordered_at, snapshots.ordered_at) as first_ordered_at,
        snapshots.ordered_at,
        snapshots.business_date::timestamp as taken_at,
        snapshots.confirmed_at,
        snapshots.channel,
        snapshots.province,
        snapshots.source,
        snapshots.file_name,
        snapshots.line_no
    from snapshots
    left join first_named
        on
            snapshots.msisdn = first_named.msisdn
            and snapshots.sp_code = first_named.sp_code
            and snapshots.service_code = first_named.service_code
    where
        snapshots.nth_naming = 1
        and (first_named.first_event_at is null or first_named.first_event_at >= snapshots.business_date::timestamp)
)

select * from final
