{{ config(pre_hook="{{ set_changed_paths('new_paths', 'wap_usage') }}") }}
-- depends_on: {{ ref('changed_deliveries') }}
-- Only what changed in this run: the lake keeps all usage, the warehouse keeps its sums (int_spell_usage).

with final as (
    select
        msisdn,
        sp_code,
        service_code,
        accessed_at,
        status,
        hits,
        fee_li,
        business_date,
        source,
        delivery,
        file_name,
        line_no
    from {{ lake_rows('new_paths') }}
)

select * from final
