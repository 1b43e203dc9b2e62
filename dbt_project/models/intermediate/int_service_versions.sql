-- A version of a service lasts while the catalogue row that answers for it stays the same in every column.

with stated as (
    select
        *,
        row(
            service_name, service_class, is_portal, billing_type, monthly_fee_li, status, row_valid_from, marketing_text
        ) as content
    from {{ ref('int_service_answers') }}
),

compared as (
    select
        *,
        lag(is_named) over in_order is distinct from is_named
        or lag(content) over in_order is distinct from content as is_change
    from stated
    window in_order as (partition by sp_code, service_code order by day)
),

versions as (
    select
        *,
        lead(day) over (partition by sp_code, service_code order by day) as next_day
    from compared
    where is_change
),

final as (
    select
        sp_code,
        service_code,
        service_name,
        service_class,
        is_portal,
        billing_type,
        coalesce(monthly_fee_li, 0) as monthly_fee_li,
        day as valid_from,
        next_day as valid_to
    from versions
    where is_named
)

select * from final
