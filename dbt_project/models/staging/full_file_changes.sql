with context as (
    select as_of_date from {{ source('control', 'run_context') }}
),

days as (
    select
        deliveries.extract,
        deliveries.business_date,
        list(deliveries.lake_path order by deliveries.source) as lake_paths,
        string_agg(
            deliveries.source || ':' || coalesce(deliveries.content_digest, 'none'), ',' order by deliveries.source
        ) as digest
    from {{ source('control', 'in_force') }} as deliveries
    cross join context
    where
        deliveries.extract in ('service_catalogue', 'service_providers')
        and deliveries.business_date <= context.as_of_date
    group by deliveries.extract, deliveries.business_date
),

compared as (
    select
        *,
        lag(digest) over (partition by extract order by business_date) as digest_before
    from days
),

final as (
    select
        extract,
        business_date,
        lake_paths,
        lead(business_date) over (partition by extract order by business_date) as next_business_date,
        row_number() over (partition by extract order by business_date) = 1 as is_first
    from compared
    where digest is distinct from digest_before
)

select * from final
