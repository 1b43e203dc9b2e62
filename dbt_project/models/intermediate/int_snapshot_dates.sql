{{ config(materialized='view') }}
-- Dates with a snapshot in force. On a date that is new every live relation is compared; later only the accounts that
-- changed are: what another source said of the date stays.

with absorbed_dates as (
    select distinct business_date from {{ source('control', 'absorbed') }}
    where extract = 'relation_snapshot'
),

final as (
    select distinct
        in_force.business_date as taken_on,
        absorbed_dates.business_date is null as is_new
    from {{ source('control', 'in_force') }} as in_force
    cross join {{ source('control', 'run_context') }} as context
    left join absorbed_dates on in_force.business_date = absorbed_dates.business_date
    where in_force.extract = 'relation_snapshot' and in_force.business_date <= context.as_of_date
)

select * from final
