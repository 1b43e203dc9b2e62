with final as (
    select
        sp_code,
        service_code,
        service_name,
        service_class,
        is_portal,
        billing_type,
        monthly_fee_li,
        valid_from,
        valid_to
    from {{ ref('int_service_versions') }}
)

select * from final
