-- R11: services whose suspensions (of the SP or of the service, overlaps counted once) cover more hours of month
-- M-1 than the policy allows.

with services as (
    select distinct
        billing_month,
        sp_code,
        service_code,
        {{ add_months('billing_month', -1) }} as month_start
    from {{ ref('int_live_relations') }}
),

clipped as (
    select
        services.billing_month,
        services.sp_code,
        services.service_code,
        greatest(penalties.suspended_from, services.month_start::timestamp) as covered_from,
        least(coalesce(penalties.suspended_to, services.billing_month), services.billing_month)::timestamp as covered_to
    from services
    inner join {{ ref('int_penalties_current') }} as penalties
        on
            services.sp_code = penalties.sp_code
            and (penalties.service_code is null or services.service_code = penalties.service_code)
            and penalties.suspended_from < services.billing_month
            and (penalties.suspended_to is null or penalties.suspended_to > services.month_start)
            and (penalties.suspended_to is null or penalties.suspended_to > penalties.suspended_from)
),

advanced as (
    select
        *,
        greatest(
            covered_from,
            coalesce(
                max(covered_to) over (
                    partition by billing_month, sp_code, service_code
                    order by covered_from, covered_to rows between unbounded preceding and 1 preceding
                ),
                covered_from
            )
        ) as new_from
    from clipped
),

covered as (
    select
        billing_month,
        sp_code,
        service_code,
        sum(greatest(date_diff('second', new_from, covered_to), 0)) as covered_seconds
    from advanced
    group by billing_month, sp_code, service_code
),

final as (
    select
        covered.billing_month,
        covered.sp_code,
        covered.service_code
    from covered
    inner join {{ ref('policy_suspension') }} as policy on {{ is_valid_on('policy', 'covered.billing_month') }}
    where covered.covered_seconds > policy.max_hours * 3600
)

select * from final
