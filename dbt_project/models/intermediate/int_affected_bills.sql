-- (Billing month, account) judged anew in months that are not judged whole.

with final as (
    select
        months.billing_month,
        relations.msisdn,
        relations.sp_code,
        relations.subscriber_id
    from {{ ref('int_affected_relations') }} as relations
    inner join {{ ref('int_billing_months') }} as months on months.billing_month >= relations.since
    where not months.is_judged_whole
)

select * from final
