with ranked as (
    select
        *,
        row_number() over (
            partition by sp_code order by business_date desc, source desc, file_name desc, line_no desc
        ) as nth_newest
    from {{ ref('stg_service_providers') }}
),

final as (
    select
        sp_code,
        sp_name,
        province,
        status
    from ranked
    where nth_newest = 1
)

select * from final
