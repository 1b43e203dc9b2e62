{{ config(
    materialized='incremental',
    pre_hook="{{ delete_rows(
        'subscription_id in (select subscription_id from ' ~ ref('int_anomaly_scope')
        ~ ') or (subscriber_id, sp_code) in (select subscriber_id, sp_code from ' ~ ref('int_affected_accounts') ~ ')'
    ) }}",
) }}
-- depends_on: {{ ref('int_anomaly_scope') }}
-- depends_on: {{ ref('int_affected_accounts') }}

with context as (
    select as_of_date from {{ source('control', 'run_context') }}
),

anomalies as (
    select anomalies.*
    from {{ ref('int_anomalies') }} as anomalies
    cross join context
    where anomalies.detected_on <= context.as_of_date
),

working_days as (
    select * from {{ ref('int_working_days') }}
),

due as (
    select
        anomalies.*,
        deadline.day as due_on,
        deadline.is_estimated as due_on_is_estimated
    from anomalies
    inner join working_days as detection on anomalies.detected_on = detection.day
    inner join {{ ref('policy_report') }} as policy on {{ is_valid_on('policy', 'anomalies.detected_on') }}
    inner join working_days as deadline
        on
            detection.working_days_so_far + policy.working_days = deadline.working_days_so_far
            and deadline.is_working_day
),

-- The earliest report within the spell's part of the relation's history decides, whatever type it names.
reports as (
    select anomalies.subscription_id, min(reports.reported_at) as reported_at
    from (select distinct subscription_id, msisdn, sp_code, service_code, ordered_at, next_ordered_at from anomalies) as anomalies
    inner join {{ ref('int_reports_current') }} as reports
        on
            anomalies.msisdn = reports.msisdn
            and anomalies.sp_code = reports.sp_code
            and anomalies.service_code = reports.service_code
            and anomalies.ordered_at <= reports.reported_at
            and (anomalies.next_ordered_at is null or reports.reported_at < anomalies.next_ordered_at)
    group by anomalies.subscription_id
),

final as (
    select
        due.subscription_id,
        due.subscriber_id,
        due.sp_code,
        due.service_code,
        due.anomaly_type,
        due.observed_from,
        due.detected_on,
        due.resolved_on,
        due.due_on,
        due.due_on_is_estimated,
        case when due.report_to = 'province' then due.province else due.report_to end as report_to,
        case
            when reports.reported_at < {{ end_of('due.due_on') }} then 'reported'
            when reports.reported_at is not null then 'reported_late'
            when context.as_of_date <= due.due_on then 'pending'
            else 'unreported'
        end as report_status,
        reports.reported_at
    from due
    cross join context
    left join reports on due.subscription_id = reports.subscription_id
)

select * from final
