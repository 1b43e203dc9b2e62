{{ config(
    materialized='incremental',
    pre_hook="{{ delete_rows(
        'taken_on not in (select taken_on from ' ~ ref('int_snapshot_dates') ~ ' where not is_new)'
        ~ ' or (msisdn, sp_code) in (select msisdn, sp_code from ' ~ ref('int_affected_accounts') ~ ')'
    ) }}",
) }}
-- depends_on: {{ ref('int_snapshot_dates') }}
-- Where a snapshot of B 00:00 and the spells disagree about the state just before that instant. A snapshot that
-- opens a relation agrees with itself.

with stated as (
    select
        snapshots.*,
        snapshots.business_date as taken_on,
        openings.msisdn is not null as is_opening
    from {{ ref('stg_relation_snapshot') }} as snapshots
    semi join {{ ref('int_affected_accounts') }} as affected
        on snapshots.msisdn = affected.msisdn and snapshots.sp_code = affected.sp_code
    left join {{ ref('int_snapshot_openings') }} as openings
        on
            snapshots.msisdn = openings.msisdn
            and snapshots.sp_code = openings.sp_code
            and snapshots.service_code = openings.service_code
            and snapshots.source = openings.source
            and snapshots.file_name = openings.file_name
            and snapshots.line_no = openings.line_no
),

known as (
    select * from {{ ref('int_snapshot_known') }}
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
    from stated
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
