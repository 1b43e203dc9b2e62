-- Up to three spells per relation: length and gap are drawn, their running sum places them.
create macro spell_length(whom) as
    case
        when pick('length', whom, 100) < 52 then never()
        when pick('length', whom, 100) < 58 then 60 + pick('short', whom, 3 * 86400)
        else 5 * 86400 + pick('long', whom, 180 * 86400)
    end;

create table spell as
with drawn as (
    select
        relation.*,
        ordinal,
        relation_no * 4 + ordinal as spell_no,
        case
            when kind in ('stopped', 'closed') then never()
            else spell_length(relation_no * 4 + ordinal)
        end as length_s,
        case
            when pick('gap', relation_no * 4 + ordinal, 100) < 25
                then 60 + pick('soon', relation_no * 4 + ordinal, 86400)
            when pick('gap', relation_no * 4 + ordinal, 100) < 60
                then 86400 + pick('later', relation_no * 4 + ordinal, 60 * 86400)
            else never()
        end as gap_s,
    from relation
    cross join range(1, 4) ordinals(ordinal)
),
placed as (
    select
        *,
        first_order_s + coalesce(
            sum(length_s + gap_s) over (
                partition by relation_no order by ordinal rows between unbounded preceding and 1 preceding
            ),
            0
        )::bigint as ordered_s,
    from drawn
)
select
    placed.* exclude (length_s, gap_s, choice, burst_day, order_day, first_order_s, launch_day),
    (burst_day is not null) as is_burst,
    case when ordered_s + length_s < getvariable('end_s') then ordered_s + length_s end as ended_s,
    case when ordered_s + length_s < getvariable('end_s') then 'cancel' end as end_reason,
    null::varchar as replaced_code,
from placed
where
    ordered_s < getvariable('end_s')
    and (withdraw_day is null or ordered_s < withdraw_day * 86400);

-- Some last spells end exactly at a month's first midnight.
update spell set ended_s = month.next_s
from month
where
    spell.ended_s > month.month_s and spell.ended_s < month.next_s
    and month.next_s < getvariable('end_s')
    and pick('end at midnight', spell_no, 100) = 0
    and not exists (
        select 1 from spell later where later.relation_no = spell.relation_no and later.ordinal > spell.ordinal
    );

-- Replacements: the end of one spell opens another service of the same SP, which the subscriber never had.
create table replacement as
with candidates as (
    select spell.*, 'sp ' || spell.sp_code as pool
    from spell
    where
        kind = 'regular' and ended_s is not null and withdraw_day is null
        and pick('replace', spell_no, 100) < 10
    qualify row_number() over (partition by subscriber_no order by spell_no) = 1
),
drawn as (
    select candidates.*, pick('replacing', spell_no, pools.total_weight) as weight_drawn
    from candidates
    join (select distinct pool, total_weight from pool) pools using (pool)
)
select
    drawn.spell_no as old_spell_no,
    drawn.service_code as old_service_code,
    pool.service_no as new_service_no,
    drawn.subscriber_no * 8 + 7 as relation_no,
    drawn.ended_s as ordered_s,
from drawn
asof join pool on drawn.pool = pool.pool and drawn.weight_drawn >= pool.weight_before
where not exists (
    select 1 from relation where relation.subscriber_no = drawn.subscriber_no and relation.service_no = pool.service_no
);

insert into spell by name
with dated as (
    select
        *,
        case when ordered_s + spell_length(relation_no * 4 + 1) < getvariable('end_s')
            then ordered_s + spell_length(relation_no * 4 + 1)
        end as ended_s,
    from replacement
)
select
    old.* exclude (
        relation_no, spell_no, ordinal, ordered_s, ended_s, end_reason, replaced_code, is_burst,
        service_no, service_code, service_name, service_class, billing_type, monthly_fee_li, family
    ),
    service.service_no, service.service_code, service.service_name, service.service_class, service.billing_type,
    service.monthly_fee_li, service.family,
    dated.relation_no,
    1 as ordinal,
    dated.relation_no * 4 + 1 as spell_no,
    dated.ordered_s,
    dated.ended_s,
    case when dated.ended_s is not null then 'cancel' end as end_reason,
    dated.old_service_code as replaced_code,
    false as is_burst,
from dated
join spell old on old.spell_no = dated.old_spell_no
join service on service.service_no = dated.new_service_no;

update spell set end_reason = 'replace' where spell_no in (select old_spell_no from replacement);

-- One act on all relations of a subscriber with an SP. Orders within a minute of it are left out of the world,
-- so that nobody's first use has to fit into no time.
create table sp_wide_act as
select
    subscriber_no, msisdn, home_no, kind, any_value(sp_code) as sp_code,
    getvariable('first_s') + getvariable('days') * 864 * (40 + pick('act percent', subscriber_no, 45))
        + second_of_day(draw('act time', subscriber_no)) as acted_s,
    acted_s + 5 * 86400 + pick('act length', subscriber_no, 35 * 86400) as resumed_s,
from spell
where kind in ('leaver', 'pauser')
group by all;

delete from spell using sp_wide_act as act
where
    spell.subscriber_no = act.subscriber_no and abs(spell.ordered_s - act.acted_s) <= 60;

update spell set ended_s = act.acted_s, end_reason = 'cancel_all'
from sp_wide_act as act
where
    act.kind = 'leaver' and spell.subscriber_no = act.subscriber_no
    and spell.ordered_s < act.acted_s and coalesce(spell.ended_s, never()) > act.acted_s;

-- Suspensions: at most one per spell; never before its third day, so that every regular spell is used first.
alter table spell add column paused_s bigint;
alter table spell add column resumed_s bigint;
alter table spell add column is_paused_by_sp_wide_act boolean default false;
update spell set
    paused_s = ordered_s + 3 * 86400 + pick('pause', spell_no, 60 * 86400),
    resumed_s = case
        when pick('resumes', spell_no, 5) > 0
            then ordered_s + 4 * 86400 + pick('pause', spell_no, 60 * 86400)
                + pick('pause length', spell_no, 50 * 86400)
    end
where pick('pauses', spell_no, 1000) < getvariable('paused_permille');
update spell set paused_s = act.acted_s, resumed_s = act.resumed_s, is_paused_by_sp_wide_act = true
from sp_wide_act as act
where
    act.kind = 'pauser' and spell.subscriber_no = act.subscriber_no
    and spell.ordered_s < act.acted_s and coalesce(spell.ended_s, never()) > act.acted_s;
update spell set paused_s = null, resumed_s = null
where paused_s >= coalesce(ended_s, getvariable('end_s'));
update spell set resumed_s = null where resumed_s >= coalesce(ended_s, getvariable('end_s'));
