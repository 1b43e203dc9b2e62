with newest as (
    select max(business_date) as business_date from {{ ref('full_file_changes') }}
    where extract = 'service_providers'
),

ranked as (
    select
        providers.*,
        row_number() over (
            partition by providers.sp_code order by providers.source desc, providers.file_name desc, providers.line_no desc
        ) as nth_newest
    from {{ ref('stg_service_providers') }} as providers
    inner join newest on providers.business_date = newest.business_date
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
