{{ config(pre_hook=[
    "{{ set_changed_paths('new_lines', 'line_status') }}",
    "{{ set_changed_paths('old_lines', 'line_status', 'old_path') }}",
    "{{ set_changed_paths('new_penalties', 'sp_penalties') }}",
    "{{ set_changed_paths('old_penalties', 'sp_penalties', 'old_path') }}",
    "{{ set_changed_paths('new_reports', 'sp_reports') }}",
    "{{ set_changed_paths('old_reports', 'sp_reports', 'old_path') }}",
]) }}
-- depends_on: {{ ref('changed_deliveries') }}
-- What changed for anomalies, silence and bills of an account, and since when (a report never changes a bill).

with spells as (
    select * from {{ ref('int_spells') }}
),

changed_lines as (
    select msisdn, from_time from {{ lake_rows('new_lines') }}
    union all
    select msisdn, from_time from {{ lake_rows('old_lines') }}
),

changed_penalties as (
    select penalty_id, sp_code, suspended_from from {{ lake_rows('new_penalties') }}
    union all
    select penalty_id, sp_code, suspended_from from {{ lake_rows('old_penalties') }}
),

-- A penalty of the same id in another delivery may have lost or won its place.
penalised as (
    select sp_code, suspended_from from changed_penalties
    union all
    select penalties.sp_code, penalties.suspended_from
    from {{ ref('stg_sp_penalties') }} as penalties
    semi join changed_penalties on penalties.penalty_id = changed_penalties.penalty_id
),

changed_reports as (
    select report_id, msisdn, sp_code from {{ lake_rows('new_reports') }}
    union all
    select report_id, msisdn, sp_code from {{ lake_rows('old_reports') }}
),

reported as (
    select msisdn, sp_code from changed_reports
    union all
    select reports.msisdn, reports.sp_code
    from {{ ref('stg_sp_reports') }} as reports
    semi join changed_reports on reports.report_id = changed_reports.report_id
),

final as (
    select msisdn, sp_code, since::date as since from {{ ref('int_affected_accounts') }}
    union all
    select msisdn, sp_code, since from {{ ref('int_growth_changes') }}
    union all
    select msisdn, sp_code, month from {{ ref('int_usage_changes') }}
    union all
    select spells.msisdn, spells.sp_code, traffic.month
    from spells
    inner join {{ ref('int_traffic_changes') }} as traffic on spells.msisdn = traffic.msisdn
    union all
    select spells.msisdn, spells.sp_code, changed_lines.from_time::date
    from spells
    inner join changed_lines on spells.msisdn = changed_lines.msisdn
    union all
    select spells.msisdn, spells.sp_code, penalised.suspended_from::date
    from spells
    inner join penalised on spells.sp_code = penalised.sp_code
    union all
    select spells.msisdn, spells.sp_code, services.since
    from spells
    inner join {{ ref('int_service_changes') }} as services
        on spells.sp_code = services.sp_code and spells.service_code = services.service_code
    union all
    select msisdn, sp_code, date 'infinity' from reported
)

select * from final
