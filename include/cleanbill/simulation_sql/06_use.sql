-- Use of all kinds, one row per record of a switch. `spread`: random bits of the row; `is_fixed`: planted or needed
-- by construction, so it is delivered on its own day. `is_ghost`: only in a delivery that a resend replaces.

-- Counted use that is promised: the first use, the planted uses of planted spells, and enough in every whole month
-- of the others.
create table promised_use as
select spell_no, first_use_s as used_s, 1::bigint as quantity from spell where first_use_s is not null
union all
select
    spell_no,
    case
        when role = 'borderline' and family = 'message' and use = 0 then month_s
        when role = 'borderline' and family = 'message' and use = uses - 1 then next_s - 2
        else slot_s + pick('planted', spell_no * 4096 + month_no * 16 + use, greatest(2, slot_length)) // 2 * 2
    end as used_s,
    quantity,
from (
    select
        *,
        -- A stopped line's use sits in the days before the 12th, because a short stop may begin then.
        (case when role = 'stopped' then 9 * 86400 else next_s - month_s end) // uses as slot_length,
        month_s + use * slot_length // 2 * 2 as slot_s,
    from (
        select
            *,
            -- Much use is sent as counted groups.
            case when counted - first_uses > 4 then 2 else counted - first_uses end as uses,
            case when counted - first_uses > 4 then (counted - first_uses) // 2 else 1 end as quantity,
        from planted_month
        where role != 'test' and counted > first_uses
    )
    cross join range(8) uses(use)
    where use < uses
)
-- An odd remainder of a group.
union all
select spell_no, month_s + 5 * 86400 + 43200, (counted - first_uses) % 2
from planted_month
where role != 'test' and counted - first_uses > 4 and (counted - first_uses) % 2 = 1
union all
select
    spell_no,
    month_s + half * 13 * 86400 + pick('promised', spell_no * 128 + month_no * 2 + half, 13 * 86400),
    case family when 'message' then 4 + pick('group', spell_no * 128 + month_no * 2 + half, 2) else 1 end,
from spell
join month on month.is_whole and spell.ordered_s <= month.month_s and coalesce(spell.ended_s, never()) >= month.next_s
cross join range(2) halves(half)
where spell.role in ('regular', 'test') and spell.family != 'none' and (spell.family = 'message' or half = 0);

-- Everyday use of regular spells: more at weekends, none while suspended.
create table everyday_use as
with months as (
    select
        spell_no, month_no,
        greatest(ordered_s + 1, month_s) as from_s, least(coalesce(ended_s, never()), next_s) as to_s,
        paused_s, resumed_s,
        -- A month's worth of records, in proportion to the days lived in it.
        (3 + pick('intensity', spell_no, getvariable('records_per_month'))) * (to_s - from_s) // (30 * 86400)
            as records,
    from spell
    join month on spell.ordered_s < month.next_s and coalesce(spell.ended_s, never()) > month.month_s
    where role in ('regular', 'test') and family != 'none'
),
drawn as (
    select
        months.*, record,
        draw('use', spell_no * 8192 + month_no * 128 + record) as spread,
    from months
    cross join range(64) records(record)
    where record < months.records
),
timed as (
    select
        *,
        day_of(from_s + (record * (to_s - from_s) + bits(spread, 30, to_s - from_s)) // records) as day,
        day * 86400 + second_of_day(spread) as used_s,
    from drawn
)
select timed.spell_no, timed.used_s, timed.spread
from timed
join calendar using (day)
where
    bits(spread, 44, 130) < calendar.use_weight
    and used_s >= from_s and used_s < to_s
    and (paused_s is null or used_s < paused_s or used_s > coalesce(resumed_s, never()));

-- Use in no spell: shortly before the first order, or after a cancellation and before the next order.
create table stray_use as
select
    spell_no,
    ended_s + 1 + pick(
        'stray', spell_no, least(10 * 86400, coalesce(next_ordered_s, getvariable('end_s')) - ended_s) - 2
    ) as used_s,
from spell
where
    family != 'none' and ended_s < getvariable('end_s') - 120
    and coalesce(next_ordered_s, never()) > ended_s + 59
    and pick('strays', spell_no, 20) = 0
union all
select spell_no, ordered_s - 1 - pick('early', spell_no, 3 * 86400)
from spell
where
    family != 'none' and ordinal = 1 and replaced_code is null and ordered_s > getvariable('first_s') + 4 * 86400
    and pick('early ones', spell_no, 50) = 0;

create table message as
with uses as (
    select
        spell_no, used_s, 'MT' as direction, 'ok' as status, 'content' as purpose, quantity as message_count,
        true as is_fixed, draw('promised row', spell_no * 1000000000 + used_s % 1000000000) as spread,
    from promised_use
    union all
    select
        spell_no, used_s, case when bits(spread, 5, 8) = 0 then 'MO' else 'MT' end,
        case when bits(spread, 9, 40) = 0 then 'failed' else 'ok' end, 'content', 1 + bits(spread, 15, 3),
        false, spread,
    from everyday_use
    union all
    select spell_no, used_s, 'MT', 'ok', 'content', 1, true, draw('stray row', spell_no) from stray_use
    -- The monthly fee's own message; it is no use.
    union all
    select spell_no, charged_s, 'MT', 'ok', 'fee', 1, true, draw('fee row', spell_no * 64 + month_no)
    from (
        select
            *, month_s + 3600 * 8 + pick('fee', spell_no * 64 + month_no, 3 * 86400 - 8 * 3600) as charged_s,
        from spell
        cross join month
        where billing_type = 'monthly'
    )
    where charged_s > ordered_s and charged_s < least(ended_s, getvariable('end_s'))
    -- What looks like use of planted spells and is none: failed, reminders, tests, nothing sent; and MO, which do
    -- not lift silence.
    union all
    select
        spell_no, decoy_s, case when decoy = 4 then 'MO' else 'MT' end,
        case when decoy = 0 then 'failed' else 'ok' end,
        ['content', 'reminder', 'test', 'content', 'content'][1 + decoy],
        case when decoy = 3 then 0 else 1 + decoy % 2 * 4 end, true,
        draw('decoy row', spell_no * 512 + month_no * 8 + decoy),
    from (
        select
            *,
            month_s + 10 * 86400 + pick('decoy', spell_no * 512 + month_no * 8 + decoy, 10 * 86400) as decoy_s,
        from planted_month
        cross join range(5) decoys(decoy)
        where decoy < 4 or role in ('silent', 'borderline')
    )
    where decoy_s > ordered_s and decoy_s < least(ended_s, getvariable('end_s'))
)
select
    uses.*, false as is_ghost, spell.msisdn, spell.home_no, spell.sp_code, spell.service_code,
    case when billing_type = 'per_use' and purpose = 'content' then 100 * (1 + bits(spread, 21, 20)) else 0 end
        as fee_li,
from uses
join spell using (spell_no)
where spell.family = 'message' and used_s >= getvariable('first_s') and used_s < getvariable('end_s');

create table access as
with uses as (
    select
        spell_no, used_s, 'ok' as status, quantity as hits, true as is_fixed,
        draw('promised row', spell_no * 1000000000 + used_s % 1000000000) as spread,
    from promised_use
    union all
    select
        spell_no, used_s, case when bits(spread, 9, 40) = 0 then 'failed' else 'ok' end, 1 + bits(spread, 15, 12),
        false, spread,
    from everyday_use
    union all
    select spell_no, used_s, 'ok', 1, true, draw('stray row', spell_no) from stray_use
    union all
    select
        spell_no, decoy_s, case when decoy = 0 then 'failed' else 'ok' end, case when decoy = 0 then 7 else 0 end, true,
        draw('decoy row', spell_no * 512 + month_no * 8 + decoy),
    from (
        select
            *,
            month_s + 10 * 86400 + pick('decoy', spell_no * 512 + month_no * 8 + decoy, 10 * 86400) as decoy_s,
        from planted_month
        cross join range(2) decoys(decoy)
    )
    where decoy_s > ordered_s and decoy_s < least(ended_s, getvariable('end_s'))
)
select
    uses.*, false as is_ghost, spell.subscriber_no, spell.msisdn, spell.home_no, spell.sp_code, spell.service_code,
    case when billing_type = 'per_use' and status = 'ok' and hits > 0 then 2000 else 0 end as fee_li,
from uses
join spell using (spell_no)
where spell.family = 'browse' and used_s >= getvariable('first_s') and used_s < getvariable('end_s');

-- GPRS traffic: promised for every browsing spell that is not planted dark, and beside most accesses; a dark
-- subscriber has none over CMWAP before its day, only what does not count.
create table traffic as
with records as (
    select
        msisdn, home_no, 'CMWAP' as apn, first_traffic_s as started_s, 400 + pick('up', spell_no, 9000) as up_bytes,
        4000 + pick('down', spell_no, 90000) as down_bytes, true as is_fixed, draw('traffic row', spell_no) as spread,
    from spell
    where first_traffic_s is not null
    union all
    select
        access.msisdn, access.home_no, ['CMWAP', 'CMWAP', 'cmwap'][1 + bits(spread, 51, 3)], used_s,
        200 + bits(spread, 7, 4096), 1000 + bits(spread, 11, 65536), is_fixed, spread + 1,
    from access
    left join dark_subscriber dark using (subscriber_no)
    where
        bits(spread, 37, 10) < 6
        and (dark.subscriber_no is null or used_s > dark.traffic_from_s)
    -- The open internet: is no browsing of the operator's portal.
    union all
    select
        msisdn, home_no, ['CMNET', 'cmnet', 'UNINET'][1 + bits(spread, 40, 3)],
        getvariable('first_s') + bits(spread, 20, getvariable('days')) * 86400 + second_of_day(spread),
        500 + bits(spread, 9, 8192), 2000 + bits(spread, 13, 131072), false, spread,
    from (
        select *, draw('internet', subscriber_no * 16 + record) as spread
        from subscriber
        cross join range(12) records(record)
        where subscriber_no % 3 = 0 and record < getvariable('months')
    )
    -- Dark subscribers: other access points, and sessions without a byte.
    union all
    select
        msisdn, home_no, case when record % 2 = 0 then 'CMNET' else 'CMWAP' end,
        getvariable('first_s') + bits(spread, 20, getvariable('days')) * 86400 + second_of_day(spread),
        case when record % 2 = 0 then 700 else 0 end, case when record % 2 = 0 then 9000 else 0 end, true, spread,
    from (
        select *, draw('dark', subscriber_no * 16 + record) as spread
        from dark_subscriber
        cross join range(8) records(record)
    )
)
select *, false as is_ghost from records
where started_s >= getvariable('first_s') and started_s < getvariable('end_s');
