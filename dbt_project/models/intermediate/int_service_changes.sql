-- Services whose catalogue history differs from what the last build absorbed, and since which day.

with versions as (
    select * from {{ ref('int_service_versions') }}
),

absorbed as (
    select * from {{ source('control', 'absorbed_services') }}
),

differences as (
    select
        coalesce(versions.sp_code, absorbed.sp_code) as sp_code,
        coalesce(versions.service_code, absorbed.service_code) as service_code,
        case
            when versions.sp_code is null or absorbed.sp_code is null then coalesce(versions.valid_from, absorbed.valid_from)
            else least(versions.valid_to, absorbed.valid_to)
        end as since
    from versions
    full join absorbed
        on
            versions.sp_code = absorbed.sp_code
            and versions.service_code = absorbed.service_code
            and versions.valid_from = absorbed.valid_from
            and versions.service_name is not distinct from absorbed.service_name
            and versions.service_class is not distinct from absorbed.service_class
            and versions.is_portal is not distinct from absorbed.is_portal
            and versions.billing_type is not distinct from absorbed.billing_type
            and versions.monthly_fee_li is not distinct from absorbed.monthly_fee_li
    where
        versions.sp_code is null
        or absorbed.sp_code is null
        or versions.valid_to is distinct from absorbed.valid_to
),

final as (
    select
        sp_code,
        service_code,
        min(since) as since
    from differences
    group by sp_code, service_code
)

select * from final
