-- The reports in force: of several with one report_id the newest business date wins.

with ranked as (
    select
        *,
        row_number() over (
            partition by report_id order by business_date desc, source desc, file_name desc, line_no desc
        ) as nth_newest
    from {{ ref('stg_sp_reports') }}
),

final as (
    select
        report_id,
        msisdn,
        sp_code,
        service_code,
        reported_at
    from ranked
    where nth_newest = 1
)

select * from final
