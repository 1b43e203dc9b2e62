{{ config(pre_hook=[
    "{{ set_changed_paths('new_refunds', 'refunds') }}",
    "{{ set_changed_paths('old_refunds', 'refunds', 'old_path') }}",
]) }}
-- depends_on: {{ ref('changed_deliveries') }}
-- Billing months whose settlement is summed anew: a relation was judged, or a refund of month M-1 changed.

with context as (
    select as_of_date from {{ source('control', 'run_context') }}
),

changed_refunds as (
    select refund_id, business_date from {{ lake_rows('new_refunds') }}
    union all
    select refund_id, business_date from {{ lake_rows('old_refunds') }}
),

-- A refund of the same id in another delivery may have lost or won its place.
refund_dates as (
    select business_date from changed_refunds
    union all
    select refunds.business_date
    from {{ ref('stg_refunds') }} as refunds
    semi join changed_refunds on refunds.refund_id = changed_refunds.refund_id
),

months as (
    select billing_month from {{ ref('int_billing_months') }}
    where is_judged_whole
    union
    select billing_month from {{ ref('int_affected_bills') }}
    union
    select {{ add_months(month_of('business_date'), 1) }} from refund_dates
),

final as (
    select months.billing_month
    from months
    cross join context
    where months.billing_month <= context.as_of_date + 1
)

select * from final
