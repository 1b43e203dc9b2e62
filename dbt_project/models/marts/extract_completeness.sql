with context as (
    select as_of_date from {{ source('control', 'run_context') }}
),

deliveries as (
    select in_force.*
    from {{ source('control', 'in_force') }} as in_force
    cross join context
    where in_force.business_date <= context.as_of_date
),

expected as (
    select expected.*
    from {{ ref('int_expected_days') }} as expected
    cross join context
    where expected.day <= context.as_of_date
),

waived as (
    select distinct waivers.extract, waivers.source, waivers.day
    from {{ source('control', 'waivers') }} as waivers
    cross join context
    where waivers.expires_on >= context.as_of_date
),

final as (
    select
        coalesce(expected.extract, deliveries.extract) as extract,
        coalesce(expected.source, deliveries.source) as source,
        coalesce(expected.day, deliveries.business_date) as day,
        expected.day is not null as expected,
        deliveries.delivery is not null as delivered,
        deliveries.delivery,
        coalesce(deliveries.rows_in, 0) as rows_in,
        coalesce(deliveries.rows_loaded, 0) as rows_loaded,
        coalesce(deliveries.rows_quarantined, 0) as rows_quarantined,
        coalesce(deliveries.rows_duplicate, 0) as rows_duplicate,
        case
            when deliveries.delivery is not null then 'delivered'
            when waived.day is not null then 'waived'
            else 'missing'
        end as status
    from expected
    full join deliveries
        on
            expected.extract = deliveries.extract
            and expected.source = deliveries.source
            and expected.day = deliveries.business_date
    left join waived on expected.extract = waived.extract and expected.source = waived.source and expected.day = waived.day
)

select * from final
