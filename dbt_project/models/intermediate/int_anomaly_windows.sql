{{ config(materialized='view') }}
-- Arithmetic of R1 and R2 for every spell: from which day disuse is observed and on which day it would be detected.
-- The class that counts is the one at the end of the day of detection.

with spells as (
    select * from {{ ref('int_spells') }}
),

classes as (
    select * from {{ ref('service_classes') }}
    where usage_extract is not null
),

starts as (
    select distinct
        extract,
        first_delivered_day
    from {{ ref('int_extract_days') }}
    where first_delivered_day is not null
),

kinds as (
    select
        'never_accessed' as anomaly_type,
        service_class,
        use_measure as measure,
        usage_extract as extract,
        report_to
    from classes
    union all
    select 'no_traffic', service_class, 'traffic', 'gprs_usage', report_to
    from classes
    where is_browsed
),

tenures as (
    select * from {{ ref('policy_tenure') }}
),

windows as (
    select
        spells.*,
        kinds.anomaly_type,
        kinds.service_class,
        kinds.measure,
        kinds.extract,
        kinds.report_to,
        greatest(spells.ordered_at::date, starts.first_delivered_day) as observed_from,
        {{ add_days('greatest(spells.ordered_at::date, starts.first_delivered_day)', 'tenures.tenure_days') }} as detected_on,
        tenures.valid_from as tenure_valid_from,
        tenures.valid_to as tenure_valid_to
    from spells
    inner join {{ ref('int_service_versions') }} as services
        on spells.sp_code = services.sp_code and spells.service_code = services.service_code
    inner join kinds on services.service_class = kinds.service_class
    inner join starts on kinds.extract = starts.extract
    inner join tenures on kinds.anomaly_type = tenures.anomaly_type
    where
        -- end of D is the midnight of the next day: that day's catalogue row
        services.valid_from <= {{ add_days('greatest(spells.ordered_at::date, starts.first_delivered_day)', 'tenures.tenure_days + 1') }}
        and (
            services.valid_to is null
            or services.valid_to > {{ add_days('greatest(spells.ordered_at::date, starts.first_delivered_day)', 'tenures.tenure_days + 1') }}
        )
),

final as (
    select
        *,
        {{ end_of('detected_on') }} as detected_at
    from windows
    where
        tenure_valid_from <= detected_on
        and (tenure_valid_to is null or detected_on < tenure_valid_to)
        and {{ holds_at('ordered_at', 'ended_at', end_of('detected_on')) }}
)

select * from final
