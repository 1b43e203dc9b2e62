{{ config(materialized='view') }}

with context as (
    select as_of_date from {{ source('control', 'run_context') }}
),

final as (
    select
        subscription_id,
        subscriber_id,
        sp_code,
        service_code,
        service_class,
        billing_month,
        window_start,
        mt_count,
        wap_hits,
        verdict
    from {{ ref('int_silence') }}
    cross join context
    where billing_month <= context.as_of_date + 1
)

select * from final
