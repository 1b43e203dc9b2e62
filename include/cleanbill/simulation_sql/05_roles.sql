-- What each spell is planted as. A regular spell is used within two days of its order and clearly enough in every
-- whole month; everything else is planted, and its every use is listed in advance.
create table line_stop as
with drawn as (
    select
        subscriber_no, msisdn, kind,
        case when kind = 'closed' then 'closed' else ['long', 'adjoining', 'short'][1 + place % 3] end as variant,
        getvariable('first_s') + getvariable('days') * 864 * (20 + pick('stop percent', subscriber_no, 62)) as around_s,
        second_of_day(draw('stop time', subscriber_no)) as time_s,
    from subscriber
    where kind in ('stopped', 'closed')
),
pieces as (
    select
        drawn.*,
        around_s // 86400 * 86400 + time_s as from_s,
        case when variant = 'long' then from_s + (40 + pick('stop length', subscriber_no, 36)) * 86400 end as to_s,
    from drawn
    where variant in ('long', 'closed')
    union all
    -- Two records that only together cover a month.
    select
        drawn.*,
        around_s // 86400 * 86400 + time_s + piece * 20 * 86400 as from_s,
        from_s + (20 + piece * 25) * 86400 as to_s,
    from drawn
    cross join range(2) pieces(piece)
    where variant = 'adjoining'
    union all
    -- In the middle of a month: leaves room for use before it.
    select
        drawn.*,
        epoch(date_trunc('month', as_time(around_s)))::bigint + 11 * 86400 + time_s as from_s,
        from_s + (2 + pick('stop length', subscriber_no, 7)) * 86400 as to_s,
    from drawn
    where variant = 'short'
)
select
    subscriber_no, msisdn, variant, case when kind = 'closed' then 'closed' else 'stopped' end as status, from_s,
    case when to_s < getvariable('end_s') then to_s end as to_s,
from pieces
where from_s < getvariable('end_s') and from_s >= getvariable('first_s');

alter table spell add column role varchar;
create macro share(permille, members) as greatest(4, members * permille // 1000);
update spell set role = roles.role
from (
    with lived as (
        select
            *,
            coalesce(ended_s, getvariable('end_s')) - ordered_s as lived_s,
            family != 'none' and kind not in ('stopped', 'closed', 'test') and withdraw_day is null as may_be_planted,
        from spell
    ),
    placed as (
        select
            *,
            -- Silence needs a whole month (four of them for browsing) and no suspension in it; never accessed needs
            -- the tenure: planted among spells that live long enough to show.
            may_be_planted and paused_s is null and lived_s >= case when family = 'browse' then 153 else 62 end * 86400
                as may_be_silent,
            may_be_planted and lived_s >= 40 * 86400 and not (may_be_silent and spell_no % 4 != 0) as may_be_unused,
            row_number() over (partition by family, may_be_silent order by draw('silent', spell_no), spell_no) - 1
                as silent_place,
            row_number() over (partition by family, may_be_unused order by draw('unused', spell_no), spell_no) - 1
                as unused_place,
            count(*) over (partition by family) as members,
        from lived
    )
    select
        spell_no,
        case
            when family = 'none' then 'none'
            when kind in ('stopped', 'closed') then 'stopped'
            when kind = 'test' then 'test'
            when not may_be_planted then 'regular'
            when is_burst and pick('fraud', spell_no, 2) = 0 then 'never'
            when kind = 'dark' and pick('dark and unused', spell_no, 3) = 0 then 'never'
            when may_be_unused and unused_place < share(20, members) then 'never'
            when may_be_unused and unused_place < share(20, members) + share(15, members) then 'late'
            when may_be_silent and silent_place < share(30, members) then 'silent'
            when may_be_silent and silent_place < share(30, members) + share(10, members) then 'borderline'
            when not may_be_unused and not may_be_silent and pick('short', spell_no, 25) = 0 then 'never'
            else 'regular'
        end as role,
    from placed
) roles
where spell.spell_no = roles.spell_no;

-- The first counted use of each spell, and for browsing the first traffic of its subscriber within it.
alter table spell add column first_use_s bigint;
alter table spell add column first_traffic_s bigint;
create macro soon_after(what, whom, from_s, to_s) as
    from_s + 1 + pick(what, whom, greatest(1, least(2 * 86400, to_s - from_s) - 3));
update spell set first_use_s = soon_after(
    'first use', spell_no, ordered_s, least(paused_s, ended_s, getvariable('end_s'))
)
where role in ('regular', 'stopped', 'test', 'silent', 'borderline');

-- Planted late use: on the last second of the last day of the tenure (not abnormal), on the first second after it
-- (abnormal for a day), or any time later.
create macro late_second(whom, order_s, variant) as
    (day_of(order_s) + case variant
        when 0 then getvariable('tenure_days')
        when 1 then getvariable('tenure_days') + 1
        else getvariable('tenure_days') + 2 + pick('late', whom, 40)
    end) * 86400
    + case variant when 0 then 86399 when 1 then 0 else second_of_day(draw('late time', whom)) end;
update spell set first_use_s = late_second(spell_no, ordered_s, pick('late variant', spell_no, 3)) where role = 'late';

create table dark_subscriber as
select
    subscriber_no, any_value(msisdn) as msisdn, any_value(home_no) as home_no,
    case when pick('stays dark', subscriber_no, 5) < 3
        then late_second(subscriber_no, min(ordered_s), pick('dark variant', subscriber_no, 3))
    end as traffic_from_s,
from spell
where kind = 'dark' and family = 'browse'
group by subscriber_no;
update spell set first_traffic_s = case
    when dark.subscriber_no is null or dark.traffic_from_s <= browsing.ordered_s
        then soon_after(
            'first traffic', browsing.spell_no, browsing.ordered_s, least(browsing.ended_s, getvariable('end_s'))
        )
    else dark.traffic_from_s
end
from spell browsing
left join dark_subscriber dark using (subscriber_no)
where spell.spell_no = browsing.spell_no and browsing.family = 'browse';

update spell set first_use_s = null where first_use_s >= least(ended_s, getvariable('end_s'));
update spell set first_traffic_s = null where first_traffic_s >= least(ended_s, getvariable('end_s'));
-- What a test number does does not count.
alter table spell add column counted_use_s bigint;
alter table spell add column counted_traffic_s bigint;
update spell set
    counted_use_s = case when kind != 'test' then first_use_s end,
    counted_traffic_s = case when kind != 'test' then first_traffic_s end;

-- How much counted use (MT, or hits) each planted spell has in each month it touches.
create table planted_month as
with touched as (
    select
        spell.spell_no, spell.subscriber_no, spell.role, spell.kind, spell.family, spell.ordered_s, spell.ended_s,
        spell.paused_s, spell.resumed_s, spell.counted_use_s,
        month.*,
        month.is_whole and ordered_s <= month_s and coalesce(ended_s, never()) >= next_s as lives_whole_month,
        paused_s is not null and paused_s < next_s and coalesce(resumed_s, ended_s, never()) > month_s as is_paused,
        coalesce(counted_use_s >= month_s and counted_use_s < next_s, false)::bigint as first_uses,
        pick('month', spell_no * 64 + month_no, 4) as drawn,
    from spell
    join month on spell.ordered_s < month.next_s and coalesce(spell.ended_s, never()) > month.month_s
    where spell.role not in ('regular', 'none')
),
targets as (
    select
        *,
        case
            when not lives_whole_month or role in ('never', 'test') then 0
            when role = 'late' then case when counted_use_s < month_s then 8 else 0 end
            when role = 'stopped' then case
                when exists (
                    select 1 from line_stop
                    where line_stop.subscriber_no = touched.subscriber_no and variant != 'short'
                        and from_s < next_s and coalesce(to_s, never()) > month_s
                ) then 0 else 8
            end
            when family = 'message' and role = 'silent' then least(drawn, getvariable('silent_messages'))
            when family = 'message' then getvariable('silent_messages') + drawn % 2
            when role = 'silent' then 0
            -- One access in one month keeps the windows that hold it active.
            else (day_of(ordered_s) % getvariable('silent_months') = month_no % getvariable('silent_months'))::bigint
        end as target,
    from touched
)
select *, greatest(target, first_uses) as counted from targets;

-- Where the relation's next spell begins.
alter table spell add column next_ordered_s bigint;
update spell set next_ordered_s = following.next_ordered_s
from (
    select spell_no, lead(ordered_s) over (partition by relation_no order by ordinal) as next_ordered_s from spell
) following
where spell.spell_no = following.spell_no;
