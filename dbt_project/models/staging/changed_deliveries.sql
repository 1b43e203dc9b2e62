with context as (
    select as_of_date from {{ source('control', 'run_context') }}
),

in_force as (
    select deliveries.*
    from {{ source('control', 'in_force') }} as deliveries
    cross join context
    where deliveries.business_date <= context.as_of_date
),

absorbed as (
    select * from {{ source('control', 'absorbed') }}
),

final as (
    select
        coalesce(in_force.extract, absorbed.extract) as extract,
        coalesce(in_force.business_date, absorbed.business_date) as business_date,
        coalesce(in_force.source, absorbed.source) as source,
        absorbed.delivery as old_delivery,
        in_force.delivery as new_delivery,
        absorbed.lake_path as old_path,
        in_force.lake_path as new_path
    from in_force
    full join absorbed
        on
            in_force.extract = absorbed.extract
            and in_force.business_date = absorbed.business_date
            and in_force.source = absorbed.source
    where in_force.delivery is distinct from absorbed.delivery
)

select * from final
