-- Refunds in force: of several with one refund_id the newest business date wins.

with ranked as (
    select
        *,
        row_number() over (
            partition by refund_id order by business_date desc, source desc, file_name desc, line_no desc
        ) as nth_newest
    from {{ ref('stg_refunds') }}
),

final as (
    select
        refund_id,
        sp_code,
        business_date,
        amount_li,
        times
    from ranked
    where nth_newest = 1
)

select * from final
