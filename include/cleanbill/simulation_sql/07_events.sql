-- The acts behind the spells, and the odd events every platform sends.
create macro confirmation(whom, order_s) as
    case
        when pick('confirms', whom, 100) < 3 then null
        when pick('confirms', whom, 100) < 5 then order_s + 86400 + pick('confirms late', whom, 20 * 86400)
        else order_s + 5 + pick('confirms soon', whom, 600)
    end;
create macro channel_of(whom) as ['sms', 'sms', 'wap', 'wap', 'web', 'hall', 'ivr'][1 + pick('channel', whom, 7)];

create table act as
with acts as (
    select
        'O' as letter, spell_no as number, msisdn, home_no, sp_code, service_code,
        case when replaced_code is null then 'order' else 'replace' end as action,
        ordered_s as event_s, channel_of(spell_no) as channel, confirmation(spell_no, ordered_s) as confirmed_s,
        replaced_code as old_service_code, null::varchar as finding, withdraw_day,
    from spell
    union all
    select
        'C', spell_no, msisdn, home_no, sp_code, service_code, 'cancel', ended_s, channel_of(spell_no), null, null,
        null, withdraw_day,
    from spell
    where end_reason = 'cancel'
    union all
    select
        'S', spell_no, msisdn, home_no, sp_code, service_code, 'suspend', paused_s, 'web', null, null, null,
        withdraw_day,
    from spell
    where paused_s is not null and not is_paused_by_sp_wide_act
    union all
    select
        'R', spell_no, msisdn, home_no, sp_code, service_code, ['resume', 'activate'][1 + spell_no % 2], resumed_s,
        'web', null, null, null, withdraw_day,
    from spell
    where resumed_s is not null
    union all
    select
        'W', subscriber_no, msisdn, home_no, sp_code, null,
        case kind when 'leaver' then 'cancel_all' else 'suspend_all' end, acted_s, 'hall', null, null, null, null
    from sp_wide_act
    where exists (
        select 1 from spell
        where
            spell.subscriber_no = sp_wide_act.subscriber_no
            and (spell.end_reason = 'cancel_all' or spell.is_paused_by_sp_wide_act and spell.paused_s is not null)
    )
    -- Ordered once more while open: changes nothing.
    union all
    select
        'A', spell_no, msisdn, home_no, sp_code, service_code, 'order',
        ordered_s + 30 + pick('again', spell_no, least(ended_s, getvariable('end_s')) - ordered_s - 40), 'web',
        null, null, 'already_ordered', withdraw_day,
    from spell
    where least(ended_s, getvariable('end_s')) - ordered_s > 86400 and pick('orders again', spell_no, 250) = 0
    -- Cancelled once more when closed.
    union all
    select
        'N', spell_no, msisdn, home_no, sp_code, service_code, ['cancel', 'suspend', 'resume'][1 + spell_no % 3],
        ended_s + 20 + pick('not open', spell_no, 30), 'sms', null, null, 'not_ordered', withdraw_day,
    from spell
    where
        end_reason is not null and ended_s + 60 < getvariable('end_s')
        and coalesce(next_ordered_s, never()) >= ended_s + 60
        and pick('cancels again', spell_no, 100) = 0
    -- A code no catalogue knows.
    union all
    select
        'X', subscriber_no, msisdn, home_no, '901002', 'NOWHERE', 'order',
        getvariable('first_s') + pick('nowhere', subscriber_no, getvariable('days')) * 86400
            + second_of_day(draw('nowhere time', subscriber_no)),
        'sms', null, null, 'unknown_service', null,
    from subscriber
    where pick('nowhere at all', subscriber_no, 800) = 0
),
numbered as (
    select
        upper(source.source) || '-' || letter || '-' || lpad(number::varchar, 9, '0') as event_id,
        acts.*,
        source.dialect,
        event_s % 86400 = 0 and source.dialect < 2 and day_of(event_s) > getvariable('first_day') as is_at_midnight,
        case
            when pick('event is late', letter || number, 100) = 0 then 1 + pick('event lag', letter || number, 5)
            else 0
        end as lag,
    from acts
    join source on source.source_no = acts.home_no
)
select
    *,
    day_of(event_s) - is_at_midnight::bigint
        + if(day_of(event_s) - is_at_midnight::bigint + lag <= getvariable('last_day'), lag, 0) as day,
    false as is_repeat,
from numbered;

-- An event sent twice, equal (counts once) or with other content (the first stays).
insert into act by name
select
    * replace (
        day + 1 as day,
        case when pick('repeats', number, 600) = 0 then 'conflicting' else channel end as channel,
        case when pick('repeats', number, 600) = 0 then 'conflicting_event' end as finding,
        true as is_repeat
    )
from act
where
    letter = 'O' and action = 'order' and withdraw_day is null and pick('repeats', number, 600) < 3
    and day < getvariable('last_day');
