-- A relation ordered within two alerts of its service belongs to the earlier.

with alerts as (
    select * from {{ ref('int_growth_alerts') }}
    where direction = 'up'
),

used as (
    select distinct subscription_id
    from {{ ref('int_spell_usage') }}
    where subscription_id is not null
),

ordered as (
    select
        spells.subscription_id,
        spells.subscriber_id,
        spells.sp_code,
        spells.service_code,
        spells.ordered_at,
        alerts.day as alert_day,
        spells.confirmed_at is not null as is_confirmed,
        used.subscription_id is not null as is_used,
        row_number() over (partition by spells.subscription_id order by alerts.day) as nth_alert
    from alerts
    inner join {{ ref('int_spells') }} as spells
        on
            alerts.sp_code = spells.sp_code
            and alerts.service_code = spells.service_code
            and spells.ordered_at >= alerts.first_day
            and spells.ordered_at < {{ end_of('alerts.last_day') }}
    left join used on spells.subscription_id = used.subscription_id
),

final as (
    select
        subscription_id,
        subscriber_id,
        sp_code,
        service_code,
        ordered_at,
        alert_day,
        is_confirmed,
        is_used
    from ordered
    where nth_alert = 1
)

select * from final
