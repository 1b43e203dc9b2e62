{{ config(
    materialized='incremental',
    pre_hook=[
        "{{ set_changed_paths('new_paths', 'relation_events') }}",
        "{{ delete_changed_deliveries('relation_events') }}",
    ],
) }}
-- depends_on: {{ ref('changed_deliveries') }}

with final as (
    select
        event_id,
        msisdn,
        sp_code,
        service_code,
        action,
        event_time,
        channel,
        confirmed_at,
        province,
        old_service_code,
        business_date,
        source,
        delivery,
        file_name,
        line_no
    from {{ lake_rows('new_paths') }}
)

select * from final
