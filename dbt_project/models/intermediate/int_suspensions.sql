{{ config(
    materialized='incremental',
    pre_hook="{{ delete_rows('(msisdn, sp_code) in (select msisdn, sp_code from ' ~ ref('int_affected_accounts') ~ ')') }}",
) }}
-- depends_on: {{ ref('int_affected_accounts') }}
-- Pauses of a spell: from an effective suspend to the next resume or the end of the spell. A snapshot
-- may date an order after its own midnight: then a pause begins with the order.

with toggles as (
    select
        *,
        lag(act) over in_order = 'suspend' as was_suspended
    from {{ ref('int_relation_acts') }}
    where changes_spell or (was_open and act in ('suspend', 'resume'))
    window in_order as (partition by msisdn, sp_code, service_code order by judged_at, event_id, part)
),

pauses as (
    select
        msisdn,
        sp_code,
        service_code,
        opening_event_id,
        act,
        acted_at as suspended_from,
        lead(acted_at) over (
            partition by msisdn, sp_code, service_code order by judged_at, event_id, part
        ) as suspended_to
    from toggles
    where act <> 'suspend' or was_suspended is not true
),

spells as (
    select spells.*
    from {{ ref('int_spells') }} as spells
    semi join {{ ref('int_affected_accounts') }} as affected
        on spells.msisdn = affected.msisdn and spells.sp_code = affected.sp_code
),

final as (
    select
        spells.subscription_id,
        spells.msisdn,
        spells.sp_code,
        spells.service_code,
        greatest(pauses.suspended_from, spells.ordered_at) as suspended_from,
        pauses.suspended_to
    from pauses
    inner join spells
        on
            pauses.msisdn = spells.msisdn
            and pauses.sp_code = spells.sp_code
            and pauses.service_code = spells.service_code
            and pauses.opening_event_id = spells.opening_event_id
    where pauses.act = 'suspend'
)

select * from final
