with final as (
    select
        blockers.billing_month,
        blockers.extract,
        blockers.source,
        blockers.day,
        blockers.blocker as reason,
        blockers.relations
    from {{ ref('int_billing_blockers') }} as blockers
    inner join {{ ref('int_preview_month') }} as preview on blockers.billing_month = preview.billing_month
)

select * from final
