{{ config(pre_hook="{{ set_changed_paths('old_gprs', 'gprs_usage', 'old_path') }}") }}
-- depends_on: {{ ref('changed_deliveries') }}
-- Subscribers and months whose traffic records changed: new ones and those of replaced deliveries.
-- Empty on a full build, which makes all months anew.

with records as (
    select msisdn, started_at from {{ ref('stg_gprs_usage') }}
    union all
    select msisdn, started_at from {{ lake_rows('old_gprs') }}
),

final as (
    select distinct
        msisdn,
        {{ month_of('started_at') }} as month
    from records
    {{ unless_full_build() }}
)

select * from final
