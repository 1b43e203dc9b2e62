-- Spells live at M-01 00:00 of the months and accounts judged in this run, with the catalogue row of that midnight.

with months as (
    select * from {{ ref('int_billing_months') }}
),

spells as (
    select * from {{ ref('int_spells') }}
),

services as (
    select * from {{ ref('int_service_versions') }}
),

live as (
    select
        months.billing_month,
        spells.*
    from months
    inner join spells on {{ holds_at('spells.ordered_at', 'spells.ended_at', 'months.billing_month') }}
    where months.is_judged_whole
    union all
    select
        affected.billing_month,
        spells.*
    from {{ ref('int_affected_bills') }} as affected
    inner join spells
        on
            affected.msisdn = spells.msisdn
            and affected.sp_code = spells.sp_code
            and {{ holds_at('spells.ordered_at', 'spells.ended_at', 'affected.billing_month') }}
),

final as (
    select
        live.billing_month,
        live.subscription_id,
        live.subscriber_id,
        live.msisdn,
        live.sp_code,
        live.service_code,
        live.province,
        live.ordered_at,
        live.confirmed_at,
        live.first_billable_month,
        services.service_class,
        services.billing_type,
        services.monthly_fee_li,
        services.sp_code is not null as is_in_catalogue
    from live
    left join services
        on
            live.sp_code = services.sp_code
            and live.service_code = services.service_code
            and {{ is_valid_on('services', 'live.billing_month') }}
)

select * from final
