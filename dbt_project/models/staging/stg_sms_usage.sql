{{ config(pre_hook="{{ set_changed_paths('new_paths', 'sms_usage') }}") }}
-- depends_on: {{ ref('changed_deliveries') }}
-- Only what changed in this run: the lake keeps all usage, the warehouse keeps its sums (int_spell_usage).

with final as (
    select
        msisdn,
        sp_code,
        service_code,
        direction,
        sent_at,
        status,
        purpose,
        message_count,
        fee_li,
        business_date,
        source,
        delivery,
        file_name,
        line_no
    from {{ lake_rows('new_paths') }}
)

select * from final
