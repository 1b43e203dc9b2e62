-- The one decision: why a relation live at M-01 00:00 is or is not charged for month M (due, or previewed). The first
-- case that matches counts.

with live as (
    select * from {{ ref('int_live_relations') }}
),

marks as (
    select
        billing_month,
        subscription_id,
        bool_or(mark = 'suspended') as is_suspended,
        bool_or(mark = 'test') as is_test,
        bool_or(mark = 'abnormal') as is_abnormal,
        bool_or(mark = 'silent') as is_silent
    from {{ ref('int_bill_marks') }}
    group by billing_month, subscription_id
),

consent as (
    select * from {{ ref('policy_consent') }}
),

judged as (
    select
        live.billing_month,
        live.subscription_id,
        live.subscriber_id,
        live.sp_code,
        live.service_code,
        live.province,
        case
            when not live.is_in_catalogue then 'unknown_service'
            when live.billing_type <> 'monthly' or live.monthly_fee_li = 0 then 'free_service'
            when marks.is_test then 'test'
            when marks.is_suspended then 'suspended'
            when live.billing_month < live.first_billable_month then 'trial'
            when
                coalesce(consent.is_required, true)
                and (live.confirmed_at is null or live.confirmed_at >= live.billing_month) then 'unconsented'
            when line_stops.reason is not null then 'line_stopped'
            when service_suspensions.sp_code is not null then 'sp_suspended'
            when marks.is_abnormal then 'abnormal'
            when marks.is_silent then 'silent'
            else 'billed'
        end as disposition,
        line_stops.reason as stop_reason,
        coalesce(live.monthly_fee_li, 0) as fee_li
    from live
    left join marks on live.billing_month = marks.billing_month and live.subscription_id = marks.subscription_id
    left join {{ ref('int_line_stops') }} as line_stops
        on live.billing_month = line_stops.billing_month and live.msisdn = line_stops.msisdn
    left join {{ ref('int_service_suspensions') }} as service_suspensions
        on
            live.billing_month = service_suspensions.billing_month
            and live.sp_code = service_suspensions.sp_code
            and live.service_code = service_suspensions.service_code
    left join consent on {{ is_valid_on('consent', 'live.ordered_at::date') }}
),

final as (
    select
        judged.billing_month,
        judged.subscription_id,
        judged.subscriber_id,
        judged.sp_code,
        judged.service_code,
        judged.province,
        judged.disposition,
        case when judged.disposition = 'line_stopped' then judged.stop_reason else codes.reason end as reason,
        judged.fee_li,
        case when judged.disposition = 'billed' then judged.fee_li else 0 end as charged_li
    from judged
    inner join {{ ref('disposition_codes') }} as codes on judged.disposition = codes.disposition
)

select * from final
