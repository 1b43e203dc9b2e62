{{ config(
    materialized='incremental',
    pre_hook="{{ delete_rows('(msisdn, sp_code) in (select msisdn, sp_code from ' ~ ref('int_affected_accounts') ~ ')') }}",
) }}
-- depends_on: {{ ref('int_affected_accounts') }}

with turns as (
    select * from {{ ref('int_spell_turns') }}
),

events as (
    select * from {{ ref('int_relation_events') }}
    where is_effective
),

openings as (
    select * from {{ ref('int_snapshot_openings') }}
),

spells as (
    select
        turns.msisdn,
        turns.sp_code,
        turns.service_code,
        turns.event_id as opening_event_id,
        coalesce(events.source, openings.source) as opening_source,
        case when turns.event_id = '' then openings.province else events.province end as province,
        case when turns.event_id = '' then openings.channel else events.channel end as channel,
        case when turns.event_id = '' then openings.confirmed_at else events.confirmed_at end as confirmed_at,
        min(least(turns.ordered_at, openings.first_ordered_at)) over (
            partition by turns.msisdn, turns.sp_code, turns.service_code
        ) as first_ordered_at,
        turns.ordered_at,
        turns.ended_at,
        closing.action as end_reason,
        turns.next_ordered_at
    from turns
    left join events on turns.event_id = events.event_id
    left join events as closing on turns.closing_event_id = closing.event_id
    left join openings
        on
            turns.event_id = ''
            and turns.msisdn = openings.msisdn
            and turns.sp_code = openings.sp_code
            and turns.service_code = openings.service_code
    where turns.act = 'open'
),

trials as (
    select * from {{ ref('policy_trial') }}
),

final as (
    select
        {{ pseudonym("concat_ws('|', spells.msisdn, spells.sp_code, spells.service_code, strftime(spells.ordered_at, '%Y-%m-%d %H:%M:%S'), spells.opening_event_id)") }}
            as subscription_id,
        {{ pseudonym('spells.msisdn') }} as subscriber_id,
        spells.msisdn,
        spells.sp_code,
        spells.service_code,
        spells.opening_event_id,
        spells.opening_source,
        spells.province,
        spells.channel,
        spells.confirmed_at,
        spells.first_ordered_at,
        spells.ordered_at,
        spells.ended_at,
        spells.end_reason,
        spells.next_ordered_at,
        {{ first_billable_month('spells.first_ordered_at', 'trials') }} as first_billable_month
    from spells
    left join trials on {{ is_valid_on('trials', 'spells.first_ordered_at::date') }}
)

select * from final
