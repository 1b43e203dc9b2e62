{{ config(pre_hook="{{ set_full_file_paths('full_file_paths', 'service_catalogue') }}") }}
-- depends_on: {{ ref('full_file_changes') }}
-- Full files repeat day after day: only the days whose content differs from the day before are read.

with final as (
    select
        sp_code,
        service_code,
        service_name,
        service_class,
        is_portal,
        billing_type,
        monthly_fee_li,
        status,
        valid_from,
        marketing_text,
        business_date,
        source,
        delivery,
        file_name,
        line_no
    from {{ lake_rows('full_file_paths') }}
)

select * from final
