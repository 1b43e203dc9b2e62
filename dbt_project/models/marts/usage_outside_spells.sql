{{ config(materialized='view') }}

with final as (
    select
        sp_code,
        service_code,
        month,
        count(*) as subscribers,
        sum(mt_count)::bigint as mt_count,
        sum(mo_count)::bigint as mo_count,
        sum(wap_hits)::bigint as wap_hits
    from {{ ref('int_spell_usage') }}
    where subscription_id is null
    group by sp_code, service_code, month
)

select * from final
