{{ config(pre_hook="{{ set_full_file_paths('full_file_paths', 'service_providers') }}") }}
-- depends_on: {{ ref('full_file_changes') }}
-- Full files repeat day after day: only the days whose content differs from the day before are read.

with final as (
    select
        sp_code,
        sp_name,
        province,
        status,
        contact,
        business_date,
        source,
        delivery,
        file_name,
        line_no
    from {{ lake_rows('full_file_paths') }}
)

select * from final
