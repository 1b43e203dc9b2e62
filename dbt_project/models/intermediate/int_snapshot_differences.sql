{{ config(
    materialized='incremental',
    pre_hook="{{ delete_rows(
        'taken_on in (select business_date from ' ~ ref('changed_deliveries') ~ ' where extract = \\'relation_snapshot\\')'
        ~ ' or (msisdn, sp_code) in (select msisdn, sp_code from ' ~ ref('int_affected_accounts') ~ ')'
    ) }}",
) }}
-- depends_on: {{ ref('int_affected_accounts') }}
-- Where a snapshot of B 00:00 and the spells disagree about the state just before that instant. A snapshot that
-- opens a relation agrees with itself.

with affected as (
    select msisdn, sp_code from {{ ref('int_affected_accounts') }}
),

changed_dates as (
    select distinct business_date from {{ ref('changed_deliveries') }}
    where extract = 'relation_snapshot'
),

dates as (
    select distinct
        in_force.business_date as taken_on,
        in_force.business_date in (select business_date from changed_dates) as is_changed
    from {{ source('control', 'in_force') }} as in_force
    cross join {{ source('control', 'run_context') }} as context
    where in_force.extract = 'relation_snapshot' and in_force.business_date <= context.as_of_date
),

stated as (
    select
        snapshots.*,
        snapshots.business_date as taken_on
    from {{ ref('stg_relation_snapshot') }} as snapshots
    inner join dates on snapshots.business_date = dates.taken_on
    left join affected on snapshots.msisdn = affected.msisdn and snapshots.sp_code = affected.sp_code
    where dates.is_changed or affected.msisdn is not null
),

known as (
    select
        dates.taken_on,
        spells.*,
        coalesce(bool_or({{ holds_at('suspensions.suspended_from', 'suspensions.suspended_to', 'dates.taken_on') }}), false)
            as is_suspended
    from dates
    inner join {{ ref('int_spells') }} as spells on {{ holds_at('spells.ordered_at', 'spells.ended_at', 'dates.taken_on') }}
    left join affected on spells.msisdn = affected.msisdn and spells.sp_code = affected.sp_code
    left join {{ ref('int_suspensions') }} as suspensions on spells.subscription_id = suspensions.subscription_id
    where dates.is_changed or affected.msisdn is not null
    group by all
),

judged as (
    select
        stated.*,
        openings.msisdn is not null as is_opening
    from stated
    left join {{ ref('int_snapshot_openings') }} as openings
        on
            stated.msisdn = openings.msisdn
            and stated.sp_code = openings.sp_code
            and stated.service_code = openings.service_code
            and stated.source = openings.source
            and stated.file_name = openings.file_name
            and stated.line_no = openings.line_no
),

compared as (
    select
        coalesce(stated.taken_on, known.taken_on) as taken_on,
        coalesce(stated.msisdn, known.msisdn) as msisdn,
        coalesce(stated.sp_code, known.sp_code) as sp_code,
        coalesce(stated.service_code, known.service_code) as service_code,
        coalesce(stated.source, known.opening_source) as source,
        coalesce(stated.is_opening, false) as is_opening,
        stated.msisdn is null or known.msisdn is null
        or (stated.status = 'suspended') <> known.is_suspended
        or stated.ordered_at <> known.ordered_at
        or coalesce(stated.first_ordered_at, stated.ordered_at) <> known.first_ordered_at
        or stated.confirmed_at is distinct from known.confirmed_at
        or stated.channel is distinct from known.channel
        or stated.province is distinct from known.province as is_different
    from judged as stated
    full join known
        on
            stated.taken_on = known.taken_on
            and stated.msisdn = known.msisdn
            and stated.sp_code = known.sp_code
            and stated.service_code = known.service_code
),

final as (
    select distinct
        taken_on,
        msisdn,
        sp_code,
        service_code,
        source
    from compared
    where is_different and not is_opening
)

select * from final
