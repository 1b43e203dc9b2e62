{{ config(
    materialized='incremental',
    pre_hook="{{ delete_rows(
        '(subscriber_id, sp_code) in (select subscriber_id, sp_code from ' ~ ref('int_affected_accounts') ~ ')'
        ~ ' or reason = \\'snapshot_disagrees\\''
    ) }}",
) }}
-- depends_on: {{ ref('int_affected_accounts') }}

with final as (
    select distinct
        event_id,
        {{ pseudonym('msisdn') }} as subscriber_id,
        sp_code,
        service_code,
        action,
        event_time,
        business_date,
        source,
        reason
    from {{ ref('int_event_findings') }}
    union all
    select
        null,
        {{ pseudonym('msisdn') }},
        sp_code,
        service_code,
        null,
        null,
        taken_on,
        source,
        'snapshot_disagrees'
    from {{ ref('int_snapshot_differences') }}
)

select * from final
