{{ config(
    materialized='incremental',
    pre_hook="{{ delete_rows('(billing_month, version) not in (select billing_month, version from ' ~ source('control', 'billed_versions') ~ ')') }}",
) }}
-- The lines of the sealed feeds: a version that stands here is never read again.

with billed_lines as (
    select * from {{ source('control', 'billed_lines') }}
    {% if is_incremental() -%}
    where (billing_month, version) not in (select billing_month, version from {{ this }})
    {%- endif %}
),

final as (
    select
        billing_month,
        version,
        subscription_id,
        subscriber_id,
        sp_code,
        service_code,
        charged_li,
        delta_li,
        sealed_on
    from billed_lines
)

select * from final
