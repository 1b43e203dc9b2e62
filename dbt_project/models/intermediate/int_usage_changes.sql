{{ config(pre_hook=[
    "{{ set_changed_paths('old_sms', 'sms_usage', 'old_path') }}",
    "{{ set_changed_paths('old_wap', 'wap_usage', 'old_path') }}",
]) }}
-- depends_on: {{ ref('changed_deliveries') }}
-- Accounts and months whose usage records changed: new ones and those of replaced deliveries.
-- Empty on a full build, which makes all months anew.

with records as (
    select msisdn, sp_code, sent_at as used_at from {{ ref('stg_sms_usage') }}
    union all
    select msisdn, sp_code, accessed_at from {{ ref('stg_wap_usage') }}
    union all
    select msisdn, sp_code, sent_at from {{ lake_rows('old_sms') }}
    union all
    select msisdn, sp_code, accessed_at from {{ lake_rows('old_wap') }}
),

final as (
    select distinct
        msisdn,
        sp_code,
        {{ month_of('used_at') }} as month
    from records
    {{ unless_full_build() }}
)

select * from final
