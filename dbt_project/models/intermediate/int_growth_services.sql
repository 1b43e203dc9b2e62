{{ config(materialized='view') }}
-- Services whose growth is judged, and the position since when the catalogue knows them (null: it never did).

with listed as (
    select
        sp_code,
        service_code,
        min(valid_from) as known_from
    from {{ ref('int_service_versions') }}
    group by sp_code, service_code
),

ordered as (
    select distinct
        sp_code,
        service_code
    from {{ ref('int_growth_counts') }}
),

starts as (
    select min(position) as first_position from {{ ref('int_growth_periods') }}
),

final as (
    select
        coalesce(listed.sp_code, ordered.sp_code) as sp_code,
        coalesce(listed.service_code, ordered.service_code) as service_code,
        concat_ws('/', coalesce(listed.sp_code, ordered.sp_code), coalesce(listed.service_code, ordered.service_code))
            as series,
        case
            when listed.known_from is not null
                then greatest({{ growth_position('listed.known_from') }}, starts.first_position)
        end as start_position
    from listed
    full join ordered on listed.sp_code = ordered.sp_code and listed.service_code = ordered.service_code
    cross join starts
)

select * from final
