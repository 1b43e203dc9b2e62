-- How many of the orders on an alert's days lack a confirmation, or were never used since. Use is not asked of
-- service classes without a usage extract.

with alerts as (
    select * from {{ ref('int_growth_alerts') }}
),

used as (
    select distinct subscription_id
    from {{ ref('int_spell_usage') }}
    where subscription_id is not null
),

final as (
    select
        alerts.sp_code,
        alerts.service_code,
        alerts.day,
        count(spells.subscription_id) as orders,
        round(
            100 * count(*) filter (where spells.subscription_id is not null and spells.confirmed_at is null)
            / nullif(count(spells.subscription_id), 0)
        )::integer as unconfirmed_percent,
        case
            when any_value(classes.usage_extract) is not null
                then round(
                    100 * count(*) filter (where spells.subscription_id is not null and used.subscription_id is null)
                    / nullif(count(spells.subscription_id), 0)
                )::integer
        end as never_used_percent
    from alerts
    left join {{ ref('int_spells') }} as spells
        on
            alerts.sp_code = spells.sp_code
            and alerts.service_code = spells.service_code
            and spells.ordered_at >= alerts.first_day
            and spells.ordered_at < {{ end_of('alerts.last_day') }}
    left join used on spells.subscription_id = used.subscription_id
    left join {{ ref('int_service_versions') }} as versions
        on
            alerts.sp_code = versions.sp_code
            and alerts.service_code = versions.service_code
            and {{ is_valid_on('versions', 'alerts.day') }}
    left join {{ ref('service_classes') }} as classes on versions.service_class = classes.service_class
    group by alerts.sp_code, alerts.service_code, alerts.day
)

select * from final
