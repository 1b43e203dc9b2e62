{{ config(
    materialized='incremental',
    pre_hook="{{ delete_rows(
        'billing_month not in (select billing_month from ' ~ ref('int_preview_month') ~ ') or ' ~ judged_bills()
    ) }}",
) }}
-- depends_on: {{ ref('int_billing_months') }}
-- depends_on: {{ ref('int_affected_bills') }}

with context as (
    select as_of_date from {{ source('control', 'run_context') }}
),

undecided as (
    select billing_month, subscription_id
    from {{ ref('int_silence') }}
    where verdict = 'unknown' and not before_data_start
),

final as (
    select
        judged.billing_month,
        judged.subscription_id,
        judged.subscriber_id,
        judged.sp_code,
        judged.service_code,
        judged.province,
        judged.disposition,
        judged.reason,
        judged.fee_li,
        judged.charged_li,
        case
            when judged.disposition = 'billed' and undecided.subscription_id is not null then 'unknown'
            when judged.disposition in ('abnormal', 'silent') and judged.billing_month > context.as_of_date + 1 then 'open'
            else 'known'
        end as verdict
    from {{ ref('int_dispositions') }} as judged
    inner join {{ ref('int_preview_month') }} as preview on judged.billing_month = preview.billing_month
    cross join context
    left join undecided
        on judged.billing_month = undecided.billing_month and judged.subscription_id = undecided.subscription_id
)

select * from final
