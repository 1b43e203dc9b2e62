-- Where growth alerts block billing: accounts with orders on days judged anew, or within a rise that reaches them.

with final as (
    select distinct
        spells.msisdn,
        spells.sp_code,
        spells.ordered_at::date as since
    from {{ ref('int_growth_days') }} as days
    inner join {{ ref('int_spells') }} as spells
        on
            spells.ordered_at >= {{ add_days('days.day', '-days.ramp_periods') }}
            and spells.ordered_at < {{ end_of('days.day') }}
    where exists (
        select 1 from {{ ref('policy_growth') }} as policy
        where policy.parameter = 'blocks_billing' and policy.value = 1
    )
)

select * from final
