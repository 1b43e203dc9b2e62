-- Lines closed at M-01, or stopped over the whole month before it, of the relations judged in this run.

with relations as (
    select distinct
        billing_month,
        msisdn
    from {{ ref('int_live_relations') }}
),

lines as (
    select * from {{ ref('int_line_intervals') }}
),

final as (
    select
        relations.billing_month,
        relations.msisdn,
        case when bool_or(lines.status = 'closed') then 'closed' else 'stopped' end as reason
    from relations
    inner join lines
        on
            relations.msisdn = lines.msisdn
            and {{ holds_at('lines.from_time', 'lines.to_time', 'relations.billing_month') }}
    where
        lines.status = 'closed'
        or (lines.status = 'stopped' and lines.from_time <= {{ add_months('relations.billing_month', -1) }})
    group by relations.billing_month, relations.msisdn
)

select * from final
