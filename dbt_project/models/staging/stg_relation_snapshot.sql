{{ config(
    materialized='incremental',
    pre_hook=[
        "{{ set_changed_paths('new_paths', 'relation_snapshot') }}",
        "{{ delete_changed_deliveries('relation_snapshot') }}",
    ],
) }}
-- depends_on: {{ ref('changed_deliveries') }}

with final as (
    select
        msisdn,
        sp_code,
        service_code,
        status,
        first_ordered_at,
        ordered_at,
        confirmed_at,
        channel,
        province,
        business_date,
        source,
        delivery,
        file_name,
        line_no
    from {{ lake_rows('new_paths') }}
)

select * from final
