-- Fees by disposition and refunds of each SP, for the months whose settlement is summed anew.

with months as (
    select billing_month from {{ ref('int_settlement_months') }}
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

final as (
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
)

select * from final
