-- Months a changed spell can reach: (account, month) from the month of the change to the month after the as-of date.
-- Empty on a full build, which makes all months anew.

with context as (
    select as_of_date from {{ source('control', 'run_context') }}
),

accounts as (
    select * from {{ ref('int_affected_accounts') }}
    {{ unless_full_build() }}
),

first_use as (
    select {{ month_of('min(first_delivered_day)') }} as month
    from {{ ref('int_extract_days') }}
    where extract in (select usage_extract from {{ ref('service_classes') }})
        or extract = 'gprs_usage'
),

-- A record may be older than its file by the lateness allowed, so the months before the first file count too.
reachable as (
    select unnest(generate_series(
        first_use.month - to_days((select max(max_lateness_days) from {{ ref('policy_ingest') }})::integer),
        context.as_of_date + interval 1 month,
        interval 1 day
    )) as day
    from first_use
    cross join context
),

months as (
    select distinct {{ month_of('day') }} as month from reachable
),

final as (
    select
        accounts.msisdn,
        accounts.sp_code,
        months.month
    from accounts
    inner join months on months.month >= {{ month_of('accounts.since') }}
)

select * from final
