-- Settlement amount 8, only where its policy row is on: billed message services whose fee exceeds the counted
-- messages of month M-1 times the highest price of a message.

with policies as (
    select * from {{ ref('policy_settlement') }}
    where is_price_per_message_on
),

billed as (
    select
        dispositions.*,
        policies.max_li_per_message
    from {{ ref('billing_dispositions') }} as dispositions
    semi join {{ ref('int_settlement_months') }} as months on dispositions.billing_month = months.billing_month
    inner join policies on {{ is_valid_on('policies', 'dispositions.billing_month') }}
    inner join {{ ref('int_service_versions') }} as services
        on
            dispositions.sp_code = services.sp_code
            and dispositions.service_code = services.service_code
            and {{ is_valid_on('services', 'dispositions.billing_month') }}
    inner join {{ ref('service_classes') }} as classes
        on services.service_class = classes.service_class and classes.use_measure = 'messages'
    where dispositions.disposition = 'billed'
),

final as (
    select
        billed.sp_code,
        billed.billing_month,
        sum(billed.fee_li)::bigint as price_per_message_li
    from billed
    left join {{ ref('int_spell_usage') }} as usage
        on
            billed.subscription_id = usage.subscription_id
            and usage.month = {{ add_months('billed.billing_month', -1) }}
    where billed.fee_li > (coalesce(usage.mt_count, 0) + coalesce(usage.mo_count, 0)) * billed.max_li_per_message
    group by billed.sp_code, billed.billing_month
)

select * from final
