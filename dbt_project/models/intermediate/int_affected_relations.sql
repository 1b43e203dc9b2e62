-- Accounts whose anomalies, silence and bills are judged anew, with the first day from which a bill can differ.
-- Empty on a full build, which judges all of them.

with earliest as (
    select
        msisdn,
        sp_code,
        min(since) as since
    from {{ ref('int_relation_changes') }}
    {{ unless_full_build() }}
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
