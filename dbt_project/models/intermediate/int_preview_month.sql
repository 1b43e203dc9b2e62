-- The billing month that is shown before it is due: from the policy's day of a month on, the month after. No row before.
-- is_held: the build before showed the same month already.

with context as (
    select * from {{ source('control', 'run_context') }}
),

policies as (
    select * from {{ ref('policy_preview') }}
),

shown as (
    select
        {{ add_months(month_of('context.as_of_date'), 1) }} as billing_month
    from context
    inner join policies on {{ is_valid_on('policies', 'context.as_of_date') }}
    where day(context.as_of_date) >= policies.first_day
),

shown_before as (
    select
        {{ add_months(month_of('context.previous_as_of_date'), 1) }} as billing_month
    from context
    inner join policies on {{ is_valid_on('policies', 'context.previous_as_of_date') }}
    where day(context.previous_as_of_date) >= policies.first_day
),

final as (
    select
        shown.billing_month,
        shown_before.billing_month is not null as is_held
    from shown
    left join shown_before on shown.billing_month = shown_before.billing_month
)

select * from final
