{{ config(
    materialized='incremental',
    pre_hook="{{ delete_rows(judged_bills()) }}",
) }}
-- depends_on: {{ ref('int_billing_months') }}
-- depends_on: {{ ref('int_affected_bills') }}

with context as (
    select as_of_date from {{ source('control', 'run_context') }}
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
        judged.charged_li
    from {{ ref('int_dispositions') }} as judged
    cross join context
    where judged.billing_month <= context.as_of_date + 1
)

select * from final
