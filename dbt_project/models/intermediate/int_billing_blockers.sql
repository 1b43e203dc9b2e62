-- What stops the billing of a month until it is delivered or waived (4-billing-feed): days of usage without which
-- silence is unknown, and missing days of the extracts every bill needs. Windows before the data start do not stop.
-- A day on which no source was expected to deliver usage is not complete either; it has no source to name.

with missing as (
    select extract, source, day
    from {{ ref('extract_completeness') }}
    where status = 'missing'
),

unexpected as (
    select days.extract, null::varchar as source, days.day
    from {{ ref('int_extract_days') }} as days
    anti join {{ ref('int_expected_days') }} as expected
        on days.extract = expected.extract and days.day = expected.day
    where not days.is_complete
),

hidden as (
    select * from missing
    union all
    select * from unexpected
),

months as (
    select billing_month from {{ ref('int_billing_months') }}
),

undecided as (
    select
        billing_month,
        usage_extract,
        window_start,
        count(*) as relations
    from {{ ref('int_silence') }}
    where verdict = 'unknown' and not before_data_start
    group by billing_month, usage_extract, window_start
),

final as (
    select
        undecided.billing_month,
        'unknown_usage' as blocker,
        hidden.extract,
        hidden.source,
        hidden.day,
        sum(undecided.relations)::bigint as relations
    from undecided
    inner join hidden
        on
            undecided.usage_extract = hidden.extract
            and hidden.day >= undecided.window_start
            and hidden.day < undecided.billing_month
    group by undecided.billing_month, hidden.extract, hidden.source, hidden.day
    union all
    select
        months.billing_month,
        'missing_day',
        missing.extract,
        missing.source,
        missing.day,
        0::bigint
    from months
    inner join missing on missing.day < months.billing_month
    inner join {{ ref('policy_billing_inputs') }} as needed
        on missing.extract = needed.extract and {{ is_valid_on('needed', 'months.billing_month') }}
)

select * from final
