{{ config(materialized='view') }}

with final as (
    select
        subscription_id,
        month,
        mt_count,
        mo_count,
        wap_hits,
        active_days,
        last_used_on
    from {{ ref('int_spell_usage') }}
    where subscription_id is not null
)

select * from final
