{{ config(
    materialized='incremental',
    pre_hook="{{ delete_judged_bills() }}",
) }}
-- depends_on: {{ ref('int_billing_months') }}
-- depends_on: {{ ref('int_affected_bills') }}

with judged as (
    select * from {{ ref('int_dispositions') }}
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
        case when judged.disposition = 'line_stopped' then judged.stop_reason else codes.reason end as reason,
        judged.fee_li,
        case when judged.disposition = 'billed' then judged.fee_li else 0 end as charged_li
    from judged
    inner join {{ ref('disposition_codes') }} as codes on judged.disposition = codes.disposition
)

select * from final
