-- Days whose growth is judged in this run: newly closed ones, and those whose baseline, guard days or last two weeks
-- of rises hold a day on which an order or the completeness changed. A changed catalogue moves the day since when
-- a service is known: then every day from there on.

with context as (
    select previous_as_of_date from {{ source('control', 'run_context') }}
),

periods as (
    select * from {{ ref('int_growth_periods') }}
),

accounts as (
    select * from {{ ref('int_affected_accounts') }}
),

-- A change of one act of an account may open or close any later order of it.
changed as (
    select since::date as day from {{ ref('int_account_changes') }}
    union
    select events.event_time::date
    from {{ ref('stg_relation_events') }} as events
    inner join accounts on events.msisdn = accounts.msisdn and events.sp_code = accounts.sp_code
    where events.event_time >= accounts.since
    union
    select snapshots.ordered_at::date
    from {{ ref('stg_relation_snapshot') }} as snapshots
    semi join accounts on snapshots.msisdn = accounts.msisdn and snapshots.sp_code = accounts.sp_code
    union
    select day from {{ ref('int_flipped_days') }}
    where extract = 'relation_events'
),

catalogue as (
    select min(since) as since from {{ ref('int_service_changes') }}
),

final as (
    select periods.*
    from periods
    cross join context
    cross join catalogue
    where
        context.previous_as_of_date is null
        or periods.day > context.previous_as_of_date
        or periods.day >= catalogue.since
        or exists (
            select 1 from changed
            where
                changed.day <= periods.day
                and changed.day >= periods.day - (
                    periods.window_periods + periods.guard_periods + 2 * periods.ramp_periods
                )
        )
)

select * from final
