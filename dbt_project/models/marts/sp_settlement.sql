{{ config(
    materialized='incremental',
    pre_hook="{{ delete_rows('billing_month in (select billing_month from ' ~ ref('int_settlement_months') ~ ')') }}",
) }}

with months as (
    select billing_month from {{ ref('int_settlement_months') }}
),

policies as (
    select
        months.billing_month,
        policy.*
    from months
    inner join {{ ref('policy_settlement') }} as policy on {{ is_valid_on('policy', 'months.billing_month') }}
),

fees as (
    select
        dispositions.sp_code,
        dispositions.billing_month,
        coalesce(sum(dispositions.fee_li) filter (where codes.is_gross), 0)::bigint as gross_li,
        coalesce(sum(dispositions.fee_li) filter (where dispositions.reason = 'stopped'), 0)::bigint as stopped_li,
        coalesce(sum(dispositions.fee_li) filter (where dispositions.reason = 'closed'), 0)::bigint as closed_li,
        coalesce(sum(dispositions.fee_li) filter (where dispositions.disposition = 'abnormal'), 0)::bigint as abnormal_li,
        coalesce(sum(dispositions.fee_li) filter (where dispositions.disposition = 'silent'), 0)::bigint as silent_li,
        coalesce(sum(dispositions.fee_li) filter (where dispositions.disposition = 'sp_suspended'), 0)::bigint as other_li
    from {{ ref('billing_dispositions') }} as dispositions
    inner join months on dispositions.billing_month = months.billing_month
    inner join {{ ref('disposition_codes') }} as codes on dispositions.disposition = codes.disposition
    group by dispositions.sp_code, dispositions.billing_month
),

refunds as (
    select
        refunds.sp_code,
        months.billing_month,
        sum(refunds.amount_li)::bigint as refunds_li,
        sum(case when refunds.times > 1 then refunds.amount_li else 0 end)::bigint as double_refunds_li
    from {{ ref('int_refunds_current') }} as refunds
    inner join months on {{ add_months(month_of('refunds.business_date'), 1) }} = months.billing_month
    group by refunds.sp_code, months.billing_month
),

priced as (
    select * from {{ ref('int_overpriced_messages') }}
),

amounts as (
    select
        coalesce(fees.sp_code, refunds.sp_code) as sp_code,
        coalesce(fees.billing_month, refunds.billing_month) as billing_month,
        coalesce(fees.gross_li, 0) as gross_li,
        0::bigint as errors_li,
        coalesce(fees.stopped_li, 0) as stopped_li,
        coalesce(fees.closed_li, 0) as closed_li,
        coalesce(fees.abnormal_li, 0) as abnormal_li,
        coalesce(fees.silent_li, 0) as silent_li,
        coalesce(fees.other_li, 0) as other_li,
        coalesce(refunds.refunds_li, 0) as refunds_li,
        coalesce(refunds.double_refunds_li, 0) as double_refunds_li
    from fees
    full join refunds on fees.sp_code = refunds.sp_code and fees.billing_month = refunds.billing_month
),

settled as (
    select
        amounts.*,
        coalesce(priced.price_per_message_li, 0) as price_per_message_li,
        policies.penalty_li::bigint as penalties_li,
        policies.operator_share_bp,
        amounts.gross_li - amounts.errors_li as audited_li,
        amounts.gross_li - amounts.errors_li - amounts.stopped_li - amounts.closed_li - amounts.abnormal_li
        - amounts.silent_li - coalesce(priced.price_per_message_li, 0) - amounts.refunds_li - policies.penalty_li
        - amounts.double_refunds_li - amounts.other_li as to_settle_li
    from amounts
    inner join policies on amounts.billing_month = policies.billing_month
    left join priced on amounts.sp_code = priced.sp_code and amounts.billing_month = priced.billing_month
),

final as (
    select
        sp_code,
        billing_month,
        gross_li,
        errors_li,
        audited_li,
        stopped_li,
        closed_li,
        abnormal_li,
        silent_li,
        price_per_message_li,
        refunds_li,
        penalties_li,
        double_refunds_li,
        other_li,
        to_settle_li,
        {{ share_half_even('to_settle_li', 'operator_share_bp') }} as operator_share_li,
        to_settle_li - {{ share_half_even('to_settle_li', 'operator_share_bp') }} as sp_share_li,
        'payable' as status,
        null::varchar as hold_reason
    from settled
)

select * from final
