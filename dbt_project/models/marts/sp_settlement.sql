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

priced as (
    select * from {{ ref('int_overpriced_messages') }}
),

amounts as (
    select * from {{ ref('int_settlement_amounts') }}
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
