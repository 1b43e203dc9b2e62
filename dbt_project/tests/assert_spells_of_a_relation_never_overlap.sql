-- A failing row is a relation of this run with two spells at the same time: it would be charged twice.
-- (A snapshot may date an order after its own midnight, so that a spell ends before it begins: it is never live.)

with spells as (
    select
        spells.*,
        lead(spells.ordered_at) over (
            partition by spells.msisdn, spells.sp_code, spells.service_code order by spells.ordered_at, spells.ended_at
        ) as following_ordered_at
    from {{ ref('int_spells') }} as spells
    semi join {{ ref('int_affected_accounts') }} as affected
        on spells.msisdn = affected.msisdn and spells.sp_code = affected.sp_code
    where spells.ended_at is null or spells.ended_at >= spells.ordered_at
)

select subscription_id
from spells
where following_ordered_at is not null and (ended_at is null or ended_at > following_ordered_at)
