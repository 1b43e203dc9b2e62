-- Accounts whose spells are judged anew, with the earliest instant from which anything can differ.

with changes as (
    select
        msisdn,
        sp_code,
        min(since) as since
    from {{ ref('int_account_changes') }}
    group by msisdn, sp_code
),

-- A snapshot opens a relation only if no earlier event names it: a change before it reaches back to its order.
snapshots as (
    select
        msisdn,
        sp_code,
        max(business_date)::timestamp as last_taken_at,
        min(least(ordered_at, first_ordered_at)) as first_ordered_at
    from {{ ref('stg_relation_snapshot') }}
    group by msisdn, sp_code
),

final as (
    select
        changes.msisdn,
        changes.sp_code,
        {{ pseudonym('changes.msisdn') }} as subscriber_id,
        case
            when changes.since < snapshots.last_taken_at then least(changes.since, snapshots.first_ordered_at)
            else changes.since
        end as since
    from changes
    left join snapshots on changes.msisdn = snapshots.msisdn and changes.sp_code = snapshots.sp_code
)

select * from final
