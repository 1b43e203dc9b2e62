-- A row of the catalogue holds from the later of its valid_from and the day after its file, until the next row or
-- the day after the first file without it; the first file reaches back before the first delivery.

with files as (
    select
        business_date,
        case when is_first then date '0001-01-01' else business_date + 1 end as holds_from,
        next_business_date + 1 as holds_to
    from {{ ref('full_file_changes') }}
    where extract = 'service_catalogue'
),

catalogue as (
    select
        *,
        row_number() over (
            partition by business_date, sp_code, service_code, valid_from order by source desc, file_name desc, line_no desc
        ) as nth_of_same_key
    from {{ ref('stg_service_catalogue') }}
),

rows_in_file as (
    select
        catalogue.*,
        files.holds_from,
        files.holds_to,
        lead(catalogue.valid_from) over (
            partition by catalogue.business_date, catalogue.sp_code, catalogue.service_code order by catalogue.valid_from
        ) as next_valid_from
    from catalogue
    inner join files on catalogue.business_date = files.business_date
    where catalogue.nth_of_same_key = 1
),

segments as (
    select
        sp_code,
        service_code,
        service_name,
        service_class,
        is_portal,
        billing_type,
        coalesce(monthly_fee_li, 0) as monthly_fee_li,
        greatest(holds_from, valid_from) as valid_from,
        case
            when next_valid_from is null then holds_to
            when holds_to is null then next_valid_from
            else least(holds_to, next_valid_from)
        end as valid_to
    from rows_in_file
),

marked as (
    select
        *,
        coalesce(
            row(service_name, service_class, is_portal, billing_type, monthly_fee_li, valid_from)
            is not distinct from
            lag(row(service_name, service_class, is_portal, billing_type, monthly_fee_li, valid_to)) over (
                partition by sp_code, service_code order by valid_from
            ),
            false
        ) as continues
    from segments
    where valid_to is null or valid_from < valid_to
),

numbered as (
    select
        *,
        sum(case when continues then 0 else 1 end) over (
            partition by sp_code, service_code order by valid_from
        ) as version_number
    from marked
),

final as (
    select
        sp_code,
        service_code,
        any_value(service_name) as service_name,
        any_value(service_class) as service_class,
        any_value(is_portal) as is_portal,
        any_value(billing_type) as billing_type,
        any_value(monthly_fee_li) as monthly_fee_li,
        min(valid_from) as valid_from,
        max_by(valid_to, valid_from) as valid_to
    from numbered
    group by sp_code, service_code, version_number
)

select * from final
