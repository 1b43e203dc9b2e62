{{ config(
    materialized='incremental',
    pre_hook=[
        "{{ set_usage_paths('gprs_paths', 'gprs_usage', ref('int_affected_traffic_months')) }}",
        "{{ delete_rows('(msisdn, month) in (select msisdn, month from ' ~ ref('int_affected_traffic_months') ~ ')') }}",
    ],
) }}
-- depends_on: {{ ref('int_affected_traffic_months') }}
-- depends_on: {{ ref('policy_ingest') }}
-- depends_on: {{ ref('stg_gprs_usage') }}
-- First CMWAP traffic of the subscriber within each spell, by month (R2).

with traffic as (
    select
        records.msisdn,
        records.started_at
    from {{ usage_rows('gprs_usage', 'gprs_paths') }} as records
    anti join {{ source('control', 'test_numbers') }} as test_numbers
        on
            records.msisdn = test_numbers.msisdn
            and records.started_at >= test_numbers.valid_from
            and (test_numbers.valid_to is null or records.started_at < test_numbers.valid_to)
    {% if is_incremental() -%}
    semi join {{ ref('int_affected_traffic_months') }} as affected
        on records.msisdn = affected.msisdn and {{ month_of('records.started_at') }} = affected.month
    {%- endif %}
    where records.apn = 'CMWAP' and records.up_bytes + records.down_bytes > 0
),

final as (
    select
        spells.subscription_id,
        traffic.msisdn,
        {{ month_of('traffic.started_at') }} as month,
        min(traffic.started_at) as first_traffic_at
    from traffic
    inner join {{ ref('int_spells') }} as spells
        on
            traffic.msisdn = spells.msisdn
            and traffic.started_at >= spells.ordered_at
            and traffic.started_at < coalesce(spells.ended_at, timestamp 'infinity')
    group by spells.subscription_id, traffic.msisdn, {{ month_of('traffic.started_at') }}
)

select * from final
