-- Accounts whose anomalies, silence and bills are judged anew, with the first day from which a bill can differ.

with earliest as (
    select
        msisdn,
        sp_code,
        min(since) as since
    from {{ ref('int_relation_changes') }}
    group by msisdn, sp_code
),

final as (
    select
        msisdn,
        sp_code,
        {{ pseudonym('msisdn') }} as subscriber_id,
        since
    from earliest
)

select * from final
