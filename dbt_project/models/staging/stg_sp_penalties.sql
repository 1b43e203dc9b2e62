{{ config(
    materialized='incremental',
    pre_hook=[
        "{{ set_changed_paths('new_paths', 'sp_penalties') }}",
        "{{ delete_changed_deliveries('sp_penalties') }}",
    ],
) }}
-- depends_on: {{ ref('changed_deliveries') }}

with final as (
    select
        penalty_id,
        sp_code,
        service_code,
        suspended_from,
        suspended_to,
        reason,
        business_date,
        source,
        delivery,
        file_name,
        line_no
    from {{ lake_rows('new_paths') }}
)

select * from final
