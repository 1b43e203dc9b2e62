{{ config(pre_hook="{{ set_changed_paths('new_paths', 'gprs_usage') }}") }}
-- depends_on: {{ ref('changed_deliveries') }}
-- Only what changed in this run: the lake keeps all usage, the warehouse keeps its sums (int_spell_usage).

with final as (
    select
        msisdn,
        apn,
        started_at,
        up_bytes,
        down_bytes,
        business_date,
        source,
        delivery,
        file_name,
        line_no
    from {{ lake_rows('new_paths') }}
)

select * from final
