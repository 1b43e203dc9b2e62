{{ config(
    materialized='incremental',
    pre_hook=[
        "{{ set_changed_paths('new_paths', 'refunds') }}",
        "{{ delete_changed_deliveries('refunds') }}",
    ],
) }}
-- depends_on: {{ ref('changed_deliveries') }}

with final as (
    select
        refund_id,
        msisdn,
        sp_code,
        service_code,
        billing_month,
        amount_li,
        times,
        reason,
        business_date,
        source,
        delivery,
        file_name,
        line_no
    from {{ lake_rows('new_paths') }}
)

select * from final
