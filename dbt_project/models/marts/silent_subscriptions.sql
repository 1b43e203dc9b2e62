{{ config(materialized='view') }}

with final as (
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
)

select * from final
