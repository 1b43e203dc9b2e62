-- Suspended and closed phone lines in force (newest business date wins), records that touch or overlap joined.

with ranked as (
    select
        *,
        row_number() over (
            partition by msisdn, status, from_time order by business_date desc, source desc, file_name desc, line_no desc
        ) as nth_newest
    from {{ ref('stg_line_status') }}
),

current_records as (
    select
        msisdn,
        status,
        from_time,
        coalesce(to_time, timestamp 'infinity') as to_time
    from ranked
    where nth_newest = 1 and (to_time is null or to_time > from_time)
),

marked as (
    select
        *,
        case
            when from_time <= max(to_time) over (
                partition by msisdn, status order by from_time, to_time rows between unbounded preceding and 1 preceding
            ) then 0
            else 1
        end as starts_island
    from current_records
),

numbered as (
    select
        *,
        sum(starts_island) over (partition by msisdn, status order by from_time, to_time rows unbounded preceding) as island
    from marked
),

final as (
    select
        msisdn,
        status,
        min(from_time) as from_time,
        case when max(to_time) < timestamp 'infinity' then max(to_time) end as to_time
    from numbered
    group by msisdn, status, island
)

select * from final
