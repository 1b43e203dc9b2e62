{{ config(
    materialized='incremental',
    pre_hook=[
        "{{ set_changed_paths('new_paths', 'line_status') }}",
        "{{ delete_changed_deliveries('line_status') }}",
    ],
) }}
-- depends_on: {{ ref('changed_deliveries') }}

with final as (
    select
        msisdn,
        status,
        from_time,
        to_time,
        business_date,
        source,
        delivery,
        file_name,
        line_no
    from {{ lake_rows('new_paths') }}
)

select * from final
