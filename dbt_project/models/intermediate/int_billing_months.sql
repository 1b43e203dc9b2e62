-- The billing months that exist (M-01 at most the day after the as-of date, first one after the oldest order), the one
-- previewed, and whether this run judges every relation of the month: a month that is new (or newly previewed), or one
-- after a day whose completeness flipped.

with context as (
    select * from {{ source('control', 'run_context') }}
),

oldest as (
    select {{ month_of('min(ordered_at)') }} as month from {{ ref('int_spells') }}
),

preview as (
    select * from {{ ref('int_preview_month') }}
),

months as (
    select unnest(generate_series(
        oldest.month::timestamp,
        greatest(context.as_of_date + 1, (select max(billing_month) from preview))::timestamp,
        interval 1 month
    ))::date as billing_month
    from oldest
    cross join context
),

-- An incomplete day hides anomalies, and an anomaly lasts: a flip touches every later month.
flipped as (
    select min(flipped_days.day) as first_day
    from {{ ref('int_flipped_days') }} as flipped_days
    where
        flipped_days.extract in (select usage_extract from {{ ref('service_classes') }})
        or flipped_days.extract = 'gprs_usage'
),

final as (
    select
        months.billing_month,
        coalesce(
            context.previous_as_of_date is null
            or case
                when months.billing_month <= context.as_of_date + 1
                    then months.billing_month > context.previous_as_of_date + 1
                else not preview.is_held
            end
            or months.billing_month > flipped.first_day,
            false
        ) as is_judged_whole
    from months
    left join preview on months.billing_month = preview.billing_month
    cross join context
    cross join flipped
)

select * from final
