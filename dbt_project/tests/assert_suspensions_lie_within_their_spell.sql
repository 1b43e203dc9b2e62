-- A failing row is a suspension of this run that begins before its spell or outlives it: silence would be misjudged.

select suspensions.subscription_id
from {{ ref('int_suspensions') }} as suspensions
semi join {{ ref('int_affected_accounts') }} as affected
    on suspensions.msisdn = affected.msisdn and suspensions.sp_code = affected.sp_code
left join {{ ref('int_spells') }} as spells on suspensions.subscription_id = spells.subscription_id
where
    spells.subscription_id is null
    or suspensions.suspended_from < spells.ordered_at
    or coalesce(suspensions.suspended_to, timestamp 'infinity') > coalesce(spells.ended_at, timestamp 'infinity')
