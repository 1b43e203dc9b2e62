-- One broken record in some of the larger deliveries, far below the quarantine limit. It names a planted spell:
-- if it were read as use, the truth would no longer hold.
create table malformed as
with victims as (
    select msisdn, sp_code, service_code, row_number() over (order by spell_no) - 1 as place
    from spell
    where role = 'never'
),
chosen as (
    select
        extract, day, source_no, any_value(dialect) as dialect, count(*) as lines,
        pick('malformed kind', extract || source_no || '/' || day, 6) as kind,
        pick('victim', extract || source_no || '/' || day, (select greatest(count(*), 1) from victims)) as place,
    from (
        select extract, day, source_no from message_line
        union all
        select extract, day, source_no from access_line
        union all
        select extract, day, source_no from traffic_line
        union all
        select extract, day, source_no from event_line
    )
    join source using (source_no)
    group by extract, day, source_no
    having
        lines >= getvariable('malformed_from_lines')
        and pick('malformed', extract || source_no || '/' || day, 100) < getvariable('malformed_percent')
),
pieces as (
    select
        chosen.extract, chosen.day, source_no, kind,
        case when kind = 0 then substr(msisdn, 1, 7) else msisdn end as number_text, sp_code, service_code,
        case kind
            when 1 then strftime(as_day(chosen.day), '%Y-13-%d 25:00:00')
            when 2 then as_day(chosen.day - 45)::varchar || ' 12:00:00'
            else as_day(chosen.day)::varchar || ' 12:00:00'
        end as time_text,
        case when kind = 3 then '1.7' else '1' end as quantity_text,
        case when kind = 4 then '0x10' else '0' end as other_text,
    from chosen
    join victims using (place)
)
select
    extract, day, source_no, day * 86400 + 43200 as at_s,
    ['bad msisdn', 'bad time', 'too old', 'bad number', 'bad number', 'too few fields'][1 + kind] as kind,
    case
        when kind = 5 then concat_ws(',', number_text, sp_code)
        when extract = 'sms_usage'
            then concat_ws(
                ',', number_text, sp_code, service_code, 'MT', time_text, 'ok', 'content', quantity_text, other_text
            )
        when extract = 'wap_usage'
            then concat_ws(',', number_text, sp_code, service_code, time_text, 'ok', quantity_text, other_text)
        when extract = 'gprs_usage' then concat_ws(',', number_text, 'CMWAP', time_text, quantity_text, other_text)
        else concat_ws(
            ',', 'BAD-' || source_no || '-' || day, number_text, sp_code, service_code, 'cancel', time_text, 'web',
            case when kind in (3, 4) then quantity_text || other_text else '' end, '', ''
        )
    end as line,
from pieces;

insert into message_line by name
select * exclude (kind), null as measure, false as is_ghost, 0 as copy
from malformed
where extract = 'sms_usage';
insert into access_line by name
select * exclude (kind), null as measure, false as is_ghost, 0 as copy
from malformed
where extract = 'wap_usage';
insert into traffic_line by name
select * exclude (kind), null as measure, false as is_ghost, 0 as copy
from malformed
where extract = 'gprs_usage';
insert into event_line by name
select * exclude (kind), null as measure, false as is_ghost, 0 as copy
from malformed
where extract = 'relation_events';
