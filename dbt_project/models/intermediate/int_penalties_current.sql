-- Suspensions of SPs and services in force: of several with one penalty_id the newest business date wins.

with ranked as (
    select
        *,
        row_number() over (
            partition by penalty_id order by business_date desc, source desc, file_name desc, line_no desc
        ) as nth_newest
    from {{ ref('stg_sp_penalties') }}
),

final as (
    select
        penalty_id,
        sp_code,
        service_code,
        suspended_from,
        suspended_to
    from ranked
    where nth_newest = 1
)

select * from final
