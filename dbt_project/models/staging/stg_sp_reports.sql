{{ config(
    materialized='incremental',
    pre_hook=[
        "{{ set_changed_paths('new_paths', 'sp_reports') }}",
        "{{ delete_changed_deliveries('sp_reports') }}",
    ],
) }}
-- depends_on: {{ ref('changed_deliveries') }}

with final as (
    select
        report_id,
        sp_code,
        service_code,
        msisdn,
        anomaly_type,
        reported_at,
        business_date,
        source,
        delivery,
        file_name,
        line_no
    from {{ lake_rows('new_paths') }}
)

select * from final
