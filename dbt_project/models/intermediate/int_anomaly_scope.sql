-- Spells whose anomalies are judged in this run: affected accounts, detection days reached since the last build,
-- windows that hold a flipped day, anomalies still open or awaiting a report, and detection days that lie ahead, before
-- a bill whose preview is judged whole.
{% set anomalies = adapter.get_relation(database=target.database, schema='marts', identifier='anomalous_subscriptions') %}

with context as (
    select * from {{ source('control', 'run_context') }}
),

windows as (
    select * from {{ ref('int_anomaly_windows') }}
),

final as (
    select windows.subscription_id
    from windows
    cross join context
    where
        windows.detected_on <= context.as_of_date
        and (context.previous_as_of_date is null or windows.detected_on > context.previous_as_of_date)
    union
    select windows.subscription_id
    from windows
    cross join context
    inner join {{ ref('int_billing_months') }} as months on windows.detected_on < months.billing_month
    where months.is_judged_whole and windows.detected_on > context.as_of_date
    union
    select spells.subscription_id
    from {{ ref('int_spells') }} as spells
    semi join {{ ref('int_affected_relations') }} as relations
        on spells.msisdn = relations.msisdn and spells.sp_code = relations.sp_code
    union
    select windows.subscription_id
    from windows
    inner join {{ ref('int_flipped_days') }} as flipped
        on
            windows.extract = flipped.extract
            and flipped.day between windows.observed_from and windows.detected_on
    {%- if anomalies is not none %}
    union
    select subscription_id
    from {{ anomalies }}
    where resolved_on is null or report_status = 'pending'
    {%- endif %}
)

select * from final
